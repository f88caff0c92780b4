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
/* After each kernel: turns a stop into the pending cancel's error, a failed allocation into 53200. */
extern void pg_llm_check(llm_engine *e);
/* Whether all n numbers are finite, checked as above. */
extern bool pg_llm_all_finite(llm_engine *e, const float *x, size_t n);

#endif
