/*
 * gelu_exact_kernels.h -- GELU by the normal distribution itself, x Phi(x) (Hendrycks & Gimpel 2016), and its derivative.
 *
 * Phi(-a) = exp(-a^2/2) R(a) for a >= 0, where R(a) = exp(a^2/2) erfc(a / sqrt(2)) / 2 is Mills' ratio over
 * sqrt(2 pi): smooth, without the cancellation of 1 + erf, so that the left tail keeps its relative accuracy.
 * R(a) = t p(1 - 2 K t), t = 1/(a + K), K = 4; p is the minimax polynomial of degree 10 for the relative error of
 * R on [0, 16] (2^-25.7), its coefficients rounded to float one by one and refitted.
 */
#ifndef LLM_GELU_EXACT_KERNELS_H
#define LLM_GELU_EXACT_KERNELS_H

#define NORMAL_FLAT    16.0f          /* exp(-a^2/2) is 0 from a = 14.5 on */
#define NORMAL_DENSITY 0x1.988454p-2f /* 1/sqrt(2 pi) */

/* exp(-a^2/2) for 0 <= a <= NORMAL_FLAT: what rounding takes off the square is put back as a factor 1 - rest/2 */
LLM_INLINE v16 normal_exp(v16 a)
{
    v16 square = v16_mul(a, a);
    v16 rest = v16_fma(a, a, v16_neg(square));
    v16 e = v16_exp(v16_mul(v16_set1(-0.5f), square));

    return v16_fnma(v16_mul(v16_set1(0.5f), rest), e, e);
}

/* R(a) for 0 <= a <= NORMAL_FLAT */
LLM_INLINE v16 normal_ratio(v16 a)
{
    v16 t = v16_div(v16_set1(1.0f), v16_add(a, v16_set1(4.0f)));
    v16 q = v16_fnma(v16_set1(8.0f), t, v16_set1(1.0f));
    v16 p = v16_set1(-0x1.f3320cp-16f);

    p = v16_fma(p, q, v16_set1(-0x1.50b3eap-13f));
    p = v16_fma(p, q, v16_set1(0x1.c4a662p-13f));
    p = v16_fma(p, q, v16_set1(0x1.a2ee54p-10f));
    p = v16_fma(p, q, v16_set1(-0x1.cf2e88p-9f));
    p = v16_fma(p, q, v16_set1(-0x1.edd6eep-8f));
    p = v16_fma(p, q, v16_set1(0x1.eee016p-5f));
    p = v16_fma(p, q, v16_set1(-0x1.7dff50p-3f));
    p = v16_fma(p, q, v16_set1(0x1.8c6d78p-2f));
    p = v16_fma(p, q, v16_set1(-0x1.373e3ap-1f));
    p = v16_fma(p, q, v16_set1(0x1.82b4bcp-1f));
    return v16_mul(t, p);
}

/* Phi(x) from exp(-a^2/2), a = min(|x|, NORMAL_FLAT) */
LLM_INLINE v16 normal_cdf(v16 x, v16 a, v16 e)
{
    v16 tail = v16_mul(e, normal_ratio(a));

    return v16_select(v16_lt(x, v16_zero()), tail, v16_sub(v16_set1(1.0f), tail));
}

static void kernel_gelu_exact_forward(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);
        v16 a = load_lanes(x + i, lanes);
        v16 size = v16_min(v16_set1(NORMAL_FLAT), v16_abs(a)); /* NaN passes */
        v16 cdf = normal_cdf(a, size, normal_exp(size));

        /* -infinity meets a 0 there: the clamp makes their product -0 */
        store_lanes(out + i, v16_mul(v16_max(v16_set1(-NORMAL_FLAT), a), cdf), lanes);
    }
}

/* d(x Phi(x))/dx = Phi(x) + x phi(x) */
static void kernel_gelu_exact_backward(float *dx, bool acc, const float *dout, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);
        v16 a = load_lanes(x + i, lanes);
        v16 size = v16_min(v16_set1(NORMAL_FLAT), v16_abs(a));
        v16 e = normal_exp(size);
        v16 near = v16_select(v16_lt(a, v16_zero()), v16_neg(size), size);
        v16 slope = v16_fma(v16_mul(near, v16_set1(NORMAL_DENSITY)), e, normal_cdf(a, size, e));

        put_lanes(dx + i, acc, v16_mul(load_lanes(dout + i, lanes), slope), lanes);
    }
}

#endif /* LLM_GELU_EXACT_KERNELS_H */
