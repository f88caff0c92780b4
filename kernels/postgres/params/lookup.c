/*
 * lookup.c -- parameters of a version by name, and their parts.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "params_internal.h"

uint32
params_hash_name(const char *name)
{
    return hash_bytes((const unsigned char *) name, (int) strlen(name));
}

ModelParam *
params_find(ModelVersion *v, const char *name)
{
    uint32 hash = params_hash_name(name);

    for (uint32 slot = hash;; slot++)
    {
        int i = v->slots[slot & (v->n_slots - 1)];

        if (i < 0)
            return NULL;
        if (v->params[i].hash == hash && strcmp(v->params[i].name, name) == 0)
            return &v->params[i];
    }
}

ModelParam *
params_require_param(ModelVersion *v, const char *name)
{
    ModelParam *p = params_find(v, name);

    if (p == NULL)
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
                errmsg("model \"%s\" has no parameter \"%s\"", v->model, name),
                errhint("SELECT name FROM llm_param WHERE model = '%s' lists them.", v->model));
    return p;
}

ParamPart *
params_require_part(ModelVersion *v, ModelParam *p, int32 token_id)
{
    for (int i = 0; i < p->n_parts; i++)
        if (p->parts[i].token_id == token_id)
            return &p->parts[i];
    ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
            errmsg("parameter \"%s\" of model \"%s\" has no part at row %d", p->name, v->model, token_id));
}

/* The rows of one part, as a view of `buffer`. */
Tensor *
params_part_tensor(ModelParam *p, const ParamPart *part, TensorBuffer *buffer)
{
    int32  dims[TENSOR_MAX_NDIM];
    size_t row = p->ndim == 0 ? 1 : p->n / Max(p->dims[0], 1);

    memcpy(dims, p->dims, sizeof(int32) * p->ndim);
    if (p->ndim > 0)
        dims[0] = part->rows;
    return tensor_wrap(p->ndim, dims, buffer, buffer->data + part->token_id * row);
}

/* pg_llm_arena_shape(model, name) -> dimensions of a parameter of the pinned version */
PG_FUNCTION_INFO_V1(pg_llm_arena_shape);
Datum
pg_llm_arena_shape(PG_FUNCTION_ARGS)
{
    ModelVersion *v = params_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    ModelParam   *p = params_require_param(v, text_to_cstring(PG_GETARG_TEXT_PP(1)));
    Datum         dims[TENSOR_MAX_NDIM];

    for (int i = 0; i < p->ndim; i++)
        dims[i] = Int32GetDatum(p->dims[i]);
    PG_RETURN_ARRAYTYPE_P(construct_array(dims, p->ndim, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}
