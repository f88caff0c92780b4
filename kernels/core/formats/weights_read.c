/*
 * weights_read.c -- elements of the tensors of a weight file, as float32, as bf16 or as bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "weights_file.h"

#define PIECE      65536      /* elements converted at a time */
#define READ_PIECE (8u << 20) /* bytes inflated at a time */

/* Moves the item's stream to an inflated position. */
static bool stream_seek(llm_weights *w, size_t item, uint64_t position)
{
    uint8_t scratch[16384];
    byte_stream *s = &w->stream;
    bool zip = w->format == LLM_NPZ;

    if (!s->open || s->position > position || (zip && s->item != item)) {
        if (zip)
            zip_stream_begin(w, &w->items[item], item);
        else
            gzip_stream_begin(w);
    }
    while (s->position < position) {
        uint64_t left = position - s->position;
        size_t k = left < sizeof(scratch) ? (size_t)left : sizeof(scratch);

        if (!(zip ? zip_stream_read(w, scratch, k) : gzip_stream_read(w, scratch, k)))
            return false;
    }
    return true;
}

/* n bytes of the item's data from byte `first` on */
static bool read_raw(llm_weights *w, size_t i, uint64_t first, void *out, uint64_t n)
{
    const weights_item *item = &w->items[i];

    if (n == 0)
        return true;
    if (w->format == LLM_SAFETENSORS)
        return weights_source_read(w, item->offset + first, out, n);
    if (!stream_seek(w, i, item->skip + first))
        return false;
    for (uint64_t done = 0; done < n;) {
        size_t k = n - done < READ_PIECE ? (size_t)(n - done) : READ_PIECE;

        if (!(w->format == LLM_NPZ ? zip_stream_read(w, (char *)out + done, k)
                                   : gzip_stream_read(w, (char *)out + done, k)))
            return false;
        done += k;
    }
    return true;
}

static bool read_floats(llm_weights *w, size_t i, uint64_t first, uint64_t n, float *out)
{
    llm_dtype dtype = w->items[i].entry.dtype;
    size_t size = llm_dtype_size(dtype);
    uint8_t *piece;
    bool ok = true;

    if (dtype == LLM_DTYPE_F32)
        return read_raw(w, i, first * 4, out, n * 4);
    if (n == 0)
        return true;
    piece = malloc((n < PIECE ? (size_t)n : PIECE) * size);
    if (piece == NULL)
        return weights_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
    for (uint64_t done = 0; ok && done < n;) {
        size_t k = n - done < PIECE ? (size_t)(n - done) : PIECE;

        ok = read_raw(w, i, (first + done) * size, piece, (uint64_t)k * size);
        if (ok)
            weights_convert(out + done, piece, dtype, k);
        done += k;
    }
    free(piece);
    return ok;
}

/* out, in row-major order, from the same elements in column-major order */
static void reorder(float *out, const float *in, const llm_weights_entry *e)
{
    uint64_t index[LLM_WEIGHTS_MAX_NDIM] = { 0 }, stride[LLM_WEIGHTS_MAX_NDIM], from = 0;

    for (int k = 0; k < e->ndim; k++)
        stride[k] = k == 0 ? 1 : stride[k - 1] * e->dims[k - 1];
    for (uint64_t i = 0; i < e->count; i++) {
        out[i] = in[from];
        for (int k = e->ndim - 1; k >= 0; k--) {
            from += stride[k];
            if (++index[k] < e->dims[k])
                break;
            from -= stride[k] * e->dims[k];
            index[k] = 0;
        }
    }
}

/* A column-major tensor has no contiguous rows: it is read whole, once. */
static bool read_fortran(llm_weights *w, size_t i)
{
    const llm_weights_entry *e = &w->items[i].entry;
    float *in;
    bool ok;

    if (w->whole != NULL && w->whole_item == i)
        return true;
    free(w->whole);
    w->whole = NULL;
    if (e->count > SIZE_MAX / sizeof(float) - 1)
        return weights_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
    in = malloc((size_t)(e->count + 1) * sizeof(float));
    w->whole = in == NULL ? NULL : malloc((size_t)(e->count + 1) * sizeof(float));
    if (w->whole == NULL) {
        free(in);
        return weights_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
    }
    ok = read_floats(w, i, 0, e->count, in);
    if (ok)
        reorder(w->whole, in, e);
    w->whole_item = i;
    free(in);
    if (!ok) {
        free(w->whole);
        w->whole = NULL;
    }
    return ok;
}

static bool begin_read(llm_weights *w, size_t i, uint64_t first, uint64_t n)
{
    const llm_weights_entry *e = &w->items[i].entry;

    w->status = LLM_WEIGHTS_OK;
    w->error[0] = '\0';
    if (first > e->count || n > e->count - first)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" has %llu elements", e->name,
                            (unsigned long long)e->count);
    return true;
}

llm_weights_status llm_weights_read(llm_weights *w, size_t i, uint64_t first, uint64_t n, float *out)
{
    const weights_item *item = &w->items[i];

    if (!begin_read(w, i, first, n))
        return w->status;
    if (item->entry.dtype >= LLM_DTYPE_U8)
        weights_fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" has elements of type %s, not floating-point numbers",
                     item->entry.name, llm_dtype_name(item->entry.dtype));
    else if (item->fortran && item->entry.ndim > 1) {
        if (read_fortran(w, i) && n > 0)
            memcpy(out, w->whole + first, (size_t)n * sizeof(float));
    } else
        read_floats(w, i, first, n, out);
    if (w->status != LLM_WEIGHTS_OK)
        w->stream.open = false;
    return w->status;
}

llm_weights_status llm_weights_read_bf16(llm_weights *w, size_t i, uint64_t first, uint64_t n, uint16_t *out)
{
    const weights_item *item = &w->items[i];

    if (!begin_read(w, i, first, n))
        return w->status;
    if (item->entry.dtype != LLM_DTYPE_BF16 || (item->fortran && item->entry.ndim > 1))
        weights_fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" does not hold bf16", item->entry.name);
    else
        read_raw(w, i, first * 2, out, n * 2);
    if (w->status != LLM_WEIGHTS_OK)
        w->stream.open = false;
    return w->status;
}

llm_weights_status llm_weights_read_bytes(llm_weights *w, size_t i, uint64_t first, uint64_t n, void *out)
{
    const weights_item *item = &w->items[i];

    if (!begin_read(w, i, first, n))
        return w->status;
    if (llm_dtype_size(item->entry.dtype) != 1 || (item->fortran && item->entry.ndim > 1))
        weights_fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" does not hold bytes", item->entry.name);
    else
        read_raw(w, i, first, out, n);
    if (w->status != LLM_WEIGHTS_OK)
        w->stream.open = false;
    return w->status;
}
