/*
 * int4_kernels.h -- weights in 4 bits, of one instruction set: packing and unpacking a block, and products of one row.
 * Part of quantized_kernels.h; quantized.h has the layout.
 */
#ifndef LLM_INT4_KERNELS_H
#define LLM_INT4_KERNELS_H

#include "engine/half.h"
#include "engine/quantized.h"
#include "engine/vec.h"

enum {
    INT4_NV = LLM_PACKED_COLUMNS / 16,
    INT4_SCALE_WORDS = LLM_PACKED_COLUMNS, /* of a block: its scales, then its minima, in 16 bits each */
};

/* ---- packing ---- */

/* The bits of the nearest float16 numbers, as llm_half_bits() has them. */
LLM_INLINE v16i half_bits(v16 x)
{
    const v16 size = v16_abs(x);
    const v16i u = v16_as_i(size), sign = v16i_and(v16i_srl(v16_as_i(x), 16), v16i_set1(0x8000));
    const v16i odd = v16i_and(v16i_srl(u, 13), v16i_set1(1));
    const v16i usual = v16i_srl(v16i_add(v16i_add(v16i_sub(u, v16i_set1(112u << 23)), v16i_set1(0xfff)), odd), 13);
    const v16i little = v16i_and(v16_as_i(v16_add(size, v16_set1(0.5f))), v16i_set1(0x7fffff));
    const v16i bits = v16i_select(v16_lt(size, v16_set1(0x1p-14f)), little, usual);

    return v16i_or(sign, v16i_select(v16_ge(size, v16_set1(LLM_LARGEST_HALF)), v16i_set1(0x7bff), bits));
}

LLM_INLINE v16 half_values(v16i bits)
{
    const v16 size = v16i_as_f(v16i_sll(v16i_and(bits, v16i_set1(0x7fff)), 13));

    return v16i_as_f(v16i_or(v16_as_i(v16_mul(size, v16_set1(0x1p112f))), v16i_sll(v16i_srl(bits, 15), 31)));
}

LLM_INLINE v16 nearest_half(v16 x) { return half_values(half_bits(x)); }

/* The q of weights in a block of this scale and minimum. */
LLM_INLINE v16 int4_steps(v16 w, v16 d, v16 m)
{
    const v16 q = v16_select(v16_eq(d, v16_zero()), v16_zero(), v16_div(v16_sub(w, m), d));

    return v16_of_i(v16_to_i(v16_max(v16_zero(), v16_min(v16_set1(15), q))));
}

/* The sum of the squared errors of 16 columns, and the scale and minimum that fit those q best, unrounded. */
LLM_INLINE v16 int4_error(const float *w, size_t n, v16 d, v16 m, v16 *best_d, v16 *best_m)
{
    const v16 count = v16_set1((float)n);
    v16 q1 = v16_zero(), q2 = v16_zero(), w1 = v16_zero(), qw = v16_zero(), error = v16_zero();

    for (size_t k = 0; k < n; k++) {
        const v16 x = v16_load(w + k * LLM_PACKED_COLUMNS), q = int4_steps(x, d, m);
        const v16 off = v16_sub(x, v16_fma(q, d, m));
        error = v16_fma(off, off, error);
        q1 = v16_add(q1, q);
        q2 = v16_fma(q, q, q2);
        w1 = v16_add(w1, x);
        qw = v16_fma(q, x, qw);
    }
    const v16 below = v16_sub(v16_mul(count, q2), v16_mul(q1, q1));
    *best_d = v16_select(v16_gt(below, v16_zero()), v16_div(v16_sub(v16_mul(count, qw), v16_mul(q1, w1)), below), d);
    *best_m = v16_div(v16_fnma(*best_d, q1, w1), count);
    return error;
}

/*
 * A scale and a minimum for 16 columns of n inputs: those of Q4_1, from the smallest to the largest weight in 15 steps,
 * then twice those that fit the q best, while the squared error falls.
 */
LLM_INLINE void fit_int4(const float *w, size_t n, v16 *d, v16 *m)
{
    v16 least = v16_load(w), most = least, next_d, next_m;

    for (size_t k = 1; k < n; k++) {
        const v16 x = v16_load(w + k * LLM_PACKED_COLUMNS);
        least = v16_min(x, least);
        most = v16_max(x, most);
    }
    *m = nearest_half(least);
    *d = nearest_half(v16_div(v16_sub(most, least), v16_set1(15)));
    v16 error = int4_error(w, n, *d, *m, &next_d, &next_m);
    for (int times = 0; times < 2; times++) {
        const v16 try_d = nearest_half(next_d), try_m = nearest_half(next_m);
        const v16 next = int4_error(w, n, try_d, try_m, &next_d, &next_m);
        const m16 better = v16_lt(next, error);
        *d = v16_select(better, try_d, *d);
        *m = v16_select(better, try_m, *m);
        error = v16_select(better, next, error);
    }
}

static void pack_int4(uint32_t *words, const float *w, size_t n, const float *d, const float *m, const uint32_t *known)
{
    uint16_t *halves = (uint16_t *)words;
    v16 scale[INT4_NV], minimum[INT4_NV];

    for (size_t v = 0; v < INT4_NV; v++) {
        const m16 unknown = v16i_eq(v16i_load(known + 16 * v), v16i_set1(0));
        uint32_t bits[2][16];
        fit_int4(w + 16 * v, n, &scale[v], &minimum[v]);
        scale[v] = v16_select(unknown, scale[v], v16_load(d + 16 * v));
        minimum[v] = v16_select(unknown, minimum[v], v16_load(m + 16 * v));
        v16i_store(bits[0], half_bits(scale[v]));
        v16i_store(bits[1], half_bits(minimum[v]));
        for (size_t i = 0; i < 16; i++) {
            halves[16 * v + i] = (uint16_t)bits[0][i];
            halves[LLM_PACKED_COLUMNS + 16 * v + i] = (uint16_t)bits[1][i];
        }
    }
    words += INT4_SCALE_WORDS;
    for (size_t k = 0; k < n; k += 2, words += 16) {
        v16i pair = v16i_set1(0);
        for (size_t at = 2 * INT4_NV; at-- > 0;) {
            const size_t row = k + at / INT4_NV, v = at % INT4_NV;
            const v16 q = row < n ? int4_steps(v16_load(w + row * LLM_PACKED_COLUMNS + 16 * v), scale[v], minimum[v])
                                  : v16_zero();
            pair = v16i_or(v16i_sll(pair, 4), v16_to_i(q));
        }
        v16i_store(words, pair);
    }
}

/* ---- products ---- */

LLM_INLINE size_t int4_words(size_t inputs) { return INT4_SCALE_WORDS + (inputs + 1) / 2 * 16; }

LLM_INLINE void load_int4_scales(v16 *d, v16 *m, const uint32_t *words)
{
    const uint16_t *halves = (const uint16_t *)words;

#pragma GCC unroll 4
    for (size_t v = 0; v < INT4_NV; v++) {
        d[v] = v16_load_f16(halves + 16 * v);
        m[v] = v16_load_f16(halves + LLM_PACKED_COLUMNS + 16 * v);
    }
}

/* Vector v of the weights of the first (0) or second (1) input of a pair. */
LLM_INLINE v16 int4_weights(v16i pair, const size_t which, const size_t v, v16 d, v16 m)
{
    return v16_fma(v16_of_low4(v16i_srl(pair, (int)(16 * which + 4 * v))), d, m);
}

/* sum += a (n) times a block */
LLM_INLINE void add_int4_block(v16 *sum, const float *a, const uint32_t *words, size_t n, size_t distance)
{
    v16 d[INT4_NV], m[INT4_NV];

    load_int4_scales(d, m, words);
#pragma GCC unroll 4
    for (size_t line = 0; line < INT4_SCALE_WORDS; line += 16)
        __builtin_prefetch((const char *)(words + line) + distance);
    words += INT4_SCALE_WORDS;
#pragma GCC unroll 4
    for (size_t k = 0; k < n; k += 2, words += 16) {
        const v16i pair = v16i_load(words);
        const v16 first = v16_set1(a[k]);
        __builtin_prefetch((const char *)words + distance);
#pragma GCC unroll 4
        for (size_t v = 0; v < INT4_NV; v++)
            sum[v] = v16_fma(first, int4_weights(pair, 0, v, d[v], m[v]), sum[v]);
        if (k + 1 < n) {
            const v16 second = v16_set1(a[k + 1]);
#pragma GCC unroll 4
            for (size_t v = 0; v < INT4_NV; v++)
                sum[v] = v16_fma(second, int4_weights(pair, 1, v, d[v], m[v]), sum[v]);
        }
    }
}

/* out[v] + k * step: vector v of the weights of input k, for the n inputs of a block */
LLM_INLINE void unpack_int4(float *const *out, size_t step, const uint32_t *words, size_t n)
{
    v16 d[INT4_NV], m[INT4_NV];

    load_int4_scales(d, m, words);
    words += INT4_SCALE_WORDS;
    for (size_t k = 0; k < n; k += 2, words += 16) {
        const v16i pair = v16i_load(words);
#pragma GCC unroll 4
        for (size_t v = 0; v < INT4_NV; v++) {
            v16_store(out[v] + k * step, int4_weights(pair, 0, v, d[v], m[v]));
            if (k + 1 < n)
                v16_store(out[v] + (k + 1) * step, int4_weights(pair, 1, v, d[v], m[v]));
        }
    }
}

#endif /* LLM_INT4_KERNELS_H */
