/* fuzz_bpe_tiktoken.c -- .tiktoken files, the merges that their ranks imply, and a tokenizer of both. */
#include <stdlib.h>

#include "tokenizer/bpe.h"

typedef struct tokenizers {
    llm_bpe *known; /* of which the merges are recovered */
    llm_bpe *whole; /* which gets them */
} tokenizers;

static bool take_token(void *arg, const uint8_t *token, size_t n, int32_t id)
{
    tokenizers *t = arg;

    if (n == 0 || n > LLM_BPE_MAX_TOKEN || id < 0 || llm_bpe_put_token(t->known, id, token, n, 0) != LLM_BPE_OK)
        abort();
    return llm_bpe_put_token(t->whole, id, token, n, 0) == LLM_BPE_OK;
}

static bool take_merge(void *arg, uint32_t rank, const uint8_t *left, size_t n_left, const uint8_t *right,
                       size_t n_right)
{
    tokenizers *t = arg;

    if (llm_bpe_put_merge(t->whole, rank, left, n_left, right, n_right) != LLM_BPE_OK)
        abort();
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tokenizers t = { llm_bpe_create(&(llm_bpe_settings){ 0 }), llm_bpe_create(&(llm_bpe_settings){ 0 }) };
    llm_bpe_error error;

    if (!llm_bpe_parse_tiktoken(data, size, take_token, &t, &error)) {
        if (error.message == NULL || error.line == 0)
            abort();
    } else if (llm_bpe_recover_merges(t.known, NULL, NULL, take_merge, &t) != LLM_BPE_OK) {
        abort();
    }
    llm_bpe_destroy(t.known);
    llm_bpe_destroy(t.whole);
    return 0;
}
