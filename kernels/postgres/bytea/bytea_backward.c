/*
 * bytea_backward.c -- gradients and the optimizer on bytea: each takes the output's gradient and the
 * forward's arguments, and recomputes what the forward would have kept.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "funcapi.h"

#include "bytea_floats.h"
#include "session/engine.h"
#include "tensor/tensor.h"

/* A row of the function's declared record type. */
static Datum
record_of(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
    TupleDesc desc;

    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* pg_llm_matmul_backward(dout (m,n), a (m,k), b (k,n), m, k, n) -> da = dout b^T, db = a^T dout */
PG_FUNCTION_INFO_V1(pg_llm_bytea_matmul_backward);
Datum
pg_llm_bytea_matmul_backward(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Floats      dout = floats_arg(fcinfo, 0, "dout");
    Floats      a = floats_arg(fcinfo, 1, "a");
    Floats      b = floats_arg(fcinfo, 2, "b");
    size_t      m = floats_dim(fcinfo, 3, "m");
    size_t      k = floats_dim(fcinfo, 4, "k");
    size_t      n = floats_dim(fcinfo, 5, "n");
    float      *da, *db;
    bytea      *results[2];
    Datum       values[2];
    bool        nulls[2] = {false, false};

    floats_expect(&dout, m, n);
    floats_expect(&a, m, k);
    floats_expect(&b, k, n);
    results[0] = floats_new(a.n, &da);
    results[1] = floats_new(b.n, &db);
    llm_gemm(e, da, dout.data, b.data, m, k, n, k, n, n, false, true, false);
    llm_gemm(e, db, a.data, dout.data, k, n, m, n, k, n, true, false, false);
    pg_llm_check(e);
    values[0] = floats_result(results[0]);
    values[1] = floats_result(results[1]);
    return record_of(fcinfo, values, nulls);
}

/* dx of an elementwise op, from dout and x */
static Datum
elementwise_backward(FunctionCallInfo fcinfo,
                     void (*f)(llm_engine *, float *, bool, const float *, const float *, size_t))
{
    llm_engine *e = pg_llm_engine();
    Floats      dout = floats_arg(fcinfo, 0, "dout");
    Floats      x = floats_arg(fcinfo, 1, "x");
    float      *dx;
    bytea      *result;

    floats_expect_like(&dout, &x);
    result = floats_new(x.n, &dx);
    f(e, dx, false, dout.data, x.data, x.n);
    pg_llm_check(e);
    return floats_result(result);
}

/* pg_llm_gelu_backward(dout, x) -> dx */
PG_FUNCTION_INFO_V1(pg_llm_bytea_gelu_backward);
Datum
pg_llm_bytea_gelu_backward(PG_FUNCTION_ARGS)
{
    return elementwise_backward(fcinfo, llm_gelu_backward);
}

/* pg_llm_relu_backward(dout, x) -> dx */
PG_FUNCTION_INFO_V1(pg_llm_bytea_relu_backward);
Datum
pg_llm_bytea_relu_backward(PG_FUNCTION_ARGS)
{
    return elementwise_backward(fcinfo, llm_relu_backward);
}

/* pg_llm_softmax_backward(dout, x, rows, cols) -> dx */
PG_FUNCTION_INFO_V1(pg_llm_bytea_softmax_backward);
Datum
pg_llm_bytea_softmax_backward(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Floats      dout = floats_arg(fcinfo, 0, "dout");
    Floats      x = floats_arg(fcinfo, 1, "x");
    size_t      rows = floats_dim(fcinfo, 2, "rows");
    size_t      cols = floats_dim(fcinfo, 3, "cols");
    float      *dx, *out;
    bytea      *result;

    floats_expect(&dout, rows, cols);
    floats_expect(&x, rows, cols);
    result = floats_new(x.n, &dx);
    out = floats_scratch(x.n);
    llm_softmax_forward(e, out, x.data, rows, cols);
    llm_softmax_backward(e, dx, false, dout.data, out, rows, cols);
    pg_llm_check(e);
    return floats_result(result);
}

/* pg_llm_layernorm_backward(dout, x, gamma, beta, eps) -> dx, dgamma, dbeta */
PG_FUNCTION_INFO_V1(pg_llm_bytea_layernorm_backward);
Datum
pg_llm_bytea_layernorm_backward(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Floats      dout = floats_arg(fcinfo, 0, "dout");
    Floats      x = floats_arg(fcinfo, 1, "x");
    Floats      gamma = floats_arg(fcinfo, 2, "gamma");
    Floats      beta = floats_arg(fcinfo, 3, "beta");
    size_t      d = gamma.n;
    size_t      rows;
    float      *dx, *dgamma, *dbeta, *statistics;
    bytea      *results[3];
    Datum       values[3];
    bool        nulls[3] = {false, false, false};

    floats_expect_like(&beta, &gamma);
    floats_expect_like(&dout, &x);
    if (d == 0 || x.n % d != 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("x has %zu elements, not a multiple of the row length %zu", x.n, d),
                errhint("A row is as long as gamma and beta."));
    rows = x.n / d;
    results[0] = floats_new(x.n, &dx);
    results[1] = floats_new(d, &dgamma);
    results[2] = floats_new(d, &dbeta);
    statistics = floats_scratch(2 * rows + x.n);
    llm_layernorm_forward(e, statistics + 2 * rows, statistics, statistics + rows, x.data, gamma.data, beta.data,
                          (float) PG_GETARG_FLOAT8(4), rows, d);
    llm_layernorm_backward(e, dx, false, dgamma, false, dbeta, false, dout.data, x.data, gamma.data, statistics,
                           statistics + rows, rows, d);
    pg_llm_check(e);
    for (int i = 0; i < 3; i++)
        values[i] = floats_result(results[i]);
    return record_of(fcinfo, values, nulls);
}

/* ---- optimizer ---- */

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
    norm = sqrt(llm_sum_squares(e, grad.data, grad.n));
    pg_llm_check(e);
    if (!isfinite(norm))
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("the gradient is not finite"));
    result = floats_new(grad.n, &out);
    llm_scale(e, out, grad.data, (float) Min(1.0, clip / (norm + 1e-6)), false, grad.n);
    pg_llm_check(e);
    return floats_result(result);
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
