/*
 * fuzz_bpe.c -- a tokenizer that learnt from a text, and round trips through it.
 */
#include "fuzz_bpe.h"

#include <stdlib.h>
#include <string.h>

static uint8_t tokens[256 + FUZZ_MAX_MERGES][LLM_BPE_MAX_TOKEN];
static size_t lengths[256 + FUZZ_MAX_MERGES];
static int32_t merges[2 * FUZZ_MAX_MERGES];
static size_t n_merges;

static void put_token(llm_bpe *t, int32_t id)
{
    if (llm_bpe_put_token(t, id, tokens[id], lengths[id], 0) != LLM_BPE_OK)
        abort();
}

static void put_merge(llm_bpe *t, size_t i)
{
    int32_t left = merges[2 * i], right = merges[2 * i + 1], id = 256 + (int32_t)i;

    if (left < 0 || left >= id || right < 0 || right >= id || lengths[left] + lengths[right] > LLM_BPE_MAX_TOKEN)
        abort();
    memcpy(tokens[id], tokens[left], lengths[left]);
    memcpy(tokens[id] + lengths[left], tokens[right], lengths[right]);
    lengths[id] = lengths[left] + lengths[right];
    put_token(t, id);
    if (llm_bpe_put_merge(t, (uint32_t)i, tokens[left], lengths[left], tokens[right], lengths[right]) != LLM_BPE_OK)
        abort();
}

llm_bpe *fuzz_learn(const uint8_t *text, size_t size, size_t most)
{
    llm_bpe_trainer *trainer = llm_bpe_trainer_create();
    llm_bpe *t = llm_bpe_create(&(llm_bpe_settings){ 0 });
    const int32_t *pairs;

    if (llm_bpe_trainer_add(trainer, text, size, NULL, NULL) != LLM_BPE_OK ||
        llm_bpe_trainer_run(trainer, most, 2, NULL, NULL, &pairs, &n_merges) != LLM_BPE_OK || n_merges > most)
        abort();
    if (n_merges > 0)
        memcpy(merges, pairs, n_merges * 2 * sizeof(int32_t));
    llm_bpe_trainer_destroy(trainer);
    for (int32_t i = 0; i < 256; i++) {
        tokens[i][0] = llm_bpe_byte(i);
        lengths[i] = 1;
        put_token(t, i);
    }
    for (size_t i = 0; i < n_merges; i++)
        put_merge(t, i);
    return t;
}

const int32_t *fuzz_merges(size_t *n)
{
    *n = n_merges;
    return merges;
}

const int32_t *fuzz_round_trip(llm_bpe *t, const uint8_t *text, size_t size, bool special)
{
    const int32_t *ids;
    size_t n_ids, at = 0, n;

    if (llm_bpe_encode(t, text, size, special, true, NULL, NULL, &ids, &n_ids) != LLM_BPE_OK)
        abort();
    for (size_t i = 0; i < n_ids; i++, at += n) {
        const uint8_t *bytes = llm_bpe_token(t, ids[i], &n);

        if (bytes == NULL || n > size - at || memcmp(bytes, text + at, n) != 0)
            abort();
    }
    if (at != size)
        abort();
    return ids;
}
