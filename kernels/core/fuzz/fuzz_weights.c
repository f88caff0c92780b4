/*
 * fuzz_weights.c -- libFuzzer target for the parsers of weight files: opens the input as a file and reads all of it.
 *
 * FUZZ_MAGIC, given at compile time, restricts the target to one parser, so that each gets inputs of its own:
 * 'P' zip and .npy, 'G' gzip and .npy, 'S' safetensors. For gzip the input is the inflated stream as well: a second
 * pass wraps it in stored blocks, since no fuzzer guesses checksums.
 */
#include <stdlib.h>
#include <string.h>

#include "../weights_file.h"

typedef struct memory { const uint8_t *bytes; } memory;

static bool
read_memory(void *arg, uint64_t offset, void *out, size_t n)
{
    memcpy(out, ((const memory *) arg)->bytes + offset, n);
    return true;
}

/* Every tensor, whole, then its middle again. */
static void
read_all(llm_weights *w)
{
    for (size_t i = 0; i < llm_weights_count(w) && i < 100; i++)
    {
        const llm_weights_entry *e = llm_weights_get(w, i);
        uint64_t n = e->count < 65536 ? e->count : 65536;
        float   *out = malloc((size_t) (n + 1) * sizeof(float));

        if (out == NULL)
            return;
        if (llm_weights_find(w, e->name) != i)
            abort();
        (void) llm_weights_read(w, i, 0, n, out);
        (void) llm_weights_read(w, i, n / 2, n - n / 2, out);
        (void) llm_weights_read_bytes(w, i, 0, n, out);
        if (llm_weights_read(w, i, e->count, 1, out) == LLM_WEIGHTS_OK)
            abort();
        free(out);
    }
    (void) llm_weights_metadata(w, "format");
}

static void
open_and_read(const uint8_t *bytes, size_t size)
{
    memory      m = {bytes};
    llm_source  source = {&m, size, read_memory};
    llm_weights_status status;
    char        error[LLM_WEIGHTS_ERROR];
    llm_weights *w = llm_weights_open(&source, 1 << 20, &status, error);

    if (w == NULL)
    {
        if (status == LLM_WEIGHTS_OK || memchr(error, '\0', sizeof(error)) == NULL)
            abort();
        return;
    }
    read_all(w);
    llm_weights_close(w);
}

/* The input as the contents of a gzip file. */
static void
wrap_gzip(const uint8_t *bytes, size_t size)
{
    static const uint8_t header[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
    uint8_t    *file;

    if (size > 65535)
        return;
    file = malloc(size + 23);
    if (file == NULL)
        return;
    memcpy(file, header, 10);
    file[10] = 1;
    put16(file + 11, (uint32_t) size);
    put16(file + 13, ~(uint32_t) size);
    memcpy(file + 15, bytes, size);
    put32(file + 15 + size, llm_crc32(0, bytes, size));
    put32(file + 19 + size, (uint32_t) size);
    open_and_read(file, size + 23);
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
#if FUZZ_MAGIC == 'P'
    if (size < 2 || bytes[0] != 'P' || bytes[1] != 'K')
        return -1;
#elif FUZZ_MAGIC == 'G'
    wrap_gzip(bytes, size);
#elif FUZZ_MAGIC == 'S'
    if (size >= 2 && ((bytes[0] == 'P' && bytes[1] == 'K') || (bytes[0] == 0x1f && bytes[1] == 0x8b)))
        return -1;
#endif
    open_and_read(bytes, size);
    return 0;
}
