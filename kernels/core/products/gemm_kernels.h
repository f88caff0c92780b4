/*
 * gemm_kernels.h -- matrix product of one instruction set, after BLIS (Van Zee & van de Geijn 2015):
 * pack_panel, pack_block, micro_kernel and the loops around them. One thread; gemm.c splits the work.
 *
 * Bits: every element of C takes its k products in order, in numeric blocks of LLM_GEMM_KB, in a lane of its
 * own (numerics.h). So neither MR, NR, MC, NC, KC nor the path taken below is seen in a result.
 */
#ifndef LLM_GEMM_KERNELS_H
#define LLM_GEMM_KERNELS_H

#include "engine/isa.h"
#include "engine/minmax.h"
#include "engine/numerics.h"
#include "engine/vec.h"

#include <string.h>

/*
 * MR x NR accumulators, NV vectors of B and a broadcast element of A fill the register file: 28 + 2 + 1 of
 * 32 on AVX-512, 12 + 2 + 1 of 16 on AVX2, 24 + 4 + 1 of 32 on NEON. KC x NR of B stay near the core, MC x KC
 * of A in L2, KC x NC of B in the last level.
 */
#if defined(LLM_VEC_AVX512)
enum { MR = 14, NV = 2, MC = 14 * 24, KC = 512, NC = 3072 };
#define FOR_EACH_TILE(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#define TASK_FLOPS       4e9
#elif defined(LLM_VEC_AVX2)
enum { MR = 6, NV = 1, MC = 6 * 64, KC = 384, NC = 3072 };
#define FOR_EACH_TILE(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define TASK_FLOPS       2e9
#elif defined(LLM_VEC_NEON)
enum { MR = 6, NV = 1, MC = 6 * 64, KC = 384, NC = 3072 };
#define FOR_EACH_TILE(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define TASK_FLOPS       5e8
#else
enum { MR = 4, NV = 1, MC = 4 * 16, KC = 384, NC = 512 };
#define FOR_EACH_TILE(X) X(1) X(2) X(3) X(4)
#define TASK_FLOPS       1e7
#endif

enum {
    NR = 16 * NV,
    DIRECT_ROWS = 2 * MR, /* up to here packing B costs more than reading it in place */
    PANEL_SLACK = 16,     /* pack_panel stores whole vectors, past the end of its last row */
};

_Static_assert(KC % LLM_GEMM_KB == 0, "a cache block holds whole numeric blocks");
_Static_assert(MR <= 16, "a panel row is stored as one vector");

LLM_INLINE size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* n cut into equal parts of at most `most`, whole micro-tiles each */
LLM_INLINE size_t equal_parts(size_t n, size_t most, size_t unit)
{
    size_t parts = (n + most - 1) / most;
    return round_up((n + parts - 1) / parts, unit);
}

#include "gemm_tiles.h"
#include "gemm_packing.h"
#include "row_product_kernels.h" /* stands on the above, and `product` below on it */

/* ---- the loops around the micro-kernel ---- */

/*
 * What tile x asks for of the panel of B that comes next, in its `blocks` numeric blocks: each tile the lines after
 * those of the tile before, until k rows (columns of one) are through.
 */
static ahead part_of_panel(llm_view b, size_t k, size_t x, size_t blocks)
{
    size_t at;

    if (b.column == 1) { /* a row is NV lines: a tile asks for one of them of NR rows a block */
        at = x / NV * blocks * NR;
        if (at < k)
            return (ahead){ b.p + at * b.row + x % NV * 16, b.row, NR * b.row };
    } else {
        at = 16 * x * blocks;
        if (at < k)
            return (ahead){ b.p + at, b.column, 16 };
    }
    return (ahead){ b.p, 0, 0 };
}

static void add_row(float *c, size_t ldc, const float *row, size_t m, size_t n)
{
    for (size_t i = 0; i < m; i++, c += ldc) {
        size_t j = 0;
        for (; j + 16 <= n; j += 16)
            v16_store(c + j, v16_add(v16_load(c + j), v16_load(row + j)));
        if (j < n)
            v16_store_n(c + j, v16_add(v16_load_n(c + j, n - j), v16_load_n(row + j, n - j)), n - j);
    }
}

/*
 * C (mc,NR) += packed A block times a packed panel of B, of which the first `cols` columns exist, and then row, unless it
 * is NULL, while a tile is near the core; `next` is the panel to come.
 */
static void macro_kernel(float *c, size_t ldc, const float *ap, const float *bp, size_t mc, size_t cols, size_t kc,
                         bool first, const float *row, llm_view next)
{
    const size_t blocks = (kc + LLM_GEMM_KB - 1) / LLM_GEMM_KB;

    for (size_t i = 0; i < mc; i += MR) {
        size_t rows = smaller(MR, mc - i);
        ahead part = part_of_panel(next, kc, i / MR, blocks);
        if (cols >= NR)
            panel_tiles[rows](kc, ap + i * kc, bp, c + i * ldc, ldc, first, &part);
        else
            edge_tile(rows, cols, kc, ap + i * kc, bp, NR, c + i * ldc, ldc, first);
        if (row != NULL)
            add_row(c + i * ldc, ldc, row, rows, smaller(cols, NR));
    }
}

/* What one thread multiplies: its views of A and B, and how it walks them. */
typedef struct blocking {
    llm_view a, b;
    size_t m, n, k;
    size_t m_step, n_step, k_step;
    const float *row; /* (n), added to all rows of C at last, or NULL */
    float *packed;    /* panels of B */
    bool (*stopped)(llm_engine *e);
    llm_engine *e;
} blocking;

/* The panel of B that begins at row p, column j */
static llm_view panel_of(const blocking *w, size_t p, size_t j)
{
    return (llm_view){ w->b.p + p * w->b.row + j * w->b.column, w->b.row, w->b.column };
}

/* The panel after the one at column j + q for the block at row i of A: in memory, or packed for an earlier block. */
static llm_view next_panel(const blocking *w, size_t j, size_t p, size_t i, size_t q, size_t kc)
{
    const bool another = q + NR < smaller(w->n_step, w->n - j), another_block = i + w->m_step < w->m;

    if (another && i == 0)
        return panel_of(w, p, j + q + NR);
    if (another || another_block)
        return (llm_view){ w->packed + (another ? (q + NR) * kc : 0), NR, 1 };
    return p + w->k_step < w->k ? panel_of(w, p + w->k_step, j) : (llm_view){ w->packed, NR, 1 };
}

/* C (mc,nc) = [first: 0, else C] + A (mc,kc) B (kc,nc), the block that begins at row i and column j of C. */
static void block_product(float *c, size_t ldc, const blocking *w, size_t j, size_t p, size_t i, const float *ap,
                          bool first)
{
    const size_t nc = smaller(w->n_step, w->n - j), kc = smaller(w->k_step, w->k - p);
    const float *row = p + kc == w->k && w->row != NULL ? w->row + j : NULL;

    for (size_t q = 0; q < nc && !w->stopped(w->e); q += NR) {
        float *packed = w->packed + (w->m_step < w->m ? q * kc : 0);
        if (i == 0)
            pack_columns(packed, panel_of(w, p, j + q), kc, smaller(NR, nc - q));
        macro_kernel(c + i * ldc + j + q, ldc, ap, packed, smaller(w->m_step, w->m - i), smaller(NR, nc - q), kc, first,
                     row == NULL ? NULL : row + q, next_panel(w, j, p, i, q, kc));
    }
}

/*
 * A panel of B is packed just before the first block of A meets it, while the panel after it is on its way
 * from memory; it is kept only when there are more blocks of A.
 */
static void product(float *c, size_t ldc, llm_view a, llm_view b, size_t m, size_t n, size_t k, bool acc,
                    const float *row, float *scratch, bool (*stopped)(llm_engine *e), llm_engine *e)
{
    for (size_t i = 0; k == 0 && !acc && i < m; i++)
        memset(c + i * ldc, 0, n * sizeof *c);
    if (m <= DIRECT_ROWS && k > 0)
        product_few_rows(c, ldc, a, b, m, n, k, acc, scratch);
    if (m <= DIRECT_ROWS || k == 0) {
        if (row != NULL)
            add_row(c, ldc, row, m, n);
        return;
    }
    const blocking w = { .a = a,
                         .b = b,
                         .m = m,
                         .n = n,
                         .k = k,
                         .m_step = equal_parts(m, MC, MR),
                         .n_step = equal_parts(n, NC, NR),
                         .k_step = equal_parts(k, KC, LLM_GEMM_KB),
                         .row = row,
                         .packed = scratch + MC * KC + PANEL_SLACK,
                         .stopped = stopped,
                         .e = e };
    for (size_t j = 0; j < n; j += w.n_step)
        for (size_t p = 0; p < k; p += w.k_step)
            for (size_t i = 0; i < m && !stopped(e); i += w.m_step) {
                llm_view block = { a.p + i * a.row + p * a.column, a.row, a.column };
                pack_block(scratch, block, smaller(w.m_step, m - i), smaller(w.k_step, k - p));
                block_product(c, ldc, &w, j, p, i, scratch, !acc && p == 0);
            }
}

/* For rectangles of at most m rows: the last one of a grid may have few, however many the others have. */
static size_t product_scratch(size_t m, size_t n, size_t k)
{
    size_t kc = smaller(KC, k);
    size_t few = round_up(smaller(m, DIRECT_ROWS) * k + PANEL_SLACK, 16) + (kc * NR > FEW_SUMS ? kc * NR : FEW_SUMS);
    size_t many = MC * KC + PANEL_SLACK + kc * (m <= MC ? NR : round_up(smaller(NC, n), NR));
    return m <= DIRECT_ROWS || few > many ? few : many;
}

/* ---- by rows and columns ---- */

static void transpose(float *dst, size_t ldd, const float *src, size_t lds, size_t rows, size_t cols)
{
    for (size_t i = 0; i < rows; i += 16)
        for (size_t j = 0; j < cols; j += 16) {
            size_t h = smaller(16, rows - i), w = smaller(16, cols - j);
            float t[16 * 16];
            if (h == 16)
                transpose_block(dst + j * ldd + i, ldd, src + i * lds + j, lds, 16, w);
            else {
                transpose_block(t, 16, src + i * lds + j, lds, h, w);
                for (size_t q = 0; q < w; q++)
                    v16_store_n(dst + (j + q) * ldd + i, v16_load(t + q * 16), h);
            }
        }
}

#define GEMM_KERNELS                                                                                                   \
    { .mr = MR,                                                                                                        \
      .nr = NR,                                                                                                        \
      .task_flops = TASK_FLOPS,                                                                                        \
      .scratch = product_scratch,                                                                                      \
      .product = product,                                                                                              \
      .add_row = add_row,                                                                                              \
      .transpose = transpose,                                                                                          \
      .fma_rounds = fma_rounds,                                                                                        \
      .fma_chains = FMA_CHAINS }

#endif /* LLM_GEMM_KERNELS_H */
