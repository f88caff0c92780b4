/*
 * tensor_agg.c -- the aggregates sum(tensor) and avg(tensor): elementwise over rows of one shape.
 *
 * Sums are kept in double precision in the order rows arrive, so the result is right to float32's last bit or
 * the one before it, whatever the number of rows. NULLs are skipped; no rows give NULL.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "buffer.h"
#include "tensor_view.h"

#define POLL_EVERY 65536 /* elements between two looks at pending interrupts */

typedef struct SumState
{
    int64   count;
    int     ndim;
    int32   dims[TENSOR_MAX_NDIM];
    size_t  n;
    double *sum;
} SumState;

static SumState *
new_state(MemoryContext cx, const TensorView *v)
{
    SumState *state = MemoryContextAllocZero(cx, sizeof(SumState));

    if (!tensor_buffer_room(Max(v->n, 1) * sizeof(double)))
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY),
                errmsg("out of memory for the sum of tensors of shape %s", tensor_shape_text(v->ndim, v->dims)));
    state->ndim = v->ndim;
    if (v->ndim > 0)
        memcpy(state->dims, v->dims, sizeof(int32) * v->ndim);
    state->n = v->n;
    state->sum = MemoryContextAllocExtended(cx, Max(v->n, 1) * sizeof(double), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
    return state;
}

/* Transition function of sum(tensor) and avg(tensor): adds one tensor, NULL being skipped */
PG_FUNCTION_INFO_V1(pg_llm_sum_accum);
Datum
pg_llm_sum_accum(PG_FUNCTION_ARGS)
{
    MemoryContext cx;
    SumState     *state = PG_ARGISNULL(0) ? NULL : (SumState *) PG_GETARG_POINTER(0);
    TensorView    v;

    if (!AggCheckCallContext(fcinfo, &cx))
        elog(ERROR, "pg_llm_sum_accum called in non-aggregate context");
    if (PG_ARGISNULL(1))
    {
        if (state == NULL)
            PG_RETURN_NULL();
        PG_RETURN_POINTER(state);
    }
    v = PG_GETARG_TENSOR_VIEW(1);
    if (state == NULL)
        state = new_state(cx, &v);
    else if (!tensor_same_dims(state->ndim, state->dims, v.ndim, v.dims))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("cannot aggregate tensors of shapes %s and %s", tensor_shape_text(state->ndim, state->dims),
                       tensor_shape_text(v.ndim, v.dims)),
                errhint("All rows must have the same shape; otherwise group by shape(x)."));
    for (size_t i = 0; i < v.n; i++)
    {
        if (i % POLL_EVERY == 0)
            CHECK_FOR_INTERRUPTS();
        state->sum[i] += (double) v.data[i];
    }
    state->count++;
    tensor_view_close(&v);
    PG_RETURN_POINTER(state);
}

/* The state's sums divided by `divisor`; the state stays as it is, a window may go on with it. */
static Datum
result_of(const SumState *state, double divisor)
{
    Tensor *t = tensor_new(state->ndim, state->dims);

    for (size_t i = 0; i < t->n; i++)
    {
        if (i % POLL_EVERY == 0)
            CHECK_FOR_INTERRUPTS();
        t->data[i] = tensor_float4(state->sum[i] / divisor);
    }
    PG_RETURN_TENSOR(t);
}

/* Final function of sum(tensor) */
PG_FUNCTION_INFO_V1(pg_llm_sum_final);
Datum
pg_llm_sum_final(PG_FUNCTION_ARGS)
{
    if (PG_ARGISNULL(0))
        PG_RETURN_NULL();
    return result_of((SumState *) PG_GETARG_POINTER(0), 1.0);
}

/* Final function of avg(tensor) */
PG_FUNCTION_INFO_V1(pg_llm_avg_final);
Datum
pg_llm_avg_final(PG_FUNCTION_ARGS)
{
    SumState *state;

    if (PG_ARGISNULL(0))
        PG_RETURN_NULL();
    state = (SumState *) PG_GETARG_POINTER(0);
    return result_of(state, (double) state->count);
}
