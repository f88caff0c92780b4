/*
 * fuzz_bpe.h -- what the targets for byte pair encoding share: a tokenizer that learnt from a text, and round
 * trips.
 */
#ifndef FUZZ_BPE_H
#define FUZZ_BPE_H

#include "tokenizer/bpe.h"

#define FUZZ_MAX_MERGES 200

/* Bytes are the tokens 0 .. 255 as GPT-2 numbers them, then come at most n_merges learnt ones. */
llm_bpe *fuzz_learn(const uint8_t *text, size_t size, size_t n_merges);
/* left, right of merge i; how many there are (of the latest tokenizer) */
const int32_t *fuzz_merges(size_t *n);
/* Ensure that the tokens of the text are its bytes; returns its ids. */
const int32_t *fuzz_round_trip(llm_bpe *t, const uint8_t *text, size_t size, bool special);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
