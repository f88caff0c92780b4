/*
 * pool.h -- the thread pool: one per process, shared by its engines, one job at a time.
 *
 * Workers start on first use with every signal blocked and sleep on a condition variable. They touch only
 * what the task function touches. Task functions must not call should_stop, set the engine's status or
 * start a job of another engine; a job started inside a task runs inline. Long ones ask llm_task_stopped().
 * Results must not depend on which thread runs a task, nor on how many there are: what belongs to one sum is split by
 * constants.
 */
#ifndef LLM_POOL_H
#define LLM_POOL_H

#include "isa.h"

typedef void (*llm_task)(void *arg, size_t task);
typedef void (*llm_range_task)(void *arg, size_t begin, size_t end);

/*
 * Run fn(arg, 0 .. tasks-1), taken in order from a counter by the caller and up to e->threads - 1 workers.
 * With one thread or one task it runs in the caller. should_stop is polled between the caller's tasks; once
 * it says so no further task starts, the pool runs empty, and the status becomes LLM_STOPPED.
 * false: the engine had failed before, or was stopped now.
 */
bool llm_parallel(llm_engine *e, size_t tasks, llm_task fn, void *arg);

/*
 * Run fn over 0 .. n in ranges of `grain` (the last may be shorter); n <= grain runs inline. Range starts
 * are multiples of grain whatever the thread count. Choose a grain worth a hand-off: some 20 us of work.
 */
bool llm_parallel_for(llm_engine *e, size_t n, size_t grain, llm_range_task fn, void *arg);

/*
 * For a task that takes long: whether it should return early, its output then being undefined. The caller's
 * thread polls should_stop here too.
 */
bool llm_task_stopped(llm_engine *e);

/* The calling thread's scratch inside a task of `e`, as llm_scratch() sized it. */
float *llm_thread_scratch(const llm_engine *e);

/*
 * Floating-point environment of kernels: round to nearest, denormals kept, exceptions masked. llm_parallel
 * sets it around a job; an op that computes outside of one calls the pair itself.
 */
typedef uint64_t llm_fpenv;
llm_fpenv llm_fp_enter(void);
void llm_fp_leave(llm_fpenv saved);

#endif /* LLM_POOL_H */
