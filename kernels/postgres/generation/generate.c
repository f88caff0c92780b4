/*
 * generate.c -- running generations: tokens so far, one key/value cache per layer, the pinned weights.
 *
 * States of a generation, and what may be called in each (anything else is 55000):
 *
 *   none    -- gen_open, gen_fork of another --> idle
 *   idle    -- gen_push, gen_reset, gen_fork, gen_tokens, gen_length --> idle; gen_use --> in pass; gen_close --> none
 *   in pass -- positions, attention, gen_tokens, gen_length --> in pass; gen_done --> idle; gen_close --> none, and the
 *              pass is over
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

#include "params/params.h"
#include "tensor/buffer.h"
#include "generate.h"
#include "session/portals.h"

#define MAX_TOKENS      (1 << 24) /* of one generation; a context holds far fewer */
#define MAX_GENERATIONS 16384     /* of a session: their handles are looked for one by one */
#define POLL_EVERY      65536     /* elements between two looks at pending interrupts */

typedef struct Generation
{
    struct Generation *next;
    int32              handle;
    SubTransactionId   subid;
    Portal             portal; /* whose query began it, as long as that lives */
    Oid                user;   /* nobody else may use the handle */
    ModelVersion      *version;
    int32             *tokens;
    int                n_tokens, room;
    size_t             capacity;       /* positions a cache holds */
    size_t             length;         /* positions in the caches */
    llm_kv_cache     **caches;         /* one per layer */
    size_t             n_head, d_head; /* of all of them */
    int                n_caches;
} Generation;

/* The running forward pass; n 0: none. */
typedef struct Pass
{
    Generation **members; /* all of one role and one version of the weights */
    size_t       n;
    size_t       pending; /* new positions of each; 0: not known yet */
    int          layer;   /* the next one */
    uint64       id;      /* of all passes of the session */
} Pass;

static Generation *generations = NULL;
static int         n_generations = 0;
static Pass        pass = {NULL, 0, 0, 0, 0};
static uint64      passes = 0;
static int32       last_handle = 0;

bool
generate_in_use(void)
{
    return pass.n > 0;
}

/* A layer's keys and values; SIZE_MAX when they are more than can be counted. */
static size_t
cache_bytes(size_t n_head, size_t d_head, size_t capacity)
{
    double bytes = 2.0 * (double) n_head * (double) d_head * (double) capacity * sizeof(float);

    return bytes < (double) SIZE_MAX / 2 ? (size_t) bytes : SIZE_MAX;
}

/* A cache for a layer that has none. */
static void
add_cache(Generation *g, size_t n_head, size_t d_head)
{
    size_t        bytes = cache_bytes(n_head, d_head, g->capacity);
    llm_kv_cache *cache;

    g->caches = g->caches == NULL ? MemoryContextAllocZero(TopMemoryContext, sizeof(llm_kv_cache *))
                                  : repalloc(g->caches, sizeof(llm_kv_cache *) * (g->n_caches + 1));
    if (!tensor_buffer_reserve(bytes))
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a key/value cache"));
    cache = llm_kv_cache_create(n_head, d_head, g->capacity);
    if (cache == NULL)
    {
        tensor_buffer_unreserve(bytes);
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a key/value cache"));
    }
    g->caches[g->n_caches++] = cache;
    g->n_head = n_head;
    g->d_head = d_head;
}

/* Frees the caches from number `keep` on. */
static void
drop_caches(Generation *g, int keep)
{
    while (g->n_caches > keep)
    {
        llm_kv_cache_destroy(g->caches[--g->n_caches]);
        tensor_buffer_unreserve(cache_bytes(g->n_head, g->d_head, g->capacity));
    }
}

static void
require_room(const Generation *g, size_t n_new)
{
    if (g->length + n_new > g->capacity)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("%zu positions do not fit into a context of %zu", g->length + n_new, g->capacity));
}

/* Ensure that the running pass is the present role's. */
static void
require_own_pass(void)
{
    if (pass.members[0]->user != GetUserId())
        ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                errmsg("generation %d belongs to another role", pass.members[0]->handle),
                errhint("Functions that a forward pass calls must not be SECURITY DEFINER."));
}

/* All layers of a pass take the same number of new positions. */
static void
require_positions(size_t n_new)
{
    if (pass.pending != 0 && pass.pending != n_new)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the current forward pass expects %zu new positions, not %zu", pass.pending, n_new),
                errhint("Every layer of a pass must process the same tokens."));
}

static void
require_layer(const Generation *g, size_t n_head, size_t d_head)
{
    if (g->n_caches > 0 && (n_head != g->n_head || d_head != g->d_head))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("generation %d caches %zu heads of width %zu, not %zu of %zu", g->handle, g->n_head, g->d_head,
                       n_head, d_head));
    if (pass.layer > g->n_caches || (pass.layer == g->n_caches && g->length > 0))
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("layer %d of the running forward pass has no cache in generation %d, which has %d layers",
                       pass.layer + 1, g->handle, g->n_caches),
                errhint("All passes of a generation must have the same layers; pg_llm_gen_reset starts over."));
}

void
generate_next_caches(llm_kv_cache **caches, size_t *past, size_t n_sequences, size_t n_head, size_t d_head,
                     size_t n_new)
{
    require_own_pass();
    if (n_sequences != pass.n)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the current forward pass expects %zu sequences, not %zu", pass.n, n_sequences));
    require_positions(n_new);
    for (size_t i = 0; i < pass.n; i++)
    {
        require_room(pass.members[i], n_new);
        require_layer(pass.members[i], n_head, d_head);
    }
    for (size_t i = 0; i < pass.n; i++)
    {
        Generation *g = pass.members[i];

        if (pass.layer == g->n_caches)
            add_cache(g, n_head, d_head);
        caches[i] = g->caches[pass.layer];
        past[i] = g->length;
    }
    pass.pending = n_new;
    pass.layer++;
}

/* ---- life ---- */

static void
forget_caches(Generation *g)
{
    drop_caches(g, 0);
    if (g->caches != NULL)
        pfree(g->caches);
    g->caches = NULL;
    g->length = 0;
}

static void
leave_pass(void)
{
    if (pass.n == 0)
        return;
    params_pop_pin(pass.members[0]->version);
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
    n_generations--;
    forget_caches(g);
    g->version->readers--;
    params_release(g->version);
    if (g->tokens != NULL)
        pfree(g->tokens);
    pfree(g);
}

void
generate_end_xact(void)
{
    while (generations != NULL)
        close_generation(generations);
}

GenerateMark
generate_mark(void)
{
    GenerateMark mark = {pass.n > 0 ? pass.id : 0, pass.layer, pass.pending};

    return mark;
}

void
generate_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit, const GenerateMark *mark)
{
    Generation *g = generations;

    /* the pass goes on if none of it was in what is undone */
    if (!commit && pass.n > 0 &&
        (mark == NULL || mark->pass != pass.id || mark->layer != pass.layer || mark->pending != pass.pending))
        leave_pass();
    while (g != NULL)
    {
        Generation *next = g->next;

        if (g->subid == mine)
        {
            if (commit || portals_waits(g->portal, mine))
                g->subid = parent;
            else
                close_generation(g);
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

static Generation *
find_generation(int32 handle)
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

/* The generation, which no pass is in the middle of. */
static Generation *
find_idle(int32 handle)
{
    Generation *g = find_generation(handle);

    if (in_pass(g))
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

static void
append_tokens(Generation *g, const int32 *tokens, size_t n)
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
        append_tokens(g, prompt.values, prompt.n);
    }
    PG_CATCH();
    {
        close_generation(g);
        PG_RE_THROW();
    }
    PG_END_TRY();
    PG_RETURN_INT32(g->handle);
}

/* Copies of another generation's caches. */
static void
copy_caches(Generation *g, const Generation *from)
{
    size_t bytes = cache_bytes(from->n_head, from->d_head, from->capacity);

    if (from->n_caches == 0)
        return;
    g->caches = MemoryContextAllocZero(TopMemoryContext, sizeof(llm_kv_cache *) * from->n_caches);
    g->n_head = from->n_head;
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

/* pg_llm_gen_fork(handle) -> handle of another generation with the same tokens, caches and weights */
PG_FUNCTION_INFO_V1(pg_llm_gen_fork);
Datum
pg_llm_gen_fork(PG_FUNCTION_ARGS)
{
    Generation *from = find_idle(PG_GETARG_INT32(0));
    Generation *g = new_generation(from->version, from->capacity);

    PG_TRY();
    {
        append_tokens(g, from->tokens, from->n_tokens);
        copy_caches(g, from);
    }
    PG_CATCH();
    {
        close_generation(g);
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
    close_generation(find_generation(PG_GETARG_INT32(0)));
    PG_RETURN_VOID();
}

/* pg_llm_gen_reset(handle): empties a generation's key/value cache */
PG_FUNCTION_INFO_V1(pg_llm_gen_reset);
Datum
pg_llm_gen_reset(PG_FUNCTION_ARGS)
{
    forget_caches(find_idle(PG_GETARG_INT32(0)));
    PG_RETURN_VOID();
}

/* pg_llm_gen_push(handle, token): appends a token */
PG_FUNCTION_INFO_V1(pg_llm_gen_push);
Datum
pg_llm_gen_push(PG_FUNCTION_ARGS)
{
    int32 token = PG_GETARG_INT32(1);

    append_tokens(find_idle(PG_GETARG_INT32(0)), &token, 1);
    PG_RETURN_VOID();
}

/* pg_llm_gen_tokens(handle) -> its tokens, prompt and generated ones */
PG_FUNCTION_INFO_V1(pg_llm_gen_tokens);
Datum
pg_llm_gen_tokens(PG_FUNCTION_ARGS)
{
    Generation *g = find_generation(PG_GETARG_INT32(0));

    PG_RETURN_ARRAYTYPE_P(tensor_make_int_array(g->tokens, g->n_tokens));
}

/* pg_llm_gen_length(handle) -> positions in its key/value cache */
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
    IntArray     handles = tensor_int_array(PG_GETARG_DATUM(0), "handles");
    Generation **members;
    Generation **own;

    if (pass.n > 0)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("generation %d is in the middle of a forward pass", pass.members[0]->handle),
                errhint("Call pg_llm_gen_done() first."));
    if (handles.n == 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a forward pass needs at least one generation"));
    if (handles.n > MAX_GENERATIONS)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%zu generations cannot share a forward pass", handles.n),
                errdetail("A session has at most %d.", MAX_GENERATIONS));
    members = palloc(sizeof(Generation *) * handles.n);
    for (size_t i = 0; i < handles.n; i++)
    {
        CHECK_FOR_INTERRUPTS();
        members[i] = find_generation(handles.values[i]);
        if (members[i]->version != members[0]->version)
            ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("generations %d and %d have different weights", members[0]->handle, members[i]->handle),
                    errhint("Begin them while the same version of the model is pinned."));
        for (size_t j = 0; j < i; j++)
            if (members[j] == members[i])
                ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("generation %d appears twice in one forward pass", members[i]->handle));
    }
    own = MemoryContextAlloc(TopMemoryContext, sizeof(Generation *) * handles.n);
    memcpy(own, members, sizeof(Generation *) * handles.n);
    PG_TRY();
    {
        params_push_pin(members[0]->version);
    }
    PG_CATCH();
    {
        pfree(own);
        PG_RE_THROW();
    }
    PG_END_TRY();
    pass = (Pass){own, handles.n, 0, 0, ++passes};
    PG_RETURN_VOID();
}

/* pg_llm_gen_done(): ends the forward pass; its positions now count */
PG_FUNCTION_INFO_V1(pg_llm_gen_done);
Datum
pg_llm_gen_done(PG_FUNCTION_ARGS)
{
    if (pass.n == 0 || pass.members[0]->user != GetUserId())
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("no generation is in the middle of a forward pass"),
                errhint("An error that was caught inside a forward pass ends it."));
    for (size_t i = 0; i < pass.n; i++)
    {
        const Generation *g = pass.members[i];

        require_room(g, pass.pending);
        if (g->length > 0 && pass.pending > 0 && pass.layer != g->n_caches)
            ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("the forward pass of generation %d had %d attention layers, earlier ones had %d", g->handle,
                           pass.layer, g->n_caches),
                    errhint("All passes of a generation must have the same attention layers."));
    }
    for (size_t i = 0; i < pass.n; i++)
    {
        Generation *g = pass.members[i];

        if (g->length == 0)
            drop_caches(g, pass.layer); /* of a pass that failed */
        g->length += pass.pending;
    }
    leave_pass();
    PG_RETURN_VOID();
}

/* pg_llm_positions(ids): 0, 1, ... along the last axis, after what the caches hold already. */
PG_FUNCTION_INFO_V1(pg_llm_positions);
Datum
pg_llm_positions(PG_FUNCTION_ARGS)
{
    ArrayType *ids = PG_GETARG_ARRAYTYPE_P_COPY(0);
    IntArray   checked = tensor_int_array(PointerGetDatum(ids), "ids");
    int32     *values = (int32 *) ARR_DATA_PTR(ids);
    size_t     width = checked.ndim == 0 ? 0 : (size_t) checked.dims[checked.ndim - 1];

    if (pass.n > 0)
        require_own_pass();
    if (pass.n > 0 && width > 0)
    {
        if (checked.n / width != pass.n)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("the current forward pass expects %zu sequences, not %zu", pass.n, checked.n / width));
        require_positions(width);
        pass.pending = width; /* whether they fit, attention and gen_done will say */
    }
    for (size_t i = 0; i < checked.n; i++)
    {
        if (i % POLL_EVERY == 0)
            CHECK_FOR_INTERRUPTS();
        values[i] = (int32) ((pass.n > 0 ? pass.members[i / width]->length : 0) + i % width);
    }
    PG_RETURN_ARRAYTYPE_P(ids);
}
