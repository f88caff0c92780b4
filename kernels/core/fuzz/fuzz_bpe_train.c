/*
 * fuzz_bpe_train.c -- learning merges from any bytes; a tokenizer of them gives the bytes back.
 */
#include <stdlib.h>

#include "fuzz_bpe.h"

#define N_MERGES 40

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    llm_bpe *t = fuzz_learn(data, size, N_MERGES);

    fuzz_round_trip(t, data, size, false);
    llm_bpe_destroy(t);
    return 0;
}
