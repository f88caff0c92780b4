/*
 * fuzz_file.c -- a weight file in memory: opened, and every tensor read in all ways.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz_file.h"

#define MAX_BYTES   8192 /* of tensor data; a reader's bound, like the size of the model that is imported into */
#define MAX_TENSORS 20   /* that are read */

static bool read_memory(void *arg, uint64_t offset, void *out, size_t n)
{
    const fuzz_file *file = arg;
    size_t there = offset < file->n ? file->n - (size_t)offset : 0;

    if (offset > file->size || n > file->size - offset)
        abort(); /* a parser asks for what lies in the file only */
    if (there > n)
        there = n;
    if (there > 0)
        memcpy(out, file->bytes + offset, there);
    memset((uint8_t *)out + there, 0, n - there);
    return true;
}

/* Twice the same elements are the same bits; beyond the end there are none. */
static void read_tensor(llm_weights *w, size_t i)
{
    const llm_weights_entry *e = llm_weights_get(w, i);
    size_t n = (size_t)e->count, half = n / 2;
    float *whole = malloc((n + 1) * sizeof(float)), *part = malloc((n - half + 1) * sizeof(float));

    if (llm_weights_find(w, e->name) != i || e->ndim < 0 || e->ndim > LLM_WEIGHTS_MAX_NDIM || e->count > MAX_BYTES)
        abort();
    if (llm_weights_read(w, i, 0, n, whole) == LLM_WEIGHTS_OK &&
        llm_weights_read(w, i, half, n - half, part) == LLM_WEIGHTS_OK &&
        memcmp(whole + half, part, (n - half) * sizeof(float)) != 0)
        abort();
    (void)llm_weights_read_bytes(w, i, 0, n, whole);
    if (llm_weights_read(w, i, n, 1, part) == LLM_WEIGHTS_OK || llm_weights_error(w)[0] == '\0')
        abort();
    free(whole);
    free(part);
}

void fuzz_open(const fuzz_file *file)
{
    llm_source source = { (void *)(uintptr_t)file, file->size, read_memory };
    llm_weights_status status;
    char error[LLM_WEIGHTS_ERROR];
    llm_weights *w = llm_weights_open(&source, MAX_BYTES, &status, error);

    if (w == NULL) {
        if (status != LLM_WEIGHTS_INVALID || error[0] == '\0' || memchr(error, '\0', sizeof(error)) == NULL)
            abort();
        return;
    }
    for (size_t i = 0; i < llm_weights_count(w) && i < MAX_TENSORS; i++)
        read_tensor(w, i);
    (void)llm_weights_metadata(w, "format");
    llm_weights_close(w);
}

bool fuzz_inflate(const fuzz_file *file, uint64_t offset, size_t limit, uint32_t *crc, uint32_t *n, uint64_t *end)
{
    static inflate_stream z;
    llm_source source = { (void *)(uintptr_t)file, file->size, read_memory };
    uint8_t piece[4096];

    if (offset > file->size)
        return false;
    inflate_begin(&z, &source, offset, file->size);
    *crc = *n = 0;
    while (*n <= limit) {
        size_t k = inflate_read(&z, piece, sizeof(piece));

        if (k == SIZE_MAX)
            return false;
        *crc = llm_crc32(*crc, piece, k);
        *n += (uint32_t)k;
        if (k < sizeof(piece)) {
            *end = inflate_end_offset(&z);
            return true;
        }
    }
    return false;
}
