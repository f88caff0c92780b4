/* fuzz_bpe_vocab.c -- vocab.json: what the parser hands on is what it promises, and a tokenizer takes it. */
#include <stdlib.h>

#include "tokenizer/bpe.h"

static bool take(void *arg, const uint8_t *token, size_t n, int32_t id)
{
    uint8_t bytes[2 * LLM_BPE_MAX_TOKEN];
    size_t n_bytes;

    if (n == 0 || n > sizeof(bytes) || id < 0 || llm_utf8_replace(NULL, token, n, true, true) != n)
        abort();
    n_bytes = llm_bpe_alphabet_bytes(bytes, token, n);
    if (n_bytes == SIZE_MAX)
        llm_bpe_put_token(arg, id, token, n, 0);
    else
        llm_bpe_put_token(arg, id, bytes, n_bytes, id % 2 == 0 ? LLM_BPE_ADDED : 0);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    llm_bpe *t = llm_bpe_create(&(llm_bpe_settings){ 0 });
    llm_bpe_error error;

    if (!llm_bpe_parse_vocab(data, size, take, t, &error) && (error.message == NULL || error.line == 0))
        abort();
    llm_bpe_destroy(t);
    return 0;
}
