/*
 * fuzz_file.h -- what the targets for weight files share: opening a file in memory and reading all of it.
 */
#ifndef FUZZ_FILE_H
#define FUZZ_FILE_H

#include "formats/weights_file.h"

#define FUZZ_MAX_FILE 131072

/* A file of `size` bytes, of which those behind the first `n` are zero. */
typedef struct fuzz_file {
    const uint8_t *bytes;
    size_t n, size;
} fuzz_file;

/* Opens the file; reads every tensor whole, then a part again. Aborts where weights.h is not kept. */
void fuzz_open(const fuzz_file *file);
/* Inflates from `offset` on, to `limit` bytes at most; false: it does not inflate. */
bool fuzz_inflate(const fuzz_file *file, uint64_t offset, size_t limit, uint32_t *crc, uint32_t *n, uint64_t *end);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#endif
