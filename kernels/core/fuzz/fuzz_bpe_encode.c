/*
 * fuzz_bpe_encode.c -- any bytes: learning merges from them, encoding and decoding them with those, text as UTF-8.
 */
#include <stdlib.h>
#include <string.h>

#include "bpe.h"

#define N_MERGES 40

static uint8_t tokens[256 + N_MERGES][LLM_BPE_MAX_TOKEN];
static size_t lengths[256 + N_MERGES];

static void
put_token(llm_bpe *t, int32_t id)
{
    if (llm_bpe_put_token(t, id, tokens[id], lengths[id], false) != LLM_BPE_OK)
        abort();
}

/* A tokenizer that learnt from the data */
static llm_bpe *
learn(const uint8_t *data, size_t size)
{
    llm_bpe_trainer *trainer = llm_bpe_trainer_create();
    llm_bpe *t = llm_bpe_create();
    const int32_t *pairs;
    size_t n;

    if (llm_bpe_trainer_add(trainer, data, size, NULL, NULL) != LLM_BPE_OK ||
        llm_bpe_trainer_run(trainer, N_MERGES, 2, NULL, NULL, &pairs, &n) != LLM_BPE_OK || n > N_MERGES)
        abort();
    for (int32_t i = 0; i < 256; i++) {
        tokens[i][0] = llm_bpe_byte(i);
        lengths[i] = 1;
        put_token(t, i);
    }
    for (size_t i = 0; i < n; i++) {
        int32_t left = pairs[2 * i], right = pairs[2 * i + 1];

        memcpy(tokens[256 + i], tokens[left], lengths[left]);
        memcpy(tokens[256 + i] + lengths[left], tokens[right], lengths[right]);
        lengths[256 + i] = lengths[left] + lengths[right];
        put_token(t, 256 + (int32_t)i);
    }
    if (llm_bpe_put_token(t, 1000, (const uint8_t *)"<|x|>", 5, true) == LLM_BPE_NO_MEMORY)
        abort();
    for (size_t i = 0; i < n; i++)
        if (llm_bpe_put_merge(t, (uint32_t)i, tokens[pairs[2 * i]], lengths[pairs[2 * i]], tokens[pairs[2 * i + 1]],
                              lengths[pairs[2 * i + 1]]) != LLM_BPE_OK)
            abort();
    llm_bpe_trainer_destroy(trainer);
    return t;
}

static void
round_trip(llm_bpe *t, const uint8_t *data, size_t size, bool special)
{
    const int32_t *ids;
    size_t n_ids, at = 0, n;

    if (llm_bpe_encode(t, data, size, special, NULL, NULL, &ids, &n_ids) != LLM_BPE_OK)
        abort();
    for (size_t i = 0; i < n_ids; i++, at += n) {
        const uint8_t *bytes = llm_bpe_token(t, ids[i], &n);

        if (bytes == NULL || n > size - at || memcmp(bytes, data + at, n) != 0)
            abort();
    }
    if (at != size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    llm_bpe *t = learn(data, size);
    uint8_t *text = malloc(3 * size + 1);
    size_t n = llm_utf8_replace(NULL, data, size, true, true), begun;

    round_trip(t, data, size, false);
    round_trip(t, data, size, true);
    if (n > 3 * size || llm_utf8_replace(text, data, size, true, true) != n ||
        llm_utf8_replace(NULL, text, n, true, true) != n)
        abort();
    begun = llm_utf8_replace(NULL, data, size, false, true);
    if (begun > n)
        abort();
    free(text);
    llm_bpe_destroy(t);
    return 0;
}
