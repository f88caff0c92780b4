/* measure.c -- what the machine can do, in the engine's own terms: the ceilings a benchmark compares with. */
#include "engine/pool.h"

#define FMA_ROUNDS 200000 /* of one task: some milliseconds */

typedef struct fma_job {
    const llm_gemm_kernels *kernels;
    float x;
} fma_job;

static void fma_task(void *arg, size_t task)
{
    const fma_job *j = arg;
    volatile float sink = j->kernels->fma_rounds(FMA_ROUNDS, j->x);

    (void)sink;
    (void)task;
}

double llm_fma_burst(llm_engine *e, size_t tasks)
{
    fma_job j = { &e->kernels->gemm, 1.0f };

    llm_parallel(e, tasks, fma_task, &j);
    return 2.0 * FMA_ROUNDS * 16.0 * (double)j.kernels->fma_chains * (double)tasks;
}
