/*
 * bpe_files.c -- parsers of vocabulary and merge files, which are untrusted input: every byte is checked.
 */
#include "bpe_internal.h"

#include <stdlib.h>
#include <string.h>

/* What all parsers keep: where they are, what they found, to refuse the second of anything */
typedef struct reader {
    const uint8_t *p, *end;
    size_t line;
    bytes_map keys;                       /* tokens, or merges as left, blank, right */
    bytes_map ids;                        /* as 4 bytes */
    uint8_t token[LLM_BPE_MAX_TOKEN * 2]; /* in the alphabet a byte takes up to two */
    size_t n_token;
    llm_bpe_error *error;
} reader;

static bool refuse(reader *r, const char *message)
{
    if (r->error->message == NULL) {
        r->error->message = message;
        r->error->line = r->line;
    }
    return false;
}

static bool add_new(reader *r, bytes_map *map, const void *key, size_t n, const char *message)
{
    bool found;

    if (bytes_map_add(map, key, n, &found) == BYTES_MAP_NONE)
        return refuse(r, "out of memory");
    return found ? refuse(r, message) : true;
}

static void open_reader(reader *r, const uint8_t *text, size_t n, llm_bpe_error *error)
{
    memset(r, 0, sizeof(*r));
    r->p = text;
    r->end = text + n;
    r->line = 1;
    r->error = error;
    error->message = NULL;
    error->line = 0;
}

static bool close_reader(reader *r, bool done)
{
    bytes_map_free(&r->keys);
    bytes_map_free(&r->ids);
    return done;
}

/* ---- vocab.json ---- */

static void skip_blanks(reader *r)
{
    for (; r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'); r->p++)
        if (*r->p == '\n')
            r->line++;
}

static bool expect(reader *r, char c, const char *message)
{
    skip_blanks(r);
    if (r->p == r->end || *r->p != (uint8_t)c)
        return refuse(r, message);
    r->p++;
    return true;
}

/* The 4 hexadecimal digits of \uXXXX */
static bool read_hex(reader *r, uint32_t *code)
{
    *code = 0;
    if (r->end - r->p < 4)
        return refuse(r, "the file ends within an escape");
    for (int i = 0; i < 4; i++, r->p++) {
        uint8_t c = *r->p, lower = c | 0x20;

        if (c >= '0' && c <= '9')
            *code = *code << 4 | (uint32_t)(c - '0');
        else if (lower >= 'a' && lower <= 'f')
            *code = *code << 4 | (uint32_t)(lower - 'a' + 10);
        else
            return refuse(r, "\\u is not followed by four hexadecimal digits");
    }
    return true;
}

static bool append(reader *r, uint8_t byte)
{
    if (r->n_token == sizeof(r->token))
        return refuse(r, "a token is longer than 1024 bytes");
    r->token[r->n_token++] = byte;
    return true;
}

static bool append_code(reader *r, uint32_t code)
{
    if (code < 0x80)
        return append(r, (uint8_t)code);
    if (code < 0x800)
        return append(r, (uint8_t)(0xc0 | code >> 6)) && append(r, (uint8_t)(0x80 | (code & 0x3f)));
    if (code < 0x10000)
        return append(r, (uint8_t)(0xe0 | code >> 12)) && append(r, (uint8_t)(0x80 | (code >> 6 & 0x3f))) &&
               append(r, (uint8_t)(0x80 | (code & 0x3f)));
    return append(r, (uint8_t)(0xf0 | code >> 18)) && append(r, (uint8_t)(0x80 | (code >> 12 & 0x3f))) &&
           append(r, (uint8_t)(0x80 | (code >> 6 & 0x3f))) && append(r, (uint8_t)(0x80 | (code & 0x3f)));
}

/* What follows a backslash */
static bool read_escape(reader *r)
{
    static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *which;
    uint32_t code, low;

    if (r->p == r->end)
        return refuse(r, "the file ends within an escape");
    if (*r->p != 'u') {
        which = *r->p == '\0' ? NULL : strchr(plain, *r->p);
        r->p++;
        return which == NULL ? refuse(r, "an unknown escape") : append(r, (uint8_t)meant[which - plain]);
    }
    r->p++;
    if (!read_hex(r, &code))
        return false;
    if (code >= 0xd800 && code < 0xe000) {
        if (code >= 0xdc00 || r->end - r->p < 2 || r->p[0] != '\\' || r->p[1] != 'u')
            return refuse(r, "an unpaired surrogate");
        r->p += 2;
        if (!read_hex(r, &low))
            return false;
        if (low < 0xdc00 || low >= 0xe000)
            return refuse(r, "an unpaired surrogate");
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    return code == 0 ? refuse(r, "a token contains U+0000") : append_code(r, code);
}

static bool read_string(reader *r)
{
    r->n_token = 0;
    if (!expect(r, '"', "expected a token in double quotes"))
        return false;
    for (;;) {
        if (r->p == r->end)
            return refuse(r, "the file ends within a token");
        if (*r->p < 0x20)
            return refuse(r, "a control character within a token");
        if (*r->p == '"') {
            r->p++;
            break;
        }
        if (*r->p != '\\') {
            if (!append(r, *r->p++))
                return false;
            continue;
        }
        r->p++;
        if (!read_escape(r))
            return false;
    }
    if (r->n_token == 0)
        return refuse(r, "an empty token");
    if (!llm_bpe_is_utf8(r->token, r->n_token))
        return refuse(r, "a token is not UTF-8");
    return add_new(r, &r->keys, r->token, r->n_token, "a duplicate token");
}

/* An id that was not there before: digits without a leading zero, below 2^31 */
static bool read_id(reader *r, int32_t *id)
{
    const uint8_t *first = r->p;
    int64_t value = 0;

    for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++) {
        value = value * 10 + (*r->p - '0');
        if (value > INT32_MAX)
            return refuse(r, "an id beyond 2147483647");
    }
    if (r->p == first || (*first == '0' && r->p - first > 1))
        return refuse(r, "expected an id, a number of at least 0");
    *id = (int32_t)value;
    return add_new(r, &r->ids, id, sizeof(*id), "a duplicate id");
}

static bool read_vocab(reader *r, llm_bpe_token_sink sink, void *arg)
{
    int32_t id;

    if (!expect(r, '{', "expected { before the first token"))
        return false;
    do {
        if (!read_string(r) || !expect(r, ':', "expected : after a token"))
            return false;
        skip_blanks(r);
        if (!read_id(r, &id) || !sink(arg, r->token, r->n_token, id))
            return false;
        skip_blanks(r);
    } while (r->p < r->end && *r->p == ',' && r->p++);
    if (!expect(r, '}', "expected , or } after an id"))
        return false;
    skip_blanks(r);
    return r->p == r->end ? true : refuse(r, "unexpected text after the last }");
}

bool llm_bpe_parse_vocab(const uint8_t *text, size_t n, llm_bpe_token_sink sink, void *arg, llm_bpe_error *error)
{
    reader r;

    open_reader(&r, text, n, error);
    return close_reader(&r, read_vocab(&r, sink, arg));
}

/* ---- files of lines ---- */

/* The next line without its end; false after the last */
static bool next_line(reader *r, const uint8_t **line, size_t *n)
{
    const uint8_t *newline;

    if (r->p == r->end)
        return false;
    newline = memchr(r->p, '\n', (size_t)(r->end - r->p));
    *line = r->p;
    *n = (size_t)((newline == NULL ? r->end : newline) - r->p);
    r->p = newline == NULL ? r->end : newline + 1;
    if (*n > 0 && (*line)[*n - 1] == '\r')
        --*n;
    return true;
}

/* merges.txt: checks one line and hands on its halves */
static bool read_merge(reader *r, uint32_t rank, const uint8_t *line, size_t n, llm_bpe_merge_sink sink, void *arg)
{
    const uint8_t *blank = memchr(line, ' ', n), *right = blank == NULL ? NULL : blank + 1;
    size_t n_left, n_right;

    if (blank == NULL || blank == line || right == line + n || memchr(right, ' ', (size_t)(line + n - right)) != NULL)
        return refuse(r, "expected two tokens separated by a space");
    n_left = (size_t)(blank - line);
    n_right = n - n_left - 1;
    if (n > sizeof(r->token))
        return refuse(r, "a token is longer than 1024 bytes");
    if (llm_bpe_alphabet_bytes(r->token, line, n_left) == SIZE_MAX ||
        llm_bpe_alphabet_bytes(r->token, right, n_right) == SIZE_MAX)
        return refuse(r, "a character that is not in the byte-level alphabet");
    return add_new(r, &r->keys, line, n, "a duplicate merge") && sink(arg, rank, line, n_left, right, n_right);
}

bool llm_bpe_parse_merges(const uint8_t *text, size_t n, llm_bpe_merge_sink sink, void *arg, llm_bpe_error *error)
{
    reader r;
    const uint8_t *line;
    size_t length;
    uint32_t rank = 0;

    open_reader(&r, text, n, error);
    for (; next_line(&r, &line, &length); r.line++) {
        if (length == 0 || (r.line == 1 && length >= 8 && memcmp(line, "#version", 8) == 0))
            continue;
        if (!read_merge(&r, rank++, line, length, sink, arg))
            return close_reader(&r, false);
    }
    return close_reader(&r, true);
}

/* ---- .tiktoken ---- */

static int base64_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The bytes of a base64 text (RFC 4648, with padding) as the token */
static bool read_base64(reader *r, const uint8_t *text, size_t n)
{
    r->n_token = 0;
    if (n == 0 || n % 4 != 0)
        return refuse(r, "a token is not base64");
    for (size_t i = 0; i < n; i += 4) {
        int pad = i + 4 < n ? 0 : (text[i + 3] == '=') + (text[i + 3] == '=' && text[i + 2] == '=');
        uint32_t bits = 0;

        for (int k = 0; k < 4; k++) {
            int value = k < 4 - pad ? base64_value(text[i + (size_t)k]) : 0;

            if (value < 0)
                return refuse(r, "a token is not base64");
            bits = bits << 6 | (uint32_t)value;
        }
        if ((pad == 1 && (bits & 0xff) != 0) || (pad == 2 && (bits & 0xffff) != 0))
            return refuse(r, "a token is not base64");
        for (int k = 0; k < 3 - pad; k++)
            if (!append(r, (uint8_t)(bits >> (16 - 8 * k))))
                return false;
    }
    if (r->n_token > LLM_BPE_MAX_TOKEN)
        return refuse(r, "a token is longer than 1024 bytes");
    return add_new(r, &r->keys, r->token, r->n_token, "a duplicate token");
}

static bool read_tiktoken(reader *r, const uint8_t *line, size_t n, llm_bpe_token_sink sink, void *arg)
{
    const uint8_t *blank = memchr(line, ' ', n), *rest = r->p, *end = r->end;
    int32_t id;
    bool all;

    if (blank == NULL)
        return refuse(r, "expected a token, a space and a rank");
    if (!read_base64(r, line, (size_t)(blank - line)))
        return false;
    r->p = blank + 1;
    r->end = line + n;
    if (!read_id(r, &id))
        return false;
    all = r->p == r->end;
    r->p = rest;
    r->end = end;
    return all ? sink(arg, r->token, r->n_token, id) : refuse(r, "unexpected text after a rank");
}

bool llm_bpe_parse_tiktoken(const uint8_t *text, size_t n, llm_bpe_token_sink sink, void *arg, llm_bpe_error *error)
{
    reader r;
    const uint8_t *line;
    size_t length;

    open_reader(&r, text, n, error);
    for (; next_line(&r, &line, &length); r.line++)
        if (length > 0 && !read_tiktoken(&r, line, length, sink, arg))
            return close_reader(&r, false);
    return close_reader(&r, true);
}
