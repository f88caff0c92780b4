/* elementwise_kernels.h -- kernels whose element i depends on element i of their inputs alone. */
#ifndef LLM_ELEMENTWISE_KERNELS_H
#define LLM_ELEMENTWISE_KERNELS_H

#include <float.h>

/* ---- arithmetic ------------------------------------------------------------------------ */

#define BINARY_KERNEL(name, op)                                                                                        \
    static void name(float *out, const float *a, const float *b, size_t n)                                             \
    {                                                                                                                  \
        for (size_t i = 0; i < n; i += V16_LANES) {                                                                    \
            size_t lanes = lanes_of(n - i);                                                                            \
                                                                                                                       \
            store_lanes(out + i, op(load_lanes(a + i, lanes), load_lanes(b + i, lanes)), lanes);                       \
        }                                                                                                              \
    }

BINARY_KERNEL(kernel_add, v16_add)
BINARY_KERNEL(kernel_sub, v16_sub)
BINARY_KERNEL(kernel_mul, v16_mul)
BINARY_KERNEL(kernel_div, v16_div)

#undef BINARY_KERNEL

static void kernel_fill(float *out, float value, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES)
        store_lanes(out + i, v16_set1(value), lanes_of(n - i));
}

static void kernel_copy(float *out, const float *x, bool acc, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);

        put_lanes(out + i, acc, load_lanes(x + i, lanes), lanes);
    }
}

static void kernel_neg(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);

        store_lanes(out + i, v16_neg(load_lanes(x + i, lanes)), lanes);
    }
}

static void kernel_scale(float *out, const float *x, float s, bool acc, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);
        v16 a = load_lanes(x + i, lanes);

        store_lanes(out + i, acc ? v16_fma(v16_set1(s), a, load_lanes(out + i, lanes)) : v16_mul(v16_set1(s), a),
                    lanes);
    }
}

static void kernel_mul_acc(float *out, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);
        v16 sum = v16_fma(load_lanes(a + i, lanes), load_lanes(b + i, lanes), load_lanes(out + i, lanes));

        store_lanes(out + i, sum, lanes);
    }
}

/* x - x is 0 for finite x and NaN otherwise, and NaN stays in the sum. */
static bool kernel_all_finite(const float *x, size_t n)
{
    v16 sum = v16_zero();

    for (size_t i = 0; i < n; i += V16_LANES) {
        v16 a = load_lanes(x + i, lanes_of(n - i));

        sum = v16_add(sum, v16_sub(a, a));
    }
    return m16_all(v16_eq(sum, sum));
}

/* ---- activations ----------------------------------------------------------------------- */

/*
 * GELU by 0.5 (1 + tanh(u)) = sigmoid(2u), which keeps its relative accuracy where tanh is near -1.
 * 2u = x (GELU_1 + GELU_3 x^2): GELU_1 = 2 sqrt(2/pi), GELU_3 = 0.044715 GELU_1.
 * Beyond GELU_FLAT, exp(-|2u|) is 0, and x is clamped to it wherever infinity would meet that 0.
 */
#define GELU_1    0x1.988454p+0f
#define GELU_3    0x1.2444f2p-4f
#define GELU_FLAT 16.0f

/* exp(-|2u|), in (0, 1] */
LLM_INLINE v16 gelu_exp(v16 x)
{
    v16 slope = v16_fma(v16_mul(x, x), v16_set1(GELU_3), v16_set1(GELU_1));

    return v16_exp(v16_neg(v16_abs(v16_mul(x, slope))));
}

LLM_INLINE v16 gelu(v16 x)
{
    v16 t = gelu_exp(x), one = v16_set1(1.0f);
    v16 numerator = v16_select(v16_lt(x, v16_zero()), t, one);

    return v16_mul(v16_max(v16_set1(-GELU_FLAT), x), v16_div(numerator, v16_add(one, t)));
}

/* sigmoid(2u) + x sigmoid(2u) (1 - sigmoid(2u)) d(2u)/dx */
LLM_INLINE v16 gelu_derivative(v16 x)
{
    v16 t = gelu_exp(x), one = v16_set1(1.0f);
    v16 inverse = v16_div(one, v16_add(one, t));
    v16 other = v16_mul(t, inverse);
    v16 sigmoid = v16_select(v16_lt(x, v16_zero()), other, inverse);
    v16 near = v16_min(v16_set1(GELU_FLAT), v16_max(v16_set1(-GELU_FLAT), x));
    v16 slope = v16_fma(v16_mul(near, near), v16_set1(3.0f * GELU_3), v16_set1(GELU_1));

    return v16_fma(v16_mul(v16_mul(near, other), inverse), slope, sigmoid);
}

static void kernel_gelu_forward(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);

        store_lanes(out + i, gelu(load_lanes(x + i, lanes)), lanes);
    }
}

static void kernel_gelu_backward(float *dx, bool acc, const float *dout, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);
        v16 d = gelu_derivative(load_lanes(x + i, lanes));

        put_lanes(dx + i, acc, v16_mul(load_lanes(dout + i, lanes), d), lanes);
    }
}

/*
 * SiLU, x sigmoid(x) (Hendrycks & Gimpel 2016; "swish" of Ramachandran et al. 2017), by t = exp(-|x|) in (0, 1]: the
 * sigmoid is 1 / (1 + t), or t / (1 + t) below 0. Beyond SILU_FLAT t is 0, and x is clamped to it wherever infinity
 * would meet that 0.
 */
#define SILU_FLAT 104.0f

LLM_INLINE v16 silu(v16 x)
{
    v16 t = v16_exp(v16_neg(v16_abs(x))), one = v16_set1(1.0f);
    v16 numerator = v16_select(v16_lt(x, v16_zero()), t, one);

    return v16_mul(v16_max(v16_set1(-SILU_FLAT), x), v16_div(numerator, v16_add(one, t)));
}

/* sigmoid(x) + x sigmoid(x) (1 - sigmoid(x)) */
LLM_INLINE v16 silu_derivative(v16 x)
{
    v16 t = v16_exp(v16_neg(v16_abs(x))), one = v16_set1(1.0f);
    v16 inverse = v16_div(one, v16_add(one, t));
    v16 other = v16_mul(t, inverse);
    v16 sigmoid = v16_select(v16_lt(x, v16_zero()), other, inverse);
    v16 near = v16_min(v16_set1(SILU_FLAT), v16_max(v16_set1(-SILU_FLAT), x));

    return v16_fma(v16_mul(near, other), inverse, sigmoid);
}

static void kernel_silu_forward(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);

        store_lanes(out + i, silu(load_lanes(x + i, lanes)), lanes);
    }
}

static void kernel_silu_backward(float *dx, bool acc, const float *dout, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);
        v16 d = silu_derivative(load_lanes(x + i, lanes));

        put_lanes(dx + i, acc, v16_mul(load_lanes(dout + i, lanes), d), lanes);
    }
}

static void kernel_swiglu_forward(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);

        store_lanes(out + i, v16_mul(silu(load_lanes(gate + i, lanes)), load_lanes(up + i, lanes)), lanes);
    }
}

static void kernel_swiglu_backward(float *dgate, bool acc_gate, float *dup, bool acc_up, const float *dout,
                                   const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);
        v16 g = load_lanes(gate + i, lanes), d = load_lanes(dout + i, lanes);

        if (dup != NULL)
            put_lanes(dup + i, acc_up, v16_mul(d, silu(g)), lanes);
        if (dgate != NULL)
            put_lanes(dgate + i, acc_gate, v16_mul(v16_mul(d, load_lanes(up + i, lanes)), silu_derivative(g)), lanes);
    }
}

/* Pairs (i, i + half) turned by the angles of cosine and sine (half), each product rounded as PyTorch's are. */
static void kernel_rotate(float *out, bool acc, const float *x, const float *cosine, const float *sine, bool inverse,
                          size_t half)
{
    for (size_t i = 0; i < half; i += V16_LANES) {
        size_t lanes = lanes_of(half - i);
        v16 a = load_lanes(x + i, lanes), b = load_lanes(x + half + i, lanes);
        v16 c = load_lanes(cosine + i, lanes), s = load_lanes(sine + i, lanes);

        if (inverse)
            s = v16_neg(s);
        put_lanes(out + i, acc, v16_sub(v16_mul(a, c), v16_mul(b, s)), lanes);
        put_lanes(out + half + i, acc, v16_add(v16_mul(b, c), v16_mul(a, s)), lanes);
    }
}

static void kernel_relu_forward(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);

        store_lanes(out + i, v16_max(v16_zero(), load_lanes(x + i, lanes)), lanes); /* NaN passes */
    }
}

static void kernel_relu_backward(float *dx, bool acc, const float *dout, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);
        m16 active = v16_gt(load_lanes(x + i, lanes), v16_zero());

        put_lanes(dx + i, acc, v16_select(active, load_lanes(dout + i, lanes), v16_zero()), lanes);
    }
}

/* ---- dropout --------------------------------------------------------------------------- */

_Static_assert(LLM_MASK_BITS == V16_LANES, "a word of a mask is a vector's");

enum { DROPOUT_BLOCK = 1024 }; /* elements whose mask is drawn at a time */

/* out (+)= x / (1-p) where the mask keeps it, else 0; `kept` has 16 elements to a word */
static void kernel_dropout_kept(float *out, bool acc, const float *x, float scale, const uint16_t *kept, size_t n)
{
    const v16 factor = v16_set1(scale);

    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);
        put_lanes(out + i, acc, masked(load_lanes(x + i, lanes), kept[i / V16_LANES], factor), lanes);
    }
}

/* Logical elements first .. first + n - 1; out may be x. The mask is left in `kept` unless that is NULL. */
static void kernel_dropout(float *out, bool acc, const float *x, float scale, uint32_t threshold,
                           const llm_dropout_key *key, uint64_t first, size_t n, uint16_t *kept)
{
    uint16_t block[DROPOUT_BLOCK / V16_LANES];

    for (size_t i = 0; i < n; i += DROPOUT_BLOCK) {
        size_t some = n - i < DROPOUT_BLOCK ? n - i : DROPOUT_BLOCK;
        uint16_t *mask = kept == NULL ? block : kept + i / V16_LANES;

        draw_mask(mask, key, threshold, first + i, some);
        kernel_dropout_kept(out + i, acc, x + i, scale, mask, some);
    }
}

/* ---- AdamW ----------------------------------------------------------------------------- */

static void kernel_adamw(float *w, float *m, float *v, const float *grad, const llm_adamw_constants *o, size_t n)
{
    const v16 beta1_rest = v16_set1(o->beta1_rest), beta2 = v16_set1(o->beta2);
    const v16 beta2_rest = v16_set1(o->beta2_rest), step_size = v16_set1(o->step_size);

    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);
        v16 g = v16_mul(load_lanes(grad + i, lanes), v16_set1(o->grad_scale));
        v16 decayed = v16_mul(load_lanes(w + i, lanes), v16_set1(o->decay));
        v16 m_old = load_lanes(m + i, lanes), v_old = load_lanes(v + i, lanes);
        v16 m_new = v16_fma(beta1_rest, v16_sub(g, m_old), m_old);
        v16 v_new = v16_fma(v16_mul(beta2_rest, g), g, v16_mul(beta2, v_old));
        v16 root = v16_div(v16_sqrt(v_new), v16_set1(o->v_correction));
        v16 update = v16_div(m_new, v16_add(root, v16_set1(o->eps)));

        store_lanes(m + i, m_new, lanes);
        store_lanes(v + i, v_new, lanes);
        store_lanes(w + i, v16_fnma(step_size, update, decayed), lanes);
    }
}

#endif /* LLM_ELEMENTWISE_KERNELS_H */
