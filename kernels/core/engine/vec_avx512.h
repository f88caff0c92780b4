/* vec_avx512.h -- vec.h on AVX-512 (F, DQ, BW, VL): one register. */
#ifndef LLM_VEC_AVX512_H
#define LLM_VEC_AVX512_H

#include <immintrin.h>

typedef __m512 v16;
typedef __m512i v16i;
typedef __mmask16 m16;

LLM_INLINE m16 m16_first(size_t n) { return (m16)((1u << (n < 16 ? n : 16)) - 1); }
LLM_INLINE m16 m16_and(m16 a, m16 b) { return (m16)(a & b); }
LLM_INLINE m16 m16_or(m16 a, m16 b) { return (m16)(a | b); }
LLM_INLINE m16 m16_not(m16 a) { return (m16)~a; }
LLM_INLINE uint32_t m16_bits(m16 a) { return a; }
LLM_INLINE int m16_any(m16 a) { return a != 0; }
LLM_INLINE int m16_all(m16 a) { return a == 0xffff; }

LLM_INLINE v16 v16_load(const float *p) { return _mm512_loadu_ps(p); }
LLM_INLINE void v16_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
LLM_INLINE v16 v16_load_n(const float *p, size_t n) { return _mm512_maskz_loadu_ps(m16_first(n), p); }
LLM_INLINE void v16_store_n(float *p, v16 a, size_t n) { _mm512_mask_storeu_ps(p, m16_first(n), a); }
LLM_INLINE v16 v16_set1(float x) { return _mm512_set1_ps(x); }
LLM_INLINE v16 v16_zero(void) { return _mm512_setzero_ps(); }

LLM_INLINE v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
LLM_INLINE v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
LLM_INLINE v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
LLM_INLINE v16 v16_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
LLM_INLINE v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
LLM_INLINE v16 v16_fnma(v16 a, v16 b, v16 c) { return _mm512_fnmadd_ps(a, b, c); }
LLM_INLINE v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
LLM_INLINE v16 v16_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
LLM_INLINE v16 v16_sqrt(v16 a) { return _mm512_sqrt_ps(a); }
LLM_INLINE v16 v16_floor(v16 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
LLM_INLINE v16 v16_neg(v16 a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
LLM_INLINE v16 v16_abs(v16 a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }

LLM_INLINE m16 v16_lt(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
LLM_INLINE m16 v16_le(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
LLM_INLINE m16 v16_gt(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
LLM_INLINE m16 v16_ge(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
LLM_INLINE m16 v16_eq(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
LLM_INLINE v16 v16_select(m16 m, v16 a, v16 b) { return _mm512_mask_blend_ps(m, b, a); }

LLM_INLINE float v16_hsum(v16 a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

LLM_INLINE float v16_hmax(v16 a)
{
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    __m128 d = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)));
}

LLM_INLINE v16i v16_to_i(v16 a) { return _mm512_cvtps_epi32(a); }
LLM_INLINE v16 v16_of_i(v16i a) { return _mm512_cvtepi32_ps(a); }
LLM_INLINE v16 v16_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
LLM_INLINE v16 v16_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
/* The permutation reads no other bits of its indices. */
LLM_INLINE v16 v16_of_low4(v16i a)
{
    return _mm512_permutexvar_ps(a, _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}
LLM_INLINE v16i v16_as_i(v16 a) { return _mm512_castps_si512(a); }
LLM_INLINE v16 v16i_as_f(v16i a) { return _mm512_castsi512_ps(a); }

LLM_INLINE v16i v16i_load(const void *p) { return _mm512_loadu_si512(p); }
LLM_INLINE void v16i_store(void *p, v16i a) { _mm512_storeu_si512(p, a); }
LLM_INLINE v16i v16i_set1(uint32_t x) { return _mm512_set1_epi32((int)x); }
LLM_INLINE v16i v16i_iota(void) { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
LLM_INLINE v16i v16i_add(v16i a, v16i b) { return _mm512_add_epi32(a, b); }
LLM_INLINE v16i v16i_sub(v16i a, v16i b) { return _mm512_sub_epi32(a, b); }
LLM_INLINE v16i v16i_and(v16i a, v16i b) { return _mm512_and_si512(a, b); }
LLM_INLINE v16i v16i_or(v16i a, v16i b) { return _mm512_or_si512(a, b); }
LLM_INLINE v16i v16i_xor(v16i a, v16i b) { return _mm512_xor_si512(a, b); }
LLM_INLINE v16i v16i_sll(v16i a, int n) { return (v16i)((__v16su)a << n); }
LLM_INLINE v16i v16i_srl(v16i a, int n) { return (v16i)((__v16su)a >> n); }
LLM_INLINE v16i v16i_sra(v16i a, int n) { return (v16i)((__v16si)a >> n); }
LLM_INLINE m16 v16i_eq(v16i a, v16i b) { return _mm512_cmpeq_epi32_mask(a, b); }
LLM_INLINE m16 v16i_gt(v16i a, v16i b) { return _mm512_cmpgt_epi32_mask(a, b); }
LLM_INLINE m16 v16i_lt_u32(v16i a, v16i b) { return _mm512_cmplt_epu32_mask(a, b); }
LLM_INLINE v16i v16i_select(m16 m, v16i a, v16i b) { return _mm512_mask_blend_epi32(m, b, a); }

#define V16_SCALE2
LLM_INLINE v16 v16_scale2(v16 a, v16i n) { return _mm512_scalef_ps(a, _mm512_cvtepi32_ps(n)); }

LLM_INLINE v16i v16i_mul_wide_u32(v16i *high, v16i a, v16i b)
{
    __m512i even = _mm512_mul_epu32(a, b);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
    *high = _mm512_mask_shuffle_epi32(odd, 0x5555, even, 0xf5);
    return _mm512_mask_shuffle_epi32(even, 0xaaaa, odd, 0xa0);
}

/* Pairs, fours, then 128-bit lanes: lane l of column 4q + c ends in row 4l + c, position q. */
LLM_INLINE void v16_transpose(v16 r[16])
{
    v16 t[16], u[16];
    for (int q = 0; q < 16; q += 4) {
        t[q] = _mm512_unpacklo_ps(r[q], r[q + 1]);
        t[q + 1] = _mm512_unpackhi_ps(r[q], r[q + 1]);
        t[q + 2] = _mm512_unpacklo_ps(r[q + 2], r[q + 3]);
        t[q + 3] = _mm512_unpackhi_ps(r[q + 2], r[q + 3]);
        u[q] = _mm512_shuffle_ps(t[q], t[q + 2], 0x44);
        u[q + 1] = _mm512_shuffle_ps(t[q], t[q + 2], 0xee);
        u[q + 2] = _mm512_shuffle_ps(t[q + 1], t[q + 3], 0x44);
        u[q + 3] = _mm512_shuffle_ps(t[q + 1], t[q + 3], 0xee);
    }
    for (int c = 0; c < 4; c++) {
        v16 lo01 = _mm512_shuffle_f32x4(u[c], u[4 + c], 0x88), hi01 = _mm512_shuffle_f32x4(u[c], u[4 + c], 0xdd);
        v16 lo23 = _mm512_shuffle_f32x4(u[8 + c], u[12 + c], 0x88),
            hi23 = _mm512_shuffle_f32x4(u[8 + c], u[12 + c], 0xdd);
        r[c] = _mm512_shuffle_f32x4(lo01, lo23, 0x88);
        r[4 + c] = _mm512_shuffle_f32x4(hi01, hi23, 0x88);
        r[8 + c] = _mm512_shuffle_f32x4(lo01, lo23, 0xdd);
        r[12 + c] = _mm512_shuffle_f32x4(hi01, hi23, 0xdd);
    }
}

enum { V16_COLUMNS = 16 };

LLM_INLINE void v16_load_columns(v16 r[16], const float *p, size_t step, const size_t rows)
{
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        r[i] = v16_load(p + (i < rows ? i * step : 0));
    v16_transpose(r);
}

#endif /* LLM_VEC_AVX512_H */
