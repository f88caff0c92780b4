/*
 * tape_backward.c -- taking a recorded pass back, op by op from the newest, and handing its gradients out.
 */
#include "postgres.h"

#include <math.h>

#include "session/suspended.h"
#include "tape_internal.h"

static uint32
index_of(int64 id)
{
    /* A base is at least TAPE_MAX_VALUES: a smaller id was given out before the pass had one. */
    int64 index = id >= 0 && id < TAPE_MAX_VALUES ? id : id - tape.base;

    if (!tape_is_mine() || tape.n_nodes == 0)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("nothing is recorded in this session"),
                errhint("Switch recording on (UPDATE llm_autograd_mode SET flag = true) and compute a loss first."));
    if (index < 0 || index >= tape.n_values)
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
                errmsg("tensor " INT64_FORMAT " is not on this session's tape", id));
    return (uint32) index;
}

static void
refuse_spent(const TapeValue *v)
{
    if (v->spent)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("this part of the tape has been differentiated already"), errhint("Compute the loss again."));
}

/* pg_llm_backward_begin(start_id or NULL, scale): d(start) = scale. */
PG_FUNCTION_INFO_V1(pg_llm_backward_begin);
Datum
pg_llm_backward_begin(PG_FUNCTION_ARGS)
{
    uint32     index;
    TapeValue *v;

    require_not_suspended();
    tape_require_whole();
    if (PG_ARGISNULL(0))
    {
        (void) index_of(tape.base);
        index = tape.nodes[tape.n_nodes - 1].call.out.value;
    }
    else
        index = index_of(PG_GETARG_INT64(0));
    v = &tape.values[index];
    if (v->n != 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the gradient of a tensor of shape %s cannot be taken", tensor_shape_text(v->ndim, v->dims)),
                errhint("Reduce it to one number first: a loss, pg_llm_sum or pg_llm_mean."));
    if (!v->needs_grad || v->kind != VALUE_OUTPUT)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("tensor " INT64_FORMAT " does not depend on any parameter or tracked tensor", tape.base + index),
                errhint("Compute it from llm_weight(model, name) or pg_llm_autograd_track_tensor(x) while recording."));
    refuse_spent(v);
    if (v->grad == NULL)
        v->grad = tensor_buffer_alloc(1);
    tape.backwards++;
    tape.began = true;
    v->grad->data[0] = PG_ARGISNULL(1) ? 1.0f : (float) PG_GETARG_FLOAT8(1);
    v->has_grad = true;
    PG_RETURN_VOID();
}

/* Where the gradient of a value goes, and whether something is there already. */
static OpGrad
gradient_of(TapeValue *v)
{
    OpGrad g;

    if (v->kind == VALUE_PARAM)
    {
        g.data = params_gradient(v->version, v->param, &g.acc);
        g.buffer = &v->param->grad;
        v->has_grad = true;
        return g;
    }
    refuse_spent(v);
    if (v->grad == NULL)
        v->grad = tensor_buffer_alloc(v->n);
    g.data = v->grad->data;
    g.buffer = &v->grad;
    g.acc = v->has_grad;
    v->has_grad = true;
    return g;
}

/* An input that stands twice in one call gets the second share by way of scratch. */
static bool
seen_before(const OpCall *c, int input)
{
    for (int i = 0; i < input; i++)
        if (c->in[i].value == c->in[input].value)
            return true;
    return false;
}

static void
differentiate(TapeNode *node, const float *dout)
{
    OpCall     *c = &node->call;
    OpGrad      din[OP_MAX_INPUTS];
    llm_engine *e;

    if (c->op->prepare != NULL)
        c->op->prepare(c, dout);
    e = pg_llm_engine();
    for (int i = 0; i < c->n_inputs; i++)
    {
        TapeValue *v = &tape.values[c->in[i].value];

        din[i].data = NULL;
        din[i].acc = false;
        din[i].buffer = NULL;
        if (!v->needs_grad)
            continue;
        if (seen_before(c, i))
            din[i].data = op_scratch(v->n);
        else
            din[i] = gradient_of(v);
    }
    c->op->backward(c, dout, din);
    for (int i = 0; i < c->n_inputs; i++)
        if (din[i].data != NULL && seen_before(c, i))
        {
            OpGrad sum = gradient_of(&tape.values[c->in[i].value]);

            llm_copy(e, sum.data, din[i].data, true, tape.values[c->in[i].value].n);
        }
    pg_llm_check(e);
}

/* pg_llm_backward(id): one op of the tape, whose output's gradient is complete. */
PG_FUNCTION_INFO_V1(pg_llm_backward);
Datum
pg_llm_backward(PG_FUNCTION_ARGS)
{
    uint32     value = index_of(PG_GETARG_INT64(0));
    uint32     low = 0;
    uint32     high = tape.n_nodes;
    TapeNode  *node;
    TapeValue *out;

    require_not_suspended();
    /* outputs are numbered in the order of ops */
    while (low < high)
    {
        uint32 middle = low + (high - low) / 2;

        if (tape.nodes[middle].call.out.value < value)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == tape.n_nodes || tape.nodes[low].call.out.value != value)
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
                errmsg("tensor " INT64_FORMAT " is not the output of an op on the tape", PG_GETARG_INT64(0)));
    tape_require_whole();
    node = &tape.nodes[low];
    out = &tape.values[value];
    /* what no gradient has reached may be part of another number that is differentiated next */
    if (node->done || !out->has_grad)
        PG_RETURN_VOID();
    tape.backwards++;
    tape.broken = "An error ended the backward pass in the middle.";
    if (node->let_go)
        tape_compute_again(low);
    differentiate(node, out->grad->data);
    tape.broken = NULL;
    out->spent = true;
    out->grad_norm = tape_wants_rows() ? pg_llm_l2_norm(out->grad->data, out->n) : NAN;
    if (pg_llm_record != RECORD_FULL || tape.quiet)
    {
        tensor_buffer_release(out->grad);
        out->grad = NULL;
    }
    tape_release_node(node);
    tape_release_source(value);
    PG_RETURN_VOID();
}

/* ---- gradients ---- */

/* pg_llm_tensor_id(tensor) -> its id in the recorded pass; NULL: it belongs to none, or to another */
PG_FUNCTION_INFO_V1(pg_llm_tensor_id);
Datum
pg_llm_tensor_id(PG_FUNCTION_ARGS)
{
    uint32 value = tape_value_of(PG_GETARG_TENSOR(0));

    if (value == NO_VALUE)
        PG_RETURN_NULL();
    PG_RETURN_INT64(tape.base + value);
}

static Datum
gradient_datum(FunctionCallInfo fcinfo, uint32 value)
{
    TapeValue    *v = &tape.values[value];
    TensorBuffer *grad = v->kind == VALUE_PARAM ? v->param->grad : v->grad;
    Tensor       *t;

    if (!v->has_grad || grad == NULL)
        PG_RETURN_NULL();
    t = tensor_new(v->ndim, v->dims);
    llm_copy(pg_llm_engine(), t->data, grad->data, false, v->n);
    pg_llm_check(pg_llm_engine());
    PG_RETURN_TENSOR(t);
}

/* pg_llm_grad(tensor) -> its gradient in the recorded pass, or NULL */
PG_FUNCTION_INFO_V1(pg_llm_grad);
Datum
pg_llm_grad(PG_FUNCTION_ARGS)
{
    uint32 value = tape_value_of(PG_GETARG_TENSOR(0));

    if (value == NO_VALUE)
        PG_RETURN_NULL();
    return gradient_datum(fcinfo, value);
}

/* pg_llm_grad_by_id(id) -> the gradient of the tensor with this id, or NULL */
PG_FUNCTION_INFO_V1(pg_llm_grad_by_id);
Datum
pg_llm_grad_by_id(PG_FUNCTION_ARGS)
{
    return gradient_datum(fcinfo, index_of(PG_GETARG_INT64(0)));
}
