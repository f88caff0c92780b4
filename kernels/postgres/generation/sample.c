/*
 * sample.c -- sampling, optimizer steps, schedules and batches as plain SQL functions over the engine.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "common/pg_prng.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "tensor/buffer.h"
#include "session/engine.h"
#include "sample.h"
#include "tensor/tensor.h"

#define POLL_EVERY 65536 /* elements between two looks at pending interrupts */

/* ---- sampling ---- */

/* The last row of logits. */
static const float *
last_row(const Tensor *t, size_t *vocab)
{
    if (t->ndim < 1 || t->n == 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("logits of shape %s hold nothing to sample from", tensor_shape_text(t->ndim, t->dims)));
    *vocab = t->dims[t->ndim - 1];
    return t->data + t->n - *vocab;
}

/* Turns what core says instead of a token, or of a number of them, into an error. */
static void
check_sampling(int64 result)
{
    if (result == -2)
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory while sampling"));
    CHECK_FOR_INTERRUPTS();
    if (result == -3)
        ereport(ERROR, errcode(ERRCODE_QUERY_CANCELED), errmsg("canceling statement: sampling was interrupted"));
}

/* pg_llm_sample(logits, temperature, top_k, top_p, seed, step) -> token id, from the last row */
PG_FUNCTION_INFO_V1(pg_llm_sample);
Datum
pg_llm_sample(PG_FUNCTION_ARGS)
{
    Tensor      *logits;
    const float *row;
    size_t       vocab;
    llm_sampler  s;
    uint64       seed;
    int64        id;

    for (int i = 0; i < 4; i++)
        if (PG_ARGISNULL(i))
            PG_RETURN_NULL();
    logits = PG_GETARG_TENSOR(0);
    s.temperature = PG_GETARG_FLOAT8(1);
    s.top_k = PG_GETARG_INT32(2);
    s.top_p = PG_GETARG_FLOAT8(3);
    if (!(s.temperature >= 0.0) || s.top_k < 0 || !(s.top_p > 0.0 && s.top_p <= 1.0))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("cannot sample with temperature %g, top_k " INT64_FORMAT ", top_p %g", s.temperature, s.top_k,
                       s.top_p),
                errhint(
                    "temperature is at least 0 (0: greedy), top_k at least 0 (0: all), top_p above 0 and at most 1."));
    seed = PG_ARGISNULL(4) ? pg_prng_uint64(&pg_global_prng_state) : (uint64) PG_GETARG_INT64(4);
    s.stop = pg_llm_should_stop;
    s.arg = NULL;
    s.uniform = llm_uniform(seed, 0, PG_ARGISNULL(5) ? 0 : (uint64) PG_GETARG_INT64(5));
    row = last_row(logits, &vocab);
    id = llm_sample(row, vocab, &s);
    check_sampling(id);
    if (id < 0)
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("no logit is finite"),
                errhint("The model's weights may be damaged."));
    PG_RETURN_INT32((int32) id);
}

/* pg_llm_penalize(logits, seen, repetition, presence, frequency) -> logits, the last row changed */
PG_FUNCTION_INFO_V1(pg_llm_penalize);
Datum
pg_llm_penalize(PG_FUNCTION_ARGS)
{
    Tensor     *logits = PG_GETARG_TENSOR(0);
    IntArray    seen = tensor_int_array(PG_GETARG_DATUM(1), "seen");
    double      repetition = PG_GETARG_FLOAT8(2);
    llm_engine *e = pg_llm_engine();
    Tensor     *out;
    size_t      vocab;

    (void) last_row(logits, &vocab);
    if (!(repetition > 0.0))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the repetition penalty must be above 0, not %g", repetition));
    for (size_t i = 0; i < seen.n; i++)
    {
        if (i % POLL_EVERY == 0)
            CHECK_FOR_INTERRUPTS();
        if (seen.values[i] < 0 || (size_t) seen.values[i] >= vocab)
            ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                    errmsg("token %d is outside a vocabulary of %zu", seen.values[i], vocab));
    }
    out = tensor_new(logits->ndim, logits->dims);
    llm_copy(e, out->data, logits->data, false, logits->n);
    pg_llm_check(e);
    switch (llm_penalize(out->data + out->n - vocab, vocab, seen.values, seen.n, repetition, PG_GETARG_FLOAT8(3),
                         PG_GETARG_FLOAT8(4), pg_llm_should_stop, NULL))
    {
        case LLM_OK:
            break;
        case LLM_NO_MEMORY:
            check_sampling(-2);
            break;
        case LLM_STOPPED:
            check_sampling(-3);
            break;
    }
    PG_RETURN_TENSOR(out);
}

/* pg_llm_top_tokens(logits, k) -> (token_ids, log_probs) of the k likeliest tokens after the last row */
PG_FUNCTION_INFO_V1(pg_llm_top_tokens);
Datum
pg_llm_top_tokens(PG_FUNCTION_ARGS)
{
    TupleDesc    desc;
    Datum        values[2];
    bool         nulls[2] = {false, false};
    Tensor      *logits = PG_GETARG_TENSOR(0);
    int32        k = PG_GETARG_INT32(1);
    size_t       vocab;
    const float *row = last_row(logits, &vocab);
    int32       *ids;
    double      *log_probs;
    Datum       *elements;
    int64        n;

    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    if (k < 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("k must be at least 1, not %d", k));
    if ((size_t) k > vocab)
        k = (int32) vocab;
    if ((size_t) k > MaxAllocSize / sizeof(Datum) / 2)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("%d tokens do not fit into an array", k));
    ids = palloc(sizeof(int32) * k);
    log_probs = palloc(sizeof(double) * k);
    n = llm_top_tokens(row, vocab, k, ids, log_probs, pg_llm_should_stop, NULL);
    check_sampling(n);
    if (n == 0)
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("no logit is finite"),
                errhint("The model's weights may be damaged."));
    elements = palloc(sizeof(Datum) * n);
    for (int64 i = 0; i < n; i++)
        elements[i] = Int32GetDatum(ids[i]);
    values[0] = PointerGetDatum(construct_array(elements, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
    for (int64 i = 0; i < n; i++)
        elements[i] = Float8GetDatum(log_probs[i]);
    values[1] = PointerGetDatum(
        construct_array(elements, n, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* ---- optimizer ---- */

static Tensor *
copy_or_zeros(FunctionCallInfo fcinfo, int arg, const Tensor *like)
{
    Tensor *t = tensor_new(like->ndim, like->dims);

    if (PG_ARGISNULL(arg))
        llm_fill(pg_llm_engine(), t->data, 0.0f, t->n);
    else
    {
        Tensor     *from = PG_GETARG_TENSOR(arg);
        llm_engine *e = pg_llm_engine();

        if (from->n != like->n)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("adamw_step: the weight has shape %s, but argument %d %s",
                           tensor_shape_text(like->ndim, like->dims), arg + 1,
                           tensor_shape_text(from->ndim, from->dims)));
        llm_copy(e, t->data, from->data, false, t->n);
        pg_llm_check(e);
    }
    return t;
}

/* pg_llm_adamw_step(weight, grad, m, v, lr, beta1, beta2, eps, weight_decay, step) -> (weight, m, v) */
PG_FUNCTION_INFO_V1(pg_llm_adamw_step);
Datum
pg_llm_adamw_step(PG_FUNCTION_ARGS)
{
    TupleDesc   desc;
    Datum       values[3] = {0};
    bool        nulls[3] = {true, true, true};
    llm_engine *e = pg_llm_engine();

    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    for (int i = 4; i < 10; i++)
        if (PG_ARGISNULL(i))
            ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                    errmsg("adamw_step: the rate, the betas, eps, weight_decay and step must not be NULL"));
    if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
    {
        /* without a gradient nothing moves: a weight is never replaced by NULL */
        int from[3] = {0, 2, 3};

        for (int i = 0; i < 3; i++)
        {
            nulls[i] = PG_ARGISNULL(from[i]);
            values[i] = nulls[i] ? (Datum) 0 : PG_GETARG_DATUM(from[i]);
        }
    }
    else
    {
        Tensor   *weight = PG_GETARG_TENSOR(0);
        Tensor   *grad = copy_or_zeros(fcinfo, 1, weight);
        Tensor   *w = copy_or_zeros(fcinfo, 0, weight);
        Tensor   *m = copy_or_zeros(fcinfo, 2, weight);
        Tensor   *v = copy_or_zeros(fcinfo, 3, weight);
        llm_adamw o = {.lr = PG_GETARG_FLOAT8(4),
                       .beta1 = PG_GETARG_FLOAT8(5),
                       .beta2 = PG_GETARG_FLOAT8(6),
                       .eps = PG_GETARG_FLOAT8(7),
                       .weight_decay = PG_GETARG_FLOAT8(8),
                       .grad_scale = 1.0f};

        if (PG_GETARG_INT64(9) < 1)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("adamw_step: steps count from 1, not " INT64_FORMAT, PG_GETARG_INT64(9)));
        o.step = (uint64) PG_GETARG_INT64(9);
        if (!pg_llm_all_finite(e, grad->data, grad->n))
            ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                    errmsg("adamw_step: the gradient is not finite"));
        llm_adamw_step(e, w->data, m->data, v->data, grad->data, &o, w->n);
        pg_llm_check(e);
        values[0] = tensor_datum(w);
        values[1] = tensor_datum(m);
        values[2] = tensor_datum(v);
        nulls[0] = nulls[1] = nulls[2] = false;
    }
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* pg_llm_grad_clip(grad, clip): grad scaled so that its L2 norm is at most clip (PyTorch's formula) */
PG_FUNCTION_INFO_V1(pg_llm_grad_clip);
Datum
pg_llm_grad_clip(PG_FUNCTION_ARGS)
{
    Tensor     *grad = PG_GETARG_TENSOR(0);
    double      clip = PG_GETARG_FLOAT8(1);
    llm_engine *e = pg_llm_engine();
    Tensor     *out;
    double      scale;

    if (!(clip > 0.0))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the clipping threshold must be above 0, not %g", clip));
    if (!pg_llm_all_finite(e, grad->data, grad->n))
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("the gradient is not finite"));
    scale = Min(1.0, clip / (sqrt(llm_sum_squares(e, grad->data, grad->n)) + 1e-6));
    out = tensor_new(grad->ndim, grad->dims);
    llm_scale(e, out->data, grad->data, (float) scale, false, grad->n);
    pg_llm_check(e);
    PG_RETURN_TENSOR(out);
}

/* pg_llm_lr_schedule(step, warmup, total, lr_max, schedule, min_lr) */
PG_FUNCTION_INFO_V1(pg_llm_lr_schedule);
Datum
pg_llm_lr_schedule(PG_FUNCTION_ARGS)
{
    char        *name = text_to_cstring(PG_GETARG_TEXT_PP(4));
    llm_schedule kind;

    if (strcmp(name, "cosine") == 0)
        kind = LLM_COSINE;
    else if (strcmp(name, "linear") == 0)
        kind = LLM_LINEAR;
    else if (strcmp(name, "constant") == 0)
        kind = LLM_CONSTANT;
    else
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown schedule \"%s\"", name),
                errhint("Schedules are cosine, linear and constant."));
    if (PG_GETARG_INT64(0) < 1 || PG_GETARG_INT64(1) < 0 || PG_GETARG_INT64(2) < 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a schedule cannot have step " INT64_FORMAT ", warmup " INT64_FORMAT ", total " INT64_FORMAT,
                       PG_GETARG_INT64(0), PG_GETARG_INT64(1), PG_GETARG_INT64(2)),
                errhint("step and total must be at least 1, and warmup at least 0."));
    PG_RETURN_FLOAT8(llm_lr_schedule(kind, PG_GETARG_INT64(0), PG_GETARG_INT64(1), PG_GETARG_INT64(2),
                                     PG_GETARG_FLOAT8(3), PG_GETARG_FLOAT8(5)));
}

/* ---- batches ---- */

/*
 * The last two epochs' permutations: a batch may lie across an epoch's end. They stay for the next batch, until
 * llm_release() or, if they are large, the transaction's end.
 */
typedef struct Epoch
{
    int64 *order; /* NULL: none */
    int64  n;
    uint64 seed, epoch;
} Epoch;

static Epoch epochs[2];

#define PERMUTE_PIECE ((int64) 1 << 18) /* elements between two looks at interrupts */
#define MAX_ROWS      ((int64) 1 << 28) /* of a permutation: 2 GB of them */
#define KEPT_ROWS     ((int64) 1 << 20) /* when the transaction is over */

static size_t
forget_epoch(Epoch *slot)
{
    size_t bytes = slot->n * sizeof(int64);

    if (slot->order == NULL)
        return 0;
    pfree(slot->order);
    slot->order = NULL;
    slot->n = 0;
    tensor_buffer_unreserve(bytes);
    return bytes;
}

size_t
sample_release(void)
{
    return forget_epoch(&epochs[0]) + forget_epoch(&epochs[1]);
}

void
sample_end_xact(void)
{
    for (int i = 0; i < 2; i++)
        if (epochs[i].n > KEPT_ROWS)
            forget_epoch(&epochs[i]);
}

static const int64 *
epoch_order(int64 n, uint64 seed, uint64 epoch)
{
    Epoch *slot = &epochs[epoch % 2];
    int64 *order;

    if (slot->order != NULL && slot->n == n && slot->seed == seed && slot->epoch == epoch)
        return slot->order;
    forget_epoch(slot);
    if (!tensor_buffer_room(n * sizeof(int64)))
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a permutation of " INT64_FORMAT, n));
    if (!tensor_buffer_reserve(n * sizeof(int64)))
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a permutation of " INT64_FORMAT, n));
    PG_TRY();
    {
        order = MemoryContextAllocHuge(TopMemoryContext, n * sizeof(int64));
    }
    PG_CATCH();
    {
        tensor_buffer_unreserve(n * sizeof(int64));
        PG_RE_THROW();
    }
    PG_END_TRY();
    /* the slot's, but of an epoch that is never looked for in it: an interrupt may end this */
    *slot = (Epoch){order, n, 0, epoch + 1};
    for (int64 i = 0; i < n; i++)
    {
        order[i] = i;
        if (i % PERMUTE_PIECE == 0)
            CHECK_FOR_INTERRUPTS();
    }
    for (int64 end = n; end > 1; end -= Min(end, PERMUTE_PIECE))
    {
        llm_permutation_swaps(order, Max(1, end - PERMUTE_PIECE), end, seed, epoch);
        CHECK_FOR_INTERRUPTS();
    }
    slot->seed = seed;
    slot->epoch = epoch;
    return order;
}

static void
require_count(int64 n, const char *what)
{
    if (n < 1 || n > MAX_ROWS)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s must be between 1 and " INT64_FORMAT ", not " INT64_FORMAT, what, MAX_ROWS, n));
}

static Datum
int8_datums(Datum *ids, int n)
{
    return PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64), true, TYPALIGN_DOUBLE));
}

/* pg_llm_permutation(n, seed, epoch): 0 .. n-1 in that epoch's order */
PG_FUNCTION_INFO_V1(pg_llm_permutation);
Datum
pg_llm_permutation(PG_FUNCTION_ARGS)
{
    int64        n = PG_GETARG_INT64(0);
    Datum       *ids;
    const int64 *order;

    require_count(n, "n");
    if (n > (int64) (MaxAllocSize / sizeof(Datum) / 2))
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("a permutation of " INT64_FORMAT " does not fit into an array", n));
    order = epoch_order(n, (uint64) PG_GETARG_INT64(1), (uint64) PG_GETARG_INT64(2));
    ids = palloc(sizeof(Datum) * n);
    for (int64 i = 0; i < n; i++)
        ids[i] = Int64GetDatum(order[i]);
    CHECK_FOR_INTERRUPTS();
    PG_RETURN_DATUM(int8_datums(ids, (int) n));
}

/* pg_llm_batch(n, seed, first, size): ordinals from 1 at positions first .. of all epochs one after another */
PG_FUNCTION_INFO_V1(pg_llm_batch);
Datum
pg_llm_batch(PG_FUNCTION_ARGS)
{
    int64  n = PG_GETARG_INT64(0);
    uint64 seed = (uint64) PG_GETARG_INT64(1);
    int64  first = PG_GETARG_INT64(2);
    int32  size = PG_GETARG_INT32(3);
    Datum *ids;

    require_count(n, "n");
    require_count(size, "the batch size");
    if (first < 0 || first > PG_INT64_MAX - size || size > (int32) (MaxAllocSize / sizeof(Datum) / 2))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a batch of %d cannot begin at position " INT64_FORMAT, size, first));
    ids = palloc(sizeof(Datum) * size);
    for (int32 i = 0; i < size; i++)
    {
        int64 position = first + i;

        if (i % 1024 == 0)
            CHECK_FOR_INTERRUPTS();
        ids[i] = Int64GetDatum(epoch_order(n, seed, (uint64) (position / n))[position % n] + 1);
    }
    PG_RETURN_DATUM(int8_datums(ids, size));
}
