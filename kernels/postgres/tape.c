/*
 * tape.c -- recording a pass: values, ops, leaves. tape_backward.c takes it back, tape_rows.c shows it as rows.
 *
 * The tape holds references to what the backwards read and nothing else; a buffer is let go as soon as its op
 * has been differentiated. Which values belong to it is written in the values themselves: the pass's random
 * number and an index (tensor.h). A value with another number is a leaf.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "tape_internal.h"

Tape tape;

/* ---- life ---- */

void
tape_release_node(TapeNode *node)
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
            tape_release_node(&tape.nodes[i]);
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

bool
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

bool
tape_wants_rows(void)
{
    return !tape.quiet && pg_llm_record != RECORD_OFF;
}

/* What a row of llm_tensor_rt will say of this value. */
static void
describe_value(TapeValue *v, TensorBuffer *buffer, float *data)
{
    if (!tape_wants_rows())
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

/* ---- leaves made by hand ---- */

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
