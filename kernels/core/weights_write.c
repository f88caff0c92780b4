/*
 * weights_write.c -- writing weight files: .safetensors, .npz with stored members, gzip with stored blocks.
 *
 * Nothing is compressed: float mantissas are noise. Sizes are known beforehand, so a file is written in one go;
 * a zip member's checksum follows its data (a data descriptor) and stands in the directory.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights_file.h"

#define STORED_BLOCK 65535u

struct llm_weights_writer
{
    llm_sink    sink;
    llm_weights_format format;
    const llm_weights_entry *entries;
    size_t      n, current;         /* tensors; the one whose data are expected */
    uint64_t    left;               /* bytes of it still to come */
    uint64_t    position;           /* bytes written */
    uint32_t    crc;                /* zip: of the member; gzip: of everything */
    uint64_t    plain;              /* gzip: bytes before compression */
    uint64_t   *offsets;            /* zip: of local headers */
    uint32_t   *crcs;
    uint8_t    *block;              /* gzip: a stored block being filled */
    size_t      in_block;
    char       *text;               /* a header being built */
    size_t      text_length, text_capacity;
    llm_weights_status status;
    char        error[LLM_WEIGHTS_ERROR];
};

static bool fail(llm_weights_writer *w, llm_weights_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool
fail(llm_weights_writer *w, llm_weights_status status, const char *format, ...)
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

static bool
emit(llm_weights_writer *w, const void *bytes, size_t n)
{
    if (n > 0 && !w->sink.write(w->sink.arg, bytes, n))
        return fail(w, LLM_WEIGHTS_UNREADABLE, "the file cannot be written");
    w->position += n;
    return true;
}

/* ---- headers ---- */

static bool
text_add(llm_weights_writer *w, const char *s, size_t n)
{
    if (w->text_length + n + 1 > w->text_capacity)
    {
        size_t  capacity = 2 * (w->text_length + n) + 256;
        char   *grown = realloc(w->text, capacity);

        if (grown == NULL)
            return fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
        w->text = grown;
        w->text_capacity = capacity;
    }
    memcpy(w->text + w->text_length, s, n);
    w->text_length += n;
    w->text[w->text_length] = '\0';
    return true;
}

static bool
text_json(llm_weights_writer *w, const char *s)
{
    bool ok = text_add(w, "\"", 1);

    for (; ok && *s != '\0'; s++)
    {
        char    escape[8];

        if (*s == '"' || *s == '\\' || (unsigned char) *s < 32)
            ok = text_add(w, escape, (size_t) snprintf(escape, sizeof(escape), "\\u%04x", (unsigned) *s & 255));
        else
            ok = text_add(w, s, 1);
    }
    return ok && text_add(w, "\"", 1);
}

static bool
text_number(llm_weights_writer *w, const char *before, uint64_t value)
{
    char number[64];

    return text_add(w, number, (size_t) snprintf(number, sizeof(number), "%s%llu", before, (unsigned long long) value));
}

static uint64_t
data_bytes(const llm_weights_entry *e)
{
    uint64_t count, bytes;

    weights_size(e, &count, &bytes);
    return bytes;
}

static bool
safetensors_header(llm_weights_writer *w, const llm_weights_pair *metadata, size_t n_metadata)
{
    uint8_t     length[8];
    uint64_t    offset = 0;
    bool        ok = text_add(w, "{", 1);

    if (n_metadata > 0)
        ok = ok && text_add(w, "\"__metadata__\":", 15);
    for (size_t i = 0; ok && i < n_metadata; i++)
        ok = text_add(w, i == 0 ? "{" : ",", 1) && text_json(w, metadata[i].key) && text_add(w, ":", 1) &&
            text_json(w, metadata[i].value);
    if (n_metadata > 0)
        ok = ok && text_add(w, "}", 1);
    for (size_t i = 0; ok && i < w->n; i++)
    {
        const llm_weights_entry *e = &w->entries[i];

        ok = (i == 0 && n_metadata == 0) || text_add(w, ",", 1);
        ok = ok && text_json(w, e->name) && text_add(w, ":{\"dtype\":", 10) && text_json(w, llm_dtype_name(e->dtype)) &&
            text_add(w, ",\"shape\":[", 10);
        for (int k = 0; ok && k < e->ndim; k++)
            ok = text_number(w, k == 0 ? "" : ",", e->dims[k]);
        ok = ok && text_number(w, "],\"data_offsets\":[", offset);
        offset += data_bytes(e);
        ok = ok && text_number(w, ",", offset) && text_add(w, "]}", 2);
    }
    ok = ok && text_add(w, "}", 1);
    /* data begin at a multiple of 8 */
    while (ok && w->text_length % 8 != 0)
        ok = text_add(w, " ", 1);
    if (ok && w->text_length > SAFETENSORS_MAX_HEADER)
        return fail(w, LLM_WEIGHTS_INVALID, "the header would take %zu bytes, the limit is %u", w->text_length,
                    SAFETENSORS_MAX_HEADER);
    put64(length, w->text_length);
    return ok && emit(w, length, 8) && emit(w, w->text, w->text_length);
}

/* The header of a .npy file into w->text, padded so that data begin at a multiple of 64. */
static bool
npy_text(llm_weights_writer *w, const llm_weights_entry *e)
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
        put16((uint8_t *) w->text + 8, (uint32_t) (w->text_length - 10));
    return ok;
}

/* ---- zip ---- */

/* Local header (30 bytes) and directory entry (46) share their middle: 26 bytes from "version needed" on. */
static void
zip_common(llm_weights_writer *w, uint8_t *p, size_t i)
{
    memset(p, 0, 26);
    put16(p, 45);
    put16(p + 2, 0x0808);               /* checksum after the data; names are UTF-8 */
    put16(p + 8, 0x21);                 /* 1 January 1980 */
    put32(p + 10, w->crcs[i]);
    put32(p + 14, 0xffffffff);          /* sizes stand in the zip64 field */
    put32(p + 18, 0xffffffff);
    put16(p + 22, (uint32_t) strlen(w->entries[i].name) + 4);
}

static bool
zip_begin_member(llm_weights_writer *w)
{
    const llm_weights_entry *e = &w->entries[w->current];
    uint8_t     header[30], extra[20];
    uint64_t    size;

    if (!npy_text(w, e))
        return false;
    size = w->text_length + data_bytes(e);
    w->offsets[w->current] = w->position;
    w->crcs[w->current] = 0;
    put32(header, 0x04034b50);
    zip_common(w, header + 4, w->current);
    put16(header + 28, 20);
    put16(extra, 1);
    put16(extra + 2, 16);
    put64(extra + 4, size);
    put64(extra + 12, size);
    w->crc = llm_crc32(0, (uint8_t *) w->text, w->text_length);
    return emit(w, header, 30) && emit(w, e->name, strlen(e->name)) && emit(w, ".npy", 4) && emit(w, extra, 20) &&
        emit(w, w->text, w->text_length);
}

static bool
zip_end_member(llm_weights_writer *w)
{
    const llm_weights_entry *e = &w->entries[w->current];
    uint8_t     descriptor[24];
    uint64_t    size = w->position - w->offsets[w->current] - 30 - strlen(e->name) - 4 - 20;

    w->crcs[w->current] = w->crc;
    put32(descriptor, 0x08074b50);
    put32(descriptor + 4, w->crc);
    put64(descriptor + 8, size);
    put64(descriptor + 16, size);
    return emit(w, descriptor, 24);
}

static bool
zip_directory(llm_weights_writer *w)
{
    uint64_t    start = w->position, end;
    uint8_t     end64[56] = {0}, locator[20] = {0}, last[22] = {0};

    for (size_t i = 0; i < w->n; i++)
    {
        const llm_weights_entry *e = &w->entries[i];
        uint8_t     entry[46] = {0}, extra[28];
        uint64_t    size;

        if (!npy_text(w, e))
            return false;
        size = w->text_length + data_bytes(e);
        put32(entry, 0x02014b50);
        put16(entry + 4, 45);
        zip_common(w, entry + 6, i);
        put16(entry + 30, 28);
        put32(entry + 42, 0xffffffff);
        put16(extra, 1);
        put16(extra + 2, 24);
        put64(extra + 4, size);
        put64(extra + 12, size);
        put64(extra + 20, w->offsets[i]);
        if (!emit(w, entry, 46) || !emit(w, e->name, strlen(e->name)) || !emit(w, ".npy", 4) || !emit(w, extra, 28))
            return false;
    }
    end = w->position;
    put32(end64, 0x06064b50);
    put64(end64 + 4, 44);
    put16(end64 + 12, 45);
    put16(end64 + 14, 45);
    put64(end64 + 24, w->n);
    put64(end64 + 32, w->n);
    put64(end64 + 40, end - start);
    put64(end64 + 48, start);
    put32(locator, 0x07064b50);
    put64(locator + 8, end);
    put32(locator + 16, 1);
    put32(last, 0x06054b50);
    put16(last + 8, 0xffff);
    put16(last + 10, 0xffff);
    put32(last + 12, 0xffffffff);
    put32(last + 16, 0xffffffff);
    return emit(w, end64, 56) && emit(w, locator, 20) && emit(w, last, 22);
}

/* ---- gzip ---- */

static bool
gzip_block(llm_weights_writer *w, bool last)
{
    uint8_t header[5];

    header[0] = last;
    put16(header + 1, (uint32_t) w->in_block);
    put16(header + 3, ~(uint32_t) w->in_block);
    return emit(w, header, 5) && emit(w, w->block, w->in_block);
}

static bool
gzip_put(llm_weights_writer *w, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;

    w->crc = llm_crc32(w->crc, p, n);
    w->plain += n;
    while (n > 0)
    {
        size_t room = STORED_BLOCK - w->in_block, k = n < room ? n : room;

        memcpy(w->block + w->in_block, p, k);
        w->in_block += k;
        p += k;
        n -= k;
        if (w->in_block == STORED_BLOCK)
        {
            if (!gzip_block(w, false))
                return false;
            w->in_block = 0;
        }
    }
    return true;
}

static bool
gzip_begin_record(llm_weights_writer *w)
{
    const llm_weights_entry *e = &w->entries[w->current];
    uint8_t length[2];

    put16(length, (uint32_t) strlen(e->name));
    return npy_text(w, e) && gzip_put(w, length, 2) && gzip_put(w, e->name, strlen(e->name)) &&
        gzip_put(w, w->text, w->text_length);
}

static bool
gzip_end(llm_weights_writer *w)
{
    uint8_t trailer[8];

    put32(trailer, w->crc);
    put32(trailer + 4, (uint32_t) w->plain);
    return gzip_block(w, true) && emit(w, trailer, 8);
}

/* ---- the writer ---- */

/* Begins tensors until one has data to come. */
static bool
begin_tensors(llm_weights_writer *w)
{
    while (w->current < w->n)
    {
        w->left = data_bytes(&w->entries[w->current]);
        if (w->format == LLM_NPZ && !zip_begin_member(w))
            return false;
        if (w->format == LLM_NPY_GZIP && !gzip_begin_record(w))
            return false;
        if (w->left > 0)
            return true;
        if (w->format == LLM_NPZ && !zip_end_member(w))
            return false;
        w->current++;
    }
    return true;
}

static bool
check_entries(llm_weights_writer *w)
{
    for (size_t i = 0; i < w->n; i++)
    {
        const llm_weights_entry *e = &w->entries[i];
        size_t      n = strlen(e->name);
        uint64_t    count, bytes;

        if (n == 0 || n > LLM_WEIGHTS_MAX_NAME - 4 || !weights_valid_utf8((const uint8_t *) e->name, n) ||
            strcmp(e->name, "__metadata__") == 0)
            return fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" cannot name a tensor in a file", e->name);
        if (e->ndim < 0 || e->ndim > LLM_WEIGHTS_MAX_NDIM || (e->dtype != LLM_DTYPE_F32 && e->dtype != LLM_DTYPE_U8) ||
            !weights_size(e, &count, &bytes))
            return fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" cannot be written", e->name);
    }
    return true;
}

static bool
begin_file(llm_weights_writer *w, const llm_weights_pair *metadata, size_t n_metadata)
{
    static const uint8_t gzip_header[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};

    if (!check_entries(w))
        return false;
    w->offsets = calloc(w->n + 1, sizeof(uint64_t));
    w->crcs = calloc(w->n + 1, sizeof(uint32_t));
    w->block = malloc(STORED_BLOCK);
    if (w->offsets == NULL || w->crcs == NULL || w->block == NULL)
        return fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
    if (w->format == LLM_SAFETENSORS && !safetensors_header(w, metadata, n_metadata))
        return false;
    if (w->format == LLM_NPY_GZIP && !emit(w, gzip_header, 10))
        return false;
    return begin_tensors(w);
}

llm_weights_writer *
llm_weights_write_begin(const llm_sink *sink, llm_weights_format format, const llm_weights_entry *entries,
                        size_t n_entries, const llm_weights_pair *metadata, size_t n_metadata,
                        llm_weights_status *status, char error[LLM_WEIGHTS_ERROR])
{
    llm_weights_writer *w = calloc(1, sizeof(llm_weights_writer));

    if (w == NULL)
    {
        *status = LLM_WEIGHTS_NO_MEMORY;
        snprintf(error, LLM_WEIGHTS_ERROR, "out of memory");
        return NULL;
    }
    w->sink = *sink;
    w->format = format;
    w->entries = entries;
    w->n = n_entries;
    *status = LLM_WEIGHTS_OK;
    if (!begin_file(w, metadata, n_metadata))
    {
        *status = w->status;
        memcpy(error, w->error, LLM_WEIGHTS_ERROR);
        llm_weights_write_free(w);
        return NULL;
    }
    return w;
}

llm_weights_status
llm_weights_write(llm_weights_writer *w, const void *bytes, size_t n)
{
    bool ok;

    if (n == 0 || w->status != LLM_WEIGHTS_OK)
        return w->status;
    if (w->current == w->n || n > w->left)
    {
        fail(w, LLM_WEIGHTS_INVALID, "more data than tensor \"%.100s\" has",
             w->current == w->n ? "(none)" : w->entries[w->current].name);
        return w->status;
    }
    if (w->format == LLM_NPY_GZIP)
        ok = gzip_put(w, bytes, n);
    else
    {
        if (w->format == LLM_NPZ)
            w->crc = llm_crc32(w->crc, bytes, n);
        ok = emit(w, bytes, n);
    }
    w->left -= n;
    if (ok && w->left == 0)
    {
        ok = w->format != LLM_NPZ || zip_end_member(w);
        w->current++;
        if (ok)
            begin_tensors(w);
    }
    return w->status;
}

llm_weights_status
llm_weights_write_end(llm_weights_writer *w)
{
    if (w->status == LLM_WEIGHTS_OK && w->current < w->n)
        fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" lacks data", w->entries[w->current].name);
    if (w->status == LLM_WEIGHTS_OK && w->format == LLM_NPZ)
        zip_directory(w);
    if (w->status == LLM_WEIGHTS_OK && w->format == LLM_NPY_GZIP)
        gzip_end(w);
    return w->status;
}

void
llm_weights_write_free(llm_weights_writer *w)
{
    if (w == NULL)
        return;
    free(w->offsets);
    free(w->crcs);
    free(w->block);
    free(w->text);
    free(w);
}

const char *
llm_weights_write_error(const llm_weights_writer *w)
{
    return w->error;
}
