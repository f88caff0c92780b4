/*
 * bpe_sentencepiece.c -- what SentencePiece's BPE has beside byte-level BPE: characters, blanks, bytes as a last resort.
 *
 * As Hugging Face's tokenizers compute it for Llama, Mistral and Gemma: BPE with byte_fallback, Prepend and Replace or
 * Metaspace, and the decoder of Replace, ByteFallback, Fuse and Strip. Kudo & Richardson 2018.
 */
#include "bpe_internal.h"

#include <string.h>

/* U+2581, which stands for a blank */
static const uint8_t mark[] = { 0xe2, 0x96, 0x81 };
#define N_MARK sizeof(mark)

static inline bool is_mark(const uint8_t *p, const uint8_t *end)
{
    return (size_t)(end - p) >= N_MARK && memcmp(p, mark, N_MARK) == 0;
}

/* ---- encoding ---- */

bool llm_bpe_mark_blanks(llm_nfc_buffer *b, const uint8_t *text, size_t n, bool in_front, bool once)
{
    size_t n_blanks = 0;
    uint8_t *grown, *out;

    for (size_t i = 0; i < n; i++)
        n_blanks += text[i] == ' ';
    in_front = in_front && n > 0 && !(once && (text[0] == ' ' || is_mark(text, text + n)));
    grown = bytes_grow(b->text, &b->room, n + (n_blanks + 1) * N_MARK, 1);
    if (grown == NULL)
        return false;
    b->text = out = grown;
    if (in_front) {
        memcpy(out, mark, N_MARK);
        out += N_MARK;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ') {
            memcpy(out, mark, N_MARK);
            out += N_MARK;
        } else {
            *out++ = text[i];
        }
    }
    b->n = (size_t)(out - b->text);
    return true;
}

size_t llm_bpe_blank_piece(const uint8_t *text, size_t n, size_t at)
{
    size_t end = at + (is_mark(text + at, text + n) ? N_MARK : 1);

    while (end < n && !is_mark(text + end, text + n))
        end++;
    return end;
}

int llm_bpe_byte_token(const uint8_t *token, size_t n)
{
    int value = 0;

    if (n != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        uint8_t c = token[i];

        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'F')))
            return -1;
        value = value * 16 + (c <= '9' ? c - '0' : c - 'A' + 10);
    }
    return value;
}

llm_bpe_status llm_bpe_character_symbols(llm_bpe *t, const uint8_t *piece, size_t n, uint32_t *symbols,
                                         size_t *n_symbols)
{
    const uint8_t *end = piece + n;
    size_t length;

    *n_symbols = 0;
    for (const uint8_t *p = piece; p < end; p += length) {
        uint32_t code, symbol;

        length = llm_bpe_next(p, end, &code);
        symbol = bytes_map_find(&t->tokens, p, length);
        if (symbol != BYTES_MAP_NONE) {
            symbols[(*n_symbols)++] = symbol;
            continue;
        }
        for (size_t i = 0; i < length; i++) {
            symbols[*n_symbols] = t->byte_symbol[p[i]];
            if (symbols[(*n_symbols)++] == NO_SYMBOL) {
                t->missing_byte = p[i];
                return LLM_BPE_NO_BYTE;
            }
        }
    }
    return LLM_BPE_OK;
}

/* ---- decoding ---- */

/* The bytes from `start` on came from tokens of bytes: what is no text becomes U+FFFD for each of them. */
static size_t end_bytes(uint8_t *text, size_t start, size_t n)
{
    size_t n_bytes = n - start;

    if (llm_bpe_is_utf8(text + start, n_bytes))
        return n;
    for (size_t i = 0; i < n_bytes; i++)
        memcpy(text + start + 3 * i, "\xef\xbf\xbd", 3);
    return start + 3 * n_bytes;
}

/* A token with blanks for U+2581; its length */
static size_t put_token(uint8_t *out, const uint8_t *token, size_t n)
{
    size_t written = 0;

    for (size_t i = 0; i < n;) {
        bool blank = is_mark(token + i, token + n);

        out[written++] = blank ? ' ' : token[i];
        i += blank ? N_MARK : 1;
    }
    return written;
}

size_t llm_bpe_decode_text(llm_bpe *t, const int32_t *ids, size_t n_ids, uint8_t *text, size_t *n)
{
    size_t written = 0, bytes_from = SIZE_MAX;

    for (size_t i = 0; i < n_ids; i++) {
        size_t length;
        const uint8_t *token = llm_bpe_token(t, ids[i], &length);
        int byte = token == NULL ? -1 : llm_bpe_byte_token(token, length);

        if (token == NULL)
            return i;
        if (text == NULL) {
            written += length; /* a byte's token is longer than U+FFFD */
            continue;
        }
        if (byte >= 0) {
            if (bytes_from == SIZE_MAX)
                bytes_from = written;
            text[written++] = (uint8_t)byte;
            continue;
        }
        if (bytes_from != SIZE_MAX)
            written = end_bytes(text, bytes_from, written);
        bytes_from = SIZE_MAX;
        written += put_token(text + written, token, length);
    }
    if (text != NULL && bytes_from != SIZE_MAX)
        written = end_bytes(text, bytes_from, written);
    if (text != NULL && t->settings.strip && written > 0 && text[0] == ' ')
        memmove(text, text + 1, --written);
    *n = written;
    return n_ids;
}
