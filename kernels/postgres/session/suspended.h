/*
 * suspended.h -- whether a function of a user's op runs, which is called in the middle of a pass (suspended.c).
 */
#ifndef PG_LLM_SUSPENDED_H
#define PG_LLM_SUSPENDED_H

#include "postgres.h"

extern void suspend(bool on); /* such a function begins or ends: nothing is recorded meanwhile */
extern bool suspended(void);
extern void require_not_suspended(void); /* 55000 meanwhile, for what would change the pass */

#endif
