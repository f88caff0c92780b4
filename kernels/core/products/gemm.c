/*
 * gemm.c -- the matrix product over threads: C is cut into rectangles, each of which one thread computes over
 * the whole of K with its own packing (gemm_kernels.h). No barrier, no shared block, and no say in the bits.
 */
#include "gemm.h"
#include "engine/minmax.h"
#include "engine/numerics.h"
#include "engine/pool.h"
#include "row_product.h"

#define WORTHWHILE 20                /* times the least: what a task may shrink to for the sake of balance */
#define K_UNIT     (3 * LLM_GEMM_KB) /* a stretch of K is a multiple of this, */
#define K_LEAST    (8 * K_UNIT)      /* and at least this: shorter ones would walk C too often */

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

    kernels->product(c, j->ldc, a, b, m, n, j->k, j->acc, j->row == NULL ? NULL : j->row + j0, llm_thread_scratch(j->e),
                     llm_task_stopped, j->e);
}

/* Multiply-adds that storing one element takes as long as: with a K of 1 memory is all there is to wait for. */
#define STORE_COST 32

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
    size_t threads = (size_t)j->e->threads;

    j->m_tile = j->m;
    j->n_tile = j->n;
    for (;;) {
        double flops = 2.0 * (double)j->m_tile * (double)j->n_tile * ((double)j->k + STORE_COST);
        size_t tasks = tiles_of(j->m, j->m_tile) * tiles_of(j->n, j->n_tile);
        size_t wanted = threads == 1 ? 1 : flops > WORTHWHILE * least ? 4 * threads : 2 * threads;
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

/*
 * A long K is walked in stretches, so that the rectangles of C need not be narrow for a task to be short:
 * whole numeric blocks, which leave the bits alone.
 */
static size_t choose_stretch(const llm_engine *e, size_t M, size_t N, size_t K)
{
    double flops = 2.0 * (double)M * (double)N * (double)K / (4.0 * e->threads);
    double stretches = flops / e->kernels->gemm.task_flops + 1;
    size_t step = (size_t)((double)K / stretches) / K_UNIT * K_UNIT;

    return step > K_LEAST ? step : K_LEAST;
}

void llm_product(llm_engine *e, float *C, size_t ldc, llm_view A, llm_view B, size_t M, size_t N, size_t K, bool acc,
                 const float *row)
{
    product_job whole = { .e = e, .c = C, .ldc = ldc, .a = A, .b = B, .m = M, .n = N };
    const size_t step = choose_stretch(e, M, N, K);

    if (N == 1 && ldc == 1 && M > 1 && row == NULL) { /* a column in memory is a row: lanes along it */
        whole.a = (llm_view){ B.p, B.column, B.row };
        whole.b = (llm_view){ A.p, A.column, A.row };
        whole.m = 1;
        whole.n = whole.ldc = M;
    }
    if (whole.m == 1) {
        llm_row_product(e, C, whole.a, whole.b, whole.n, K, acc, row);
        return;
    }
    for (size_t k = 0; (k < K || k == 0) && M > 0 && N > 0 && !llm_failed(e); k += step) {
        product_job j = whole;
        j.a.p += k * j.a.column;
        j.b.p += k * j.b.row;
        j.k = smaller(step, K - k);
        j.acc = acc || k > 0;
        j.row = k + j.k == K ? row : NULL;
        choose_tiles(&j);
        if (llm_scratch(e, e->kernels->gemm.scratch(j.m_tile, j.n_tile, j.k)))
            llm_parallel(e, tiles_of(j.m, j.m_tile) * j.tiles_across, product_task, &j);
    }
}

void llm_gemm(llm_engine *e, float *C, const float *A, const float *B, size_t M, size_t N, size_t K, size_t ldc,
              size_t lda, size_t ldb, bool ta, bool tb, bool acc)
{
    llm_view a = { A, ta ? 1 : lda, ta ? lda : 1 };
    llm_view b = { B, tb ? 1 : ldb, tb ? ldb : 1 };
    llm_product(e, C, ldc, a, b, M, N, K, acc, NULL);
}
