/*
 * leaf.c -- leaves of the tape: parameters of models, and tensors that a user wants a gradient of.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

#include "pass.h"
#include "tape_internal.h"

/* pg_llm_autograd_track_tensor(tensor): the same value, as a leaf that wants a gradient. */
PG_FUNCTION_INFO_V1(pg_llm_autograd_track_tensor);
Datum
pg_llm_autograd_track_tensor(PG_FUNCTION_ARGS)
{
    Tensor *t = PG_GETARG_TENSOR(0);
    uint32  value;

    /* the argument as it came: a read-write pointer would make the caller's value another's property */
    if (!pass_recording())
        PG_RETURN_DATUM(PG_GETARG_DATUM(0));
    PG_RETURN_TENSOR(tape_tracked_leaf(t, &value));
}

static Tensor *
param_tensor(ModelVersion *v, ModelParam *p, bool trained)
{
    Tensor *t = tensor_wrap(p->ndim, p->dims, p->data, p->data->data);

    if (pass_recording())
    {
        tensor_buffer_need(p->data);
        tape_param_leaf(t, v, p, trained);
    }
    return t;
}

/* A parameter of an adapter's base, which takes no gradient, with what the adapter adds to it. */
static Tensor *
base_tensor(ModelVersion *v, ModelParam *p)
{
    Tensor     *t = param_tensor(v->base, p, false);
    ModelParam *a = params_low(v, p->name, "a"), *b = params_low(v, p->name, "b");

    if (a != NULL && b != NULL)
    {
        MemoryContext old = MemoryContextSwitchTo(t->hdr.eoh_context);

        tensor_set_low(t, param_tensor(v, a, true), param_tensor(v, b, true), v->base_scale, pass_recording());
        MemoryContextSwitchTo(old);
    }
    return t;
}

/* pg_llm_param(model, name): the whole tensor; a leaf of the tape while recording. */
PG_FUNCTION_INFO_V1(pg_llm_param);
Datum
pg_llm_param(PG_FUNCTION_ARGS)
{
    ModelVersion *v = params_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    char         *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
    ModelParam   *of_base = params_of_base(v, name);

    if (of_base != NULL)
        PG_RETURN_TENSOR(base_tensor(v, of_base));
    PG_RETURN_TENSOR(param_tensor(v, params_require_param(v, name), true));
}

/* pg_llm_autograd_map_param(model, name, token_id, tensor, shape): a leaf known as that parameter. */
PG_FUNCTION_INFO_V1(pg_llm_autograd_map_param);
Datum
pg_llm_autograd_map_param(PG_FUNCTION_ARGS)
{
    Tensor  *t = PG_GETARG_TENSOR(3);
    IntArray shape = tensor_int_array(PG_GETARG_DATUM(4), "shape");
    uint32   value;
    char    *model = text_to_cstring(PG_GETARG_TEXT_PP(0));
    char    *name = text_to_cstring(PG_GETARG_TEXT_PP(1));

    if (strlen(model) > PARAMS_MAX_NAME || strlen(name) > PARAMS_MAX_NAME)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("names of models and parameters can have at most %d bytes", PARAMS_MAX_NAME));
    if (shape.n > TENSOR_MAX_NDIM || tensor_count((int) shape.n, shape.values) != t->n)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a tensor of shape %s cannot take shape %s", tensor_shape_text(t->ndim, t->dims),
                       tensor_shape_text((int) Min(shape.n, TENSOR_MAX_NDIM), shape.values)));
    t = tensor_wrap((int) shape.n, shape.values, t->buffer, t->data);
    if (!pass_recording())
        PG_RETURN_TENSOR(t);
    t = tape_tracked_leaf(t, &value);
    tape.values[value].model = MemoryContextStrdup(tape.context, model);
    tape.values[value].name = MemoryContextStrdup(tape.context, name);
    PG_RETURN_TENSOR(t);
}
