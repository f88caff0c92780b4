/*
 * gemm_kernels.h -- matrix product of one instruction set, after BLIS (Van Zee & van de Geijn 2015):
 * pack_panel, pack_block, micro_kernel and the loops around them. One thread; gemm.c splits the work.
 *
 * Bits: every element of C takes its k products in order, in numeric blocks of LLM_GEMM_KB, in a lane of its
 * own (numerics.h). So neither MR, NR, MC, NC, KC nor the path taken below is seen in a result.
 */
#ifndef LLM_GEMM_KERNELS_H
#define LLM_GEMM_KERNELS_H

#include "isa.h"
#include "numerics.h"
#include "vec.h"

#include <string.h>

/*
 * MR x NR accumulators, NV vectors of B and a broadcast element of A fill the register file: 28 + 2 + 1 of
 * 32 on AVX-512, 12 + 2 + 1 of 16 on AVX2, 24 + 4 + 1 of 32 on NEON. KC x NR of B stay near the core, MC x KC
 * of A in L2, KC x NC of B in the last level.
 */
#if defined(LLM_VEC_AVX512)
enum { MR = 14, NV = 2, MC = 14 * 32, KC = 384, NC = 3072 };
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

/* ---- micro-kernel ---- */

/*
 * c (rows, 16 nv) = [first: 0, else c] + a b over k. a is a panel, element (i,k) at a[k * rows + i]; row k of
 * b begins at b[k * b_row]. rows and nv are constants wherever this is inlined, so acc lives in registers.
 */
LLM_INLINE void micro_kernel(const size_t rows, const size_t nv, size_t k, const float *a, const float *b,
                             size_t b_row, float *c, size_t ldc, bool first)
{
    while (k > 0) {
        size_t kb = k < LLM_GEMM_KB ? k : LLM_GEMM_KB;
        v16 acc[MR][NV];
#pragma GCC unroll 16
        for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (size_t v = 0; v < nv; v++)
                acc[i][v] = v16_zero();
#pragma GCC unroll 2
        for (size_t p = 0; p < kb; p++) {
            v16 bv[NV];
#pragma GCC unroll 8
            for (size_t v = 0; v < nv; v++)
                bv[v] = v16_load(b + 16 * v);
#pragma GCC unroll 16
            for (size_t i = 0; i < rows; i++) {
                v16 ai = v16_set1(a[i]);
#pragma GCC unroll 8
                for (size_t v = 0; v < nv; v++)
                    acc[i][v] = v16_fma(ai, bv[v], acc[i][v]);
            }
            a += rows;
            b += b_row;
        }
#pragma GCC unroll 16
        for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (size_t v = 0; v < nv; v++) {
                float *to = c + i * ldc + 16 * v;
                v16_store(to, v16_add(first ? v16_zero() : v16_load(to), acc[i][v]));
            }
        first = false;
        k -= kb;
    }
}

typedef void (*tile_function)(size_t k, const float *a, const float *b, size_t b_row, float *c, size_t ldc,
                              bool first);

#define DEFINE_TILE(R)                                                                                       \
    static void tile_##R(size_t k, const float *a, const float *b, size_t b_row, float *c, size_t ldc,       \
                         bool first)                                                                         \
    {                                                                                                        \
        micro_kernel(R, NV, k, a, b, b_row, c, ldc, first);                                                  \
    }
FOR_EACH_TILE(DEFINE_TILE)

#define NAME_TILE(R) tile_##R,
static const tile_function tiles[MR + 1] = { NULL, FOR_EACH_TILE(NAME_TILE) };

/* A tile at the right edge is computed in a buffer of full width: b must be padded to NR columns. */
static void edge_tile(size_t rows, size_t cols, size_t k, const float *a, const float *b, size_t b_row,
                      float *c, size_t ldc, bool first)
{
    float t[MR * NR];
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < NR; j += 16)
            v16_store(t + i * NR + j, v16_load_n(c + i * ldc + j, first || j >= cols ? 0 : cols - j));
    tiles[rows](k, a, b, b_row, t, NR, first);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j += 16)
            v16_store_n(c + i * ldc + j, v16_load(t + i * NR + j), cols - j);
}

LLM_INLINE void run_tile(size_t rows, size_t cols, size_t k, const float *a, const float *b, size_t b_row,
                         float *c, size_t ldc, bool first)
{
    if (cols >= NR)
        tiles[rows](k, a, b, b_row, c, ldc, first);
    else
        edge_tile(rows, cols, k, a, b, b_row, c, ldc, first);
}

/* ---- packing ---- */

LLM_INLINE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

LLM_INLINE size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/*
 * Columns of a 16 x 16 block become rows: dst row j (0 <= j < cols) gets element j of each of `rows` source
 * rows that are lds apart, zeros after them; whole vectors are stored.
 */
LLM_INLINE void transpose_block(float *dst, size_t ldd, const float *src, size_t lds, size_t rows,
                                size_t cols)
{
    v16 r[16];
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        r[i] =
            i < rows ? (cols == 16 ? v16_load(src + i * lds) : v16_load_n(src + i * lds, cols)) : v16_zero();
    v16_transpose(r);
#pragma GCC unroll 16
    for (size_t j = 0; j < 16; j++)
        if (j < cols)
            v16_store(dst + j * ldd, r[j]);
}

/*
 * Panel of `rows` rows of A: dst[k * rows + i]. Each stored vector runs over into the next row of the panel,
 * which is written after it.
 */
static void pack_panel(float *dst, llm_view a, size_t rows, size_t k)
{
    if (a.column == 1 && rows == 1)
        memcpy(dst, a.p, k * sizeof *dst);
    else if (a.column == 1)
        for (size_t p = 0; p < k; p += 16) {
            for (size_t i = rows; i < 2 * rows; i++) /* the next panel: its rows are many short streams */
                __builtin_prefetch(a.p + i * a.row + p);
            transpose_block(dst + p * rows, rows, a.p + p, a.row, rows, smaller(16, k - p));
        }
    else
        for (size_t p = 0; p < k; p++)
            v16_store(dst + p * rows, v16_load_n(a.p + p * a.column, rows));
}

/* Whole panels of columns of memory, where row k of A^T is contiguous: read along it, a few k at a time. */
static void pack_full_panels(float *dst, llm_view a, size_t panels, size_t k)
{
    for (size_t p = 0; p < k; p += 16)
        for (size_t i = 0; i < panels; i++) {
            const float *from = a.p + p * a.column + i * MR;
            float *to = dst + i * MR * k + p * MR;
            size_t n = smaller(16, k - p);
            for (size_t q = 0; q < n; q++) {
                v16 row = v16_load_n(from + q * a.column, MR);
                __builtin_prefetch(from + (q + 16) * a.column);
                if ((k - p - q) * MR >= 16)
                    v16_store(to + q * MR, row);
                else /* it would run into the next panel, which has been begun */
                    v16_store_n(to + q * MR, row, MR);
            }
        }
}

/* A (m,k) as panels of MR rows, the last with fewer; panel i begins at dst + i * MR * k. */
static void pack_block(float *dst, llm_view a, size_t m, size_t k)
{
    size_t i = 0;

    if (a.column != 1) {
        pack_full_panels(dst, a, m / MR, k);
        i = m / MR * MR;
    }
    for (; i < m; i += MR) {
        llm_view panel = { a.p + i * a.row, a.row, a.column };
        pack_panel(dst + i * k, panel, smaller(MR, m - i), k);
    }
}

/* Panel of NR columns of B, zeros past `cols`: dst[k * NR + j]. */
static void pack_columns(float *dst, llm_view b, size_t k, size_t cols)
{
    if (b.column == 1 && cols >= NR)
        for (size_t p = 0; p < k; p++)
            for (size_t j = 0; j < NR; j += 16)
                v16_store(dst + p * NR + j, v16_load(b.p + p * b.row + j));
    else if (b.column == 1)
        for (size_t p = 0; p < k; p++)
            for (size_t j = 0; j < NR; j += 16)
                v16_store(dst + p * NR + j, v16_load_n(b.p + p * b.row + j, j < cols ? cols - j : 0));
    else
        for (size_t j = 0; j < NR; j += 16)
            for (size_t p = 0; p < k; p += 16) {
                for (size_t q = 16; q < 32; q++) /* sixteen streams are too many for the hardware */
                    __builtin_prefetch(b.p + (j + q) * b.column + p);
                transpose_block(dst + p * NR + j, NR, b.p + (j < cols ? j * b.column : 0) + p, b.column,
                                j < cols ? smaller(16, cols - j) : 0, smaller(16, k - p));
            }
}

#include "row_product_kernels.h" /* stands on the above, and `product` below on it */

/* ---- the loops around the micro-kernel ---- */

/* Ask for part `part` of `parts` of the source of a panel of B, so that packing it will not wait for memory. */
static void prefetch_columns(llm_view b, size_t k, size_t part, size_t parts)
{
    if (b.column == 1)
        for (size_t p = k * part / parts; p < k * (part + 1) / parts; p++)
            for (size_t j = 0; j < NR; j += 16)
                __builtin_prefetch(b.p + p * b.row + j, 0, 2);
    else
        for (size_t j = NR * part / parts; j < NR * (part + 1) / parts; j++)
            for (size_t p = 0; p < k; p += 16)
                __builtin_prefetch(b.p + j * b.column + p, 0, 2);
}

/* C (mc,NR) += packed A block times a packed panel of B, of which the first `cols` columns exist. */
static void macro_kernel(float *c, size_t ldc, const float *ap, const float *bp, size_t mc, size_t cols,
                         size_t kc, bool first, llm_view next)
{
    for (size_t i = 0; i < mc; i += MR) {
        size_t rows = smaller(MR, mc - i);
        if (next.p != NULL)
            prefetch_columns(next, kc, i / MR, (mc + MR - 1) / MR);
        for (size_t r = 0; r < rows; r++)
            for (size_t j = 0; j < NR; j += 16)
                __builtin_prefetch(c + (i + r) * ldc + j, 1);
        run_tile(rows, cols, kc, ap + i * kc, bp, NR, c + i * ldc, ldc, first);
    }
}

/* n cut into equal parts of at most `most`, whole micro-tiles each */
LLM_INLINE size_t equal_parts(size_t n, size_t most, size_t unit)
{
    size_t parts = (n + most - 1) / most;
    return round_up((n + parts - 1) / parts, unit);
}

/*
 * A panel of B is packed just before the first block of A meets it, while the panel after it is on its way
 * from memory; it is kept only when there are more blocks of A.
 */
static void product(float *c, size_t ldc, llm_view a, llm_view b, size_t m, size_t n, size_t k, bool acc,
                    float *scratch)
{
    if (k == 0 && !acc)
        for (size_t i = 0; i < m; i++)
            memset(c + i * ldc, 0, n * sizeof *c);
    if (m <= DIRECT_ROWS) {
        product_few_rows(c, ldc, a, b, m, n, k, acc, scratch);
        return;
    }
    const size_t m_step = equal_parts(m, MC, MR), n_step = equal_parts(n, NC, NR);
    float *ap = scratch, *bp = scratch + MC * KC + PANEL_SLACK;
    for (size_t j = 0; j < n; j += n_step)
        for (size_t p = 0; p < k; p += KC)
            for (size_t i = 0; i < m; i += m_step) {
                size_t nc = smaller(n_step, n - j), kc = smaller(KC, k - p), mc = smaller(m_step, m - i);
                llm_view block = { a.p + i * a.row + p * a.column, a.row, a.column };
                pack_block(ap, block, mc, kc);
                for (size_t q = 0; q < nc; q += NR) {
                    float *packed = bp + (m_step < m ? q * kc : 0);
                    llm_view panel = { b.p + p * b.row + (j + q) * b.column, b.row, b.column };
                    llm_view next = { i == 0 && q + 2 * NR <= nc ? panel.p + NR * b.column : NULL, b.row, b.column };
                    if (i == 0)
                        pack_columns(packed, panel, kc, smaller(NR, nc - q));
                    macro_kernel(c + i * ldc + j + q, ldc, ap, packed, mc, smaller(NR, nc - q), kc, !acc && p == 0,
                                 next);
                }
            }
}

/* For rectangles of at most m rows: the last one of a grid may have few, however many the others have. */
static size_t product_scratch(size_t m, size_t n, size_t k)
{
    size_t kc = smaller(KC, k);
    size_t few = round_up(smaller(m, DIRECT_ROWS) * k + PANEL_SLACK, 16) + kc * NR;
    size_t many = MC * KC + PANEL_SLACK + kc * (m <= MC ? NR : round_up(smaller(NC, n), NR));
    return m <= DIRECT_ROWS || few > many ? few : many;
}

/* ---- by rows and columns ---- */

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

#define GEMM_KERNELS                                                                                         \
    {                                                                                                        \
        .mr = MR, .nr = NR, .task_flops = TASK_FLOPS, .scratch = product_scratch, .product = product,        \
        .add_row = add_row, .transpose = transpose, .fma_rounds = fma_rounds, .fma_chains = FMA_CHAINS         \
    }

#endif /* LLM_GEMM_KERNELS_H */
