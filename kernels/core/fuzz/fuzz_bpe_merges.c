/* fuzz_bpe_merges.c -- merges.txt: both halves of every rule are in the alphabet, ranks count up. */
#include <stdlib.h>

#include "tokenizer/bpe.h"

static bool take(void *arg, uint32_t rank, const uint8_t *left, size_t n_left, const uint8_t *right, size_t n_right)
{
    uint8_t bytes[4 * LLM_BPE_MAX_TOKEN];
    uint32_t *expected = arg;

    if (rank != (*expected)++ || n_left == 0 || n_right == 0 || n_left + n_right > sizeof(bytes) ||
        llm_bpe_alphabet_bytes(bytes, left, n_left) == SIZE_MAX ||
        llm_bpe_alphabet_bytes(bytes, right, n_right) == SIZE_MAX)
        abort();
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    llm_bpe_error error;
    uint32_t rank = 0;

    if (!llm_bpe_parse_merges(data, size, take, &rank, &error) && (error.message == NULL || error.line == 0))
        abort();
    return 0;
}
