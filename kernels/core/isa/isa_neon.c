/* isa_neon.c -- the kernels on AArch64's Advanced SIMD. */
#include "engine/isa.h"

#if defined(__aarch64__)
#define LLM_VEC_NEON
#include "products/gemm_kernels.h"
#include "measure/measure_kernels.h"
#include "ops/math_kernels.h"
#include "ops/attention_kernels.h"
#include "ops/attention_backward_kernels.h"
#include "products/quantized_kernels.h"

const llm_kernels llm_kernels_neon = {
    .isa = LLM_ISA_NEON,
    .compiled = true,
    .gemm = GEMM_KERNELS,
    .row_product = ROW_PRODUCT_KERNELS,
    .attention = ATTENTION_KERNELS,
    .math = MATH_KERNELS,
    .packed = PACKED_KERNELS,
};
#else
const llm_kernels llm_kernels_neon = { .isa = LLM_ISA_NEON, .compiled = false };
#endif
