/*
 * op_elementwise.c -- arithmetic with broadcasting, activations, dropout.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "ops.h"
#include "autograd/pass.h"

typedef void (*BinaryKernel)(llm_engine *, float *, const float *, const float *, size_t);

static void
binary_forward(OpCall *call, BinaryKernel kernel)
{
    int32        dims[TENSOR_MAX_NDIM];
    int          ndim = op_broadcast_dims(call, dims);
    float       *out = op_output(call, ndim, dims);
    const float *a = op_broadcast_to(&call->in[0], ndim, dims);
    const float *b = op_broadcast_to(&call->in[1], ndim, dims);

    kernel(pg_llm_engine(), out, a, b, call->out.n);
}

static void
reduce(const OpCall *call, int input, OpGrad grad, const float *d)
{
    op_reduce_to(&call->in[input], grad, d, call->out.ndim, call->out.dims);
}

static void
add_forward(OpCall *call)
{
    binary_forward(call, llm_add);
}

static void
add_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    reduce(call, 0, din[0], dout);
    reduce(call, 1, din[1], dout);
}

static void
sub_forward(OpCall *call)
{
    binary_forward(call, llm_sub);
}

static void
sub_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    reduce(call, 0, din[0], dout);
    if (din[1].data != NULL)
    {
        float *d = op_scratch(call->out.n);

        llm_neg(pg_llm_engine(), d, dout, call->out.n);
        reduce(call, 1, din[1], d);
    }
}

static void
mul_forward(OpCall *call)
{
    binary_forward(call, llm_mul);
}

static void
mul_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    float *d = op_scratch(call->out.n);

    for (int i = 0; i < 2; i++)
    {
        if (din[i].data == NULL)
            continue;
        llm_mul(pg_llm_engine(), d, dout, op_broadcast_to(&call->in[1 - i], call->out.ndim, call->out.dims),
                call->out.n);
        reduce(call, i, din[i], d);
    }
}

static void
div_forward(OpCall *call)
{
    binary_forward(call, llm_div);
}

/* d(a/b) = dout/b da - dout*a/b^2 db, the latter as -(out * dout/b) */
static void
div_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    llm_engine *e = pg_llm_engine();
    size_t      n = call->out.n;
    float      *d = op_scratch(n);

    llm_div(e, d, dout, op_broadcast_to(&call->in[1], call->out.ndim, call->out.dims), n);
    reduce(call, 0, din[0], d);
    if (din[1].data != NULL)
    {
        llm_mul(e, d, d, call->out.data, n);
        llm_neg(e, d, d, n);
        reduce(call, 1, din[1], d);
    }
}

static void
neg_forward(OpCall *call)
{
    llm_neg(pg_llm_engine(), op_output_like(call, 0), call->in[0].data, call->in[0].n);
}

static void
neg_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    if (din[0].data != NULL)
        llm_scale(pg_llm_engine(), din[0].data, dout, -1.0f, din[0].acc, call->out.n);
}

static void
gelu_forward(OpCall *call)
{
    llm_gelu_forward(pg_llm_engine(), op_output_like(call, 0), call->in[0].data, call->in[0].n);
}

static void
gelu_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    if (din[0].data != NULL)
        llm_gelu_backward(pg_llm_engine(), din[0].data, din[0].acc, dout, call->in[0].data, call->in[0].n);
}

static void
gelu_exact_forward(OpCall *call)
{
    llm_gelu_exact_forward(pg_llm_engine(), op_output_like(call, 0), call->in[0].data, call->in[0].n);
}

static void
gelu_exact_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    if (din[0].data != NULL)
        llm_gelu_exact_backward(pg_llm_engine(), din[0].data, din[0].acc, dout, call->in[0].data, call->in[0].n);
}

static void
relu_forward(OpCall *call)
{
    llm_relu_forward(pg_llm_engine(), op_output_like(call, 0), call->in[0].data, call->in[0].n);
}

static void
relu_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    if (din[0].data != NULL)
        llm_relu_backward(pg_llm_engine(), din[0].data, din[0].acc, dout, call->in[0].data, call->in[0].n);
}

static void
silu_forward(OpCall *call)
{
    llm_silu_forward(pg_llm_engine(), op_output_like(call, 0), call->in[0].data, call->in[0].n);
}

static void
silu_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    if (din[0].data != NULL)
        llm_silu_backward(pg_llm_engine(), din[0].data, din[0].acc, dout, call->in[0].data, call->in[0].n);
}

static void
swiglu_forward(OpCall *call)
{
    const OpValue *gate = &call->in[0];
    const OpValue *up = &call->in[1];

    if (gate->ndim != up->ndim || memcmp(gate->dims, up->dims, sizeof(int32) * gate->ndim) != 0)
        op_shape_error(call, "gate and up of one shape");
    llm_swiglu_forward(pg_llm_engine(), op_output_like(call, 0), gate->data, up->data, gate->n);
}

static void
swiglu_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    llm_swiglu_backward(pg_llm_engine(), din[0].data, din[0].acc, din[1].data, din[1].acc, dout, call->in[0].data,
                        call->in[1].data, call->out.n);
}

static void
require_probability(double p)
{
    if (!(p >= 0.0 && p < 1.0))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("dropout: the probability must be at least 0 and below 1, not %g", p));
}

/* Where nothing is dropped or recorded, a value that nobody else holds goes through as it is. */
static bool
drops_nothing(FunctionCallInfo fcinfo)
{
    Datum x = PG_GETARG_DATUM(0);

    if (PG_GETARG_BOOL(2) || pass_recording() || !VARATT_IS_EXTERNAL_EXPANDED_RW(DatumGetPointer(x)))
        return false;
    require_probability(PG_GETARG_FLOAT8(1));
    (void) PG_GETARG_TENSOR(0); /* a tensor, and no other expanded value */
    return true;
}

static void
dropout_forward(OpCall *call)
{
    double p = call->reals[0];
    float *out = op_output_like(call, 0);

    require_probability(p);
    if (!call->flag || p == 0.0)
    {
        call->reals[0] = 0.0;
        llm_copy(pg_llm_engine(), out, call->in[0].data, false, call->in[0].n);
        return;
    }
    op_dropout_key(call);
    llm_dropout(pg_llm_engine(), out, false, call->in[0].data, (float) p, call->key, call->first, call->in[0].n,
                op_save_mask(call, 0, llm_mask_words(call->in[0].n)));
}

static void
dropout_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    if (din[0].data == NULL)
        return;
    if (call->reals[0] == 0.0)
        llm_copy(pg_llm_engine(), din[0].data, dout, din[0].acc, call->out.n);
    else
        llm_dropout_backward(pg_llm_engine(), din[0].data, din[0].acc, dout, (float) call->reals[0],
                             op_saved_mask(call, 0), call->out.n);
}

OP(add, .name = "add", .args = {TENSOR("a", "= n"), TENSOR("b", "n")},
   .doc = "a + b, element by element, with NumPy's broadcasting.", .bytea_doc = "elementwise sum of equal sizes",
   .forward = add_forward, .backward = add_backward);
OP(sub, .name = "sub", .args = {TENSOR("a", "= n"), TENSOR("b", "n")},
   .doc = "a - b, element by element, with NumPy's broadcasting.", .bytea_doc = "elementwise difference of equal sizes",
   .forward = sub_forward, .backward = sub_backward);
OP(mul, .name = "mul", .args = {TENSOR("a", "= n"), TENSOR("b", "n")},
   .doc = "a * b, element by element, with NumPy's broadcasting.", .bytea_doc = "elementwise product of equal sizes",
   .forward = mul_forward, .backward = mul_backward, .keeps = KEEPS_IN(0) | KEEPS_IN(1));
OP(div, .name = "div", .args = {TENSOR("a", "= n"), TENSOR("b", "n")},
   .doc = "a / b, element by element, with NumPy's broadcasting.", .bytea_doc = "elementwise quotient of equal sizes",
   .forward = div_forward, .backward = div_backward, .keeps = KEEPS_IN(1) | KEEPS_OUT);
OP(neg, .name = "neg", .args = {TENSOR("a", "= n")}, .doc = "-a.", .bytea_doc = "-a, elementwise",
   .forward = neg_forward, .backward = neg_backward);
OP(gelu, .name = "gelu", .args = {TENSOR("x", "= n")},
   .doc = "GELU in the tanh form, as GPT-2 has it (Hendrycks & Gimpel 2016).",
   .bytea_doc = "GELU, tanh form, elementwise", .forward = gelu_forward, .backward = gelu_backward,
   .keeps = KEEPS_IN(0));
OP(gelu_exact, .name = "gelu_exact", .args = {TENSOR("x", "= n")},
   .doc = "Exact GELU, x times Phi(x), the normal distribution function (Hendrycks & Gimpel 2016).",
   .bytea_doc = "exact GELU, x times Phi(x), the normal distribution function, elementwise",
   .forward = gelu_exact_forward, .backward = gelu_exact_backward, .keeps = KEEPS_IN(0));
OP(relu, .name = "relu", .args = {TENSOR("x", "= n")}, .doc = "max(x, 0).", .bytea_doc = "max(x, 0), elementwise",
   .forward = relu_forward, .backward = relu_backward, .keeps = KEEPS_IN(0));
OP(silu, .name = "silu", .args = {TENSOR("x", "= n")},
   .doc = "SiLU, x times its sigmoid (Hendrycks & Gimpel 2016), also called swish.",
   .bytea_doc = "SiLU, x times its sigmoid, elementwise", .forward = silu_forward, .backward = silu_backward,
   .keeps = KEEPS_IN(0));
OP(swiglu, .name = "swiglu", .args = {TENSOR("gate", "= n"), TENSOR("up", "n")},
   .doc = "SwiGLU, silu(gate) * up, element by element: the middle of a gated feed-forward layer (Shazeer 2020).",
   .bytea_doc = "silu(gate) * up, elementwise, of equal sizes", .forward = swiglu_forward, .backward = swiglu_backward,
   .keeps = KEEPS_IN(0) | KEEPS_IN(1));
OP(dropout, .name = "dropout",
   .args = {TENSOR("x", "= n"), REAL("p"), BOOLEAN("training", "false"), SITE("site", "''")},
   .doc = "Inverted dropout when training, otherwise x. The mask depends on the pass (pg_llm_pass_begin), the site and "
          "the element.",
   .bytea_doc = "inverted dropout when training, otherwise x; the mask depends on the pass (pg_llm_pass_begin), the "
                "site and the element",
   .forward = dropout_forward, .backward = dropout_backward, .is_identity = drops_nothing);

/* ---- an activation by its name in a configuration ---- */

const OpDef *
op_of_activation(const text *name)
{
    static const struct
    {
        const char  *name;
        const OpDef *op;
    } known[] = {
        {"gelu_new", &op_gelu},
        {"gelu_pytorch_tanh", &op_gelu},
        {"gelu_fast", &op_gelu},
        {"gelu", &op_gelu_exact},
        {"gelu_python", &op_gelu_exact},
        {"relu", &op_relu},
        {"silu", &op_silu},
        {"swish", &op_silu},
    };
    size_t length = VARSIZE_ANY_EXHDR(name);

    for (size_t i = 0; i < lengthof(known); i++)
        if (strlen(known[i].name) == length && memcmp(known[i].name, VARDATA_ANY(name), length) == 0)
            return known[i].op;
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("activation function \"%s\" is not known", text_to_cstring(name)),
            errhint("Known are gelu_new, gelu_pytorch_tanh and gelu_fast (the tanh form), gelu and gelu_python "
                    "(exact), relu, silu and swish."));
}

/* pg_llm_activation(x, name): the activation with this name in Hugging Face configurations */
PG_FUNCTION_INFO_V1(pg_llm_activation);
Datum
pg_llm_activation(PG_FUNCTION_ARGS)
{
    return op_sql_call(fcinfo, op_of_activation(PG_GETARG_TEXT_PP(1)));
}

/* pg_llm_activation_backward(dout, x, name) -> dx */
PG_FUNCTION_INFO_V1(pg_llm_activation_backward);
Datum
pg_llm_activation_backward(PG_FUNCTION_ARGS)
{
    return op_sql_backward(fcinfo, op_of_activation(PG_GETARG_TEXT_PP(2)));
}

/* Arithmetic with a number: the number becomes a 0-d tensor. */
static Datum
with_number(const OpDef *op, Tensor *a, Tensor *b)
{
    OpCall *call = palloc0(sizeof(OpCall));

    call->op = op;
    op_set_input(call, 0, a);
    op_set_input(call, 1, b);
    PG_RETURN_TENSOR(op_run(call));
}

/* pg_llm_<name>_number(tensor, number) and pg_llm_number_<name>(number, tensor) */
#define NUMBER_OPS(name)                                                                                               \
    PG_FUNCTION_INFO_V1(pg_llm_##name##_number);                                                                       \
    Datum pg_llm_##name##_number(PG_FUNCTION_ARGS)                                                                     \
    {                                                                                                                  \
        return with_number(&op_##name, PG_GETARG_TENSOR(0), tensor_scalar(PG_GETARG_FLOAT8(1)));                       \
    }                                                                                                                  \
    PG_FUNCTION_INFO_V1(pg_llm_number_##name);                                                                         \
    Datum pg_llm_number_##name(PG_FUNCTION_ARGS)                                                                       \
    {                                                                                                                  \
        return with_number(&op_##name, tensor_scalar(PG_GETARG_FLOAT8(0)), PG_GETARG_TENSOR(1));                       \
    }                                                                                                                  \
    extern int pg_llm_require_semicolon_number_##name

NUMBER_OPS(add);
NUMBER_OPS(sub);
NUMBER_OPS(mul);
NUMBER_OPS(div);
