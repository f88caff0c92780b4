/* vec_avx2.h -- vec.h on AVX2 and FMA: two registers, lanes 0-7 in a and 8-15 in b. */
#ifndef LLM_VEC_AVX2_H
#define LLM_VEC_AVX2_H

#include <immintrin.h>

typedef struct v16 {
    __m256 a, b;
} v16;
typedef struct v16i {
    __m256i a, b;
} v16i;
typedef struct m16 {
    __m256 a, b;
} m16; /* 0 or all ones per lane */

#define BOTH1(name, T, R, f)                                                                                           \
    LLM_INLINE R name(T x) { return (R){ f(x.a), f(x.b) }; }
#define BOTH2(name, T, R, f)                                                                                           \
    LLM_INLINE R name(T x, T y) { return (R){ f(x.a, y.a), f(x.b, y.b) }; }

LLM_INLINE __m256i avx2_first(size_t n, int from)
{
    int left = n < 16 ? (int)n - from : 16 - from;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LLM_INLINE v16 v16_load(const float *p) { return (v16){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
LLM_INLINE void v16_store(float *p, v16 x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
LLM_INLINE v16 v16_load_n(const float *p, size_t n)
{
    return (v16){ _mm256_maskload_ps(p, avx2_first(n, 0)), _mm256_maskload_ps(p + 8, avx2_first(n, 8)) };
}
LLM_INLINE void v16_store_n(float *p, v16 x, size_t n)
{
    _mm256_maskstore_ps(p, avx2_first(n, 0), x.a);
    _mm256_maskstore_ps(p + 8, avx2_first(n, 8), x.b);
}
LLM_INLINE v16 v16_set1(float x) { return (v16){ _mm256_set1_ps(x), _mm256_set1_ps(x) }; }
LLM_INLINE v16 v16_zero(void) { return (v16){ _mm256_setzero_ps(), _mm256_setzero_ps() }; }

#define AVX2_FLOOR(x) _mm256_round_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)
#define AVX2_NEG(x)   _mm256_xor_ps(x, _mm256_set1_ps(-0.0f))
#define AVX2_ABS(x)   _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x)
BOTH2(v16_add, v16, v16, _mm256_add_ps)
BOTH2(v16_sub, v16, v16, _mm256_sub_ps)
BOTH2(v16_mul, v16, v16, _mm256_mul_ps)
BOTH2(v16_div, v16, v16, _mm256_div_ps)
BOTH2(v16_max, v16, v16, _mm256_max_ps)
BOTH2(v16_min, v16, v16, _mm256_min_ps)
BOTH1(v16_sqrt, v16, v16, _mm256_sqrt_ps)
BOTH1(v16_floor, v16, v16, AVX2_FLOOR)
BOTH1(v16_neg, v16, v16, AVX2_NEG)
BOTH1(v16_abs, v16, v16, AVX2_ABS)
LLM_INLINE v16 v16_fma(v16 x, v16 y, v16 z)
{
    return (v16){ _mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b) };
}
LLM_INLINE v16 v16_fnma(v16 x, v16 y, v16 z)
{
    return (v16){ _mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b) };
}

#define AVX2_LT(x, y) _mm256_cmp_ps(x, y, _CMP_LT_OQ)
#define AVX2_LE(x, y) _mm256_cmp_ps(x, y, _CMP_LE_OQ)
#define AVX2_GT(x, y) _mm256_cmp_ps(x, y, _CMP_GT_OQ)
#define AVX2_GE(x, y) _mm256_cmp_ps(x, y, _CMP_GE_OQ)
#define AVX2_EQ(x, y) _mm256_cmp_ps(x, y, _CMP_EQ_OQ)
BOTH2(v16_lt, v16, m16, AVX2_LT)
BOTH2(v16_le, v16, m16, AVX2_LE)
BOTH2(v16_gt, v16, m16, AVX2_GT)
BOTH2(v16_ge, v16, m16, AVX2_GE)
BOTH2(v16_eq, v16, m16, AVX2_EQ)
LLM_INLINE v16 v16_select(m16 m, v16 x, v16 y)
{
    return (v16){ _mm256_blendv_ps(y.a, x.a, m.a), _mm256_blendv_ps(y.b, x.b, m.b) };
}

LLM_INLINE float v16_hsum(v16 x)
{
    __m256 b = _mm256_add_ps(x.a, x.b);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

LLM_INLINE float v16_hmax(v16 x)
{
    __m256 b = _mm256_max_ps(x.a, x.b);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    __m128 d = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)));
}

BOTH1(v16_to_i, v16, v16i, _mm256_cvtps_epi32)
BOTH1(v16_of_i, v16i, v16, _mm256_cvtepi32_ps)

LLM_INLINE __m256 avx2_load_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
LLM_INLINE v16 v16_load_i8(const int8_t *p) { return (v16){ avx2_load_i8(p), avx2_load_i8(p + 8) }; }

/* Exponent and fraction moved into a float's, whose exponent is then 112 too small: for small numbers, too. */
LLM_INLINE __m256 avx2_load_f16(const uint16_t *p)
{
    const __m256i half = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    const __m256i size = _mm256_slli_epi32(_mm256_and_si256(half, _mm256_set1_epi32(0x7fff)), 13);
    const __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(half, 15), 31);
    return _mm256_or_ps(_mm256_mul_ps(_mm256_castsi256_ps(size), _mm256_set1_ps(0x1p112f)), _mm256_castsi256_ps(sign));
}
LLM_INLINE v16 v16_load_f16(const uint16_t *p) { return (v16){ avx2_load_f16(p), avx2_load_f16(p + 8) }; }

#define AVX2_OF_LOW4(x) _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(15)))
BOTH1(v16_of_low4, v16i, v16, AVX2_OF_LOW4)

BOTH1(v16_as_i, v16, v16i, _mm256_castps_si256)
BOTH1(v16i_as_f, v16i, v16, _mm256_castsi256_ps)

LLM_INLINE v16i v16i_load(const void *p)
{
    return (v16i){ _mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)p + 1) };
}
LLM_INLINE void v16i_store(void *p, v16i x)
{
    _mm256_storeu_si256((__m256i *)p, x.a);
    _mm256_storeu_si256((__m256i *)p + 1, x.b);
}
LLM_INLINE v16i v16i_set1(uint32_t x) { return (v16i){ _mm256_set1_epi32((int)x), _mm256_set1_epi32((int)x) }; }
LLM_INLINE v16i v16i_iota(void)
{
    return (v16i){ _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15) };
}

/* Both halves from the same two products: vpmulld would take as long again. Shuffles, for shifts have but one unit. */
LLM_INLINE __m256i avx2_mul_wide_u32(__m256i *high, __m256i x, __m256i y)
{
    __m256i even = _mm256_mul_epu32(x, y);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(y, 32));
    *high = _mm256_blend_epi32(_mm256_shuffle_epi32(even, 0xf5), odd, 0xaa);
    return _mm256_blend_epi32(even, _mm256_shuffle_epi32(odd, 0xa0), 0xaa);
}
LLM_INLINE v16i v16i_mul_wide_u32(v16i *high, v16i x, v16i y)
{
    return (v16i){ avx2_mul_wide_u32(&high->a, x.a, y.a), avx2_mul_wide_u32(&high->b, x.b, y.b) };
}

/* Signed comparison of values shifted by 2^31 is the unsigned one. */
LLM_INLINE __m256 avx2_lt_u32(__m256i x, __m256i y)
{
    const __m256i top = _mm256_set1_epi32(INT32_MIN);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_xor_si256(y, top), _mm256_xor_si256(x, top)));
}

#define AVX2_EQ_I(x, y) _mm256_castsi256_ps(_mm256_cmpeq_epi32(x, y))
#define AVX2_GT_I(x, y) _mm256_castsi256_ps(_mm256_cmpgt_epi32(x, y))
BOTH2(v16i_add, v16i, v16i, _mm256_add_epi32)
BOTH2(v16i_sub, v16i, v16i, _mm256_sub_epi32)
BOTH2(v16i_and, v16i, v16i, _mm256_and_si256)
BOTH2(v16i_or, v16i, v16i, _mm256_or_si256)
BOTH2(v16i_xor, v16i, v16i, _mm256_xor_si256)
BOTH2(v16i_eq, v16i, m16, AVX2_EQ_I)
BOTH2(v16i_gt, v16i, m16, AVX2_GT_I)
BOTH2(v16i_lt_u32, v16i, m16, avx2_lt_u32)
LLM_INLINE v16i v16i_sll(v16i x, int n) { return (v16i){ _mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n) }; }
LLM_INLINE v16i v16i_srl(v16i x, int n) { return (v16i){ _mm256_srli_epi32(x.a, n), _mm256_srli_epi32(x.b, n) }; }
LLM_INLINE v16i v16i_sra(v16i x, int n) { return (v16i){ _mm256_srai_epi32(x.a, n), _mm256_srai_epi32(x.b, n) }; }
LLM_INLINE v16i v16i_select(m16 m, v16i x, v16i y) { return v16_as_i(v16_select(m, v16i_as_f(x), v16i_as_f(y))); }

BOTH2(m16_and, m16, m16, _mm256_and_ps)
BOTH2(m16_or, m16, m16, _mm256_or_ps)
LLM_INLINE m16 m16_not(m16 x)
{
    const __m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    return (m16){ _mm256_xor_ps(x.a, ones), _mm256_xor_ps(x.b, ones) };
}
LLM_INLINE m16 m16_first(size_t n)
{
    return (m16){ _mm256_castsi256_ps(avx2_first(n, 0)), _mm256_castsi256_ps(avx2_first(n, 8)) };
}
LLM_INLINE uint32_t m16_bits(m16 x)
{
    return (uint32_t)_mm256_movemask_ps(x.a) | (uint32_t)_mm256_movemask_ps(x.b) << 8;
}
LLM_INLINE int m16_any(m16 x) { return m16_bits(x) != 0; }
LLM_INLINE int m16_all(m16 x) { return m16_bits(x) == 0xffff; }

LLM_INLINE void avx2_transpose8(__m256 r[8])
{
    __m256 t[8], u[8];
    for (int q = 0; q < 8; q += 4) {
        t[q] = _mm256_unpacklo_ps(r[q], r[q + 1]);
        t[q + 1] = _mm256_unpackhi_ps(r[q], r[q + 1]);
        t[q + 2] = _mm256_unpacklo_ps(r[q + 2], r[q + 3]);
        t[q + 3] = _mm256_unpackhi_ps(r[q + 2], r[q + 3]);
        u[q] = _mm256_shuffle_ps(t[q], t[q + 2], 0x44);
        u[q + 1] = _mm256_shuffle_ps(t[q], t[q + 2], 0xee);
        u[q + 2] = _mm256_shuffle_ps(t[q + 1], t[q + 3], 0x44);
        u[q + 3] = _mm256_shuffle_ps(t[q + 1], t[q + 3], 0xee);
    }
    for (int c = 0; c < 4; c++) {
        r[c] = _mm256_permute2f128_ps(u[c], u[4 + c], 0x20);
        r[4 + c] = _mm256_permute2f128_ps(u[c], u[4 + c], 0x31);
    }
}

LLM_INLINE void v16_transpose(v16 r[16])
{
    __m256 q[4][8];
    for (int i = 0; i < 8; i++) {
        q[0][i] = r[i].a, q[1][i] = r[i].b;
        q[2][i] = r[8 + i].a, q[3][i] = r[8 + i].b;
    }
    for (int i = 0; i < 4; i++)
        avx2_transpose8(q[i]);
    for (int i = 0; i < 8; i++) {
        r[i] = (v16){ q[0][i], q[2][i] };
        r[8 + i] = (v16){ q[1][i], q[3][i] };
    }
}

/* Four columns fit into registers. Halves are put together by loading: vperm2f128 is slow on some processors. */
enum { V16_COLUMNS = 4 };

LLM_INLINE void avx2_load_columns8(__m256 r[4], const float *p, size_t step, const size_t rows)
{
    __m256 t[4];

#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++)
        t[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + (i < rows ? i * step : 0))),
                                    _mm_loadu_ps(p + (i + 4 < rows ? (i + 4) * step : 0)), 1);
    __m256 ab = _mm256_unpacklo_ps(t[0], t[1]), cd = _mm256_unpacklo_ps(t[2], t[3]);
    r[0] = _mm256_shuffle_ps(ab, cd, 0x44);
    r[1] = _mm256_shuffle_ps(ab, cd, 0xee);
    ab = _mm256_unpackhi_ps(t[0], t[1]), cd = _mm256_unpackhi_ps(t[2], t[3]);
    r[2] = _mm256_shuffle_ps(ab, cd, 0x44);
    r[3] = _mm256_shuffle_ps(ab, cd, 0xee);
}

LLM_INLINE void v16_load_columns(v16 r[4], const float *p, size_t step, const size_t rows)
{
    __m256 a[4], b[4];

    avx2_load_columns8(a, p, step, rows);
    if (rows > 8)
        avx2_load_columns8(b, p + 8 * step, step, rows - 8);
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++)
        r[i] = (v16){ a[i], rows > 8 ? b[i] : a[i] };
}

#undef BOTH1
#undef BOTH2

#endif /* LLM_VEC_AVX2_H */
