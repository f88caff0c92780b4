/*
 * mapped.c -- versions whose weights lie in a shared file (shared/shared.h) instead of this session's memory.
 *
 * Only versions for reading: one that is trained has weights of its own, which change. A version that had to be read into
 * this session's memory, because it was too young or its file could not be written, is exchanged for the file's later on;
 * the numbers are the same to the bit, and what still refers to the old memory keeps it.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "params_internal.h"
#include "session/settings.h"
#include "tensor/buffer.h"

/* ---- a version out of a mapping ---- */

/* Fills a version that is being fed, and has nothing yet. The caller's reference on the mapping becomes the version's. */
static void
fill(ModelVersion *v, SharedMapping *m)
{
    const SharedTable *t = m->table;

    v->mapping = m; /* an error from here on leaves a version that can only be closed */
    v->sealing = true;
    v->params = MemoryContextAllocHuge(v->context, sizeof(ModelParam) * (t->header.n_tensors + 1));
    for (uint32 i = 0; i < t->header.n_tensors; i++)
    {
        const SharedTensor *tensor = &t->tensors[i];
        ModelParam         *p = &v->params[v->n_params];

        memset(p, 0, sizeof(ModelParam));
        p->name = t->text + tensor->name; /* lives as long as the mapping */
        p->ndim = tensor->ndim;
        memcpy(p->dims, tensor->dims, sizeof(p->dims));
        p->n = tensor->bytes / (tensor->flags == SHARED_HALVES ? sizeof(uint16) : sizeof(float));
        p->n_parts = (int) tensor->n_parts;
        p->parts = MemoryContextAllocZero(v->context, sizeof(ParamPart) * tensor->n_parts);
        for (uint32 k = 0; k < tensor->n_parts; k++)
        {
            p->parts[k].token_id = t->parts[tensor->first_part + k].token_id;
            p->parts[k].rows = t->parts[tensor->first_part + k].rows;
        }
        p->data = shared_mapping_buffer(m, tensor);
        v->n_params++;
    }
    feed_index(v);
    v->sealing = false;
    v->ready = true;
}

/* The same parameters, by names and shapes */
static bool
same_shapes(const ModelVersion *v, const SharedTable *t)
{
    if ((uint32) v->n_params != t->header.n_tensors)
        return false;
    for (int i = 0; i < v->n_params; i++)
        if (strcmp(v->params[i].name, t->text + t->tensors[i].name) != 0 || v->params[i].ndim != t->tensors[i].ndim ||
            memcmp(v->params[i].dims, t->tensors[i].dims, sizeof(int32) * v->params[i].ndim) != 0)
            return false;
    return true;
}

/* Gives up this session's own weights for the mapping's. The caller's reference on it becomes the version's. */
static void
exchange(ModelVersion *v, SharedMapping *m)
{
    TensorBuffer **volatile mapped = NULL;

    PG_TRY();
    {
        mapped = palloc0(sizeof(TensorBuffer *) * (v->n_params + 1));
        for (int i = 0; i < v->n_params; i++)
            mapped[i] = shared_mapping_buffer(m, &m->table->tensors[i]);
    }
    PG_CATCH();
    {
        for (int i = 0; mapped != NULL && i < v->n_params; i++)
            tensor_buffer_release(mapped[i]);
        shared_mapping_release(m);
        PG_RE_THROW();
    }
    PG_END_TRY();
    /* from here on nothing can fail */
    for (int i = 0; i < v->n_params; i++)
    {
        TensorBuffer *own = v->params[i].data;

        /* Copies in fewer bits stay behind: a file of such is made of what rows show, and of nothing else. */
        v->params[i].data = mapped[i];
        tensor_buffer_release(own);
    }
    v->bytes = 0;
    v->mapping = m;
    pfree(mapped);
}

/* ---- which versions, and when ---- */

/* The mapping of the version that the rows show, from a file that is there or that can be written now. */
static SharedMapping *
find_mapping(ModelVersion *v, const SharedRows *rows, TimestampTz now)
{
    TimestampTz    old_enough = TimestampTzPlusMilliseconds(rows->newest, pg_llm_shared_age_ms);
    TimestampTz    later = TimestampTzPlusMilliseconds(now, pg_llm_shared_age_ms);
    bool           too_young = v->share_at == 0 && rows->newest != 0 && old_enough > now;
    SharedMapping *m = shared_map(rows, LLM_FLOAT32);

    /* What has been in memory for as long is old enough, whatever clock its rows were written by. */
    v->share_at = too_young ? Min(later, old_enough) : later;
    if (too_young || rows->own || (m != NULL && (pg_llm_weights != LLM_FLOAT32 || !shared_mapping_lazy(m))))
        return m;
    if (m != NULL)
        shared_mapping_release(m);
    m = shared_build_float32(rows, !v->ready); /* what is in memory already need not wait */
    if (m == NULL)
        m = shared_map(rows, LLM_FLOAT32);
    return m;
}

/* A version without numbers yet, or one in this session's memory which nobody but the caller uses */
static bool
may_share(const ModelVersion *v, TimestampTz now)
{
    if (v->training || v->dirty || v->sealing || v->mapping != NULL || !shared_enabled())
        return false;
    return v->ready ? v->known && now >= v->share_at && v->pins == 1 && v->refs == 2 + v->adapters : v->n_params == 0;
}

/* pg_llm_shared_open(model) -> whether the pinned version is ready, having looked for a shared file of its weights */
PG_FUNCTION_INFO_V1(pg_llm_shared_open);
Datum
pg_llm_shared_open(PG_FUNCTION_ARGS)
{
    char          *model = text_to_cstring(PG_GETARG_TEXT_PP(0));
    ModelVersion  *v = params_pinned(model);
    TimestampTz    now = GetCurrentTimestamp();
    SharedRows    *rows;
    SharedMapping *m = NULL;

    if (v == NULL)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("no version of model \"%s\" is pinned", model), errhint("Call pg_llm_arena_open first."));
    if (!may_share(v, now))
        PG_RETURN_BOOL(v->ready);
    rows = shared_rows_read(fcinfo, model);
    if (!v->ready)
    {
        memcpy(v->version, rows->version, SHARED_VERSION_BYTES);
        v->known = true;
    }
    /* A version in memory stays what it is, whatever the rows show by now. */
    if (rows->n > 0 && memcmp(v->version, rows->version, SHARED_VERSION_BYTES) == 0)
        m = find_mapping(v, rows, now);
    if (m == NULL)
    {
        shared_rows_free(rows);
        PG_RETURN_BOOL(v->ready);
    }
    if (!v->ready)
    {
        versions_trim(model, v);
        fill(v, m);
    }
    else if (same_shapes(v, m->table))
        exchange(v, m);
    else
        shared_mapping_release(m);
    shared_rows_free(rows);
    PG_RETURN_BOOL(v->ready);
}
