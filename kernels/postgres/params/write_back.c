/*
 * write_back.c -- what write-back to llm_param asks of a version: its parts, which rows are the same, its new fingerprint.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"

#include "session/suspended.h"
#include "params_internal.h"
#include "session/engine.h"
#include "tensor/buffer.h"

/* After the rows were written, memory is the version they now have. */
PG_FUNCTION_INFO_V1(pg_llm_arena_saved);
Datum
pg_llm_arena_saved(PG_FUNCTION_ARGS)
{
    ModelVersion *v = params_require_training(PG_GETARG_TEXT_PP(0));
    bytea        *fingerprint = PG_GETARG_BYTEA_PP(1);
    int           len = VARSIZE_ANY_EXHDR(fingerprint);
    char         *saved;

    if (len > PARAMS_MAX_NAME)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("a version's name can have at most %d bytes, not %d", PARAMS_MAX_NAME, len));
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

/*
 * pg_llm_arena_drop_moments(model): the pinned version is one of weights alone from now on. The table has no moments
 * any more, and memory must not go on with some that a reload would not find.
 */
PG_FUNCTION_INFO_V1(pg_llm_arena_drop_moments);
Datum
pg_llm_arena_drop_moments(PG_FUNCTION_ARGS)
{
    ModelVersion *v = params_require_training(PG_GETARG_TEXT_PP(0));

    require_not_suspended();
    versions_touch(v);
    for (int i = 0; i < v->n_params; i++)
    {
        ModelParam    *p = &v->params[i];
        TensorBuffer **own[] = {&p->grad, &p->sum, &p->m, &p->v};

        for (int which = 0; which < lengthof(own); which++)
        {
            tensor_buffer_release(*own[which]);
            *own[which] = NULL;
        }
        p->has_grad = p->has_sum = false;
    }
    v->grads_lost = false;
    v->bytes = 0;
    for (int i = 0; i < v->n_params; i++)
        v->bytes += v->params[i].n * sizeof(float);
    v->training = false;
    tensor_buffer_training(-1);
    PG_RETURN_VOID();
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
    ModelVersion *v;
    ModelParam   *p;
    Tensor       *stored[3];
    TensorBuffer *held[3];
    int32         token_id;

    for (int i = 0; i < 4; i++)
        if (PG_ARGISNULL(i))
            PG_RETURN_BOOL(false);
    v = params_require_training(PG_GETARG_TEXT_PP(0));
    p = params_find(v, text_to_cstring(PG_GETARG_TEXT_PP(1)));
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
        const ParamPart *part = &p->parts[i];
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
    ModelVersion *v = params_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    int64         rows = 0;

    for (int i = 0; i < v->n_params; i++)
        rows += v->params[i].n_parts;
    PG_RETURN_INT64(rows);
}

/* pg_llm_arena_discard(model): nobody finds the pinned version again */
PG_FUNCTION_INFO_V1(pg_llm_arena_discard);
Datum
pg_llm_arena_discard(PG_FUNCTION_ARGS)
{
    ModelVersion *v = params_pinned(text_to_cstring(PG_GETARG_TEXT_PP(0)));

    require_not_suspended();
    if (v != NULL)
    {
        v->dirty = true; /* goes with its last pin */
        v->kept = false;
        v->discarded = true;
    }
    PG_RETURN_VOID();
}

/* A model that could not be read again must not be written. */
static void
refuse_not_finite(const ModelVersion *v, const ModelParam *p, const Tensor *t)
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
    ModelVersion *v = params_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    ModelParam   *p = params_require_param(v, text_to_cstring(PG_GETARG_TEXT_PP(1)));
    ParamPart    *part = params_require_part(v, p, PG_GETARG_INT32(2));
    TensorBuffer *buffer = kind == PART_DATA ? p->data : kind == PART_GRAD ? p->grad : kind == PART_M ? p->m : p->v;
    Tensor       *t;

    if (kind == PART_GRAD)
        params_require_grads(v);
    if (buffer == NULL || (kind == PART_GRAD && !p->has_grad))
        PG_RETURN_NULL();
    t = params_part_tensor(p, part, buffer);
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

/* pg_llm_arena_data(model, name, token_id) and so on: one part of a parameter in memory; NULL: it has no gradient */
PART_FUNCTION(data, PART_DATA);
PART_FUNCTION(grad, PART_GRAD);
PART_FUNCTION(m, PART_M);
PART_FUNCTION(v, PART_V);
