/* isa_avx2.c -- the kernels on AVX2 and FMA. */
#include "engine/isa.h"

#if defined(__x86_64__)
#define LLM_VEC_AVX2
#include "products/gemm_kernels.h"
#include "measure/measure_kernels.h"
#include "ops/math_kernels.h"
#include "ops/attention_kernels.h"
#include "ops/attention_backward_kernels.h"
#include "products/quantized_kernels.h"

const llm_kernels llm_kernels_avx2 = {
    .isa = LLM_ISA_AVX2,
    .compiled = true,
    .gemm = GEMM_KERNELS,
    .row_product = ROW_PRODUCT_KERNELS,
    .attention = ATTENTION_KERNELS,
    .math = MATH_KERNELS,
    .packed = PACKED_KERNELS,
};
#else
const llm_kernels llm_kernels_avx2 = { .isa = LLM_ISA_AVX2, .compiled = false };
#endif
