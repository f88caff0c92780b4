/* embedding.c -- rows of a table by id, and the gradient added back to them. */
#include "engine/numerics.h"
#include "engine/pool.h"

#include <string.h>

#define GATHER_GRAIN 32768 /* elements of whole rows in one hand-off */
#define COLUMN_GRAIN 4     /* vectors of columns one thread adds: 256 bytes of each row */

typedef struct embedding_job {
    const llm_math_kernels *math;
    float *out;
    const float *x;
    const int32_t *ids;
    size_t n, d;
} embedding_job;

static void gather_range(void *arg, size_t begin, size_t end)
{
    const embedding_job *j = arg;

    for (size_t i = begin; i < end; i++)
        memcpy(j->out + i * j->d, j->x + (size_t)j->ids[i] * j->d, j->d * sizeof *j->out);
}

void llm_embedding_forward(llm_engine *e, float *out, const float *w, const int32_t *ids, size_t n, size_t d)
{
    embedding_job job = { &e->kernels->math, out, w, ids, n, d };

    llm_parallel_for(e, n, d < GATHER_GRAIN ? GATHER_GRAIN / (d + 1) + 1 : 1, gather_range, &job);
}

/* Columns are split, so every element of dw has one thread, which meets its ids in order. */
static void scatter_range(void *arg, size_t begin, size_t end)
{
    const embedding_job *j = arg;
    size_t first = begin * LLM_LANES;
    size_t count = (end * LLM_LANES < j->d ? end * LLM_LANES : j->d) - first;

    for (size_t i = 0; i < j->n; i++) {
        float *row = j->out + (size_t)j->ids[i] * j->d + first;

        j->math->add(row, row, j->x + i * j->d + first, count);
    }
}

void llm_embedding_backward(llm_engine *e, float *dw, const float *dout, const int32_t *ids, size_t n, size_t rows,
                            size_t d)
{
    embedding_job job = { &e->kernels->math, dw, dout, ids, n, d };
    size_t vectors = d / LLM_LANES + (d % LLM_LANES != 0);

    (void)rows;
    llm_parallel_for(e, vectors, vectors >= 48 ? 3 * COLUMN_GRAIN : COLUMN_GRAIN, scatter_range, &job);
}
