/*
 * generate.c -- running generations: tokens so far, one key/value cache per layer, the pinned weights.
 *
 * A generation belongs to the transaction that began it. A forward pass (pg_llm_gen_use to pg_llm_gen_done) computes
 * as many new positions of each of its members, which may stand at different places of their texts; they count only
 * when it is done, so a pass that fails leaves the caches as they were.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "arena.h"
#include "buffer.h"
#include "generate.h"

typedef struct Generation
{
    struct Generation *next;
    int32       handle;
    SubTransactionId subid;
    Oid         user;           /* nobody else may use the handle */
    ArenaVersion *version;
    int32      *tokens;
    int         n_tokens, room;
    size_t      capacity;       /* positions a cache holds */
    size_t      length;         /* positions in the caches */
    llm_kv_cache **caches;      /* one per layer */
    size_t      n_head, d_head; /* of all of them */
    int         n_caches;
} Generation;

/* The running forward pass; n 0: none. */
typedef struct Pass
{
    Generation **members;       /* all of one role and one version of the weights */
    size_t      n;
    size_t      pending;        /* new positions of each */
    int         layer;          /* the next one */
} Pass;

static Generation *generations = NULL;
static Pass pass = {NULL, 0, 0, 0};
static int32 last_handle = 0;

bool
generate_in_use(void)
{
    return pass.n > 0;
}

/* A layer's keys and values; SIZE_MAX when they are more than can be counted. */
static size_t
cache_bytes(size_t n_head, size_t d_head, size_t capacity)
{
    double  bytes = 2.0 * (double) n_head * (double) d_head * (double) capacity * sizeof(float);

    return bytes < (double) SIZE_MAX / 2 ? (size_t) bytes : SIZE_MAX;
}

/* A cache for a layer that has none. */
static void
add_cache(Generation *g, size_t n_head, size_t d_head)
{
    llm_kv_cache *cache;

    if (!tensor_buffer_room(cache_bytes(n_head, d_head, g->capacity)))
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a key/value cache"));
    g->caches = g->caches == NULL
        ? MemoryContextAllocZero(TopMemoryContext, sizeof(llm_kv_cache *))
        : repalloc(g->caches, sizeof(llm_kv_cache *) * (g->n_caches + 1));
    cache = llm_kv_cache_create(n_head, d_head, g->capacity);
    if (cache == NULL)
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a key/value cache"));
    g->caches[g->n_caches++] = cache;
    g->n_head = n_head;
    g->d_head = d_head;
}

static void
require_room(const Generation *g, size_t n_new)
{
    if (g->length + n_new > g->capacity)
        ereport(ERROR,
                errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("%zu positions do not fit into a context of %zu", g->length + n_new, g->capacity));
}

void
generate_next_caches(llm_kv_cache **caches, size_t *past, size_t n_sequences, size_t n_head, size_t d_head,
                     size_t n_new)
{
    if (pass.members[0]->user != GetUserId())
        ereport(ERROR,
                errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                errmsg("generation %d belongs to another role", pass.members[0]->handle),
                errhint("Functions that a forward pass calls must not be SECURITY DEFINER."));
    if (n_sequences != pass.n)
        ereport(ERROR,
                errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the running forward pass takes %zu sequences, not %zu", pass.n, n_sequences));
    pass.pending = n_new;
    for (size_t i = 0; i < pass.n; i++)
    {
        Generation *g = pass.members[i];

        require_room(g, n_new);
        if (g->n_caches > 0 && (n_head != g->n_head || d_head != g->d_head))
            ereport(ERROR,
                    errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("generation %d caches %zu heads of width %zu, not %zu of %zu", g->handle, g->n_head,
                           g->d_head, n_head, d_head));
        if (pass.layer == g->n_caches)
            add_cache(g, n_head, d_head);
        caches[i] = g->caches[pass.layer];
        past[i] = g->length;
    }
    pass.layer++;
}

/* ---- life ---- */

static void
forget_caches(Generation *g)
{
    for (int i = 0; i < g->n_caches; i++)
        llm_kv_cache_destroy(g->caches[i]);
    if (g->caches != NULL)
        pfree(g->caches);
    g->caches = NULL;
    g->n_caches = 0;
    g->length = 0;
}

static void
leave_pass(void)
{
    if (pass.n == 0)
        return;
    arena_pop_pin(pass.members[0]->version);
    pfree(pass.members);
    memset(&pass, 0, sizeof(pass));
}

static bool
in_pass(const Generation *g)
{
    for (size_t i = 0; i < pass.n; i++)
        if (pass.members[i] == g)
            return true;
    return false;
}

static void
close_generation(Generation *g)
{
    Generation **link = &generations;

    while (*link != g)
        link = &(*link)->next;
    *link = g->next;
    if (in_pass(g))
        leave_pass();
    forget_caches(g);
    g->version->readers--;
    arena_release(g->version);
    pfree(g->tokens);
    pfree(g);
}

void
generate_end_xact(void)
{
    while (generations != NULL)
        close_generation(generations);
}

void
generate_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit)
{
    Generation *g = generations;

    /* the pass cannot be finished: the ops that failed may have been any of it */
    if (!commit)
        leave_pass();
    while (g != NULL)
    {
        Generation *next = g->next;

        if (g->subid == mine)
        {
            if (commit)
                g->subid = parent;
            else
                close_generation(g);
        }
        g = next;
    }
}

static Generation *
find_generation(int32 handle)
{
    for (Generation *g = generations; g != NULL; g = g->next)
        if (g->handle == handle && g->user == GetUserId())
            return g;
    ereport(ERROR,
            errcode(ERRCODE_UNDEFINED_OBJECT),
            errmsg("generation %d does not exist", handle),
            errhint("A generation ends with the transaction that began it."));
}

static void
append_token(Generation *g, int32 token)
{
    if (g->n_tokens == g->room)
    {
        g->room = Max(64, g->room * 2);
        g->tokens = repalloc(g->tokens, sizeof(int32) * g->room);
    }
    g->tokens[g->n_tokens++] = token;
}

/* A generation of this (sub)transaction and role on version v, without tokens and caches. */
static Generation *
new_generation(ArenaVersion *v, size_t capacity)
{
    Generation *g = MemoryContextAllocZero(TopMemoryContext, sizeof(Generation));

    g->room = 64;
    g->tokens = MemoryContextAlloc(TopMemoryContext, sizeof(int32) * g->room);
    g->capacity = capacity;
    g->handle = ++last_handle;
    g->subid = GetCurrentSubTransactionId();
    g->user = GetUserId();
    g->version = arena_retain(v);
    v->readers++;
    g->next = generations;
    generations = g;
    return g;
}

/* pg_llm_gen_open(model, prompt, capacity) -> handle; the model must be pinned. */
PG_FUNCTION_INFO_V1(pg_llm_gen_open);
Datum
pg_llm_gen_open(PG_FUNCTION_ARGS)
{
    ArenaVersion *v = arena_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    IntArray prompt = tensor_int_array(PG_GETARG_DATUM(1), "prompt");
    int32   capacity = PG_GETARG_INT32(2);
    Generation *g;

    if (capacity < 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a context must hold at least one position, not %d", capacity));
    g = new_generation(v, capacity);
    for (size_t i = 0; i < prompt.n; i++)
        append_token(g, prompt.values[i]);
    PG_RETURN_INT32(g->handle);
}

/* pg_llm_gen_fork(handle) -> handle of another generation with the same tokens, caches and weights */
PG_FUNCTION_INFO_V1(pg_llm_gen_fork);
Datum
pg_llm_gen_fork(PG_FUNCTION_ARGS)
{
    Generation *from = find_generation(PG_GETARG_INT32(0));
    Generation *g;

    if (in_pass(from))
        ereport(ERROR, errcode(ERRCODE_OBJECT_IN_USE),
                errmsg("generation %d is in the middle of a forward pass", from->handle));
    g = new_generation(from->version, from->capacity);
    for (int i = 0; i < from->n_tokens; i++)
        append_token(g, from->tokens[i]);
    if (from->n_caches > 0)
        g->caches = MemoryContextAllocZero(TopMemoryContext, sizeof(llm_kv_cache *) * from->n_caches);
    for (; g->n_caches < from->n_caches; g->n_caches++)
    {
        llm_kv_cache *copy = NULL;

        CHECK_FOR_INTERRUPTS();
        if (tensor_buffer_room(cache_bytes(from->n_head, from->d_head, from->capacity)))
            copy = llm_kv_cache_copy(from->caches[g->n_caches], from->length);
        if (copy == NULL)
        {
            close_generation(g);
            ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a key/value cache"));
        }
        g->caches[g->n_caches] = copy;
    }
    g->n_head = from->n_head;
    g->d_head = from->d_head;
    g->length = from->length;
    PG_RETURN_INT32(g->handle);
}

PG_FUNCTION_INFO_V1(pg_llm_gen_close);
Datum
pg_llm_gen_close(PG_FUNCTION_ARGS)
{
    close_generation(find_generation(PG_GETARG_INT32(0)));
    PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(pg_llm_gen_reset);
Datum
pg_llm_gen_reset(PG_FUNCTION_ARGS)
{
    forget_caches(find_generation(PG_GETARG_INT32(0)));
    PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(pg_llm_gen_push);
Datum
pg_llm_gen_push(PG_FUNCTION_ARGS)
{
    append_token(find_generation(PG_GETARG_INT32(0)), PG_GETARG_INT32(1));
    PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(pg_llm_gen_tokens);
Datum
pg_llm_gen_tokens(PG_FUNCTION_ARGS)
{
    Generation *g = find_generation(PG_GETARG_INT32(0));
    Datum  *ids = palloc(sizeof(Datum) * g->n_tokens);

    for (int i = 0; i < g->n_tokens; i++)
        ids[i] = Int32GetDatum(g->tokens[i]);
    PG_RETURN_ARRAYTYPE_P(construct_array(ids, g->n_tokens, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

PG_FUNCTION_INFO_V1(pg_llm_gen_length);
Datum
pg_llm_gen_length(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32((int32) find_generation(PG_GETARG_INT32(0))->length);
}

/* ---- a forward pass of a generation ---- */

/* pg_llm_gen_use(handles): the ops that follow see these generations' caches, in this order. */
PG_FUNCTION_INFO_V1(pg_llm_gen_use);
Datum
pg_llm_gen_use(PG_FUNCTION_ARGS)
{
    IntArray handles = tensor_int_array(PG_GETARG_DATUM(0), "handles");
    Generation **members;

    if (pass.n > 0)
        ereport(ERROR, errcode(ERRCODE_OBJECT_IN_USE),
                errmsg("generation %d is in the middle of a forward pass", pass.members[0]->handle));
    if (handles.n == 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a forward pass takes at least one generation"));
    members = palloc(sizeof(Generation *) * handles.n);
    for (size_t i = 0; i < handles.n; i++)
    {
        members[i] = find_generation(handles.values[i]);
        if (members[i]->version != members[0]->version)
            ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("generations %d and %d have different weights", members[0]->handle, members[i]->handle),
                    errhint("Begin them while one version of one model is pinned."));
        for (size_t j = 0; j < i; j++)
            if (members[j] == members[i])
                ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("generation %d stands twice in one forward pass", members[i]->handle));
    }
    pass.members = MemoryContextAlloc(TopMemoryContext, sizeof(Generation *) * handles.n);
    memcpy(pass.members, members, sizeof(Generation *) * handles.n);
    arena_push_pin(members[0]->version);
    pass.n = handles.n;
    pass.pending = 0;
    pass.layer = 0;
    PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(pg_llm_gen_done);
Datum
pg_llm_gen_done(PG_FUNCTION_ARGS)
{
    if (pass.n == 0 || pass.members[0]->user != GetUserId())
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("no generation is in the middle of a forward pass"),
                errhint("An error that was caught inside a forward pass ends it."));
    for (size_t i = 0; i < pass.n; i++)
        require_room(pass.members[i], pass.pending);
    for (size_t i = 0; i < pass.n; i++)
        pass.members[i]->length += pass.pending;
    leave_pass();
    PG_RETURN_VOID();
}

/* pg_llm_positions(ids): 0, 1, ... along the last axis, after what the caches hold already. */
PG_FUNCTION_INFO_V1(pg_llm_positions);
Datum
pg_llm_positions(PG_FUNCTION_ARGS)
{
    ArrayType *ids = PG_GETARG_ARRAYTYPE_P_COPY(0);
    IntArray checked = tensor_int_array(PointerGetDatum(ids), "ids");
    int32  *values = (int32 *) ARR_DATA_PTR(ids);
    size_t  width = checked.ndim == 0 ? 0 : (size_t) checked.dims[checked.ndim - 1];

    if (pass.n > 0 && width > 0 && checked.n / width != pass.n)
        ereport(ERROR,
                errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the running forward pass takes %zu sequences, not %zu", pass.n, checked.n / width));
    for (size_t i = 0; i < checked.n; i++)
        values[i] = (int32) ((pass.n > 0 ? pass.members[i / width]->length : 0) + i % width);
    pass.pending = pass.n > 0 ? width : 0;
    PG_RETURN_ARRAYTYPE_P(ids);
}
