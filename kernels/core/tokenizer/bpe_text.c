/*
 * bpe_text.c -- what byte pair encoding knows of text: UTF-8, GPT-2's pre-tokenizer, its alphabet of bytes.
 */
#include "bpe_internal.h"

#include <string.h>

#include "unicode_classes.h"

enum { OTHER, LETTER, NUMBER, SPACE };

/* ---- UTF-8 ---- */

/*
 * One character at p: its length, and its code point. A malformed one has code point UINT32_MAX and the
 * length of its maximal part (Unicode, table 3-7); then *truncated tells that only the end of the text is
 * what it lacks.
 */
static inline size_t next_character(const uint8_t *p, const uint8_t *end, uint32_t *code, bool *truncated)
{
    uint8_t low = 0x80, high = 0xbf;
    size_t length;
    uint32_t c = p[0];

    *truncated = false;
    if (c < 0x80) {
        *code = c;
        return 1;
    }
    *code = UINT32_MAX;
    if (c < 0xc2 || c > 0xf4)
        return 1;
    length = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (c == 0xe0)
        low = 0xa0;
    else if (c == 0xed)
        high = 0x9f;
    else if (c == 0xf0)
        low = 0x90;
    else if (c == 0xf4)
        high = 0x8f;
    c &= 0x7f >> length;
    for (size_t i = 1; i < length; i++) {
        if (p + i == end) {
            *truncated = true;
            return i;
        }
        if (p[i] < low || p[i] > high)
            return i;
        c = c << 6 | (p[i] & 0x3f);
        low = 0x80;
        high = 0xbf;
    }
    *code = c;
    return length;
}

size_t llm_utf8_replace(uint8_t *out, const uint8_t *bytes, size_t n, bool final, bool replace_nul)
{
    const uint8_t *p = bytes, *end = bytes + n;
    size_t written = 0, length;
    uint32_t code;
    bool truncated;

    for (; p < end; p += length) {
        length = next_character(p, end, &code, &truncated);
        if (truncated && !final)
            break;
        if (code == UINT32_MAX || (code == 0 && replace_nul)) {
            if (out != NULL)
                memcpy(out + written, "\xef\xbf\xbd", 3);
            written += 3;
        } else {
            if (out != NULL)
                memcpy(out + written, p, length);
            written += length;
        }
    }
    return written;
}

/* ---- the pre-tokenizer ---- */

static const uint8_t class_of_kind[16] = {
    [KIND_LETTER] = LETTER, [KIND_UPPER] = LETTER, [KIND_LOWER] = LETTER,  [KIND_NUMBER] = NUMBER,
    [KIND_SPACE] = SPACE,   [KIND_BLANK] = SPACE,  [KIND_NEWLINE] = SPACE,
};

unsigned llm_bpe_kind(uint32_t code)
{
    if (code >= UNICODE_END)
        return KIND_OTHER;
    return unicode_kind[unicode_page[code / 128]][code % 128 / 2] >> 4 * (code % 2) & 15;
}

static inline int class_of(uint32_t code)
{
    return code >= UNICODE_END
               ? OTHER
               : class_of_kind[unicode_kind[unicode_page[code / 128]][code % 128 / 2] >> 4 * (code % 2) & 15];
}

/* The class of the character at p, and its length */
static inline int class_at(const uint8_t *p, const uint8_t *end, size_t *length)
{
    uint32_t code;
    bool truncated;

    *length = next_character(p, end, &code, &truncated);
    return class_of(code);
}

size_t llm_bpe_next(const uint8_t *p, const uint8_t *end, uint32_t *code)
{
    bool truncated;

    return next_character(p, end, code, &truncated);
}

bool llm_bpe_is_utf8(const uint8_t *text, size_t n)
{
    uint32_t code = 0;

    for (size_t i = 0; i < n && code != UINT32_MAX;)
        i += llm_bpe_next(text + i, text + n, &code);
    return code != UINT32_MAX;
}

uint32_t llm_bpe_code_point(const uint8_t *p, const uint8_t *end)
{
    uint32_t code;

    (void)llm_bpe_next(p, end, &code);
    return code;
}

size_t llm_bpe_space(const uint8_t *p, const uint8_t *end)
{
    size_t length;

    return class_at(p, end, &length) == SPACE ? length : 0;
}

/* Where the run of characters of one class ends; *last: where its last character begins */
static const uint8_t *run_end(const uint8_t *p, const uint8_t *end, int class, const uint8_t **last)
{
    size_t length;

    while (p < end && class_at(p, end, &length) == class) {
        *last = p;
        p += length;
    }
    return p;
}

/* The length of 's 't 're 've 'm 'll 'd after the apostrophe at p, 0 when it is none of them */
static size_t contraction(const uint8_t *p, const uint8_t *end)
{
    size_t n = (size_t)(end - p);

    if (n >= 2 && (p[1] == 's' || p[1] == 't' || p[1] == 'm' || p[1] == 'd'))
        return 2;
    if (n >= 3 && ((p[1] == 'r' && p[2] == 'e') || (p[1] == 'v' && p[2] == 'e') || (p[1] == 'l' && p[2] == 'l')))
        return 3;
    return 0;
}

size_t llm_bpe_split(const uint8_t *text, size_t n, size_t at)
{
    const uint8_t *start = text + at, *end = text + n, *p = start, *last = start;
    size_t length;
    int class = class_at(p, end, &length);

    if (*p == '\'' && contraction(p, end) > 0)
        return at + contraction(p, end);
    if (*p == ' ' && p + 1 < end) {
        class = class_at(p + 1, end, &length);
        if (class != SPACE)
            return (size_t)(run_end(p + 1, end, class, &last) - text);
    }
    p = run_end(p, end, class, &last);
    /* White space before something else leaves its last character to that, unless there is only one. */
    if (class == SPACE && p < end && last > start)
        p = last;
    return (size_t)(p - text);
}

/* ---- the alphabet ---- */

/* Bytes that stand for themselves: printable and not blank in Latin-1 */
static inline bool is_printable(uint32_t byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
}

/* The others stand at U+0100 and on, in their order: 0 .. 32, 127 .. 160, 173 */
static inline uint32_t stand_in(uint8_t byte)
{
    if (is_printable(byte))
        return byte;
    return 0x100 + (byte <= 32 ? byte : byte == 173 ? 67u : byte - 127 + 33u);
}

static inline int stood_for(uint32_t code)
{
    if (code < 0x100)
        return is_printable(code) ? (int)code : -1;
    code -= 0x100;
    return code <= 32 ? (int)code : code < 67 ? (int)(code - 33 + 127) : code == 67 ? 173 : -1;
}

uint8_t llm_bpe_byte(int i)
{
    if (i < 94)
        return (uint8_t)(i + '!');
    if (i < 106)
        return (uint8_t)(i - 94 + 0xa1);
    if (i < 188)
        return (uint8_t)(i - 106 + 0xae);
    return (uint8_t)stood_for((uint32_t)(i - 188 + 0x100));
}

size_t llm_bpe_alphabet(uint8_t *token, const uint8_t *bytes, size_t n)
{
    size_t length = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t code = stand_in(bytes[i]);

        if (code < 0x80) {
            token[length++] = (uint8_t)code;
        } else {
            token[length++] = (uint8_t)(0xc0 | code >> 6);
            token[length++] = (uint8_t)(0x80 | (code & 0x3f));
        }
    }
    return length;
}

size_t llm_bpe_alphabet_bytes(uint8_t *bytes, const uint8_t *token, size_t n)
{
    const uint8_t *p = token, *end = token + n;
    size_t n_bytes = 0;

    while (p < end) {
        uint32_t code;
        bool truncated;
        int byte;

        p += next_character(p, end, &code, &truncated);
        byte = stood_for(code);
        if (byte < 0)
            return SIZE_MAX;
        bytes[n_bytes++] = (uint8_t)byte;
    }
    return n_bytes;
}
