/*
 * math_kernels.h -- the kernels of math_kernels_table.h over v16, included once by each ISA's source:
 *
 *   exp_kernels.h          e^x
 *   philox_kernels.h       dropout's random masks
 *   elementwise_kernels.h  arithmetic, GELU, ReLU, dropout, AdamW
 *   gelu_exact_kernels.h   GELU by the normal distribution
 *   row_kernels.h          normalisations, softmax, sums
 */
#ifndef LLM_MATH_KERNELS_H
#define LLM_MATH_KERNELS_H

#include "engine/math_kernels_table.h"
#include "engine/vec.h"

/* How many of the next 16 elements exist when `left` remain */
LLM_INLINE size_t lanes_of(size_t left) { return left < V16_LANES ? left : V16_LANES; }

LLM_INLINE v16 load_lanes(const float *p, size_t lanes)
{
    return lanes == V16_LANES ? v16_load(p) : v16_load_n(p, lanes);
}

/* The same with a value of choice beyond the end, where 0 would change a maximum or a sum */
LLM_INLINE v16 load_lanes_or(const float *p, size_t lanes, float beyond)
{
    return lanes == V16_LANES ? v16_load(p) : v16_select(m16_first(lanes), v16_load_n(p, lanes), v16_set1(beyond));
}

LLM_INLINE void store_lanes(float *p, v16 x, size_t lanes)
{
    if (lanes == V16_LANES)
        v16_store(p, x);
    else
        v16_store_n(p, x, lanes);
}

/* out (+)= x */
LLM_INLINE void put_lanes(float *out, bool acc, v16 x, size_t lanes)
{
    store_lanes(out, acc ? v16_add(load_lanes(out, lanes), x) : x, lanes);
}

#include "engine/exp_kernels.h"
#include "engine/philox_kernels.h"
#include "elementwise_kernels.h"
#include "gelu_exact_kernels.h"
#include "row_kernels.h"

#define KERNEL(type, name, arguments) .name = kernel_##name,
#define MATH_KERNELS                  { ELEMENTWISE_MATH(KERNEL) ACTIVATIONS(ACTIVATION_MATH) ROW_MATH(KERNEL) }

#endif /* LLM_MATH_KERNELS_H */
