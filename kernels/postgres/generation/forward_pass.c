/*
 * forward_pass.c -- the forward pass of running generations: which caches its layers use, and how far it is.
 *
 * generate.c says what may be called when.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "generation.h"

#define POLL_EVERY 65536 /* elements between two looks at pending interrupts */

/* The running forward pass; n 0: none. */
typedef struct Pass
{
    Generation **members; /* all of one role and one version of the weights */
    size_t       n;
    size_t       pending; /* new positions of each; 0: not known yet */
    int          layer;   /* the next one */
    uint64       id;      /* of all passes of the session */
} Pass;

static Pass   pass = {NULL, 0, 0, 0, 0};
static uint64 passes = 0;

bool
generate_in_use(void)
{
    return pass.n > 0;
}

void
forward_pass_leave(void)
{
    if (pass.n == 0)
        return;
    params_pop_pin(pass.members[0]->version);
    pfree(pass.members);
    memset(&pass, 0, sizeof(pass));
}

bool
forward_pass_includes(const Generation *g)
{
    for (size_t i = 0; i < pass.n; i++)
        if (pass.members[i] == g)
            return true;
    return false;
}

GenerateMark
generate_mark(void)
{
    GenerateMark mark = {pass.n > 0 ? pass.id : 0, pass.layer, pass.pending};

    return mark;
}

bool
forward_pass_is_at(const GenerateMark *mark)
{
    return mark != NULL && mark->pass == pass.id && mark->layer == pass.layer && mark->pending == pass.pending;
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
require_layer(const Generation *g, size_t n_kv_head, size_t d_head)
{
    if (g->n_caches > 0 && (n_kv_head != g->n_kv_head || d_head != g->d_head))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("generation %d caches %zu heads of width %zu, not %zu of %zu", g->handle, g->n_kv_head,
                       g->d_head, n_kv_head, d_head));
    if (pass.layer > g->n_caches || (pass.layer == g->n_caches && g->length > 0))
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("layer %d of the running forward pass has no cache in generation %d, which has %d layers",
                       pass.layer + 1, g->handle, g->n_caches),
                errhint("All passes of a generation must have the same layers; pg_llm_gen_reset starts over."));
}

void
generate_next_caches(llm_kv_cache **caches, size_t *past, size_t n_sequences, size_t n_kv_head, size_t d_head,
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
        require_layer(pass.members[i], n_kv_head, d_head);
    }
    for (size_t i = 0; i < pass.n; i++)
    {
        Generation *g = pass.members[i];

        if (pass.layer == g->n_caches)
            generation_add_cache(g, n_kv_head, d_head);
        caches[i] = g->caches[pass.layer];
        past[i] = g->length;
    }
    pass.pending = n_new;
    pass.layer++;
}

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
        members[i] = generation_find(handles.values[i]);
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
            generation_drop_caches(g, pass.layer); /* of a pass that failed */
        g->length += pass.pending;
    }
    forward_pass_leave();
    params_publish();
    PG_RETURN_VOID();
}

/* 0, 1, ... in each of the sequences that lie end to end. */
static void
positions_in_sequences(int32 *values, const IntArray *ids, const IntArray *lengths)
{
    size_t i = 0;

    if (pass.n > 0)
        ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                errmsg("sequences end to end cannot go on from a key/value cache"),
                errhint("In a generation's forward pass, leave out lengths: the sequences are the rows of ids."));
    if (ids->ndim != 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("positions: ids has %d dimensions", ids->ndim),
                errhint("With lengths, ids is a list of all sequences' tokens end to end."));
    tensor_require_lengths("positions", lengths, ids->n);
    for (size_t b = 0; b < lengths->n; b++)
        for (int32 t = 0; t < lengths->values[b]; t++, i++)
        {
            if (i % POLL_EVERY == 0)
                CHECK_FOR_INTERRUPTS();
            values[i] = t;
        }
}

/*
 * pg_llm_positions(ids, lengths): 0, 1, ... along the last axis, after what the caches hold already; or in each
 * sequence.
 */
PG_FUNCTION_INFO_V1(pg_llm_positions);
Datum
pg_llm_positions(PG_FUNCTION_ARGS)
{
    ArrayType *ids;
    IntArray   checked;
    int32     *values;
    size_t     width;

    if (PG_ARGISNULL(0))
        PG_RETURN_NULL();
    ids = PG_GETARG_ARRAYTYPE_P_COPY(0);
    checked = tensor_int_array(PointerGetDatum(ids), "ids");
    values = (int32 *) ARR_DATA_PTR(ids);
    width = checked.ndim == 0 ? 0 : (size_t) checked.dims[checked.ndim - 1];
    if (!PG_ARGISNULL(1))
    {
        IntArray lengths = tensor_int_array(PG_GETARG_DATUM(1), "lengths");

        positions_in_sequences(values, &checked, &lengths);
        PG_RETURN_ARRAYTYPE_P(ids);
    }
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
