/*
 * generate.c -- running generations: tokens so far, one key/value cache per layer, the pinned weights. Their forward
 * passes are in forward_pass.c, the choice of the next token and the text in next_token.c.
 *
 * States of a generation, and what may be called in each (anything else is 55000):
 *
 *   none    -- gen_open, gen_fork of another --> idle
 *   idle    -- gen_push, gen_reset, gen_resume, gen_fork, gen_sampling, gen_sample, gen_tokens, gen_last, gen_length --> idle;
 *              gen_write --> idle, or none after the last token; gen_use --> in pass; gen_close --> none
 *   in pass -- positions, attention, gen_tokens, gen_last, gen_length --> in pass; gen_done --> idle;
 *              gen_close --> none, and the pass is over
 *
 * One pass runs at a time. It computes as many new positions of each of its members, which may stand at different
 * places of their texts; they count only when it is done, so a pass that fails leaves the caches as they were. All of
 * its layers take the same number of positions, and all passes of a generation have the same layers: a cache that
 * missed a pass would hold nothing at its positions. An error that is caught after some of a pass was computed ends the
 * pass, since what it computed may live on in variables; gen_done then says so.
 *
 * A generation ends with the transaction that began it, or with the subtransaction, if that is undone. A cursor that
 * was declared before a savepoint outlives it, and so does its generation, whose tokens, like a cursor's position, are
 * not taken back.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "generation.h"
#include "tensor/buffer.h"
#include "session/portals.h"

#define MAX_TOKENS (1 << 24) /* of one generation; a context holds far fewer */

static Generation *generations = NULL;
static int         n_generations = 0;
static int32       last_handle = 0;

/* A layer's keys and values; SIZE_MAX when they are more than can be counted. */
static size_t
cache_bytes(size_t n_kv_head, size_t d_head, size_t capacity)
{
    double bytes = 2.0 * (double) n_kv_head * (double) d_head * (double) capacity * sizeof(float);

    return bytes < (double) SIZE_MAX / 2 ? (size_t) bytes : SIZE_MAX;
}

void
generation_add_cache(Generation *g, size_t n_kv_head, size_t d_head)
{
    size_t        bytes = cache_bytes(n_kv_head, d_head, g->capacity);
    llm_kv_cache *cache;

    g->caches = g->caches == NULL ? MemoryContextAllocZero(TopMemoryContext, sizeof(llm_kv_cache *))
                                  : repalloc(g->caches, sizeof(llm_kv_cache *) * (g->n_caches + 1));
    if (!tensor_buffer_reserve(bytes) && !(kept_forget() > 0 && tensor_buffer_reserve(bytes)))
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a key/value cache"));
    cache = llm_kv_cache_create(n_kv_head, d_head, g->capacity);
    if (cache == NULL)
    {
        tensor_buffer_unreserve(bytes);
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a key/value cache"));
    }
    g->caches[g->n_caches++] = cache;
    g->n_kv_head = n_kv_head;
    g->d_head = d_head;
}

void
generation_drop_caches(Generation *g, int keep)
{
    while (g->n_caches > keep)
    {
        llm_kv_cache_destroy(g->caches[--g->n_caches]);
        tensor_buffer_unreserve(cache_bytes(g->n_kv_head, g->d_head, g->capacity));
    }
}

/* ---- life ---- */

static void
forget_caches(Generation *g)
{
    generation_drop_caches(g, 0);
    if (g->caches != NULL)
        pfree(g->caches);
    g->caches = NULL;
    g->length = 0;
}

void
generation_free(Generation *g)
{
    forget_caches(g);
    if (g->tokens != NULL)
        pfree(g->tokens);
    if (g->key != NULL)
        pfree(g->key);
    pfree(g);
}

void
generation_close(Generation *g)
{
    Generation **link = &generations;

    while (*link != g)
        link = &(*link)->next;
    *link = g->next;
    if (forward_pass_includes(g))
        forward_pass_leave();
    n_generations--;
    g->version->readers--;
    params_release(g->version);
    sampling_free(g->sampling);
    if (!kept_take(g))
        generation_free(g);
}

void
generate_end_xact(void)
{
    while (generations != NULL)
        generation_close(generations);
}

void
generate_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit, const GenerateMark *mark)
{
    Generation *g = generations;

    if (!commit && !forward_pass_is_at(mark))
        forward_pass_leave();
    while (g != NULL)
    {
        Generation *next = g->next;

        if (g->subid == mine)
        {
            if (commit || portals_waits(g->portal, mine))
                g->subid = parent;
            else
                generation_close(g);
        }
        g = next;
    }
}

void
generate_portal_gone(Portal portal)
{
    for (Generation *g = generations; g != NULL; g = g->next)
        if (g->portal == portal)
            g->portal = NULL;
}

static bool
handle_taken(int32 handle)
{
    for (Generation *g = generations; g != NULL; g = g->next)
        if (g->handle == handle)
            return true;
    return false;
}

Generation *
generation_find(int32 handle)
{
    for (Generation *g = generations; g != NULL; g = g->next)
    {
        if (g->handle != handle)
            continue;
        if (g->user != GetUserId())
            ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                    errmsg("generation %d belongs to another role", handle),
                    errhint("Fetch from a cursor over a generation only as the role that first fetched from it."));
        return g;
    }
    ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("generation %d does not exist", handle),
            errhint("A generation ends with the transaction that began it."));
}

Generation *
generation_find_idle(int32 handle)
{
    Generation *g = generation_find(handle);

    if (forward_pass_includes(g))
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("generation %d is in the middle of a forward pass", handle),
                errhint("Call pg_llm_gen_done() first."));
    return g;
}

/* Room for so many tokens. */
static void
reserve_tokens(Generation *g, size_t n)
{
    size_t room = Max((size_t) g->room, 64);

    if (n <= (size_t) g->room)
        return;
    if (n > MAX_TOKENS)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("a generation of %zu tokens is too long", n),
                errdetail("The limit is %d tokens.", MAX_TOKENS),
                errhint("Only the last n_positions tokens of a prompt are read."));
    while (room < n)
        room *= 2;
    g->tokens = g->tokens == NULL ? MemoryContextAlloc(TopMemoryContext, sizeof(int32) * room)
                                  : repalloc(g->tokens, sizeof(int32) * room);
    g->room = (int) room;
}

void
generation_append(Generation *g, const int32 *tokens, size_t n)
{
    reserve_tokens(g, g->n_tokens + n);
    if (n > 0)
        memcpy(g->tokens + g->n_tokens, tokens, sizeof(int32) * n);
    g->n_tokens += (int) n;
}

/* A generation of this (sub)transaction and role on version v, without tokens and caches. */
static Generation *
new_generation(ModelVersion *v, size_t capacity)
{
    Portal      portal;
    Generation *g;

    if (n_generations >= MAX_GENERATIONS)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("this session has %d generations open", n_generations),
                errhint("They end with pg_llm_gen_close or with the transaction."));
    portal = portals_watch();
    g = MemoryContextAllocZero(TopMemoryContext, sizeof(Generation));
    g->capacity = capacity;
    do
        g->handle = last_handle = last_handle == PG_INT32_MAX ? 1 : last_handle + 1;
    while (handle_taken(g->handle));
    g->subid = GetCurrentSubTransactionId();
    g->portal = portal;
    g->user = GetUserId();
    g->version = params_retain(v);
    v->readers++;
    g->next = generations;
    generations = g;
    n_generations++;
    return g;
}

/* The pinned weights, which stay as they are as long as the generation lasts. */
static ModelVersion *
require_unchanging(const char *model)
{
    ModelVersion *v = params_require(model);

    if (v->trainers > 0)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("the weights of model \"%s\" in memory are being trained", model),
                errhint("Call llm_pin(model) for a version that does not change."));
    return v;
}

/* pg_llm_gen_open(model, prompt, capacity) -> handle; the model must be pinned. */
PG_FUNCTION_INFO_V1(pg_llm_gen_open);
Datum
pg_llm_gen_open(PG_FUNCTION_ARGS)
{
    ModelVersion *v = require_unchanging(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    IntArray      prompt = tensor_int_array(PG_GETARG_DATUM(1), "prompt");
    int32         capacity = PG_GETARG_INT32(2);
    Generation   *g;

    if (capacity < 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a context must hold at least one position, not %d", capacity));
    g = new_generation(v, capacity);
    PG_TRY();
    {
        generation_append(g, prompt.values, prompt.n);
        g->n_prompt = g->n_tokens;
    }
    PG_CATCH();
    {
        generation_close(g);
        PG_RE_THROW();
    }
    PG_END_TRY();
    PG_RETURN_INT32(g->handle);
}

/* Copies of another generation's caches. */
static void
copy_caches(Generation *g, const Generation *from)
{
    size_t bytes = cache_bytes(from->n_kv_head, from->d_head, from->capacity);

    if (from->n_caches == 0)
        return;
    g->caches = MemoryContextAllocZero(TopMemoryContext, sizeof(llm_kv_cache *) * from->n_caches);
    g->n_kv_head = from->n_kv_head;
    g->d_head = from->d_head;
    while (g->n_caches < from->n_caches)
    {
        llm_kv_cache *copy = NULL;

        CHECK_FOR_INTERRUPTS();
        if (tensor_buffer_reserve(bytes))
        {
            copy = llm_kv_cache_copy(from->caches[g->n_caches], from->length);
            if (copy == NULL)
                tensor_buffer_unreserve(bytes);
        }
        if (copy == NULL)
            ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a key/value cache"));
        g->caches[g->n_caches++] = copy;
    }
    g->length = from->length;
}

/* pg_llm_gen_fork(handle) -> handle of another generation with the same tokens, caches and weights, without sampling */
PG_FUNCTION_INFO_V1(pg_llm_gen_fork);
Datum
pg_llm_gen_fork(PG_FUNCTION_ARGS)
{
    Generation *from = generation_find_idle(PG_GETARG_INT32(0));
    Generation *g = new_generation(from->version, from->capacity);

    PG_TRY();
    {
        generation_append(g, from->tokens, from->n_tokens);
        g->n_prompt = from->n_prompt;
        copy_caches(g, from);
    }
    PG_CATCH();
    {
        generation_close(g);
        PG_RE_THROW();
    }
    PG_END_TRY();
    PG_RETURN_INT32(g->handle);
}

/* pg_llm_gen_close(handle): ends a generation */
PG_FUNCTION_INFO_V1(pg_llm_gen_close);
Datum
pg_llm_gen_close(PG_FUNCTION_ARGS)
{
    generation_close(generation_find(PG_GETARG_INT32(0)));
    PG_RETURN_VOID();
}

/* pg_llm_gen_reset(handle): empties a generation's key/value cache */
PG_FUNCTION_INFO_V1(pg_llm_gen_reset);
Datum
pg_llm_gen_reset(PG_FUNCTION_ARGS)
{
    Generation *g = generation_find_idle(PG_GETARG_INT32(0));

    forget_caches(g);
    /* What it caches from here on does not begin with its first token. */
    if (g->key != NULL)
        pfree(g->key);
    g->key = NULL;
    PG_RETURN_VOID();
}

/* pg_llm_gen_push(handle, token): appends a token */
PG_FUNCTION_INFO_V1(pg_llm_gen_push);
Datum
pg_llm_gen_push(PG_FUNCTION_ARGS)
{
    int32 token = PG_GETARG_INT32(1);

    generation_append(generation_find_idle(PG_GETARG_INT32(0)), &token, 1);
    PG_RETURN_VOID();
}

/* pg_llm_gen_tokens(handle) -> its tokens, prompt and generated ones */
PG_FUNCTION_INFO_V1(pg_llm_gen_tokens);
Datum
pg_llm_gen_tokens(PG_FUNCTION_ARGS)
{
    Generation *g = generation_find(PG_GETARG_INT32(0));

    PG_RETURN_ARRAYTYPE_P(tensor_make_int_array(g->tokens, g->n_tokens));
}

/* pg_llm_gen_last(handle, n): the last n tokens, or all there are */
PG_FUNCTION_INFO_V1(pg_llm_gen_last);
Datum
pg_llm_gen_last(PG_FUNCTION_ARGS)
{
    Generation *g = generation_find(PG_GETARG_INT32(0));
    int32       n = PG_GETARG_INT32(1);

    if (n < 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("n must not be negative, got %d", n));
    n = Min(n, g->n_tokens);
    PG_RETURN_ARRAYTYPE_P(tensor_make_int_array(n == 0 ? NULL : g->tokens + g->n_tokens - n, n));
}

/* pg_llm_gen_length(handle) -> positions in its key/value cache */
PG_FUNCTION_INFO_V1(pg_llm_gen_length);
Datum
pg_llm_gen_length(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32((int32) generation_find(PG_GETARG_INT32(0))->length);
}
