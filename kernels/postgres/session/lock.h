/*
 * lock.h -- locks that a statement holds through its commits (lock.c).
 */
#ifndef PG_LLM_LOCK_H
#define PG_LLM_LOCK_H

#include "postgres.h"

#include "utils/portal.h"

extern void locks_end_xact(bool commit);      /* never throws */
extern void locks_portal_gone(Portal portal); /* never throws */

#endif
