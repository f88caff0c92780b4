/*
 * adapter.c -- versions of adapters: the rows of an adapter are its own factors alone, and every other parameter is its
 * base's, which nobody changes.
 *
 * An adapter's version holds its base's, a version for reading like any other, mapped if it can be. So all adapters of a
 * base have its weights in common, and what trains, sums up or writes back a version finds the factors only.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "params_internal.h"
#include "tensor/tensor_view.h"

ModelParam *
params_of_base(ModelVersion *v, const char *name)
{
    return v->base == NULL || params_find(v, name) != NULL ? NULL : params_find(v->base, name);
}

ModelParam *
params_low(ModelVersion *v, const char *name, const char *factor)
{
    char       *low = psprintf("%s.lora_%s", name, factor);
    ModelParam *p = params_find(v, low);

    pfree(low);
    return p;
}

void
adapter_forget_base(ModelVersion *v)
{
    if (v->base == NULL)
        return;
    v->base->adapters--;
    params_release(v->base);
    v->base = NULL;
}

/* pg_llm_arena_base(model, base, scale): both pinned; the model is an adapter of that version, whose factors count so much */
PG_FUNCTION_INFO_V1(pg_llm_arena_base);
Datum
pg_llm_arena_base(PG_FUNCTION_ARGS)
{
    ModelVersion *v = params_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    ModelVersion *base = params_require(text_to_cstring(PG_GETARG_TEXT_PP(1)));

    if (v == base || base->base != NULL || v->adapters > 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("model \"%s\" cannot be the base of model \"%s\"", base->model, v->model),
                errhint("A base is a model with weights of its own, and has no base itself."));
    if (base->dirty || base->trainers > 0)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("model \"%s\", the base of model \"%s\", is being trained in this session", base->model,
                       v->model));
    v->base_scale = PG_GETARG_FLOAT8(2);
    if (v->base != base)
    {
        adapter_forget_base(v);
        v->base = params_retain(base);
        base->adapters++;
    }
    PG_RETURN_VOID();
}

/* ---- what a base is known by ---- */

#define HASH_PIECE 65536 /* numbers */

static void
hash_add(pg_cryptohash_ctx *hash, const void *bytes, size_t n)
{
    if (pg_cryptohash_update(hash, bytes, n) < 0)
        ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not hash: %s", pg_cryptohash_error(hash)));
}

/* Name, shape and float32 numbers, whether they are stored as such or as bf16, and however in parts. */
static void
hash_param(pg_cryptohash_ctx *hash, const ModelParam *p, float *widened)
{
    hash_add(hash, p->name, strlen(p->name) + 1);
    hash_add(hash, &p->ndim, sizeof(p->ndim));
    hash_add(hash, p->dims, sizeof(int32) * p->ndim);
    for (size_t from = 0; from < p->n; from += HASH_PIECE)
    {
        size_t       n = Min(p->n - from, HASH_PIECE);
        const float *numbers = p->data->data + from;

        if (p->data->unfilled)
        {
            tensor_widen(widened, tensor_buffer_halves(p->data) + from, n);
            numbers = widened;
        }
        hash_add(hash, numbers, n * sizeof(float));
        CHECK_FOR_INTERRUPTS();
    }
}

/* pg_llm_arena_sha256(model) -> SHA-256, hexadecimal, of the pinned version's parameters by name */
PG_FUNCTION_INFO_V1(pg_llm_arena_sha256);
Datum
pg_llm_arena_sha256(PG_FUNCTION_ARGS)
{
    ModelVersion      *v = params_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    pg_cryptohash_ctx *hash;
    float             *widened;
    StringInfoData     hex;

    if (!v->hashed)
    {
        hash = pg_cryptohash_create(PG_SHA256);
        if (hash == NULL || pg_cryptohash_init(hash) < 0)
            ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a hash"));
        widened = palloc(HASH_PIECE * sizeof(float));
        for (int i = 0; i < v->n_params; i++)
            hash_param(hash, &v->params[i], widened);
        StaticAssertStmt(sizeof(v->sha256) == PG_SHA256_DIGEST_LENGTH, "a version's hash is a SHA-256");
        if (pg_cryptohash_final(hash, v->sha256, sizeof(v->sha256)) < 0)
            ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not hash: %s", pg_cryptohash_error(hash)));
        pg_cryptohash_free(hash);
        pfree(widened);
        v->hashed = !v->dirty && v->trainers == 0;
    }
    initStringInfo(&hex);
    for (size_t i = 0; i < sizeof(v->sha256); i++)
        appendStringInfo(&hex, "%02x", v->sha256[i]);
    PG_RETURN_TEXT_P(cstring_to_text_with_len(hex.data, hex.len));
}
