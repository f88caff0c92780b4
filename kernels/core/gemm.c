/*
 * gemm.c -- the matrix product over threads: C is cut into rectangles, each of which one thread computes over
 * the whole of K with its own packing (gemm_kernels.h). No barrier, no shared block, and no say in the bits.
 */
#include "gemm.h"
#include "pool.h"

#include <string.h>

typedef struct product_job {
    llm_engine *e;
    float *c;
    size_t ldc;
    llm_view a, b;
    size_t m, n, k;
    bool acc;
    const float *row;
    size_t m_tile, n_tile, tiles_across;
} product_job;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static size_t tiles_of(size_t n, size_t tile) { return (n + tile - 1) / tile; }

static void product_task(void *arg, size_t task)
{
    const product_job *j = arg;
    const llm_gemm_kernels *kernels = &j->e->kernels->gemm;
    size_t i0 = task / j->tiles_across * j->m_tile, j0 = task % j->tiles_across * j->n_tile;
    size_t m = smaller(j->m_tile, j->m - i0), n = smaller(j->n_tile, j->n - j0);
    float *c = j->c + i0 * j->ldc + j0;
    llm_view a = { j->a.p + i0 * j->a.row, j->a.row, j->a.column };
    llm_view b = { j->b.p + j0 * j->b.column, j->b.row, j->b.column };

    kernels->product(c, j->ldc, a, b, m, n, j->k, j->acc, llm_thread_scratch(j->e));
    if (j->row != NULL)
        kernels->add_row(c, j->ldc, j->row + j0, m, n);
}

/* About half of n, in whole micro-tiles. */
static size_t half_tile(size_t n, size_t unit) { return (n / 2 + unit - 1) / unit * unit; }

/*
 * Rectangles small enough that should_stop is polled often and every thread gets several, large enough to
 * repay packing and the hand-off. Near-squares repack least.
 */
static void choose_tiles(product_job *j)
{
    const llm_gemm_kernels *g = &j->e->kernels->gemm;
    const double least = g->task_flops / 1000;
    size_t wanted = j->e->threads > 1 ? 4 * (size_t)j->e->threads : 1;

    j->m_tile = j->m;
    j->n_tile = j->n;
    for (;;) {
        double flops = 2.0 * (double)j->m_tile * (double)j->n_tile * (double)j->k;
        size_t tasks = tiles_of(j->m, j->m_tile) * tiles_of(j->n, j->n_tile);
        size_t m = half_tile(j->m_tile, g->mr), n = half_tile(j->n_tile, g->nr);
        if (flops <= g->task_flops && (tasks >= wanted || flops < 2 * least))
            break;
        if (n < j->n_tile && (j->n_tile >= j->m_tile || m >= j->m_tile))
            j->n_tile = n;
        else if (m < j->m_tile)
            j->m_tile = m;
        else
            break;
    }
    j->tiles_across = tiles_of(j->n, j->n_tile);
}

void llm_product(llm_engine *e, float *C, size_t ldc, llm_view A, llm_view B, size_t M, size_t N, size_t K,
                 bool acc, const float *row)
{
    product_job j = {
        .e = e, .c = C, .ldc = ldc, .a = A, .b = B, .m = M, .n = N, .k = K, .acc = acc, .row = row
    };

    if (M == 0 || N == 0 || llm_failed(e))
        return;
    if (N == 1 && ldc == 1 && M > 1 && row == NULL) { /* a column in memory is a row: lanes along it */
        j.a = (llm_view){ B.p, B.column, B.row };
        j.b = (llm_view){ A.p, A.column, A.row };
        j.m = 1;
        j.n = j.ldc = M;
    }
    choose_tiles(&j);
    if (llm_scratch(e, e->kernels->gemm.scratch(j.m_tile, j.n_tile, K)))
        llm_parallel(e, tiles_of(j.m, j.m_tile) * j.tiles_across, product_task, &j);
}

void llm_gemm(llm_engine *e, float *C, const float *A, const float *B, size_t M, size_t N, size_t K,
              size_t ldc, size_t lda, size_t ldb, bool ta, bool tb, bool acc)
{
    llm_view a = { A, ta ? 1 : lda, ta ? lda : 1 };
    llm_view b = { B, tb ? 1 : ldb, tb ? ldb : 1 };
    llm_product(e, C, ldc, a, b, M, N, K, acc, NULL);
}
