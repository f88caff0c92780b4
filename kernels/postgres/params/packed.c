/*
 * packed.c -- weights in fewer bits that lie in a shared file, one per precision beside the version's float32 file.
 *
 * A matrix is looked for in that file when it is first used. One that is not there is packed into this session's memory,
 * from the float32 mapping; as the forward pass or the pin ends, a file with all that is packed so far, by any session,
 * takes the place of the one that was there, and this session's memory is given up for it. So a file holds what has been
 * used, and a session that has used a part only takes nothing away from it.
 *
 * Who may map the float32 file may map these: they are made of its numbers. A version in this session's own memory has
 * its copies there, too.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "params_internal.h"
#include "session/settings.h"
#include "tensor/buffer.h"

static bool unpublished = false; /* some version may have copies of its own */

/* What names the version's files, without its rows: the mapping of the float32 file is the proof of having read them. */
static SharedRows
identity(const ModelVersion *v)
{
    SharedRows rows = {.model = v->model, .model_hash = shared_model_hash(v->model)};

    memcpy(rows.version, v->mapping->table->header.version, SHARED_VERSION_BYTES);
    return rows;
}

/* (inputs, outputs) of a parameter, as (in,out) or as (out,in) */
static void
packed_dims(const ModelParam *p, int which, int32 *dims)
{
    dims[0] = p->dims[which == 1 ? 1 : 0];
    dims[1] = p->dims[which == 1 ? 0 : 1];
}

static llm_packed *
view(const SharedMapping *m, const ModelParam *p, int which)
{
    int32 dims[2];

    packed_dims(p, which, dims);
    return shared_mapping_packed(m, p->name, which == 1 ? SHARED_TRANSPOSED : 0, dims);
}

/* A copy of the parameter as it is stored: not of a reshaped view of it. */
static bool
is_copy(const llm_packed *packed, const ModelParam *p, int which, llm_precision precision)
{
    int32 dims[2];

    if (packed == NULL || p->ndim != 2 || llm_packed_precision(packed) != precision)
        return false;
    packed_dims(p, which, dims);
    return llm_packed_inputs(packed) == (size_t) dims[0] && llm_packed_outputs(packed) == (size_t) dims[1];
}

/* The mapping, whose reference becomes the version's, instead of an older one and of the session's own copies. */
static void
adopt(ModelVersion *v, llm_precision precision, SharedMapping *m)
{
    SharedMapping *old = v->packs[precision];

    v->packs[precision] = m;
    for (int i = 0; i < v->n_params; i++)
        for (int which = 0; which < 2; which++)
        {
            llm_packed **packed = &v->params[i].data->packed[which];
            llm_packed  *mapped;

            if (!is_copy(*packed, &v->params[i], which, precision))
                continue;
            mapped = m == NULL ? NULL : view(m, &v->params[i], which);
            if (mapped == NULL && !llm_packed_is_view(*packed))
                continue;
            llm_packed_destroy(*packed);
            *packed = mapped; /* or it is looked for again */
        }
    if (old != NULL)
        shared_mapping_release(old);
}

/* ---- using ---- */

llm_packed *
params_packed_view(ModelVersion *v, const TensorBuffer *buffer, bool transposed, size_t inputs, size_t outputs,
                   llm_precision precision)
{
    SharedMapping *m = v->packs[precision];

    if (v->mapping == NULL || !shared_enabled())
        return NULL;
    if (m == NULL || shared_mapping_outdated(m))
    {
        SharedRows rows = identity(v);

        m = shared_map(&rows, precision);
        if (m == v->packs[precision] && m != NULL)
            shared_mapping_release(m);
        else if (m != NULL)
            adopt(v, precision, m);
    }
    for (int i = 0; m != NULL && i < v->n_params; i++)
    {
        const ModelParam *p = &v->params[i];
        int32             dims[2];

        if (p->data != buffer || p->ndim != 2)
            continue;
        packed_dims(p, transposed, dims);
        if ((size_t) dims[0] == inputs && (size_t) dims[1] == outputs)
            return view(m, p, transposed);
    }
    return NULL;
}

void
params_packed_own(ModelVersion *v)
{
    v->own_packs = true;
    unpublished = true;
}

void
packed_release(ModelVersion *v)
{
    versions_unpack(v); /* views do not outlive what they lie in, though tensors may refer to these buffers yet */
    for (int precision = 0; precision < LLM_PRECISIONS; precision++)
        if (v->packs[precision] != NULL)
        {
            shared_mapping_release(v->packs[precision]);
            v->packs[precision] = NULL;
        }
}

void
packed_forget_outdated(ModelVersion *v)
{
    for (int precision = 0; precision < LLM_PRECISIONS; precision++)
        if (v->packs[precision] != NULL && shared_mapping_outdated(v->packs[precision]))
            adopt(v, (llm_precision) precision, NULL);
}

/* ---- publishing ---- */

typedef struct Packs
{
    ModelVersion        *v;
    llm_precision        precision;
    const SharedMapping *there;
} Packs;

/* The bytes of a copy that this session has, or that the file has so far; NULL: nobody has it. */
static const void *
packed_bytes(const Packs *packs, const ModelParam *p, int which, size_t *n)
{
    const llm_packed *packed = p->data->packed[which];
    llm_packed       *shared;
    const void       *bytes;

    if (is_copy(packed, p, which, packs->precision))
        return llm_packed_data(packed, n);
    shared = p->ndim == 2 && packs->there != NULL ? view(packs->there, p, which) : NULL;
    if (shared == NULL)
        return NULL;
    bytes = llm_packed_data(shared, n);
    llm_packed_destroy(shared);
    return bytes;
}

static bool
more(SharedContent *content, const SharedMapping *there)
{
    Packs *packs = content->arg;
    bool   lacks = false;
    size_t text = strlen(packs->v->model) + 1;

    packs->there = there;
    content->n_tensors = 0;
    content->data_bytes = 0;
    for (int i = 0; i < packs->v->n_params; i++)
    {
        const ModelParam *p = &packs->v->params[i];

        for (int which = 0; which < 2; which++)
        {
            llm_packed *shared = p->ndim == 2 && there != NULL ? view(there, p, which) : NULL;
            size_t      n = 0;

            if (packed_bytes(packs, p, which, &n) != NULL)
            {
                content->n_tensors++;
                content->data_bytes += n;
                text += strlen(p->name) + 1;
                lacks |= shared == NULL;
            }
            llm_packed_destroy(shared);
        }
    }
    content->text_bytes = (uint32) text;
    return lacks;
}

static bool
write_packs(SharedWriter *w, SharedTable *t, void *arg)
{
    const Packs  *packs = arg;
    SharedTensor *tensor = t->tensors;
    uint32        text = 0;

    shared_put_text(t, &text, packs->v->model);
    for (int i = 0; i < packs->v->n_params; i++)
        for (int which = 0; which < 2; which++)
        {
            const ModelParam *p = &packs->v->params[i];
            size_t            n;
            const void       *bytes = packed_bytes(packs, p, which, &n);

            if (bytes == NULL)
                continue;
            tensor->name = shared_put_text(t, &text, p->name);
            tensor->flags = which == 1 ? SHARED_TRANSPOSED : 0;
            tensor->ndim = 2;
            packed_dims(p, which, tensor->dims);
            tensor->bytes = n;
            if (!shared_put(w, bytes, n, true, &tensor->at))
                return false;
            tensor++;
        }
    return true;
}

static bool
has_own(const ModelVersion *v, llm_precision precision)
{
    for (int i = 0; i < v->n_params; i++)
        for (int which = 0; which < 2; which++)
        {
            const llm_packed *packed = v->params[i].data->packed[which];

            if (is_copy(packed, &v->params[i], which, precision) && !llm_packed_is_view(packed))
                return true;
        }
    return false;
}

static void
publish(ModelVersion *v, llm_precision precision)
{
    Packs          packs = {.v = v, .precision = precision};
    SharedContent  content = {.precision = precision,
                              .beside = v->mapping->bytes,
                              .patient = true,
                              .more = more,
                              .write = write_packs,
                              .arg = &packs};
    SharedRows     rows = identity(v);
    SharedMapping *m = shared_build(&rows, &content);

    if (m == v->packs[precision] && m != NULL)
        shared_mapping_release(m);
    else if (m != NULL)
        adopt(v, precision, m);
}

/* Sets own_packs unless all is in files now. What failed, or was cancelled, is not tried again at once. */
static void
publish_version(ModelVersion *v, TimestampTz now)
{
    v->publish_at = TimestampTzPlusMilliseconds(now, pg_llm_shared_age_ms);
    for (int precision = LLM_BF16; precision < LLM_PRECISIONS; precision++)
        if (has_own(v, (llm_precision) precision))
            publish(v, (llm_precision) precision);
    v->own_packs = false;
    for (int precision = LLM_BF16; precision < LLM_PRECISIONS; precision++)
        v->own_packs |= has_own(v, (llm_precision) precision);
    if (!v->own_packs)
        v->publish_at = 0;
}

void
params_publish(void)
{
    MemoryContext context, old;
    ModelVersion *v = NULL;
    TimestampTz   now;
    bool          left = false;

    if (!unpublished)
        return;
    now = GetCurrentTimestamp();
    context = AllocSetContextCreate(CurrentMemoryContext, "pg_llm publishing", ALLOCSET_DEFAULT_SIZES);
    old = MemoryContextSwitchTo(context);
    while ((v = versions_next(v)) != NULL)
    {
        if (!v->own_packs)
            continue;
        if (v->mapping != NULL && shared_enabled() && now >= v->publish_at && !shared_mapping_outdated(v->mapping))
            publish_version(v, now);
        left |= v->own_packs;
    }
    unpublished = left;
    MemoryContextSwitchTo(old);
    MemoryContextDelete(context);
}
