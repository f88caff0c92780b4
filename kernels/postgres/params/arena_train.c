/*
 * arena_train.c -- gradients and optimizer state of a version in memory, and handing them back for write-back.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#include "arena.h"
#include "session/engine.h"

static ArenaVersion *
require_training(text *model)
{
    ArenaVersion *v = arena_require(text_to_cstring(model));

    /* a version that holds moments may be pinned by one who only reads, and shared with others */
    if (!v->training || !arena_pinned_for_training(v->model))
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("model \"%s\" is not loaded for training", v->model), errhint("Call llm_pin(model, true)."));
    return v;
}

void
arena_require_grads(const ArenaVersion *v)
{
    if (v->grads_lost)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("gradients of model \"%s\" are lost", v->model),
                errdetail("An error was caught, or a savepoint rolled back, after other gradients had been added."),
                errhint("Start the step again: llm_materialize_params(model), or pg_llm_arena_zero_grad(model)."));
}

float *
arena_gradient(ArenaVersion *v, ArenaParam *p, bool *acc)
{
    arena_require_grads(v);
    arena_touch(v);
    if (p->grad == NULL)
        p->grad = tensor_buffer_alloc(p->n);
    *acc = p->has_grad;
    p->has_grad = true;
    return p->grad->data;
}

PG_FUNCTION_INFO_V1(pg_llm_arena_zero_grad);
Datum
pg_llm_arena_zero_grad(PG_FUNCTION_ARGS)
{
    ArenaVersion *v = arena_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));

    arena_touch(v);
    for (int i = 0; i < v->n_params; i++)
        v->params[i].has_grad = v->params[i].has_sum = false;
    v->grads_lost = false;
    PG_RETURN_VOID();
}

/* ---- micro-batches ---- */

static void
swap_sum(ArenaParam *p)
{
    TensorBuffer *grad = p->grad;
    bool          has_grad = p->has_grad;

    p->grad = p->sum;
    p->has_grad = p->has_sum;
    p->sum = grad;
    p->has_sum = has_grad;
}

/*
 * pg_llm_arena_sum_grad(model): the gradients of a micro-batch join the sum of those before it, and the next one
 * starts from zero. Each micro-batch's gradient is thus a number of its own, whoever computes it, and a sum in the
 * order of micro-batches has the same bits wherever the terms were made.
 */
PG_FUNCTION_INFO_V1(pg_llm_arena_sum_grad);
Datum
pg_llm_arena_sum_grad(PG_FUNCTION_ARGS)
{
    llm_engine   *e = pg_llm_engine();
    ArenaVersion *v = require_training(PG_GETARG_TEXT_PP(0));

    arena_require_grads(v);
    arena_touch(v);
    for (int i = 0; i < v->n_params; i++)
    {
        ArenaParam *p = &v->params[i];

        if (!p->has_grad)
            continue;
        if (!p->has_sum)
        {
            if (p->sum == NULL)
                v->bytes += p->n * sizeof(float);
            swap_sum(p);
            continue;
        }
        llm_copy(e, p->sum->data, p->grad->data, true, p->n);
        p->has_grad = false;
        pg_llm_check(e);
    }
    PG_RETURN_VOID();
}

/* pg_llm_arena_take_sum(model): the gradients are those that pg_llm_arena_sum_grad has summed. */
PG_FUNCTION_INFO_V1(pg_llm_arena_take_sum);
Datum
pg_llm_arena_take_sum(PG_FUNCTION_ARGS)
{
    ArenaVersion *v = require_training(PG_GETARG_TEXT_PP(0));

    arena_require_grads(v);
    arena_touch(v);
    for (int i = 0; i < v->n_params; i++)
    {
        ArenaParam *p = &v->params[i];

        if (p->has_sum)
            swap_sum(p);
        p->has_sum = false;
    }
    PG_RETURN_VOID();
}

/* ---- norms: squares summed in double, parameters in the order of their names ---- */

static double
sum_squares(const ArenaParam *p)
{
    return p->has_grad ? llm_sum_squares(pg_llm_engine(), p->grad->data, p->n) : 0.0;
}

static double
global_norm(const ArenaVersion *v)
{
    double sum = 0.0;

    arena_require_grads(v);
    for (int i = 0; i < v->n_params; i++)
    {
        sum += sum_squares(&v->params[i]);
        pg_llm_check(pg_llm_engine());
    }
    return sqrt(sum);
}

PG_FUNCTION_INFO_V1(pg_llm_arena_grad_norm);
Datum
pg_llm_arena_grad_norm(PG_FUNCTION_ARGS)
{
    PG_RETURN_FLOAT8(global_norm(arena_require(text_to_cstring(PG_GETARG_TEXT_PP(0)))));
}

/* {"parameter": norm, ...} of those that have a gradient */
PG_FUNCTION_INFO_V1(pg_llm_arena_grad_norms);
Datum
pg_llm_arena_grad_norms(PG_FUNCTION_ARGS)
{
    ArenaVersion  *v = arena_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    StringInfoData json;
    const char    *comma = "";

    arena_require_grads(v);
    initStringInfo(&json);
    appendStringInfoChar(&json, '{');
    for (int i = 0; i < v->n_params; i++)
    {
        double norm;

        if (!v->params[i].has_grad)
            continue;
        norm = sqrt(sum_squares(&v->params[i]));
        pg_llm_check(pg_llm_engine());
        appendStringInfoString(&json, comma);
        escape_json(&json, v->params[i].name);
        if (isfinite(norm))
            appendStringInfo(&json, ": %.9g", norm);
        else
            appendStringInfoString(&json, ": null");
        comma = ", ";
    }
    appendStringInfoChar(&json, '}');
    PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data)));
}

/* ---- optimizer ---- */

/* Weights that somebody else still holds are left to them. */
static void
make_own(TensorBuffer **buffer, size_t n)
{
    TensorBuffer *own;

    if ((*buffer)->refcount == 1)
        return;
    own = tensor_buffer_alloc(n);
    llm_copy(pg_llm_engine(), own->data, (*buffer)->data, false, n);
    /* stopped half-way: the version is changed already, and goes with the error */
    tensor_buffer_release(*buffer);
    *buffer = own;
}

/*
 * pg_llm_arena_adamw(model, lr, beta1, beta2, eps, weight_decay, step, grad_clip, decay_matrices_only)
 * -> global gradient norm before clipping. The clip factor is PyTorch's: grad_clip / (norm + 1e-6), at most 1.
 * Parameters without a gradient are left alone, decay included.
 */
PG_FUNCTION_INFO_V1(pg_llm_arena_adamw);
Datum
pg_llm_arena_adamw(PG_FUNCTION_ARGS)
{
    llm_engine   *e = pg_llm_engine();
    ArenaVersion *v;
    llm_adamw     o;
    double        norm;
    double        scale = 1.0;

    for (int i = 0; i < 9; i++)
        if (PG_ARGISNULL(i) && i != 7)
            ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                    errmsg("pg_llm_arena_adamw: only grad_clip may be NULL"));
    v = require_training(PG_GETARG_TEXT_PP(0));
    if (PG_GETARG_INT64(6) < 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the optimizer's step must be at least 1, not " INT64_FORMAT, PG_GETARG_INT64(6)));
    norm = global_norm(v);
    if (!isfinite(norm))
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                errmsg("the gradient of model \"%s\" is not finite at step " INT64_FORMAT, v->model,
                       PG_GETARG_INT64(6)),
                errhint("Lower the learning rate, or clip the gradient (grad_clip => 1.0)."));
    if (!PG_ARGISNULL(7))
        scale = Min(1.0, PG_GETARG_FLOAT8(7) / (norm + 1e-6));

    o.lr = PG_GETARG_FLOAT8(1);
    o.beta1 = PG_GETARG_FLOAT8(2);
    o.beta2 = PG_GETARG_FLOAT8(3);
    o.eps = PG_GETARG_FLOAT8(4);
    o.step = (uint64) PG_GETARG_INT64(6);
    o.grad_scale = (float) scale;
    arena_touch(v);
    v->dirty = true;
    for (int i = 0; i < v->n_params; i++)
    {
        ArenaParam *p = &v->params[i];

        if (!p->has_grad)
            continue;
        make_own(&p->data, p->n);
        make_own(&p->m, p->n);
        make_own(&p->v, p->n);
        o.weight_decay = PG_GETARG_BOOL(8) && p->ndim < 2 ? 0.0 : PG_GETARG_FLOAT8(5);
        llm_adamw_step(e, p->data->data, p->m->data, p->v->data, p->grad->data, &o, p->n);
        pg_llm_check(e);
    }
    PG_RETURN_FLOAT8(norm);
}

/* ---- write-back ---- */

/* After the rows were written, memory is the version they now have. */
PG_FUNCTION_INFO_V1(pg_llm_arena_saved);
Datum
pg_llm_arena_saved(PG_FUNCTION_ARGS)
{
    ArenaVersion *v = require_training(PG_GETARG_TEXT_PP(0));
    bytea        *fingerprint = PG_GETARG_BYTEA_PP(1);
    int           len = VARSIZE_ANY_EXHDR(fingerprint);
    char         *saved;

    if (len > ARENA_MAX_NAME)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("a version's name can have at most %d bytes, not %d", ARENA_MAX_NAME, len));
    saved = MemoryContextAlloc(v->context, len + 1);
    memcpy(saved, VARDATA_ANY(fingerprint), len);
    pfree(v->fingerprint);
    v->fingerprint = saved;
    v->fingerprint_len = len;
    v->dirty = false;
    PG_RETURN_VOID();
}

/* The command whose rows are now being written, if the next statement writes */
PG_FUNCTION_INFO_V1(pg_llm_command_id);
Datum
pg_llm_command_id(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT64((int64) GetCurrentCommandId(false));
}

static bool
same_bits(const TensorBuffer *held, size_t offset, const Tensor *stored, size_t n)
{
    static const float zero = 0.0f;

    if (stored != NULL)
        return stored->n == n && memcmp(held->data + offset, stored->data, n * sizeof(float)) == 0;
    for (size_t i = 0; i < n; i++) /* moments that are not stored are zero */
        if (memcmp(held->data + offset + i, &zero, sizeof(float)) != 0)
            return false;
    return true;
}

/* pg_llm_arena_same(model, name, token_id, data, m, v) -> whether memory holds this row, to the bit */
PG_FUNCTION_INFO_V1(pg_llm_arena_same);
Datum
pg_llm_arena_same(PG_FUNCTION_ARGS)
{
    ArenaVersion *v;
    ArenaParam   *p;
    Tensor       *stored[3];
    TensorBuffer *held[3];
    int32         token_id;

    for (int i = 0; i < 4; i++)
        if (PG_ARGISNULL(i))
            PG_RETURN_BOOL(false);
    v = require_training(PG_GETARG_TEXT_PP(0));
    p = arena_find(v, text_to_cstring(PG_GETARG_TEXT_PP(1)));
    token_id = PG_GETARG_INT32(2);
    for (int i = 0; i < 3; i++)
        stored[i] = PG_ARGISNULL(3 + i) ? NULL : PG_GETARG_TENSOR(3 + i);
    if (p == NULL || stored[0]->ndim != p->ndim)
        PG_RETURN_BOOL(false);
    for (int axis = 1; axis < p->ndim; axis++)
        if (stored[0]->dims[axis] != p->dims[axis])
            PG_RETURN_BOOL(false);
    held[0] = p->data;
    held[1] = p->m;
    held[2] = p->v;
    for (int i = 0; i < p->n_parts; i++)
    {
        const ArenaPart *part = &p->parts[i];
        size_t           row = p->ndim == 0 ? 1 : p->n / Max(p->dims[0], 1);

        if (part->token_id != token_id)
            continue;
        for (int which = 0; which < 3; which++)
            if (!same_bits(held[which], token_id * row, stored[which], part->rows * row))
                PG_RETURN_BOOL(false);
        PG_RETURN_BOOL(true);
    }
    PG_RETURN_BOOL(false);
}

/* The number of rows of llm_param that the version was fed from */
PG_FUNCTION_INFO_V1(pg_llm_arena_rows);
Datum
pg_llm_arena_rows(PG_FUNCTION_ARGS)
{
    ArenaVersion *v = arena_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    int64         rows = 0;

    for (int i = 0; i < v->n_params; i++)
        rows += v->params[i].n_parts;
    PG_RETURN_INT64(rows);
}

PG_FUNCTION_INFO_V1(pg_llm_arena_discard);
Datum
pg_llm_arena_discard(PG_FUNCTION_ARGS)
{
    ArenaVersion *v = arena_pinned(text_to_cstring(PG_GETARG_TEXT_PP(0)));

    if (v != NULL)
        v->dirty = true; /* goes with its last pin */
    PG_RETURN_VOID();
}

/* A model that could not be read again must not be written. */
static void
refuse_not_finite(const ArenaVersion *v, const ArenaParam *p, const Tensor *t)
{
    if (!pg_llm_all_finite(pg_llm_engine(), t->data, t->n))
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                errmsg("training left parameter \"%s\" of model \"%s\" with a value that is not finite", p->name,
                       v->model),
                errhint("Nothing was changed. Lower the learning rate, or clip the gradient (grad_clip => 1.0)."));
}

typedef enum PartKind
{
    PART_DATA,
    PART_GRAD,
    PART_M,
    PART_V
} PartKind;

static Datum
part_value(FunctionCallInfo fcinfo, PartKind kind)
{
    ArenaVersion *v = arena_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    ArenaParam   *p = arena_require_param(v, text_to_cstring(PG_GETARG_TEXT_PP(1)));
    ArenaPart    *part = arena_require_part(v, p, PG_GETARG_INT32(2));
    TensorBuffer *buffer = kind == PART_DATA ? p->data : kind == PART_GRAD ? p->grad : kind == PART_M ? p->m : p->v;
    Tensor       *t;

    if (kind == PART_GRAD)
        arena_require_grads(v);
    if (buffer == NULL || (kind == PART_GRAD && !p->has_grad))
        PG_RETURN_NULL();
    t = arena_part_tensor(p, part, buffer);
    if (kind == PART_GRAD)
    {
        /* the next backward pass adds to the buffer: who asked for this sum keeps this sum */
        Tensor *copy = tensor_new(t->ndim, t->dims);

        llm_copy(pg_llm_engine(), copy->data, t->data, false, t->n);
        pg_llm_check(pg_llm_engine());
        PG_RETURN_TENSOR(copy);
    }
    if (v->dirty)
        refuse_not_finite(v, p, t);
    PG_RETURN_TENSOR(t);
}

#define PART_FUNCTION(name, kind)                                                                                      \
    PG_FUNCTION_INFO_V1(pg_llm_arena_##name);                                                                          \
    Datum pg_llm_arena_##name(PG_FUNCTION_ARGS)                                                                        \
    {                                                                                                                  \
        return part_value(fcinfo, kind);                                                                               \
    }                                                                                                                  \
    extern int pg_llm_require_semicolon_part_##name

PART_FUNCTION(data, PART_DATA);
PART_FUNCTION(grad, PART_GRAD);
PART_FUNCTION(m, PART_M);
PART_FUNCTION(v, PART_V);
