/*
 * kept.c -- the key/value caches of the last generation that asked for it, for a later one that begins alike.
 *
 * A conversation is generated anew with every message, and begins as it did the time before. The session keeps one
 * generation's tokens and caches beyond their transaction. Whoever takes them over must be the same role, on weights of
 * the same fingerprint, and name the same key, which stands for all else that the numbers depend on. Positions of a
 * cache do not depend on what follows them, so the beginning that both texts share is as if computed anew.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "generation.h"
#include "session/settings.h"
#include "tensor/buffer.h"

#define MOST_KEY 1024 /* bytes */

static Generation *kept = NULL; /* in no list, without version and sampling */

static size_t
kept_bytes(const Generation *g)
{
    return sizeof(float) * 2 * g->n_kv_head * g->d_head * g->length * (size_t) g->n_caches;
}

size_t
kept_forget(void)
{
    Generation *g = kept;
    size_t      bytes;

    if (g == NULL)
        return 0;
    kept = NULL;
    bytes = kept_bytes(g);
    generation_free(g);
    return bytes;
}

/* Never throws: a generation is closed as its transaction aborts, too. */
bool
kept_take(Generation *g)
{
    if (g->key == NULL || g->n_caches == 0 || g->length == 0 || g->length > (size_t) g->n_tokens ||
        kept_bytes(g) > (size_t) pg_llm_cache_size_mb * 1024 * 1024)
        return false;
    (void) kept_forget();
    g->next = NULL;
    g->portal = NULL;
    g->version = NULL;
    g->sampling = NULL;
    kept = g;
    return true;
}

/* How many tokens both begin with, of all but the last of g: its logits are still to be computed. */
static size_t
common(const Generation *g)
{
    size_t most = Min(kept->length, (size_t) Max(g->n_tokens, 1) - 1), n = 0;

    while (n < most && g->tokens[n] == kept->tokens[n])
        n++;
    return n;
}

/*
 * pg_llm_gen_resume(handle, key) -> positions that a new generation takes over from the kept one, or 0. It will be kept
 * itself when it ends.
 */
PG_FUNCTION_INFO_V1(pg_llm_gen_resume);
Datum
pg_llm_gen_resume(PG_FUNCTION_ARGS)
{
    Generation         *g = generation_find_idle(PG_GETARG_INT32(0));
    bytea              *given = PG_GETARG_BYTEA_PP(1);
    const ModelVersion *v = g->version;
    int                 n = VARSIZE_ANY_EXHDR(given) + v->fingerprint_len;
    char               *key;
    size_t              shared;

    if (g->n_caches > 0 || g->length > 0 || g->key != NULL)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("generation %d has begun already", g->handle),
                errhint("Call pg_llm_gen_resume right after pg_llm_gen_open."));
    if (VARSIZE_ANY_EXHDR(given) > MOST_KEY)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the key of a kept cache must have at most %d bytes, got %zu", MOST_KEY,
                       (size_t) VARSIZE_ANY_EXHDR(given)));
    if (v->dirty || v->discarded || v->trainers > 0)
        PG_RETURN_INT32(0); /* weights of no fingerprint */
    key = MemoryContextAlloc(TopMemoryContext, Max(n, 1));
    memcpy(key, VARDATA_ANY(given), VARSIZE_ANY_EXHDR(given));
    memcpy(key + VARSIZE_ANY_EXHDR(given), v->fingerprint, v->fingerprint_len);
    g->key = key;
    g->n_key = n;
    if (kept == NULL || kept->user != g->user || kept->n_key != n || memcmp(kept->key, key, n) != 0 ||
        kept->capacity < g->capacity)
        PG_RETURN_INT32(0);
    shared = common(g);
    if (shared == 0)
        PG_RETURN_INT32(0);
    g->caches = kept->caches;
    g->n_caches = kept->n_caches;
    g->n_kv_head = kept->n_kv_head;
    g->d_head = kept->d_head;
    g->capacity = kept->capacity;
    g->length = shared;
    kept->caches = NULL;
    kept->n_caches = 0;
    (void) kept_forget();
    PG_RETURN_INT32((int32) shared);
}
