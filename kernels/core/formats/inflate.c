/*
 * inflate.c -- decompression of deflate streams (RFC 1951) in pieces: input, blocks, matches.
 *
 * The window is a ring of the last 32 KiB, so a caller's buffer may be of any size and may go away between
 * calls.
 */
#include <string.h>

#include "inflate_bits.h"

/* ---- input ---- */

void inflate_begin(inflate_stream *z, const llm_source *source, uint64_t offset, uint64_t end)
{
    memset(z, 0, offsetof(inflate_stream, input));
    z->source = source;
    z->offset = offset;
    z->end = end;
    z->position = z->available = 0;
    z->bits = 0;
    z->n_bits = 0;
    z->phase = INFLATE_HEADER;
    z->last_block = false;
    z->stored = z->match_length = z->match_distance = 0;
    z->window_position = 0;
    z->produced = 0;
    z->error = NULL;
    z->unreadable = false;
}

bool inflate_fail(inflate_stream *z, const char *error)
{
    if (z->error == NULL)
        z->error = error;
    return false;
}

bool inflate_fetch(inflate_stream *z)
{
    uint64_t left = z->end - z->offset;
    size_t n = left < INFLATE_INPUT ? (size_t)left : INFLATE_INPUT;

    if (n == 0)
        return false;
    if (!z->source->read(z->source->arg, z->offset, z->input, n)) {
        z->unreadable = true;
        return inflate_fail(z, "cannot be read");
    }
    z->offset += n;
    z->position = 0;
    z->available = n;
    return true;
}

uint64_t inflate_end_offset(const inflate_stream *z)
{
    return z->offset - (z->available - z->position) - (uint64_t)(z->n_bits / 8);
}

/* ---- blocks ---- */

static bool block_header(inflate_stream *z)
{
    int last = take(z, 1), type = take(z, 2);

    if (z->error != NULL)
        return false;
    z->last_block = last == 1;
    if (type == 0) {
        int length, complement;

        drop(z, z->n_bits % 8);
        length = take(z, 16);
        complement = take(z, 16);
        if (z->error != NULL)
            return false;
        if (length != (~complement & 0xffff))
            return inflate_fail(z, "has a stored block of contradictory length");
        z->stored = (uint32_t)length;
        z->phase = INFLATE_STORED;
        return true;
    }
    z->phase = INFLATE_CODES;
    if (type == 1)
        return inflate_fixed_codes(z);
    return type == 2 ? inflate_dynamic_codes(z) : inflate_fail(z, "has a block of unknown type");
}

static void remember(inflate_stream *z, const uint8_t *bytes, size_t n)
{
    while (n > 0) {
        size_t room = INFLATE_WINDOW - z->window_position, k = n < room ? n : room;

        memcpy(z->window + z->window_position, bytes, k);
        z->window_position = (uint32_t)((z->window_position + k) & (INFLATE_WINDOW - 1));
        bytes += k;
        n -= k;
    }
}

/* Bytes of a stored block; SIZE_MAX on error. */
static size_t copy_stored(inflate_stream *z, uint8_t *out, size_t n)
{
    size_t done = 0;

    if (n > z->stored)
        n = z->stored;
    for (; done < n && z->n_bits >= 8; done++) {
        out[done] = (uint8_t)z->bits;
        drop(z, 8);
    }
    while (done < n) {
        size_t k;

        if (z->position == z->available && !inflate_fetch(z)) {
            inflate_fail(z, "ends inside its compressed data");
            return SIZE_MAX;
        }
        k = z->available - z->position < n - done ? z->available - z->position : n - done;
        memcpy(out + done, z->input + z->position, k);
        z->position += k;
        done += k;
    }
    remember(z, out, n);
    z->stored -= (uint32_t)n;
    return n;
}

/* Bytes of a match whose call has made `done` bytes at out - done; what is further back is in the window. */
static size_t copy_match(inflate_stream *z, uint8_t *out, size_t done, size_t n)
{
    size_t distance = z->match_distance, i = 0;

    if (n > z->match_length)
        n = z->match_length;
    for (; i < n && done + i < distance; i++)
        out[i] = z->window[(z->window_position + done + i - distance) & (INFLATE_WINDOW - 1)];
    if (distance >= n - i) {
        if (i < n)
            memcpy(out + i, out + i - distance, n - i);
    } else
        for (; i < n; i++)
            out[i] = *(out + i - distance);
    z->match_length -= (uint32_t)n;
    return n;
}

/* Length and distance of a match; false on error. */
static bool begin_match(inflate_stream *z, int symbol, uint64_t produced)
{
    static const uint16_t base[29] = { 3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                       31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258 };
    static const uint8_t extra[29] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                       2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0 };
    static const uint16_t far_base[30] = { 1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                           33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                           1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577 };
    static const uint8_t far_extra[30] = { 0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                           6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13 };
    int more, far, far_more;

    if (symbol >= 286)
        return inflate_fail(z, "has an unknown length");
    more = take(z, extra[symbol - 257]);
    refill(z);
    far = more < 0 ? -1 : decode(z, &z->distances);
    if (far < 0)
        return false;
    if (far >= 30)
        return inflate_fail(z, "has an unknown distance");
    far_more = take(z, far_extra[far]);
    if (far_more < 0)
        return false;
    z->match_length = (uint32_t)(base[symbol - 257] + more);
    z->match_distance = (uint32_t)(far_base[far] + far_more);
    if (z->match_distance > produced)
        return inflate_fail(z, "refers to data before its beginning");
    return true;
}

/* Decodes into out until n bytes or the block's end; the window is brought up to date by the caller. */
static size_t decode_codes(inflate_stream *z, uint8_t *out, size_t n)
{
    size_t done = 0;

    while (done < n) {
        int symbol;

        if (z->match_length > 0) {
            done += copy_match(z, out + done, done, n - done);
            continue;
        }
        refill(z);
        symbol = decode(z, &z->literals);
        /* one filling of the buffer holds three literals */
        for (int i = 0; i < 2 && symbol >= 0 && symbol < 256 && done + 1 < n && z->n_bits >= 15; i++) {
            out[done++] = (uint8_t)symbol;
            symbol = decode(z, &z->literals);
        }
        if (symbol < 0)
            return SIZE_MAX;
        if (symbol < 256)
            out[done++] = (uint8_t)symbol;
        else if (symbol == 256) {
            z->phase = z->last_block ? INFLATE_END : INFLATE_HEADER;
            return done;
        } else if (!begin_match(z, symbol, z->produced + done))
            return SIZE_MAX;
    }
    return done;
}

static size_t copy_codes(inflate_stream *z, uint8_t *out, size_t n)
{
    size_t done = decode_codes(z, out, n);

    if (done != SIZE_MAX)
        remember(z, done > INFLATE_WINDOW ? out + done - INFLATE_WINDOW : out,
                 done > INFLATE_WINDOW ? INFLATE_WINDOW : done);
    return done;
}

size_t inflate_read(inflate_stream *z, uint8_t *out, size_t n)
{
    size_t done = 0;

    while (done < n && z->phase != INFLATE_END && z->error == NULL) {
        size_t k = 0;

        if (z->phase == INFLATE_HEADER) {
            if (!block_header(z))
                return SIZE_MAX;
        } else
            k = z->phase == INFLATE_STORED ? copy_stored(z, out + done, n - done) : copy_codes(z, out + done, n - done);
        if (k == SIZE_MAX)
            return SIZE_MAX;
        done += k;
        z->produced += k;
        if (z->phase == INFLATE_STORED && z->stored == 0)
            z->phase = z->last_block ? INFLATE_END : INFLATE_HEADER;
    }
    return z->error == NULL ? done : SIZE_MAX;
}
