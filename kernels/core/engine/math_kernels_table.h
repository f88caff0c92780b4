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

typedef struct llm_math_kernels {
    /* elementwise: n elements */
    void (*fill)(float *out, float value, size_t n);
    void (*copy)(float *out, const float *x, bool acc, size_t n);
    void (*add)(float *out, const float *a, const float *b, size_t n);
    void (*sub)(float *out, const float *a, const float *b, size_t n);
    void (*mul)(float *out, const float *a, const float *b, size_t n);
    void (*div)(float *out, const float *a, const float *b, size_t n);
    void (*scale)(float *out, const float *x, float s, bool acc, size_t n);
    void (*mul_acc)(float *out, const float *a, const float *b, size_t n); /* out += a * b */
    void (*neg)(float *out, const float *x, size_t n);
    void (*gelu_forward)(float *out, const float *x, size_t n);
    void (*gelu_backward)(float *dx, bool acc, const float *dout, const float *x, size_t n);
    void (*gelu_exact_forward)(float *out, const float *x, size_t n);
    void (*gelu_exact_backward)(float *dx, bool acc, const float *dout, const float *x, size_t n);
    void (*relu_forward)(float *out, const float *x, size_t n);
    void (*relu_backward)(float *dx, bool acc, const float *dout, const float *x, size_t n);
    void (*dropout)(float *out, bool acc, const float *x, float scale, uint32_t threshold, const llm_dropout_key *key,
                    uint64_t first, size_t n, uint16_t *kept);
    void (*dropout_kept)(float *out, bool acc, const float *x, float scale, const uint16_t *kept, size_t n);
    void (*adamw)(float *w, float *m, float *v, const float *grad, const llm_adamw_constants *o, size_t n);
    bool (*all_finite)(const float *x, size_t n);
    /* one numeric block: a sum in 16 lanes */
    float (*sum)(const float *x, size_t n);
    float (*sum_squares)(const float *x, size_t n);
    /* n rows of d */
    void (*layernorm_forward)(float *out, float *mean, float *rstd, const float *x, const float *gamma,
                              const float *beta, float eps, size_t n, size_t d);
    void (*layernorm_backward)(float *dx, bool acc, const float *dout, const float *x, const float *gamma,
                               const float *mean, const float *rstd, size_t n, size_t d);
    void (*rmsnorm_forward)(float *out, float *rstd, const float *x, float eps, size_t n, size_t d);
    void (*rmsnorm_backward)(float *dx, bool acc, const float *dout, const float *x, const float *rstd, size_t n,
                             size_t d);
    void (*softmax_forward)(float *out, const float *x, size_t n, size_t d);
    void (*softmax_backward)(float *dx, bool acc, const float *dout, const float *out, size_t n, size_t d);
    /* one row of d: its maximum and sum exp(x - maximum) */
    void (*max_and_exp_sum)(float *max, float *sum, const float *x, size_t d);
    /* one row of d: dlogits (+)= scale * (exp(logits - log_sum) - onehot(target)); dlogits may be logits */
    void (*cross_entropy_backward)(float *dlogits, bool acc, float scale, const float *logits, float log_sum,
                                   size_t target, size_t d);
    /* columns [begin, end) of n rows of d, in row blocks */
    void (*sum_rows)(float *out, bool acc, const float *x, size_t n, size_t d, size_t begin, size_t end);
    void (*layernorm_dgamma)(float *dgamma, bool acc, const float *dout, const float *x, const float *mean,
                             const float *rstd, size_t n, size_t d, size_t begin, size_t end);
} llm_math_kernels;

#endif /* LLM_MATH_KERNELS_TABLE_H */
