/*
 * weights_write.c -- writing weight files: .safetensors, .npz with stored members, gzip with stored blocks.
 *
 * Nothing is compressed: float mantissas are noise. Sizes are known beforehand, so a file is written in one
 * go; the writers of the formats are in weights_headers.c, zip_write.c and gzip_write.c.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights_write.h"

bool writer_fail(llm_weights_writer *w, llm_weights_status status, const char *format, ...)
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

bool writer_emit(llm_weights_writer *w, const void *bytes, size_t n)
{
    if (n > 0 && !w->sink.write(w->sink.arg, bytes, n))
        return writer_fail(w, LLM_WEIGHTS_UNREADABLE, "the file cannot be written");
    w->position += n;
    return true;
}

uint64_t writer_data_bytes(const llm_weights_entry *e)
{
    uint64_t count, bytes;

    weights_size(e, &count, &bytes);
    return bytes;
}

/* Begins tensors until one has data to come. */
static bool begin_tensors(llm_weights_writer *w)
{
    while (w->current < w->n) {
        w->left = writer_data_bytes(&w->entries[w->current]);
        if (w->format == LLM_NPZ && !zip_write_begin(w))
            return false;
        if (w->format == LLM_NPY_GZIP && !gzip_write_begin(w))
            return false;
        if (w->left > 0)
            return true;
        if (w->format == LLM_NPZ && !zip_write_end(w))
            return false;
        w->current++;
    }
    return true;
}

static bool check_entries(llm_weights_writer *w)
{
    for (size_t i = 0; i < w->n; i++) {
        const llm_weights_entry *e = &w->entries[i];
        size_t n = strlen(e->name);
        uint64_t count, bytes;

        if (n == 0 || n > LLM_WEIGHTS_MAX_NAME - 4 || !weights_valid_utf8((const uint8_t *)e->name, n) ||
            strcmp(e->name, "__metadata__") == 0)
            return writer_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" cannot name a tensor in a file", e->name);
        if (e->dtype == LLM_DTYPE_BF16 && w->format != LLM_SAFETENSORS)
            return writer_fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\": NumPy's formats have no bf16", e->name);
        if (e->ndim < 0 || e->ndim > LLM_WEIGHTS_MAX_NDIM ||
            (e->dtype != LLM_DTYPE_F32 && e->dtype != LLM_DTYPE_BF16 && e->dtype != LLM_DTYPE_U8) ||
            !weights_size(e, &count, &bytes))
            return writer_fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" cannot be written", e->name);
    }
    return true;
}

static bool begin_file(llm_weights_writer *w, const llm_weights_pair *metadata, size_t n_metadata)
{
    static const uint8_t gzip_header[10] = { 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255 };

    if (!check_entries(w))
        return false;
    w->offsets = calloc(w->n + 1, sizeof(uint64_t));
    w->crcs = calloc(w->n + 1, sizeof(uint32_t));
    w->block = malloc(STORED_BLOCK);
    if (w->offsets == NULL || w->crcs == NULL || w->block == NULL)
        return writer_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
    if (w->format == LLM_SAFETENSORS && !writer_safetensors_header(w, metadata, n_metadata))
        return false;
    if (w->format == LLM_NPY_GZIP && !writer_emit(w, gzip_header, 10))
        return false;
    return begin_tensors(w);
}

llm_weights_writer *llm_weights_write_begin(const llm_sink *sink, llm_weights_format format,
                                            const llm_weights_entry *entries, size_t n_entries,
                                            const llm_weights_pair *metadata, size_t n_metadata,
                                            llm_weights_status *status, char error[LLM_WEIGHTS_ERROR])
{
    llm_weights_writer *w = calloc(1, sizeof(llm_weights_writer));

    if (w == NULL) {
        *status = LLM_WEIGHTS_NO_MEMORY;
        snprintf(error, LLM_WEIGHTS_ERROR, "out of memory");
        return NULL;
    }
    w->sink = *sink;
    w->format = format;
    w->entries = entries;
    w->n = n_entries;
    *status = LLM_WEIGHTS_OK;
    if (!begin_file(w, metadata, n_metadata)) {
        *status = w->status;
        memcpy(error, w->error, LLM_WEIGHTS_ERROR);
        llm_weights_write_free(w);
        return NULL;
    }
    return w;
}

const llm_weights_entry *llm_weights_write_next(const llm_weights_writer *w)
{
    return w->current < w->n ? &w->entries[w->current] : NULL;
}

llm_weights_status llm_weights_write(llm_weights_writer *w, const void *bytes, size_t n)
{
    bool ok;

    if (n == 0 || w->status != LLM_WEIGHTS_OK)
        return w->status;
    if (w->current == w->n || n > w->left) {
        writer_fail(w, LLM_WEIGHTS_INVALID, "more data than tensor \"%.100s\" has",
                    w->current == w->n ? "(none)" : w->entries[w->current].name);
        return w->status;
    }
    if (w->format == LLM_NPY_GZIP)
        ok = gzip_write(w, bytes, n);
    else {
        if (w->format == LLM_NPZ)
            w->crc = llm_crc32(w->crc, bytes, n);
        ok = writer_emit(w, bytes, n);
    }
    w->left -= n;
    if (ok && w->left == 0) {
        ok = w->format != LLM_NPZ || zip_write_end(w);
        w->current++;
        if (ok)
            begin_tensors(w);
    }
    return w->status;
}

llm_weights_status llm_weights_write_end(llm_weights_writer *w)
{
    if (w->status == LLM_WEIGHTS_OK && w->current < w->n)
        writer_fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" lacks data", w->entries[w->current].name);
    if (w->status == LLM_WEIGHTS_OK && w->format == LLM_NPZ)
        zip_write_directory(w);
    if (w->status == LLM_WEIGHTS_OK && w->format == LLM_NPY_GZIP)
        gzip_write_end(w);
    return w->status;
}

void llm_weights_write_free(llm_weights_writer *w)
{
    if (w == NULL)
        return;
    free(w->offsets);
    free(w->crcs);
    free(w->block);
    free(w->text);
    free(w);
}

const char *llm_weights_write_error(const llm_weights_writer *w) { return w->error; }
