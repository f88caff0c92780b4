/* int4_blocks.h -- the scale and the minimum that a block of 4-bit weights was made with (int4_blocks.c). */
#ifndef LLM_INT4_BLOCKS_H
#define LLM_INT4_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>

/* Are there float16 numbers d and m with each of the n weights d * q + m in float32, q a whole number of 0 to 15? */
bool llm_int4_block(const float *w, size_t n, float *d, float *m);

#endif /* LLM_INT4_BLOCKS_H */
