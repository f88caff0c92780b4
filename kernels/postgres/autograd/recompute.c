/*
 * recompute.c -- what the tape lets go of while it is recorded, and computes again when the backward pass comes to it.
 *
 * A pass marks where its segments begin (pg_llm_tape_segment), each block of a model one. With pg_llm.recompute_budget,
 * the tape also holds what each segment begins with: its constants, and values of earlier segments, which is a block's
 * residual stream. Once the numbers that backwards will read take more than the budget, those of the oldest finished
 * segments are let go. Before the first op of such a segment is differentiated, those of its ops that something needed
 * comes from run again, in their order and on the same numbers, so nothing but time tells the difference: dropout's
 * masks are kept, or drawn again by the key that the first run had.
 *
 * The oldest go first, for they are needed last, when all others have been taken back. All that is computed again hangs
 * on the tape, so clearing it, after an error too, frees it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "tensor/buffer.h"
#include "tape_internal.h"

/* ---- how much the tape holds ---- */

/* Counts the numbers of a value once, however many ops hold them; a parameter's are not the tape's. */
void
tape_count(const OpValue *v)
{
    if (v->value == NO_VALUE)
        tape.held += v->n * sizeof(float);
    else if (tape.values[v->value].kind != VALUE_PARAM && tape.values[v->value].holders++ == 0)
        tape.held += v->n * sizeof(float);
}

static void
uncount(const OpValue *v)
{
    if (v->value == NO_VALUE)
        tape.held -= v->n * sizeof(float);
    else if (tape.values[v->value].kind != VALUE_PARAM && --tape.values[v->value].holders == 0)
        tape.held -= v->n * sizeof(float);
}

void
tape_let_go(OpValue *v)
{
    if (v->buffer == NULL)
        return;
    uncount(v);
    tensor_buffer_release(v->buffer);
    v->buffer = NULL;
    v->data = NULL;
}

void
tape_release_source(uint32 value)
{
    TapeValue *v = &tape.values[value];
    OpValue    source = {.n = v->n, .buffer = v->source, .value = value};

    v->source = NULL;
    v->source_data = NULL;
    tape_let_go(&source);
}

/* ---- recording ---- */

/* Holds what this op's segment does not compute itself, that the op may run again. */
void
tape_hold_sources(const OpCall *call)
{
    for (int i = 0; i < call->n_inputs; i++)
    {
        TapeValue *v = &tape.values[call->in[i].value];

        if (v->kind == VALUE_PARAM || v->source != NULL)
            continue;
        if (v->kind == VALUE_OUTPUT && v->needs_grad && v->node >= tape.segments[tape.n_segments - 1])
            continue;
        tape_count(&call->in[i]);
        v->source = tensor_buffer_retain(call->in[i].buffer);
        v->source_data = call->in[i].data;
    }
}

/* Where the segment ends that begins at number `segment` of the tape's. */
static uint32
segment_end(uint32 segment)
{
    return segment + 1 < tape.n_segments ? tape.segments[segment + 1] : tape.n_nodes;
}

void
tape_keep_within_budget(void)
{
    for (; tape.held > tape.budget && tape.n_let_go + 1 < tape.n_segments; tape.n_let_go++)
        for (uint32 i = tape.segments[tape.n_let_go]; i < segment_end(tape.n_let_go); i++)
        {
            TapeNode *node = &tape.nodes[i];
            OpCall   *c = &node->call;

            if (node->done || c->op->keeps == 0) /* which may have a mask, far smaller than what drew it */
                continue;
            for (int j = 0; j < c->n_inputs; j++)
                tape_let_go(&c->in[j]);
            tape_let_go(&c->out);
            for (int j = 0; j < OP_MAX_SAVED; j++)
                tape_let_go(&c->saved[j]);
            node->let_go = true;
        }
}

/* After a rollback: the segments of the ops that are left, the last of which goes on. */
void
tape_truncate_segments(void)
{
    while (tape.n_segments > 1 && tape.segments[tape.n_segments - 1] >= tape.n_nodes)
        tape.n_segments--;
    tape.n_let_go = Min(tape.n_let_go, tape.n_segments);
}

/* pg_llm_tape_segment(): what follows can be computed again without what is recorded so far, but for what it takes of it */
PG_FUNCTION_INFO_V1(pg_llm_tape_segment);
Datum
pg_llm_tape_segment(PG_FUNCTION_ARGS)
{
    if (tape.budget > 0 && tape_is_mine() && pass_recording() && tape.n_segments > 0 &&
        tape.segments[tape.n_segments - 1] < tape.n_nodes)
        tape_begin_segment();
    PG_RETURN_VOID();
}

/* pg_llm_tape_held() -> bytes that the recorded pass holds for its backward pass, parameters apart */
PG_FUNCTION_INFO_V1(pg_llm_tape_held);
Datum
pg_llm_tape_held(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT64(tape_is_mine() ? (int64) tape.held : 0);
}

/* ---- computing again ---- */

static bool
saves(const OpCall *c)
{
    for (int i = 0; i < OP_MAX_SAVED; i++)
        if (c->saved[i].n > 0)
            return true;
    return false;
}

/* The op of this segment that computes a value; NULL: it is given from outside. */
static TapeNode *
computed_by(uint32 value, uint32 begin)
{
    const TapeValue *v = &tape.values[value];

    return v->kind == VALUE_OUTPUT && v->needs_grad && v->node >= begin ? &tape.nodes[v->node] : NULL;
}

/*
 * Which ops of the segment run again: those whose output the backward of one that let go reads, or which saved what it
 * reads, and those that they need.
 */
static void
choose_ops(uint32 begin, uint32 end)
{
    for (uint32 i = begin; i < end; i++)
    {
        tape.nodes[i].runs = false;
        tape.nodes[i].last_reader = i;
    }
    for (uint32 i = end; i-- > begin;)
    {
        TapeNode     *node = &tape.nodes[i];
        const OpCall *c = &node->call;

        if (node->let_go && ((c->op->keeps & KEEPS_OUT) || saves(c)))
            node->runs = true;
        for (int j = 0; j < c->n_inputs; j++)
        {
            TapeNode *from = computed_by(c->in[j].value, begin);

            if (from != NULL && (node->runs || (node->let_go && (c->op->keeps & KEEPS_IN(j)))))
            {
                if (!from->runs) /* the last reader is met first */
                    from->last_reader = i;
                from->runs = true;
            }
        }
    }
}

/* The numbers of an input, as they were. */
static void
give_input(OpValue *in, uint32 begin)
{
    const TapeValue *v = &tape.values[in->value];
    const TapeNode  *from = computed_by(in->value, begin);

    if (from != NULL)
    {
        in->buffer = from->output;
        in->data = from->output_data;
    }
    else if (v->kind == VALUE_PARAM)
    {
        in->buffer = v->param->data;
        in->data = v->param->data == NULL ? NULL : v->param->data->data;
    }
    else
    {
        in->buffer = v->source;
        in->data = v->source_data;
    }
    if (in->buffer == NULL)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("a part of the tape cannot be computed again"),
                errdetail("What it begins with has been differentiated already."), errhint("Compute the loss again."));
}

/* What becomes of an input, or a result, of an op that let it go: its backward reads it now. */
static void
keep_again(OpValue *v, const OpValue *computed)
{
    uint32 value = v->value;

    *v = *computed;
    v->value = value;
    tensor_buffer_retain(v->buffer);
    tape_count(v);
}

static void
run_again(TapeNode *node, uint32 begin)
{
    OpCall  call = node->call;
    OpCall *c = &node->call;

    for (int j = 0; j < call.n_inputs; j++)
        if (node->runs || (c->op->keeps & KEEPS_IN(j)))
            give_input(&call.in[j], begin);
    if (node->runs)
    {
        for (int j = 0; j < OP_MAX_SAVED; j++)
            call.saved[j] = (OpValue){.value = NO_VALUE};
        call.again = call.pure = true;
        call.op->forward(&call);
        pg_llm_check(pg_llm_engine());
        node->output = tensor_buffer_retain(call.out.buffer);
        node->output_data = call.out.data;
    }
    if (!node->let_go)
        return;
    for (int j = 0; j < c->n_inputs; j++)
        if (c->op->keeps & KEEPS_IN(j))
            keep_again(&c->in[j], &call.in[j]);
    if (c->op->keeps & KEEPS_OUT)
        keep_again(&c->out, &call.out);
    for (int j = 0; j < OP_MAX_SAVED && node->runs; j++)
        if (call.saved[j].buffer != NULL)
            keep_again(&c->saved[j], &call.saved[j]);
    c->count = call.count;
    c->dout = call.dout;
    node->let_go = false;
}

static void
release_output(TapeNode *node)
{
    tensor_buffer_release(node->output);
    node->output = NULL;
    node->output_data = NULL;
}

/* The segment that op number `at` is in. */
static uint32
segment_of(uint32 at)
{
    uint32 low = 0;
    uint32 high = tape.n_segments;

    while (high - low > 1)
    {
        uint32 middle = low + (high - low) / 2;

        if (tape.segments[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void
tape_compute_again(uint32 at)
{
    uint32        segment = segment_of(at);
    uint32        begin = tape.segments[segment];
    uint32        end = segment_end(segment);
    MemoryContext own = AllocSetContextCreate(CurrentMemoryContext, "pg_llm segment", ALLOCSET_SMALL_SIZES);
    MemoryContext callers = MemoryContextSwitchTo(own);

    choose_ops(begin, end);
    for (uint32 i = begin; i < end; i++)
    {
        TapeNode *node = &tape.nodes[i];

        CHECK_FOR_INTERRUPTS();
        if (!node->runs && !node->let_go)
            continue;
        run_again(node, begin);
        MemoryContextReset(own);
        if (node->last_reader == i)
            release_output(node);
        for (int j = 0; j < node->call.n_inputs; j++)
        {
            TapeNode *from = computed_by(node->call.in[j].value, begin);

            if (from != NULL && from->output != NULL && from->last_reader == i)
                release_output(from);
        }
    }
    for (uint32 i = begin; i < end; i++)
        release_output(&tape.nodes[i]);
    MemoryContextSwitchTo(callers);
    MemoryContextDelete(own);
}
