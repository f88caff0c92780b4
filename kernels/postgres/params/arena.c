/*
 * arena.c -- versions of parameters in memory: pinning, finding, forgetting. arena_feed.c fills them, arena_train.c
 * changes them.
 *
 * States of a version, and what may be called in each (anything else is 55000, "not in memory" or "not being fed"):
 *
 *   none    -- arena_open --> feeding, or ready when memory has that version already
 *   feeding -- arena_put --> feeding; arena_seal --> ready, or failed when it raises an error
 *   failed  -- only arena_discard and arena_close: open it anew
 *   ready   -- param, arena_shape, arena_data, _m, _v, _grad, grad_norm(s), zero_grad, gen_open and forward passes
 *              --> ready; with a pin for training also adamw --> changed, and saved --> ready
 *   changed -- as ready; adamw --> changed; saved --> ready, under the new fingerprint; not found by arena_open
 *
 * arena_close takes back the newest arena_open of the model by this role, discard marks a version as changed; both do
 * nothing where there is nothing to close. A version goes with its last pin unless it is ready. A rollback of what
 * changed weights makes the version failed; one that takes gradients back which others were added to marks them as lost
 * until zero_grad, so that no optimizer step is made with a part of them. gen_open needs weights that nobody may change.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "catalog/pg_type.h"
#include "tcop/pquery.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"

#include "arena.h"
#include "tensor/buffer.h"
#include "session/engine.h"
#include "session/portals.h"
#include "session/settings.h"

#define MAX_PINS     16384 /* of a session: they are looked for one by one */
#define MAX_VERSIONS 64    /* in the cache that nobody uses */

typedef enum PinKind
{
    PIN_CALL,
    PIN_STATEMENT,
    PIN_GENERATION
} PinKind;

/* The newest pin of a model decides which version its user sees. */
typedef struct ArenaPin
{
    struct ArenaPin *next;
    ArenaVersion    *version;
    PinKind          kind;
    bool             training; /* its holder may change the version */
    uint64           id;       /* no other pin of the session has it */
    SubTransactionId subid;
    Oid              user;
    Portal           portal;  /* of a statement pin */
    CommandId        command; /* own writes end a statement pin */
} ArenaPin;

static ArenaVersion *versions = NULL;
static ArenaPin     *pins = NULL;
static int           n_pins = 0;
static uint64        clock_ticks = 0;
static uint64        pin_ids = 0;

/* ---- life of a version ---- */

static void
free_version(ArenaVersion *v)
{
    tensor_buffer_training(-(int) v->training);
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
    MemoryContextDelete(v->context);
}

ArenaVersion *
arena_retain(ArenaVersion *v)
{
    v->refs++;
    return v;
}

void
arena_release(ArenaVersion *v)
{
    if (v != NULL && --v->refs == 0)
        free_version(v);
}

void
arena_forget(ArenaVersion *v)
{
    ArenaVersion **link = &versions;

    while (*link != NULL && *link != v)
        link = &(*link)->next;
    if (*link == v)
        *link = v->next;
    if (v->cached)
    {
        v->cached = false;
        arena_release(v);
    }
}

static ArenaVersion *
new_version(const char *model, const char *fingerprint, int len, bool training)
{
    MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_llm model version", ALLOCSET_SMALL_SIZES);
    ArenaVersion *v = MemoryContextAllocZero(context, sizeof(ArenaVersion));

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

/* What a version holds, with copies of its weights in fewer bits. */
static size_t
version_bytes(const ArenaVersion *v)
{
    size_t bytes = v->bytes;

    for (int i = 0; i < v->n_params; i++)
        if (v->params[i].data != NULL)
            for (int which = 0; which < 2; which++)
                bytes += llm_packed_bytes(v->params[i].data->packed[which]);
    return bytes;
}

static void
forget_packed(ArenaVersion *v)
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
arena_trim(const char *model, const ArenaVersion *keep)
{
    for (;;)
    {
        ArenaVersion *oldest = NULL;
        size_t        bytes = 0;
        int           unused = 0;
        bool          outdated = false;

        for (ArenaVersion *v = versions; v != NULL; v = v->next)
        {
            bytes += version_bytes(v);
            if (v == keep || v->refs > 1)
                continue;
            unused++;
            if (model != NULL && v->user == GetUserId() && strcmp(v->model, model) == 0)
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
        arena_forget(oldest);
    }
}

/* ---- pins ---- */

static void
require_pin_room(void)
{
    if (n_pins >= MAX_PINS)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("this session already pins %d model versions", n_pins),
                errhint("They are released by pg_llm_arena_close or at the end of the transaction."));
}

static ArenaPin *
push_pin(ArenaVersion *v, PinKind kind, bool training)
{
    ArenaPin *pin;

    require_pin_room();
    pin = MemoryContextAllocZero(TopMemoryContext, sizeof(ArenaPin));
    pin->version = arena_retain(v);
    pin->kind = kind;
    pin->training = training;
    pin->id = ++pin_ids;
    pin->subid = GetCurrentSubTransactionId();
    pin->user = GetUserId();
    pin->next = pins;
    pins = pin;
    n_pins++;
    v->pins++;
    v->trainers += training;
    if (training)
        forget_packed(v); /* the weights will move on */
    v->last_used = ++clock_ticks;
    return pin;
}

static void
drop_pin(ArenaPin *pin)
{
    ArenaPin **link = &pins;

    while (*link != pin)
        link = &(*link)->next;
    *link = pin->next;
    n_pins--;
    pin->version->pins--;
    pin->version->trainers -= pin->training;
    if (pin->version->pins == 0 && (pin->version->dirty || !pin->version->ready))
        arena_forget(pin->version);
    arena_release(pin->version);
    pfree(pin);
}

/* A statement pin holds while its statement runs; what this session writes ends it. */
static bool
pin_is_over(const ArenaPin *pin)
{
    return pin->kind == PIN_STATEMENT && pin->portal == ActivePortal && pin->command != GetCurrentCommandId(false);
}

/* Another statement's pin waits for that statement to go on: a cursor's, for its next rows. */
static bool
pin_in_force(const ArenaPin *pin)
{
    return pin->user == GetUserId() && (pin->kind != PIN_STATEMENT || pin->portal == ActivePortal);
}

static ArenaPin *
find_pin(const char *model)
{
    ArenaPin *pin = pins;

    while (pin != NULL)
    {
        ArenaPin *next = pin->next;

        if (strcmp(pin->version->model, model) == 0)
        {
            if (pin_is_over(pin))
                drop_pin(pin);
            else if (pin_in_force(pin))
                return pin;
        }
        pin = next;
    }
    return NULL;
}

ArenaVersion *
arena_pinned(const char *model)
{
    ArenaPin *pin = find_pin(model);

    return pin == NULL ? NULL : pin->version;
}

bool
arena_pinned_for_training(const char *model)
{
    ArenaPin *pin = find_pin(model);

    return pin != NULL && pin->training;
}

bool
arena_holds(const TensorBuffer *buffer)
{
    for (ArenaPin *pin = pins; pin != NULL; pin = pin->next)
    {
        const ArenaVersion *v = pin->version;

        if (!pin_in_force(pin) || !v->ready || v->dirty || v->trainers > 0)
            continue;
        for (int i = 0; i < v->n_params; i++)
            if (v->params[i].data == buffer)
                return true;
    }
    return false;
}

ArenaVersion *
arena_require(const char *model)
{
    ArenaVersion *v = arena_pinned(model);

    if (v == NULL || !v->ready)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("the weights of model \"%s\" are not in memory", model),
                v != NULL && v->undone ? errdetail("An error was caught, or a savepoint rolled back, after training "
                                                   "had changed them.")
                                       : 0,
                errhint("Call llm_pin first, or use llm_weight(model, name) in your query."));
    return v;
}

void
arena_push_pin(ArenaVersion *v)
{
    push_pin(v, PIN_GENERATION, false);
}

void
arena_pop_pin(ArenaVersion *v)
{
    for (ArenaPin *pin = pins; pin != NULL; pin = pin->next)
        if (pin->version == v && pin->kind == PIN_GENERATION)
        {
            drop_pin(pin);
            return;
        }
}

void
arena_touch(ArenaVersion *v)
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
undo(ArenaVersion *v)
{
    for (int i = 0; i < v->n_params; i++)
        v->params[i].has_grad = v->params[i].has_sum = false;
    v->grads_lost = v->had_grads;
    if (v->dirty)
    {
        v->undone = v->ready;
        v->ready = false;
    }
}

void
arena_end_xact(bool commit)
{
    for (ArenaVersion *v = versions; v != NULL; v = v->next)
    {
        if (!commit && v->touched != InvalidSubTransactionId)
            undo(v);
        v->touched = InvalidSubTransactionId;
    }
    while (pins != NULL)
        drop_pin(pins);
}

/*
 * A pin ends with its subtransaction, if that is undone. A cursor's, which lives on, stays: all rows of a statement see
 * one version. Only where the subtransaction wrote may the version be one of rows that are gone.
 */
static bool
outlives(const ArenaPin *pin, SubTransactionId mine)
{
    return pin->kind == PIN_STATEMENT && portals_waits(pin->portal, mine) &&
           !TransactionIdIsValid(GetCurrentTransactionIdIfAny());
}

void
arena_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit)
{
    ArenaPin *pin = pins;

    for (ArenaVersion *v = versions; v != NULL; v = v->next)
        if (v->touched == mine)
        {
            if (!commit)
                undo(v);
            v->touched = parent;
        }
    while (pin != NULL)
    {
        ArenaPin *next = pin->next;

        if (pin->subid == mine)
        {
            if (commit || outlives(pin, mine))
                pin->subid = parent;
            else
                drop_pin(pin);
        }
        pin = next;
    }
}

void
arena_portal_gone(Portal portal)
{
    for (ArenaPin *pin = pins, *next; pin != NULL; pin = next)
    {
        next = pin->next;
        if (pin->kind == PIN_STATEMENT && pin->portal == portal)
            drop_pin(pin);
    }
}

/* pg_llm_arena_open(model, fingerprint, training) -> whether memory holds that version already */
PG_FUNCTION_INFO_V1(pg_llm_arena_open);
Datum
pg_llm_arena_open(PG_FUNCTION_ARGS)
{
    char  *model = text_to_cstring(PG_GETARG_TEXT_PP(0));
    bytea *fingerprint = PG_GETARG_BYTEA_PP(1);
    bool   training = PG_GETARG_BOOL(2);
    int    len = VARSIZE_ANY_EXHDR(fingerprint);

    if (len > ARENA_MAX_NAME || strlen(model) > ARENA_MAX_NAME)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("model name and version can have at most %d bytes, not %zu and %d", ARENA_MAX_NAME,
                       strlen(model), len));
    require_pin_room();
    for (ArenaVersion *v = versions; v != NULL; v = v->next)
    {
        /* a fingerprint can be guessed: only who has read the rows, or fed them, gets them from memory */
        if (!v->ready || v->dirty || v->user != GetUserId() || strcmp(v->model, model) != 0 ||
            v->fingerprint_len != len || memcmp(v->fingerprint, VARDATA_ANY(fingerprint), len) != 0)
            continue;
        /* one who changes it shares it with nobody */
        if (training ? !v->training || v->pins > 0 || v->readers > 0 : v->trainers > 0)
            continue;
        push_pin(v, PIN_CALL, training);
        PG_RETURN_BOOL(true);
    }
    push_pin(new_version(model, VARDATA_ANY(fingerprint), len, training), PIN_CALL, training);
    PG_RETURN_BOOL(false);
}

PG_FUNCTION_INFO_V1(pg_llm_arena_close);
Datum
pg_llm_arena_close(PG_FUNCTION_ARGS)
{
    char *model = text_to_cstring(PG_GETARG_TEXT_PP(0));

    for (ArenaPin *pin = pins; pin != NULL; pin = pin->next)
        if (pin->kind == PIN_CALL && pin->user == GetUserId() && strcmp(pin->version->model, model) == 0)
        {
            drop_pin(pin);
            break;
        }
    arena_trim(NULL, NULL);
    PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(pg_llm_arena_pinned);
Datum
pg_llm_arena_pinned(PG_FUNCTION_ARGS)
{
    ArenaVersion *v = arena_pinned(text_to_cstring(PG_GETARG_TEXT_PP(0)));

    PG_RETURN_BOOL(v != NULL && v->ready);
}

static void
message_ended(void *arg)
{
    for (ArenaPin *pin = pins; pin != NULL; pin = pin->next)
        if (pin->id == (uint64) (uintptr_t) arg)
        {
            drop_pin(pin);
            return;
        }
}

/* Turns the newest open() of the model into a pin that ends with the running statement. */
PG_FUNCTION_INFO_V1(pg_llm_arena_pin_statement);
Datum
pg_llm_arena_pin_statement(PG_FUNCTION_ARGS)
{
    ArenaPin *pin = find_pin(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    Portal    portal = portals_watch();

    if (pin == NULL || pin->kind != PIN_CALL || (portal == NULL && MessageContext == NULL))
        PG_RETURN_VOID();
    if (portal == NULL)
    {
        /* While a statement is planned, which calls stable functions, it has no portal yet. */
        MemoryContextCallback *callback = MemoryContextAllocZero(MessageContext, sizeof(MemoryContextCallback));

        callback->func = message_ended;
        callback->arg = (void *) (uintptr_t) pin->id;
        MemoryContextRegisterResetCallback(MessageContext, callback);
    }
    pin->kind = PIN_STATEMENT;
    pin->portal = portal;
    pin->command = GetCurrentCommandId(false);
    PG_RETURN_VOID();
}

/* ---- finding ---- */

uint32
arena_hash_name(const char *name)
{
    return hash_bytes((const unsigned char *) name, (int) strlen(name));
}

ArenaParam *
arena_find(ArenaVersion *v, const char *name)
{
    uint32 hash = arena_hash_name(name);

    for (uint32 slot = hash;; slot++)
    {
        int i = v->slots[slot & (v->n_slots - 1)];

        if (i < 0)
            return NULL;
        if (v->params[i].hash == hash && strcmp(v->params[i].name, name) == 0)
            return &v->params[i];
    }
}

ArenaParam *
arena_require_param(ArenaVersion *v, const char *name)
{
    ArenaParam *p = arena_find(v, name);

    if (p == NULL)
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
                errmsg("model \"%s\" has no parameter \"%s\"", v->model, name),
                errhint("SELECT name FROM llm_param WHERE model = '%s' lists them.", v->model));
    return p;
}

ArenaPart *
arena_require_part(ArenaVersion *v, ArenaParam *p, int32 token_id)
{
    for (int i = 0; i < p->n_parts; i++)
        if (p->parts[i].token_id == token_id)
            return &p->parts[i];
    ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
            errmsg("parameter \"%s\" of model \"%s\" has no part at row %d", p->name, v->model, token_id));
}

/* The rows of one part, as a view of `buffer`. */
Tensor *
arena_part_tensor(ArenaParam *p, const ArenaPart *part, TensorBuffer *buffer)
{
    int32  dims[TENSOR_MAX_NDIM];
    size_t row = p->ndim == 0 ? 1 : p->n / Max(p->dims[0], 1);

    memcpy(dims, p->dims, sizeof(int32) * p->ndim);
    if (p->ndim > 0)
        dims[0] = part->rows;
    return tensor_wrap(p->ndim, dims, buffer, buffer->data + part->token_id * row);
}

PG_FUNCTION_INFO_V1(pg_llm_arena_shape);
Datum
pg_llm_arena_shape(PG_FUNCTION_ARGS)
{
    ArenaVersion *v = arena_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    ArenaParam   *p = arena_require_param(v, text_to_cstring(PG_GETARG_TEXT_PP(1)));
    Datum         dims[TENSOR_MAX_NDIM];

    for (int i = 0; i < p->ndim; i++)
        dims[i] = Int32GetDatum(p->dims[i]);
    PG_RETURN_ARRAYTYPE_P(construct_array(dims, p->ndim, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

size_t
arena_forget_unused(void)
{
    size_t        bytes = 0;
    ArenaVersion *v = versions;

    while (v != NULL)
    {
        ArenaVersion *next = v->next;

        if (v->refs == 1)
        {
            bytes += version_bytes(v);
            arena_forget(v);
        }
        v = next;
    }
    return bytes;
}
