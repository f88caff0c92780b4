/* fuzz_wordpiece_vocab.c -- vocab.txt: tokens are UTF-8, ids count up, and a tokenizer takes all of them. */
#include <stdlib.h>

#include "tokenizer/wordpiece.h"

typedef struct taken {
    llm_wordpiece *tokenizer;
    int32_t n;
} taken;

static bool take(void *arg, const uint8_t *token, size_t n, int32_t id)
{
    taken *t = arg;
    llm_bpe_status status;

    if (n == 0 || n > LLM_BPE_MAX_TOKEN || id != t->n++ || llm_utf8_replace(NULL, token, n, true, true) != n)
        abort();
    /* Every second one is searched for as a whole, too, in its normalized form. */
    status = llm_wordpiece_put_token(t->tokenizer, id, token, n,
                                     id % 2 == 0 ? LLM_BPE_ADDED | LLM_BPE_BASE | LLM_BPE_NORMALIZED : 0);
    if (status != LLM_BPE_OK && status != LLM_BPE_BAD_TOKEN)
        abort();
    return status == LLM_BPE_OK;
}

/* A tokenizer of whatever was in the file encodes the file, and decodes what that gives. */
static void use(taken *t, const uint8_t *data, size_t size)
{
    uint8_t part[LLM_WORDPIECE_PART];
    const int32_t *ids;
    size_t n_ids;

    if (llm_wordpiece_seal(t->tokenizer) != LLM_BPE_OK)
        return;
    if (llm_wordpiece_encode(t->tokenizer, data, size, true, NULL, NULL, &ids, &n_ids) != LLM_BPE_OK ||
        n_ids > 4 * size)
        abort();
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || ids[i] >= t->n || llm_wordpiece_part(t->tokenizer, ids[i], i == 0, part) > sizeof(part))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const llm_wordpiece_settings settings = { .normalizer = 15,
                                              .unknown = (const uint8_t *)"?",
                                              .n_unknown = 1,
                                              .prefix = (const uint8_t *)"#",
                                              .n_prefix = 1,
                                              .max_characters = 20,
                                              .cleanup = true };
    taken t = { llm_wordpiece_create(&settings), 0 };
    llm_bpe_error error;

    if (!llm_wordpiece_parse_vocab(data, size, take, &t, &error)) {
        if (error.message != NULL && error.line == 0)
            abort();
    } else if (error.message != NULL) {
        abort();
    } else {
        use(&t, data, size);
    }
    (void)llm_wordpiece_is_json(data, size);
    llm_wordpiece_destroy(t.tokenizer);
    return 0;
}
