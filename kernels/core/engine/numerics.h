/*
 * numerics.h -- the constants that decide the bits of a result.
 *
 * Everything else (tile sizes, cache blocks, thread counts, instruction sets) is free to be tuned. Changing
 * a value here, or a polynomial, or how the gradients of micro-batches are summed, changes results: raise
 * LLM_NUMERICS_VERSION with it, for runs log it.
 */
#ifndef LLM_NUMERICS_H
#define LLM_NUMERICS_H

#define LLM_NUMERICS_VERSION 3

/*
 * Numeric block of a matrix product: within a block of KB products an accumulator starts from +0 and takes
 * one FMA per k in order; then C = C + accumulator, blocks in order, C starting from +0 (or from what it
 * holds). Short blocks are a cheap pairwise summation: 128 gives a smaller mean error than 256 or 384, and
 * one addition per 128 FMAs costs nothing measurable. A loop that walks K outside of llm_gemm steps by
 * multiples of it.
 */
#define LLM_GEMM_KB 128

/*
 * Sums within a row run in 16 virtual lanes, lane = index mod 16, folded 8-4-2-1: the widest register of
 * the supported machines, which narrower ones emulate with several.
 */
#define LLM_LANES 16

/*
 * Sums across rows (bias and gain gradients) add this many rows in index order, then blocks in pairs, pairs in
 * pairs, and so on, what is left from the smallest to the largest. With blocks of 128 added in order the errors of
 * bias and gain gradients were up to 1.14 times PyTorch's.
 */
#define LLM_ROW_BLOCK 8

/*
 * Sums of whole arrays (global norm) take this many elements in the 16 lanes; the blocks' sums are added in
 * double, in index order.
 */
#define LLM_SUM_BLOCK 4096

/*
 * Key and value gradients add the contributions of this many queries at a time, blocks of queries in
 * order, whatever tile the scores were computed in. Equal to the numeric block of a product, for it is one:
 * dv = weights^T dout has the queries as its K.
 */
#define LLM_ATTENTION_QB LLM_GEMM_KB

#endif /* LLM_NUMERICS_H */
