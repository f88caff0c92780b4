/*
 * row_product.c -- one row times a matrix over threads. Each weight is used once, so memory's speed is the limit:
 * threads take pieces of the matrix as it lies in memory, and few enough bytes that they end at about the same time.
 *
 * A matrix whose rows are contiguous is cut along K too, at numeric blocks: their sums do not depend on one another,
 * and are added in the order of numerics.h when all are there.
 */
#include "row_product.h"
#include "engine/minmax.h"
#include "engine/numerics.h"
#include "engine/pool.h"

#include <string.h>

/*
 * Tasks are of about MOST_BYTES, some 100 us of reading, or fewer bytes where that leaves less than THREAD_TASKS for each
 * thread, which would not end at the same time. But none is smaller than what handing it over costs, nor cuts rows into
 * pieces shorter than SHORTEST_RUN: long ones are read faster.
 */
#define MOST_BYTES   ((size_t)1 << 20)
#define LEAST_BYTES  ((size_t)256 << 10)
#define THREAD_TASKS 3
#define SHORTEST_RUN 512

typedef struct row_product_job {
    llm_engine *e;
    float *c;
    const float *a;
    llm_view b;
    size_t n, k;
    bool acc;
    const float *row;
    size_t width, across; /* columns of a task, and how many of them make n */
    float *sums;          /* (blocks, n) */
} row_product_job;

/* Columns of a task, in whole cache lines, where K is cut into so many blocks; 0: columns are whole. */
static size_t task_width(const row_product_job *j, size_t blocks)
{
    const size_t times = blocks > 0 ? blocks : 1, shortest = blocks > 0 ? SHORTEST_RUN : 64;
    const size_t bytes = j->n * (blocks > 0 ? smaller(j->k, LLM_GEMM_KB) : j->k) * sizeof(float);
    const size_t wanted = (THREAD_TASKS * (size_t)j->e->threads + times - 1) / times;
    size_t across = smaller(wanted, smaller(j->n / shortest, bytes / LEAST_BYTES));

    across = across > bytes / MOST_BYTES ? across : bytes / MOST_BYTES + 1;
    return (j->n + 64 * across - 1) / (64 * across) * 64;
}

static void columns_task(void *arg, size_t task)
{
    const row_product_job *j = arg;
    const size_t j0 = task * j->width, n = smaller(j->width, j->n - j0);
    llm_view b = { j->b.p + j0 * j->b.column, j->b.row, j->b.column };

    j->e->kernels->row_product.columns(j->c + j0, j->a, b, n, j->k, j->acc);
    if (j->row != NULL)
        j->e->kernels->gemm.add_row(j->c + j0, 0, j->row + j0, 1, n);
}

static void block_task(void *arg, size_t task)
{
    const row_product_job *j = arg;
    const size_t block = task / j->across, k0 = block * LLM_GEMM_KB, j0 = task % j->across * j->width;

    j->e->kernels->row_product.block(j->sums + block * j->n + j0, j->a + k0, j->b.p + k0 * j->b.row + j0, j->b.row,
                                     smaller(j->width, j->n - j0), smaller(LLM_GEMM_KB, j->k - k0));
}

void llm_row_product(llm_engine *e, float *c, llm_view a, llm_view b, size_t n, size_t k, bool acc, const float *row)
{
    row_product_job j = { .e = e, .c = c, .a = a.p, .b = b, .n = n, .k = k, .acc = acc, .row = row };
    const size_t blocks = b.column == 1 ? (k + LLM_GEMM_KB - 1) / LLM_GEMM_KB : 0;

    if (n == 0 || llm_failed(e) || !llm_scratch(e, blocks * n + k))
        return;
    j.sums = llm_thread_scratch(e);
    if (a.column != 1) {
        float *gathered = j.sums + blocks * n;
        for (size_t i = 0; i < k; i++)
            gathered[i] = a.p[i * a.column];
        j.a = gathered;
    }
    j.width = task_width(&j, blocks);
    j.across = (n + j.width - 1) / j.width;
    if (b.column != 1)
        llm_parallel(e, j.across, columns_task, &j);
    else if (llm_parallel(e, blocks * j.across, block_task, &j)) {
        llm_fpenv saved = llm_fp_enter();
        e->kernels->row_product.add_blocks(c, j.sums, blocks, n, acc, row);
        llm_fp_leave(saved);
    }
}
