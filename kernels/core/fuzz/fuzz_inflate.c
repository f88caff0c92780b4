/*
 * fuzz_inflate.c -- libFuzzer target for inflate: the same bytes in pieces of any size, and never beyond the
 * input.
 */
#include <stdlib.h>
#include <string.h>

#include "formats/inflate.h"

#define LIMIT 40000 /* the window wraps at 32768 */

static bool read_memory(void *arg, uint64_t offset, void *out, size_t n)
{
    memcpy(out, (const uint8_t *)arg + offset, n);
    return true;
}

/* Inflates up to LIMIT bytes in pieces of `piece`; the number of bytes, SIZE_MAX after an error. */
static size_t inflate_all(inflate_stream *z, const llm_source *source, uint8_t *out, size_t piece)
{
    size_t done = 0;

    inflate_begin(z, source, 0, source->size);
    while (done < LIMIT) {
        size_t want = LIMIT - done < piece ? LIMIT - done : piece, k = inflate_read(z, out + done, want);

        if (k == SIZE_MAX)
            return SIZE_MAX;
        done += k;
        if (k < want) {
            if (inflate_end_offset(z) > source->size)
                abort();
            break;
        }
    }
    return done;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static inflate_stream z;
    static uint8_t whole[LIMIT], pieces[LIMIT];
    llm_source source = { (void *)(uintptr_t)bytes, size, read_memory };
    size_t n = inflate_all(&z, &source, whole, LIMIT), m = inflate_all(&z, &source, pieces, 1 + size % 257);

    if (n != m || (n != SIZE_MAX && memcmp(whole, pieces, n) != 0))
        abort();
    return 0;
}
