/*
 * batch.h -- what a session keeps of its batches (batch.c).
 */
#ifndef PG_LLM_BATCH_H
#define PG_LLM_BATCH_H

#include "postgres.h"

extern size_t batch_release(void);  /* forgets the permutations; the bytes that gives back. Never throws. */
extern void   batch_end_xact(void); /* forgets large ones */

#endif
