/*
 * bytea_ops.c -- the ops on bytea: contiguous float32 with explicit dimensions instead of a shape.
 *
 * For clients that keep weights as plain bytes. The kernels are those of the tensor ops; nothing is recorded.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "bytea_floats.h"
#include "session/engine.h"
#include "tensor/tensor.h"

/* out (m,n) = a (m,k) @ b (k,n) */
PG_FUNCTION_INFO_V1(pg_llm_bytea_matmul);
Datum
pg_llm_bytea_matmul(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Floats      a = floats_arg(fcinfo, 0, "a");
    Floats      b = floats_arg(fcinfo, 1, "b");
    size_t      m = floats_dim(fcinfo, 2, "m");
    size_t      k = floats_dim(fcinfo, 3, "k");
    size_t      n = floats_dim(fcinfo, 4, "n");
    float      *out;
    bytea      *result;

    floats_expect(&a, m, k);
    floats_expect(&b, k, n);
    result = floats_new(m * n, &out);
    llm_gemm(e, out, a.data, b.data, m, n, k, n, k, n, false, false, false);
    pg_llm_check(e);
    return floats_result(result);
}

/* out (n,o) = x (n,i) @ w (i,o) + b (o) */
PG_FUNCTION_INFO_V1(pg_llm_bytea_linear);
Datum
pg_llm_bytea_linear(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Floats      x = floats_arg(fcinfo, 0, "x");
    Floats      w = floats_arg(fcinfo, 1, "w");
    Floats      b = floats_arg(fcinfo, 2, "b");
    size_t      n = floats_dim(fcinfo, 3, "n");
    size_t      i = floats_dim(fcinfo, 4, "i");
    size_t      o = floats_dim(fcinfo, 5, "o");
    float      *out;
    bytea      *result;

    floats_expect(&x, n, i);
    floats_expect(&w, i, o);
    floats_expect(&b, 1, o);
    result = floats_new(n * o, &out);
    llm_linear_forward(e, out, x.data, w.data, b.data, n, i, o);
    pg_llm_check(e);
    return floats_result(result);
}

/* dst (cols,rows) = transpose of src (rows,cols) */
PG_FUNCTION_INFO_V1(pg_llm_bytea_transpose);
Datum
pg_llm_bytea_transpose(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Floats      src = floats_arg(fcinfo, 0, "src");
    size_t      rows = floats_dim(fcinfo, 1, "rows");
    size_t      cols = floats_dim(fcinfo, 2, "cols");
    float      *out;
    bytea      *result;

    floats_expect(&src, rows, cols);
    result = floats_new(src.n, &out);
    llm_transpose(e, out, src.data, rows, cols);
    pg_llm_check(e);
    return floats_result(result);
}

/* ---- elementwise ---- */

/* pg_llm_add(a, b): elementwise sum of equal sizes */
PG_FUNCTION_INFO_V1(pg_llm_bytea_add);
Datum
pg_llm_bytea_add(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Floats      a = floats_arg(fcinfo, 0, "a");
    Floats      b = floats_arg(fcinfo, 1, "b");
    float      *out;
    bytea      *result;

    floats_expect_like(&b, &a);
    result = floats_new(a.n, &out);
    llm_add(e, out, a.data, b.data, a.n);
    pg_llm_check(e);
    return floats_result(result);
}

static Datum
elementwise(FunctionCallInfo fcinfo, void (*f)(llm_engine *, float *, const float *, size_t))
{
    llm_engine *e = pg_llm_engine();
    Floats      x = floats_arg(fcinfo, 0, "x");
    float      *out;
    bytea      *result = floats_new(x.n, &out);

    f(e, out, x.data, x.n);
    pg_llm_check(e);
    return floats_result(result);
}

/* pg_llm_gelu(x), the tanh form */
PG_FUNCTION_INFO_V1(pg_llm_bytea_gelu);
Datum
pg_llm_bytea_gelu(PG_FUNCTION_ARGS)
{
    return elementwise(fcinfo, llm_gelu_forward);
}

/* pg_llm_relu(x) */
PG_FUNCTION_INFO_V1(pg_llm_bytea_relu);
Datum
pg_llm_bytea_relu(PG_FUNCTION_ARGS)
{
    return elementwise(fcinfo, llm_relu_forward);
}

static void
fill_zeros(llm_engine *e, float *out, const float *x, size_t n)
{
    (void) x;
    llm_fill(e, out, 0.0f, n);
}

static void
fill_ones(llm_engine *e, float *out, const float *x, size_t n)
{
    (void) x;
    llm_fill(e, out, 1.0f, n);
}

/* pg_llm_zeros_like(x): zeros of the size of x */
PG_FUNCTION_INFO_V1(pg_llm_bytea_zeros_like);
Datum
pg_llm_bytea_zeros_like(PG_FUNCTION_ARGS)
{
    return elementwise(fcinfo, fill_zeros);
}

/* pg_llm_ones_like(x): ones of the size of x */
PG_FUNCTION_INFO_V1(pg_llm_bytea_ones_like);
Datum
pg_llm_bytea_ones_like(PG_FUNCTION_ARGS)
{
    return elementwise(fcinfo, fill_ones);
}

/* ---- rows ---- */

/* Rows and columns of x: arguments `first` and `first` + 1 when they were given, else x is one row. */
static void
rows_of(FunctionCallInfo fcinfo, int first, const Floats *x, size_t *rows, size_t *cols)
{
    *rows = 1;
    *cols = x->n;
    if (PG_NARGS() <= first)
        return;
    *rows = floats_dim(fcinfo, first, "rows");
    *cols = floats_dim(fcinfo, first + 1, "cols");
    floats_expect(x, *rows, *cols);
}

/* pg_llm_softmax(x) of one row, pg_llm_softmax(x, rows, cols) of each row */
PG_FUNCTION_INFO_V1(pg_llm_bytea_softmax);
Datum
pg_llm_bytea_softmax(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Floats      x = floats_arg(fcinfo, 0, "x");
    size_t      rows, cols;
    float      *out;
    bytea      *result;

    rows_of(fcinfo, 1, &x, &rows, &cols);
    result = floats_new(x.n, &out);
    if (x.n > 0)
        llm_softmax_forward(e, out, x.data, rows, cols);
    pg_llm_check(e);
    return floats_result(result);
}

/* pg_llm_layernorm(x, gamma, beta, eps): the length of gamma is that of a row */
PG_FUNCTION_INFO_V1(pg_llm_bytea_layernorm);
Datum
pg_llm_bytea_layernorm(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Floats      x = floats_arg(fcinfo, 0, "x");
    Floats      gamma = floats_arg(fcinfo, 1, "gamma");
    Floats      beta = floats_arg(fcinfo, 2, "beta");
    size_t      rows;
    float      *out, *statistics;
    bytea      *result;

    floats_expect_like(&beta, &gamma);
    if (gamma.n == 0 || x.n % gamma.n != 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("x has %zu elements, not a multiple of the row length %zu", x.n, gamma.n),
                errhint("A row is as long as gamma and beta."));
    rows = x.n / gamma.n;
    result = floats_new(x.n, &out);
    statistics = floats_scratch(2 * rows);
    llm_layernorm_forward(e, out, statistics, statistics + rows, x.data, gamma.data, beta.data,
                          (float) PG_GETARG_FLOAT8(3), rows, gamma.n);
    pg_llm_check(e);
    return floats_result(result);
}

/* pg_llm_rmsnorm(x, eps) of one row, pg_llm_rmsnorm(x, eps, rows, cols) of each row */
PG_FUNCTION_INFO_V1(pg_llm_bytea_rmsnorm);
Datum
pg_llm_bytea_rmsnorm(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Floats      x = floats_arg(fcinfo, 0, "x");
    size_t      rows, cols;
    float      *out;
    bytea      *result;

    rows_of(fcinfo, 2, &x, &rows, &cols);
    result = floats_new(x.n, &out);
    if (x.n > 0)
        llm_rmsnorm_forward(e, out, floats_scratch(rows), x.data, (float) PG_GETARG_FLOAT8(1), rows, cols);
    pg_llm_check(e);
    return floats_result(result);
}

/* ---- embedding, attention, loss ---- */

static void
check_ids(const int32 *ids, size_t n, int32 least, size_t limit, const char *name)
{
    for (size_t i = 0; i < n; i++)
    {
        if ((i & 0xffff) == 0)
            CHECK_FOR_INTERRUPTS();
        if (ids[i] < least || (ids[i] >= 0 && (size_t) ids[i] >= limit))
            ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                    errmsg("%s %d at position %zu is out of range", name, ids[i], i + 1),
                    errdetail("Valid values are 0 to %zu.", limit - 1));
    }
}

/* out (n,d): row i is w (rows,d) at ids[i] */
PG_FUNCTION_INFO_V1(pg_llm_bytea_embedding);
Datum
pg_llm_bytea_embedding(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();
    Floats      w = floats_arg(fcinfo, 0, "w");
    IntArray    ids = tensor_int_array(PG_GETARG_DATUM(1), "ids");
    size_t      rows = floats_dim(fcinfo, 2, "rows");
    size_t      d = floats_dim(fcinfo, 3, "d");
    float      *out;
    bytea      *result;

    floats_expect(&w, rows, d);
    check_ids(ids.values, ids.n, 0, rows, "id");
    result = floats_new(ids.n * d, &out);
    llm_embedding_forward(e, out, w.data, ids.values, ids.n, d);
    pg_llm_check(e);
    return floats_result(result);
}

/*
 * Causal self-attention with its projections: x (T,D), w_qkv (D,3D), b_qkv (3D), w_o (D,D), b_o (D);
 * pg_llm_attention(x, w_qkv, b_qkv, w_o, b_o, n_head, t, d) -> (T,D)
 */
PG_FUNCTION_INFO_V1(pg_llm_bytea_attention);
Datum
pg_llm_bytea_attention(PG_FUNCTION_ARGS)
{
    llm_engine         *e = pg_llm_engine();
    Floats              x = floats_arg(fcinfo, 0, "x");
    Floats              w_qkv = floats_arg(fcinfo, 1, "w_qkv");
    Floats              b_qkv = floats_arg(fcinfo, 2, "b_qkv");
    Floats              w_o = floats_arg(fcinfo, 3, "w_o");
    Floats              b_o = floats_arg(fcinfo, 4, "b_o");
    size_t              n_head = floats_dim(fcinfo, 5, "n_head");
    size_t              t = floats_dim(fcinfo, 6, "t");
    size_t              d = floats_dim(fcinfo, 7, "d");
    llm_attention_shape s = {0};
    float              *out, *qkv, *heads, *statistics;
    bytea              *result;

    floats_expect(&x, t, d);
    floats_expect(&w_qkv, d, 3 * d);
    floats_expect(&b_qkv, 1, 3 * d);
    floats_expect(&w_o, d, d);
    floats_expect(&b_o, 1, d);
    if (d % n_head != 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the width %zu is not divisible by %zu heads", d, n_head));
    result = floats_new(t * d, &out);
    qkv = floats_scratch(t * 3 * d);
    heads = floats_scratch(t * d);
    statistics = floats_scratch(2 * n_head * t);
    s.B = 1;
    s.T = t;
    s.D = d;
    s.n_head = n_head;
    s.q_stride = s.k_stride = s.v_stride = 3 * d;
    llm_linear_forward(e, qkv, x.data, w_qkv.data, b_qkv.data, t, d, 3 * d);
    llm_attention_forward(e, heads, statistics, statistics + n_head * t, qkv, qkv + d, qkv + 2 * d, &s);
    if (!llm_all_finite(e, heads, t * d))
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                errmsg("attention: the input is not finite, or its scores overflow"),
                errhint("Infinity and NaN would reach earlier tokens."));
    llm_linear_forward(e, out, heads, w_o.data, b_o.data, t, d, d);
    pg_llm_check(e);
    return floats_result(result);
}

/* Mean over the rows of logits (rows,vocab) whose target is not negative. */
static double
mean_cross_entropy(const Floats *logits, const int32 *targets, size_t rows, size_t vocab)
{
    llm_engine *e = pg_llm_engine();
    float      *losses = floats_scratch(2 * rows);
    size_t      count;

    check_ids(targets, rows, PG_INT32_MIN, vocab, "target");
    llm_cross_entropy_forward(e, losses, losses + rows, logits->data, targets, rows, vocab);
    pg_llm_check(e);
    return llm_mean_loss(losses, targets, rows, &count);
}

/* pg_llm_cross_entropy(logits, target): one row */
PG_FUNCTION_INFO_V1(pg_llm_bytea_cross_entropy);
Datum
pg_llm_bytea_cross_entropy(PG_FUNCTION_ARGS)
{
    Floats logits = floats_arg(fcinfo, 0, "logits");
    int32  target = PG_GETARG_INT32(1);

    if (logits.n == 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("logits are empty"));
    PG_RETURN_FLOAT8(mean_cross_entropy(&logits, &target, 1, logits.n));
}

/* pg_llm_cross_entropy(logits, targets, rows, vocab) */
PG_FUNCTION_INFO_V1(pg_llm_bytea_cross_entropy_rows);
Datum
pg_llm_bytea_cross_entropy_rows(PG_FUNCTION_ARGS)
{
    Floats   logits = floats_arg(fcinfo, 0, "logits");
    IntArray targets = tensor_int_array(PG_GETARG_DATUM(1), "targets");
    size_t   rows = floats_dim(fcinfo, 2, "rows");
    size_t   vocab = floats_dim(fcinfo, 3, "vocab");

    floats_expect(&logits, rows, vocab);
    if (targets.n != rows)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%zu targets do not match %zu rows of logits", targets.n, rows));
    PG_RETURN_FLOAT8(mean_cross_entropy(&logits, targets.values, rows, vocab));
}
