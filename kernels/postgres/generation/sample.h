/*
 * sample.h -- sampling from logits (sample.c).
 */
#ifndef PG_LLM_SAMPLE_H
#define PG_LLM_SAMPLE_H

#include "tensor/tensor.h"

#include "core/llm_core.h"

/* The last row of logits; 22023 when there is none. */
extern const float *sample_last_row(const Tensor *logits, size_t *vocab);
/* 22023 when temperature, top_k or top_p is out of range. */
extern void sample_check(const llm_sampler *s);
/* A token drawn by (seed, step); s is changed. 22003 when no logit is finite. */
extern int32 sample_token(const float *logits, size_t vocab, llm_sampler *s, uint64 seed, uint64 step);
/* That penalties can be computed: 22023, or 22003 for a token outside of the vocabulary. */
extern void sample_check_seen(const int32 *seen, size_t n_seen, size_t vocab, double repetition);
extern void sample_penalize(float *logits, size_t vocab, const int32 *seen, size_t n_seen, double repetition,
                            double presence, double frequency);

#endif
