/*
 * versions.c -- the versioned parameter cache: versions of models' parameters, their life and their states. pins.c says
 * who uses which, feed.c fills them, train.c changes them, write_back.c hands them to the table, lookup.c finds
 * parameters in them.
 *
 * States of a version, and which of SQL's functions pg_llm_* may be called in each (anything else is 55000, "not in
 * memory" or "not being fed"):
 *
 *   none    -- arena_open --> feeding, or ready when memory has that version already
 *   feeding -- arena_put --> feeding; arena_seal --> ready, or failed when it raises an error
 *   failed  -- only arena_discard and arena_close: open it anew
 *   ready   -- param, arena_shape, arena_data, _m, _v, _grad, grad_norms, zero_grad, gen_open and forward passes
 *              --> ready; with a pin for training also adamw --> changed, and saved --> ready
 *   changed -- as ready; adamw --> changed; saved --> ready, under the new fingerprint; not found by arena_open
 *
 * arena_keep makes a version of a training run survive the end of its pins, changed or not, through commits; only
 * arena_open_run of that run and step finds it while it is changed (ahead.c).
 *
 * arena_close takes back the newest arena_open of the model by this role, discard marks a version as changed; both do
 * nothing where there is nothing to close. A version goes with its last pin unless it is ready. A rollback of what
 * changed weights makes the version failed; one that takes gradients back which others were added to marks them as lost
 * until zero_grad, so that no optimizer step is made with a part of them. gen_open needs weights that nobody may change.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "params_internal.h"
#include "session/engine.h"
#include "session/settings.h"
#include "tensor/buffer.h"

#define MAX_VERSIONS 64 /* in the cache that nobody uses */

static ModelVersion *versions = NULL;
static uint64        clock_ticks = 0;

static void
free_version(ModelVersion *v)
{
    tensor_buffer_training(-(int) v->training);
    adapter_forget_base(v);
    packed_release(v);
    for (int i = 0; i < v->n_params; i++)
    {
        for (int part = 0; part < v->params[i].n_parts; part++)
            for (int which = 0; which < 3; which++)
                tensor_buffer_release(v->params[i].parts[part].fed[which]);
        tensor_buffer_release(v->params[i].data);
        tensor_buffer_release(v->params[i].grad);
        tensor_buffer_release(v->params[i].sum);
        tensor_buffer_release(v->params[i].m);
        tensor_buffer_release(v->params[i].v);
    }
    if (v->mapping != NULL)
        shared_mapping_release(v->mapping);
    MemoryContextDelete(v->context);
}

ModelVersion *
params_retain(ModelVersion *v)
{
    v->refs++;
    return v;
}

void
params_release(ModelVersion *v)
{
    if (v != NULL && --v->refs == 0)
        free_version(v);
}

void
versions_forget(ModelVersion *v)
{
    ModelVersion **link = &versions;

    while (*link != NULL && *link != v)
        link = &(*link)->next;
    if (*link == v)
        *link = v->next;
    if (v->cached)
    {
        v->cached = false;
        params_release(v);
    }
}

ModelVersion *
versions_new(const char *model, const char *fingerprint, int len, bool training)
{
    MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_llm model version", ALLOCSET_SMALL_SIZES);
    ModelVersion *v = MemoryContextAllocZero(context, sizeof(ModelVersion));

    v->context = context;
    v->model = MemoryContextStrdup(context, model);
    v->fingerprint = MemoryContextAlloc(context, len + 1);
    memcpy(v->fingerprint, fingerprint, len);
    v->fingerprint_len = len;
    v->training = training;
    v->user = GetUserId();
    v->refs = 1;
    v->cached = true;
    v->last_used = ++clock_ticks;
    /* from here on nothing can fail */
    MemoryContextSetParent(context, TopMemoryContext);
    tensor_buffer_training(training);
    v->next = versions;
    versions = v;
    return v;
}

static bool
has_fingerprint(const ModelVersion *v, const char *fingerprint, int len)
{
    return v->fingerprint_len == len && memcmp(v->fingerprint, fingerprint, len) == 0;
}

static bool
is_lazy(const ModelVersion *v)
{
    for (int i = 0; i < v->n_params; i++)
        if (v->params[i].data->unfilled)
            return true;
    return false;
}

/* A guess at a fingerprint must not open a version: only who has read the rows, or fed them, gets them from memory. */
ModelVersion *
versions_find(const char *model, const char *fingerprint, int len, bool training)
{
    for (ModelVersion *v = versions; v != NULL; v = v->next)
    {
        if (!v->ready || v->dirty || v->user != GetUserId() || strcmp(v->model, model) != 0 ||
            !has_fingerprint(v, fingerprint, len))
            continue;
        /* Of numbers in bf16 a session that computes in float32 would make its own: there may be a file of them. */
        if (!training && pg_llm_weights == LLM_FLOAT32 && is_lazy(v))
            continue;
        /* one who changes it shares it with nobody */
        if (training ? !v->training || v->pins > 0 || v->readers > 0 || v->adapters > 0 : v->trainers > 0)
            continue;
        return v;
    }
    return NULL;
}

ModelVersion *
versions_find_kept(const char *model, const char *fingerprint, int len, int64 run_id, int64 log_id)
{
    for (ModelVersion *v = versions; v != NULL; v = v->next)
        if (v->kept && v->ready && v->training && v->run_id == run_id && v->log_id == log_id &&
            v->user == GetUserId() && v->pins == 0 && v->readers == 0 && v->adapters == 0 &&
            has_fingerprint(v, fingerprint, len) && strcmp(v->model, model) == 0)
            return v;
    return NULL;
}

void
versions_forget_kept(const char *model)
{
    for (ModelVersion *v = versions, *next; v != NULL; v = next)
    {
        next = v->next;
        if (v->kept && v->pins == 0 && v->user == GetUserId() && strcmp(v->model, model) == 0)
            versions_forget(v);
    }
}

/* Whoever kept them is gone. What room they take is the cache's from now on. */
void
versions_let_go(Portal holder)
{
    bool any = false;

    for (ModelVersion *v = versions; v != NULL; v = v->next)
        if (v->holder != NULL && (holder == NULL || v->holder == holder))
        {
            v->holder = NULL;
            any = true;
        }
    if (any)
        versions_trim(NULL, NULL);
}

void
versions_use(ModelVersion *v)
{
    v->last_used = ++clock_ticks;
}

ModelVersion *
versions_next(ModelVersion *v)
{
    return v == NULL ? versions : v->next;
}

/* What a version holds, with copies of its weights in fewer bits. */
static size_t
version_bytes(const ModelVersion *v)
{
    size_t bytes = v->bytes;

    for (int i = 0; i < v->n_params; i++)
        if (v->params[i].data != NULL)
            for (int which = 0; which < 2; which++)
            {
                const llm_packed *packed = v->params[i].data->packed[which];

                bytes += packed == NULL || llm_packed_is_view(packed) ? 0 : llm_packed_bytes(packed);
            }
    return bytes;
}

void
versions_unpack(ModelVersion *v)
{
    for (int i = 0; i < v->n_params; i++)
        if (v->params[i].data != NULL)
            tensor_buffer_unpack(v->params[i].data);
}

/*
 * Drops versions nobody uses: this user's outdated ones of `model`, and the least recently used above
 * pg_llm.cache_size.
 */
void
versions_trim(const char *model, const ModelVersion *keep)
{
    for (;;)
    {
        ModelVersion *oldest = NULL;
        size_t        bytes = 0;
        int           unused = 0;
        bool          outdated = false;

        for (ModelVersion *v = versions; v != NULL; v = v->next)
        {
            bytes += version_bytes(v);
            if (v == keep || v->refs > 1 || v->holder != NULL)
                continue;
            unused++;
            if (model != NULL && v->user == GetUserId() &&
                (strcmp(v->model, model) == 0 || (v->base != NULL && strcmp(v->base->model, model) == 0)))
            {
                oldest = v;
                outdated = true;
                break;
            }
            if (oldest == NULL || v->last_used < oldest->last_used)
                oldest = v;
        }
        if (oldest == NULL ||
            (!outdated && unused <= MAX_VERSIONS && bytes <= (size_t) pg_llm_cache_size_mb * 1024 * 1024))
            return;
        versions_forget(oldest);
    }
}

size_t
params_forget_unused(void)
{
    size_t bytes = 0;

    /* Adapters first: nobody else may use their bases. */
    for (int pass = 0; pass < 2; pass++)
        for (ModelVersion *v = versions, *next; v != NULL; v = next)
        {
            next = v->next;
            if (v->refs != 1 || (pass == 0 && v->base == NULL))
                continue;
            bytes += version_bytes(v);
            versions_forget(v);
        }
    return bytes;
}

/* ---- rollbacks ---- */

void
versions_touch(ModelVersion *v)
{
    SubTransactionId current = GetCurrentSubTransactionId();

    if (v->touched == current)
        return;
    v->had_grads = v->grads_lost;
    for (int i = 0; i < v->n_params && !v->had_grads; i++)
        v->had_grads = v->params[i].has_grad || v->params[i].has_sum;
    v->touched = current;
}

/*
 * What a rollback undoes in the tables it cannot undo here, so it is thrown away: gradients that it reached, and
 * weights that the optimizer had changed.
 */
static void
undo(ModelVersion *v)
{
    for (int i = 0; i < v->n_params; i++)
        v->params[i].has_grad = v->params[i].has_sum = false;
    v->grads_lost = v->had_grads;
    /* What an earlier transaction changed and kept is as it left it. */
    if (v->dirty && (v->changed || !v->kept))
    {
        v->undone = v->ready;
        v->ready = false;
    }
}

/* An idle session keeps no version whose file is gone: nobody else shares its pages any more. */
void
versions_forget_outdated(void)
{
    for (int pass = 0; pass < 2; pass++)
        for (ModelVersion *v = versions, *next; v != NULL; v = next)
        {
            next = v->next;
            if (v->refs != 1)
                continue;
            if (pass == 0 && v->base != NULL && v->base->mapping != NULL && shared_mapping_outdated(v->base->mapping))
                versions_forget(v);
            else if (pass == 1 && v->mapping != NULL && shared_mapping_outdated(v->mapping))
                versions_forget(v);
            else if (pass == 1 && v->mapping != NULL)
                packed_forget_outdated(v);
        }
}

/* Pins that are yet to end take the version with them. */
static void
forget_undone(ModelVersion *v)
{
    if (v->undone && v->pins == 0)
        versions_forget(v);
}

void
versions_end_xact(bool commit)
{
    for (ModelVersion *v = versions, *next; v != NULL; v = next)
    {
        next = v->next;
        if (!commit && v->touched != InvalidSubTransactionId)
            undo(v);
        v->touched = InvalidSubTransactionId;
        v->changed = false;
        forget_undone(v);
    }
}

void
versions_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit)
{
    for (ModelVersion *v = versions, *next; v != NULL; v = next)
    {
        next = v->next;
        if (v->touched != mine)
            continue;
        if (!commit)
            undo(v);
        v->touched = parent;
        forget_undone(v);
    }
}
