/*
 * math_kernels_table.h -- the vector kernels behind every op but the matrix product and attention, as one ISA
 * provides them. Single-threaded, over the ranges they are given; the ops that split work among threads stand
 * in elementwise.c, rows.c, embedding.c, loss.c and optimizer.c. Shapes and conventions are those of
 * llm_core.h.
 */
#ifndef LLM_MATH_KERNELS_TABLE_H
#define LLM_MATH_KERNELS_TABLE_H

#include "llm_core.h"

/* AdamW's scalars, computed in double and rounded once */
typedef struct llm_adamw_constants {
    float grad_scale;
    float decay;      /* 1 - lr * weight_decay */
    float beta1_rest; /* 1 - beta1 */
    float beta2;
    float beta2_rest;   /* 1 - beta2 */
    float v_correction; /* sqrt(1 - beta2^step) */
    float eps;
    float step_size; /* lr / (1 - beta1^step) */
} llm_adamw_constants;

/*
 * The kernels: what each gives back, its name and its arguments. The table has a pointer under the name, which in
 * every ISA points to kernel_<name>.
 */

/* n elements; mul_acc: out += a * b; rotate: see llm_rotary_forward, one head of 2 half elements; dgate, dup may be NULL */
#define ELEMENTWISE_MATH(KERNEL)                                                                                       \
    KERNEL(void, fill, (float *out, float value, size_t n))                                                            \
    KERNEL(void, copy, (float *out, const float *x, bool acc, size_t n))                                               \
    KERNEL(void, add, (float *out, const float *a, const float *b, size_t n))                                          \
    KERNEL(void, sub, (float *out, const float *a, const float *b, size_t n))                                          \
    KERNEL(void, mul, (float *out, const float *a, const float *b, size_t n))                                          \
    KERNEL(void, div, (float *out, const float *a, const float *b, size_t n))                                          \
    KERNEL(void, scale, (float *out, const float *x, float s, bool acc, size_t n))                                     \
    KERNEL(void, mul_acc, (float *out, const float *a, const float *b, size_t n))                                      \
    KERNEL(void, neg, (float *out, const float *x, size_t n))                                                          \
    KERNEL(void, rotate,                                                                                               \
           (float *out, bool acc, const float *x, const float *cosine, const float *sine, bool inverse, size_t half))  \
    KERNEL(void, swiglu_forward, (float *out, const float *gate, const float *up, size_t n))                           \
    KERNEL(void, swiglu_backward,                                                                                      \
           (float *dgate, bool acc_gate, float *dup, bool acc_up, const float *dout, const float *gate,                \
            const float *up, size_t n))                                                                                \
    KERNEL(bool, all_finite, (const float *x, size_t n))                                                               \
    KERNEL(void, dropout,                                                                                              \
           (float *out, bool acc, const float *x, float scale, uint32_t threshold, const llm_dropout_key *key,         \
            uint64_t first, size_t n, uint16_t *kept))                                                                 \
    KERNEL(void, dropout_kept, (float *out, bool acc, const float *x, float scale, const uint16_t *kept, size_t n))    \
    KERNEL(void, adamw, (float *w, float *m, float *v, const float *grad, const llm_adamw_constants *o, size_t n))

/* Activations, n elements; each also makes the ops llm_<name>_forward and _backward (elementwise.c). */
#define ACTIVATIONS(ACTIVATION) ACTIVATION(gelu) ACTIVATION(gelu_exact) ACTIVATION(relu) ACTIVATION(silu)

#define ACTIVATION_MATH(name)                                                                                          \
    KERNEL(void, name##_forward, (float *out, const float *x, size_t n))                                               \
    KERNEL(void, name##_backward, (float *dx, bool acc, const float *dout, const float *x, size_t n))

/*
 * n rows of d. sum and sum_squares: one numeric block, in 16 lanes. max_and_exp_sum: one row, its maximum and
 * sum exp(x - maximum). cross_entropy_backward: one row, dlogits (+)= scale * (exp(logits - log_sum) - onehot(target)),
 * and dlogits may be logits. sum_rows, layernorm_dgamma and rmsnorm_dgain: columns [begin, end), in row blocks.
 */
#define ROW_MATH(KERNEL)                                                                                               \
    KERNEL(float, sum, (const float *x, size_t n))                                                                     \
    KERNEL(float, sum_squares, (const float *x, size_t n))                                                             \
    KERNEL(void, layernorm_forward,                                                                                    \
           (float *out, float *mean, float *rstd, const float *x, const float *gamma, const float *beta, float eps,    \
            size_t n, size_t d))                                                                                       \
    KERNEL(void, layernorm_backward,                                                                                   \
           (float *dx, bool acc, const float *dout, const float *x, const float *gamma, const float *mean,             \
            const float *rstd, size_t n, size_t d))                                                                    \
    KERNEL(void, rmsnorm_forward,                                                                                      \
           (float *out, float *rstd, const float *x, const float *gain, float eps, size_t n, size_t d))                \
    KERNEL(void, rmsnorm_backward,                                                                                     \
           (float *dx, bool acc, const float *dout, const float *x, const float *gain, const float *rstd, size_t n,    \
            size_t d))                                                                                                 \
    KERNEL(void, rmsnorm_dgain,                                                                                        \
           (float *dgain, bool acc, const float *dout, const float *x, const float *rstd, size_t n, size_t d,          \
            size_t begin, size_t end))                                                                                 \
    KERNEL(void, l2_normalize_forward, (float *out, float *norm, const float *x, size_t n, size_t d))                  \
    KERNEL(void, l2_normalize_backward,                                                                                \
           (float *dx, bool acc, const float *dout, const float *out, const float *norm, size_t n, size_t d))          \
    KERNEL(void, softmax_forward, (float *out, const float *x, size_t n, size_t d))                                    \
    KERNEL(void, softmax_backward, (float *dx, bool acc, const float *dout, const float *out, size_t n, size_t d))     \
    KERNEL(void, max_and_exp_sum, (float *max, float *sum, const float *x, size_t d))                                  \
    KERNEL(void, cross_entropy_backward,                                                                               \
           (float *dlogits, bool acc, float scale, const float *logits, float log_sum, size_t target, size_t d))       \
    KERNEL(void, sum_rows, (float *out, bool acc, const float *x, size_t n, size_t d, size_t begin, size_t end))       \
    KERNEL(void, layernorm_dgamma,                                                                                     \
           (float *dgamma, bool acc, const float *dout, const float *x, const float *mean, const float *rstd,          \
            size_t n, size_t d, size_t begin, size_t end))

typedef struct llm_math_kernels {
#define KERNEL(type, name, arguments) type(*name) arguments;
    ELEMENTWISE_MATH(KERNEL) ACTIVATIONS(ACTIVATION_MATH) ROW_MATH(KERNEL)
#undef KERNEL
} llm_math_kernels;

#endif /* LLM_MATH_KERNELS_TABLE_H */
