/*
 * gzip.c -- a gzip file (RFC 1952) of records: name length (uint16), name (UTF-8), a whole .npy file.
 *
 * The file has no table of contents: opening it inflates all of it once, checking checksums on the way.
 */
#include <stdlib.h>
#include <string.h>

#include "weights_file.h"

/* Skips a zero-terminated field of a header. */
static bool skip_string(llm_weights *w, uint64_t *offset)
{
    uint8_t byte = 1;

    for (int n = 0; byte != 0; n++) {
        if (n > 65536)
            return weights_fail(w, LLM_WEIGHTS_INVALID, "the gzip header is too long");
        if (!weights_source_read(w, (*offset)++, &byte, 1))
            return false;
    }
    return true;
}

/* A member's header at `offset`; its compressed data begin the stream. */
static bool begin_member(llm_weights *w, uint64_t offset)
{
    uint8_t header[10], length[2];

    if (!weights_source_read(w, offset, header, 10))
        return false;
    offset += 10;
    if (header[0] != 0x1f || header[1] != 0x8b)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "there is data after the end of the gzip stream");
    if (header[2] != 8 || (header[3] & 0xe0) != 0)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "the gzip header is not understood");
    if (header[3] & 4) {
        if (!weights_source_read(w, offset, length, 2))
            return false;
        offset += 2 + le16(length);
    }
    if (((header[3] & 8) && !skip_string(w, &offset)) || ((header[3] & 16) && !skip_string(w, &offset)))
        return false;
    if (header[3] & 2)
        offset += 2;
    if (offset > w->source.size)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "the file ends too early");
    inflate_begin(&w->stream.z, &w->source, offset, w->source.size);
    w->stream.crc = 0;
    w->stream.member_start = w->stream.position;
    return true;
}

/* A member's checksum and length; begins the next member, or notes the end of the file. */
static bool end_member(llm_weights *w)
{
    byte_stream *s = &w->stream;
    uint64_t offset = inflate_end_offset(&s->z);
    uint8_t trailer[8];

    if (!weights_source_read(w, offset, trailer, 8))
        return false;
    if (le32(trailer) != s->crc || le32(trailer + 4) != (uint32_t)(s->position - s->member_start))
        return weights_fail(w, LLM_WEIGHTS_INVALID, "the gzip stream is damaged: its checksum does not match");
    offset += 8;
    s->at_end = offset == w->source.size;
    return s->at_end || begin_member(w, offset);
}

void gzip_stream_begin(llm_weights *w)
{
    memset(&w->stream, 0, offsetof(byte_stream, z));
    w->stream.open = begin_member(w, 0);
}

/* Up to n bytes; fewer only at the end of the file. False: an error. */
static bool read_some(llm_weights *w, uint8_t *out, size_t n, size_t *done)
{
    byte_stream *s = &w->stream;

    *done = 0;
    if (!s->open)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "the gzip stream cannot be read");
    while (*done < n && !s->at_end) {
        size_t want = n - *done < (1u << 20) ? n - *done : 1u << 20;
        size_t k = inflate_read(&s->z, out + *done, want);

        if (k == SIZE_MAX)
            return weights_fail(w, s->z.unreadable ? LLM_WEIGHTS_UNREADABLE : LLM_WEIGHTS_INVALID, "the gzip stream %s",
                                s->z.error);
        s->crc = llm_crc32(s->crc, out + *done, k);
        s->position += k;
        *done += k;
        if (k < want && !end_member(w))
            return false;
    }
    return true;
}

bool gzip_stream_read(llm_weights *w, void *out, size_t n)
{
    size_t done;

    if (!read_some(w, out, n, &done))
        return false;
    return done == n || weights_fail(w, LLM_WEIGHTS_INVALID, "the gzip stream ends inside a record");
}

static bool skip_data(llm_weights *w, uint64_t n)
{
    uint8_t scratch[16384];

    for (; n > 0;) {
        size_t k = n < sizeof(scratch) ? (size_t)n : sizeof(scratch);

        if (!gzip_stream_read(w, scratch, k))
            return false;
        n -= k;
    }
    return true;
}

static bool read_record(llm_weights *w, size_t name_length)
{
    weights_item item = { 0 };
    uint64_t length, count, bytes;
    char *name = malloc(name_length + 1);

    if (name == NULL)
        return weights_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
    if (!gzip_stream_read(w, name, name_length)) {
        free(name);
        return false;
    }
    name[name_length] = '\0';
    if (strlen(name) != name_length || !weights_valid_utf8((uint8_t *)name, name_length)) {
        free(name);
        return weights_fail(w, LLM_WEIGHTS_INVALID, "record %zu has a name that is not UTF-8", w->n_items + 1);
    }
    if (!npy_header(w, gzip_stream_read, name, &item, &length)) {
        free(name);
        return false;
    }
    item.entry.name = name;
    item.skip = w->stream.position;
    if (!weights_add(w, item))
        return false;
    weights_size(&w->items[w->n_items - 1].entry, &count, &bytes);
    return skip_data(w, bytes);
}

bool gzip_open(llm_weights *w)
{
    gzip_stream_begin(w);
    while (w->status == LLM_WEIGHTS_OK) {
        uint8_t length[2];
        size_t got;

        if (!read_some(w, length, 2, &got))
            return false;
        if (got == 0)
            break;
        if (got < 2 || le16(length) == 0 || le16(length) > LLM_WEIGHTS_MAX_NAME)
            return weights_fail(w, LLM_WEIGHTS_INVALID, "record %zu has an invalid name", w->n_items + 1);
        if (!read_record(w, le16(length)))
            return false;
    }
    w->stream.open = false;
    return w->status == LLM_WEIGHTS_OK;
}
