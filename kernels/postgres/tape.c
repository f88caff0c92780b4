/*
 * tape.c -- recording a pass and taking it back: values, ops, gradients.
 *
 * The tape holds references to what the backwards read and nothing else; a buffer is let go as soon as its op
 * has been differentiated. Which values belong to it is written in the values themselves: the pass's random
 * number and an index (tensor.h). A value with another number is a leaf.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "arena.h"
#include "session.h"
#include "tape.h"

typedef enum ValueKind { VALUE_OUTPUT, VALUE_CONSTANT, VALUE_TRACKED, VALUE_PARAM } ValueKind;

typedef struct TapeValue
{
    ValueKind   kind;
    bool        needs_grad;
    bool        has_grad;
    bool        spent;          /* its op has been differentiated */
    int         ndim;
    int32       dims[TENSOR_MAX_NDIM];
    size_t      n;
    double      norm;           /* NaN: not taken */
    double      grad_norm;
    TensorBuffer *grad;         /* parameters keep theirs in the arena */
    TensorBuffer *payload;      /* with pg_llm.record = full */
    float      *data;
    ArenaVersion *version;      /* of a parameter */
    ArenaParam *param;
    char       *model;          /* of a leaf mapped by hand */
    char       *name;
} TapeValue;

typedef struct TapeNode
{
    OpCall      call;
    bool        done;
} TapeNode;

static struct
{
    MemoryContext context;
    uint64      nonce;          /* 0: empty */
    Oid         user;           /* who recorded it: nobody else sees it */
    TapeValue  *values;
    uint32      n_values, room_values;
    TapeNode   *nodes;
    uint32      n_nodes, room_nodes;
    int64       base;           /* ids outside are base + index */
    bool        quiet;          /* take no norms: this pass leaves no rows */
} tape;

#define TAPE_MAX_VALUES (1u << 24)      /* ids of one pass: see llm_pass_seq */

/* ---- life ---- */

static void
release_node(TapeNode *node)
{
    OpCall *c = &node->call;

    for (int i = 0; i < c->n_inputs; i++)
    {
        tensor_buffer_release(c->in[i].buffer);
        c->in[i].buffer = NULL;
        c->in[i].data = NULL;
    }
    for (int i = 0; i < OP_MAX_SAVED; i++)
    {
        tensor_buffer_release(c->saved[i].buffer);
        c->saved[i].buffer = NULL;
    }
    tensor_buffer_release(c->out.buffer);
    c->out.buffer = NULL;
    node->done = true;
}

void
tape_clear(void)
{
    for (uint32 i = 0; i < tape.n_nodes; i++)
        if (!tape.nodes[i].done)
            release_node(&tape.nodes[i]);
    for (uint32 i = 0; i < tape.n_values; i++)
    {
        tensor_buffer_release(tape.values[i].grad);
        tensor_buffer_release(tape.values[i].payload);
        if (tape.values[i].version != NULL)
            arena_release(tape.values[i].version);
    }
    if (tape.context != NULL)
        MemoryContextReset(tape.context);
    tape.nonce = 0;
    tape.values = NULL;
    tape.nodes = NULL;
    tape.n_values = tape.room_values = tape.n_nodes = tape.room_nodes = 0;
    tape.base = 0;
}

void
tape_abort(void)
{
    tape_clear();
    tape.quiet = false;
}

static bool
tape_is_mine(void)
{
    return tape.nonce != 0 && tape.user == GetUserId();
}

/*
 * Another role's tape makes way, unless that role's statement is what called us: then the values we compute are
 * constants to it. A SECURITY DEFINER function could otherwise be made to show its weights.
 */
bool
tape_open(void)
{
    if (tape.nonce == 0 || tape.user == GetUserId())
        return true;
    if (InLocalUserIdChange())
        return false;
    tape_clear();
    return true;
}

static void
begin_if_empty(void)
{
    if (tape.nonce != 0)
        return;
    tape.user = GetUserId();
    if (tape.context == NULL)
        tape.context = AllocSetContextCreate(TopMemoryContext, "pg_llm tape", ALLOCSET_DEFAULT_SIZES);
    while (tape.nonce == 0)
        if (!pg_strong_random(&tape.nonce, sizeof(tape.nonce)))
            ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not draw a random number"));
}

/* Room for one more element of `size` bytes. */
static void *
grow(void *array, uint32 used, uint32 *room, size_t size)
{
    if (used < *room)
        return array;
    *room = *room == 0 ? 256 : *room * 2;
    return array == NULL
        ? MemoryContextAllocHuge(tape.context, *room * size)
        : repalloc_huge(array, *room * size);
}

static uint32
new_value(ValueKind kind, int ndim, const int32 *dims, size_t n, bool needs_grad)
{
    TapeValue *v;

    begin_if_empty();
    if (tape.n_values == TAPE_MAX_VALUES)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("the tape holds %u values, its limit", TAPE_MAX_VALUES),
                errhint("Call llm_prune_autograd_state between passes."));
    tape.values = grow(tape.values, tape.n_values, &tape.room_values, sizeof(TapeValue));
    v = &tape.values[tape.n_values];
    memset(v, 0, sizeof(TapeValue));
    v->kind = kind;
    v->ndim = ndim;
    memcpy(v->dims, dims, sizeof(int32) * ndim);
    v->n = n;
    v->needs_grad = needs_grad;
    v->norm = v->grad_norm = NAN;
    return tape.n_values++;
}

static bool
wants_rows(void)
{
    return !tape.quiet && pg_llm_record != RECORD_OFF;
}

/* What a row of llm_tensor_rt will say of this value. */
static void
describe_value(TapeValue *v, TensorBuffer *buffer, float *data)
{
    if (!wants_rows())
        return;
    v->norm = sqrt(llm_sum_squares(pg_llm_engine(), data, v->n));
    if (pg_llm_record == RECORD_FULL)
    {
        v->payload = tensor_buffer_retain(buffer);
        v->data = data;
    }
}

uint32
tape_value_of(const Tensor *t)
{
    return t->nonce == tape.nonce && tape_is_mine() && t->index < tape.n_values ? t->index : NO_VALUE;
}

static void
stamp(Tensor *t, uint32 value)
{
    t->nonce = tape.nonce;
    t->index = value;
}

void
tape_param_leaf(Tensor *t, ArenaVersion *version, ArenaParam *param)
{
    uint32  i;

    /* parameters come first in a pass and again in later layers: a short search from the start */
    for (i = 0; i < tape.n_values; i++)
        if (tape.values[i].param == param)
            break;
    if (i == tape.n_values)
    {
        i = new_value(VALUE_PARAM, t->ndim, t->dims, t->n, true);
        tape.values[i].version = arena_retain(version);
        tape.values[i].param = param;
        describe_value(&tape.values[i], t->buffer, t->data);
    }
    stamp(t, i);
}

/* ---- recording ---- */

static void
keep(OpValue *v, bool wanted)
{
    if (wanted && v->buffer != NULL)
        tensor_buffer_retain(v->buffer);
    else
    {
        v->buffer = NULL;
        v->data = NULL;
    }
}

/* The call's inputs as values on the tape; true when one of them wants a gradient. */
static bool
number_inputs(OpCall *c)
{
    bool    needs_grad = false;

    for (int i = 0; i < c->n_inputs; i++)
    {
        if (c->in[i].value == NO_VALUE)
        {
            c->in[i].value = new_value(VALUE_CONSTANT, c->in[i].ndim, c->in[i].dims, c->in[i].n, false);
            describe_value(&tape.values[c->in[i].value], c->in[i].buffer, c->in[i].data);
        }
        needs_grad |= tape.values[c->in[i].value].needs_grad;
    }
    return needs_grad;
}

void
tape_record(OpCall *call)
{
    TapeNode *node;
    OpCall *c;
    bool    needs_grad;
    int32  *ids = NULL;

    begin_if_empty();
    needs_grad = number_inputs(call);
    call->out.value = new_value(VALUE_OUTPUT, call->out.ndim, call->out.dims, call->out.n, needs_grad);
    describe_value(&tape.values[call->out.value], call->out.buffer, call->out.data);
    if (needs_grad && call->ids.n > 0)
    {
        ids = MemoryContextAllocHuge(tape.context, call->ids.n * sizeof(int32));
        memcpy(ids, call->ids.values, call->ids.n * sizeof(int32));
    }
    tape.nodes = grow(tape.nodes, tape.n_nodes, &tape.room_nodes, sizeof(TapeNode));
    node = &tape.nodes[tape.n_nodes];
    node->call = *call;
    node->done = !needs_grad;
    c = &node->call;
    c->result = NULL;
    c->ids.values = ids;
    for (int i = 0; i < c->n_inputs; i++)
        keep(&c->in[i], needs_grad && (c->op->keeps & KEEPS_IN(i)));
    keep(&c->out, needs_grad && (c->op->keeps & KEEPS_OUT));
    for (int i = 0; i < OP_MAX_SAVED; i++)
        keep(&c->saved[i], needs_grad);
    tape.n_nodes++;
    stamp(call->result, c->out.value);
}

/* ---- backward ---- */

static uint32
index_of(int64 id)
{
    /* A base is at least TAPE_MAX_VALUES: a smaller id was given out before the pass had one. */
    int64   index = id >= 0 && id < TAPE_MAX_VALUES ? id : id - tape.base;

    if (!tape_is_mine() || tape.n_nodes == 0)
        ereport(ERROR,
                errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("nothing is recorded in this session"),
                errhint("Switch recording on (UPDATE llm_autograd_mode SET flag = true) and compute a loss first."));
    if (index < 0 || index >= tape.n_values)
        ereport(ERROR,
                errcode(ERRCODE_UNDEFINED_OBJECT),
                errmsg("tensor " INT64_FORMAT " is not on this session's tape", id));
    return (uint32) index;
}

static void
refuse_spent(const TapeValue *v)
{
    if (v->spent)
        ereport(ERROR,
                errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("this part of the tape has been differentiated already"),
                errhint("Compute the loss again."));
}

/* pg_llm_backward_begin(start_id or NULL, scale): d(start) = scale. */
PG_FUNCTION_INFO_V1(pg_llm_backward_begin);
Datum
pg_llm_backward_begin(PG_FUNCTION_ARGS)
{
    uint32  index;
    TapeValue *v;

    if (PG_ARGISNULL(0))
    {
        (void) index_of(tape.base);
        index = tape.nodes[tape.n_nodes - 1].call.out.value;
    }
    else
        index = index_of(PG_GETARG_INT64(0));
    v = &tape.values[index];
    if (v->n != 1)
        ereport(ERROR,
                errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the gradient of a tensor of shape %s cannot be taken", tensor_shape_text(v->ndim, v->dims)),
                errhint("Reduce it to one number first: a loss, pg_llm_sum or pg_llm_mean."));
    if (!v->needs_grad || v->kind != VALUE_OUTPUT)
        ereport(ERROR,
                errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("tensor " INT64_FORMAT " does not depend on any parameter or tracked tensor",
                       tape.base + index));
    refuse_spent(v);
    if (v->grad == NULL)
        v->grad = tensor_buffer_alloc(1);
    v->grad->data[0] = PG_ARGISNULL(1) ? 1.0f : (float) PG_GETARG_FLOAT8(1);
    v->has_grad = true;
    PG_RETURN_VOID();
}

/* Where the gradient of a value goes, and whether something is there already. */
static OpGrad
gradient_of(TapeValue *v)
{
    OpGrad  g;

    if (v->kind == VALUE_PARAM)
    {
        g.data = arena_gradient(v->version, v->param, &g.acc);
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
    OpCall *c = &node->call;
    OpGrad  din[OP_MAX_INPUTS];
    llm_engine *e = pg_llm_engine();

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
            OpGrad  sum = gradient_of(&tape.values[c->in[i].value]);

            llm_copy(e, sum.data, din[i].data, true, tape.values[c->in[i].value].n);
        }
    pg_llm_check(e);
}

/* pg_llm_backward(id): one op of the tape, whose output's gradient is complete. */
PG_FUNCTION_INFO_V1(pg_llm_backward);
Datum
pg_llm_backward(PG_FUNCTION_ARGS)
{
    uint32  value = index_of(PG_GETARG_INT64(0));
    uint32  low = 0;
    uint32  high = tape.n_nodes;
    TapeNode *node;
    TapeValue *out;

    /* outputs are numbered in the order of ops */
    while (low < high)
    {
        uint32  middle = low + (high - low) / 2;

        if (tape.nodes[middle].call.out.value < value)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == tape.n_nodes || tape.nodes[low].call.out.value != value)
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
                errmsg("tensor " INT64_FORMAT " is not the output of an op on the tape", PG_GETARG_INT64(0)));
    node = &tape.nodes[low];
    out = &tape.values[value];
    /* what no gradient has reached may be part of another number that is differentiated next */
    if (node->done || !out->has_grad)
        PG_RETURN_VOID();
    differentiate(node, out->grad->data);
    out->spent = true;
    out->grad_norm = wants_rows() ? sqrt(llm_sum_squares(pg_llm_engine(), out->grad->data, out->n)) : NAN;
    if (pg_llm_record != RECORD_FULL || tape.quiet)
    {
        tensor_buffer_release(out->grad);
        out->grad = NULL;
    }
    release_node(node);
    PG_RETURN_VOID();
}

/* ---- the tape as rows ---- */

static Datum
int8_array(const OpCall *c)
{
    Datum   ids[OP_MAX_INPUTS];

    for (int i = 0; i < c->n_inputs; i++)
        ids[i] = Int64GetDatum(tape.base + c->in[i].value);
    return PointerGetDatum(construct_array(ids, c->n_inputs, INT8OID, sizeof(int64), true, TYPALIGN_DOUBLE));
}

static Datum
shape_array(int ndim, const int32 *dims)
{
    Datum   sizes[TENSOR_MAX_NDIM];

    for (int i = 0; i < ndim; i++)
        sizes[i] = Int32GetDatum(dims[i]);
    return PointerGetDatum(construct_array(sizes, ndim, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/* Constants of a call, as jsonb. */
static Datum
extra_json(const OpCall *c)
{
    StringInfoData s;
    int     n_int = 0;

    initStringInfo(&s);
    appendStringInfo(&s, "{\"shape\": %s", op_shape(&c->out));
    for (const char *kind = c->op->args; *kind != '\0'; kind++)
    {
        if (*kind == 'n')
            appendStringInfo(&s, ", \"int%d\": " INT64_FORMAT, n_int + 1, c->ints[n_int]), n_int++;
        else if (*kind == 'r')
            appendStringInfo(&s, ", \"real\": %.9g", c->reals[0]);
        else if (*kind == 'b')
            appendStringInfo(&s, ", \"training\": %s", c->flag ? "true" : "false");
        else if (*kind == 'i')
            appendStringInfo(&s, ", \"ids\": %zu", c->ids.n);
        else if (*kind == 's' && c->site[0] != '\0')
        {
            appendStringInfoString(&s, ", \"site\": ");
            escape_json(&s, c->site);
        }
    }
    appendStringInfoChar(&s, '}');
    return DirectFunctionCall1(jsonb_in, CStringGetDatum(s.data));
}

/* pg_llm_tape(detail) -> rows of llm_tape, newest first; extra only with detail. */
PG_FUNCTION_INFO_V1(pg_llm_tape);
Datum
pg_llm_tape(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
    bool    detail = PG_GETARG_BOOL(0);

    InitMaterializedSRF(fcinfo, 0);
    for (uint32 i = tape_is_mine() ? tape.n_nodes : 0; i-- > 0;)
    {
        const OpCall *c = &tape.nodes[i].call;
        Datum   values[6];
        bool    nulls[6] = {false};

        values[0] = values[4] = Int64GetDatum(tape.base + c->out.value);
        values[1] = Int32GetDatum(i + 1);
        values[2] = CStringGetTextDatum(c->op->name);
        values[3] = int8_array(c);
        nulls[5] = !detail;
        values[5] = detail ? extra_json(c) : (Datum) 0;
        tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
    }
    return (Datum) 0;
}

/* pg_llm_tape_tensors(payload) -> rows of llm_tensor_rt */
PG_FUNCTION_INFO_V1(pg_llm_tape_tensors);
Datum
pg_llm_tape_tensors(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
    bool    payload = PG_GETARG_BOOL(0);

    InitMaterializedSRF(fcinfo, 0);
    for (uint32 i = 0; i < tape.n_values && tape_is_mine(); i++)
    {
        TapeValue *v = &tape.values[i];
        bool    param = v->kind == VALUE_PARAM;
        TensorBuffer *grad = !v->has_grad ? NULL : param ? v->param->grad : v->grad;
        double  grad_norm = v->grad_norm;
        Datum   values[7];
        bool    nulls[7] = {false};

        if (grad != NULL && isnan(grad_norm))
            grad_norm = sqrt(llm_sum_squares(pg_llm_engine(), grad->data, v->n));
        values[0] = Int64GetDatum(tape.base + i);
        values[1] = shape_array(v->ndim, v->dims);
        values[2] = BoolGetDatum(v->needs_grad);
        nulls[3] = isnan(v->norm) && v->payload == NULL;
        values[3] = Float8GetDatum(v->norm);
        nulls[4] = !v->has_grad || isnan(grad_norm);
        values[4] = Float8GetDatum(grad_norm);
        nulls[5] = !payload || v->payload == NULL;
        nulls[6] = !payload || grad == NULL;
        values[5] = nulls[5] ? (Datum) 0 : tensor_datum(tensor_wrap(v->ndim, v->dims, v->payload, v->data));
        values[6] = nulls[6] ? (Datum) 0 : tensor_datum(tensor_wrap(v->ndim, v->dims, grad, grad->data));
        tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
        CHECK_FOR_INTERRUPTS();
    }
    return (Datum) 0;
}

/* pg_llm_tape_params() -> (model, name, id): the parameters of the pass */
PG_FUNCTION_INFO_V1(pg_llm_tape_params);
Datum
pg_llm_tape_params(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

    InitMaterializedSRF(fcinfo, 0);
    for (uint32 i = 0; i < tape.n_values && tape_is_mine(); i++)
    {
        TapeValue *v = &tape.values[i];
        Datum   values[3];
        bool    nulls[3] = {false};

        if (v->kind != VALUE_PARAM && v->name == NULL)
            continue;
        values[0] = CStringGetTextDatum(v->kind == VALUE_PARAM ? v->version->model : v->model);
        values[1] = CStringGetTextDatum(v->kind == VALUE_PARAM ? v->param->name : v->name);
        values[2] = Int64GetDatum(tape.base + i);
        tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
    }
    return (Datum) 0;
}

PG_FUNCTION_INFO_V1(pg_llm_tape_clear);
Datum
pg_llm_tape_clear(PG_FUNCTION_ARGS)
{
    tape_clear();
    PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(pg_llm_tape_set_base);
Datum
pg_llm_tape_set_base(PG_FUNCTION_ARGS)
{
    int64   base = PG_GETARG_INT64(0);

    if (base != 0 && base < TAPE_MAX_VALUES)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("ids of a pass cannot begin with " INT64_FORMAT, base),
                errhint("0, or a multiple of %u from that on.", TAPE_MAX_VALUES));
    tape.base = base;
    PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(pg_llm_tape_base);
Datum
pg_llm_tape_base(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT64(tape.base);
}

/* pg_llm_tape_quiet(boolean): a pass whose rows nobody will see needs no norms. */
PG_FUNCTION_INFO_V1(pg_llm_tape_quiet);
Datum
pg_llm_tape_quiet(PG_FUNCTION_ARGS)
{
    tape.quiet = PG_GETARG_BOOL(0);
    PG_RETURN_VOID();
}

/* ---- leaves made by hand, and their gradients ---- */

static Tensor *
tracked_copy(Tensor *t, uint32 *value)
{
    Tensor *leaf = tensor_wrap(t->ndim, t->dims, t->buffer, t->data);

    *value = new_value(VALUE_TRACKED, t->ndim, t->dims, t->n, true);
    describe_value(&tape.values[*value], t->buffer, t->data);
    stamp(leaf, *value);
    return leaf;
}

/* pg_llm_autograd_track_tensor(tensor): the same value, as a leaf that wants a gradient. */
PG_FUNCTION_INFO_V1(pg_llm_autograd_track_tensor);
Datum
pg_llm_autograd_track_tensor(PG_FUNCTION_ARGS)
{
    Tensor *t = PG_GETARG_TENSOR(0);
    uint32  value;

    /* the argument as it came: a read-write pointer would make the caller's value another's property */
    if (!session_recording())
        PG_RETURN_DATUM(PG_GETARG_DATUM(0));
    PG_RETURN_TENSOR(tracked_copy(t, &value));
}

/* pg_llm_autograd_map_param(model, name, token_id, tensor, shape): a leaf known as that parameter. */
PG_FUNCTION_INFO_V1(pg_llm_autograd_map_param);
Datum
pg_llm_autograd_map_param(PG_FUNCTION_ARGS)
{
    Tensor *t = PG_GETARG_TENSOR(3);
    IntArray shape = tensor_int_array(PG_GETARG_DATUM(4), "shape");
    uint32  value;

    if (shape.n > TENSOR_MAX_NDIM || tensor_count((int) shape.n, shape.values) != t->n)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a tensor of shape %s cannot take shape %s", tensor_shape_text(t->ndim, t->dims),
                       tensor_shape_text((int) Min(shape.n, TENSOR_MAX_NDIM), shape.values)));
    t = tensor_wrap((int) shape.n, shape.values, t->buffer, t->data);
    if (!session_recording())
        PG_RETURN_TENSOR(t);
    t = tracked_copy(t, &value);
    tape.values[value].model = MemoryContextStrdup(tape.context, text_to_cstring(PG_GETARG_TEXT_PP(0)));
    tape.values[value].name = MemoryContextStrdup(tape.context, text_to_cstring(PG_GETARG_TEXT_PP(1)));
    PG_RETURN_TENSOR(t);
}

PG_FUNCTION_INFO_V1(pg_llm_tensor_id);
Datum
pg_llm_tensor_id(PG_FUNCTION_ARGS)
{
    uint32  value = tape_value_of(PG_GETARG_TENSOR(0));

    if (value == NO_VALUE)
        PG_RETURN_NULL();
    PG_RETURN_INT64(tape.base + value);
}

static Datum
gradient_datum(FunctionCallInfo fcinfo, uint32 value)
{
    TapeValue *v = &tape.values[value];
    TensorBuffer *grad = v->kind == VALUE_PARAM ? v->param->grad : v->grad;
    Tensor *t;

    if (!v->has_grad || grad == NULL)
        PG_RETURN_NULL();
    t = tensor_new(v->ndim, v->dims);
    memcpy(t->data, grad->data, v->n * sizeof(float));
    PG_RETURN_TENSOR(t);
}

PG_FUNCTION_INFO_V1(pg_llm_grad);
Datum
pg_llm_grad(PG_FUNCTION_ARGS)
{
    uint32  value = tape_value_of(PG_GETARG_TENSOR(0));

    if (value == NO_VALUE)
        PG_RETURN_NULL();
    return gradient_datum(fcinfo, value);
}

PG_FUNCTION_INFO_V1(pg_llm_grad_by_id);
Datum
pg_llm_grad_by_id(PG_FUNCTION_ARGS)
{
    return gradient_datum(fcinfo, index_of(PG_GETARG_INT64(0)));
}
