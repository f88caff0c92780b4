/*
 * inflate.h -- decompression of deflate streams (RFC 1951) in pieces, and CRC-32.
 */
#ifndef LLM_INFLATE_H
#define LLM_INFLATE_H

#include "weights.h"

#define INFLATE_WINDOW 32768
#define INFLATE_INPUT  65536

/* A code of up to 15 bits: a table for the first FAST bits, counts per length beyond. */
#define INFLATE_FAST 10
typedef struct inflate_code {
    uint16_t fast[1 << INFLATE_FAST]; /* symbol << 4 | length; 0: longer, or no code */
    uint16_t count[16];               /* codes of each length */
    uint16_t symbol[288];             /* symbols in canonical order */
} inflate_code;

typedef enum inflate_phase { INFLATE_HEADER, INFLATE_STORED, INFLATE_CODES, INFLATE_END } inflate_phase;

typedef struct inflate_stream {
    const llm_source *source;
    uint64_t offset, end; /* compressed bytes still to fetch: [offset, end) of the source */
    uint8_t input[INFLATE_INPUT];
    size_t position, available; /* in input */
    uint64_t bits;
    int n_bits;
    inflate_phase phase;
    bool last_block;
    uint32_t stored;                       /* bytes left of a stored block */
    uint32_t match_length, match_distance; /* a match that did not fit the last call's output */
    inflate_code literals, distances;
    uint8_t window[INFLATE_WINDOW];
    uint32_t window_position;
    uint64_t produced;
    const char *error;
    bool unreadable;
} inflate_stream;

/* Begins at `offset`; compressed data may not reach beyond `end`. */
void inflate_begin(inflate_stream *z, const llm_source *source, uint64_t offset, uint64_t end);
/* Up to n bytes into out; fewer at the end of the stream only. SIZE_MAX: error, or unreadable. */
size_t inflate_read(inflate_stream *z, uint8_t *out, size_t n);
/* Where in the source the stream ended, rounded up to a byte; valid when it did. */
uint64_t inflate_end_offset(const inflate_stream *z);

uint32_t llm_crc32(uint32_t crc, const uint8_t *bytes, size_t n); /* begin with 0 */

#endif
