/*
 * bytea_twins.c -- ops of the op table on bytea: the same forward and backward over contiguous float32, whose
 * dimensions are arguments. Nothing is recorded. Those that work without a copy of their
 * arguments stand in bytea_ops.c.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "bytea_floats.h"
#include "generation/generate.h"
#include "ops/ops.h"
#include "tensor/tensor_view.h"

#define TWIN_MAX_DIMS 3
#define ONE           (-1) /* a vector: no axis of rows */
#define WHOLE         (-2) /* as many columns as the bytea holds; all such inputs are of one size */

/* A bytea argument is (dims[rows], times * dims[cols]). */
typedef struct TwinInput
{
    const char *name;
    int         rows, cols;
    size_t      times;
} TwinInput;

/* SQL arguments: with `args` as in OpDef, then the dimensions; a backward has dout before them. */
typedef struct Twin
{
    const OpDef *op;
    const char  *args;
    const char  *dims[TWIN_MAX_DIMS];
    TwinInput    in[OP_MAX_INPUTS];
    bool         number; /* the result is a number: double precision, and so is dout */
} Twin;

static Tensor *
tensor_of(const Floats *f, size_t rows, size_t cols, bool vector)
{
    int32   dims[2] = {(int32) rows, (int32) cols};
    Tensor *t = vector ? tensor_new(1, dims + 1) : tensor_new(2, dims);

    memcpy(t->data, f->data, f->n * sizeof(float));
    return t;
}

/* The input's tensor, after holding its size against the dimensions; `whole` is the first whole input. */
static Tensor *
twin_input(FunctionCallInfo fcinfo, int arg, const TwinInput *in, const size_t *dims, Floats *whole)
{
    Floats f = floats_arg(fcinfo, arg, in->name);
    size_t rows = in->rows < 0 ? 1 : dims[in->rows];
    size_t cols;

    if (in->cols == WHOLE)
    {
        if (whole->name == NULL)
            *whole = f;
        floats_expect_like(&f, whole);
        cols = f.n;
    }
    else
    {
        cols = in->times * dims[in->cols];
        floats_expect(&f, rows, cols);
    }
    return tensor_of(&f, rows, cols, in->rows < 0);
}

/* Reads the arguments from number `arg` on. */
static OpCall *
twin_call(FunctionCallInfo fcinfo, const Twin *twin, int arg)
{
    OpCall *call = palloc0(sizeof(OpCall));
    size_t  dims[TWIN_MAX_DIMS];
    int     first_dim = arg + (int) strlen(twin->args);
    int     n_real = 0;
    Floats  whole = {NULL, NULL, 0};

    if (generate_in_use())
        ereport(ERROR, errcode(ERRCODE_OBJECT_IN_USE),
                errmsg("ops on bytea cannot be used in a generation's forward pass"));
    call->op = twin->op;
    for (int i = 0; i < TWIN_MAX_DIMS && twin->dims[i] != NULL; i++)
        dims[i] = floats_dim(fcinfo, first_dim + i, twin->dims[i]);
    for (const char *kind = twin->args; *kind != '\0'; kind++, arg++)
    {
        switch (*kind)
        {
            case 't':
                op_set_input(call, call->n_inputs, twin_input(fcinfo, arg, &twin->in[call->n_inputs], dims, &whole));
                break;
            case 'i':
                call->ids = tensor_int_array(PG_GETARG_DATUM(arg), twin->op->name);
                break;
            case 'n':
                call->ints[0] = PG_GETARG_INT32(arg);
                break;
            case 'r':
                call->reals[n_real++] = PG_GETARG_FLOAT8(arg);
                break;
            case 'b':
                call->flag = PG_GETARG_BOOL(arg);
                break;
            default:
                text_to_cstring_buffer(PG_GETARG_TEXT_PP(arg), call->site, OP_SITE_LEN);
        }
    }
    twin->op->forward(call);
    pg_llm_check(pg_llm_engine());
    return call;
}

static Datum
bytes_of(const Tensor *t)
{
    float *data;
    bytea *result = floats_new(t->n, &data);

    memcpy(data, t->data, t->n * sizeof(float));
    return floats_result(result);
}

/* One gradient as it is, several as a record. */
static Datum
gradients(FunctionCallInfo fcinfo, Tensor *const *grads, int n)
{
    TupleDesc desc;
    Datum     values[OP_MAX_INPUTS];
    bool      nulls[OP_MAX_INPUTS] = {false};

    for (int i = 0; i < n; i++)
        values[i] = bytes_of(grads[i]);
    if (n == 1)
        return values[0];
    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != n)
        elog(ERROR, "return type must be a row type of %d gradients", n);
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

static Datum
twin_forward(FunctionCallInfo fcinfo, const Twin *twin)
{
    const OpCall *call = twin_call(fcinfo, twin, 0);

    if (twin->number)
        PG_RETURN_FLOAT8(call->out.data[0]);
    return bytes_of(call->result);
}

static Datum
twin_backward(FunctionCallInfo fcinfo, const Twin *twin)
{
    const OpCall *call = twin_call(fcinfo, twin, 1);
    Floats        dout = {"dout", NULL, 1};
    float         number;
    Tensor       *grads[OP_MAX_INPUTS];
    OpGrad        din[OP_MAX_INPUTS] = {{0}};

    if (twin->number)
    {
        number = tensor_float4(PG_GETARG_FLOAT8(0));
        dout.data = &number;
    }
    else
    {
        dout = floats_arg(fcinfo, 0, "dout");
        floats_expect(&dout, 1, call->out.n);
    }
    for (int i = 0; i < call->n_inputs; i++)
    {
        grads[i] = tensor_new(call->in[i].ndim, call->in[i].dims);
        din[i].data = grads[i]->data;
    }
    twin->op->backward(call, dout.data, din);
    pg_llm_check(pg_llm_engine());
    return gradients(fcinfo, grads, call->n_inputs);
}

/* Its forward stands in bytea_ops.c. */
#define TWIN(name, ...)                                                                                                \
    static const Twin twin_##name = __VA_ARGS__;                                                                       \
    PG_FUNCTION_INFO_V1(pg_llm_bytea_##name##_backward);                                                               \
    Datum pg_llm_bytea_##name##_backward(PG_FUNCTION_ARGS)                                                             \
    {                                                                                                                  \
        return twin_backward(fcinfo, &twin_##name);                                                                    \
    }                                                                                                                  \
    extern int pg_llm_require_semicolon_bytea_##name

/* Forward and backward. */
#define TWIN_PAIR(name, ...)                                                                                           \
    TWIN(name, __VA_ARGS__);                                                                                           \
    PG_FUNCTION_INFO_V1(pg_llm_bytea_##name);                                                                          \
    Datum pg_llm_bytea_##name(PG_FUNCTION_ARGS)                                                                        \
    {                                                                                                                  \
        return twin_forward(fcinfo, &twin_##name);                                                                     \
    }                                                                                                                  \
    extern int pg_llm_require_semicolon_bytea_pair_##name

#define ANY(name)          {name, WHOLE, WHOLE, 1}
#define MATRIX(name, r, c) {name, r, c, 1}
#define VECTOR(name, c)    {name, ONE, c, 1}

TWIN(add, {&op_add, "tt", {NULL}, {ANY("a"), ANY("b")}, false});
TWIN_PAIR(sub, {&op_sub, "tt", {NULL}, {ANY("a"), ANY("b")}, false});
TWIN_PAIR(mul, {&op_mul, "tt", {NULL}, {ANY("a"), ANY("b")}, false});
TWIN_PAIR(div, {&op_div, "tt", {NULL}, {ANY("a"), ANY("b")}, false});
TWIN_PAIR(neg, {&op_neg, "t", {NULL}, {ANY("a")}, false});
TWIN_PAIR(gelu_exact, {&op_gelu_exact, "t", {NULL}, {ANY("x")}, false});
TWIN_PAIR(dropout, {&op_dropout, "trbs", {NULL}, {ANY("x")}, false});
TWIN_PAIR(sum, {&op_sum, "t", {NULL}, {ANY("x")}, true});
TWIN_PAIR(mean, {&op_mean, "t", {NULL}, {ANY("x")}, true});
TWIN(transpose, {&op_transpose, "t", {"rows", "cols"}, {MATRIX("src", 0, 1)}, false});
TWIN(linear, {&op_linear, "ttt", {"n", "i", "o"}, {MATRIX("x", 0, 1), MATRIX("w", 1, 2), VECTOR("b", 2)}, false});
TWIN_PAIR(linear_nobias, {&op_linear_nobias, "tt", {"n", "i", "o"}, {MATRIX("x", 0, 1), MATRIX("w", 1, 2)}, false});
TWIN(rmsnorm, {&op_rmsnorm, "tr", {"rows", "cols"}, {MATRIX("x", 0, 1)}, false});
TWIN(embedding, {&op_embedding, "ti", {"rows", "d"}, {MATRIX("w", 0, 1)}, false});
TWIN(cross_entropy, {&op_cross_entropy, "ti", {"rows", "vocab"}, {MATRIX("logits", 0, 1)}, true});
TWIN_PAIR(causal_attention,
          {&op_causal_attention, "tttn", {"t", "d"}, {MATRIX("q", 0, 1), MATRIX("k", 0, 1), MATRIX("v", 0, 1)}, false});
TWIN_PAIR(causal_attention_qkv, {&op_causal_attention_qkv, "tn", {"t", "d"}, {{"qkv", 0, 1, 3}}, false});
TWIN_PAIR(lm_head, {&op_lm_head, "tt", {"n", "d", "vocab"}, {MATRIX("x", 0, 1), MATRIX("w", 2, 1)}, false});
TWIN_PAIR(lm_head_loss, {&op_lm_head_loss, "tti", {"n", "d", "vocab"}, {MATRIX("x", 0, 1), MATRIX("w", 2, 1)}, true});

/* ---- what is made of ops ---- */

/* pg_llm_attention_backward(dout (t,d), x, w_qkv, b_qkv, w_o, b_o, n_head, t, d) -> dx, dw_qkv, db_qkv, dw_o, db_o */
PG_FUNCTION_INFO_V1(pg_llm_bytea_attention_backward);
Datum
pg_llm_bytea_attention_backward(PG_FUNCTION_ARGS)
{
    static const TwinInput in[] = {
        MATRIX("dout", 0, 1), MATRIX("x", 0, 1),   {"w_qkv", 1, 1, 3},
        {"b_qkv", ONE, 1, 3}, MATRIX("w_o", 1, 1), VECTOR("b_o", 1),
    };
    size_t  dims[] = {floats_dim(fcinfo, 7, "t"), floats_dim(fcinfo, 8, "d")};
    Tensor *t[lengthof(in)];
    Tensor *grads[lengthof(in) - 1];

    for (size_t i = 0; i < lengthof(in); i++)
        t[i] = twin_input(fcinfo, (int) i, &in[i], dims, NULL);
    op_attention_gradients(grads, t[0], t + 1, (int32) floats_dim(fcinfo, 6, "n_head"));
    return gradients(fcinfo, grads, lengthof(grads));
}

static const Twin *
twin_of_activation(const text *name)
{
    static const Twin gelu = {&op_gelu, "ts", {NULL}, {ANY("x")}, false};
    static const Twin gelu_exact = {&op_gelu_exact, "ts", {NULL}, {ANY("x")}, false};
    static const Twin relu = {&op_relu, "ts", {NULL}, {ANY("x")}, false};
    const OpDef      *op = op_of_activation(name);

    return op == &op_gelu ? &gelu : op == &op_gelu_exact ? &gelu_exact : &relu;
}

/* pg_llm_activation(x, name): the activation with this name in Hugging Face configurations */
PG_FUNCTION_INFO_V1(pg_llm_bytea_activation);
Datum
pg_llm_bytea_activation(PG_FUNCTION_ARGS)
{
    return twin_forward(fcinfo, twin_of_activation(PG_GETARG_TEXT_PP(1)));
}

/* pg_llm_activation_backward(dout, x, name) -> dx */
PG_FUNCTION_INFO_V1(pg_llm_bytea_activation_backward);
Datum
pg_llm_bytea_activation_backward(PG_FUNCTION_ARGS)
{
    return twin_backward(fcinfo, twin_of_activation(PG_GETARG_TEXT_PP(2)));
}

extern PGDLLEXPORT Datum pg_llm_sample(PG_FUNCTION_ARGS); /* sample.c */

/* pg_llm_sample over one row of logits */
PG_FUNCTION_INFO_V1(pg_llm_bytea_sample);
Datum
pg_llm_bytea_sample(PG_FUNCTION_ARGS)
{
    /* a copy: constant arguments are evaluated once for all calls */
    LOCAL_FCINFO(call, 6);
    Datum result;

    memcpy(call, fcinfo, SizeForFunctionCallInfo(6));
    if (!PG_ARGISNULL(0))
    {
        Floats logits = floats_arg(fcinfo, 0, "logits");

        call->args[0].value = tensor_datum(tensor_of(&logits, 1, logits.n, true));
    }
    result = pg_llm_sample(call);
    fcinfo->isnull = call->isnull;
    return result;
}
