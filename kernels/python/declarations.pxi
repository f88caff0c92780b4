# kernels/core/llm_core.h for Cython; shapes and meanings stand in that header. Included by core.pyx.

cdef extern from "<stdbool.h>":
    ctypedef bint c_bool "bool"

cdef extern from "llm_core.h" nogil:
    ctypedef enum llm_isa:
        LLM_ISA_COUNT
    ctypedef enum llm_status:
        LLM_OK
        LLM_STOPPED
        LLM_NO_MEMORY
    ctypedef enum llm_schedule:
        LLM_COSINE
        LLM_LINEAR
        LLM_CONSTANT

    ctypedef struct llm_engine:
        pass
    ctypedef struct llm_kv_cache:
        pass
    ctypedef struct llm_dropout_key:
        uint64_t seed
        uint64_t step
        uint64_t site
    ctypedef struct llm_attention_shape:
        size_t B, T, D, n_head
        size_t n_kv_head, window
        size_t q_stride, k_stride, v_stride
        c_bool bidirectional
        const int32_t *lengths
        float dropout_p
        llm_dropout_key key
        uint64_t first
        uint16_t *kept
    ctypedef struct llm_adamw:
        double lr, beta1, beta2, eps, weight_decay
        uint64_t step
        float grad_scale
    ctypedef c_bool (*llm_should_stop)(void *arg) noexcept nogil
    ctypedef struct llm_sampler:
        double temperature
        int64_t top_k
        double top_p
        double uniform
        llm_should_stop stop
        void *arg


    llm_engine *llm_engine_create()
    void llm_engine_destroy(llm_engine *e)
    bint llm_engine_set_isa(llm_engine *e, llm_isa isa)
    llm_isa llm_engine_isa(const llm_engine *e)
    void llm_engine_set_threads(llm_engine *e, int threads)
    int llm_engine_threads(const llm_engine *e)
    void llm_engine_set_should_stop(llm_engine *e, llm_should_stop f, void *arg)
    void llm_engine_set_attention_chunk(llm_engine *e, int query_rows)
    llm_status llm_engine_status(const llm_engine *e)
    void llm_engine_clear_status(llm_engine *e)
    double llm_fma_burst(llm_engine *e, size_t tasks)

    bint llm_isa_available(llm_isa isa)
    llm_isa llm_isa_best()
    const char *llm_isa_name(llm_isa isa)
    int llm_cpu_count()
    int llm_numerics_version()

    void llm_gemm(llm_engine *e, float *C, const float *A, const float *B, size_t M, size_t N, size_t K,
                  size_t ldc, size_t lda, size_t ldb, bint ta, bint tb, bint acc)
    void llm_linear_forward(llm_engine *e, float *out, const float *x, const float *w, const float *b,
                            size_t n, size_t i, size_t o)
    void llm_linear_backward(llm_engine *e, float *dx, bint acc_x, float *dw, bint acc_w, float *db, bint acc_b,
                             const float *dout, const float *x, const float *w, size_t n, size_t i, size_t o)
    void llm_transpose(llm_engine *e, float *dst, const float *src, size_t rows, size_t cols)

    void llm_embedding_forward(llm_engine *e, float *out, const float *w, const int32_t *ids, size_t n, size_t d)
    void llm_embedding_backward(llm_engine *e, float *dw, const float *dout, const int32_t *ids,
                                size_t n, size_t rows, size_t d)

    void llm_fill(llm_engine *e, float *out, float value, size_t n)
    void llm_copy(llm_engine *e, float *out, const float *x, bint acc, size_t n)
    void llm_add(llm_engine *e, float *out, const float *a, const float *b, size_t n)
    void llm_sub(llm_engine *e, float *out, const float *a, const float *b, size_t n)
    void llm_mul(llm_engine *e, float *out, const float *a, const float *b, size_t n)
    void llm_div(llm_engine *e, float *out, const float *a, const float *b, size_t n)
    void llm_scale(llm_engine *e, float *out, const float *x, float s, bint acc, size_t n)
    void llm_mul_acc(llm_engine *e, float *out, const float *a, const float *b, bint acc, size_t n)
    void llm_neg(llm_engine *e, float *out, const float *x, size_t n)
    void llm_gelu_forward(llm_engine *e, float *out, const float *x, size_t n)
    void llm_gelu_backward(llm_engine *e, float *dx, bint acc, const float *dout, const float *x, size_t n)
    void llm_gelu_exact_forward(llm_engine *e, float *out, const float *x, size_t n)
    void llm_gelu_exact_backward(llm_engine *e, float *dx, bint acc, const float *dout, const float *x, size_t n)
    void llm_relu_forward(llm_engine *e, float *out, const float *x, size_t n)
    void llm_relu_backward(llm_engine *e, float *dx, bint acc, const float *dout, const float *x, size_t n)
    void llm_silu_forward(llm_engine *e, float *out, const float *x, size_t n)
    void llm_silu_backward(llm_engine *e, float *dx, bint acc, const float *dout, const float *x, size_t n)
    void llm_swiglu_forward(llm_engine *e, float *out, const float *gate, const float *up, size_t n)
    void llm_swiglu_backward(llm_engine *e, float *dgate, bint acc_gate, float *dup, bint acc_up, const float *dout,
                             const float *gate, const float *up, size_t n)
    ctypedef enum llm_rotary_scaling_kind:
        LLM_ROTARY_UNSCALED, LLM_ROTARY_LINEAR, LLM_ROTARY_LLAMA3
    ctypedef struct llm_rotary_scaling:
        llm_rotary_scaling_kind kind
        double factor, low_freq_factor, high_freq_factor, context
    ctypedef struct llm_rotary_shape:
        size_t n, n_positions, n_head, d_head, half
    void llm_rotary_forward(llm_engine *e, float *out, float *cosine, float *sine, const float *x,
                            const int32_t *positions, double theta, const llm_rotary_scaling *scaling,
                            const llm_rotary_shape *s)
    void llm_rotary_backward(llm_engine *e, float *dx, bint acc, const float *dout, const float *cosine,
                             const float *sine, const llm_rotary_shape *s)
    uint64_t llm_site(const char *name)
    void llm_dropout(llm_engine *e, float *out, bint acc, const float *x, float p, llm_dropout_key key,
                     uint64_t first, size_t n, uint16_t *kept)

    void llm_layernorm_forward(llm_engine *e, float *out, float *mean, float *rstd, const float *x,
                               const float *gamma, const float *beta, float eps, size_t n, size_t d)
    void llm_layernorm_backward(llm_engine *e, float *dx, bint acc_x, float *dgamma, bint acc_gamma,
                                float *dbeta, bint acc_beta, const float *dout, const float *x,
                                const float *gamma, const float *mean, const float *rstd, size_t n, size_t d)
    void llm_rmsnorm_forward(llm_engine *e, float *out, float *rstd, const float *x, const float *gain, float eps,
                             size_t n, size_t d)
    void llm_rmsnorm_backward(llm_engine *e, float *dx, bint acc_x, float *dgain, bint acc_gain, const float *dout,
                              const float *x, const float *gain,
                              const float *rstd, size_t n, size_t d)
    void llm_l2_normalize_forward(llm_engine *e, float *out, float *norm, const float *x, size_t n, size_t d)
    void llm_l2_normalize_backward(llm_engine *e, float *dx, bint acc, const float *dout, const float *out,
                                   const float *norm, size_t n, size_t d)
    void llm_softmax_forward(llm_engine *e, float *out, const float *x, size_t n, size_t d)
    void llm_softmax_backward(llm_engine *e, float *dx, bint acc, const float *dout, const float *out,
                              size_t n, size_t d)
    void llm_sum_rows(llm_engine *e, float *out, bint acc, const float *x, size_t n, size_t d)
    double llm_sum(llm_engine *e, const float *x, size_t n)
    double llm_sum_squares(llm_engine *e, const float *x, size_t n)
    bint llm_all_finite(llm_engine *e, const float *x, size_t n)

    void llm_mean_pool_forward(llm_engine *e, float *out, const float *x, const int32_t *lengths, size_t B, size_t d)
    void llm_mean_pool_backward(llm_engine *e, float *dx, bint acc, const float *dout, const int32_t *lengths,
                                size_t B, size_t d)
    void llm_cls_pool_forward(llm_engine *e, float *out, const float *x, const int32_t *lengths, size_t B, size_t d)
    void llm_cls_pool_backward(llm_engine *e, float *dx, bint acc, const float *dout, const int32_t *lengths,
                               size_t B, size_t d)

    void llm_attention_forward(llm_engine *e, float *out, float *row_max, float *row_sum, const float *q,
                               const float *k, const float *v, const llm_attention_shape *s)
    void llm_attention_backward(llm_engine *e, float *dq, float *dk, float *dv, bint acc, const float *dout,
                                const float *out, const float *row_max, const float *row_sum,
                                const float *q, const float *k, const float *v, const llm_attention_shape *s)
    llm_kv_cache *llm_kv_cache_create(size_t n_head, size_t d_head, size_t capacity)
    void llm_kv_cache_destroy(llm_kv_cache *c)
    size_t llm_kv_cache_bytes(const llm_kv_cache *c)
    void llm_attention_cached(llm_engine *e, float *out, llm_kv_cache **caches, const size_t *past, size_t B,
                              const float *q, const float *k, const float *v, size_t T, size_t q_stride,
                              size_t k_stride, size_t v_stride, size_t n_head, size_t window)

    void llm_cross_entropy_forward(llm_engine *e, float *losses, float *log_sum, const float *logits,
                                   const int32_t *targets, size_t n, size_t vocab)
    void llm_cross_entropy_backward(llm_engine *e, float *dlogits, bint acc, float scale, const float *logits,
                                    const float *log_sum, const int32_t *targets, size_t n, size_t vocab)
    double llm_mean_loss(const float *losses, const int32_t *targets, size_t n, size_t *count)
    void llm_lm_head_loss_forward(llm_engine *e, float *losses, float *log_sum, const float *x, const float *w,
                                  const int32_t *targets, size_t n, size_t d, size_t vocab)
    void llm_lm_head_loss_backward(llm_engine *e, float *dx, bint acc_x, float *dw, bint acc_w, float scale,
                                   const float *x, const float *w, const float *log_sum, const int32_t *targets,
                                   size_t n, size_t d, size_t vocab)

    void llm_adamw_step(llm_engine *e, float *w, float *m, float *v, const float *grad, const llm_adamw *o,
                        size_t n)
    double llm_lr_schedule(llm_schedule kind, int64_t i, int64_t warmup, int64_t total, double lr_max,
                           double min_lr)

    void llm_philox(uint32_t *out, const uint32_t *counter, const uint32_t *key)
    double llm_uniform(uint64_t seed, uint64_t stream, uint64_t index)
    void llm_normal(llm_engine *e, float *out, float mean, float std, uint64_t seed, uint64_t stream, size_t n)
    void llm_permutation(int64_t *out, size_t n, uint64_t seed, uint64_t epoch)

    llm_status llm_penalize(float *logits, size_t vocab, const int32_t *seen, size_t n_seen, double repetition,
                            double presence, double frequency, llm_should_stop stop, void *arg)
    int64_t llm_sample(const float *logits, size_t vocab, const llm_sampler *s)
