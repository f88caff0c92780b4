/*
 * llm_core.h -- the numerical engine: every op a GPT needs, forward and backward.
 *
 * Portable C11. No PostgreSQL, no Python, no I/O, no global state but the thread pool.
 * Everything is float32, row-major, contiguous unless a leading dimension is given.
 *
 * Conventions
 *   - outputs come first, then inputs, then sizes; a shape stands in a comment above each op;
 *   - `acc` tells what happens to a gradient: false writes it, true adds to what is there;
 *   - a NULL gradient pointer means "not wanted";
 *   - outputs never overlap inputs unless a comment allows it;
 *   - callers check shapes, ids and sizes; the engine trusts its arguments;
 *   - results never depend on the instruction set, on the number of threads, or on which
 *     other rows are computed at the same time (the rules stand in numerics.h).
 *
 * A kernel that is stopped (should_stop) or runs out of memory leaves its outputs undefined
 * and says so in llm_engine_status(); callers check it after each op.
 */
#ifndef LLM_CORE_H
#define LLM_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- engine: how to run ------------------------------------------------------------- */

typedef enum llm_isa { LLM_ISA_SCALAR, LLM_ISA_NEON, LLM_ISA_AVX2, LLM_ISA_AVX512, LLM_ISA_COUNT } llm_isa;
typedef enum llm_status { LLM_OK, LLM_STOPPED, LLM_NO_MEMORY } llm_status;

typedef struct llm_engine llm_engine;
typedef bool (*llm_should_stop)(void *arg);

llm_engine *llm_engine_create(void); /* best ISA, one thread; NULL: no memory */
void llm_engine_destroy(llm_engine *e);
void llm_engine_trim(llm_engine *e);                 /* give back the scratch kept between ops */
bool llm_engine_set_isa(llm_engine *e, llm_isa isa); /* false: this machine cannot run it */
llm_isa llm_engine_isa(const llm_engine *e);
void llm_engine_set_threads(llm_engine *e, int threads); /* 0: all cores; workers start on first use */
int llm_engine_threads(const llm_engine *e);
/* Workers of the process beyond so many end when their job does; all that have had nothing to do for seconds do, too. */
void llm_limit_workers(int workers);
/* Polled by the calling thread only, between tiles. */
void llm_engine_set_should_stop(llm_engine *e, llm_should_stop f, void *arg);
void llm_engine_set_attention_chunk(llm_engine *e, int query_rows); /* default 64 */
llm_status llm_engine_status(const llm_engine *e);
void llm_engine_clear_status(llm_engine *e);

bool llm_isa_available(llm_isa isa);
llm_isa llm_isa_best(void);
const char *llm_isa_name(llm_isa isa); /* "scalar", "neon", "avx2", "avx512" */
int llm_cpu_count(void);
int llm_numerics_version(void);

/* ---- linear algebra ----------------------------------------------------------------- */

/* C (M,N) = op(A) op(B), or C += with acc. A is (M,K), or (K,M) when ta; B is (K,N), or (N,K) when tb. */
void llm_gemm(llm_engine *e, float *C, const float *A, const float *B, size_t M, size_t N, size_t K, size_t ldc,
              size_t lda, size_t ldb, bool ta, bool tb, bool acc);

/* out (n,o) = x (n,i) @ w (i,o) + b (o). b may be NULL. */
void llm_linear_forward(llm_engine *e, float *out, const float *x, const float *w, const float *b, size_t n, size_t i,
                        size_t o);
void llm_linear_backward(llm_engine *e, float *dx, bool acc_x, float *dw, bool acc_w, float *db, bool acc_b,
                         const float *dout, const float *x, const float *w, size_t n, size_t i, size_t o);

/* dst (cols,rows) = transpose of src (rows,cols) */
void llm_transpose(llm_engine *e, float *dst, const float *src, size_t rows, size_t cols);

/* ---- weights in fewer bits ---------------------------------------------------------- */

/*
 * A linear layer's weights packed for reading: bf16 (the nearest), int8 with a float32 scale per output and block of 128
 * inputs, symmetric, or int4 with a float16 scale and minimum per output and block of 32 inputs: d * q + m, q of 0 to 15.
 * A block that was made of such numbers (GGUF's Q4_1) is recovered exactly, whatever they were; others are rounded, and
 * weights beyond 65504 cut. Sums are float32 always. The bits of a result do not depend on how many rows are computed at
 * once; with bf16 and int4 they are those of llm_linear_forward on the rounded weights.
 */
typedef enum llm_precision { LLM_FLOAT32, LLM_BF16, LLM_INT8, LLM_INT4, LLM_PRECISIONS } llm_precision;
typedef struct llm_packed llm_packed;
/* w (i,o), or (o,i) when transposed, all finite; not LLM_FLOAT32. NULL: no memory, or the engine was stopped. */
llm_packed *llm_pack(llm_engine *e, const float *w, size_t i, size_t o, bool transposed, llm_precision precision);
void llm_packed_destroy(llm_packed *w);                             /* NULL is fine */
size_t llm_packed_bytes(const llm_packed *w);                       /* 0 for NULL */
size_t llm_pack_bytes(size_t i, size_t o, llm_precision precision); /* what one will take; SIZE_MAX: too many */
llm_precision llm_packed_precision(const llm_packed *w);
size_t llm_packed_inputs(const llm_packed *w);  /* i */
size_t llm_packed_outputs(const llm_packed *w); /* o */

/*
 * Packed weights are one block of bytes, the same from every instruction set and number of threads, which may be kept
 * and read in place elsewhere: as a mapped file, say. A view reads such a block where it lies and frees nothing of it;
 * the block has to outlive it and may be read-only. LLM_PACKING_VERSION names what the bytes mean.
 */
#define LLM_PACKING_VERSION 1
enum { LLM_PACKED_ALIGNMENT = 64 };
int llm_packing_version(void);
const char *llm_precision_name(llm_precision precision);     /* "float32", "bf16", "int8", "int4" */
const void *llm_packed_data(const llm_packed *w, size_t *n); /* its n bytes */
/* NULL: n bytes are no such weights, or not at a multiple of LLM_PACKED_ALIGNMENT; or no memory */
llm_packed *llm_packed_view(const void *bytes, size_t n, size_t i, size_t o, llm_precision precision);
bool llm_packed_is_view(const llm_packed *w);
/* out (n,o) = x (n,i) @ w (i,o) + b (o). b may be NULL. */
void llm_packed_forward(llm_engine *e, float *out, const float *x, const llm_packed *w, const float *b, size_t n);

/* ---- embedding ---------------------------------------------------------------------- */

/* out (n,d): row i is w (rows,d) at ids[i] */
void llm_embedding_forward(llm_engine *e, float *out, const float *w, const int32_t *ids, size_t n, size_t d);
/* dw (rows,d) += dout rows, in index order; always adds (the caller zeroes a fresh gradient) */
void llm_embedding_backward(llm_engine *e, float *dw, const float *dout, const int32_t *ids, size_t n, size_t rows,
                            size_t d);

/* ---- elementwise -------------------------------------------------------------------- */

void llm_fill(llm_engine *e, float *out, float value, size_t n);
void llm_copy(llm_engine *e, float *out, const float *x, bool acc, size_t n);      /* out (+)= x */
void llm_add(llm_engine *e, float *out, const float *a, const float *b, size_t n); /* out may be a or b */
void llm_sub(llm_engine *e, float *out, const float *a, const float *b, size_t n);
void llm_mul(llm_engine *e, float *out, const float *a, const float *b, size_t n);
void llm_div(llm_engine *e, float *out, const float *a, const float *b, size_t n);
void llm_scale(llm_engine *e, float *out, const float *x, float s, bool acc, size_t n);          /* out (+)= s * x */
void llm_mul_acc(llm_engine *e, float *out, const float *a, const float *b, bool acc, size_t n); /* out (+)= a*b */
void llm_neg(llm_engine *e, float *out, const float *x, size_t n);

/* GELU, tanh form: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), Hendrycks & Gimpel 2016, as GPT-2 has it */
void llm_gelu_forward(llm_engine *e, float *out, const float *x, size_t n);
void llm_gelu_backward(llm_engine *e, float *dx, bool acc, const float *dout, const float *x, size_t n);
/* GELU itself, x Phi(x) with the normal distribution's Phi: Hugging Face's "gelu", PyTorch's approximate='none' */
void llm_gelu_exact_forward(llm_engine *e, float *out, const float *x, size_t n);
void llm_gelu_exact_backward(llm_engine *e, float *dx, bool acc, const float *dout, const float *x, size_t n);
void llm_relu_forward(llm_engine *e, float *out, const float *x, size_t n);
void llm_relu_backward(llm_engine *e, float *dx, bool acc, const float *dout, const float *x, size_t n);
/* SiLU, x sigmoid(x), Hendrycks & Gimpel 2016; also called swish */
void llm_silu_forward(llm_engine *e, float *out, const float *x, size_t n);
void llm_silu_backward(llm_engine *e, float *dx, bool acc, const float *dout, const float *x, size_t n);
/* silu(gate) * up: the middle of a gated feed-forward layer, Shazeer 2020 */
void llm_swiglu_forward(llm_engine *e, float *out, const float *gate, const float *up, size_t n);
void llm_swiglu_backward(llm_engine *e, float *dgate, bool acc_gate, float *dup, bool acc_up, const float *dout,
                         const float *gate, const float *up, size_t n);

/*
 * Rotary position embedding, Su et al. 2021, in Hugging Face's half-split form. Of each head of x (n, n_head * d_head)
 * the first 2 * half elements are turned in pairs (i, i + half); the others stay. The angle is position * theta^(-i/half),
 * computed in float32 as Hugging Face does, its frequencies scaled as `scaling` says; row r of x has positions[r mod
 * n_positions]. cosine and sine (n_positions, half) are kept for the backward. 2 * half <= d_head.
 */
typedef enum llm_rotary_scaling_kind {
    LLM_ROTARY_UNSCALED,
    LLM_ROTARY_LINEAR, /* frequencies / factor */
    LLM_ROTARY_LLAMA3  /* the same for long waves, none for short ones, smoothly between (Llama 3.1) */
} llm_rotary_scaling_kind;
typedef struct llm_rotary_scaling {
    llm_rotary_scaling_kind kind;
    double factor;
    double low_freq_factor, high_freq_factor, context; /* llama3: context is original_max_position_embeddings */
} llm_rotary_scaling;
typedef struct llm_rotary_shape {
    size_t n, n_positions, n_head, d_head, half;
} llm_rotary_shape;
void llm_rotary_forward(llm_engine *e, float *out, float *cosine, float *sine, const float *x, const int32_t *positions,
                        double theta, const llm_rotary_scaling *scaling, const llm_rotary_shape *s);
void llm_rotary_backward(llm_engine *e, float *dx, bool acc, const float *dout, const float *cosine, const float *sine,
                         const llm_rotary_shape *s);

/*
 * Inverted dropout. An element is kept when its Philox word, keyed by (seed, step, site, index), is at least
 * the integer threshold p * 2^32; kept elements are scaled by 1/(1-p): out (+)= mask(x) / (1-p). `first` is the
 * logical index of x[0]. A forward may leave its mask to the backward, LLM_MASK_BITS elements to a word, which then
 * has no numbers to draw; the same call on the gradient gives the same bits.
 */
enum { LLM_MASK_BITS = 16 };
static inline size_t llm_mask_words(size_t n) { return (n + LLM_MASK_BITS - 1) / LLM_MASK_BITS; }
typedef struct llm_dropout_key {
    uint64_t seed;
    uint64_t step;
    uint64_t site;
} llm_dropout_key;
uint64_t llm_site(const char *name); /* a stable 64-bit hash of a dropout site's name */
/* kept: llm_mask_words(n) words for the mask, or NULL */
void llm_dropout(llm_engine *e, float *out, bool acc, const float *x, float p, llm_dropout_key key, uint64_t first,
                 size_t n, uint16_t *kept);
void llm_dropout_backward(llm_engine *e, float *dx, bool acc, const float *dout, float p, const uint16_t *kept,
                          size_t n);

/* ---- rows: each of n rows of d ------------------------------------------------------ */

/* out, x (n,d); gamma, beta (d), either may be NULL; mean, rstd (n) are kept for the backward */
void llm_layernorm_forward(llm_engine *e, float *out, float *mean, float *rstd, const float *x, const float *gamma,
                           const float *beta, float eps, size_t n, size_t d);
void llm_layernorm_backward(llm_engine *e, float *dx, bool acc_x, float *dgamma, bool acc_gamma, float *dbeta,
                            bool acc_beta, const float *dout, const float *x, const float *gamma, const float *mean,
                            const float *rstd, size_t n, size_t d);
/* out = x / sqrt(mean(x^2) + eps), then times gain (d) unless that is NULL; rstd (n) is kept for the backward */
void llm_rmsnorm_forward(llm_engine *e, float *out, float *rstd, const float *x, const float *gain, float eps, size_t n,
                         size_t d);
void llm_rmsnorm_backward(llm_engine *e, float *dx, bool acc_x, float *dgain, bool acc_gain, const float *dout,
                          const float *x, const float *gain, const float *rstd, size_t n, size_t d);
void llm_softmax_forward(llm_engine *e, float *out, const float *x, size_t n, size_t d);
/* from the forward's output */
void llm_softmax_backward(llm_engine *e, float *dx, bool acc, const float *dout, const float *out, size_t n, size_t d);
/*
 * out = x / max(|x|, 1e-12), |x| the row's 2-norm, as PyTorch's normalize; norm (n), that maximum, is kept for the
 * backward, which reads the forward's output
 */
void llm_l2_normalize_forward(llm_engine *e, float *out, float *norm, const float *x, size_t n, size_t d);
void llm_l2_normalize_backward(llm_engine *e, float *dx, bool acc, const float *dout, const float *out,
                               const float *norm, size_t n, size_t d);
/* out (d) (+)= sum over the n rows of x, in row blocks of a constant size */
void llm_sum_rows(llm_engine *e, float *out, bool acc, const float *x, size_t n, size_t d);
double llm_sum(llm_engine *e, const float *x, size_t n);
double llm_sum_squares(llm_engine *e, const float *x, size_t n);
bool llm_all_finite(llm_engine *e, const float *x, size_t n);

/* ---- sequences laid end to end ------------------------------------------------------ */

/*
 * x (N,d) holds B sequences one after another, the b-th of lengths[b] >= 1 rows, N their sum; out (B,d). Mean: of each
 * one's rows, summed as llm_sum_rows does; cls: its first row.
 */
void llm_mean_pool_forward(llm_engine *e, float *out, const float *x, const int32_t *lengths, size_t B, size_t d);
void llm_mean_pool_backward(llm_engine *e, float *dx, bool acc, const float *dout, const int32_t *lengths, size_t B,
                            size_t d);
void llm_cls_pool_forward(llm_engine *e, float *out, const float *x, const int32_t *lengths, size_t B, size_t d);
void llm_cls_pool_backward(llm_engine *e, float *dx, bool acc, const float *dout, const int32_t *lengths, size_t B,
                           size_t d);

/* ---- attention ---------------------------------------------------------------------- */

/*
 * Multi-head attention, the only op that mixes information across time: causal, or of every token to all of its
 * sequence. out (B,T,D), q k v (B,T,...) each with its own row stride (3D when they lie interleaved in one c_attn
 * output as [q | k | v] per token; D when separate). Head h is columns h*dh .. (h+1)*dh, dh = D / n_head.
 * scores = q.k / sqrt(dh); row_max and row_sum (B,n_head,T) are kept for the backward.
 * k and v have n_kv_head heads (B,T,n_kv_head*dh), each of which n_head / n_kv_head query heads in a row share, and
 * whose gradients add those heads' shares in their order. With a window a query sees itself and the window - 1 tokens
 * before it; what it does not see costs nothing.
 * Dropout (p > 0) acts on the weights, keyed by the element's index in (B,n_head,T,T_max).
 * With lengths, sequences lie end to end instead of T apart, and so do their parts of row_max, row_sum and the weights,
 * (n_head, its length, ...) each: equal lengths give what B and T do.
 */
typedef struct llm_attention_shape {
    size_t B, T, D, n_head;
    size_t n_kv_head;                    /* divides n_head; 0: as many */
    size_t window;                       /* of causal attention; 0: all before */
    size_t q_stride, k_stride, v_stride; /* floats from one token to the next; batches are T * stride apart */
    bool bidirectional;
    const int32_t *lengths; /* (B), each at least 1, T the largest; NULL: all are T */
    float dropout_p;
    llm_dropout_key key;
    uint64_t first; /* logical index of the first weight */
    uint16_t *kept; /* dropout's mask, which the forward leaves to the backward; or NULL */
} llm_attention_shape;

/* Words of one query's mask in a sequence of T tokens: from the word of the first key it sees on */
static inline size_t llm_attention_row_words(const llm_attention_shape *s, size_t T)
{
    size_t all = llm_mask_words(T), seen = s->window / LLM_MASK_BITS + 2;

    return s->window > 0 && seen < all ? seen : all;
}

/* Words of `kept`: a row for each query of each head. */
static inline size_t llm_attention_mask_words(const llm_attention_shape *s)
{
    size_t words = 0;

    if (s->lengths == NULL)
        return s->B * s->n_head * s->T * llm_attention_row_words(s, s->T);
    for (size_t b = 0; b < s->B; b++)
        words += (size_t)s->lengths[b] * llm_attention_row_words(s, (size_t)s->lengths[b]);
    return s->n_head * words;
}

void llm_attention_forward(llm_engine *e, float *out, float *row_max, float *row_sum, const float *q, const float *k,
                           const float *v, const llm_attention_shape *s);
/* dq, dk, dv have the strides of q, k, v and are written (acc: added to). out is the forward's output. */
void llm_attention_backward(llm_engine *e, float *dq, float *dk, float *dv, bool acc, const float *dout,
                            const float *out, const float *row_max, const float *row_sum, const float *q,
                            const float *k, const float *v, const llm_attention_shape *s);

/*
 * Key/value cache of one layer: keys transposed in panels, values row-major per head, tails zeroed.
 * T new tokens of each of B sequences (q,k,v rows with strides, sequences T * stride apart) attend to the past[b] ones
 * that caches[b] holds and to themselves; their keys and values are stored at past[b] .. past[b]+T. All caches have
 * the same heads, those of k and v, which divide the n_head of q, and each stands there once. out (B,T,n_head*d_head),
 * and the window, as in llm_attention_forward; the same bits as its rows.
 */
typedef struct llm_kv_cache llm_kv_cache;
llm_kv_cache *llm_kv_cache_create(size_t n_head, size_t d_head, size_t capacity); /* NULL: no memory */
llm_kv_cache *llm_kv_cache_copy(const llm_kv_cache *c, size_t length); /* its first positions; NULL: no memory */
void llm_kv_cache_destroy(llm_kv_cache *c);
size_t llm_kv_cache_bytes(const llm_kv_cache *c);
void llm_attention_cached(llm_engine *e, float *out, llm_kv_cache *const *caches, const size_t *past, size_t B,
                          const float *q, const float *k, const float *v, size_t T, size_t q_stride, size_t k_stride,
                          size_t v_stride, size_t n_head, size_t window);

/* ---- loss --------------------------------------------------------------------------- */

/* losses (n) = -log softmax(logits)[target], 0 where target < 0; log_sum (n) = row's log-sum-exp, for the backward */
void llm_cross_entropy_forward(llm_engine *e, float *losses, float *log_sum, const float *logits,
                               const int32_t *targets, size_t n, size_t vocab);
/* dlogits (+)= scale * (softmax - onehot), 0 where target < 0; for a mean, scale = dloss / count */
void llm_cross_entropy_backward(llm_engine *e, float *dlogits, bool acc, float scale, const float *logits,
                                const float *log_sum, const int32_t *targets, size_t n, size_t vocab);
/* mean of losses over the count targets >= 0, summed in index order; count 0 gives 0 */
double llm_mean_loss(const float *losses, const int32_t *targets, size_t n, size_t *count);

/*
 * The same fused with the head: logits = x (n,d) @ w (vocab,d)^T in chunks of rows, never whole.
 * Bit for bit the unfused result, except for dx: a row's largest term by far, its target's, is added last, which
 * makes dx some ten times more accurate.
 */
void llm_lm_head_loss_forward(llm_engine *e, float *losses, float *log_sum, const float *x, const float *w,
                              const int32_t *targets, size_t n, size_t d, size_t vocab);
void llm_lm_head_loss_backward(llm_engine *e, float *dx, bool acc_x, float *dw, bool acc_w, float scale, const float *x,
                               const float *w, const float *log_sum, const int32_t *targets, size_t n, size_t d,
                               size_t vocab);

/* The forward with a packed head. */
void llm_packed_head_loss_forward(llm_engine *e, float *losses, float *log_sum, const float *x, const llm_packed *w,
                                  const int32_t *targets, size_t n);

/*
 * Forward and backward at once, the logits computed one time only, for a caller that knows `scale` before it
 * has the loss. dx and dw are written, and are those of the two above bit for bit.
 */
void llm_lm_head_loss_forward_backward(llm_engine *e, float *losses, float *log_sum, float *dx, float *dw, float scale,
                                       const float *x, const float *w, const int32_t *targets, size_t n, size_t d,
                                       size_t vocab);

/* ---- optimizer ---------------------------------------------------------------------- */

/*
 * AdamW, Loshchilov & Hutter 2019, algorithm 2, as PyTorch has it: decoupled decay lr * weight_decay * w,
 * bias correction by step (1 for the first). grad is multiplied by grad_scale first (clipping; 1: none).
 */
typedef struct llm_adamw {
    double lr, beta1, beta2, eps, weight_decay;
    uint64_t step;
    float grad_scale;
} llm_adamw;
void llm_adamw_step(llm_engine *e, float *w, float *m, float *v, const float *grad, const llm_adamw *o, size_t n);

/*
 * Rate at the i-th step of a schedule, i from 1: lr_max * i / warmup while i <= warmup, then from lr_max (at
 * i = warmup + 1) towards min_lr at the end of `total`.
 */
typedef enum llm_schedule { LLM_COSINE, LLM_LINEAR, LLM_CONSTANT } llm_schedule;
double llm_lr_schedule(llm_schedule kind, int64_t i, int64_t warmup, int64_t total, double lr_max, double min_lr);

/* ---- randomness --------------------------------------------------------------------- */

/* Philox4x32-10, Salmon et al. 2011 */
void llm_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);
double llm_uniform(uint64_t seed, uint64_t stream, uint64_t index); /* [0,1) */
/* out[i] = mean + std * N(0,1), element i keyed by (seed, stream, i) */
void llm_normal(llm_engine *e, float *out, float mean, float std, uint64_t seed, uint64_t stream, size_t n);
/* out (n) = a permutation of 0 .. n-1, keyed by (seed, epoch) */
void llm_permutation(int64_t *out, size_t n, uint64_t seed, uint64_t epoch);
/* Its swaps number end-1 down to first alone: all of 1 .. n, in that order, on 0 .. n-1 make the permutation. */
void llm_permutation_swaps(int64_t *out, size_t first, size_t end, uint64_t seed, uint64_t epoch);

/* ---- sampling ----------------------------------------------------------------------- */

/* stop, which may be NULL, is polled by all of them. */
typedef struct llm_sampler {
    double temperature;
    int64_t top_k;
    double top_p;
    double uniform;
    llm_should_stop stop;
    void *arg;
} llm_sampler;
/*
 * Repetition penalty (Keskar et al. 2019, as transformers), then presence and frequency penalties (as OpenAI's). Unless
 * LLM_OK some of the logits have been changed.
 */
llm_status llm_penalize(float *logits, size_t vocab, const int32_t *seen, size_t n_seen, double repetition,
                        double presence, double frequency, llm_should_stop stop, void *arg);
/*
 * A token id: temperature 0 the largest logit (lowest id on ties); else softmax(logits / temperature) limited
 * to the top_k largest (0: all), then to the smallest set with probability >= top_p (1: all), drawn by
 * `uniform`. Ties are broken by token id. -1: no finite logit; -2: no memory; -3: stopped.
 */
int64_t llm_sample(const float *logits, size_t vocab, const llm_sampler *s);
/*
 * The k likeliest tokens, likeliest first and lower ids first among equals, and log_prob[i] = log softmax(logits)[ids[i]].
 * Returns how many there are: less than k when fewer logits are finite; -2 without memory, -3 when stopped.
 */
int64_t llm_top_tokens(const float *logits, size_t vocab, size_t k, int32_t *ids, double *log_probs,
                       llm_should_stop stop, void *arg);

/* ---- measuring ---------------------------------------------------------------------- */

/* Runs `tasks` bursts of multiply-adds in registers, shared among the threads; returns how many flops that was. */
double llm_fma_burst(llm_engine *e, size_t tasks);

/*
 * The loop of generating with a GPT-2 of these sizes, weights of no meaning. The engine must live as long. A prompt of
 * `past` tokens fills the caches; then n tokens follow it, greedily, each from all before it. NULL, false: no memory.
 */
typedef struct llm_decode llm_decode;
llm_decode *llm_decode_create(llm_engine *e, size_t n_layer, size_t n_head, size_t d, size_t n_positions, size_t vocab,
                              llm_precision precision);
void llm_decode_destroy(llm_decode *g);
bool llm_decode_prompt(llm_decode *g, size_t past);
int64_t llm_decode_tokens(llm_decode *g, size_t past, size_t n); /* the last one */

#ifdef __cplusplus
}
#endif
#endif /* LLM_CORE_H */
