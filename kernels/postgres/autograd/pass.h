/*
 * pass.h -- the running pass: what keys its dropout, and whether its ops are recorded (pass.c).
 */
#ifndef PG_LLM_PASS_H
#define PG_LLM_PASS_H

#include "postgres.h"

typedef struct PassState
{
    bool   keyed; /* pass_begin was called in this transaction */
    uint64 seed;
    uint64 step;
    uint64 micro_batch;
    int    sites; /* unnamed dropout sites so far */
} PassState;

extern const PassState *pass_current(void);
extern int              pass_next_site(void);
extern bool             pass_recording(void);                /* autograd is on and no key/value cache is in use */
extern void             pass_restore(const PassState *mark); /* a rollback: as it stood; NULL: no pass */

#endif
