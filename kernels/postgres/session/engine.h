/*
 * engine.h -- the numerical engine inside a backend: settings, interrupts, errors (engine.c).
 */
#ifndef PG_LLM_ENGINE_H
#define PG_LLM_ENGINE_H

#include "postgres.h"

#include "core/llm_core.h"

/* The session's engine with the settings pg_llm.threads, max_threads, isa and attention_chunk applied. */
extern llm_engine *pg_llm_engine(void);
/* Gives the engine's scratch memory back to the system. */
extern void pg_llm_engine_trim(void);
/* Whether a cancel or shutdown waits: for core functions that poll. After a stop, CHECK_FOR_INTERRUPTS throws. */
extern bool pg_llm_should_stop(void *arg);
/*
 * After each kernel, and before anything looks at what it made: turns a stop into the pending cancel's error, a failed
 * allocation into 53200. A kernel that failed leaves its output as it was, and those after it do nothing until then.
 */
extern void pg_llm_check(llm_engine *e);
/* A transaction or subtransaction was rolled back: what failed in it is forgotten. */
extern void pg_llm_engine_abort(void);
/* The L2 norm of n numbers, and whether all of them are finite; both checked as above. */
extern double pg_llm_l2_norm(const float *x, size_t n);
extern bool   pg_llm_all_finite(llm_engine *e, const float *x, size_t n);

#endif
