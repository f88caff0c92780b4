/* attention.h -- what attention.c and kv_cache.c share. */
#ifndef LLM_ATTENTION_H
#define LLM_ATTENTION_H

#include "engine/isa.h"

/*
 * Heads are handed to threads in groups of at least this share of a task's work: less does not repay it.
 * Smaller than a product's share, for exponentials and packing come on top of the flops counted.
 */
#define LLM_ATTENTION_LEAST 4000

/* 1 / sqrt(d_head) */
float llm_attention_scale(size_t d_head);

/* How many units of `flops` make a range worth a hand-off. */
size_t llm_attention_grain(const llm_engine *e, double flops);

#endif /* LLM_ATTENTION_H */
