/* vec_neon.h -- vec.h on AArch64's Advanced SIMD: four registers of four lanes. */
#ifndef LLM_VEC_NEON_H
#define LLM_VEC_NEON_H

#include <arm_neon.h>
#include <string.h>

typedef struct v16 {
    float32x4_t q[4];
} v16;
typedef struct v16i {
    uint32x4_t q[4];
} v16i;
typedef struct m16 {
    uint32x4_t q[4];
} m16; /* 0 or all ones per lane */

#define FOUR1(name, T, R, f)                                                                                           \
    LLM_INLINE R name(T x) { return (R){ { f(x.q[0]), f(x.q[1]), f(x.q[2]), f(x.q[3]) } }; }
#define FOUR2(name, T, R, f)                                                                                           \
    LLM_INLINE R name(T x, T y)                                                                                        \
    {                                                                                                                  \
        return (R){ { f(x.q[0], y.q[0]), f(x.q[1], y.q[1]), f(x.q[2], y.q[2]), f(x.q[3], y.q[3]) } };                  \
    }

LLM_INLINE v16 v16_load(const float *p)
{
    return (v16){ { vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12) } };
}
LLM_INLINE void v16_store(float *p, v16 x)
{
    for (int i = 0; i < 4; i++)
        vst1q_f32(p + 4 * i, x.q[i]);
}
LLM_INLINE v16 v16_load_n(const float *p, size_t n)
{
    float t[16] = { 0 };
    memcpy(t, p, (n < 16 ? n : 16) * sizeof *p);
    return v16_load(t);
}
LLM_INLINE void v16_store_n(float *p, v16 x, size_t n)
{
    float t[16];
    v16_store(t, x);
    memcpy(p, t, (n < 16 ? n : 16) * sizeof *p);
}
LLM_INLINE v16 v16_set1(float x)
{
    float32x4_t q = vdupq_n_f32(x);
    return (v16){ { q, q, q, q } };
}
LLM_INLINE v16 v16_zero(void) { return v16_set1(0.0f); }

/* vmaxq and vminq treat NaN and zeros otherwise: comparison and selection follow vec.h's definition. */
#define NEON_MAX(x, y) vbslq_f32(vcgtq_f32(x, y), x, y)
#define NEON_MIN(x, y) vbslq_f32(vcltq_f32(x, y), x, y)
FOUR2(v16_add, v16, v16, vaddq_f32)
FOUR2(v16_sub, v16, v16, vsubq_f32)
FOUR2(v16_mul, v16, v16, vmulq_f32)
FOUR2(v16_div, v16, v16, vdivq_f32)
FOUR2(v16_max, v16, v16, NEON_MAX)
FOUR2(v16_min, v16, v16, NEON_MIN)
FOUR1(v16_sqrt, v16, v16, vsqrtq_f32)
FOUR1(v16_floor, v16, v16, vrndmq_f32)
FOUR1(v16_neg, v16, v16, vnegq_f32)
FOUR1(v16_abs, v16, v16, vabsq_f32)
LLM_INLINE v16 v16_fma(v16 x, v16 y, v16 z)
{
    return (v16){ { vfmaq_f32(z.q[0], x.q[0], y.q[0]), vfmaq_f32(z.q[1], x.q[1], y.q[1]),
                    vfmaq_f32(z.q[2], x.q[2], y.q[2]), vfmaq_f32(z.q[3], x.q[3], y.q[3]) } };
}
LLM_INLINE v16 v16_fnma(v16 x, v16 y, v16 z) { return v16_fma(v16_neg(x), y, z); }

FOUR2(v16_lt, v16, m16, vcltq_f32)
FOUR2(v16_le, v16, m16, vcleq_f32)
FOUR2(v16_gt, v16, m16, vcgtq_f32)
FOUR2(v16_ge, v16, m16, vcgeq_f32)
FOUR2(v16_eq, v16, m16, vceqq_f32)
LLM_INLINE v16 v16_select(m16 m, v16 x, v16 y)
{
    return (v16){ { vbslq_f32(m.q[0], x.q[0], y.q[0]), vbslq_f32(m.q[1], x.q[1], y.q[1]),
                    vbslq_f32(m.q[2], x.q[2], y.q[2]), vbslq_f32(m.q[3], x.q[3], y.q[3]) } };
}

LLM_INLINE float v16_hsum(v16 x)
{
    float32x4_t c = vaddq_f32(vaddq_f32(x.q[0], x.q[2]), vaddq_f32(x.q[1], x.q[3]));
    float32x2_t d = vadd_f32(vget_low_f32(c), vget_high_f32(c));
    return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}

LLM_INLINE float v16_hmax(v16 x)
{
    float32x4_t lo = NEON_MAX(x.q[0], x.q[2]), hi = NEON_MAX(x.q[1], x.q[3]), c = NEON_MAX(lo, hi);
    float a = vgetq_lane_f32(c, 0), b = vgetq_lane_f32(c, 1), e = vgetq_lane_f32(c, 2), f = vgetq_lane_f32(c, 3);
    float even = a > e ? a : e, odd = b > f ? b : f;
    return even > odd ? even : odd;
}

/* vcvtnq saturates; vec.h asks for INT32_MIN wherever the value does not fit. */
LLM_INLINE uint32x4_t neon_to_i(float32x4_t x)
{
    uint32x4_t fits = vcltq_f32(vabsq_f32(x), vdupq_n_f32(0x1p31f));
    return vbslq_u32(fits, vreinterpretq_u32_s32(vcvtnq_s32_f32(x)), vdupq_n_u32(0x80000000u));
}
#define NEON_OF_I(x) vcvtq_f32_s32(vreinterpretq_s32_u32(x))
FOUR1(v16_to_i, v16, v16i, neon_to_i)
FOUR1(v16_of_i, v16i, v16, NEON_OF_I)

LLM_INLINE v16 v16_load_i8(const int8_t *p)
{
    const int8x16_t bytes = vld1q_s8(p);
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    return (v16){ { vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
                    vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))) } };
}

LLM_INLINE v16 v16_load_f16(const uint16_t *p)
{
    v16 r;
    for (int i = 0; i < 4; i++)
        r.q[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)));
    return r;
}
#define NEON_OF_LOW4(x) vcvtq_f32_u32(vandq_u32(x, vdupq_n_u32(15)))
FOUR1(v16_of_low4, v16i, v16, NEON_OF_LOW4)

FOUR1(v16_as_i, v16, v16i, vreinterpretq_u32_f32)
FOUR1(v16i_as_f, v16i, v16, vreinterpretq_f32_u32)

LLM_INLINE v16i v16i_load(const void *p)
{
    v16i r;
    memcpy(&r, p, sizeof r);
    return r;
}
LLM_INLINE void v16i_store(void *p, v16i x) { memcpy(p, &x, sizeof x); }
LLM_INLINE v16i v16i_set1(uint32_t x)
{
    uint32x4_t q = vdupq_n_u32(x);
    return (v16i){ { q, q, q, q } };
}
LLM_INLINE v16i v16i_iota(void)
{
    static const uint32_t lane[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    return v16i_load(lane);
}

LLM_INLINE v16i v16i_mul_wide_u32(v16i *high, v16i x, v16i y)
{
    v16i low;
    for (int i = 0; i < 4; i++) {
        uint32x4_t first = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(x.q[i]), vget_low_u32(y.q[i])));
        uint32x4_t second = vreinterpretq_u32_u64(vmull_high_u32(x.q[i], y.q[i]));
        low.q[i] = vuzp1q_u32(first, second);
        high->q[i] = vuzp2q_u32(first, second);
    }
    return low;
}
#define NEON_GT_S32(x, y) vcgtq_s32(vreinterpretq_s32_u32(x), vreinterpretq_s32_u32(y))
FOUR2(v16i_add, v16i, v16i, vaddq_u32)
FOUR2(v16i_sub, v16i, v16i, vsubq_u32)
FOUR2(v16i_and, v16i, v16i, vandq_u32)
FOUR2(v16i_or, v16i, v16i, vorrq_u32)
FOUR2(v16i_xor, v16i, v16i, veorq_u32)
FOUR2(v16i_eq, v16i, m16, vceqq_u32)
FOUR2(v16i_gt, v16i, m16, NEON_GT_S32)
FOUR2(v16i_lt_u32, v16i, m16, vcltq_u32)
LLM_INLINE v16i v16i_sll(v16i x, int n)
{
    for (int i = 0; i < 4; i++)
        x.q[i] = vshlq_u32(x.q[i], vdupq_n_s32(n));
    return x;
}
LLM_INLINE v16i v16i_srl(v16i x, int n)
{
    for (int i = 0; i < 4; i++)
        x.q[i] = vshlq_u32(x.q[i], vdupq_n_s32(-n));
    return x;
}
LLM_INLINE v16i v16i_sra(v16i x, int n)
{
    for (int i = 0; i < 4; i++)
        x.q[i] = vreinterpretq_u32_s32(vshlq_s32(vreinterpretq_s32_u32(x.q[i]), vdupq_n_s32(-n)));
    return x;
}
LLM_INLINE v16i v16i_select(m16 m, v16i x, v16i y)
{
    return (v16i){ { vbslq_u32(m.q[0], x.q[0], y.q[0]), vbslq_u32(m.q[1], x.q[1], y.q[1]),
                     vbslq_u32(m.q[2], x.q[2], y.q[2]), vbslq_u32(m.q[3], x.q[3], y.q[3]) } };
}

FOUR2(m16_and, m16, m16, vandq_u32)
FOUR2(m16_or, m16, m16, vorrq_u32)
FOUR1(m16_not, m16, m16, vmvnq_u32)
LLM_INLINE m16 m16_first(size_t n) { return v16i_lt_u32(v16i_iota(), v16i_set1(n < 16 ? (uint32_t)n : 16)); }
LLM_INLINE uint32_t m16_bits(m16 x)
{
    static const uint32_t bit[4] = { 1, 2, 4, 8 };
    uint32_t r = 0;
    for (int i = 0; i < 4; i++)
        r |= vaddvq_u32(vandq_u32(x.q[i], vld1q_u32(bit))) << (4 * i);
    return r;
}
LLM_INLINE int m16_any(m16 x) { return m16_bits(x) != 0; }
LLM_INLINE int m16_all(m16 x) { return m16_bits(x) == 0xffff; }

LLM_INLINE void v16_transpose(v16 r[16])
{
    v16 out[16];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) { /* the 4x4 block at row 4i, column 4j goes to row 4j, column 4i */
            float32x4x2_t ab = vtrnq_f32(r[4 * i].q[j], r[4 * i + 1].q[j]);
            float32x4x2_t cd = vtrnq_f32(r[4 * i + 2].q[j], r[4 * i + 3].q[j]);
            out[4 * j].q[i] = vcombine_f32(vget_low_f32(ab.val[0]), vget_low_f32(cd.val[0]));
            out[4 * j + 1].q[i] = vcombine_f32(vget_low_f32(ab.val[1]), vget_low_f32(cd.val[1]));
            out[4 * j + 2].q[i] = vcombine_f32(vget_high_f32(ab.val[0]), vget_high_f32(cd.val[0]));
            out[4 * j + 3].q[i] = vcombine_f32(vget_high_f32(ab.val[1]), vget_high_f32(cd.val[1]));
        }
    for (int i = 0; i < 16; i++)
        r[i] = out[i];
}

enum { V16_COLUMNS = 4 };

LLM_INLINE void v16_load_columns(v16 r[4], const float *p, size_t step, const size_t rows)
{
    for (size_t i = 0; i < 4; i++) {
        float32x4_t t[4];
        for (size_t j = 0; j < 4; j++)
            t[j] = vld1q_f32(p + (4 * i + j < rows ? (4 * i + j) * step : 0));
        float32x4x2_t ab = vtrnq_f32(t[0], t[1]), cd = vtrnq_f32(t[2], t[3]);
        r[0].q[i] = vcombine_f32(vget_low_f32(ab.val[0]), vget_low_f32(cd.val[0]));
        r[1].q[i] = vcombine_f32(vget_low_f32(ab.val[1]), vget_low_f32(cd.val[1]));
        r[2].q[i] = vcombine_f32(vget_high_f32(ab.val[0]), vget_high_f32(cd.val[0]));
        r[3].q[i] = vcombine_f32(vget_high_f32(ab.val[1]), vget_high_f32(cd.val[1]));
    }
}

#undef FOUR1
#undef FOUR2

#endif /* LLM_VEC_NEON_H */
