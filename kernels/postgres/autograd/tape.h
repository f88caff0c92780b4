/*
 * tape.h -- the record of a pass, in the session's memory: values, ops, gradients (tape.c).
 */
#ifndef PG_LLM_TAPE_H
#define PG_LLM_TAPE_H

#include "op.h"

/* Where the tape stood as a subtransaction began. */
typedef struct TapeMark
{
    uint64 nonce; /* 0: there was none */
    uint32 n_values, n_nodes;
    uint64 backwards;
    bool   quiet;
} TapeMark;

extern void   tape_record(OpCall *call);      /* stamps call->result with its number */
extern uint32 tape_value_of(const Tensor *t); /* NO_VALUE when t belongs to no pass or another one */
extern uint32
tape_input_value(const Tensor *t);             /* the same for an op's input: 55000 for a value that a rollback took */
extern bool     tape_wants_grad(uint32 value); /* of an input: a backward will ask for its gradient */
extern void     tape_clear(void);
extern TapeMark tape_mark(void);
/* A rollback: back to the mark; NULL: nothing stays. */
extern void tape_end_xact(void);
extern void tape_abort(const TapeMark *mark);
extern bool tape_open(void); /* whether the present role may record */

#endif
