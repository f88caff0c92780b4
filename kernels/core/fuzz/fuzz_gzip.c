/*
 * fuzz_gzip.c -- gzip streams of records: the input as a file, with its first checksum put right, and as the
 * records themselves (in a stored block).
 */
#include <string.h>

#include "fuzz_file.h"

#define MAX_INFLATED 65536

static uint8_t file[FUZZ_MAX_FILE];

static void with_checksum(const uint8_t *bytes, size_t size)
{
    uint32_t crc, n;
    uint64_t end;
    fuzz_file input = { bytes, size, size };

    if (size < 18 || bytes[0] != 0x1f || bytes[1] != 0x8b || bytes[3] != 0 ||
        !fuzz_inflate(&input, 10, MAX_INFLATED, &crc, &n, &end) || size - end < 8)
        return;
    memcpy(file, bytes, size);
    put32(file + end, crc);
    put32(file + end + 4, n);
    fuzz_open(&(fuzz_file){ file, size, size });
}

static void as_records(const uint8_t *bytes, size_t size)
{
    static const uint8_t header[11] = { 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1 };

    if (size > 65535)
        return;
    memcpy(file, header, 11);
    put16(file + 11, (uint32_t)size);
    put16(file + 13, ~(uint32_t)size);
    memcpy(file + 15, bytes, size);
    put32(file + 15 + size, llm_crc32(0, bytes, size));
    put32(file + 19 + size, (uint32_t)size);
    fuzz_open(&(fuzz_file){ file, size + 23, size + 23 });
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size < 2 || size > sizeof(file))
        return -1;
    if (bytes[0] != 0x1f || bytes[1] != 0x8b)
        as_records(bytes, size);
    else {
        fuzz_open(&(fuzz_file){ bytes, size, size });
        with_checksum(bytes, size);
    }
    return 0;
}
