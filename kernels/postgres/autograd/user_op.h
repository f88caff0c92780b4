/*
 * user_op.h -- ops that are SQL functions of a user's (user_op.c).
 */
#ifndef PG_LLM_USER_OP_H
#define PG_LLM_USER_OP_H

#include "op.h"

extern const char *op_label(const OpCall *call); /* the op's name on the tape: a user's forward function's */

#endif
