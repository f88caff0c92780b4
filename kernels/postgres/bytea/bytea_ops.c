/*
 * bytea_ops.c -- the ops on bytea: contiguous float32 whose sizes are arguments, read and written where they lie.
 * One mechanism serves every op, forward and backward, by the shapes that its declaration names. Nothing is recorded.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "bytea_floats.h"
#include "ops/ops.h"
#include "tensor/tensor_view.h"

#define MAX_SIZES 4

/* The sizes that an op's shapes name, in the order in which they do. */
typedef struct NamedSize
{
    const char   *name;
    int           length; /* of the name */
    size_t        size;
    const Floats *from; /* the vector that it is the length of; NULL: an SQL argument says it */
} NamedSize;

typedef struct Sizes
{
    int       n;
    NamedSize sizes[MAX_SIZES];
} Sizes;

/* ---- shapes: "src: rows, 3 cols" ---- */

/* The argument's name on bytea, and the shape after it. */
static const char *
bytea_name(const OpArg *arg, const char **shape)
{
    const char *colon = arg->text == NULL ? NULL : strchr(arg->text, ':');

    *shape = colon == NULL ? arg->text : colon + 1;
    return colon == NULL ? arg->name : pnstrdup(arg->text, colon - arg->text);
}

/* The next axis: its mark (= or *, or 0), how many times the size of that name it is, and the name. */
static bool
next_axis(const char **shape, char *mark, int *times, const char **name, int *length)
{
    const char *at = *shape + strspn(*shape, ", ");

    if (*at == '\0')
        return false;
    *mark = *at == '=' || *at == '*' ? *at : '\0';
    at += *mark == '\0' ? 0 : 1;
    *times = 1;
    if (*at >= '0' && *at <= '9')
        *times = (int) strtol(at, (char **) &at, 10);
    at += strspn(at, " ");
    *name = at;
    *length = (int) strcspn(at, ", ");
    *shape = at + *length;
    return true;
}

static NamedSize *
size_named(Sizes *sizes, const char *name, int length)
{
    for (int i = 0; i < sizes->n; i++)
        if (sizes->sizes[i].length == length && strncmp(sizes->sizes[i].name, name, length) == 0)
            return &sizes->sizes[i];
    if (sizes->n == MAX_SIZES)
        elog(ERROR, "an op's shapes name more than %d sizes", MAX_SIZES);
    sizes->sizes[sizes->n] = (NamedSize){name, length, 0, NULL};
    return &sizes->sizes[sizes->n++];
}

/* The sizes of a shape: those that the bytea itself tells are known at once. */
static void
collect_sizes(Sizes *sizes, const char *shape, const Floats *f)
{
    char        mark;
    int         times, length;
    const char *name;

    while (next_axis(&shape, &mark, &times, &name, &length))
    {
        NamedSize *size;

        if (mark == '*')
            continue;
        size = size_named(sizes, name, length);
        if (mark == '=')
        {
            size->size = f->n;
            size->from = f;
        }
    }
}

/* The other sizes from the SQL arguments; without any, the one input is a single row. */
static void
read_sizes(Sizes *sizes, FunctionCallInfo fcinfo, int arg, size_t n)
{
    bool one_row = PG_NARGS() <= arg;

    for (int i = 0; i < sizes->n; i++)
    {
        NamedSize *size = &sizes->sizes[i];

        if (size->from != NULL)
            continue;
        if (one_row)
            size->size = i == 0 ? 1 : n;
        else
            size->size = floats_dim(fcinfo, arg++, pnstrdup(size->name, size->length));
    }
}

static void
set_input(OpCall *call, const char *shape, const Floats *f, Sizes *sizes)
{
    OpValue         *v = &call->in[call->n_inputs++];
    size_t           dims[2] = {1, 1};
    const NamedSize *vector = NULL;
    char             mark;
    int              times, length;
    const char      *name;

    v->value = NO_VALUE;
    v->data = (float *) f->data; /* ops do not write to their inputs */
    v->n = f->n;
    while (next_axis(&shape, &mark, &times, &name, &length))
    {
        const NamedSize *size = mark == '*' ? NULL : size_named(sizes, name, length);

        if (v->ndim == 2)
            elog(ERROR, "op %s has an input of more than two axes", call->op->name);
        vector = size;
        dims[v->ndim++] = size == NULL ? 0 : times * size->size;
    }
    if (dims[0] == 0 && v->ndim == 2 && dims[1] > 0 && f->n % dims[1] == 0)
        dims[0] = f->n / dims[1];
    else if (dims[0] == 0 && v->ndim == 2)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s has %zu elements, not a multiple of the row length %zu", f->name, f->n, dims[1]),
                errhint("A row is as long as %s.", vector->from->name));
    if (v->ndim == 1 && vector->from != NULL)
        floats_expect_like(f, vector->from);
    else if (v->ndim == 1)
        floats_expect(f, 1, dims[0]);
    else
        floats_expect(f, dims[0], dims[1]);
    for (int i = 0; i < v->ndim; i++)
        v->dims[i] = (int32) dims[i];
}

/* ---- calls ---- */

static float *
allocate_bytes(OpCall *call, size_t n)
{
    float *data;

    call->bytes = floats_new(n, &data);
    return data;
}

/* A call of the op with the arguments from number `arg` on, computed; for a backward with what it saves. */
static OpCall *
bytea_call(FunctionCallInfo fcinfo, const OpDef *op, int arg, bool read_only)
{
    OpCall *call = palloc0(sizeof(OpCall));
    int     n_args = op->bytea_args > 0 ? op->bytea_args : op_n_args(op);
    Floats *floats = palloc0(sizeof(Floats) * n_args);
    Sizes   sizes = {0};

    call->op = op;
    call->read_only = read_only;
    call->pure = true;
    call->allocate = allocate_bytes;
    for (int i = 0; i < n_args; i++)
    {
        const OpArg *declared = &op->args[i];
        const char  *shape;
        const char  *name = bytea_name(declared, &shape);

        if (declared->kind != 't')
        {
            op_read_constant(call, fcinfo, arg + i, declared->kind, op_arg_rank(op, i));
            continue;
        }
        floats[i] = floats_arg(fcinfo, arg + i, name);
        collect_sizes(&sizes, shape, &floats[i]);
    }
    for (int i = n_args; i < op_n_args(op); i++) /* left out here */
        if (op->args[i].kind == 'n')
            call->ints[op_arg_rank(op, i)] = NO_INTEGER;
    read_sizes(&sizes, fcinfo, arg + n_args, floats[0].n);
    for (int i = 0; i < n_args; i++)
    {
        const char *shape;

        (void) bytea_name(&op->args[i], &shape);
        if (op->args[i].kind == 't')
            set_input(call, shape, &floats[i], &sizes);
    }
    op->forward(call);
    pg_llm_check(pg_llm_engine());
    return call;
}

static Datum
output_of(FunctionCallInfo fcinfo, const OpCall *call)
{
    if (call->op->is_number)
        PG_RETURN_FLOAT8(call->out.data[0]);
    return floats_result(call->bytes);
}

static Datum
bytea_forward(FunctionCallInfo fcinfo, const OpDef *op)
{
    if (op_null_argument(op, fcinfo, 0))
        PG_RETURN_NULL();
    return output_of(fcinfo, bytea_call(fcinfo, op, 0, true));
}

/* One gradient as it is, several as a record. */
static Datum
gradients(FunctionCallInfo fcinfo, bytea *const *grads, int n)
{
    TupleDesc desc;
    Datum     values[OP_MAX_INPUTS];
    bool      nulls[OP_MAX_INPUTS] = {false};

    for (int i = 0; i < n; i++)
        values[i] = floats_result(grads[i]);
    if (n == 1)
        return values[0];
    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != n)
        elog(ERROR, "return type must be a row type of %d gradients", n);
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

static Datum
bytea_backward(FunctionCallInfo fcinfo, const OpDef *op)
{
    const OpCall *call;
    Floats        dout = {"dout", NULL, 1};
    float         number;
    bytea        *grads[OP_MAX_INPUTS];
    OpGrad        din[OP_MAX_INPUTS] = {{0}};

    if (op_null_argument(op, fcinfo, 1))
        PG_RETURN_NULL();
    call = bytea_call(fcinfo, op, 1, false);
    if (op->is_number)
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
        grads[i] = floats_new(call->in[i].n, &din[i].data);
    op->backward(call, dout.data, din);
    pg_llm_check(pg_llm_engine());
    return gradients(fcinfo, grads, call->n_inputs);
}

/* pg_llm_<op> and pg_llm_<op>_backward on bytea */
#define BYTEA_OP(id)                                                                                                   \
    PG_FUNCTION_INFO_V1(pg_llm_bytea_##id);                                                                            \
    Datum pg_llm_bytea_##id(PG_FUNCTION_ARGS)                                                                          \
    {                                                                                                                  \
        return bytea_forward(fcinfo, &op_##id);                                                                        \
    }                                                                                                                  \
    PG_FUNCTION_INFO_V1(pg_llm_bytea_##id##_backward);                                                                 \
    Datum pg_llm_bytea_##id##_backward(PG_FUNCTION_ARGS)                                                               \
    {                                                                                                                  \
        return bytea_backward(fcinfo, &op_##id);                                                                       \
    }

BYTEA_OP_LIST(BYTEA_OP)

/* ---- what is made of ops, or takes other arguments ---- */

/* pg_llm_cross_entropy(logits, target): one row. */
PG_FUNCTION_INFO_V1(pg_llm_bytea_cross_entropy_row);
Datum
pg_llm_bytea_cross_entropy_row(PG_FUNCTION_ARGS)
{
    OpCall *call = palloc0(sizeof(OpCall));
    Floats  logits = floats_arg(fcinfo, 0, "logits");
    int32   target = PG_GETARG_INT32(1);
    Sizes   sizes = {0};

    if (logits.n == 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("logits are empty"));
    call->op = &op_cross_entropy;
    call->read_only = call->pure = true;
    call->allocate = allocate_bytes;
    call->ids = (IntArray){.ndim = 1, .dims = {1}, .n = 1, .values = &target};
    collect_sizes(&sizes, "= vocab", &logits);
    set_input(call, "= vocab", &logits, &sizes);
    call->op->forward(call);
    pg_llm_check(pg_llm_engine());
    return output_of(fcinfo, call);
}

/* pg_llm_activation(x, name) */
PG_FUNCTION_INFO_V1(pg_llm_bytea_activation);
Datum
pg_llm_bytea_activation(PG_FUNCTION_ARGS)
{
    return bytea_forward(fcinfo, op_of_activation(PG_GETARG_TEXT_PP(1)));
}

/* pg_llm_activation_backward(dout, x, name) */
PG_FUNCTION_INFO_V1(pg_llm_bytea_activation_backward);
Datum
pg_llm_bytea_activation_backward(PG_FUNCTION_ARGS)
{
    return bytea_backward(fcinfo, op_of_activation(PG_GETARG_TEXT_PP(2)));
}

/* The call without its argument number `left_out`, and the pooling that this one names. */
static const OpDef *
pooling_of(FunctionCallInfo call, FunctionCallInfo fcinfo, int left_out)
{
    memcpy(call, fcinfo, SizeForFunctionCallInfo(PG_NARGS()));
    call->nargs = PG_NARGS() - 1;
    for (int i = left_out; i < call->nargs; i++)
        call->args[i] = fcinfo->args[i + 1];
    return op_of_pooling(PG_GETARG_TEXT_PP(left_out));
}

/* pg_llm_pool(x (n,d), lengths, pooling, n, d) */
PG_FUNCTION_INFO_V1(pg_llm_bytea_pool);
Datum
pg_llm_bytea_pool(PG_FUNCTION_ARGS)
{
    LOCAL_FCINFO(call, 5);
    Datum result;

    if (PG_ARGISNULL(2))
        PG_RETURN_NULL();
    result = bytea_forward(call, pooling_of(call, fcinfo, 2));
    fcinfo->isnull = call->isnull;
    return result;
}

/* pg_llm_pool_backward(dout, x (n,d), lengths, pooling, n, d) */
PG_FUNCTION_INFO_V1(pg_llm_bytea_pool_backward);
Datum
pg_llm_bytea_pool_backward(PG_FUNCTION_ARGS)
{
    LOCAL_FCINFO(call, 6);
    Datum result;

    if (PG_ARGISNULL(3))
        PG_RETURN_NULL();
    result = bytea_backward(call, pooling_of(call, fcinfo, 3));
    fcinfo->isnull = call->isnull;
    return result;
}

/* A copy of a bytea argument as a tensor (rows, cols), or (cols) for rows = 0. */
static Tensor *
tensor_arg(FunctionCallInfo fcinfo, int arg, const char *name, size_t rows, size_t cols)
{
    Floats  f = floats_arg(fcinfo, arg, name);
    int32   dims[2] = {(int32) rows, (int32) cols};
    Tensor *t;

    floats_expect(&f, Max(rows, 1), cols);
    t = rows == 0 ? tensor_new(1, dims + 1) : tensor_new(2, dims);
    memcpy(t->data, f.data, f.n * sizeof(float));
    return t;
}

static bytea *
bytes_of(const Tensor *t)
{
    float *data;
    bytea *result = floats_new(t->n, &data);

    memcpy(data, t->data, t->n * sizeof(float));
    return result;
}

/* x (t,d), w_qkv (d,3d), b_qkv (3d), w_o (d,d), b_o (d) from argument number `arg` on; n_head is the one after them. */
static void
attention_inputs(FunctionCallInfo fcinfo, int arg, Tensor **in)
{
    size_t t = floats_dim(fcinfo, arg + 6, "t");
    size_t d = floats_dim(fcinfo, arg + 7, "d");

    in[0] = tensor_arg(fcinfo, arg, "x", t, d);
    in[1] = tensor_arg(fcinfo, arg + 1, "w_qkv", d, 3 * d);
    in[2] = tensor_arg(fcinfo, arg + 2, "b_qkv", 0, 3 * d);
    in[3] = tensor_arg(fcinfo, arg + 3, "w_o", d, d);
    in[4] = tensor_arg(fcinfo, arg + 4, "b_o", 0, d);
}

/* pg_llm_attention(x (t,d), w_qkv, b_qkv, w_o, b_o, n_head, t, d) */
PG_FUNCTION_INFO_V1(pg_llm_bytea_attention);
Datum
pg_llm_bytea_attention(PG_FUNCTION_ARGS)
{
    Tensor *in[5];

    attention_inputs(fcinfo, 0, in);
    return floats_result(bytes_of(op_attention_output(in, (int32) floats_dim(fcinfo, 5, "n_head"))));
}

/* pg_llm_attention_backward(dout (t,d), <the same>) -> dx, dw_qkv, db_qkv, dw_o, db_o */
PG_FUNCTION_INFO_V1(pg_llm_bytea_attention_backward);
Datum
pg_llm_bytea_attention_backward(PG_FUNCTION_ARGS)
{
    Tensor *dout;
    Tensor *in[5];
    Tensor *grads[5];
    bytea  *bytes[5];

    attention_inputs(fcinfo, 1, in);
    dout = tensor_arg(fcinfo, 0, "dout", in[0]->dims[0], in[0]->dims[1]);
    op_attention_gradients(grads, dout, in, (int32) floats_dim(fcinfo, 6, "n_head"));
    for (int i = 0; i < 5; i++)
        bytes[i] = bytes_of(grads[i]);
    return gradients(fcinfo, bytes, 5);
}

extern PGDLLEXPORT Datum pg_llm_sample(PG_FUNCTION_ARGS); /* generation/sample.c */

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
        Floats  logits = floats_arg(fcinfo, 0, "logits");
        int32   n = (int32) logits.n;
        Tensor *t = tensor_new(1, &n);

        memcpy(t->data, logits.data, logits.n * sizeof(float));
        call->args[0].value = tensor_datum(t);
    }
    result = pg_llm_sample(call);
    fcinfo->isnull = call->isnull;
    return result;
}
