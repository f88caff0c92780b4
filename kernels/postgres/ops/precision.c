/*
 * precision.c -- weights in fewer bits: a copy of a parameter as bf16, int8 or int4 for passes that only read.
 *
 * A copy is made at the first use, unless a file that sessions share has it, and belongs to the parameter's buffer, so it
 * goes with the version of the model that holds it, and before the optimizer changes the weights. The float32 numbers
 * stay: embeddings, training and other settings read them, and nothing of this reaches llm_param.
 */
#include "postgres.h"

#include "params/params.h"
#include "tensor/buffer.h"
#include "tensor/tensor_view.h"
#include "session/settings.h"
#include "precision.h"

/*
 * The head, which is stored transposed, chooses among tens of thousands of tokens and is most often the embedding too: 4 bits
 * would be felt, and files of 4-bit weights hold it in more.
 */
static llm_precision
precision_of(bool transposed)
{
    return pg_llm_weights == LLM_INT4 && transposed ? LLM_INT8 : (llm_precision) pg_llm_weights;
}

static llm_packed *
make_packed(const OpValue *w, bool transposed, llm_precision precision)
{
    llm_engine *e = pg_llm_engine();
    size_t      i = w->dims[transposed ? 1 : 0];
    size_t      o = w->dims[transposed ? 0 : 1];
    llm_packed *packed;

    if (!tensor_buffer_room(llm_pack_bytes(i, o, precision)))
        packed = NULL;
    else
    {
        const float *numbers = w->data;
        float       *widened = NULL;

        if (w->buffer->unfilled)
        {
            /* of this matrix only, and for this */
            if (!tensor_buffer_room(w->n * sizeof(float)))
                ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for %s weights", op_shape(w)));
            widened = MemoryContextAllocHuge(CurrentMemoryContext, Max(w->n, 1) * sizeof(float));
            tensor_widen(widened, tensor_buffer_halves(w->buffer), w->n);
            numbers = widened;
        }
        /* not checked where it came out: an interrupt now would lose it */
        packed = llm_pack(e, numbers, i, o, transposed, precision);
        if (widened != NULL)
            pfree(widened);
        if (packed == NULL)
            pg_llm_check(e);
    }
    if (packed == NULL)
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a copy of %s weights", op_shape(w)),
                errhint("SET pg_llm.weights = 'float32' uses the weights without a copy."));
    return packed;
}

static bool
fits(const llm_packed *packed, const OpValue *w, bool transposed, llm_precision precision)
{
    return llm_packed_precision(packed) == precision &&
           llm_packed_inputs(packed) == (size_t) w->dims[transposed ? 1 : 0] &&
           llm_packed_outputs(packed) == (size_t) w->dims[transposed ? 0 : 1];
}

const llm_packed *
precision_packed(const OpCall *call, const OpValue *w, bool transposed)
{
    llm_packed  **packed;
    llm_precision precision = precision_of(transposed);

    if (precision == LLM_FLOAT32 || !call->read_only || call->pure || w->data != w->buffer->data)
        return NULL;
    packed = &w->buffer->packed[transposed ? 1 : 0];
    if (*packed == NULL || !fits(*packed, w, transposed, precision))
    {
        ModelVersion *v = params_holding(w->buffer);

        if (v == NULL)
            return NULL;
        llm_packed_destroy(*packed);
        *packed = NULL;
        *packed = params_packed_view(v, w->buffer, transposed, w->dims[transposed ? 1 : 0], w->dims[transposed ? 0 : 1],
                                     precision);
        if (*packed == NULL)
        {
            *packed = make_packed(w, transposed, precision);
            params_packed_own(v);
        }
    }
    return *packed;
}
