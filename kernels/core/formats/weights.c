/*
 * weights.c -- weight files of any format: opening one, and its table of contents.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights_file.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weight files are little-endian and read as they are"
#endif

#define READ_PIECE (8u << 20) /* bytes asked of a source at a time, between which it may stop */

/* ---- errors and memory ---- */

bool weights_fail(llm_weights *w, llm_weights_status status, const char *format, ...)
{
    va_list arguments;

    if (w->status != LLM_WEIGHTS_OK)
        return false;
    w->status = status;
    va_start(arguments, format);
    vsnprintf(w->error, sizeof(w->error), format, arguments);
    va_end(arguments);
    return false;
}

bool weights_source_read(llm_weights *w, uint64_t offset, void *out, uint64_t n)
{
    if (offset > w->source.size || n > w->source.size - offset)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "the file ends too early");
    for (uint64_t done = 0; done < n;) {
        size_t k = n - done < READ_PIECE ? (size_t)(n - done) : READ_PIECE;

        if (!w->source.read(w->source.arg, offset + done, (char *)out + done, k))
            return weights_fail(w, LLM_WEIGHTS_UNREADABLE, "the file cannot be read");
        done += k;
    }
    return true;
}

void *weights_grow(llm_weights *w, void *array, size_t n, size_t *capacity, size_t size)
{
    void *grown;

    if (n < *capacity)
        return array;
    grown = realloc(array, (*capacity == 0 ? 64 : 2 * *capacity) * size);
    if (grown == NULL) {
        weights_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
        return NULL;
    }
    *capacity = *capacity == 0 ? 64 : 2 * *capacity;
    return grown;
}

bool weights_valid_utf8(const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint8_t c = s[i];
        size_t more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : (c & 0xf0) == 0xe0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 9;

        if (c == 0 || more == 9 || n - i - 1 < more)
            return false;
        for (size_t k = 1; k <= more; k++)
            if ((s[i + k] & 0xc0) != 0x80)
                return false;
        if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] >= 0xa0) || (c == 0xf0 && s[i + 1] < 0x90) ||
            (c == 0xf4 && s[i + 1] >= 0x90))
            return false;
        i += more + 1;
    }
    return true;
}

/* ---- the table of contents ---- */

bool weights_size(const llm_weights_entry *e, uint64_t *count, uint64_t *bytes)
{
    uint64_t limit = (uint64_t)INT64_MAX / llm_dtype_size(e->dtype);
    bool empty = false;

    *count = 1;
    for (int i = 0; i < e->ndim; i++)
        empty |= e->dims[i] == 0;
    for (int i = 0; i < e->ndim && !empty; i++) {
        if (*count > limit / e->dims[i])
            return false;
        *count *= e->dims[i];
    }
    if (empty)
        *count = 0;
    *bytes = *count * llm_dtype_size(e->dtype);
    return true;
}

bool weights_add(llm_weights *w, weights_item item)
{
    const char *name = item.entry.name;
    size_t length = strlen(name);
    uint64_t bytes = 0;
    weights_item *items;
    bool ok;

    ok = length > 0 && length <= LLM_WEIGHTS_MAX_NAME && weights_valid_utf8((const uint8_t *)name, length);
    if (!ok)
        weights_fail(w, LLM_WEIGHTS_INVALID, "tensor %zu has an invalid name", w->n_items + 1);
    else if (!weights_size(&item.entry, &item.entry.count, &bytes))
        ok = weights_fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" has an impossible shape", name);
    else if (w->table_bytes + sizeof(weights_item) + length > WEIGHTS_MAX_TABLE)
        ok = weights_fail(w, LLM_WEIGHTS_INVALID, "the file's table of contents is longer than %u bytes",
                          WEIGHTS_MAX_TABLE);
    else if (bytes > w->max_bytes)
        ok = weights_fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" declares %llu bytes, more than is allowed here",
                          name, (unsigned long long)bytes);
    items = ok ? weights_grow(w, w->items, w->n_items, &w->capacity, sizeof(weights_item)) : NULL;
    if (items == NULL) {
        free((char *)(uintptr_t)name);
        return false;
    }
    w->max_bytes -= bytes;
    w->table_bytes += sizeof(weights_item) + length;
    w->items = items;
    w->items[w->n_items++] = item;
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const weights_name *)a)->name, ((const weights_name *)b)->name);
}

/* Ensure that names are unique, and that a name is found quickly. */
static bool index_names(llm_weights *w)
{
    w->by_name = malloc((w->n_items + 1) * sizeof(weights_name));
    if (w->by_name == NULL)
        return weights_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < w->n_items; i++)
        w->by_name[i] = (weights_name){ w->items[i].entry.name, i };
    if (w->n_items > 1)
        qsort(w->by_name, w->n_items, sizeof(weights_name), compare_names);
    for (size_t i = 1; i < w->n_items; i++)
        if (compare_names(w->by_name + i - 1, w->by_name + i) == 0)
            return weights_fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" occurs twice", w->by_name[i].name);
    return true;
}

static bool open_any(llm_weights *w)
{
    uint8_t magic[8] = { 0 };

    if (w->source.size < 8)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "a file of %llu bytes holds no weights",
                            (unsigned long long)w->source.size);
    if (!weights_source_read(w, 0, magic, 8))
        return false;
    if (magic[0] == 'P' && magic[1] == 'K') {
        w->format = LLM_NPZ;
        return zip_open(w);
    }
    if (magic[0] == 0x1f && magic[1] == 0x8b) {
        w->format = LLM_NPY_GZIP;
        return gzip_open(w);
    }
    /*
     * A pickle is a program that would have to be run; torch.save writes one, alone or in a zip archive (zip.c).
     * safetensors begins with the length of its header, far below 2^32.
     */
    if (magic[0] == 0x80 && magic[1] >= 1 && magic[1] <= 5 && memcmp(magic + 4, "\0\0\0", 4) != 0)
        return weights_fail(w, LLM_WEIGHTS_INVALID, WEIGHTS_PICKLE);
    w->format = LLM_SAFETENSORS;
    return safetensors_open(w);
}

llm_weights *llm_weights_open(const llm_source *source, uint64_t max_bytes, llm_weights_status *status,
                              char error[LLM_WEIGHTS_ERROR])
{
    llm_weights *w = calloc(1, sizeof(llm_weights));

    if (w == NULL) {
        *status = LLM_WEIGHTS_NO_MEMORY;
        snprintf(error, LLM_WEIGHTS_ERROR, "out of memory");
        return NULL;
    }
    w->source = *source;
    w->max_bytes = max_bytes;
    if (!open_any(w) || !index_names(w)) {
        *status = w->status;
        memcpy(error, w->error, LLM_WEIGHTS_ERROR);
        llm_weights_close(w);
        return NULL;
    }
    *status = LLM_WEIGHTS_OK;
    return w;
}

void llm_weights_close(llm_weights *w)
{
    if (w == NULL)
        return;
    for (size_t i = 0; i < w->n_items; i++)
        free((char *)(uintptr_t)w->items[i].entry.name);
    for (size_t i = 0; i < w->n_metadata; i++) {
        free((char *)(uintptr_t)w->metadata[i].key);
        free((char *)(uintptr_t)w->metadata[i].value);
    }
    free(w->items);
    free(w->by_name);
    free(w->metadata);
    free(w->whole);
    free(w);
}

llm_weights_format llm_weights_format_of(const llm_weights *w) { return w->format; }

size_t llm_weights_count(const llm_weights *w) { return w->n_items; }

const llm_weights_entry *llm_weights_get(const llm_weights *w, size_t i) { return &w->items[i].entry; }

size_t llm_weights_find(const llm_weights *w, const char *name)
{
    size_t low = 0, high = w->n_items;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, w->by_name[middle].name);

        if (order == 0)
            return w->by_name[middle].index;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return SIZE_MAX;
}

const char *llm_weights_metadata(const llm_weights *w, const char *key)
{
    for (size_t i = 0; i < w->n_metadata; i++)
        if (strcmp(w->metadata[i].key, key) == 0)
            return w->metadata[i].value;
    return NULL;
}

const char *llm_weights_error(const llm_weights *w) { return w->error; }

uint64_t llm_megatron_row(uint64_t row, uint64_t n_head, uint64_t d_head, bool version_2)
{
    uint64_t part = row / (n_head * d_head), head = row / d_head % n_head, i = row % d_head;

    return version_2 ? (head * 3 + part) * d_head + i : (head * d_head + i) * 3 + part;
}
