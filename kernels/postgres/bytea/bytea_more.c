/*
 * bytea_more.c -- what is on bytea beside the ops: zeros, ones, clipping, the optimizer's step.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "funcapi.h"

#include "bytea_floats.h"
#include "session/engine.h"

/* A bytea of the size of argument x, filled with one number. */
static Datum
filled_like(FunctionCallInfo fcinfo, float value)
{
    llm_engine *e = pg_llm_engine();
    Floats      x = floats_arg(fcinfo, 0, "x");
    float      *out;
    bytea      *result = floats_new(x.n, &out);

    llm_fill(e, out, value, x.n);
    pg_llm_check(e);
    return floats_result(result);
}

/* pg_llm_zeros_like(x) */
PG_FUNCTION_INFO_V1(pg_llm_bytea_zeros_like);
Datum
pg_llm_bytea_zeros_like(PG_FUNCTION_ARGS)
{
    return filled_like(fcinfo, 0.0f);
}

/* pg_llm_ones_like(x) */
PG_FUNCTION_INFO_V1(pg_llm_bytea_ones_like);
Datum
pg_llm_bytea_ones_like(PG_FUNCTION_ARGS)
{
    return filled_like(fcinfo, 1.0f);
}

/* The gradient scaled so that its norm is at most `clip`, by PyTorch's factor clip / (norm + 1e-6). */
PG_FUNCTION_INFO_V1(pg_llm_bytea_grad_clip);
Datum
pg_llm_bytea_grad_clip(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Floats      grad = floats_arg(fcinfo, 0, "grad");
    double      clip = PG_GETARG_FLOAT8(1);
    double      norm;
    float      *out;
    bytea      *result;

    if (!(clip > 0))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("clip must be positive, not %g", clip));
    norm = pg_llm_l2_norm(grad.data, grad.n);
    if (!isfinite(norm))
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("the gradient is not finite"));
    result = floats_new(grad.n, &out);
    llm_scale(e, out, grad.data, (float) Min(1.0, clip / (norm + 1e-6)), false, grad.n);
    pg_llm_check(e);
    return floats_result(result);
}

/* A row of the function's declared record type. */
static Datum
record_of(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
    TupleDesc desc;

    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* A copy of argument i to work on; zeros when it is NULL. */
static bytea *
moment(FunctionCallInfo fcinfo, int i, const char *name, const Floats *weight, float **data)
{
    bytea *result = floats_new(weight->n, data);

    if (PG_ARGISNULL(i))
        memset(*data, 0, weight->n * sizeof(float));
    else
    {
        Floats given = floats_arg(fcinfo, i, name);

        floats_expect_like(&given, weight);
        memcpy(*data, given.data, weight->n * sizeof(float));
    }
    return result;
}

static llm_adamw
adamw_options(FunctionCallInfo fcinfo)
{
    llm_adamw o;

    for (int i = 4; i < 10; i++)
        if (PG_ARGISNULL(i))
            ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("only weight, grad, m and v may be NULL"));
    o.lr = PG_GETARG_FLOAT8(4);
    o.beta1 = PG_GETARG_FLOAT8(5);
    o.beta2 = PG_GETARG_FLOAT8(6);
    o.eps = PG_GETARG_FLOAT8(7);
    o.weight_decay = PG_GETARG_FLOAT8(8);
    o.grad_scale = 1.0f;
    if (PG_GETARG_INT64(9) < 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("step must be at least 1, not " INT64_FORMAT, PG_GETARG_INT64(9)));
    o.step = (uint64) PG_GETARG_INT64(9);
    return o;
}

/*
 * pg_llm_adamw_step(weight, grad, m, v, lr, beta1, beta2, eps, weight_decay, step) -> weight, m, v
 *
 * Not strict: a NULL gradient leaves all three as they are, and missing moments start from zero. A NULL weight
 * gives NULLs, which a NOT NULL column then refuses.
 */
PG_FUNCTION_INFO_V1(pg_llm_bytea_adamw_step);
Datum
pg_llm_bytea_adamw_step(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Datum       values[3] = {0};
    bool        nulls[3] = {true, true, true};
    const int   arguments[3] = {0, 2, 3};
    llm_adamw   o;
    Floats      weight, grad;
    float      *data[3];
    bytea      *results[3];

    if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
    {
        for (int i = 0; i < 3 && !PG_ARGISNULL(0); i++)
        {
            nulls[i] = PG_ARGISNULL(arguments[i]);
            values[i] = PG_GETARG_DATUM(arguments[i]);
        }
        return record_of(fcinfo, values, nulls);
    }
    o = adamw_options(fcinfo);
    weight = floats_arg(fcinfo, 0, "weight");
    grad = floats_arg(fcinfo, 1, "grad");
    floats_expect_like(&grad, &weight);
    results[0] = moment(fcinfo, 0, "weight", &weight, &data[0]);
    results[1] = moment(fcinfo, 2, "m", &weight, &data[1]);
    results[2] = moment(fcinfo, 3, "v", &weight, &data[2]);
    llm_adamw_step(e, data[0], data[1], data[2], grad.data, &o, weight.n);
    pg_llm_check(e);
    for (int i = 0; i < 3; i++)
    {
        values[i] = floats_result(results[i]);
        nulls[i] = false;
    }
    return record_of(fcinfo, values, nulls);
}
