/*
 * pins.c -- which version of a model's parameters a caller sees: pins, and when they end.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"

#include "fingerprint.h"
#include "params_internal.h"
#include "session/portals.h"

#define MAX_PINS 16384 /* of a session: they are looked for one by one */

typedef enum PinKind
{
    PIN_CALL,
    PIN_STATEMENT,
    PIN_GENERATION
} PinKind;

/* The newest pin of a model decides which version its user sees. */
typedef struct VersionPin
{
    struct VersionPin *next;
    ModelVersion      *version;
    PinKind            kind;
    bool               training; /* its holder may change the version */
    uint64             id;       /* no other pin of the session has it */
    SubTransactionId   subid;
    Oid                user;
    Portal             portal;  /* of a statement pin */
    CommandId          command; /* own writes end a statement pin */
} VersionPin;

static VersionPin *pins = NULL;
static int         n_pins = 0;
static uint64      pin_ids = 0;

void
params_require_pin_room(void)
{
    if (n_pins >= MAX_PINS)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("this session already pins %d model versions", n_pins),
                errhint("They are released by pg_llm_arena_close or at the end of the transaction."));
}

static VersionPin *
push_pin(ModelVersion *v, PinKind kind, bool training)
{
    VersionPin *pin;

    params_require_pin_room();
    pin = MemoryContextAllocZero(TopMemoryContext, sizeof(VersionPin));
    /* Whoever opens an adapter that nobody uses must be shown its base again, as its own rows (llm_pin_base). */
    if (v->pins == 0 && v->readers == 0)
        adapter_forget_base(v);
    pin->version = params_retain(v);
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
    {
        versions_unpack(v); /* the weights will move on */
        v->hashed = false;
    }
    versions_use(v);
    return pin;
}

static void
drop_pin(VersionPin *pin)
{
    VersionPin **link = &pins;

    while (*link != pin)
        link = &(*link)->next;
    *link = pin->next;
    n_pins--;
    memo_forget(pin->id);
    pin->version->pins--;
    pin->version->trainers -= pin->training;
    if (pin->version->pins == 0 && ((pin->version->dirty && !pin->version->kept) || !pin->version->ready))
        versions_forget(pin->version);
    params_release(pin->version);
    pfree(pin);
}

/* A statement pin holds while its statement runs; what this session writes ends it. */
static bool
pin_is_over(const VersionPin *pin)
{
    return pin->kind == PIN_STATEMENT && pin->portal == ActivePortal && pin->command != GetCurrentCommandId(false);
}

/* Another statement's pin waits for that statement to go on: a cursor's, for its next rows. */
static bool
pin_in_force(const VersionPin *pin)
{
    return pin->user == GetUserId() && (pin->kind != PIN_STATEMENT || pin->portal == ActivePortal);
}

static VersionPin *
find_pin(const char *model)
{
    VersionPin *pin = pins;

    while (pin != NULL)
    {
        VersionPin *next = pin->next;

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

ModelVersion *
params_pinned(const char *model)
{
    VersionPin *pin = find_pin(model);

    return pin == NULL ? NULL : pin->version;
}

bool
params_pinned_for_training(const char *model)
{
    VersionPin *pin = find_pin(model);

    return pin != NULL && pin->training;
}

uint64
params_statement_pin(const char *model)
{
    VersionPin *pin = find_pin(model);

    return pin == NULL || pin->kind != PIN_STATEMENT || !pin->version->ready ? 0 : pin->id;
}

static bool
holds(const ModelVersion *v, const TensorBuffer *buffer)
{
    if (!v->ready || v->dirty || v->trainers > 0)
        return false;
    for (int i = 0; i < v->n_params; i++)
        if (v->params[i].data == buffer)
            return true;
    return false;
}

ModelVersion *
params_holding(const TensorBuffer *buffer)
{
    for (VersionPin *pin = pins; pin != NULL; pin = pin->next)
    {
        if (!pin_in_force(pin))
            continue;
        if (holds(pin->version, buffer))
            return pin->version;
        if (pin->version->base != NULL && holds(pin->version->base, buffer))
            return pin->version->base;
    }
    return NULL;
}

ModelVersion *
params_require(const char *model)
{
    ModelVersion *v = params_pinned(model);

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
params_push_training_pin(ModelVersion *v)
{
    push_pin(v, PIN_CALL, true);
}

void
params_push_pin(ModelVersion *v)
{
    push_pin(v, PIN_GENERATION, false);
}

void
params_pop_pin(ModelVersion *v)
{
    for (VersionPin *pin = pins; pin != NULL; pin = pin->next)
        if (pin->version == v && pin->kind == PIN_GENERATION)
        {
            drop_pin(pin);
            return;
        }
}

void
params_end_xact(bool commit)
{
    versions_end_xact(commit);
    while (pins != NULL)
        drop_pin(pins);
    if (!commit)
        versions_let_go(NULL);
    versions_forget_outdated();
}

/*
 * A pin ends with its subtransaction, if that is undone. A cursor's, which lives on, stays: all rows of a statement see
 * one version. Only where the subtransaction wrote may the version be one of rows that are gone.
 */
static bool
outlives(const VersionPin *pin, SubTransactionId mine)
{
    return pin->kind == PIN_STATEMENT && portals_waits(pin->portal, mine) &&
           !TransactionIdIsValid(GetCurrentTransactionIdIfAny());
}

void
params_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit)
{
    VersionPin *pin = pins;

    versions_end_subxact(mine, parent, commit);
    while (pin != NULL)
    {
        VersionPin *next = pin->next;

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
params_portal_gone(Portal portal)
{
    for (VersionPin *pin = pins, *next; pin != NULL; pin = next)
    {
        next = pin->next;
        if (pin->kind == PIN_STATEMENT && pin->portal == portal)
            drop_pin(pin);
    }
    versions_let_go(portal);
}

/* pg_llm_arena_open(model, fingerprint, training) -> whether memory holds that version already */
PG_FUNCTION_INFO_V1(pg_llm_arena_open);
Datum
pg_llm_arena_open(PG_FUNCTION_ARGS)
{
    char         *model = text_to_cstring(PG_GETARG_TEXT_PP(0));
    bytea        *fingerprint = PG_GETARG_BYTEA_PP(1);
    bool          training = PG_GETARG_BOOL(2);
    int           len = VARSIZE_ANY_EXHDR(fingerprint);
    bool          found;
    ModelVersion *v;

    if (len > PARAMS_MAX_NAME || strlen(model) > PARAMS_MAX_NAME)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("model name and version can have at most %d bytes, not %zu and %d", PARAMS_MAX_NAME,
                       strlen(model), len));
    params_require_pin_room();
    /* What named rows when a role could see them opens nothing for it later: it must be shown them again. */
    v = !training && fingerprint_is_old(VARDATA_ANY(fingerprint), len)
            ? NULL
            : versions_find(model, VARDATA_ANY(fingerprint), len, training);
    found = v != NULL;
    if (!found)
        v = versions_new(model, VARDATA_ANY(fingerprint), len, training);
    push_pin(v, PIN_CALL, training);
    PG_RETURN_BOOL(found);
}

/* pg_llm_arena_close(model): takes back the newest pg_llm_arena_open of the model by this role */
PG_FUNCTION_INFO_V1(pg_llm_arena_close);
Datum
pg_llm_arena_close(PG_FUNCTION_ARGS)
{
    char *model = text_to_cstring(PG_GETARG_TEXT_PP(0));

    params_publish();
    for (VersionPin *pin = pins; pin != NULL; pin = pin->next)
        if (pin->kind == PIN_CALL && pin->user == GetUserId() && strcmp(pin->version->model, model) == 0)
        {
            drop_pin(pin);
            break;
        }
    versions_trim(NULL, NULL);
    PG_RETURN_VOID();
}

/* pg_llm_arena_pinned(model) -> whether a version is pinned for the caller and ready */
PG_FUNCTION_INFO_V1(pg_llm_arena_pinned);
Datum
pg_llm_arena_pinned(PG_FUNCTION_ARGS)
{
    ModelVersion *v = params_pinned(text_to_cstring(PG_GETARG_TEXT_PP(0)));

    PG_RETURN_BOOL(v != NULL && v->ready);
}

static void
message_ended(void *arg)
{
    for (VersionPin *pin = pins; pin != NULL; pin = pin->next)
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
    VersionPin *pin = find_pin(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    Portal      portal = portals_watch();

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
