/*
 * quantized_kernels.h -- products with weights in bf16, int8 or int4, of one instruction set. One thread, one panel of
 * columns at a time (quantized.h has the layout).
 *
 * Bits: an element of C takes its k products in order, in blocks of LLM_GEMM_KB from +0, in a lane of its own, and
 * the blocks are added in order: C + block for bf16 and int4, which is what a float32 product with the rounded weights
 * computes, and fma(block, scale, C) for int8. So other rows, threads and instruction sets are not seen in it.
 */
#ifndef LLM_QUANTIZED_KERNELS_H
#define LLM_QUANTIZED_KERNELS_H

#include "engine/quantized.h"
#include "engine/vec.h"
#include "int4_kernels.h"

/* Rows and vectors of C in registers when several rows share an unpacked block. */
#if defined(LLM_VEC_AVX512)
enum { PACKED_ROWS = 6, PACKED_NV = 4 };
#elif defined(LLM_VEC_SCALAR)
enum { PACKED_ROWS = 2, PACKED_NV = 1 };
#else
enum { PACKED_ROWS = 6, PACKED_NV = 1 };
#endif

enum {
    PANEL_NV = LLM_PACKED_COLUMNS / 16,
    STRIPE = 16 * PACKED_NV, /* columns of a panel that several rows meet at a time */
    PREFETCH_BYTES = 4096,   /* ahead of one row's reading: hardware stops at the end of a page */
};

typedef enum packed_kind { PACKED_BF16, PACKED_INT8, PACKED_INT4 } packed_kind;

/* of an input, but for int4 */
LLM_INLINE size_t packed_words(packed_kind kind) { return kind == PACKED_BF16 ? 32 : 16; }

/* ---- packing ---- */

/* The nearest bf16, ties to even, in the low half; what would round to infinity is the largest finite one. */
LLM_INLINE v16i bf16_bits(v16 x)
{
    const v16i u = v16_as_i(x), odd = v16i_and(v16i_srl(u, 16), v16i_set1(1));
    const v16i bits = v16i_srl(v16i_add(v16i_add(u, v16i_set1(0x7fff)), odd), 16);
    const m16 infinite = v16i_eq(v16i_and(bits, v16i_set1(0x7fff)), v16i_set1(0x7f80));

    return v16i_select(infinite, v16i_sub(bits, v16i_set1(1)), bits);
}

static void pack_bf16(uint32_t *words, const float *w, size_t n)
{
    for (size_t k = 0; k < n; k++)
        for (size_t g = 0; g < LLM_PACKED_COLUMNS; g += 32, w += 32, words += 16)
            v16i_store(words, v16i_or(bf16_bits(v16_load(w)), v16i_sll(bf16_bits(v16_load(w + 16)), 16)));
}

#define LARGEST_SCALE 2.679e36f /* 127 times it is finite */

/* w / scale to the nearest whole number, ties to even. A scale that is denormal is coarse, hence the bounds. */
LLM_INLINE void store_int8(int8_t *bytes, v16 w, v16 scale)
{
    const v16 q = v16_select(v16_eq(scale, v16_zero()), v16_zero(), v16_div(w, scale));
    int32_t whole[16];

    v16i_store(whole, v16_to_i(v16_max(v16_set1(-127), v16_min(v16_set1(127), q))));
    for (size_t i = 0; i < 16; i++)
        bytes[i] = (int8_t)whole[i];
}

static void pack_int8(int8_t *bytes, float *scales, const float *w, size_t n)
{
    for (size_t j = 0; j < LLM_PACKED_COLUMNS; j += 16) {
        v16 most = v16_zero();
        for (size_t k = 0; k < n; k++)
            most = v16_max(v16_abs(v16_load(w + k * LLM_PACKED_COLUMNS + j)), most);
        const m16 large = v16_gt(most, v16_set1(127.0f * LARGEST_SCALE));
        const v16 scale = v16_select(large, v16_set1(LARGEST_SCALE), v16_div(most, v16_set1(127)));
        v16_store(scales + j, scale);
        for (size_t k = 0; k < n; k++)
            store_int8(bytes + k * LLM_PACKED_COLUMNS + j, v16_load(w + k * LLM_PACKED_COLUMNS + j), scale);
    }
}

/* ---- products ---- */

/* Vector v of the weights of one input. */
LLM_INLINE v16 unpacked(const uint32_t *p, size_t v, packed_kind kind)
{
    if (kind == PACKED_INT8)
        return v16_load_i8((const int8_t *)p + 16 * v);
    const v16i words = v16i_load(p + 16 * (v / 2));
    return v16i_as_f(v % 2 == 0 ? v16i_sll(words, 16) : v16i_and(words, v16i_set1(0xffff0000u)));
}

/* scales: of the block's 64 columns; `at` is the vector's first one. */
LLM_INLINE v16 add_block(v16 total, v16 block, const float *scales, size_t at, packed_kind kind)
{
    return kind != PACKED_INT8 ? v16_add(total, block) : v16_fma(block, v16_load(scales + at), total);
}

/* How many of vector v's 16 columns exist among n. */
LLM_INLINE size_t lanes_left(size_t n, size_t v) { return n <= 16 * v ? 0 : n - 16 * v < 16 ? n - 16 * v : 16; }

/* sum += a times a numeric block of the panel, whose end is returned */
LLM_INLINE const uint32_t *add_numeric_block(v16 *sum, const float *a, const uint32_t *panel, size_t n,
                                             packed_kind kind)
{
    if (kind == PACKED_INT4) {
        for (; n >= LLM_INT4_BLOCK; n -= LLM_INT4_BLOCK, a += LLM_INT4_BLOCK, panel += int4_words(LLM_INT4_BLOCK))
            add_int4_block(sum, a, panel, LLM_INT4_BLOCK, PREFETCH_BYTES);
        if (n > 0)
            add_int4_block(sum, a, panel, n, PREFETCH_BYTES);
        return panel + (n > 0 ? int4_words(n) : 0);
    }
#pragma GCC unroll 4
    for (size_t p = 0; p < n; p++, panel += packed_words(kind)) {
        const v16 ai = v16_set1(a[p]);
        for (size_t line = 0; line < packed_words(kind); line += 16)
            __builtin_prefetch((const char *)(panel + line) + PREFETCH_BYTES);
#pragma GCC unroll 4
        for (size_t v = 0; v < PANEL_NV; v++)
            sum[v] = v16_fma(ai, unpacked(panel, v, kind), sum[v]);
    }
    return panel;
}

/* One row, straight from the packed words through the registers: memory's speed is the limit. */
LLM_INLINE void one_packed_row(float *c, const float *a, const uint32_t *panel, const float *scales, size_t n, size_t k,
                               const float *row, packed_kind kind)
{
    v16 total[PANEL_NV];

#pragma GCC unroll 4
    for (int v = 0; v < PANEL_NV; v++)
        total[v] = v16_zero();
    for (size_t p0 = 0; p0 < k; p0 += LLM_GEMM_KB) {
        v16 sum[PANEL_NV];
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_NV; v++)
            sum[v] = v16_zero();
        panel = add_numeric_block(sum, a + p0, panel, k - p0 < LLM_GEMM_KB ? k - p0 : LLM_GEMM_KB, kind);
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_NV; v++)
            total[v] = add_block(total[v], sum[v], scales, 16 * (size_t)v, kind);
        if (kind == PACKED_INT8)
            scales += LLM_PACKED_COLUMNS;
    }
#pragma GCC unroll 4
    for (int v = 0; v < PANEL_NV; v++) {
        const size_t lanes = lanes_left(n, (size_t)v);
        if (row != NULL)
            total[v] = v16_add(total[v], v16_load_n(row + (lanes > 0 ? 16 * v : 0), lanes));
        if (lanes > 0)
            v16_store_n(c + 16 * v, total[v], lanes);
    }
}

/*
 * c (rows, STRIPE) = [first: 0, else c] + a (rows,k) w (k, STRIPE) over one numeric block; c and w point at column
 * `at` of the panel, and n columns are left.
 */
LLM_INLINE void unpacked_tile(const size_t rows, float *c, size_t ldc, const float *a, size_t lda, const float *w,
                              const float *scales, size_t at, size_t n, size_t k, bool first, packed_kind kind)
{
    v16 sum[PACKED_ROWS][PACKED_NV];

#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (size_t v = 0; v < PACKED_NV; v++)
            sum[i][v] = v16_zero();
    for (size_t p = 0; p < k; p++, w += STRIPE) {
        v16 wv[PACKED_NV];
#pragma GCC unroll 4
        for (size_t v = 0; v < PACKED_NV; v++)
            wv[v] = v16_load(w + 16 * v);
#pragma GCC unroll 8
        for (size_t i = 0; i < rows; i++) {
            v16 ai = v16_set1(a[i * lda + p]);
#pragma GCC unroll 4
            for (size_t v = 0; v < PACKED_NV; v++)
                sum[i][v] = v16_fma(ai, wv[v], sum[i][v]);
        }
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (size_t v = 0; v < PACKED_NV; v++) {
            const size_t lanes = lanes_left(n, v);
            float *to = c + i * ldc + 16 * v;
            if (lanes > 0) {
                v16 before = first ? v16_zero() : v16_load_n(to, lanes);
                v16_store_n(to, add_block(before, sum[i][v], scales, at + 16 * v, kind), lanes);
            }
        }
}

/* unpacked_tile of 1 to PACKED_ROWS rows */
LLM_INLINE void some_unpacked_rows(size_t rows, float *c, size_t ldc, const float *a, size_t lda, const float *w,
                                   const float *scales, size_t at, size_t n, size_t k, bool first, packed_kind kind)
{
#pragma GCC unroll 8
    for (size_t r = 1; r <= PACKED_ROWS; r++)
        if (r == rows)
            unpacked_tile(r, c, ldc, a, lda, w, scales, at, n, k, first, kind);
}

/* A numeric block of the panel as floats, stripe by stripe; returns the panel's part after it. */
LLM_INLINE const uint32_t *unpack_block(float *w, const uint32_t *panel, size_t n, packed_kind kind)
{
    float *at[PANEL_NV];

#pragma GCC unroll 4
    for (size_t v = 0; v < PANEL_NV; v++)
        at[v] = w + v / PACKED_NV * STRIPE * LLM_GEMM_KB + v % PACKED_NV * 16;
    for (size_t p = 0; p < n;) {
        const size_t inputs = kind == PACKED_INT4 ? n - p < LLM_INT4_BLOCK ? n - p : LLM_INT4_BLOCK : 1;
        if (kind == PACKED_INT4)
            unpack_int4(at, STRIPE, panel, inputs);
        else
#pragma GCC unroll 4
            for (size_t v = 0; v < PANEL_NV; v++)
                v16_store(at[v], unpacked(panel, v, kind));
#pragma GCC unroll 4
        for (size_t v = 0; v < PANEL_NV; v++)
            at[v] += inputs * STRIPE;
        panel += kind == PACKED_INT4 ? int4_words(inputs) : packed_words(kind);
        p += inputs;
    }
    return panel;
}

/* Several rows: each block is unpacked once, stripe by stripe into `w`, and meets all of them. */
LLM_INLINE void many_packed_rows(float *c, size_t ldc, const float *a, const uint32_t *panel, const float *scales,
                                 size_t m, size_t n, size_t k, float *w, packed_kind kind)
{
    /* Tiles of about the same height: one of a row or two keeps no unit busy. */
    const size_t height = equal_parts(m, PACKED_ROWS, 1);

    for (size_t p0 = 0; p0 < k; p0 += LLM_GEMM_KB) {
        const size_t kb = k - p0 < LLM_GEMM_KB ? k - p0 : LLM_GEMM_KB;
        panel = unpack_block(w, panel, kb, kind);
        for (size_t j = 0; j < n; j += STRIPE)
            for (size_t i = 0; i < m; i += height)
                some_unpacked_rows(m - i < height ? m - i : height, c + i * ldc + j, ldc, a + i * k + p0, k,
                                   w + j * LLM_GEMM_KB, scales, j, n - j, kb, p0 == 0, kind);
        if (kind == PACKED_INT8)
            scales += LLM_PACKED_COLUMNS;
    }
}

LLM_INLINE void packed_product(float *c, size_t ldc, const float *a, const uint32_t *panel, const float *scales,
                               size_t m, size_t n, size_t k, const float *row, float *scratch, packed_kind kind)
{
    /* without inputs there is no block to begin with */
    if (m <= 1 || k == 0)
        for (size_t i = 0; i < m; i++)
            one_packed_row(c + i * ldc, a + i * k, panel, scales, n, k, row, kind);
    else {
        many_packed_rows(c, ldc, a, panel, scales, m, n, k, scratch, kind);
        if (row != NULL)
            add_row(c, ldc, row, m, n);
    }
}

static void packed_bf16(float *c, size_t ldc, const float *a, const uint32_t *panel, const float *scales, size_t m,
                        size_t n, size_t k, const float *row, float *scratch)
{
    packed_product(c, ldc, a, panel, scales, m, n, k, row, scratch, PACKED_BF16);
}

static void packed_int8(float *c, size_t ldc, const float *a, const uint32_t *panel, const float *scales, size_t m,
                        size_t n, size_t k, const float *row, float *scratch)
{
    packed_product(c, ldc, a, panel, scales, m, n, k, row, scratch, PACKED_INT8);
}

static void packed_int4(float *c, size_t ldc, const float *a, const uint32_t *panel, const float *scales, size_t m,
                        size_t n, size_t k, const float *row, float *scratch)
{
    packed_product(c, ldc, a, panel, scales, m, n, k, row, scratch, PACKED_INT4);
}

#define PACKED_KERNELS                                                                                                 \
    { .bf16 = packed_bf16,                                                                                             \
      .int8 = packed_int8,                                                                                             \
      .int4 = packed_int4,                                                                                             \
      .pack_bf16 = pack_bf16,                                                                                          \
      .pack_int8 = pack_int8,                                                                                          \
      .pack_int4 = pack_int4 }

#endif /* LLM_QUANTIZED_KERNELS_H */
