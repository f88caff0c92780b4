/*
 * op_broadcast.c -- NumPy's broadcasting, and its gradient: summing back to an operand's shape.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "ops.h"

/* The broadcast shape of a call's two inputs; returns its number of dimensions. */
int
op_broadcast_dims(const OpCall *call, int32 *dims)
{
    const OpValue *a = &call->in[0];
    const OpValue *b = &call->in[1];
    int            ndim = Max(a->ndim, b->ndim);

    for (int i = 0; i < ndim; i++)
    {
        int   ia = i - (ndim - a->ndim);
        int   ib = i - (ndim - b->ndim);
        int32 da = ia < 0 ? 1 : a->dims[ia];
        int32 db = ib < 0 ? 1 : b->dims[ib];

        if (da != db && da != 1 && db != 1)
            op_shape_error(call, "shapes that are equal, or 1, from the last axis on (broadcasting)");
        dims[i] = da == 1 ? db : da;
    }
    return ndim;
}

static bool
same_dims(const OpValue *v, int ndim, const int32 *dims)
{
    return v->ndim == ndim && memcmp(v->dims, dims, sizeof(int32) * ndim) == 0;
}

/* Copies v into out along axis `axis` on; the last axes that agree are copied as one block. */
static void
spread(float **out, const float *in, const OpValue *v, int ndim, const int32 *dims, int axis, size_t in_count,
       size_t out_count)
{
    int   vi = axis - (ndim - v->ndim);
    int32 dv;

    if (in_count == out_count)
    {
        memcpy(*out, in, out_count * sizeof(float));
        *out += out_count;
        return;
    }
    if (in_count == 1)
    {
        llm_fill(pg_llm_engine(), *out, *in, out_count);
        *out += out_count;
        return;
    }
    dv = vi < 0 ? 1 : v->dims[vi];
    for (int32 i = 0; i < dims[axis]; i++)
    {
        CHECK_FOR_INTERRUPTS();
        spread(out, in + (dv == 1 ? 0 : i * (in_count / dv)), v, ndim, dims, axis + 1, in_count / dv,
               out_count / dims[axis]);
    }
}

/* v's data in the shape dims; v's own data when it has that shape already. */
const float *
op_broadcast_to(const OpValue *v, int ndim, const int32 *dims)
{
    size_t n;
    float *out;
    float *at;

    if (same_dims(v, ndim, dims))
        return v->data;
    n = tensor_count(ndim, dims);
    out = at = op_scratch(n);
    if (n > 0)
        spread(&at, v->data, v, ndim, dims, 0, v->n, n);
    return out;
}

/* grad (+)= dout, summed over the axes along which v was broadcast, first axis first. */
void
op_reduce_to(const OpValue *v, OpGrad grad, const float *dout, int ndim, const int32 *dims)
{
    llm_engine  *e = pg_llm_engine();
    int32        shape[TENSOR_MAX_NDIM];
    size_t       n = tensor_count(ndim, dims);
    const float *from = dout;

    if (grad.data == NULL)
        return;
    memcpy(shape, dims, sizeof(int32) * ndim);
    for (int axis = 0; axis < ndim && n != v->n; axis++)
    {
        int    vi = axis - (ndim - v->ndim);
        int32  dv = vi < 0 ? 1 : v->dims[vi];
        size_t outer = 1;
        size_t inner = 1;
        float *to;

        if (dv == shape[axis])
            continue;
        for (int i = 0; i < axis; i++)
            outer *= shape[i];
        for (int i = axis + 1; i < ndim; i++)
            inner *= shape[i];
        to = op_scratch(outer * inner);
        for (size_t o = 0; o < outer; o++)
        {
            CHECK_FOR_INTERRUPTS();
            llm_sum_rows(e, to + o * inner, false, from + o * shape[axis] * inner, shape[axis], inner);
        }
        shape[axis] = 1;
        from = to;
        n = outer * inner;
    }
    llm_copy(e, grad.data, from, grad.acc, v->n);
}
