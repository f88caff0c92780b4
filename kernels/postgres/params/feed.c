/*
 * feed.c -- filling a version: rows of llm_param come one by one, sealing joins a parameter's parts.
 *
 * What is made of a row is owned by the memory context of the call until all of it is there; an error leaves the version
 * as it was. An error while sealing leaves it in pieces: it can then only be closed (versions.c lists the states).
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "params_internal.h"
#include "session/engine.h"
#include "session/settings.h"
#include "tensor/tensor_view.h"

#define MAX_PARAMS     65536     /* of a version; 96 layers of GPT-3 are some 1200 */
#define MAX_PARTS      (1 << 20) /* of a parameter */
#define MAX_PARAM_NAME 8191      /* bytes */

/* The version of the model that is being fed. */
static ModelVersion *
require_feeding(const char *model)
{
    ModelVersion *v = params_pinned(model);

    if (v == NULL || v->ready || v->sealing)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("no version of model \"%s\" is being fed", model),
                v != NULL && v->sealing ? errdetail("Sealing it failed.") : 0,
                errhint("Call pg_llm_arena_open first."));
    return v;
}

/* The numbers of a fed value, for us alone; the reference is the caller's memory context's. */
static TensorBuffer *
feed_buffer(const Tensor *t)
{
    Tensor *own;

    if (t->buffer->unfilled)
        return t->buffer; /* feed_lazy made it */
    if (tensor_buffer_writable(t->buffer) && t->data == t->buffer->data)
        return t->buffer;
    own = tensor_new(t->ndim, t->dims);
    llm_copy(pg_llm_engine(), own->data, t->data, false, t->n);
    pg_llm_check(pg_llm_engine());
    return own->buffer;
}

/* A matrix that is stored as bf16 stays so for who reads weights in fewer bits; NULL: this is none. */
static Tensor *
feed_lazy(const ModelVersion *v, Datum data)
{
    TensorView    view;
    TensorBuffer *buffer;
    Tensor       *t = NULL;
    uint16       *halves;

    if (v->training || pg_llm_weights == LLM_FLOAT32)
        return NULL;
    view = tensor_view_open_stored(data);
    if (view.bf16 != NULL && view.ndim == 2)
    {
        buffer = tensor_buffer_lazy_alloc(view.n, &halves);
        memcpy(halves, view.bf16, view.n * sizeof(uint16));
        t = tensor_wrap(view.ndim, view.dims, buffer, buffer->data);
        tensor_buffer_release(buffer);
    }
    tensor_view_close(&view);
    return t;
}

static ModelParam *
find_fed(ModelVersion *v, const char *name)
{
    for (int i = v->n_params - 1; i >= 0; i--)
        if (strcmp(v->params[i].name, name) == 0)
            return &v->params[i];
    return NULL;
}

/* Room for `n` elements and more in an array of the version; its elements stay. */
static void *
grow(ModelVersion *v, void *array, int *room, int n, size_t size)
{
    int   larger = Max(*room * 2, n);
    void *grown;

    if (n <= *room)
        return array;
    grown = array == NULL ? MemoryContextAllocHuge(v->context, size * larger) : repalloc_huge(array, size * larger);
    *room = larger;
    return grown;
}

/* One more parameter without parts, which does not count yet: the caller raises n_params. */
static ModelParam *
next_param(ModelVersion *v, const char *name)
{
    ModelParam p = {0};

    if (v->n_params >= MAX_PARAMS || strlen(name) > MAX_PARAM_NAME)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("model \"%s\" has too many parameters, or their names are too long", v->model),
                errdetail("The limits are %d parameters and %d bytes.", MAX_PARAMS, MAX_PARAM_NAME));
    v->params = grow(v, v->params, &v->room, v->n_params == 0 ? 64 : v->n_params + 1, sizeof(ModelParam));
    p.name = MemoryContextStrdup(v->context, name);
    v->params[v->n_params] = p;
    return &v->params[v->n_params];
}

/* pg_llm_arena_put(model, name, token_id, data, m, v) */
PG_FUNCTION_INFO_V1(pg_llm_arena_put);
Datum
pg_llm_arena_put(PG_FUNCTION_ARGS)
{
    ModelVersion *v;
    ModelParam   *p;
    ParamPart     part = {0};
    Tensor       *fed[3], *lazy = NULL;
    char         *name;
    bool          is_new;

    if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
        ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                errmsg("model, name, token_id and data of a parameter must not be NULL"));
    v = require_feeding(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    name = text_to_cstring(PG_GETARG_TEXT_PP(1));
    lazy = feed_lazy(v, PG_GETARG_DATUM(3));
    for (int i = 0; i < 3; i++)
    {
        fed[i] = i == 0 && lazy != NULL                           ? lazy
                 : PG_ARGISNULL(3 + i) || (i > 0 && !v->training) ? NULL
                                                                  : PG_GETARG_TENSOR(3 + i);
        if (fed[i] != NULL && fed[i]->n != fed[0]->n)
            ereport(ERROR, errcode(ERRCODE_DATA_EXCEPTION),
                    errmsg("parameter \"%s\": data has shape %s, its moments %s", name,
                           tensor_shape_text(fed[0]->ndim, fed[0]->dims),
                           tensor_shape_text(fed[i]->ndim, fed[i]->dims)));
    }
    part.token_id = PG_GETARG_INT32(2);
    part.ndim = fed[0]->ndim;
    memcpy(part.dims, fed[0]->dims, sizeof(part.dims));
    part.n = fed[0]->n;
    part.rows = part.ndim > 0 ? part.dims[0] : 1;
    for (int i = 0; i < 3; i++)
        if (fed[i] != NULL)
            part.fed[i] = feed_buffer(fed[i]);
    p = find_fed(v, name);
    is_new = p == NULL;
    if (is_new)
        p = next_param(v, name);
    if (p->n_parts >= MAX_PARTS)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("parameter \"%s\" of model \"%s\" has more than %d parts", name, v->model, MAX_PARTS));
    p->parts = grow(v, p->parts, &p->parts_room, p->n_parts + 1, sizeof(ParamPart));
    /* from here on nothing can fail */
    for (int i = 0; i < 3; i++)
        if (part.fed[i] != NULL)
            tensor_buffer_retain(part.fed[i]);
    p->parts[p->n_parts++] = part;
    v->n_params += is_new;
    PG_RETURN_VOID();
}

static int
compare_params(const void *a, const void *b)
{
    return strcmp(((const ModelParam *) a)->name, ((const ModelParam *) b)->name);
}

/* Every op of a pass asks for parameters by their names, next to weights that leave nothing else in a cache. */
void
feed_index(ModelVersion *v)
{
    uint32 n_slots = pg_nextpower2_32(2 * (uint32) v->n_params + 1);
    int   *slots = MemoryContextAlloc(v->context, sizeof(int) * n_slots);

    for (uint32 slot = 0; slot < n_slots; slot++)
        slots[slot] = -1;
    for (int i = 0; i < v->n_params; i++)
    {
        uint32 slot = v->params[i].hash = params_hash_name(v->params[i].name);

        while (slots[slot & (n_slots - 1)] >= 0)
            slot++;
        slots[slot & (n_slots - 1)] = i;
    }
    v->n_slots = n_slots;
    v->slots = slots;
}

static int
compare_parts(const void *a, const void *b)
{
    int32 x = ((const ParamPart *) a)->token_id;
    int32 y = ((const ParamPart *) b)->token_id;

    return x < y ? -1 : x > y;
}

static bool
all_finite(const TensorBuffer *b, size_t n)
{
    const uint16 *halves;

    if (!b->unfilled)
        return pg_llm_all_finite(pg_llm_engine(), b->data, n);
    halves = tensor_buffer_halves(b);
    for (size_t i = 0; i < n; i++)
        if ((halves[i] & 0x7f80) == 0x7f80)
            return false;
    return true;
}

/*
 * Joins what was fed as data (0), m (1) or v (2); what was not fed is zero. A large parameter takes a while: the
 * buffer is the parameter's before it is filled, so that a cancel leaves nothing behind.
 */
static void
join_parts(const ModelVersion *v, const ModelParam *p, int which, TensorBuffer **joined)
{
    llm_engine *e = pg_llm_engine();
    size_t      at = 0;
    bool        lazy = true;

    for (int i = 0; i < p->n_parts; i++)
    {
        TensorBuffer *fed = p->parts[i].fed[which];

        lazy &= fed != NULL && fed->unfilled;
        if (fed != NULL && !all_finite(fed, p->parts[i].n))
            ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                    errmsg("parameter \"%s\" of model \"%s\" holds a value that is not finite", p->name, v->model),
                    errhint("Restore the row, or initialise the model again with llm_init_model."));
    }
    if (p->n_parts == 1 && p->parts[0].fed[which] != NULL)
    {
        *joined = tensor_buffer_retain(p->parts[0].fed[which]);
        return;
    }
    if (lazy)
    {
        uint16 *halves;

        *joined = tensor_buffer_lazy_alloc(p->n, &halves);
        for (int i = 0; i < p->n_parts; at += p->parts[i].n, i++)
            memcpy(halves + at, tensor_buffer_halves(p->parts[i].fed[which]), p->parts[i].n * sizeof(uint16));
        return;
    }
    *joined = tensor_buffer_alloc(p->n);
    for (int i = 0; i < p->n_parts; at += p->parts[i].n, i++)
    {
        TensorBuffer *fed = p->parts[i].fed[which];

        if (fed == NULL)
            llm_fill(e, (*joined)->data + at, 0.0f, p->parts[i].n);
        else
        {
            tensor_buffer_need(fed);
            llm_copy(e, (*joined)->data + at, fed->data, false, p->parts[i].n);
        }
        pg_llm_check(e);
    }
}

static void
forget_fed(ModelParam *p)
{
    for (int i = 0; i < p->n_parts; i++)
        for (int which = 0; which < 3; which++)
        {
            tensor_buffer_release(p->parts[i].fed[which]);
            p->parts[i].fed[which] = NULL;
        }
}

static void
seal_param(ModelVersion *v, ModelParam *p)
{
    const ParamPart *first;
    int64            rows = 0;

    qsort(p->parts, p->n_parts, sizeof(ParamPart), compare_parts);
    first = &p->parts[0];
    for (int i = 0; i < p->n_parts; i++)
    {
        const ParamPart *part = &p->parts[i];

        if (part->token_id != rows || part->ndim != first->ndim || (p->n_parts > 1 && part->ndim < 1) ||
            memcmp(part->dims + 1, first->dims + 1, sizeof(int32) * Max(part->ndim - 1, 0)) != 0)
            ereport(ERROR, errcode(ERRCODE_DATA_EXCEPTION),
                    errmsg("the parts of parameter \"%s\" of model \"%s\" do not fit together", p->name, v->model),
                    errdetail("The part at row %d has shape %s; the next part should begin at row " INT64_FORMAT ".",
                              part->token_id, tensor_shape_text(part->ndim, part->dims), rows));
        rows += part->rows;
    }
    if (rows > INT_MAX)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("parameter \"%s\" has too many rows", p->name));
    p->ndim = first->ndim;
    memcpy(p->dims, first->dims, sizeof(int32) * first->ndim);
    if (p->ndim > 0)
        p->dims[0] = (int32) rows;
    p->n = 0;
    for (int i = 0; i < p->n_parts; i++)
        p->n += p->parts[i].n;
    join_parts(v, p, 0, &p->data);
    v->bytes += p->n * (p->data->unfilled ? sizeof(uint16) : sizeof(float));
    if (v->training)
    {
        join_parts(v, p, 1, &p->m);
        join_parts(v, p, 2, &p->v);
        v->bytes += 3 * p->n * sizeof(float); /* the gradient will follow */
    }
    forget_fed(p);
}

/* pg_llm_arena_seal(model): ends feeding; joins the parts of each parameter and checks that all numbers are finite */
PG_FUNCTION_INFO_V1(pg_llm_arena_seal);
Datum
pg_llm_arena_seal(PG_FUNCTION_ARGS)
{
    char         *model = text_to_cstring(PG_GETARG_TEXT_PP(0));
    ModelVersion *v = require_feeding(model);

    versions_trim(model, v);
    v->sealing = true; /* and stays so after an error */
    for (int i = 0; i < v->n_params; i++)
    {
        seal_param(v, &v->params[i]);
        CHECK_FOR_INTERRUPTS();
    }
    qsort(v->params, v->n_params, sizeof(ModelParam), compare_params);
    feed_index(v);
    v->sealing = false;
    v->ready = true;
    PG_RETURN_VOID();
}
