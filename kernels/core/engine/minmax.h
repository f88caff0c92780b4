/* minmax.h -- the smaller of two sizes. */
#ifndef LLM_MINMAX_H
#define LLM_MINMAX_H

#include <stddef.h>

static inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

#endif /* LLM_MINMAX_H */
