/*
 * vec.h -- sixteen float lanes under one set of names on every instruction set.
 *
 * A source that includes this header is compiled once per ISA (isa_*.c defines LLM_VEC_<ISA> first).
 * Every operation below gives the same bits on each of them: one rounding, to nearest even, no
 * approximations, no contraction. Kernels written over v16 are therefore equal by construction.
 *
 *   v16   16 floats             v16i  16 32-bit integers       m16  16 truth values
 *
 *   v16_load(p) v16_store(p, a)         unaligned
 *   v16_load_n(p, n) v16_store_n(p, a, n)   first n (0..16) lanes; the others read 0, stay untouched
 *   v16_load_i8(p)                      16 signed bytes, as floats
 *   v16_load_f16(p)                     16 finite float16 numbers (uint16_t), as floats
 *   v16_of_low4(i)                      the lowest 4 bits of each lane, as floats
 *   v16_set1(x) v16_zero()
 *   v16_add v16_sub v16_mul v16_div v16_sqrt v16_floor v16_neg v16_abs
 *   v16_fma(a, b, c)    a * b + c       v16_fnma(a, b, c)   c - a * b        rounded once
 *   v16_max(a, b)       a > b ? a : b   v16_min(a, b)       a < b ? a : b    so b when either is NaN
 *   v16_lt v16_le v16_gt v16_ge v16_eq  -> m16, false for NaN
 *   v16_select(m, a, b) m ? a : b
 *   v16_hsum(a)  v16_hmax(a)            folded 8-4-2-1: lane i with lane i+8, then i+4, i+2, i+1
 *   v16_to_i(a)  to nearest even; INT32_MIN when |a| >= 2^31 or NaN      v16_of_i(i)
 *   v16_as_i(a)  v16i_as_f(i)           the same bits under the other type
 *   v16_transpose(r)                    r[16], a 16x16 block in place
 *   v16_load_columns(r, p, step, rows)  r[V16_COLUMNS], columns of rows: lane i of r[q] is p[i * step + q] for i below
 *                                       rows, a constant of 1 to 16, and anything from there on
 *
 *   v16i_load v16i_store v16i_set1 v16i_iota (0..15) v16i_add v16i_sub v16i_and v16i_or v16i_xor
 *   v16i_mul_wide_u32(&high, a, b)      the products' low 32 bits, their high ones to high
 *   v16i_sll(a, n) v16i_srl(a, n) v16i_sra(a, n) with 0 <= n < 32
 *   v16i_eq v16i_gt (signed) v16i_lt_u32 -> m16       v16i_select(m, a, b)
 *
 *   m16_and m16_or m16_not m16_first(n) (lanes below n) m16_bits (bit i = lane i) m16_any m16_all
 */
#ifndef LLM_VEC_H
#define LLM_VEC_H

#ifdef __FAST_MATH__
#error "fast-math changes results: build without it"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0 && __FLT_EVAL_METHOD__ != 16
#error "float arithmetic must be done in float (no x87)"
#endif

#include <stddef.h>
#include <stdint.h>

#define LLM_INLINE static inline __attribute__((always_inline))
#define V16_LANES  16

#if defined(LLM_VEC_AVX512)
#include "vec_avx512.h"
#elif defined(LLM_VEC_AVX2)
#include "vec_avx2.h"
#elif defined(LLM_VEC_NEON)
#include "vec_neon.h"
#elif defined(LLM_VEC_SCALAR)
#include "vec_scalar.h"
#else
#error "define LLM_VEC_SCALAR, LLM_VEC_AVX2, LLM_VEC_AVX512 or LLM_VEC_NEON"
#endif

#endif /* LLM_VEC_H */
