/*
 * tape.h -- the record of a pass, in the session's memory: values, ops, gradients (tape.c).
 */
#ifndef PG_LLM_TAPE_H
#define PG_LLM_TAPE_H

#include "op.h"

struct ArenaParam;
struct ArenaVersion;

extern void   tape_record(OpCall *call);            /* stamps call->result with its number */
extern uint32 tape_value_of(const Tensor *t);       /* NO_VALUE when t belongs to no pass or another one */
/* The leaf of a parameter in this pass; stamps t. */
extern void   tape_param_leaf(Tensor *t, struct ArenaVersion *version, struct ArenaParam *param);
extern void   tape_clear(void);
extern void   tape_abort(void);                     /* what a rollback leaves: nothing */
extern bool   tape_open(void);                      /* whether the present role may record */

#endif
