/* measure_decode.h -- the weights of the loop in measure_decode.c, moved elsewhere: what a mapped file costs. */
#ifndef LLM_MEASURE_DECODE_H
#define LLM_MEASURE_DECODE_H

#include "llm_core.h"

/* Where n bytes of weights lie from now on, the same bytes; NULL: nowhere. */
typedef const void *(*llm_decode_place)(void *arg, const void *bytes, size_t n);

/*
 * Every matrix goes where `place` says, in the order of the layers, and is freed here; but packed ones leave the
 * embedding, of which a token reads a row. The loop reads them there until it is destroyed. False: it is of no more use.
 */
bool llm_decode_move(llm_decode *g, llm_decode_place place, void *arg);

#endif /* LLM_MEASURE_DECODE_H */
