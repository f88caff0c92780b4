/*
 * fuzz_bpe_kinds.c -- any bytes through every pre-tokenizer, NFC and SentencePiece, and back.
 *
 * Pieces make the text again; what is normalized stays as it is when it is normalized again; the tokens of a text stand
 * for it, or for what it is normalized to.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_bpe.h"
#include "tokenizer/nfc.h"

#define N_SETTINGS 8

static llm_bpe *tokenizers[N_SETTINGS];
static const llm_bpe_settings chosen[N_SETTINGS] = {
    { .pre_tokenizer = LLM_BPE_SMOLLM },
    { .pre_tokenizer = LLM_BPE_LLAMA3, .ignore_merges = true },
    { .pre_tokenizer = LLM_BPE_QWEN2, .nfc = true },
    { .pre_tokenizer = LLM_BPE_TEKKEN, .nfc = true, .ignore_merges = true },
    { .blank = LLM_BPE_BLANK_NEVER },
    { .blank = LLM_BPE_BLANK_PREPEND, .strip = true },
    { .blank = LLM_BPE_BLANK_ALWAYS, .split = true },
    { .blank = LLM_BPE_BLANK_FIRST, .strip = true },
};

static void put(llm_bpe *t, int32_t id, const char *token, unsigned flags)
{
    if (llm_bpe_put_token(t, id, (const uint8_t *)token, strlen(token), flags) != LLM_BPE_OK)
        abort();
}

static void merge(llm_bpe *t, uint32_t rank, const char *left, const char *right)
{
    if (llm_bpe_put_merge(t, rank, (const uint8_t *)left, strlen(left), (const uint8_t *)right, strlen(right)) !=
        LLM_BPE_OK)
        abort();
}

static void put_bytes(llm_bpe *t, bool pieces)
{
    for (int32_t i = 0; i < 256; i++) {
        uint8_t byte = (uint8_t)i;
        char name[8];

        snprintf(name, sizeof(name), "<0x%02X>", (unsigned)i);
        if (pieces)
            put(t, i, name, 0);
        else if (llm_bpe_put_token(t, i, &byte, 1, 0) != LLM_BPE_OK)
            abort();
    }
}

static llm_bpe *make(const llm_bpe_settings *settings)
{
    static const char *const texts[] = { "\xe2\x96\x81",    "a", "b", "\xc3\xa9", "\xe2\x96\x81\xe2\x96\x81",
                                         "\xe2\x96\x81\x61" };
    llm_bpe *t = llm_bpe_create(settings);
    bool pieces = settings->blank != LLM_BPE_BYTE_LEVEL;

    put_bytes(t, pieces);
    if (pieces)
        for (int32_t i = 0; i < 6; i++)
            put(t, 256 + i, texts[i], 0);
    put(t, 300, "ab", 0);
    put(t, 301, "aba", 0);
    put(t, 302, "<|x|>", LLM_BPE_ADDED | LLM_BPE_SPECIAL);
    put(t, 303, "<e\xcc\x81>", LLM_BPE_ADDED | LLM_BPE_NORMALIZED);
    merge(t, 0, "a", "b");
    if (pieces) {
        merge(t, 1, texts[0], "a");
        merge(t, 2, texts[0], texts[0]);
    } else {
        merge(t, 1, "ab", "a");
    }
    return t;
}

static void cut(const uint8_t *text, size_t size)
{
    for (int kind = 0; llm_bpe_pre_tokenizer_name(kind) != NULL; kind++)
        for (size_t at = 0, end; at < size; at = end) {
            end = llm_bpe_piece((llm_bpe_pre_tokenizer)kind, text, size, at);
            if (end <= at || end > size)
                abort();
        }
}

static void normalize(const uint8_t *text, size_t size)
{
    llm_nfc_buffer first = { 0 }, second = { 0 };
    const uint8_t *once, *twice;
    size_t n_once, n_twice;

    if (llm_nfc(&first, text, size, NULL, NULL, &once, &n_once) != LLM_BPE_OK ||
        llm_nfc(&second, once, n_once, NULL, NULL, &twice, &n_twice) != LLM_BPE_OK)
        abort();
    if (n_once != n_twice || (n_once > 0 && memcmp(once, twice, n_once) != 0) || n_once > 3 * size)
        abort();
    llm_nfc_free(&first);
    llm_nfc_free(&second);
}

static void there_and_back(llm_bpe *t, const llm_bpe_settings *settings, const uint8_t *text, size_t size)
{
    const int32_t *ids;
    size_t n_ids, n = 0;

    for (int special = 0; special < 2; special++) {
        if (llm_bpe_encode(t, text, size, special, size % 2 == 0, NULL, NULL, &ids, &n_ids) != LLM_BPE_OK)
            abort();
        if (settings->blank != LLM_BPE_BYTE_LEVEL) {
            uint8_t *back;

            if (llm_bpe_decode_text(t, ids, n_ids, NULL, &n) != n_ids)
                abort();
            back = malloc(n + 1);
            if (llm_bpe_decode_text(t, ids, n_ids, back, &n) != n_ids)
                abort();
            free(back);
            continue;
        }
        for (size_t i = 0, length; i < n_ids; i++) {
            const uint8_t *token = llm_bpe_token(t, ids[i], &length);

            if (token == NULL)
                abort();
            /* An added token stands for its text, not for what it reads like once that is normalized. */
            if (settings->nfc)
                continue;
            if (length > size - n || memcmp(token, text + n, length) != 0)
                abort();
            n += length;
        }
        if (!settings->nfc && n != size)
            abort();
        n = 0;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int32_t strange[] = { -1, 1000, INT32_MAX };
    size_t n;

    for (int i = 0; i < N_SETTINGS; i++) {
        if (tokenizers[i] == NULL)
            tokenizers[i] = make(&chosen[i]);
        there_and_back(tokenizers[i], &chosen[i], data, size);
        for (int k = 0; k < 3; k++)
            if (llm_bpe_decode_text(tokenizers[i], strange + k, 1, NULL, &n) != 0)
                abort();
    }
    cut(data, size);
    normalize(data, size);
    return 0;
}
