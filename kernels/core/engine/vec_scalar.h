/*
 * vec_scalar.h -- vec.h in plain C, the reference of the other three.
 * fmaf of libm is correctly rounded, whatever the machine has.
 */
#ifndef LLM_VEC_SCALAR_H
#define LLM_VEC_SCALAR_H

#include "half.h"

#include <math.h>
#include <string.h>

typedef struct v16 {
    float f[16];
} v16;
typedef struct v16i {
    uint32_t u[16];
} v16i;
typedef struct m16 {
    uint32_t u[16];
} m16; /* 0 or all ones */

#define LANES for (int i = 0; i < 16; i++)
#define V16_UNARY(name, expr)                                                                                          \
    LLM_INLINE v16 name(v16 a)                                                                                         \
    {                                                                                                                  \
        v16 r;                                                                                                         \
        LANES                                                                                                          \
        {                                                                                                              \
            float x = a.f[i];                                                                                          \
            r.f[i] = (expr);                                                                                           \
        }                                                                                                              \
        return r;                                                                                                      \
    }
#define V16_BINARY(name, expr)                                                                                         \
    LLM_INLINE v16 name(v16 a, v16 b)                                                                                  \
    {                                                                                                                  \
        v16 r;                                                                                                         \
        LANES                                                                                                          \
        {                                                                                                              \
            float x = a.f[i], y = b.f[i];                                                                              \
            r.f[i] = (expr);                                                                                           \
        }                                                                                                              \
        return r;                                                                                                      \
    }
#define V16_COMPARE(name, op)                                                                                          \
    LLM_INLINE m16 name(v16 a, v16 b)                                                                                  \
    {                                                                                                                  \
        m16 r;                                                                                                         \
        LANES r.u[i] = a.f[i] op b.f[i] ? UINT32_MAX : 0;                                                              \
        return r;                                                                                                      \
    }
#define V16I_BINARY(name, expr)                                                                                        \
    LLM_INLINE v16i name(v16i a, v16i b)                                                                               \
    {                                                                                                                  \
        v16i r;                                                                                                        \
        LANES                                                                                                          \
        {                                                                                                              \
            uint32_t x = a.u[i], y = b.u[i];                                                                           \
            r.u[i] = (expr);                                                                                           \
        }                                                                                                              \
        return r;                                                                                                      \
    }
#define V16I_COMPARE(name, expr)                                                                                       \
    LLM_INLINE m16 name(v16i a, v16i b)                                                                                \
    {                                                                                                                  \
        m16 r;                                                                                                         \
        LANES                                                                                                          \
        {                                                                                                              \
            uint32_t x = a.u[i], y = b.u[i];                                                                           \
            r.u[i] = (expr) ? UINT32_MAX : 0;                                                                          \
        }                                                                                                              \
        return r;                                                                                                      \
    }

LLM_INLINE v16 v16_load(const float *p)
{
    v16 r;
    memcpy(&r, p, sizeof r);
    return r;
}
LLM_INLINE void v16_store(float *p, v16 a) { memcpy(p, &a, sizeof a); }
LLM_INLINE v16 v16_load_n(const float *p, size_t n)
{
    v16 r;
    LANES r.f[i] = (size_t)i < n ? p[i] : 0.0f;
    return r;
}
LLM_INLINE void v16_store_n(float *p, v16 a, size_t n) { LANES if ((size_t)i < n) p[i] = a.f[i]; }
LLM_INLINE v16 v16_set1(float x)
{
    v16 r;
    LANES r.f[i] = x;
    return r;
}
LLM_INLINE v16 v16_zero(void) { return v16_set1(0.0f); }

V16_BINARY(v16_add, x + y)
V16_BINARY(v16_sub, x - y)
V16_BINARY(v16_mul, x *y)
V16_BINARY(v16_div, x / y)
V16_BINARY(v16_max, x > y ? x : y)
V16_BINARY(v16_min, x < y ? x : y)
V16_UNARY(v16_sqrt, __builtin_sqrtf(x))
V16_UNARY(v16_floor, __builtin_floorf(x))
V16_UNARY(v16_neg, -x)
V16_UNARY(v16_abs, __builtin_fabsf(x))
LLM_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    v16 r;
    LANES r.f[i] = __builtin_fmaf(a.f[i], b.f[i], c.f[i]);
    return r;
}
LLM_INLINE v16 v16_fnma(v16 a, v16 b, v16 c) { return v16_fma(v16_neg(a), b, c); }

V16_COMPARE(v16_lt, <)
V16_COMPARE(v16_le, <=)
V16_COMPARE(v16_gt, >)
V16_COMPARE(v16_ge, >=)
V16_COMPARE(v16_eq, ==)
LLM_INLINE v16 v16_select(m16 m, v16 a, v16 b)
{
    v16 r;
    LANES r.f[i] = m.u[i] ? a.f[i] : b.f[i];
    return r;
}

LLM_INLINE float v16_hsum(v16 a)
{
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            a.f[i] = a.f[i] + a.f[i + half];
    return a.f[0];
}

LLM_INLINE float v16_hmax(v16 a)
{
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            a.f[i] = a.f[i] > a.f[i + half] ? a.f[i] : a.f[i + half];
    return a.f[0];
}

/* Nearest even by floor: x - floor(x) is exact, so the tie is seen exactly. */
LLM_INLINE uint32_t scalar_to_i(float x)
{
    if (!(__builtin_fabsf(x) < 0x1p31f))
        return 0x80000000u;
    float down = __builtin_floorf(x), rest = x - down;
    int32_t n = (int32_t)down;
    return (uint32_t)(n + (rest > 0.5f || (rest == 0.5f && (n & 1))));
}

LLM_INLINE v16i v16_to_i(v16 a)
{
    v16i r;
    LANES r.u[i] = scalar_to_i(a.f[i]);
    return r;
}
LLM_INLINE v16 v16_load_i8(const int8_t *p)
{
    v16 r;
    LANES r.f[i] = p[i];
    return r;
}
LLM_INLINE v16 v16_load_f16(const uint16_t *p)
{
    v16 r;
    LANES r.f[i] = llm_half_value(p[i]);
    return r;
}
LLM_INLINE v16 v16_of_low4(v16i a)
{
    v16 r;
    LANES r.f[i] = (float)(a.u[i] & 15);
    return r;
}
LLM_INLINE v16 v16_of_i(v16i a)
{
    v16 r;
    LANES r.f[i] = (float)(int32_t)a.u[i];
    return r;
}
LLM_INLINE v16i v16_as_i(v16 a)
{
    v16i r;
    memcpy(&r, &a, sizeof r);
    return r;
}
LLM_INLINE v16 v16i_as_f(v16i a)
{
    v16 r;
    memcpy(&r, &a, sizeof r);
    return r;
}

LLM_INLINE void v16_transpose(v16 r[16])
{
    LANES for (int j = 0; j < i; j++)
    {
        float t = r[i].f[j];
        r[i].f[j] = r[j].f[i];
        r[j].f[i] = t;
    }
}

enum { V16_COLUMNS = 1 };

LLM_INLINE void v16_load_columns(v16 *r, const float *p, size_t step, const size_t rows)
{
    LANES r->f[i] = (size_t)i < rows ? p[(size_t)i * step] : 0;
}

LLM_INLINE v16i v16i_load(const void *p)
{
    v16i r;
    memcpy(&r, p, sizeof r);
    return r;
}
LLM_INLINE void v16i_store(void *p, v16i a) { memcpy(p, &a, sizeof a); }
LLM_INLINE v16i v16i_set1(uint32_t x)
{
    v16i r;
    LANES r.u[i] = x;
    return r;
}
LLM_INLINE v16i v16i_iota(void)
{
    v16i r;
    LANES r.u[i] = (uint32_t)i;
    return r;
}
V16I_BINARY(v16i_add, x + y)
V16I_BINARY(v16i_sub, x - y)
V16I_BINARY(v16i_and, x &y)
V16I_BINARY(v16i_or, x | y)
V16I_BINARY(v16i_xor, x ^ y)
LLM_INLINE v16i v16i_mul_wide_u32(v16i *high, v16i a, v16i b)
{
    v16i low;
    LANES
    {
        uint64_t product = (uint64_t)a.u[i] * b.u[i];
        low.u[i] = (uint32_t)product;
        high->u[i] = (uint32_t)(product >> 32);
    }
    return low;
}
LLM_INLINE v16i v16i_sll(v16i a, int n)
{
    LANES a.u[i] <<= n;
    return a;
}
LLM_INLINE v16i v16i_srl(v16i a, int n)
{
    LANES a.u[i] >>= n;
    return a;
}
LLM_INLINE v16i v16i_sra(v16i a, int n)
{
    LANES a.u[i] = (uint32_t)((int32_t)a.u[i] >> n);
    return a;
}
V16I_COMPARE(v16i_eq, x == y)
V16I_COMPARE(v16i_gt, (int32_t)x > (int32_t)y)
V16I_COMPARE(v16i_lt_u32, x < y)
LLM_INLINE v16i v16i_select(m16 m, v16i a, v16i b)
{
    v16i r;
    LANES r.u[i] = m.u[i] ? a.u[i] : b.u[i];
    return r;
}

LLM_INLINE m16 m16_and(m16 a, m16 b)
{
    LANES a.u[i] &= b.u[i];
    return a;
}
LLM_INLINE m16 m16_or(m16 a, m16 b)
{
    LANES a.u[i] |= b.u[i];
    return a;
}
LLM_INLINE m16 m16_not(m16 a)
{
    LANES a.u[i] = ~a.u[i];
    return a;
}
LLM_INLINE m16 m16_first(size_t n)
{
    m16 r;
    LANES r.u[i] = (size_t)i < n ? UINT32_MAX : 0;
    return r;
}
LLM_INLINE uint32_t m16_bits(m16 a)
{
    uint32_t r = 0;
    LANES r |= (a.u[i] & 1) << i;
    return r;
}
LLM_INLINE int m16_any(m16 a) { return m16_bits(a) != 0; }
LLM_INLINE int m16_all(m16 a) { return m16_bits(a) == 0xffff; }

#undef LANES
#undef V16_UNARY
#undef V16_BINARY
#undef V16_COMPARE
#undef V16I_BINARY
#undef V16I_COMPARE

#endif /* LLM_VEC_SCALAR_H */
