/*
 * tape.c -- recording a pass: values, ops, leaves. tape_backward.c takes it back, tape_rows.c shows it as rows.
 *
 * The tape holds references to what the backwards read and nothing else; a buffer is let go as soon as its op
 * has been differentiated. Which values belong to it is written in the values themselves: the pass's random
 * number and an index (tensor.h). A value with another number is a leaf.
 *
 * States, and what may be called in each (anything else is 55000 with a hint):
 *
 *   empty    -- an op or a leaf while recording --> recorded; clear, flush, quiet, base --> empty
 *   recorded -- ops, leaves --> recorded; backward_begin(number) --> started; clear --> empty
 *   started  -- backward(op), newest first --> started; backward_begin of a part not differentiated yet --> started;
 *               grad, tape, tape_tensors; ops of a further part --> started; clear --> empty
 *   broken   -- tape, tape_tensors, grad; clear --> empty. An error in the middle of the backward pass, caught or in
 *               a savepoint, leaves some gradients half summed, so that it cannot be gone on with.
 *
 * A subtransaction that is undone takes the ops with it that were recorded in it. A variable may hold such an op's
 * result all the same; using it while recording is an error, for no gradient could flow through it. Likewise a tape
 * that was cleared in the middle of a pass is remembered: who goes on with its values would leave parameters untrained.
 * The tape belongs to the role that recorded it.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "tensor/buffer.h"
#include "tape_internal.h"

Tape tape;

/* ---- life ---- */

void
tape_release_node(TapeNode *node)
{
    OpCall *c = &node->call;

    for (int i = 0; i < c->n_inputs; i++)
        tape_let_go(&c->in[i]);
    for (int i = 0; i < OP_MAX_SAVED; i++)
        tape_let_go(&c->saved[i]);
    tape_let_go(&c->out);
    tensor_buffer_release(node->output);
    node->output = NULL;
    node->let_go = false;
    node->done = true;
}

static void
release_value(TapeValue *v)
{
    tape_release_source((uint32) (v - tape.values));
    tensor_buffer_release(v->grad);
    tensor_buffer_release(v->payload);
    if (v->version != NULL)
        params_release(v->version);
    v->grad = v->payload = NULL;
    v->data = NULL;
    v->version = NULL;
    v->param = NULL;
}

/* Passes that were cleared before they were differentiated, the newest first. */
#define ABANDONED 4
static uint64 abandoned[ABANDONED];

static void
abandon(uint64 nonce)
{
    memmove(abandoned + 1, abandoned, sizeof(uint64) * (ABANDONED - 1));
    abandoned[0] = nonce;
}

static bool
is_abandoned(uint64 nonce)
{
    for (int i = 0; i < ABANDONED; i++)
        if (nonce != 0 && abandoned[i] == nonce)
            return true;
    return false;
}

static void
clear(void)
{
    for (uint32 i = 0; i < tape.n_nodes; i++)
        if (!tape.nodes[i].done || tape.nodes[i].output != NULL)
            tape_release_node(&tape.nodes[i]);
    for (uint32 i = 0; i < tape.n_values; i++)
        release_value(&tape.values[i]);
    if (tape.context != NULL)
        MemoryContextReset(tape.context);
    tape.nonce = 0;
    tape.values = NULL;
    tape.nodes = NULL;
    tape.segments = NULL;
    tape.n_values = tape.room_values = tape.n_nodes = tape.room_nodes = 0;
    tape.n_segments = tape.room_segments = tape.n_let_go = 0;
    tape.budget = tape.held = 0;
    tape.base = 0;
    tape.broken = NULL;
    tape.began = false;
}

void
tape_clear(void)
{
    /* in the middle of a pass that has a key, which a training step's has */
    if (tape.n_nodes > 0 && !tape.began && pass_current()->keyed)
        abandon(tape.nonce);
    clear();
}

TapeMark
tape_mark(void)
{
    TapeMark mark = {tape.nonce, tape.n_values, tape.n_nodes, tape.backwards, tape.quiet};

    return mark;
}

/* Ops recorded since the mark go; leaves stay, as what they are does not depend on an op. */
static void
truncate_to(const TapeMark *mark)
{
    while (tape.n_nodes > mark->n_nodes)
    {
        TapeNode *node = &tape.nodes[--tape.n_nodes];

        if (!node->done || node->output != NULL)
            tape_release_node(node);
    }
    tape_truncate_segments();
    for (uint32 i = mark->n_values; i < tape.n_values; i++)
    {
        TapeValue *v = &tape.values[i];

        if (v->kind != VALUE_OUTPUT && v->kind != VALUE_CONSTANT)
            continue;
        release_value(v);
        v->kind = VALUE_LOST;
        v->needs_grad = v->has_grad = false;
    }
}

void
tape_abort(const TapeMark *mark)
{
    if (mark == NULL)
    {
        clear();
        memset(abandoned, 0, sizeof(abandoned));
        tape.quiet = false;
        return;
    }
    if (tape.nonce == mark->nonce && tape.nonce != 0)
    {
        truncate_to(mark);
        if (tape.backwards != mark->backwards)
            tape.broken = "An error was caught, or a savepoint rolled back, in the middle of the backward pass.";
    }
    else
    {
        if (mark->nonce != 0 && !is_abandoned(mark->nonce))
            abandon(mark->nonce);
        clear();
    }
    tape.quiet = mark->quiet;
}

void
tape_end_xact(void)
{
    memset(abandoned, 0, sizeof(abandoned));
}

void
tape_require_whole(void)
{
    if (tape.broken != NULL)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("the recorded pass cannot be differentiated"), errdetail_internal("%s", tape.broken),
                errhint("Compute the loss again."));
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
    uint64 nonce = 0;

    if (tape.nonce != 0)
        return;
    if (tape.context == NULL)
        tape.context = AllocSetContextCreate(TopMemoryContext, "pg_llm tape", ALLOCSET_DEFAULT_SIZES);
    while (nonce == 0)
        if (!pg_strong_random(&nonce, sizeof(nonce)))
            ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not draw a random number"));
    tape.user = GetUserId();
    tape.nonce = nonce;
    tape.budget = (size_t) pg_llm_recompute_budget_kb * 1024;
}

/* Room for one more element of `size` bytes. */
static void *
grow(void *array, uint32 used, uint32 *room, size_t size)
{
    uint32 larger = *room == 0 ? 256 : *room * 2;
    void  *grown;

    if (used < *room)
        return array;
    if (!tensor_buffer_room(larger * size))
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for the tape"),
                errhint("Call llm_prune_autograd_state between passes."));
    grown = array == NULL ? MemoryContextAllocHuge(tape.context, larger * size) : repalloc_huge(array, larger * size);
    *room = larger;
    return grown;
}

void
tape_begin_segment(void)
{
    tape.segments = grow(tape.segments, tape.n_segments, &tape.room_segments, sizeof(uint32));
    tape.segments[tape.n_segments++] = tape.n_nodes;
}

static uint32
new_value(ValueKind kind, int ndim, const int32 *dims, size_t n, bool needs_grad)
{
    TapeValue *v;

    begin_if_empty();
    if (tape.n_values == TAPE_MAX_VALUES)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("the tape is full: it holds %u values", TAPE_MAX_VALUES),
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
    v->norm = pg_llm_l2_norm(data, v->n);
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

uint32
tape_input_value(const Tensor *t)
{
    uint32 value = tape_value_of(t);

    if (value != NO_VALUE && tape.values[value].kind == VALUE_LOST && pass_recording())
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("a tensor of shape %s is no longer on the tape", tensor_shape_text(t->ndim, t->dims)),
                errdetail("It was computed where an error was caught, or a savepoint rolled back; no gradient can flow "
                          "through it."),
                errhint("Compute it again after the error."));
    /* which is a leaf; only where the pass itself went on with it, something must have cleared the tape on the way */
    if (value == NO_VALUE && is_abandoned(t->nonce) && pass_recording())
        tape.broken = "The tape was cleared in the middle of the pass, and what had been computed was used after that.";
    return value;
}

bool
tape_wants_grad(uint32 value)
{
    return value != NO_VALUE && tape.values[value].needs_grad;
}

static void
stamp(Tensor *t, uint32 value)
{
    t->nonce = tape.nonce;
    t->index = value;
}

void
tape_param_leaf(Tensor *t, ModelVersion *version, ModelParam *param, bool trained)
{
    uint32 i;

    /* parameters come first in a pass and again in later layers: a short search from the start */
    for (i = 0; i < tape.n_values; i++)
        if (tape.values[i].param == param && tape.values[i].needs_grad == trained)
            break;
    if (i == tape.n_values)
    {
        i = new_value(VALUE_PARAM, t->ndim, t->dims, t->n, trained);
        tape.values[i].version = params_retain(version);
        tape.values[i].param = param;
        describe_value(&tape.values[i], t->buffer, t->data);
    }
    stamp(t, i);
}

Tensor *
tape_tracked_leaf(Tensor *t, uint32 *value)
{
    Tensor *leaf = tensor_wrap(t->ndim, t->dims, t->buffer, t->data);

    *value = new_value(VALUE_TRACKED, t->ndim, t->dims, t->n, true);
    describe_value(&tape.values[*value], t->buffer, t->data);
    stamp(leaf, *value);
    return leaf;
}

/* ---- recording ---- */

static void
keep(OpValue *v, bool wanted)
{
    if (wanted && v->buffer != NULL)
    {
        tensor_buffer_retain(v->buffer);
        tape_count(v);
    }
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
    bool needs_grad = false;

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
    OpCall   *c;
    bool      needs_grad;
    int32    *ids = NULL;
    Jsonb    *settings = NULL;

    begin_if_empty();
    if (tape.n_segments == 0)
        tape_begin_segment();
    needs_grad = number_inputs(call);
    call->out.value = new_value(VALUE_OUTPUT, call->out.ndim, call->out.dims, call->out.n, needs_grad);
    describe_value(&tape.values[call->out.value], call->out.buffer, call->out.data);
    if (needs_grad && call->ids.n > 0)
    {
        if (!tensor_buffer_room(call->ids.n * sizeof(int32)))
            ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for the tape"));
        ids = MemoryContextAllocHuge(tape.context, call->ids.n * sizeof(int32));
        memcpy(ids, call->ids.values, call->ids.n * sizeof(int32));
    }
    if (call->settings != NULL)
    {
        if (!tensor_buffer_room(VARSIZE(call->settings)))
            ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for the tape"));
        settings = MemoryContextAlloc(tape.context, VARSIZE(call->settings));
        memcpy(settings, call->settings, VARSIZE(call->settings));
    }
    tape.nodes = grow(tape.nodes, tape.n_nodes, &tape.room_nodes, sizeof(TapeNode));
    if (tape.budget > 0 && needs_grad)
        tape_hold_sources(call);
    tape.values[call->out.value].node = tape.n_nodes;
    node = &tape.nodes[tape.n_nodes];
    memset(node, 0, sizeof(TapeNode));
    node->call = *call;
    node->done = !needs_grad;
    c = &node->call;
    c->result = NULL;
    c->ids.values = ids;
    c->settings = settings;
    for (int i = 0; i < c->n_inputs; i++)
        keep(&c->in[i], needs_grad && (c->op->keeps & KEEPS_IN(i)));
    keep(&c->out, needs_grad && (c->op->keeps & KEEPS_OUT));
    for (int i = 0; i < OP_MAX_SAVED; i++)
        keep(&c->saved[i], needs_grad);
    tape.n_nodes++;
    stamp(call->result, c->out.value);
    if (tape.budget > 0)
        tape_keep_within_budget();
}
