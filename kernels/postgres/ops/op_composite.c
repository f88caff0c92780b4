/*
 * op_composite.c -- ops that are made of ops.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"

#include "ops.h"

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
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
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

static Tensor *
forward_only(OpCall *call, const OpDef *op, Tensor *a, Tensor *b, Tensor *c)
{
    call->op = op;
    call->pure = true;
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

enum
{
    QKV,
    ATTENTION,
    OUT,
    N_CALLS
};

/* The layer's output; its calls keep what a backward reads, unless they are read_only. */
static Tensor *
attention_layer(OpCall *calls, Tensor *const *in, int32 n_head)
{
    Tensor *result;

    calls[ATTENTION].ints[0] = n_head;
    result = forward_only(&calls[QKV], &op_linear, in[0], in[1], in[2]);
    result = forward_only(&calls[ATTENTION], &op_causal_attention_qkv, result, NULL, NULL);
    return forward_only(&calls[OUT], &op_linear, result, in[3], in[4]);
}

Tensor *
op_attention_output(Tensor *const *in, int32 n_head)
{
    OpCall *calls = palloc0(N_CALLS * sizeof(OpCall));

    for (int i = 0; i < N_CALLS; i++)
        calls[i].read_only = true;
    return attention_layer(calls, in, n_head);
}

void
op_attention_gradients(Tensor **grads, Tensor *dout, Tensor *const *in, int32 n_head)
{
    OpCall *calls = palloc0(N_CALLS * sizeof(OpCall));
    Tensor *d_out[OP_MAX_INPUTS];
    Tensor *d_attention[OP_MAX_INPUTS];
    Tensor *result = attention_layer(calls, in, n_head);

    if (dout->n != result->n)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("attention_backward: the output's gradient has shape %s, the output %s",
                       tensor_shape_text(dout->ndim, dout->dims), op_shape(&calls[OUT].out)));
    op_gradients(&calls[OUT], dout->data, d_out);
    op_gradients(&calls[ATTENTION], d_out[0]->data, d_attention);
    op_gradients(&calls[QKV], d_attention[0]->data, grads);
    grads[3] = d_out[1];
    grads[4] = d_out[2];
}

/* pg_llm_attention_backward(dout, <the same>) -> (dx, dw_qkv, db_qkv, dw_o, db_o) */
PG_FUNCTION_INFO_V1(pg_llm_attention_backward);
Datum
pg_llm_attention_backward(PG_FUNCTION_ARGS)
{
    Tensor   *in[5];
    Tensor   *grads[5];
    TupleDesc desc;
    Datum     values[5];
    bool      nulls[5] = {false};

    for (int i = 0; i < 5; i++)
        in[i] = PG_GETARG_TENSOR(i + 1);
    op_attention_gradients(grads, PG_GETARG_TENSOR(0), in, PG_GETARG_INT32(6));
    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    for (int i = 0; i < 5; i++)
        values[i] = tensor_datum(grads[i]);
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
