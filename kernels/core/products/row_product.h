/* row_product.h -- the product of one row with a matrix, which is a matter of reading the matrix (row_product.c). */
#ifndef LLM_ROW_PRODUCT_H
#define LLM_ROW_PRODUCT_H

#include "engine/isa.h"

/* c (n) = a (k) B (k,n), or c += with acc; then row (n) is added unless it is NULL. One of B's steps is 1. */
void llm_row_product(llm_engine *e, float *c, llm_view a, llm_view b, size_t n, size_t k, bool acc, const float *row);

#endif /* LLM_ROW_PRODUCT_H */
