/*
 * op_pool.c -- one row for each sequence, whether sequences lie end to end or are the axes before the last two.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "ops.h"

/* ---- pooling; ids: lengths ---- */

typedef struct Sequences
{
    size_t       n;
    const int32 *lengths;
} Sequences;

/* Those of a checked call: without lengths, each [t, d] of the axes before is one. */
static Sequences
sequences_of(const OpCall *call)
{
    const OpValue *x = &call->in[0];
    size_t         n = 1;
    int32         *lengths;

    if (call->ids.n > 0)
        return (Sequences){call->ids.n, call->ids.values};
    for (int i = 0; i < x->ndim - 2; i++)
        n *= x->dims[i];
    lengths = (int32 *) op_scratch(n);
    for (size_t b = 0; b < n; b++)
        lengths[b] = x->dims[x->ndim - 2];
    return (Sequences){n, lengths};
}

typedef void (*PoolForward)(llm_engine *, float *, const float *, const int32_t *, size_t, size_t);
typedef void (*PoolBackward)(llm_engine *, float *, bool, const float *, const int32_t *, size_t, size_t);

static void
pool_forward(OpCall *call, PoolForward kernel)
{
    const OpValue *x = &call->in[0];
    int32          dims[TENSOR_MAX_NDIM];
    Sequences      s;

    op_require_ndim(call, 0, 2);
    dims[0] = 0;
    if (call->ids.values == NULL)
    {
        memcpy(dims, x->dims, sizeof(int32) * (x->ndim - 2));
        dims[x->ndim - 2] = x->dims[x->ndim - 1];
        if (x->dims[x->ndim - 2] == 0)
            op_shape_error(call, "x [..., t, d] of at least one token t");
        op_output(call, x->ndim - 1, dims);
    }
    else
    {
        if (x->ndim != 2)
            op_shape_error(call, "x [n, d] with lengths, [..., t, d] without");
        tensor_require_lengths(call->op->name, &call->ids, op_rows(x));
        dims[0] = (int32) call->ids.n;
        dims[1] = x->dims[1];
        op_output(call, 2, dims);
    }
    if (call->out.n == 0)
        return;
    s = sequences_of(call);
    kernel(pg_llm_engine(), call->out.data, x->data, s.lengths, s.n, op_last_dim(x));
}

static void
pool_backward(const OpCall *call, const float *dout, OpGrad *din, PoolBackward kernel)
{
    const OpValue *x = &call->in[0];
    Sequences      s;

    if (din[0].data == NULL || x->n == 0)
        return;
    s = sequences_of(call);
    kernel(pg_llm_engine(), din[0].data, din[0].acc, dout, s.lengths, s.n, op_last_dim(x));
}

static void
mean_pool_forward(OpCall *call)
{
    pool_forward(call, llm_mean_pool_forward);
}

static void
mean_pool_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    pool_backward(call, dout, din, llm_mean_pool_backward);
}

static void
cls_pool_forward(OpCall *call)
{
    pool_forward(call, llm_cls_pool_forward);
}

static void
cls_pool_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    pool_backward(call, dout, din, llm_cls_pool_backward);
}

OP(mean_pool, .name = "mean_pool", .args = {TENSOR("x", "n, d"), INTEGERS("lengths", "NULL")},
   .doc =
       "The mean of each sequence's rows: [sequences, d] of x [n, d], which holds sequences of lengths tokens end to "
       "end; lengths NULL: [..., d] of x [..., t, d]. 22023: lengths do not add up to n.",
   .bytea_doc = "the mean of each sequence's rows; x (n,d) holds sequences of lengths tokens end to end, or one (NULL)",
   .forward = mean_pool_forward, .backward = mean_pool_backward);
OP(cls_pool, .name = "cls_pool", .args = {TENSOR("x", "n, d"), INTEGERS("lengths", "NULL")},
   .doc = "Each sequence's first row: [sequences, d] of x [n, d], which holds sequences of lengths tokens end to end; "
          "lengths NULL: [..., d] of x [..., t, d]. 22023: lengths do not add up to n.",
   .bytea_doc = "each sequence's first row; x (n,d) holds sequences of lengths tokens end to end, or one (NULL)",
   .forward = cls_pool_forward, .backward = cls_pool_backward);

/* ---- a pooling by its name in a model's settings ---- */

const OpDef *
op_of_pooling(const text *name)
{
    static const OpDef *const known[] = {&op_mean_pool, &op_cls_pool};
    char                     *pooling = text_to_cstring(name);

    for (size_t i = 0; i < lengthof(known); i++)
        if (strcmp(psprintf("%s_pool", pooling), known[i]->name) == 0)
            return known[i];
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("pooling \"%s\" is not known", pooling),
            errhint("Known are mean and cls."));
}

/* pg_llm_pool(x, lengths, pooling) */
PG_FUNCTION_INFO_V1(pg_llm_pool);
Datum
pg_llm_pool(PG_FUNCTION_ARGS)
{
    if (PG_ARGISNULL(2))
        PG_RETURN_NULL();
    return op_sql_call(fcinfo, op_of_pooling(PG_GETARG_TEXT_PP(2)));
}

/* pg_llm_pool_backward(dout, x, lengths, pooling) -> dx */
PG_FUNCTION_INFO_V1(pg_llm_pool_backward);
Datum
pg_llm_pool_backward(PG_FUNCTION_ARGS)
{
    if (PG_ARGISNULL(3))
        PG_RETURN_NULL();
    return op_sql_backward(fcinfo, op_of_pooling(PG_GETARG_TEXT_PP(3)));
}
