/*
 * op_shape.c -- ops that move numbers without changing them (reshape, transpose, slice, concat, last), and the
 * reductions sum and mean.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/memutils.h"

#include "ops.h"

/* An axis counted from the front, or from the back when negative. */
static int
require_axis(const OpCall *call, int64 axis)
{
    int ndim = call->in[0].ndim;

    if (axis < -ndim || axis >= ndim)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: axis " INT64_FORMAT " does not exist in shape %s", call->op->name, axis,
                       op_shape(&call->in[0])));
    return (int) (axis < 0 ? axis + ndim : axis);
}

/* Numbers per step of `axis` and how often that axis is walked. */
static void
axis_blocks(const OpValue *v, int axis, size_t *outer, size_t *inner)
{
    *outer = *inner = 1;
    for (int i = 0; i < axis; i++)
        *outer *= v->dims[i];
    for (int i = axis + 1; i < v->ndim; i++)
        *inner *= v->dims[i];
}

/* A small block is copied at once, a large one so that a cancel need not wait for its end. */
static void
copy_block(llm_engine *e, float *out, const float *x, size_t n)
{
    if (n <= 1 << 18)
        memcpy(out, x, n * sizeof(float));
    else
        llm_copy(e, out, x, false, n);
}

/* ---- reshape ---- */

static void
reshape_forward(OpCall *call)
{
    int32  dims[TENSOR_MAX_NDIM];
    int    infer = -1;
    size_t known = 1;

    if (call->ids.ndim > 1 || call->ids.n > TENSOR_MAX_NDIM)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("reshape: a shape is a list of at most %d sizes", TENSOR_MAX_NDIM));
    for (size_t i = 0; i < call->ids.n; i++)
    {
        dims[i] = call->ids.values[i];
        if (dims[i] == -1 && infer < 0)
            infer = (int) i;
        else if (dims[i] < 0)
            op_shape_error(call, "sizes of at least 0, at most one of them -1");
        else
            known *= dims[i];
        if (known > TENSOR_MAX_FLAT_ELEMENTS * 16)
            op_shape_error(call, "a shape with as many elements");
    }
    if (infer >= 0 && known > 0 && call->in[0].n % known == 0)
    {
        dims[infer] = (int32) (call->in[0].n / known);
        known *= dims[infer];
    }
    if (known != call->in[0].n || (infer >= 0 && dims[infer] == -1))
        op_shape_error(call, "a shape with as many elements");
    op_output(call, (int) call->ids.n, dims);
    llm_copy(pg_llm_engine(), call->out.data, call->in[0].data, false, call->in[0].n);
}

/* The gradient of every op that only copies the whole input. */
static void
copy_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    if (din[0].data != NULL)
        llm_copy(pg_llm_engine(), din[0].data, dout, din[0].acc, call->in[0].n);
}

/* ---- transpose of the last two axes ---- */

static void
transpose_matrices(float *out, const float *x, size_t count, size_t rows, size_t cols)
{
    llm_engine *e = pg_llm_engine();

    for (size_t i = 0; i < count; i++)
    {
        CHECK_FOR_INTERRUPTS();
        llm_transpose(e, out + i * rows * cols, x + i * rows * cols, rows, cols);
    }
}

static void
transpose_forward(OpCall *call)
{
    const OpValue *x = &call->in[0];
    int32          dims[TENSOR_MAX_NDIM];
    int            n = x->ndim;

    op_require_ndim(call, 0, 2);
    memcpy(dims, x->dims, sizeof(int32) * n);
    dims[n - 2] = x->dims[n - 1];
    dims[n - 1] = x->dims[n - 2];
    op_output(call, n, dims);
    if (x->n > 0)
        transpose_matrices(call->out.data, x->data, x->n / ((size_t) dims[n - 1] * dims[n - 2]), dims[n - 1],
                           dims[n - 2]);
}

static void
transpose_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    const OpValue *out = &call->out;
    size_t         rows;
    size_t         cols;
    float         *d;

    if (din[0].data == NULL || out->n == 0)
        return;
    rows = out->dims[out->ndim - 2];
    cols = out->dims[out->ndim - 1];
    d = op_scratch(out->n);
    transpose_matrices(d, dout, out->n / (rows * cols), rows, cols);
    llm_copy(pg_llm_engine(), din[0].data, d, din[0].acc, out->n);
}

/* ---- slice: x[..., start:stop, ...] along one axis; ints are axis, start, stop ---- */

static void
slice_forward(OpCall *call)
{
    const OpValue *x = &call->in[0];
    int            axis = require_axis(call, call->ints[0]);
    int64          start = call->ints[1];
    int64          stop = call->ints[2];
    llm_engine    *e = pg_llm_engine();
    int32          dims[TENSOR_MAX_NDIM];
    size_t         outer, inner, width;

    start = Min(Max(start < 0 ? start + x->dims[axis] : start, 0), x->dims[axis]);
    stop = Min(Max(stop < 0 ? stop + x->dims[axis] : stop, start), x->dims[axis]);
    call->ints[0] = axis;
    call->ints[1] = start;
    call->ints[2] = stop;
    memcpy(dims, x->dims, sizeof(int32) * x->ndim);
    dims[axis] = (int32) (stop - start);
    op_output(call, x->ndim, dims);
    axis_blocks(x, axis, &outer, &inner);
    width = (size_t) (stop - start) * inner;
    for (size_t o = 0; o < outer; o++)
    {
        CHECK_FOR_INTERRUPTS();
        copy_block(e, call->out.data + o * width, x->data + (o * x->dims[axis] + start) * inner, width);
    }
}

static void
slice_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    const OpValue *x = &call->in[0];
    llm_engine    *e = pg_llm_engine();
    int            axis = (int) call->ints[0];
    size_t         outer, inner, width;

    if (din[0].data == NULL)
        return;
    axis_blocks(x, axis, &outer, &inner);
    width = (size_t) (call->ints[2] - call->ints[1]) * inner;
    if (!din[0].acc)
        llm_fill(e, din[0].data, 0.0f, x->n);
    for (size_t o = 0; o < outer; o++)
    {
        CHECK_FOR_INTERRUPTS();
        llm_copy(e, din[0].data + (o * x->dims[axis] + call->ints[1]) * inner, dout + o * width, true, width);
    }
}

/* ---- concat of two tensors along an axis ---- */

static void
concat_forward(OpCall *call)
{
    const OpValue *a = &call->in[0];
    const OpValue *b = &call->in[1];
    llm_engine    *e = pg_llm_engine();
    int            axis = require_axis(call, call->ints[0]);
    int32          dims[TENSOR_MAX_NDIM];
    size_t         outer, inner, wa, wb;

    memcpy(dims, a->dims, sizeof(int32) * a->ndim);
    if (a->ndim != b->ndim)
        op_shape_error(call, "shapes that agree but for the axis");
    for (int i = 0; i < a->ndim; i++)
        if (i != axis && a->dims[i] != b->dims[i])
            op_shape_error(call, "shapes that agree but for the axis");
    if ((int64) a->dims[axis] + b->dims[axis] > INT_MAX)
        op_shape_error(call, "an axis of at most 2147483647 in all");
    call->ints[0] = axis;
    dims[axis] += b->dims[axis];
    op_output(call, a->ndim, dims);
    axis_blocks(a, axis, &outer, &inner);
    wa = a->dims[axis] * inner;
    wb = b->dims[axis] * inner;
    for (size_t o = 0; o < outer; o++)
    {
        CHECK_FOR_INTERRUPTS();
        copy_block(e, call->out.data + o * (wa + wb), a->data + o * wa, wa);
        copy_block(e, call->out.data + o * (wa + wb) + wa, b->data + o * wb, wb);
    }
}

static void
concat_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    llm_engine *e = pg_llm_engine();
    size_t      outer, inner, width[2], offset[2];

    axis_blocks(&call->in[0], (int) call->ints[0], &outer, &inner);
    for (int i = 0; i < 2; i++)
        width[i] = call->in[i].dims[call->ints[0]] * inner;
    offset[0] = 0;
    offset[1] = width[0];
    for (int i = 0; i < 2; i++)
        for (size_t o = 0; o < outer && din[i].data != NULL; o++)
        {
            CHECK_FOR_INTERRUPTS();
            llm_copy(e, din[i].data + o * width[i], dout + o * (width[0] + width[1]) + offset[i], din[i].acc, width[i]);
        }
}

/* ---- last: x (..., t, d) -> (..., 1, d), the last position ---- */

static void
last_forward(OpCall *call)
{
    op_require_ndim(call, 0, 2);
    if (call->in[0].dims[call->in[0].ndim - 2] == 0)
        op_shape_error(call, "at least one position");
    call->ints[0] = -2;
    call->ints[1] = -1;
    call->ints[2] = INT_MAX;
    slice_forward(call);
}

/* ---- sum and mean over all elements ---- */

static void
sum_forward(OpCall *call)
{
    double sum = llm_sum(pg_llm_engine(), call->in[0].data, call->in[0].n);

    *op_output(call, 0, NULL) = (float) sum;
}

static void
mean_forward(OpCall *call)
{
    double sum = llm_sum(pg_llm_engine(), call->in[0].data, call->in[0].n);

    *op_output(call, 0, NULL) = (float) (sum / (double) call->in[0].n);
}

static void
spread_gradient(const OpCall *call, float d, OpGrad din)
{
    size_t n = call->in[0].n;
    float *all;

    if (din.data == NULL)
        return;
    if (!din.acc)
    {
        llm_fill(pg_llm_engine(), din.data, d, n);
        return;
    }
    all = op_scratch(n);
    llm_fill(pg_llm_engine(), all, d, n);
    llm_copy(pg_llm_engine(), din.data, all, true, n);
}

static void
sum_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    spread_gradient(call, dout[0], din[0]);
}

static void
mean_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    spread_gradient(call, dout[0] / (float) call->in[0].n, din[0]);
}

OP(reshape, .name = "reshape", .args = {TENSOR("x", NULL), INTEGERS("shape")},
   .doc = "The same elements in another shape; one size may be -1 and is then inferred.", .forward = reshape_forward,
   .backward = copy_backward);
OP(transpose, .name = "transpose", .args = {TENSOR("x", "src: rows, cols")}, .doc = "x with its last two axes swapped.",
   .bytea_doc = "(rows,cols) -> (cols,rows)", .forward = transpose_forward, .backward = transpose_backward);
OP(slice, .name = "slice", .args = {TENSOR("x", NULL), INTEGER("axis"), INTEGER("start"), INTEGER("stop")},
   .doc = "x[start:stop] along an axis; negative and out-of-range bounds as in Python.", .forward = slice_forward,
   .backward = slice_backward);
OP(concat, .name = "concat", .args = {TENSOR("a", NULL), TENSOR("b", NULL), INTEGER("axis")},
   .doc = "a and b joined along an axis.", .forward = concat_forward, .backward = concat_backward);
OP(last, .name = "last", .args = {TENSOR("x", NULL)}, .doc = "The last position: x [..., t, d] to [..., 1, d].",
   .forward = last_forward, .backward = slice_backward);
OP(sum, .name = "sum", .args = {TENSOR("x", "= n")}, .doc = "Sum of all elements, 0-d.",
   .bytea_doc = "sum of all elements", .forward = sum_forward, .backward = sum_backward, .is_number = true);
OP(mean, .name = "mean", .args = {TENSOR("x", "= n")}, .doc = "Mean of all elements, 0-d.",
   .bytea_doc = "mean of all elements", .forward = mean_forward, .backward = mean_backward, .is_number = true);

/* pg_llm_transpose(src, rows, cols): the same for a caller who states the shape. */
PG_FUNCTION_INFO_V1(pg_llm_transpose_checked);
Datum
pg_llm_transpose_checked(PG_FUNCTION_ARGS)
{
    Tensor *x = PG_GETARG_TENSOR(0);
    int32   rows = PG_GETARG_INT32(1);
    int32   cols = PG_GETARG_INT32(2);

    if (x->ndim != 2 || x->dims[0] != rows || x->dims[1] != cols)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("transpose: the tensor has shape %s, not [%d,%d]", tensor_shape_text(x->ndim, x->dims), rows,
                       cols));
    PG_RETURN_TENSOR(op_run1(&op_transpose, x));
}
