/*
 * sample.h -- what a session keeps of its batches (sample.c).
 */
#ifndef PG_LLM_SAMPLE_H
#define PG_LLM_SAMPLE_H

#include "postgres.h"

extern size_t sample_release(void);  /* forgets the permutations; the bytes that gives back. Never throws. */
extern void   sample_end_xact(void); /* forgets large ones */

#endif
