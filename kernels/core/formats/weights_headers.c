/*
 * weights_headers.c -- the headers of .safetensors and .npy files that are written.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights_write.h"

static bool text_add(llm_weights_writer *w, const char *s, size_t n)
{
    if (w->text_length + n + 1 > w->text_capacity) {
        size_t capacity = 2 * (w->text_length + n) + 256;
        char *grown = realloc(w->text, capacity);

        if (grown == NULL)
            return writer_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
        w->text = grown;
        w->text_capacity = capacity;
    }
    memcpy(w->text + w->text_length, s, n);
    w->text_length += n;
    w->text[w->text_length] = '\0';
    return true;
}

static bool text_json(llm_weights_writer *w, const char *s)
{
    bool ok = text_add(w, "\"", 1);

    for (; ok && *s != '\0'; s++) {
        char escape[8];

        if (*s == '"' || *s == '\\' || (unsigned char)*s < 32)
            ok = text_add(w, escape, (size_t)snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)*s & 255));
        else
            ok = text_add(w, s, 1);
    }
    return ok && text_add(w, "\"", 1);
}

static bool text_number(llm_weights_writer *w, const char *before, uint64_t value)
{
    char number[64];

    return text_add(w, number, (size_t)snprintf(number, sizeof(number), "%s%llu", before, (unsigned long long)value));
}

bool writer_safetensors_header(llm_weights_writer *w, const llm_weights_pair *metadata, size_t n_metadata)
{
    uint8_t length[8];
    uint64_t offset = 0;
    bool ok = text_add(w, "{", 1);

    if (n_metadata > 0)
        ok = ok && text_add(w, "\"__metadata__\":", 15);
    for (size_t i = 0; ok && i < n_metadata; i++)
        ok = text_add(w, i == 0 ? "{" : ",", 1) && text_json(w, metadata[i].key) && text_add(w, ":", 1) &&
             text_json(w, metadata[i].value);
    if (n_metadata > 0)
        ok = ok && text_add(w, "}", 1);
    for (size_t i = 0; ok && i < w->n; i++) {
        const llm_weights_entry *e = &w->entries[i];

        ok = (i == 0 && n_metadata == 0) || text_add(w, ",", 1);
        ok = ok && text_json(w, e->name) && text_add(w, ":{\"dtype\":", 10) && text_json(w, llm_dtype_name(e->dtype)) &&
             text_add(w, ",\"shape\":[", 10);
        for (int k = 0; ok && k < e->ndim; k++)
            ok = text_number(w, k == 0 ? "" : ",", e->dims[k]);
        ok = ok && text_number(w, "],\"data_offsets\":[", offset);
        offset += writer_data_bytes(e);
        ok = ok && text_number(w, ",", offset) && text_add(w, "]}", 2);
    }
    ok = ok && text_add(w, "}", 1);
    /* data begin at a multiple of 8 */
    while (ok && w->text_length % 8 != 0)
        ok = text_add(w, " ", 1);
    if (ok && w->text_length > SAFETENSORS_MAX_HEADER)
        return writer_fail(w, LLM_WEIGHTS_INVALID, "the header would take %zu bytes, the limit is %u", w->text_length,
                           SAFETENSORS_MAX_HEADER);
    put64(length, w->text_length);
    return ok && writer_emit(w, length, 8) && writer_emit(w, w->text, w->text_length);
}

bool writer_npy_header(llm_weights_writer *w, const llm_weights_entry *e)
{
    static const char prefix[10] = "\x93NUMPY\x01\x00\x00\x00";
    bool ok;

    w->text_length = 0;
    ok = text_add(w, prefix, 10) && text_add(w, e->dtype == LLM_DTYPE_U8 ? "{'descr': '|u1'" : "{'descr': '<f4'", 15) &&
         text_add(w, ", 'fortran_order': False, 'shape': (", 36);
    for (int k = 0; ok && k < e->ndim; k++)
        ok = text_number(w, k == 0 ? "" : ", ", e->dims[k]);
    ok = ok && text_add(w, e->ndim == 1 ? ",), }" : "), } ", 5);
    while (ok && w->text_length % 64 != 63)
        ok = text_add(w, " ", 1);
    ok = ok && text_add(w, "\n", 1);
    if (ok)
        put16((uint8_t *)w->text + 8, (uint32_t)(w->text_length - 10));
    return ok;
}
