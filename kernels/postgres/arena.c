/*
 * arena.c -- versions of parameters in memory: pinning, feeding, finding, forgetting.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/itemptr.h"
#include "catalog/pg_type.h"
#include "tcop/pquery.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"

#include "arena.h"
#include "buffer.h"
#include "engine.h"
#include "session.h"
#include "tape.h"
#include "tokenizer.h"

typedef enum PinKind { PIN_CALL, PIN_STATEMENT, PIN_GENERATION } PinKind;

/* The newest pin of a model decides which version its user sees. */
typedef struct ArenaPin
{
    struct ArenaPin *next;
    ArenaVersion *version;
    PinKind     kind;
    bool        training;       /* its holder may change the version */
    uint64      id;
    SubTransactionId subid;
    Oid         user;
    Portal      portal;         /* of a statement pin */
    CommandId   command;        /* own writes end a statement pin */
} ArenaPin;

static ArenaVersion *versions = NULL;
static ArenaPin *pins = NULL;
static uint64 clock_ticks = 0;
static uint64 pin_ids = 0;

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
    MemoryContext context = AllocSetContextCreate(TopMemoryContext, "pg_llm model version", ALLOCSET_DEFAULT_SIZES);
    ArenaVersion *v = MemoryContextAllocZero(context, sizeof(ArenaVersion));

    v->context = context;
    v->model = MemoryContextStrdup(context, model);
    v->fingerprint = MemoryContextAlloc(context, len + 1);
    memcpy(v->fingerprint, fingerprint, len);
    v->fingerprint_len = len;
    v->training = training;
    tensor_buffer_training(training);
    v->user = GetUserId();
    v->refs = 1;
    v->cached = true;
    v->last_used = ++clock_ticks;
    v->next = versions;
    versions = v;
    return v;
}

/* What a version holds, with copies of its weights in fewer bits. */
static size_t
version_bytes(const ArenaVersion *v)
{
    size_t  bytes = v->bytes;

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
static void
trim(const char *model, const ArenaVersion *keep)
{
    for (;;)
    {
        ArenaVersion *oldest = NULL;
        size_t  bytes = 0;
        bool    outdated = false;

        for (ArenaVersion *v = versions; v != NULL; v = v->next)
        {
            bytes += version_bytes(v);
            if (v == keep || v->refs > 1)
                continue;
            if (model != NULL && v->user == GetUserId() && strcmp(v->model, model) == 0)
            {
                oldest = v;
                outdated = true;
                break;
            }
            if (oldest == NULL || v->last_used < oldest->last_used)
                oldest = v;
        }
        if (oldest == NULL || (!outdated && bytes <= (size_t) pg_llm_cache_size_mb * 1024 * 1024))
            return;
        arena_forget(oldest);
    }
}

/* ---- pins ---- */

static ArenaPin *
push_pin(ArenaVersion *v, PinKind kind, bool training)
{
    ArenaPin *pin = MemoryContextAllocZero(TopMemoryContext, sizeof(ArenaPin));

    pin->version = arena_retain(v);
    pin->kind = kind;
    pin->training = training;
    pin->id = ++pin_ids;
    pin->subid = GetCurrentSubTransactionId();
    pin->user = GetUserId();
    pin->next = pins;
    pins = pin;
    v->pins++;
    v->trainers += training;
    if (training)
        forget_packed(v);           /* the weights will move on */
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
    return pin->kind == PIN_STATEMENT && pin->portal == ActivePortal &&
        pin->command != GetCurrentCommandId(false);
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
        ereport(ERROR,
                errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("the weights of model \"%s\" are not in memory", model),
                errhint("Call llm_pin, or use llm_weight(model, name) in a query of your own."));
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

/*
 * What a rollback undoes in the tables it cannot undo here, so it is thrown away: gradients that it reached, and
 * weights that the optimizer had changed.
 */
static void
undo(ArenaVersion *v)
{
    for (int i = 0; i < v->n_params; i++)
        v->params[i].has_grad = false;
    if (v->dirty)
        v->ready = false;
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
            if (commit)
                pin->subid = parent;
            else
                drop_pin(pin);
        }
        pin = next;
    }
}

/* pg_llm_arena_open(model, fingerprint, training) -> whether memory holds that version already */
PG_FUNCTION_INFO_V1(pg_llm_arena_open);
Datum
pg_llm_arena_open(PG_FUNCTION_ARGS)
{
    char   *model = text_to_cstring(PG_GETARG_TEXT_PP(0));
    bytea  *fingerprint = PG_GETARG_BYTEA_PP(1);
    bool    training = PG_GETARG_BOOL(2);
    int     len = VARSIZE_ANY_EXHDR(fingerprint);

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
    char   *model = text_to_cstring(PG_GETARG_TEXT_PP(0));

    for (ArenaPin *pin = pins; pin != NULL; pin = pin->next)
        if (pin->kind == PIN_CALL && strcmp(pin->version->model, model) == 0)
        {
            drop_pin(pin);
            break;
        }
    trim(NULL, NULL);
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
statement_ended(void *arg)
{
    uint64  id = (uint64) (uintptr_t) arg;

    for (ArenaPin *pin = pins; pin != NULL; pin = pin->next)
        if (pin->id == id)
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
    /* While a statement is planned, which calls stable functions, it has no portal yet. */
    MemoryContext until = ActivePortal != NULL ? ActivePortal->portalContext : MessageContext;
    MemoryContextCallback *callback;

    if (pin == NULL || pin->kind != PIN_CALL || until == NULL)
        PG_RETURN_VOID();
    callback = MemoryContextAllocZero(until, sizeof(MemoryContextCallback));
    callback->func = statement_ended;
    callback->arg = (void *) (uintptr_t) pin->id;
    MemoryContextRegisterResetCallback(until, callback);
    pin->kind = PIN_STATEMENT;
    pin->portal = ActivePortal;
    pin->command = GetCurrentCommandId(false);
    PG_RETURN_VOID();
}

/* ---- feeding ---- */

/* The numbers of a fed value, for us alone: taken over when nobody else holds them, copied otherwise. */
static TensorBuffer *
feed_buffer(const Tensor *t)
{
    TensorBuffer *own;

    if (t->buffer->refcount == 1 && t->data == t->buffer->data)
        return tensor_buffer_retain(t->buffer);
    own = tensor_buffer_alloc(t->n);
    memcpy(own->data, t->data, t->n * sizeof(float));
    return own;
}

static ArenaParam *
feed_param(ArenaVersion *v, const char *name)
{
    for (int i = v->n_params - 1; i >= 0; i--)
        if (strcmp(v->params[i].name, name) == 0)
            return &v->params[i];
    if (v->n_params == v->room)
    {
        v->room = v->room == 0 ? 64 : v->room * 2;
        v->params = v->params == NULL
            ? MemoryContextAllocZero(v->context, sizeof(ArenaParam) * v->room)
            : repalloc(v->params, sizeof(ArenaParam) * v->room);
        memset(v->params + v->n_params, 0, sizeof(ArenaParam) * (v->room - v->n_params));
    }
    v->params[v->n_params].name = MemoryContextStrdup(v->context, name);
    return &v->params[v->n_params++];
}

/* pg_llm_arena_put(model, name, token_id, data, m, v) */
PG_FUNCTION_INFO_V1(pg_llm_arena_put);
Datum
pg_llm_arena_put(PG_FUNCTION_ARGS)
{
    ArenaVersion *v;
    ArenaParam *p;
    ArenaPart *part;
    Tensor *fed[3];

    if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
        ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                errmsg("model, name, token_id and data of a parameter must not be NULL"));
    v = arena_pinned(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    if (v == NULL || v->ready)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("no version is being fed"), errhint("Call pg_llm_arena_open first."));
    for (int i = 0; i < 3; i++)
    {
        fed[i] = PG_ARGISNULL(3 + i) || (i > 0 && !v->training) ? NULL : PG_GETARG_TENSOR(3 + i);
        if (fed[i] != NULL && fed[i]->n != fed[0]->n)
            ereport(ERROR, errcode(ERRCODE_DATA_EXCEPTION),
                    errmsg("parameter \"%s\": data has shape %s, its moments %s",
                           text_to_cstring(PG_GETARG_TEXT_PP(1)),
                           tensor_shape_text(fed[0]->ndim, fed[0]->dims),
                           tensor_shape_text(fed[i]->ndim, fed[i]->dims)));
    }
    p = feed_param(v, text_to_cstring(PG_GETARG_TEXT_PP(1)));
    p->parts = p->parts == NULL
        ? MemoryContextAlloc(v->context, sizeof(ArenaPart))
        : repalloc(p->parts, sizeof(ArenaPart) * (p->n_parts + 1));
    part = &p->parts[p->n_parts];
    memset(part, 0, sizeof(ArenaPart));
    p->n_parts++;
    part->token_id = PG_GETARG_INT32(2);
    part->ndim = fed[0]->ndim;
    memcpy(part->dims, fed[0]->dims, sizeof(part->dims));
    part->n = fed[0]->n;
    part->rows = part->ndim > 0 ? part->dims[0] : 1;
    for (int i = 0; i < 3; i++)
        if (fed[i] != NULL)
            part->fed[i] = feed_buffer(fed[i]);
    PG_RETURN_VOID();
}

static int
compare_params(const void *a, const void *b)
{
    return strcmp(((const ArenaParam *) a)->name, ((const ArenaParam *) b)->name);
}

static uint32
hash_name(const char *name)
{
    return hash_bytes((const unsigned char *) name, (int) strlen(name));
}

/* Every op of a pass asks for parameters by their names, next to weights that leave nothing else in a cache. */
static void
index_params(ArenaVersion *v)
{
    v->n_slots = pg_nextpower2_32(2 * (uint32) v->n_params + 1);
    v->slots = MemoryContextAlloc(v->context, sizeof(int) * v->n_slots);
    for (uint32 slot = 0; slot < v->n_slots; slot++)
        v->slots[slot] = -1;
    for (int i = 0; i < v->n_params; i++)
    {
        uint32  slot = v->params[i].hash = hash_name(v->params[i].name);

        while (v->slots[slot & (v->n_slots - 1)] >= 0)
            slot++;
        v->slots[slot & (v->n_slots - 1)] = i;
    }
}

static int
compare_parts(const void *a, const void *b)
{
    int32   x = ((const ArenaPart *) a)->token_id;
    int32   y = ((const ArenaPart *) b)->token_id;

    return x < y ? -1 : x > y;
}

/*
 * Joins what was fed as data (0), m (1) or v (2); what was not fed is zero. A large parameter takes a while: the
 * buffer is the parameter's before it is filled, so that a cancel leaves nothing behind.
 */
static void
join_parts(const ArenaVersion *v, const ArenaParam *p, int which, TensorBuffer **joined)
{
    llm_engine *e = pg_llm_engine();
    size_t  at = 0;

    for (int i = 0; i < p->n_parts; i++)
    {
        TensorBuffer *fed = p->parts[i].fed[which];

        if (fed != NULL && !pg_llm_all_finite(e, fed->data, p->parts[i].n))
            ereport(ERROR,
                    errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                    errmsg("parameter \"%s\" of model \"%s\" holds a value that is not finite", p->name, v->model),
                    errhint("Restore the row, or initialise the model anew with llm_init_model."));
    }
    if (p->n_parts == 1 && p->parts[0].fed[which] != NULL)
    {
        *joined = tensor_buffer_retain(p->parts[0].fed[which]);
        return;
    }
    *joined = tensor_buffer_alloc(p->n);
    for (int i = 0; i < p->n_parts; at += p->parts[i].n, i++)
    {
        TensorBuffer *fed = p->parts[i].fed[which];

        if (fed == NULL)
            llm_fill(e, (*joined)->data + at, 0.0f, p->parts[i].n);
        else
            llm_copy(e, (*joined)->data + at, fed->data, false, p->parts[i].n);
        pg_llm_check(e);
    }
}

static void
forget_fed(ArenaParam *p)
{
    for (int i = 0; i < p->n_parts; i++)
        for (int which = 0; which < 3; which++)
        {
            tensor_buffer_release(p->parts[i].fed[which]);
            p->parts[i].fed[which] = NULL;
        }
}

static void
seal_param(ArenaVersion *v, ArenaParam *p)
{
    const ArenaPart *first;
    int64   rows = 0;

    qsort(p->parts, p->n_parts, sizeof(ArenaPart), compare_parts);
    first = &p->parts[0];
    for (int i = 0; i < p->n_parts; i++)
    {
        const ArenaPart *part = &p->parts[i];

        if (part->token_id != rows || part->ndim != first->ndim || (p->n_parts > 1 && part->ndim < 1) ||
            memcmp(part->dims + 1, first->dims + 1, sizeof(int32) * Max(part->ndim - 1, 0)) != 0)
            ereport(ERROR,
                    errcode(ERRCODE_DATA_EXCEPTION),
                    errmsg("the parts of parameter \"%s\" of model \"%s\" do not fit together", p->name, v->model),
                    errdetail("The part at row %d has shape %s; row " INT64_FORMAT " was to follow.",
                              part->token_id, tensor_shape_text(part->ndim, part->dims), rows));
        rows += part->rows;
    }
    if (rows > INT_MAX)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("parameter \"%s\" has too many rows", p->name));
    p->ndim = first->ndim;
    memcpy(p->dims, first->dims, sizeof(int32) * first->ndim);
    if (p->ndim > 0)
        p->dims[0] = (int32) rows;
    p->n = 0;
    for (int i = 0; i < p->n_parts; i++)
        p->n += p->parts[i].n;
    join_parts(v, p, 0, &p->data);
    v->bytes += p->n * sizeof(float);
    if (v->training)
    {
        join_parts(v, p, 1, &p->m);
        join_parts(v, p, 2, &p->v);
        v->bytes += 3 * p->n * sizeof(float);   /* the gradient will follow */
    }
    forget_fed(p);
}

PG_FUNCTION_INFO_V1(pg_llm_arena_seal);
Datum
pg_llm_arena_seal(PG_FUNCTION_ARGS)
{
    char   *model = text_to_cstring(PG_GETARG_TEXT_PP(0));
    ArenaVersion *v = arena_pinned(model);

    if (v == NULL || v->ready)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("no version is being fed"));
    trim(model, v);
    for (int i = 0; i < v->n_params; i++)
    {
        seal_param(v, &v->params[i]);
        CHECK_FOR_INTERRUPTS();
    }
    qsort(v->params, v->n_params, sizeof(ArenaParam), compare_params);
    index_params(v);
    v->ready = true;
    PG_RETURN_VOID();
}

/* ---- finding ---- */

ArenaParam *
arena_find(ArenaVersion *v, const char *name)
{
    uint32  hash = hash_name(name);

    for (uint32 slot = hash;; slot++)
    {
        int     i = v->slots[slot & (v->n_slots - 1)];

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
        ereport(ERROR,
                errcode(ERRCODE_UNDEFINED_OBJECT),
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
    ereport(ERROR,
            errcode(ERRCODE_UNDEFINED_OBJECT),
            errmsg("parameter \"%s\" of model \"%s\" has no part at row %d", p->name, v->model, token_id));
}

/* The rows of one part, as a view of `buffer`. */
Tensor *
arena_part_tensor(ArenaParam *p, const ArenaPart *part, TensorBuffer *buffer)
{
    int32   dims[TENSOR_MAX_NDIM];
    size_t  row = p->ndim == 0 ? 1 : p->n / Max(p->dims[0], 1);

    memcpy(dims, p->dims, sizeof(int32) * p->ndim);
    if (p->ndim > 0)
        dims[0] = part->rows;
    return tensor_wrap(p->ndim, dims, buffer, buffer->data + part->token_id * row);
}

/* pg_llm_param(model, name): the whole tensor; a leaf of the tape while recording. */
PG_FUNCTION_INFO_V1(pg_llm_param);
Datum
pg_llm_param(PG_FUNCTION_ARGS)
{
    ArenaVersion *v = arena_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    ArenaParam *p = arena_require_param(v, text_to_cstring(PG_GETARG_TEXT_PP(1)));
    Tensor *t = tensor_wrap(p->ndim, p->dims, p->data, p->data->data);

    if (session_recording())
        tape_param_leaf(t, v, p);
    PG_RETURN_TENSOR(t);
}

PG_FUNCTION_INFO_V1(pg_llm_arena_shape);
Datum
pg_llm_arena_shape(PG_FUNCTION_ARGS)
{
    ArenaVersion *v = arena_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    ArenaParam *p = arena_require_param(v, text_to_cstring(PG_GETARG_TEXT_PP(1)));
    Datum   dims[TENSOR_MAX_NDIM];

    for (int i = 0; i < p->ndim; i++)
        dims[i] = Int32GetDatum(p->dims[i]);
    PG_RETURN_ARRAYTYPE_P(construct_array(dims, p->ndim, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/* pg_llm_release() -> bytes given back: versions nobody pins, buffers kept for reuse, tokenizers. */
PG_FUNCTION_INFO_V1(pg_llm_release);
Datum
pg_llm_release(PG_FUNCTION_ARGS)
{
    size_t  bytes = 0;
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
    bytes += tensor_buffer_cached();
    tensor_buffer_trim();
    pg_llm_engine_trim();
    bytes += tokenizer_release();
    PG_RETURN_INT64((int64) bytes);
}

/* ---- fingerprint: pg_llm_fingerprint(name, token_id, ctid, xmin) over the rows a snapshot sees ---- */

typedef struct Fingerprint { uint64 rows, a, b; } Fingerprint;

PG_FUNCTION_INFO_V1(pg_llm_fingerprint_add);
Datum
pg_llm_fingerprint_add(PG_FUNCTION_ARGS)
{
    MemoryContext aggregate;
    Fingerprint *f;
    text   *name;
    ItemPointer tid;
    struct { uint32 token_id, block, offset, xmin; } row;
    uint64  h;

    if (!AggCheckCallContext(fcinfo, &aggregate))
        elog(ERROR, "pg_llm_fingerprint_add called outside an aggregate");
    f = PG_ARGISNULL(0) ? MemoryContextAllocZero(aggregate, sizeof(Fingerprint)) : (Fingerprint *) PG_GETARG_POINTER(0);
    if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3) || PG_ARGISNULL(4))
        PG_RETURN_POINTER(f);
    name = PG_GETARG_TEXT_PP(1);
    tid = (ItemPointer) PG_GETARG_POINTER(3);
    row.token_id = (uint32) PG_GETARG_INT32(2);
    row.block = ItemPointerGetBlockNumberNoCheck(tid);
    row.offset = ItemPointerGetOffsetNumberNoCheck(tid);
    row.xmin = PG_GETARG_TRANSACTIONID(4);
    h = hash_bytes_extended((unsigned char *) VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), 0);
    /* sums do not depend on the order of rows */
    f->rows++;
    f->a += hash_bytes_extended((unsigned char *) &row, sizeof(row), h);
    f->b += hash_bytes_extended((unsigned char *) &row, sizeof(row), ~h);
    PG_RETURN_POINTER(f);
}

PG_FUNCTION_INFO_V1(pg_llm_fingerprint_final);
Datum
pg_llm_fingerprint_final(PG_FUNCTION_ARGS)
{
    bytea  *result;

    if (PG_ARGISNULL(0))
        PG_RETURN_NULL();
    result = palloc(VARHDRSZ + sizeof(Fingerprint));
    SET_VARSIZE(result, VARHDRSZ + sizeof(Fingerprint));
    memcpy(VARDATA(result), PG_GETARG_POINTER(0), sizeof(Fingerprint));
    PG_RETURN_BYTEA_P(result);
}
