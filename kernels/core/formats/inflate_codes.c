/*
 * inflate_codes.c -- the Huffman codes of deflate's blocks (RFC 1951, section 3.2).
 */
#include <string.h>

#include "inflate_bits.h"

static uint32_t reversed(uint32_t code, int length)
{
    uint32_t result = 0;

    for (int i = 0; i < length; i++)
        result |= ((code >> i) & 1) << (length - 1 - i);
    return result;
}

/* Builds a code from the lengths of its n symbols; false when they do not make one. */
static bool build(inflate_stream *z, inflate_code *code, const uint8_t *lengths, int n)
{
    uint16_t offsets[16];
    uint32_t next = 0;
    int left = 1, used = 0;

    memset(code, 0, sizeof(*code));
    for (int i = 0; i < n; i++)
        code->count[lengths[i]]++;
    used = n - code->count[0];
    code->count[0] = 0;
    for (int length = 1; length < 16; length++) {
        left = (left << 1) - code->count[length];
        if (left < 0)
            return inflate_fail(z, "has a Huffman code with too many symbols");
    }
    /* RFC 1951 allows one incomplete code: a single symbol of length 1 (and no distance code at all) */
    if (left > 0 && !(used == 0 || (used == 1 && code->count[1] == 1)))
        return inflate_fail(z, "has an incomplete Huffman code");
    offsets[1] = 0;
    for (int length = 1; length < 15; length++)
        offsets[length + 1] = (uint16_t)(offsets[length] + code->count[length]);
    for (int i = 0; i < n; i++)
        if (lengths[i] != 0)
            code->symbol[offsets[lengths[i]]++] = (uint16_t)i;
    for (int length = 1, at = 0; length <= INFLATE_FAST; length++) {
        next <<= 1;
        for (int i = 0; i < code->count[length]; i++, at++, next++)
            for (uint32_t slot = reversed(next, length); slot < 1 << INFLATE_FAST; slot += 1u << length)
                code->fast[slot] = (uint16_t)(code->symbol[at] << 4 | length);
    }
    return true;
}

bool inflate_fixed_codes(inflate_stream *z)
{
    uint8_t lengths[288];

    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 112);
    memset(lengths + 256, 7, 24);
    memset(lengths + 280, 8, 8);
    if (!build(z, &z->literals, lengths, 288))
        return false;
    memset(lengths, 5, 32);
    return build(z, &z->distances, lengths, 32);
}

bool inflate_dynamic_codes(inflate_stream *z)
{
    static const uint8_t order[19] = { 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15 };
    uint8_t lengths[288 + 32] = { 0 };
    int n_literals = take(z, 5) + 257, n_distances = take(z, 5) + 1, n_lengths = take(z, 4) + 4;

    if (z->error != NULL)
        return false;
    if (n_literals > 286 || n_distances > 30)
        return inflate_fail(z, "has a block with too many codes");
    for (int i = 0; i < n_lengths; i++) {
        int bits = take(z, 3);

        if (bits < 0)
            return false;
        lengths[order[i]] = (uint8_t)bits;
    }
    if (!build(z, &z->literals, lengths, 19))
        return false;
    memset(lengths, 0, 19);
    for (int i = 0; i < n_literals + n_distances;) {
        int symbol, repeat = 1;
        uint8_t value;

        refill(z);
        symbol = decode(z, &z->literals);
        if (symbol < 0)
            return false;
        value = (uint8_t)symbol;
        if (symbol >= 16) {
            if (symbol == 16 && i == 0)
                return inflate_fail(z, "repeats a code length before the first");
            value = symbol == 16 ? lengths[i - 1] : 0;
            repeat = symbol == 16 ? 3 + take(z, 2) : symbol == 17 ? 3 + take(z, 3) : 11 + take(z, 7);
            if (z->error != NULL)
                return false;
        }
        if (i + repeat > n_literals + n_distances)
            return inflate_fail(z, "has more code lengths than codes");
        memset(lengths + i, value, (size_t)repeat);
        i += repeat;
    }
    if (lengths[256] == 0)
        return inflate_fail(z, "has a block without an end");
    return build(z, &z->distances, lengths + n_literals, n_distances) && build(z, &z->literals, lengths, n_literals);
}
