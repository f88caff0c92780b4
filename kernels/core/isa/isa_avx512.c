/* isa_avx512.c -- the kernels on AVX-512 F, DQ, BW, VL. */
#include "engine/isa.h"

#if defined(__x86_64__)
#define LLM_VEC_AVX512
#include "products/gemm_kernels.h"
#include "measure/measure_kernels.h"
#include "ops/math_kernels.h"
#include "ops/attention_kernels.h"
#include "ops/attention_backward_kernels.h"
#include "products/quantized_kernels.h"

const llm_kernels llm_kernels_avx512 = {
    .isa = LLM_ISA_AVX512,
    .compiled = true,
    .gemm = GEMM_KERNELS,
    .row_product = ROW_PRODUCT_KERNELS,
    .attention = ATTENTION_KERNELS,
    .math = MATH_KERNELS,
    .packed = PACKED_KERNELS,
};
#else
const llm_kernels llm_kernels_avx512 = { .isa = LLM_ISA_AVX512, .compiled = false };
#endif
