/* measure_kernels.h -- arithmetic for its own sake: what an instruction set can do when it waits for nothing. */
#ifndef LLM_MEASURE_KERNELS_H
#define LLM_MEASURE_KERNELS_H

#include "products/gemm_kernels.h"

/* As many chains as a micro-kernel has accumulators: enough to hide an FMA's latency. */
enum { FMA_CHAINS = MR * NV };

/* Multiply-adds in registers, FMA_CHAINS * 16 * 2 flops a round; the sum keeps the compiler from dropping them. */
static float fma_rounds(size_t rounds, float x)
{
    v16 acc[FMA_CHAINS], sum = v16_zero();
    const v16 a = v16_set1(x), b = v16_set1(0.5f);
    float start[16 * FMA_CHAINS]; /* all different: equal chains would be computed once */

    for (size_t i = 0; i < 16 * FMA_CHAINS; i++)
        start[i] = x * (float)i;
#pragma GCC unroll 32
    for (size_t i = 0; i < FMA_CHAINS; i++)
        acc[i] = v16_load(start + 16 * i);
    for (size_t r = 0; r < rounds; r++) {
#pragma GCC unroll 32
        for (size_t i = 0; i < FMA_CHAINS; i++)
            acc[i] = v16_fma(acc[i], b, a);
    }
#pragma GCC unroll 32
    for (size_t i = 0; i < FMA_CHAINS; i++)
        sum = v16_add(sum, acc[i]);
    return v16_hsum(sum);
}

#endif /* LLM_MEASURE_KERNELS_H */
