/*
 * exp_kernels.h -- e^x in 16 lanes, below 1 ulp over all of float, subnormal results included.
 *
 * x = n ln 2 + r with |r| <= ln(2)/2; e^r = 1 + r + r^2 q(r), q the minimax polynomial of degree 5 for the
 * relative error of e^r (2^-33.2), its coefficients rounded to float one by one and refitted.
 */
#ifndef LLM_EXP_KERNELS_H
#define LLM_EXP_KERNELS_H

#define EXP_LOG2_E 0x1.715476p+0f
#define EXP_LN2_HI 0x1.62e430p-1f /* ln 2 rounded to float, and the rest */
#define EXP_LN2_LO -0x1.05c610p-29f
#define EXP_MIN    -104.0f /* below, e^x rounds to 0; above EXP_MAX it overflows */
#define EXP_MAX    89.0f

#ifndef V16_SCALE2
/* 2^n for -126 <= n <= 127 */
LLM_INLINE v16 v16_power_of_two(v16i n) { return v16i_as_f(v16i_sll(v16i_add(n, v16i_set1(127)), 23)); }

/* a 2^n for -252 <= n <= 254 and a near 1: two factors, for 2^n may lie beyond float; the first product is exact */
LLM_INLINE v16 v16_scale2(v16 a, v16i n)
{
    v16i half = v16i_sra(n, 1);

    return v16_mul(v16_mul(a, v16_power_of_two(half)), v16_power_of_two(v16i_sub(n, half)));
}
#endif

static inline v16 v16_exp(v16 x)
{
    v16 clamped = v16_min(v16_max(x, v16_set1(EXP_MIN)), v16_set1(EXP_MAX));
    v16i n = v16_to_i(v16_mul(clamped, v16_set1(EXP_LOG2_E)));
    v16 k = v16_of_i(n);
    v16 r = v16_fnma(k, v16_set1(EXP_LN2_LO), v16_fnma(k, v16_set1(EXP_LN2_HI), clamped));
    v16 q = v16_set1(0x1.9df77cp-13f);

    q = v16_fma(q, r, v16_set1(0x1.6d4ccap-10f));
    q = v16_fma(q, r, v16_set1(0x1.111310p-7f));
    q = v16_fma(q, r, v16_set1(0x1.5554e8p-5f));
    q = v16_fma(q, r, v16_set1(0x1.555554p-3f));
    q = v16_fma(q, r, v16_set1(0.5f));
    q = v16_add(v16_set1(1.0f), v16_fma(v16_mul(r, r), q, r));
    q = v16_scale2(q, n);
    return v16_select(v16_eq(x, x), q, v16i_as_f(v16i_set1(0x7fc00000u))); /* NaN: the canonical one */
}

#endif /* LLM_EXP_KERNELS_H */
