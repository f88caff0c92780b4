/*
 * safetensors.c -- .safetensors files: a length, a JSON header, the tensors' data one after another.
 *
 * The header is read strictly: an object of tensors, each with dtype, shape and data_offsets once and nothing
 * else, and at most one __metadata__ of strings. Data begin at 0, have neither holes nor overlaps, and end
 * with the file.
 */
#include <stdlib.h>
#include <string.h>

#include "weights_file.h"

typedef struct json {
    const uint8_t *at, *end;
} json;

static bool bad(llm_weights *w, const char *what)
{
    return weights_fail(w, LLM_WEIGHTS_INVALID, "the safetensors header is damaged: %s", what);
}

static void skip_blanks(json *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\t' || *j->at == '\r'))
        j->at++;
}

static bool accept(json *j, char c)
{
    skip_blanks(j);
    if (j->at == j->end || *j->at != (uint8_t)c)
        return false;
    j->at++;
    return true;
}

/* Four hexadecimal digits, or -1. */
static int hex4(json *j)
{
    int value = 0;

    if (j->end - j->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int c = *j->at++, letter = c | 32, digit = -1;

        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if (letter >= 'a' && letter <= 'f')
            digit = letter - 'a' + 10;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* A \u escape, perhaps of a surrogate pair, as UTF-8; the number of bytes, 0 when it is none. */
static size_t unicode_escape(json *j, char *out)
{
    int32_t c = hex4(j), low;

    if (c >= 0xd800 && c < 0xdc00) {
        if (j->end - j->at < 6 || j->at[0] != '\\' || j->at[1] != 'u')
            return 0;
        j->at += 2;
        low = hex4(j);
        if (low < 0xdc00 || low > 0xdfff)
            return 0;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    } else if (c <= 0 || (c >= 0xdc00 && c <= 0xdfff))
        return 0;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* A string as UTF-8 in new memory; NULL after weights_fail. */
static char *string(llm_weights *w, json *j)
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const uint8_t *end;
    char *out;
    size_t n = 0;
    bool proper = true;

    if (!accept(j, '"'))
        return bad(w, "a string is missing") ? NULL : NULL;
    for (end = j->at; end < j->end && *end != '"'; end++)
        if (*end == '\\')
            end++;
    if (end >= j->end)
        return bad(w, "a string is not terminated") ? NULL : NULL;
    /* no escape is shorter than what it stands for */
    out = malloc((size_t)(end - j->at) + 1);
    if (out == NULL)
        return weights_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory") ? NULL : NULL;
    while (j->at < end && proper) {
        uint8_t c = *j->at++;
        const char *escape;
        size_t k;

        if (c != '\\') {
            out[n++] = (char)c;
            proper = c >= 32;
        } else if (*j->at == 'u') {
            j->at++;
            k = unicode_escape(j, out + n);
            n += k;
            proper = k > 0;
        } else {
            escape = *j->at == '\0' ? NULL : strchr(escapes, *j->at);
            proper = escape != NULL;
            if (proper)
                out[n++] = meanings[escape - escapes];
            j->at++;
        }
    }
    out[n] = '\0';
    if (!proper || j->at != end || !weights_valid_utf8((uint8_t *)out, n)) {
        free(out);
        return bad(w, "a string is invalid") ? NULL : NULL;
    }
    j->at++;
    return out;
}

static bool number(json *j, uint64_t *value)
{
    const uint8_t *start;

    skip_blanks(j);
    start = j->at;
    *value = 0;
    for (; j->at < j->end && *j->at >= '0' && *j->at <= '9'; j->at++) {
        if (*value > (uint64_t)INT64_MAX / 10 - 1)
            return false;
        *value = *value * 10 + (uint64_t)(*j->at - '0');
    }
    return j->at > start && (*start != '0' || j->at == start + 1);
}

/* [n, n, ...] with at most `limit` numbers; their number, or -1. */
static int numbers(json *j, uint64_t *values, int limit)
{
    int n = 0;

    if (!accept(j, '['))
        return -1;
    if (accept(j, ']'))
        return 0;
    do {
        if (n == limit || !number(j, &values[n++]))
            return -1;
    } while (accept(j, ','));
    return accept(j, ']') ? n : -1;
}

static bool element_type(const char *name, llm_dtype *dtype)
{
    for (int i = 0; i < LLM_DTYPE_F8; i++)
        if (strcmp(name, llm_dtype_name((llm_dtype)i)) == 0) {
            *dtype = (llm_dtype)i;
            return true;
        }
    *dtype = LLM_DTYPE_F8;
    return strcmp(name, "F8_E4M3") == 0 || strcmp(name, "F8_E5M2") == 0;
}

/* {"dtype": ..., "shape": [...], "data_offsets": [begin, end]} */
static bool tensor(llm_weights *w, json *j, weights_item *item)
{
    bool has_dtype = false, has_shape = false, has_offsets = false;
    uint64_t offsets[2];

    if (!accept(j, '{'))
        return bad(w, "a tensor is not described by an object");
    do {
        char *key = string(w, j), *dtype = NULL;
        bool ok = key != NULL && accept(j, ':');

        if (ok && strcmp(key, "dtype") == 0 && !has_dtype) {
            dtype = string(w, j);
            ok = has_dtype = dtype != NULL && element_type(dtype, &item->entry.dtype);
        } else if (ok && strcmp(key, "shape") == 0 && !has_shape) {
            item->entry.ndim = numbers(j, item->entry.dims, LLM_WEIGHTS_MAX_NDIM);
            ok = has_shape = item->entry.ndim >= 0;
        } else if (ok && strcmp(key, "data_offsets") == 0 && !has_offsets) {
            ok = has_offsets = numbers(j, offsets, 2) == 2;
        } else
            ok = false;
        free(key);
        free(dtype);
        if (!ok)
            return bad(w, "a tensor is not described by dtype, shape and data_offsets");
    } while (accept(j, ','));
    if (!accept(j, '}') || !has_dtype || !has_shape || !has_offsets)
        return bad(w, "a tensor is not described by dtype, shape and data_offsets");
    item->offset = offsets[0];
    item->end = offsets[1];
    return true;
}

static bool metadata(llm_weights *w, json *j)
{
    if (!accept(j, '{'))
        return bad(w, "__metadata__ is not an object");
    if (accept(j, '}'))
        return true;
    do {
        llm_weights_pair pair, *pairs;
        char *key = string(w, j), *value = key != NULL && accept(j, ':') ? string(w, j) : NULL;

        pairs = value == NULL
                    ? NULL
                    : weights_grow(w, w->metadata, w->n_metadata, &w->metadata_capacity, sizeof(llm_weights_pair));
        if (pairs != NULL)
            w->metadata = pairs;
        if (pairs == NULL || strlen(key) > LLM_WEIGHTS_MAX_NAME || llm_weights_metadata(w, key) != NULL) {
            free(key);
            free(value);
            return bad(w, "__metadata__ does not hold strings under different keys");
        }
        pair.key = key;
        pair.value = value;
        w->metadata[w->n_metadata++] = pair;
        /* keys are searched one by one: no file has so many of them */
        if (w->n_metadata > 1000)
            return bad(w, "__metadata__ holds too many keys");
    } while (accept(j, ','));
    return accept(j, '}') || bad(w, "__metadata__ is not terminated");
}

static bool header(llm_weights *w, json *j)
{
    bool has_metadata = false;

    if (!accept(j, '{'))
        return bad(w, "it is not an object");
    if (!accept(j, '}')) {
        do {
            weights_item item = { 0 };
            char *name = string(w, j);

            if (name == NULL || !accept(j, ':')) {
                free(name);
                return bad(w, "a tensor has no name");
            }
            if (strcmp(name, "__metadata__") == 0) {
                free(name);
                if (has_metadata || !metadata(w, j))
                    return bad(w, "__metadata__ occurs twice");
                has_metadata = true;
                continue;
            }
            if (!tensor(w, j, &item)) {
                free(name);
                return false;
            }
            item.entry.name = name;
            if (!weights_add(w, item))
                return false;
        } while (accept(j, ','));
        if (!accept(j, '}'))
            return bad(w, "it is not terminated");
    }
    skip_blanks(j);
    return j->at == j->end || bad(w, "there is data after it");
}

static int compare_offsets(const void *a, const void *b)
{
    const weights_item *x = a, *y = b;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* Ensure that the data are contiguous, and turn offsets into those of the file. */
static bool place(llm_weights *w, uint64_t start)
{
    uint64_t next = 0;

    if (w->n_items > 1)
        qsort(w->items, w->n_items, sizeof(weights_item), compare_offsets);
    for (size_t i = 0; i < w->n_items; i++) {
        weights_item *item = &w->items[i];
        uint64_t count, bytes;

        weights_size(&item->entry, &count, &bytes);
        if (item->offset != next)
            return weights_fail(w, LLM_WEIGHTS_INVALID, "the data of tensor \"%.100s\" begins at %llu, not at %llu",
                                item->entry.name, (unsigned long long)item->offset, (unsigned long long)next);
        if (item->end < item->offset || item->end - item->offset != bytes)
            return weights_fail(w, LLM_WEIGHTS_INVALID,
                                "tensor \"%.100s\" has a shape of %llu bytes and data up to %llu", item->entry.name,
                                (unsigned long long)bytes, (unsigned long long)item->end);
        next = item->end;
        item->offset += start;
        item->end += start;
    }
    if (next != w->source.size - start)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "the file has %llu bytes of data, its header describes %llu",
                            (unsigned long long)(w->source.size - start), (unsigned long long)next);
    return true;
}

bool safetensors_open(llm_weights *w)
{
    uint8_t prefix[8], *text;
    uint64_t length;
    json j;
    bool ok;

    if (!weights_source_read(w, 0, prefix, 8))
        return false;
    length = le64(prefix);
    if (length > SAFETENSORS_MAX_HEADER || length > w->source.size - 8 || length < 2)
        return weights_fail(w, LLM_WEIGHTS_INVALID,
                            "not a safetensors, .npz or gzip file: a header of %llu bytes in a "
                            "file of %llu",
                            (unsigned long long)length, (unsigned long long)w->source.size);
    /* a byte behind the end, so that an escape may look one ahead */
    text = malloc((size_t)length + 1);
    if (text == NULL)
        return weights_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
    text[length] = '\0';
    j.at = text;
    j.end = text + length;
    ok = weights_source_read(w, 8, text, length);
    if (ok && text[0] != '{')
        ok = weights_fail(w, LLM_WEIGHTS_INVALID, "not a safetensors, .npz or gzip file");
    ok = ok && header(w, &j) && place(w, 8 + length);
    free(text);
    return ok;
}
