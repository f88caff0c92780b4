/*
 * inflate_bits.h -- a deflate stream's bit buffer and the decoding of symbols from it, for the inner loop of
 * inflate.c.
 */
#ifndef LLM_INFLATE_BITS_H
#define LLM_INFLATE_BITS_H

#include "inflate.h"

/* Notes the first error; always false. */
extern bool inflate_fail(inflate_stream *z, const char *error);
/* More input into z->input, of which all was used; false at its end or after an error. */
extern bool inflate_fetch(inflate_stream *z);

/*
 * Fill z->literals and z->distances: with the codes that deflate fixes, with those that a block begins with.
 */
extern bool inflate_fixed_codes(inflate_stream *z);
extern bool inflate_dynamic_codes(inflate_stream *z);

/* Fills the bit buffer to 48 bits or more, or with all there is; bits beyond the end are zero. */
static inline void refill(inflate_stream *z)
{
    if (z->available - z->position >= 8) {
        const uint8_t *p = z->input + z->position;

        while (z->n_bits <= 48) {
            z->bits |= (uint64_t)*p++ << z->n_bits;
            z->n_bits += 8;
        }
        z->position = (size_t)(p - z->input);
        return;
    }
    while (z->n_bits <= 48 && (z->position < z->available || inflate_fetch(z))) {
        z->bits |= (uint64_t)z->input[z->position++] << z->n_bits;
        z->n_bits += 8;
    }
}

static inline void drop(inflate_stream *z, int n)
{
    z->bits >>= n;
    z->n_bits -= n;
}

/* n (at most 16) bits as a number; -1 at the end of the data. */
static inline int take(inflate_stream *z, int n)
{
    int value;

    if (z->n_bits < n)
        refill(z);
    if (z->n_bits < n) {
        inflate_fail(z, "ends inside its compressed data");
        return -1;
    }
    value = (int)(z->bits & ((1u << n) - 1));
    drop(z, n);
    return value;
}

/*
 * The next symbol; -1: no such code, or the end of the data. Needs 15 bits in the buffer, or all there are.
 */
static inline int decode(inflate_stream *z, const inflate_code *code)
{
    uint16_t entry = code->fast[z->bits & ((1 << INFLATE_FAST) - 1)];
    int value = 0, first = 0, index = 0;

    if (entry != 0 && (entry & 15) <= z->n_bits) {
        drop(z, entry & 15);
        return entry >> 4;
    }
    for (int length = 1; length < 16 && length <= z->n_bits; length++) {
        value |= (int)(z->bits >> (length - 1)) & 1;
        if (value - first < code->count[length]) {
            drop(z, length);
            return code->symbol[index + value - first];
        }
        index += code->count[length];
        first = (first + code->count[length]) << 1;
        value <<= 1;
    }
    inflate_fail(z, z->n_bits < 15 ? "ends inside its compressed data" : "has an invalid Huffman code");
    return -1;
}

#endif
