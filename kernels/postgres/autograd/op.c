/*
 * op.c -- calling an op from SQL: arguments in, forward, tape, result out; and the generic `_backward`.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "tensor/buffer.h"
#include "op.h"
#include "session/session.h"
#include "tape.h"

static void
value_from_tensor(OpValue *v, const Tensor *t)
{
    v->ndim = t->ndim;
    memcpy(v->dims, t->dims, sizeof(int32) * t->ndim);
    v->n = t->n;
    v->buffer = t->buffer;
    v->data = t->data;
    v->value = NO_VALUE;
}

void
op_set_input(OpCall *call, int i, Tensor *t)
{
    value_from_tensor(&call->in[i], t);
    if (t->nonce != 0)
        call->in[i].value = tape_input_value(t);
    if (call->n_inputs <= i)
        call->n_inputs = i + 1;
}

/* ---- helpers for forwards ---- */

float *
op_output(OpCall *call, int ndim, const int32 *dims)
{
    call->result = tensor_new(ndim, dims);
    value_from_tensor(&call->out, call->result);
    return call->out.data;
}

float *
op_output_like(OpCall *call, int input)
{
    return op_output(call, call->in[input].ndim, call->in[input].dims);
}

/* Tensors own scratch and saved values, so that an error gives them back with the memory context. */
static Tensor *
flat_tensor(size_t n)
{
    int32   dims[2] = {1, 0};

    /* two axes hold what one int32 may not */
    while (n / dims[0] > INT_MAX)
        dims[0] *= 2;
    dims[1] = (int32) ((n + dims[0] - 1) / dims[0]);
    return tensor_new(2, dims);
}

float *
op_save(OpCall *call, int i, size_t n)
{
    if (call->read_only)        /* the forward alone reads it */
    {
        if (!tensor_buffer_room(Max(n, 1) * sizeof(float)))
            ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for %zu elements", n));
        return MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(float));
    }
    value_from_tensor(&call->saved[i], flat_tensor(n));
    return call->saved[i].data;
}

/* NULL: nobody will read it */
uint16_t *
op_save_mask(OpCall *call, int i, size_t words)
{
    return call->read_only ? NULL : (uint16_t *) op_save(call, i, (words + 1) / 2);
}

uint16_t *
op_saved_mask(const OpCall *call, int i)
{
    return (uint16_t *) call->saved[i].data;
}

float *
op_scratch(size_t n)
{
    return flat_tensor(n)->data;
}

size_t
op_last_dim(const OpValue *v)
{
    return v->ndim == 0 ? 1 : (size_t) v->dims[v->ndim - 1];
}

size_t
op_rows(const OpValue *v)
{
    size_t  rows = 1;

    for (int i = 0; i < v->ndim - 1; i++)
        rows *= (size_t) v->dims[i];
    return rows;
}

char *
op_shape(const OpValue *v)
{
    return tensor_shape_text(v->ndim, v->dims);
}

void
op_shape_error(const OpCall *call, const char *expects)
{
    StringInfoData shapes;

    initStringInfo(&shapes);
    for (int i = 0; i < call->n_inputs; i++)
        appendStringInfo(&shapes, "%s%s", i == 0 ? "" : i == call->n_inputs - 1 ? " and " : ", ",
                         op_shape(&call->in[i]));
    if (call->ids.values != NULL)
        appendStringInfo(&shapes, ", ids %s", tensor_shape_text(call->ids.ndim, call->ids.dims));
    ereport(ERROR,
            errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("%s cannot take shapes %s", call->op->name, shapes.data),
            errhint("It expects %s.", expects));
}

void
op_require_ndim(const OpCall *call, int input, int least)
{
    if (call->in[input].ndim < least)
        ereport(ERROR,
                errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: argument %d has shape %s", call->op->name, input + 1, op_shape(&call->in[input])),
                errhint("It needs at least %d dimension%s.", least, least == 1 ? "" : "s"));
}

/* Ensure that every id lies in [0, limit); targets may be negative (ignored). */
void
op_require_ids(const OpCall *call, int64 limit, bool negative_ok)
{
    for (size_t i = 0; i < call->ids.n; i++)
    {
        int32   id = call->ids.values[i];

        if ((i & 0xffff) == 0)
            CHECK_FOR_INTERRUPTS();
        if (id >= limit || (id < 0 && !negative_ok))
            ereport(ERROR,
                    errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                    errmsg("%s: id %d at position %zu is out of range", call->op->name, id, i + 1),
                    errhint("Ids must be between 0 and " INT64_FORMAT ".", limit - 1));
    }
}

void
op_dropout_key(OpCall *call)
{
    const PassState *pass = session_pass();

    if (pass->keyed)
    {
        call->key.seed = pass->seed;
        call->key.step = pass->step;
        call->first = pass->micro_batch << 40;
    }
    else
    {
        call->key.seed = pg_prng_uint64(&pg_global_prng_state);
        call->key.step = 0;
        call->first = 0;
    }
    if (call->site[0] == '\0')
        snprintf(call->site, OP_SITE_LEN, "#%d", session_next_site());
    call->key.site = llm_site(call->site);
}

/* ---- running ---- */

Tensor *
op_run(OpCall *call)
{
    llm_engine *e = pg_llm_engine();

    call->read_only = !session_recording();
    call->op->forward(call);
    pg_llm_check(e);
    if (!call->read_only)
        tape_record(call);
    return call->result;
}

Tensor *
op_run1(const OpDef *op, Tensor *x)
{
    OpCall *call = palloc0(sizeof(OpCall));

    call->op = op;
    op_set_input(call, 0, x);
    return op_run(call);
}

/* Reads SQL arguments from number `arg` on, as the op's signature says. */
static void
read_arguments(OpCall *call, FunctionCallInfo fcinfo, int arg)
{
    int     n_int = 0;
    int     n_real = 0;

    for (const char *kind = call->op->args; *kind != '\0'; kind++, arg++)
    {
        switch (*kind)
        {
            case 't':
                op_set_input(call, call->n_inputs, PG_GETARG_TENSOR(arg));
                break;
            case 'i':
                call->ids = tensor_int_array(PG_GETARG_DATUM(arg), call->op->name);
                break;
            case 'n':
                call->ints[n_int++] = PG_GETARG_INT32(arg);
                break;
            case 'r':
                call->reals[n_real++] = PG_GETARG_FLOAT8(arg);
                break;
            case 'b':
                call->flag = PG_GETARG_BOOL(arg);
                break;
            case 's':
                text_to_cstring_buffer(PG_GETARG_TEXT_PP(arg), call->site, OP_SITE_LEN);
                break;
            default:
                elog(ERROR, "op %s has an unknown argument kind '%c'", call->op->name, *kind);
        }
    }
}

Datum
op_sql_call(FunctionCallInfo fcinfo, const OpDef *op)
{
    OpCall  call = {.op = op};

    read_arguments(&call, fcinfo, 0);
    PG_RETURN_TENSOR(op_run(&call));
}

/*
 * pg_llm_<op>_backward(dout, <the op's arguments>): runs the forward again for what it saves, then the backward.
 * One differentiable input gives a tensor, more give a record of them.
 */
Datum
op_sql_backward(FunctionCallInfo fcinfo, const OpDef *op)
{
    OpCall *call = palloc0(sizeof(OpCall));
    Tensor *dout = PG_GETARG_TENSOR(0);
    Tensor *grads[OP_MAX_INPUTS];
    OpGrad  din[OP_MAX_INPUTS];

    call->op = op;
    read_arguments(call, fcinfo, 1);
    op->forward(call);
    pg_llm_check(pg_llm_engine());
    if (dout->n != call->out.n)
        ereport(ERROR,
                errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s_backward: the output's gradient has shape %s, the output %s", op->name,
                       tensor_shape_text(dout->ndim, dout->dims), op_shape(&call->out)));
    for (int i = 0; i < call->n_inputs; i++)
    {
        grads[i] = tensor_new(call->in[i].ndim, call->in[i].dims);
        din[i].data = grads[i]->data;
        din[i].acc = false;
        din[i].buffer = NULL;
    }
    op->backward(call, dout->data, din);
    pg_llm_check(pg_llm_engine());

    if (call->n_inputs == 1)
        PG_RETURN_TENSOR(grads[0]);
    else
    {
        TupleDesc   desc;
        Datum       values[OP_MAX_INPUTS];
        bool        nulls[OP_MAX_INPUTS] = {false};

        if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
            PG_RETURN_TENSOR(grads[0]);         /* declared with its first gradient only */
        for (int i = 0; i < call->n_inputs; i++)
            values[i] = tensor_datum(grads[i]);
        PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
    }
}

/* ---- ops that are made of ops ---- */

/* pg_llm_attention(x, w_qkv, b_qkv, w_o, b_o, n_head, t, d): projection, causal attention, projection. */
PG_FUNCTION_INFO_V1(pg_llm_attention);
Datum
pg_llm_attention(PG_FUNCTION_ARGS)
{
    Tensor *x = PG_GETARG_TENSOR(0);
    int32   t = PG_GETARG_INT32(6);
    int32   d = PG_GETARG_INT32(7);
    OpCall *qkv = palloc0(sizeof(OpCall));
    OpCall *attention = palloc0(sizeof(OpCall));
    OpCall *out = palloc0(sizeof(OpCall));

    if (x->ndim < 2 || x->dims[x->ndim - 1] != d || x->dims[x->ndim - 2] != t)
        ereport(ERROR,
                errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("attention: x has shape %s, not [%d,%d]", tensor_shape_text(x->ndim, x->dims), t, d));
    qkv->op = &op_linear;
    op_set_input(qkv, 0, x);
    op_set_input(qkv, 1, PG_GETARG_TENSOR(1));
    op_set_input(qkv, 2, PG_GETARG_TENSOR(2));
    attention->op = &op_causal_attention_qkv;
    op_set_input(attention, 0, op_run(qkv));
    attention->ints[0] = PG_GETARG_INT32(5);
    out->op = &op_linear;
    op_set_input(out, 0, op_run(attention));
    op_set_input(out, 1, PG_GETARG_TENSOR(3));
    op_set_input(out, 2, PG_GETARG_TENSOR(4));
    PG_RETURN_TENSOR(op_run(out));
}

/* One step of a composed backward: gradients of call's inputs from dout. */
static void
chain(OpCall *call, const float *dout, Tensor **grads)
{
    OpGrad  din[OP_MAX_INPUTS];

    for (int i = 0; i < call->n_inputs; i++)
    {
        grads[i] = tensor_new(call->in[i].ndim, call->in[i].dims);
        din[i].data = grads[i]->data;
        din[i].acc = false;
        din[i].buffer = NULL;
    }
    call->op->backward(call, dout, din);
    pg_llm_check(pg_llm_engine());
}

static Tensor *
forward_only(OpCall *call, const OpDef *op, Tensor *a, Tensor *b, Tensor *c)
{
    call->op = op;
    op_set_input(call, 0, a);
    if (b != NULL)
    {
        op_set_input(call, 1, b);
        op_set_input(call, 2, c);
    }
    op->forward(call);
    pg_llm_check(pg_llm_engine());
    return call->result;
}

void
op_attention_gradients(Tensor **grads, Tensor *dout, Tensor *const *in, int32 n_head)
{
    OpCall *qkv = palloc0(sizeof(OpCall));
    OpCall *attention = palloc0(sizeof(OpCall));
    OpCall *out = palloc0(sizeof(OpCall));
    Tensor *d_out[OP_MAX_INPUTS];
    Tensor *d_attention[OP_MAX_INPUTS];
    Tensor *result;

    attention->ints[0] = n_head;
    result = forward_only(qkv, &op_linear, in[0], in[1], in[2]);
    result = forward_only(attention, &op_causal_attention_qkv, result, NULL, NULL);
    result = forward_only(out, &op_linear, result, in[3], in[4]);
    if (dout->n != result->n)
        ereport(ERROR,
                errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("attention_backward: the output's gradient has shape %s, the output %s",
                       tensor_shape_text(dout->ndim, dout->dims), op_shape(&out->out)));
    chain(out, dout->data, d_out);
    chain(attention, d_out[0]->data, d_attention);
    chain(qkv, d_attention[0]->data, grads);
    grads[3] = d_out[1];
    grads[4] = d_out[2];
}

/* pg_llm_attention_backward(dout, <the same>) -> (dx, dw_qkv, db_qkv, dw_o, db_o) */
PG_FUNCTION_INFO_V1(pg_llm_attention_backward);
Datum
pg_llm_attention_backward(PG_FUNCTION_ARGS)
{
    Tensor *in[5];
    Tensor *grads[5];
    TupleDesc desc;
    Datum   values[5];
    bool    nulls[5] = {false};

    for (int i = 0; i < 5; i++)
        in[i] = PG_GETARG_TENSOR(i + 1);
    op_attention_gradients(grads, PG_GETARG_TENSOR(0), in, PG_GETARG_INT32(6));
    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    for (int i = 0; i < 5; i++)
        values[i] = tensor_datum(grads[i]);
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
