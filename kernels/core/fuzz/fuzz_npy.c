/*
 * fuzz_npy.c -- .npy files: the input as one, and its text as the header of one, each as the only member of
 * an archive with as many bytes of data as the header asks for.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz_file.h"

#define MAX_DATA 65536

static uint8_t archive[FUZZ_MAX_FILE];

static const uint8_t *input;
static size_t input_size, input_at;

static bool read_input(llm_weights *w, void *out, size_t n)
{
    if (n > input_size - input_at)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "too short");
    memcpy(out, input + input_at, n);
    input_at += n;
    return true;
}

/* Header and data of the array in bytes, 0 when it is refused. */
static size_t array_size(const uint8_t *bytes, size_t size)
{
    llm_weights *w = calloc(1, sizeof(llm_weights));
    weights_item item = { 0 };
    uint64_t length, count, n = 0;
    bool ok;

    input = bytes;
    input_size = size;
    input_at = 0;
    ok = npy_header(w, read_input, "a", &item, &length);
    if (!ok && w->error[0] == '\0')
        abort();
    if (ok && (length != input_at || item.entry.ndim < 0 || item.entry.ndim > LLM_WEIGHTS_MAX_NDIM))
        abort();
    ok = ok && weights_size(&item.entry, &count, &n) && n <= MAX_DATA;
    free(w);
    return ok ? (size_t)(length + n) : 0;
}

/* The first n bytes of the file, what is missing of them being zero, as "a" in an archive. */
static void open_member(const uint8_t *bytes, size_t size, size_t n)
{
    uint8_t *p = archive, *local = p, *central;
    size_t at = 30 + 5 + n;

    if (at + 46 + 5 + 22 > sizeof(archive))
        return;
    memset(archive, 0, at + 46 + 5 + 22);
    memcpy(p + 30, "a.npy", 5);
    memcpy(p + 35, bytes, size < n ? size : n);
    put32(local, 0x04034b50);
    put16(local + 26, 5);
    central = p + at;
    put32(central, 0x02014b50);
    put32(central + 16, llm_crc32(0, p + 35, n));
    put32(central + 20, (uint32_t)n);
    put32(central + 24, (uint32_t)n);
    put16(central + 28, 5);
    memcpy(central + 46, "a.npy", 5);
    put32(central + 51, 0x06054b50);
    put16(central + 51 + 8, 1);
    put16(central + 51 + 10, 1);
    put32(central + 51 + 12, 51);
    put32(central + 51 + 16, (uint32_t)at);
    fuzz_open(&(fuzz_file){ archive, at + 73, at + 73 });
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static uint8_t text[12 + 65535];
    const uint8_t *end = memchr(bytes, '\n', size);
    size_t n = end == NULL ? size : (size_t)(end + 1 - bytes), whole;

    if (size > 65535)
        return -1;
    if (size >= 6 && memcmp(bytes, "\x93NUMPY", 6) == 0) {
        whole = array_size(bytes, size);
        open_member(bytes, size, whole > 0 ? whole : size);
        return 0;
    }
    memcpy(text, "\x93NUMPY\x01", 8);
    put16(text + 8, (uint32_t)n);
    memcpy(text + 10, bytes, size);
    whole = array_size(text, 10 + n);
    if (whole > 0)
        open_member(text, 10 + size, whole);
    return 0;
}
