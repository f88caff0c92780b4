/*
 * optimizer.c -- AdamW, gradient clipping and schedules as plain SQL functions over the engine.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "session/engine.h"
#include "tensor/tensor.h"

static Tensor *
copy_or_zeros(FunctionCallInfo fcinfo, int arg, const Tensor *like)
{
    Tensor *t = tensor_new(like->ndim, like->dims);

    if (PG_ARGISNULL(arg))
        llm_fill(pg_llm_engine(), t->data, 0.0f, t->n);
    else
    {
        Tensor     *from = PG_GETARG_TENSOR(arg);
        llm_engine *e = pg_llm_engine();

        if (from->n != like->n)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("adamw_step: the weight has shape %s, but argument %d %s",
                           tensor_shape_text(like->ndim, like->dims), arg + 1,
                           tensor_shape_text(from->ndim, from->dims)));
        llm_copy(e, t->data, from->data, false, t->n);
        pg_llm_check(e);
    }
    return t;
}

/* pg_llm_adamw_step(weight, grad, m, v, lr, beta1, beta2, eps, weight_decay, step) -> (weight, m, v) */
PG_FUNCTION_INFO_V1(pg_llm_adamw_step);
Datum
pg_llm_adamw_step(PG_FUNCTION_ARGS)
{
    TupleDesc   desc;
    Datum       values[3] = {0};
    bool        nulls[3] = {true, true, true};
    llm_engine *e = pg_llm_engine();

    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    for (int i = 4; i < 10; i++)
        if (PG_ARGISNULL(i))
            ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                    errmsg("adamw_step: the rate, the betas, eps, weight_decay and step must not be NULL"));
    if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
    {
        /* without a gradient nothing moves: a weight is never replaced by NULL */
        int from[3] = {0, 2, 3};

        for (int i = 0; i < 3; i++)
        {
            nulls[i] = PG_ARGISNULL(from[i]);
            values[i] = nulls[i] ? (Datum) 0 : PG_GETARG_DATUM(from[i]);
        }
    }
    else
    {
        Tensor   *weight = PG_GETARG_TENSOR(0);
        Tensor   *grad = copy_or_zeros(fcinfo, 1, weight);
        Tensor   *w = copy_or_zeros(fcinfo, 0, weight);
        Tensor   *m = copy_or_zeros(fcinfo, 2, weight);
        Tensor   *v = copy_or_zeros(fcinfo, 3, weight);
        llm_adamw o = {.lr = PG_GETARG_FLOAT8(4),
                       .beta1 = PG_GETARG_FLOAT8(5),
                       .beta2 = PG_GETARG_FLOAT8(6),
                       .eps = PG_GETARG_FLOAT8(7),
                       .weight_decay = PG_GETARG_FLOAT8(8),
                       .grad_scale = 1.0f};

        if (PG_GETARG_INT64(9) < 1)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("adamw_step: steps count from 1, not " INT64_FORMAT, PG_GETARG_INT64(9)));
        o.step = (uint64) PG_GETARG_INT64(9);
        if (!pg_llm_all_finite(e, grad->data, grad->n))
            ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                    errmsg("adamw_step: the gradient is not finite"));
        llm_adamw_step(e, w->data, m->data, v->data, grad->data, &o, w->n);
        pg_llm_check(e);
        values[0] = tensor_datum(w);
        values[1] = tensor_datum(m);
        values[2] = tensor_datum(v);
        nulls[0] = nulls[1] = nulls[2] = false;
    }
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* pg_llm_grad_clip(grad, clip): grad scaled so that its L2 norm is at most clip (PyTorch's formula) */
PG_FUNCTION_INFO_V1(pg_llm_grad_clip);
Datum
pg_llm_grad_clip(PG_FUNCTION_ARGS)
{
    Tensor     *grad = PG_GETARG_TENSOR(0);
    double      clip = PG_GETARG_FLOAT8(1);
    llm_engine *e = pg_llm_engine();
    Tensor     *out;
    double      scale;

    if (!(clip > 0.0))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the clipping threshold must be above 0, not %g", clip));
    if (!pg_llm_all_finite(e, grad->data, grad->n))
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("the gradient is not finite"));
    scale = Min(1.0, clip / (pg_llm_l2_norm(grad->data, grad->n) + 1e-6));
    out = tensor_new(grad->ndim, grad->dims);
    llm_scale(e, out->data, grad->data, (float) scale, false, grad->n);
    pg_llm_check(e);
    PG_RETURN_TENSOR(out);
}

/* pg_llm_lr_schedule(step, warmup, total, lr_max, schedule, min_lr) */
PG_FUNCTION_INFO_V1(pg_llm_lr_schedule);
Datum
pg_llm_lr_schedule(PG_FUNCTION_ARGS)
{
    char        *name = text_to_cstring(PG_GETARG_TEXT_PP(4));
    llm_schedule kind;

    if (strcmp(name, "cosine") == 0)
        kind = LLM_COSINE;
    else if (strcmp(name, "linear") == 0)
        kind = LLM_LINEAR;
    else if (strcmp(name, "constant") == 0)
        kind = LLM_CONSTANT;
    else
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown schedule \"%s\"", name),
                errhint("Schedules are cosine, linear and constant."));
    if (PG_GETARG_INT64(0) < 1 || PG_GETARG_INT64(1) < 0 || PG_GETARG_INT64(2) < 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a schedule cannot have step " INT64_FORMAT ", warmup " INT64_FORMAT ", total " INT64_FORMAT,
                       PG_GETARG_INT64(0), PG_GETARG_INT64(1), PG_GETARG_INT64(2)),
                errhint("step and total must be at least 1, and warmup at least 0."));
    PG_RETURN_FLOAT8(llm_lr_schedule(kind, PG_GETARG_INT64(0), PG_GETARG_INT64(1), PG_GETARG_INT64(2),
                                     PG_GETARG_FLOAT8(3), PG_GETARG_FLOAT8(5)));
}
