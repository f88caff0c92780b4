/* check.h -- what the files of the self-test share: data, comparisons, the list of engines to try. */
#ifndef LLM_CHECK_H
#define LLM_CHECK_H

#include "llm_core.h"

/* Every instruction set of this machine with one to three threads; the first is scalar with one. */
typedef struct setting {
    llm_isa isa;
    int threads, chunk;
} setting;

extern setting settings[LLM_ISA_COUNT * 3];
extern size_t n_settings;
extern long compared;

void fail(const char *format, ...);
float *room(size_t n);
float *noise(size_t n, uint64_t seed);
float *same(const float *p, size_t n);
void remember(const float *p, size_t n);
void expect_bits(const char *what, const char *where, const float *got, const float *wanted, size_t n);
void expect_near(const char *what, const float *got, const double *wanted, size_t n, double bound);
llm_engine *engine_of(setting s);
const char *name_of(setting s);
void finish(llm_engine *e);
void plain_gemm(float *C, const float *A, const float *B, size_t M, size_t N, size_t K, size_t ldc, size_t lda,
                size_t ldb, bool ta, bool tb, bool acc);

void plain_attention(double *out, double *dq, double *dk, double *dv, const float *q, const float *k, const float *v,
                     const float *dout, size_t T, size_t dh, size_t q_stride, size_t kv_stride, size_t D, bool causal,
                     size_t window);

void check_attention(void);
void check_shared_heads(void);
void check_memory(void);
void check_pool(bool may_fork);
void check_quantized(void);
void check_sequences(void);
void check_training(void);

#endif /* LLM_CHECK_H */
