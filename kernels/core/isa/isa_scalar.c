/* isa_scalar.c -- the kernels on plain C, every machine. */
#include "engine/isa.h"

#define LLM_VEC_SCALAR
#include "products/gemm_kernels.h"
#include "measure/measure_kernels.h"
#include "ops/math_kernels.h"
#include "ops/attention_kernels.h"
#include "ops/attention_backward_kernels.h"
#include "products/quantized_kernels.h"

const llm_kernels llm_kernels_scalar = {
    .isa = LLM_ISA_SCALAR,
    .compiled = true,
    .gemm = GEMM_KERNELS,
    .row_product = ROW_PRODUCT_KERNELS,
    .attention = ATTENTION_KERNELS,
    .math = MATH_KERNELS,
    .packed = PACKED_KERNELS,
};
