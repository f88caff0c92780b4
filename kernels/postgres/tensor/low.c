/*
 * low.c -- matrices to which an adapter adds one of low rank (TensorLow in tensor.h).
 */
#include "postgres.h"

#include "session/engine.h"
#include "tensor.h"

void
tensor_set_low(Tensor *t, Tensor *a, Tensor *b, double scale, bool recorded)
{
    TensorLow *low = MemoryContextAlloc(t->hdr.eoh_context, sizeof(TensorLow));

    if (t->ndim != 2 || a->ndim != 2 || b->ndim != 2 || a->dims[0] != t->dims[0] || b->dims[1] != t->dims[1] ||
        a->dims[1] != b->dims[0])
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("an adapter of shapes %s and %s does not fit a parameter of shape %s",
                       tensor_shape_text(a->ndim, a->dims), tensor_shape_text(b->ndim, b->dims),
                       tensor_shape_text(t->ndim, t->dims)));
    /* who multiplies by them, or adds them, asks for no more than their numbers */
    tensor_buffer_need(a->buffer);
    tensor_buffer_need(b->buffer);
    *low = (TensorLow){.a = a, .b = b, .scale = scale, .recorded = recorded};
    t->low = low;
}

/* The numbers of t + scale a b. */
static Tensor *
merged(const Tensor *t)
{
    llm_engine *e = pg_llm_engine();
    Tensor     *sum = tensor_new(t->ndim, t->dims);
    Tensor     *scaled = tensor_new(t->low->a->ndim, t->low->a->dims);
    size_t      rank = scaled->dims[1];

    llm_copy(e, sum->data, t->data, false, t->n);
    pg_llm_check(e);
    llm_scale(e, scaled->data, t->low->a->data, (float) t->low->scale, false, scaled->n);
    pg_llm_check(e);
    llm_gemm(e, sum->data, scaled->data, t->low->b->data, t->dims[0], t->dims[1], rank, t->dims[1], rank, t->dims[1],
             false, false, true);
    pg_llm_check(e);
    return sum;
}

void
tensor_need(Tensor *t)
{
    Tensor *sum;

    tensor_buffer_need(t->buffer);
    if (t->low == NULL)
        return;
    if (t->low->recorded)
        ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                errmsg("an adapter's matrix can only be the weight of pg_llm_linear while a pass is recorded"),
                errhint("Train the adapter's targets as linear layers, or switch recording off to read them."));
    sum = merged(t);
    tensor_buffer_release(t->buffer);
    t->buffer = tensor_buffer_retain(sum->buffer);
    t->data = sum->data;
    t->low = NULL;
}
