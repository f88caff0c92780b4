/*
 * wordpiece_files.c -- the parser of vocab.txt, which is untrusted input: every byte is checked.
 */
#include <string.h>

#include "bpe_internal.h"
#include "wordpiece.h"

/* The line without the white space at its end */
static size_t trimmed(const uint8_t *line, size_t n)
{
    for (;;) {
        size_t last = n;

        if (n == 0)
            return 0;
        do
            last--;
        while (last > 0 && n - last < 4 && (line[last] & 0xc0) == 0x80);
        if (llm_bpe_space(line + last, line + n) != n - last)
            return n;
        n = last;
    }
}

static bool refuse(llm_bpe_error *error, const char *message)
{
    error->message = message;
    return false;
}

static bool read_line(bytes_map *known, const uint8_t *line, size_t n, int32_t id, llm_bpe_token_sink sink, void *arg,
                      llm_bpe_error *error)
{
    bool found;

    if (n == 0)
        return refuse(error, "a line without a token");
    if (n > LLM_BPE_MAX_TOKEN)
        return refuse(error, "a token is longer than 1024 bytes");
    if (memchr(line, 0, n) != NULL)
        return refuse(error, "a token contains U+0000");
    if (!llm_bpe_is_utf8(line, n))
        return refuse(error, "a token is not UTF-8");
    if (bytes_map_add(known, line, n, &found) == BYTES_MAP_NONE)
        return refuse(error, "out of memory");
    if (found)
        return refuse(error, "a duplicate token");
    return sink(arg, line, n, id);
}

bool llm_wordpiece_parse_vocab(const uint8_t *text, size_t n, llm_bpe_token_sink sink, void *arg, llm_bpe_error *error)
{
    const uint8_t *p = text, *end = text + trimmed(text, n);
    bytes_map known = { 0 };
    bool done = true;

    error->message = NULL;
    error->line = 0;
    while (p < end && done) {
        const uint8_t *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline == NULL ? end : newline;

        if (error->line++ == INT32_MAX)
            done = refuse(error, "more lines than ids");
        else
            done = read_line(&known, p, trimmed(p, (size_t)(stop - p)), (int32_t)(error->line - 1), sink, arg, error);
        p = newline == NULL ? end : newline + 1;
    }
    bytes_map_free(&known);
    return done;
}

static bool blank(uint8_t c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

bool llm_wordpiece_is_json(const uint8_t *text, size_t n)
{
    size_t i = 0;

    while (n > 0 && blank(text[n - 1]))
        n--;
    while (i < n && blank(text[i]))
        i++;
    if (n - i < 2 || text[i++] != '{' || text[n - 1] != '}')
        return false;
    while (blank(text[i]))
        i++;
    return text[i] == '"';
}
