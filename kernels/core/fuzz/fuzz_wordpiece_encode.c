/*
 * fuzz_wordpiece_encode.c -- any bytes through BERT's normalizer, words and tokens, the tokens compared with those of
 * plain search; the first byte chooses the normalizer's options.
 */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/wordpiece.h"

#define LONGEST 12 /* characters of a word that is looked at */

/* Words that begin alike, parts, marks of two classes that are no accents, added tokens that overlap. */
static const struct {
    const char *text;
    unsigned flags;
} tokens[] = { { "[UNK]", LLM_BPE_ADDED | LLM_BPE_BASE | LLM_BPE_SPECIAL },
               { "[CLS]", LLM_BPE_ADDED | LLM_BPE_BASE | LLM_BPE_SPECIAL },
               { "[C", LLM_BPE_ADDED | LLM_BPE_SPECIAL | LLM_BPE_SINGLE_WORD },
               { "\xc3\x89t\xc3\xa9", LLM_BPE_ADDED | LLM_BPE_SPECIAL | LLM_BPE_NORMALIZED },
               { "a", 0 },
               { "ab", 0 },
               { "abc", 0 },
               { "##b", 0 },
               { "##c", 0 },
               { "##cab", 0 },
               { "##cabb", 0 },
               { "e", 0 },
               { "##e", 0 },
               { "i", 0 },
               { "##\xcc\x87", 0 },
               { "##\xe3\x80\xae", 0 },
               { "##\xf0\x9d\x85\xa5", 0 },
               { "\xe4\xb8\xad", 0 },
               { "\xe1\x84\x80", 0 },
               { "##\xe1\x85\xa1", 0 },
               { "!", 0 },
               { "#", 0 },
               { "[", 0 },
               { "]", 0 },
               { "##", 0 },
               { "\xef\xbf\xbd", 0 } };

#define N_TOKENS (sizeof(tokens) / sizeof(tokens[0]))

static llm_wordpiece *tokenizers[16];

static llm_wordpiece *tokenizer(unsigned options)
{
    const llm_wordpiece_settings settings = { .normalizer = options,
                                              .unknown = (const uint8_t *)"[UNK]",
                                              .n_unknown = 5,
                                              .prefix = (const uint8_t *)"##",
                                              .n_prefix = 2,
                                              .max_characters = LONGEST,
                                              .cleanup = true };
    llm_wordpiece *t = tokenizers[options];

    if (t != NULL)
        return t;
    t = tokenizers[options] = llm_wordpiece_create(&settings);
    for (size_t i = 0; i < N_TOKENS; i++)
        if (llm_wordpiece_put_token(t, (int32_t)i, (const uint8_t *)tokens[i].text, strlen(tokens[i].text),
                                    tokens[i].flags) != LLM_BPE_OK)
            abort();
    if (llm_wordpiece_seal(t) != LLM_BPE_OK)
        abort();
    return t;
}

/* The longest token of the vocabulary that a word or the rest of one begins with, by looking at all of them */
static size_t plain_longest(const uint8_t *rest, size_t n, bool inside, int32_t *id)
{
    size_t longest = 0;

    for (size_t i = 0; i < N_TOKENS; i++) {
        const char *text = tokens[i].text;
        size_t length = strlen(text);

        if ((tokens[i].flags & LLM_BPE_ADDED) && !(tokens[i].flags & LLM_BPE_BASE))
            continue;
        if (inside) {
            if (length <= 2 || memcmp(text, "##", 2) != 0)
                continue;
            text += 2;
            length -= 2;
        }
        if (length <= n && length > longest && memcmp(text, rest, length) == 0) {
            longest = length;
            *id = (int32_t)i;
        }
    }
    return longest;
}

/* The tokens of one word, [UNK] alone when it cannot be made of them; how many */
static size_t encode_plainly(int32_t *ids, const uint8_t *word, size_t n, size_t n_characters)
{
    size_t n_ids = 0;

    if (n_characters <= LONGEST)
        for (size_t at = 0, length; at <= n; at += length) {
            if (at == n)
                return n_ids;
            length = plain_longest(word + at, n - at, at > 0, &ids[n_ids]);
            if (length == 0)
                break;
            n_ids++;
        }
    ids[0] = 0;
    return 1;
}

static void compare(const llm_bert_buffer *b, const int32_t *found, size_t n_found)
{
    int32_t ids[4 * LONGEST];
    size_t start = 0, end, n_characters, done = 0;

    while (b->n > 0 && llm_bert_word(b->text, b->n, &start, &end, &n_characters)) {
        size_t n;

        if (end <= start || end > b->n || n_characters > end - start)
            abort();
        n = encode_plainly(ids, b->text + start, end - start, n_characters);
        if (n > n_found - done || memcmp(ids, found + done, n * sizeof(*ids)) != 0)
            abort();
        done += n;
        start = end;
    }
    if (done != n_found)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const unsigned options = size == 0 ? 15 : data[0] & 15;
    const uint8_t *text = size == 0 ? data : data + 1;
    const size_t n = size == 0 ? 0 : size - 1;
    llm_wordpiece *t = tokenizer(options);
    llm_bert_buffer b = { 0 };
    uint8_t part[LLM_WORDPIECE_PART];
    const int32_t *ids;
    size_t n_ids;

    if (llm_bert_normalize(&b, options, text, n, NULL, NULL) != LLM_BPE_OK ||
        (b.n > 0 && llm_utf8_replace(NULL, b.text, b.n, true, false) != b.n))
        abort();
    /* All added tokens are special: without them the text is words alone. */
    if (llm_wordpiece_encode(t, text, n, false, NULL, NULL, &ids, &n_ids) != LLM_BPE_OK)
        abort();
    compare(&b, ids, n_ids);
    if (llm_wordpiece_encode(t, text, n, true, NULL, NULL, &ids, &n_ids) != LLM_BPE_OK)
        abort();
    for (size_t i = 0; i < n_ids; i++)
        if (llm_wordpiece_part(t, ids[i], i == 0, part) > sizeof(part))
            abort();
    llm_bert_free(&b);
    return 0;
}
