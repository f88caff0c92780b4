/*
 * quantized.h -- weights held as bf16, int8 or int4: their layout, between the packing (quantized.c) and the kernels
 * (quantized_kernels.h).
 *
 * Columns (outputs) lie in panels of LLM_PACKED_COLUMNS, zeros past the last; a panel is contiguous, row k of it
 * holds its weights for input k:
 *   bf16  two groups of 16 words, word i of group g with column 32 g + i in the low half and 32 g + 16 + i in the high
 *   int8  a byte for each column, in their order
 *   int4  blocks of LLM_INT4_BLOCK inputs (the last may be shorter): 64 scales, then 64 minima, float16 in the order of
 *         columns, then for each two inputs 16 words, bits 4 v to 4 v + 3 of word i for column 16 v + i of the first and
 *         those 16 further up for the second; without a second one they are 0
 * An int4 weight is scale * q + minimum, rounded to float32 once, q of 0 to 15. An int8 weight is q * scale; one scale per column and block of LLM_GEMM_KB inputs, blocks in order.
 * A layer is one block of memory: all panels, then (int8) the scales (panels, blocks, LLM_PACKED_COLUMNS). There is no
 * room between them, and every bit is decided by the weights alone, whatever packed them: files hold these blocks.
 * LLM_PACKING_VERSION is raised with any change of the layout or of the rounding.
 */
#ifndef LLM_QUANTIZED_H
#define LLM_QUANTIZED_H

#include "llm_core.h"
#include "numerics.h"

enum { LLM_PACKED_COLUMNS = 64, LLM_INT4_BLOCK = 32 };

/*
 * c (m,n) = a (m,k) times the first n columns of a panel, then row (n) is added to every row of c unless it is NULL.
 * scales (blocks of k, LLM_PACKED_COLUMNS) is NULL but for int8.
 */
typedef void (*llm_packed_product)(float *c, size_t ldc, const float *a, const uint32_t *panel, const float *scales,
                                   size_t m, size_t n, size_t k, const float *row, float *scratch);

typedef struct llm_packed_kernels {
    llm_packed_product bf16, int8, int4;
    /* A block w (n, LLM_PACKED_COLUMNS), n at most LLM_GEMM_KB, as it lies in a panel; scales (LLM_PACKED_COLUMNS). */
    void (*pack_bf16)(uint32_t *words, const float *w, size_t n);
    void (*pack_int8)(int8_t *bytes, float *scales, const float *w, size_t n);
    /*
     * A block of 1 to LLM_INT4_BLOCK inputs. Columns that are `known` (not 0) have scale d and minimum m, float16 numbers
     * which give their weights; others get such as fit well.
     */
    void (*pack_int4)(uint32_t *words, const float *w, size_t n, const float *d, const float *m, const uint32_t *known);
} llm_packed_kernels;

#endif /* LLM_QUANTIZED_H */
