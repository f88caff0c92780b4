/*
 * fuzz_safetensors.c -- .safetensors files: the input as a file, or, when it begins like JSON, as the header
 * of one with as many bytes of data as the largest number in it.
 */
#include <string.h>

#include "fuzz_file.h"

#define MAX_DATA 65536

static uint64_t largest_number(const uint8_t *bytes, size_t size)
{
    uint64_t largest = 0, value = 0;

    for (size_t i = 0; i < size; i++) {
        value = bytes[i] >= '0' && bytes[i] <= '9' && value <= MAX_DATA ? 10 * value + (uint64_t)(bytes[i] - '0') : 0;
        if (value > largest && value <= MAX_DATA)
            largest = value;
    }
    return largest;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static uint8_t file[8 + FUZZ_MAX_FILE];

    if (size < 2 || size > FUZZ_MAX_FILE || (bytes[0] == 'P' && bytes[1] == 'K') ||
        (bytes[0] == 0x1f && bytes[1] == 0x8b))
        return -1;
    if (bytes[0] != '{') {
        fuzz_open(&(fuzz_file){ bytes, size, size });
        return 0;
    }
    put64(file, size);
    memcpy(file + 8, bytes, size);
    fuzz_open(&(fuzz_file){ file, 8 + size, 8 + size + (size_t)largest_number(bytes, size) });
    return 0;
}
