/* gemm.h -- the matrix product as other ops of the core call it: views instead of transposition flags. */
#ifndef LLM_GEMM_H
#define LLM_GEMM_H

#include "engine/isa.h"

/*
 * C (M,N) = A (M,K) B (K,N), or C += with acc; then row[j] is added to every C[i,j] (NULL: nothing).
 * In each view one of the steps is 1.
 */
void llm_product(llm_engine *e, float *C, size_t ldc, llm_view A, llm_view B, size_t M, size_t N, size_t K, bool acc,
                 const float *row);

#endif /* LLM_GEMM_H */
