/*
 * fuzz_zip.c -- .npz files: the input as it is, and once more with its sizes and checksums put right, since
 * no fuzzer guesses a checksum.
 */
#include <string.h>

#include "fuzz_file.h"

#define END_SIZE     22
#define CENTRAL_SIZE 46
#define LOCAL_SIZE   30
#define MAX_MEMBER   65536

/* Where the directory begins, `size` when there is none. */
static size_t find_directory(const uint8_t *bytes, size_t size)
{
    for (size_t at = 0; at + CENTRAL_SIZE + END_SIZE <= size; at++)
        if (le32(bytes + at) == 0x02014b50)
            return at;
    return size;
}

/* Gives the member of a directory entry the checksum, and half of the time the sizes, that it has. */
static void repair_member(uint8_t *bytes, size_t size, uint8_t *entry)
{
    fuzz_file file = { bytes, size, size };
    size_t local = le32(entry + 42), data, n = le32(entry + 20);
    uint32_t crc, inflated;
    uint64_t end;

    if (local > size || size - local < LOCAL_SIZE)
        return;
    data = local + LOCAL_SIZE + le16(bytes + local + 26) + le16(bytes + local + 28);
    if (data > size)
        return;
    if (le16(entry + 10) == 8) {
        if (!fuzz_inflate(&file, data, MAX_MEMBER, &crc, &inflated, &end))
            return;
        if (crc & 1) {
            put32(entry + 20, (uint32_t)(end - data));
            put32(entry + 24, inflated);
        }
        put32(entry + 16, crc);
    } else if (n <= size - data)
        put32(entry + 16, llm_crc32(0, bytes + data, n));
}

/* The end record tells the directory where it is. */
static void repair(uint8_t *bytes, size_t size)
{
    size_t start = find_directory(bytes, size), limit = size - END_SIZE, at = start;
    uint32_t n = 0;

    if (start == size)
        return;
    while (limit - at >= CENTRAL_SIZE && le32(bytes + at) == 0x02014b50) {
        size_t length = CENTRAL_SIZE + le16(bytes + at + 28) + le16(bytes + at + 30) + le16(bytes + at + 32);

        if (length > limit - at)
            break;
        repair_member(bytes, start, bytes + at);
        n++;
        at += length;
    }
    memset(bytes + limit, 0, END_SIZE);
    put32(bytes + limit, 0x06054b50);
    put16(bytes + limit + 8, n);
    put16(bytes + limit + 10, n);
    put32(bytes + limit + 12, (uint32_t)(limit - start));
    put32(bytes + limit + 16, (uint32_t)start);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static uint8_t copy[FUZZ_MAX_FILE];

    if (size < END_SIZE || size > sizeof(copy) || bytes[0] != 'P' || bytes[1] != 'K')
        return -1;
    fuzz_open(&(fuzz_file){ bytes, size, size });
    memcpy(copy, bytes, size);
    repair(copy, size);
    fuzz_open(&(fuzz_file){ copy, size, size });
    return 0;
}
