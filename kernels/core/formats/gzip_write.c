/*
 * gzip_write.c -- writing a gzip file of records (see gzip.c) in stored blocks.
 */
#include <string.h>

#include "weights_write.h"

static bool gzip_block(llm_weights_writer *w, bool last)
{
    uint8_t header[5];

    header[0] = last;
    put16(header + 1, (uint32_t)w->in_block);
    put16(header + 3, ~(uint32_t)w->in_block);
    return writer_emit(w, header, 5) && writer_emit(w, w->block, w->in_block);
}

bool gzip_write(llm_weights_writer *w, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;

    w->crc = llm_crc32(w->crc, p, n);
    w->plain += n;
    while (n > 0) {
        size_t room = STORED_BLOCK - w->in_block, k = n < room ? n : room;

        memcpy(w->block + w->in_block, p, k);
        w->in_block += k;
        p += k;
        n -= k;
        if (w->in_block == STORED_BLOCK) {
            if (!gzip_block(w, false))
                return false;
            w->in_block = 0;
        }
    }
    return true;
}

bool gzip_write_begin(llm_weights_writer *w)
{
    const llm_weights_entry *e = &w->entries[w->current];
    uint8_t length[2];

    put16(length, (uint32_t)strlen(e->name));
    return writer_npy_header(w, e) && gzip_write(w, length, 2) && gzip_write(w, e->name, strlen(e->name)) &&
           gzip_write(w, w->text, w->text_length);
}

bool gzip_write_end(llm_weights_writer *w)
{
    uint8_t trailer[8];

    put32(trailer, w->crc);
    put32(trailer + 4, (uint32_t)w->plain);
    return gzip_block(w, true) && writer_emit(w, trailer, 8);
}
