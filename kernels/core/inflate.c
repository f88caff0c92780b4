/*
 * inflate.c -- decompression of deflate streams (RFC 1951) in pieces, and CRC-32 (ISO 3309).
 *
 * The window is a ring of the last 32 KiB, so a caller's buffer may be of any size and may go away between calls.
 */
#include <string.h>

#include "inflate.h"

/* ---- CRC-32, four bytes at a time ---- */

static uint32_t crc_table[4][256];
static volatile bool crc_ready = false;

/* Every thread that races here writes the same values. */
static void
crc_prepare(void)
{
    for (uint32_t i = 0; i < 256; i++)
    {
        uint32_t c = i;

        for (int k = 0; k < 8; k++)
            c = (c >> 1) ^ (0xedb88320u & (0u - (c & 1)));
        crc_table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 4; t++)
            crc_table[t][i] = (crc_table[t - 1][i] >> 8) ^ crc_table[0][crc_table[t - 1][i] & 255];
    crc_ready = true;
}

uint32_t
llm_crc32(uint32_t crc, const uint8_t *bytes, size_t n)
{
    if (!crc_ready)
        crc_prepare();
    crc = ~crc;
    for (; n >= 4; n -= 4, bytes += 4)
    {
        crc ^= (uint32_t) bytes[0] | (uint32_t) bytes[1] << 8 | (uint32_t) bytes[2] << 16 | (uint32_t) bytes[3] << 24;
        crc = crc_table[3][crc & 255] ^ crc_table[2][(crc >> 8) & 255] ^ crc_table[1][(crc >> 16) & 255] ^
            crc_table[0][crc >> 24];
    }
    for (; n > 0; n--, bytes++)
        crc = (crc >> 8) ^ crc_table[0][(crc ^ *bytes) & 255];
    return ~crc;
}

/* ---- bits ---- */

void
inflate_begin(inflate_stream *z, const llm_source *source, uint64_t offset, uint64_t end)
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

static bool
fail(inflate_stream *z, const char *error)
{
    if (z->error == NULL)
        z->error = error;
    return false;
}

static bool
fetch(inflate_stream *z)
{
    uint64_t left = z->end - z->offset;
    size_t   n = left < INFLATE_INPUT ? (size_t) left : INFLATE_INPUT;

    if (n == 0)
        return false;
    if (!z->source->read(z->source->arg, z->offset, z->input, n))
    {
        z->unreadable = true;
        return fail(z, "cannot be read");
    }
    z->offset += n;
    z->position = 0;
    z->available = n;
    return true;
}

/* Fills the bit buffer to 48 bits or more, or with all there is; bits beyond the end are zero. */
static inline void
refill(inflate_stream *z)
{
    if (z->available - z->position >= 8)
    {
        const uint8_t *p = z->input + z->position;

        while (z->n_bits <= 48)
        {
            z->bits |= (uint64_t) *p++ << z->n_bits;
            z->n_bits += 8;
        }
        z->position = (size_t) (p - z->input);
        return;
    }
    while (z->n_bits <= 48 && (z->position < z->available || fetch(z)))
    {
        z->bits |= (uint64_t) z->input[z->position++] << z->n_bits;
        z->n_bits += 8;
    }
}

static inline void
drop(inflate_stream *z, int n)
{
    z->bits >>= n;
    z->n_bits -= n;
}

/* n (at most 16) bits as a number; -1 at the end of the data. */
static int
take(inflate_stream *z, int n)
{
    int value;

    if (z->n_bits < n)
        refill(z);
    if (z->n_bits < n)
    {
        fail(z, "ends inside its compressed data");
        return -1;
    }
    value = (int) (z->bits & ((1u << n) - 1));
    drop(z, n);
    return value;
}

uint64_t
inflate_end_offset(const inflate_stream *z)
{
    return z->offset - (z->available - z->position) - (uint64_t) (z->n_bits / 8);
}

/* ---- Huffman codes ---- */

static uint32_t
reversed(uint32_t code, int length)
{
    uint32_t result = 0;

    for (int i = 0; i < length; i++)
        result |= ((code >> i) & 1) << (length - 1 - i);
    return result;
}

/* Builds a code from the lengths of its n symbols; false when they do not make one. */
static bool
build(inflate_stream *z, inflate_code *code, const uint8_t *lengths, int n)
{
    uint16_t offsets[16];
    uint32_t next = 0;
    int      left = 1, used = 0;

    memset(code, 0, sizeof(*code));
    for (int i = 0; i < n; i++)
        code->count[lengths[i]]++;
    used = n - code->count[0];
    code->count[0] = 0;
    for (int length = 1; length < 16; length++)
    {
        left = (left << 1) - code->count[length];
        if (left < 0)
            return fail(z, "has a Huffman code with too many symbols");
    }
    /* RFC 1951 allows one incomplete code: a single symbol of length 1 (and no distance code at all) */
    if (left > 0 && !(used == 0 || (used == 1 && code->count[1] == 1)))
        return fail(z, "has an incomplete Huffman code");
    offsets[1] = 0;
    for (int length = 1; length < 15; length++)
        offsets[length + 1] = (uint16_t) (offsets[length] + code->count[length]);
    for (int i = 0; i < n; i++)
        if (lengths[i] != 0)
            code->symbol[offsets[lengths[i]]++] = (uint16_t) i;
    for (int length = 1, at = 0; length <= INFLATE_FAST; length++)
    {
        next <<= 1;
        for (int i = 0; i < code->count[length]; i++, at++, next++)
            for (uint32_t slot = reversed(next, length); slot < 1 << INFLATE_FAST; slot += 1u << length)
                code->fast[slot] = (uint16_t) (code->symbol[at] << 4 | length);
    }
    return true;
}

/* The next symbol; -1: no such code, or the end of the data. Needs 15 bits in the buffer, or all there are. */
static inline int
decode(inflate_stream *z, const inflate_code *code)
{
    uint16_t entry = code->fast[z->bits & ((1 << INFLATE_FAST) - 1)];
    int      value = 0, first = 0, index = 0;

    if (entry != 0 && (entry & 15) <= z->n_bits)
    {
        drop(z, entry & 15);
        return entry >> 4;
    }
    for (int length = 1; length < 16 && length <= z->n_bits; length++)
    {
        value |= (int) (z->bits >> (length - 1)) & 1;
        if (value - first < code->count[length])
        {
            drop(z, length);
            return code->symbol[index + value - first];
        }
        index += code->count[length];
        first = (first + code->count[length]) << 1;
        value <<= 1;
    }
    fail(z, z->n_bits < 15 ? "ends inside its compressed data" : "has an invalid Huffman code");
    return -1;
}

/* ---- blocks ---- */

static bool
fixed_codes(inflate_stream *z)
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

static bool
dynamic_codes(inflate_stream *z)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[288 + 32] = {0};
    int     n_literals = take(z, 5) + 257, n_distances = take(z, 5) + 1, n_lengths = take(z, 4) + 4;

    if (z->error != NULL)
        return false;
    if (n_literals > 286 || n_distances > 30)
        return fail(z, "has a block with too many codes");
    for (int i = 0; i < n_lengths; i++)
    {
        int bits = take(z, 3);

        if (bits < 0)
            return false;
        lengths[order[i]] = (uint8_t) bits;
    }
    if (!build(z, &z->literals, lengths, 19))
        return false;
    memset(lengths, 0, 19);
    for (int i = 0; i < n_literals + n_distances;)
    {
        int     symbol, repeat = 1;
        uint8_t value;

        refill(z);
        symbol = decode(z, &z->literals);
        if (symbol < 0)
            return false;
        value = (uint8_t) symbol;
        if (symbol >= 16)
        {
            if (symbol == 16 && i == 0)
                return fail(z, "repeats a code length before the first");
            value = symbol == 16 ? lengths[i - 1] : 0;
            repeat = symbol == 16 ? 3 + take(z, 2) : symbol == 17 ? 3 + take(z, 3) : 11 + take(z, 7);
            if (z->error != NULL)
                return false;
        }
        if (i + repeat > n_literals + n_distances)
            return fail(z, "has more code lengths than codes");
        memset(lengths + i, value, (size_t) repeat);
        i += repeat;
    }
    if (lengths[256] == 0)
        return fail(z, "has a block without an end");
    return build(z, &z->distances, lengths + n_literals, n_distances) &&
        build(z, &z->literals, lengths, n_literals);
}

static bool
block_header(inflate_stream *z)
{
    int last = take(z, 1), type = take(z, 2);

    if (z->error != NULL)
        return false;
    z->last_block = last == 1;
    if (type == 0)
    {
        int length, complement;

        drop(z, z->n_bits % 8);
        length = take(z, 16);
        complement = take(z, 16);
        if (z->error != NULL)
            return false;
        if (length != (~complement & 0xffff))
            return fail(z, "has a stored block of contradictory length");
        z->stored = (uint32_t) length;
        z->phase = INFLATE_STORED;
        return true;
    }
    z->phase = INFLATE_CODES;
    return type == 1 ? fixed_codes(z) : type == 2 ? dynamic_codes(z) : fail(z, "has a block of unknown type");
}

static void
remember(inflate_stream *z, const uint8_t *bytes, size_t n)
{
    while (n > 0)
    {
        size_t room = INFLATE_WINDOW - z->window_position, k = n < room ? n : room;

        memcpy(z->window + z->window_position, bytes, k);
        z->window_position = (uint32_t) ((z->window_position + k) & (INFLATE_WINDOW - 1));
        bytes += k;
        n -= k;
    }
}

/* Bytes of a stored block; SIZE_MAX on error. */
static size_t
copy_stored(inflate_stream *z, uint8_t *out, size_t n)
{
    size_t done = 0;

    if (n > z->stored)
        n = z->stored;
    for (; done < n && z->n_bits >= 8; done++)
    {
        out[done] = (uint8_t) z->bits;
        drop(z, 8);
    }
    while (done < n)
    {
        size_t k;

        if (z->position == z->available && !fetch(z))
        {
            fail(z, "ends inside its compressed data");
            return SIZE_MAX;
        }
        k = z->available - z->position < n - done ? z->available - z->position : n - done;
        memcpy(out + done, z->input + z->position, k);
        z->position += k;
        done += k;
    }
    remember(z, out, n);
    z->stored -= (uint32_t) n;
    return n;
}

/* Bytes of a match whose call has made `done` bytes at out - done; what is further back is in the window. */
static size_t
copy_match(inflate_stream *z, uint8_t *out, size_t done, size_t n)
{
    size_t  distance = z->match_distance, i = 0;

    if (n > z->match_length)
        n = z->match_length;
    for (; i < n && done + i < distance; i++)
        out[i] = z->window[(z->window_position + done + i - distance) & (INFLATE_WINDOW - 1)];
    if (distance >= n - i)
    {
        if (i < n)
            memcpy(out + i, out + i - distance, n - i);
    }
    else
        for (; i < n; i++)
            out[i] = *(out + i - distance);
    z->match_length -= (uint32_t) n;
    return n;
}

/* Length and distance of a match; false on error. */
static bool
begin_match(inflate_stream *z, int symbol, uint64_t produced)
{
    static const uint16_t base[29] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67,
                                      83, 99, 115, 131, 163, 195, 227, 258};
    static const uint8_t extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4,
                                      5, 5, 5, 5, 0};
    static const uint16_t far_base[30] = {1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513,
                                          769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
    static const uint8_t far_extra[30] = {0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10,
                                          11, 11, 12, 12, 13, 13};
    int     more, far, far_more;

    if (symbol >= 286)
        return fail(z, "has an unknown length");
    more = take(z, extra[symbol - 257]);
    refill(z);
    far = more < 0 ? -1 : decode(z, &z->distances);
    if (far < 0)
        return false;
    if (far >= 30)
        return fail(z, "has an unknown distance");
    far_more = take(z, far_extra[far]);
    if (far_more < 0)
        return false;
    z->match_length = (uint32_t) (base[symbol - 257] + more);
    z->match_distance = (uint32_t) (far_base[far] + far_more);
    if (z->match_distance > produced)
        return fail(z, "refers to data before its beginning");
    return true;
}

/* Decodes into out until n bytes or the block's end; the window is brought up to date by the caller. */
static size_t
decode_codes(inflate_stream *z, uint8_t *out, size_t n)
{
    size_t done = 0;

    while (done < n)
    {
        int symbol;

        if (z->match_length > 0)
        {
            done += copy_match(z, out + done, done, n - done);
            continue;
        }
        refill(z);
        symbol = decode(z, &z->literals);
        /* one filling of the buffer holds three literals */
        for (int i = 0; i < 2 && symbol >= 0 && symbol < 256 && done + 1 < n && z->n_bits >= 15; i++)
        {
            out[done++] = (uint8_t) symbol;
            symbol = decode(z, &z->literals);
        }
        if (symbol < 0)
            return SIZE_MAX;
        if (symbol < 256)
            out[done++] = (uint8_t) symbol;
        else if (symbol == 256)
        {
            z->phase = z->last_block ? INFLATE_END : INFLATE_HEADER;
            return done;
        }
        else if (!begin_match(z, symbol, z->produced + done))
            return SIZE_MAX;
    }
    return done;
}

static size_t
copy_codes(inflate_stream *z, uint8_t *out, size_t n)
{
    size_t done = decode_codes(z, out, n);

    if (done != SIZE_MAX)
        remember(z, done > INFLATE_WINDOW ? out + done - INFLATE_WINDOW : out,
                 done > INFLATE_WINDOW ? INFLATE_WINDOW : done);
    return done;
}

size_t
inflate_read(inflate_stream *z, uint8_t *out, size_t n)
{
    size_t done = 0;

    while (done < n && z->phase != INFLATE_END && z->error == NULL)
    {
        size_t k = 0;

        if (z->phase == INFLATE_HEADER)
        {
            if (!block_header(z))
                return SIZE_MAX;
        }
        else
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
