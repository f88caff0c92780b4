/*
 * train.c -- gradients of a version in memory, their sums and norms, and optimizer steps on its weights.
 */
#include "postgres.h"

#include <math.h>

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#include "session/suspended.h"
#include "params_internal.h"
#include "session/engine.h"

ModelVersion *
params_require_training(text *model)
{
    ModelVersion *v = params_require(text_to_cstring(model));

    /* a version that holds moments may be pinned by one who only reads, and shared with others */
    if (!v->training || !params_pinned_for_training(v->model))
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("model \"%s\" is not loaded for training", v->model), errhint("Call llm_pin(model, true)."));
    return v;
}

void
params_require_grads(const ModelVersion *v)
{
    if (v->grads_lost)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("gradients of model \"%s\" are lost", v->model),
                errdetail("An error was caught, or a savepoint rolled back, after other gradients had been added."),
                errhint("Start the step again: llm_materialize_params(model), or pg_llm_arena_zero_grad(model)."));
}

float *
params_gradient(ModelVersion *v, ModelParam *p, bool *acc)
{
    params_require_grads(v);
    versions_touch(v);
    if (p->grad == NULL)
        p->grad = tensor_buffer_alloc(p->n);
    *acc = p->has_grad;
    p->has_grad = true;
    return p->grad->data;
}

/* pg_llm_arena_zero_grad(model): clears all gradients and their sums, lost ones included */
PG_FUNCTION_INFO_V1(pg_llm_arena_zero_grad);
Datum
pg_llm_arena_zero_grad(PG_FUNCTION_ARGS)
{
    ModelVersion *v = params_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));

    require_not_suspended();
    versions_touch(v);
    for (int i = 0; i < v->n_params; i++)
        v->params[i].has_grad = v->params[i].has_sum = false;
    v->grads_lost = false;
    PG_RETURN_VOID();
}

/* ---- micro-batches ---- */

static void
swap_sum(ModelParam *p)
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
    ModelVersion *v = params_require_training(PG_GETARG_TEXT_PP(0));

    require_not_suspended();
    params_require_grads(v);
    versions_touch(v);
    for (int i = 0; i < v->n_params; i++)
    {
        ModelParam *p = &v->params[i];

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
    ModelVersion *v = params_require_training(PG_GETARG_TEXT_PP(0));

    require_not_suspended();
    params_require_grads(v);
    versions_touch(v);
    for (int i = 0; i < v->n_params; i++)
    {
        ModelParam *p = &v->params[i];

        if (p->has_sum)
            swap_sum(p);
        p->has_sum = false;
    }
    PG_RETURN_VOID();
}

/* ---- norms: squares summed in double, parameters in the order of their names ---- */

static double
sum_squares(const ModelParam *p)
{
    return p->has_grad ? llm_sum_squares(pg_llm_engine(), p->grad->data, p->n) : 0.0;
}

static double
global_norm(const ModelVersion *v)
{
    double sum = 0.0;

    params_require_grads(v);
    for (int i = 0; i < v->n_params; i++)
    {
        sum += sum_squares(&v->params[i]);
        pg_llm_check(pg_llm_engine());
    }
    return sqrt(sum);
}

/* pg_llm_arena_grad_norms(model) -> {"parameter": norm, ...} of those that have a gradient */
PG_FUNCTION_INFO_V1(pg_llm_arena_grad_norms);
Datum
pg_llm_arena_grad_norms(PG_FUNCTION_ARGS)
{
    ModelVersion  *v = params_require(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    StringInfoData json;
    const char    *comma = "";

    params_require_grads(v);
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

    if (tensor_buffer_writable(*buffer))
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
    ModelVersion *v;
    llm_adamw     o;
    double        norm;
    double        scale = 1.0;

    require_not_suspended();
    for (int i = 0; i < 9; i++)
        if (PG_ARGISNULL(i) && i != 7)
            ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                    errmsg("pg_llm_arena_adamw: only grad_clip may be NULL"));
    v = params_require_training(PG_GETARG_TEXT_PP(0));
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
    versions_touch(v);
    v->dirty = v->changed = true;
    for (int i = 0; i < v->n_params; i++)
    {
        ModelParam *p = &v->params[i];

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
