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
#include "generation/generate.h"
#include "op.h"
#include "session/settings.h"
#include "session/suspended.h"
#include "pass.h"
#include "tape.h"

void
op_value_of(OpValue *v, const Tensor *t)
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
    op_value_of(&call->in[i], t);
    if (t->nonce != 0)
        call->in[i].value = tape_input_value(t);
    if (call->n_inputs <= i)
        call->n_inputs = i + 1;
}

/* ---- helpers for forwards ---- */

float *
op_output(OpCall *call, int ndim, const int32 *dims)
{
    if (call->allocate != NULL)
    {
        call->out.ndim = ndim;
        memcpy(call->out.dims, dims, sizeof(int32) * ndim);
        call->out.n = tensor_count(ndim, dims);
        call->out.data = call->allocate(call, call->out.n);
        return call->out.data;
    }
    call->result = tensor_new(ndim, dims);
    op_value_of(&call->out, call->result);
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
    int32 dims[2] = {1, 0};

    /* two axes hold what one int32 may not */
    while (n / dims[0] > INT_MAX)
        dims[0] *= 2;
    dims[1] = (int32) ((n + dims[0] - 1) / dims[0]);
    return tensor_new(2, dims);
}

float *
op_save(OpCall *call, int i, size_t n)
{
    if (call->read_only) /* the forward alone reads it */
    {
        if (!tensor_buffer_room(Max(n, 1) * sizeof(float)))
            ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for %zu elements", n));
        return MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(float));
    }
    op_value_of(&call->saved[i], flat_tensor(n));
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
    size_t rows = 1;

    for (int i = 0; i < v->ndim - 1; i++)
        rows *= (size_t) v->dims[i];
    return rows;
}

void
op_need(const OpValue *v)
{
    if (v->buffer != NULL)
        tensor_buffer_need(v->buffer);
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
        appendStringInfo(&shapes, "%s%s %s", i == 0 ? "" : ", ", op_arg_name(call->op, 't', i), op_shape(&call->in[i]));
    if (call->ids.values != NULL)
        appendStringInfo(&shapes, ", %s %s", op_arg_name(call->op, 'i', 0),
                         tensor_shape_text(call->ids.ndim, call->ids.dims));
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("%s cannot take the shapes %s", call->op->name, shapes.data), errhint("It expects %s.", expects));
}

void
op_require_ndim(const OpCall *call, int input, int least)
{
    if (call->in[input].ndim < least)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: %s has shape %s", call->op->name, op_arg_name(call->op, 't', input),
                       op_shape(&call->in[input])),
                errhint("It needs at least %d dimension%s.", least, least == 1 ? "" : "s"));
}

/* Ensure that every id lies in [0, limit); targets may be negative (ignored). */
void
op_require_ids(const OpCall *call, int64 limit, bool negative_ok)
{
    for (size_t i = 0; i < call->ids.n; i++)
    {
        int32 id = call->ids.values[i];

        if ((i & 0xffff) == 0)
            CHECK_FOR_INTERRUPTS();
        if (id >= limit || (id < 0 && !negative_ok))
            ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                    errmsg("%s: id %d at position %zu of %s is out of range", call->op->name, id, i + 1,
                           op_arg_name(call->op, 'i', 0)),
                    errhint("Ids must be between 0 and " INT64_FORMAT ".", limit - 1));
    }
}

void
op_dropout_key(OpCall *call)
{
    const PassState *pass = pass_current();

    if (call->again)
        return;
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
        snprintf(call->site, OP_SITE_LEN, "#%d", pass_next_site());
    call->key.site = llm_site(call->site);
}

/* ---- running ---- */

Tensor *
op_run(OpCall *call)
{
    llm_engine *e = pg_llm_engine();

    call->read_only = !pass_recording();
    /* not in a generation, which a function of a user's op runs, or is part of: its attention goes on from a cache */
    call->pure |= suspended() && !generate_in_use();
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

/* ---- arguments ---- */

int
op_n_args(const OpDef *op)
{
    int n = 0;

    while (op->args[n].kind != '\0')
        n++;
    return n;
}

int
op_arg_rank(const OpDef *op, int arg)
{
    int rank = 0;

    for (int i = 0; i < arg; i++)
        rank += op->args[i].kind == op->args[arg].kind;
    return rank;
}

const char *
op_arg_type(char kind)
{
    switch (kind)
    {
        case 't':
            return "tensor";
        case 'i':
            return "integer[]";
        case 'n':
            return "integer";
        case 'r':
            return "double precision";
        case 'b':
            return "boolean";
        case 's':
            return "text";
        default:
            return "jsonb";
    }
}

const char *
op_arg_name(const OpDef *op, char kind, int n)
{
    for (const OpArg *arg = op->args; arg->kind != '\0'; arg++)
        if (arg->kind == kind && n-- == 0)
            return arg->name;
    return "an argument";
}

bool
op_null_argument(const OpDef *op, FunctionCallInfo fcinfo, int arg)
{
    int n_args = op_n_args(op);

    for (int i = 0; i < PG_NARGS(); i++)
    {
        const OpArg *declared = i >= arg && i - arg < n_args ? &op->args[i - arg] : NULL;
        bool         may_be_null = declared != NULL && declared->text != NULL && strcmp(declared->text, "NULL") == 0;

        if (PG_ARGISNULL(i) && !may_be_null)
            return true;
    }
    return false;
}

void
op_read_constant(OpCall *call, FunctionCallInfo fcinfo, int arg, char kind, int n)
{
    switch (kind)
    {
        case 'i':
            if (!PG_ARGISNULL(arg))
                call->ids = tensor_int_array(PG_GETARG_DATUM(arg), op_arg_name(call->op, kind, n));
            break;
        case 'n':
            call->ints[n] = PG_ARGISNULL(arg) ? NO_INTEGER : PG_GETARG_INT32(arg);
            break;
        case 'r':
            call->reals[n] = PG_GETARG_FLOAT8(arg);
            break;
        case 'b':
            call->flag = PG_GETARG_BOOL(arg);
            break;
        case 's':
            text_to_cstring_buffer(PG_GETARG_TEXT_PP(arg), call->site, OP_SITE_LEN);
            break;
        case 'j':
            call->settings = PG_GETARG_JSONB_P(arg);
            break;
        default:
            elog(ERROR, "op %s has an unknown argument kind '%c'", call->op->name, kind);
    }
}

/* An input that may come unfilled. Only some ops know what to do with one that an adapter adds to. */
static Tensor *
lazy_argument(OpCall *call, int input, Datum d)
{
    Tensor *t = tensor_from_datum_lazy(d);

    if (t->low == NULL)
        return t;
    if (input == 1 && call->op->adapted != NULL && !call->pure)
        call->low = t->low;
    else
        tensor_need(t);
    return t;
}

/* Reads SQL arguments from number `arg` on, as the op declares them. */
static void
read_arguments(OpCall *call, FunctionCallInfo fcinfo, int arg)
{
    for (int i = 0; call->op->args[i].kind != '\0'; i++)
    {
        int rank = op_arg_rank(call->op, i);

        if (call->op->args[i].kind == 't')
            op_set_input(call, rank,
                         call->op->lazy & KEEPS_IN(rank) ? lazy_argument(call, rank, PG_GETARG_DATUM(arg + i))
                                                         : PG_GETARG_TENSOR(arg + i));
        else
            op_read_constant(call, fcinfo, arg + i, call->op->args[i].kind, rank);
    }
}

Datum
op_sql_call(FunctionCallInfo fcinfo, const OpDef *op)
{
    OpCall call = {.op = op};

    if (op_null_argument(op, fcinfo, 0))
        PG_RETURN_NULL();
    if (op->is_identity != NULL && op->is_identity(fcinfo))
        PG_RETURN_DATUM(PG_GETARG_DATUM(0));
    read_arguments(&call, fcinfo, 0);
    PG_RETURN_TENSOR(call.low == NULL ? op_run(&call) : op->adapted(&call));
}

void
op_gradients(const OpCall *call, const float *dout, Tensor **grads)
{
    OpGrad din[OP_MAX_INPUTS] = {{0}};

    for (int i = 0; i < call->n_inputs; i++)
    {
        grads[i] = tensor_new(call->in[i].ndim, call->in[i].dims);
        din[i].data = grads[i]->data;
    }
    call->op->backward(call, dout, din);
    pg_llm_check(pg_llm_engine());
}

/*
 * pg_llm_<op>_backward(dout, <the op's arguments>): runs the forward again for what it saves, then the backward.
 * One differentiable input gives a tensor, more give a record of them.
 */
Datum
op_sql_backward(FunctionCallInfo fcinfo, const OpDef *op)
{
    OpCall *call = palloc0(sizeof(OpCall));
    Tensor *dout;
    Tensor *grads[OP_MAX_INPUTS];

    if (op_null_argument(op, fcinfo, 1))
        PG_RETURN_NULL();
    dout = PG_GETARG_TENSOR(0);
    call->op = op;
    call->pure = true; /* in a generation's pass, too: a gradient reads no cache and writes none */
    read_arguments(call, fcinfo, 1);
    op->forward(call);
    pg_llm_check(pg_llm_engine());
    if (dout->n != call->out.n)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s_backward: the output's gradient has shape %s, the output %s", op->name,
                       tensor_shape_text(dout->ndim, dout->dims), op_shape(&call->out)));
    op_gradients(call, dout->data, grads);
    if (call->n_inputs == 1)
        PG_RETURN_TENSOR(grads[0]);
    else
    {
        TupleDesc desc;
        Datum     values[OP_MAX_INPUTS];
        bool      nulls[OP_MAX_INPUTS] = {false};

        if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
            PG_RETURN_TENSOR(grads[0]); /* declared with its first gradient only */
        for (int i = 0; i < call->n_inputs; i++)
            values[i] = tensor_datum(grads[i]);
        PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
    }
}
