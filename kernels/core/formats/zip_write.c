/*
 * zip_write.c -- writing .npz files: stored members with zip64 fields throughout.
 *
 * A member's checksum follows its data (a data descriptor) and stands in the directory.
 */
#include <string.h>

#include "weights_write.h"

/* Local header (30 bytes) and directory entry (46) share their middle: 26 bytes from "version needed" on. */
static void zip_common(llm_weights_writer *w, uint8_t *p, size_t i)
{
    memset(p, 0, 26);
    put16(p, 45);
    put16(p + 2, 0x0808); /* checksum after the data; names are UTF-8 */
    put16(p + 8, 0x21);   /* 1 January 1980 */
    put32(p + 10, w->crcs[i]);
    put32(p + 14, 0xffffffff); /* sizes stand in the zip64 field */
    put32(p + 18, 0xffffffff);
    put16(p + 22, (uint32_t)strlen(w->entries[i].name) + 4);
}

bool zip_write_begin(llm_weights_writer *w)
{
    const llm_weights_entry *e = &w->entries[w->current];
    uint8_t header[30], extra[20];
    uint64_t size;

    if (!writer_npy_header(w, e))
        return false;
    size = w->text_length + writer_data_bytes(e);
    w->offsets[w->current] = w->position;
    w->crcs[w->current] = 0;
    put32(header, 0x04034b50);
    zip_common(w, header + 4, w->current);
    put16(header + 28, 20);
    put16(extra, 1);
    put16(extra + 2, 16);
    put64(extra + 4, size);
    put64(extra + 12, size);
    w->crc = llm_crc32(0, (uint8_t *)w->text, w->text_length);
    return writer_emit(w, header, 30) && writer_emit(w, e->name, strlen(e->name)) && writer_emit(w, ".npy", 4) &&
           writer_emit(w, extra, 20) && writer_emit(w, w->text, w->text_length);
}

bool zip_write_end(llm_weights_writer *w)
{
    const llm_weights_entry *e = &w->entries[w->current];
    uint8_t descriptor[24];
    uint64_t size = w->position - w->offsets[w->current] - 30 - strlen(e->name) - 4 - 20;

    w->crcs[w->current] = w->crc;
    put32(descriptor, 0x08074b50);
    put32(descriptor + 4, w->crc);
    put64(descriptor + 8, size);
    put64(descriptor + 16, size);
    return writer_emit(w, descriptor, 24);
}

bool zip_write_directory(llm_weights_writer *w)
{
    uint64_t start = w->position, end;
    uint8_t end64[56] = { 0 }, locator[20] = { 0 }, last[22] = { 0 };

    for (size_t i = 0; i < w->n; i++) {
        const llm_weights_entry *e = &w->entries[i];
        uint8_t entry[46] = { 0 }, extra[28];
        uint64_t size;

        if (!writer_npy_header(w, e))
            return false;
        size = w->text_length + writer_data_bytes(e);
        put32(entry, 0x02014b50);
        put16(entry + 4, 45);
        zip_common(w, entry + 6, i);
        put16(entry + 30, 28);
        put32(entry + 42, 0xffffffff);
        put16(extra, 1);
        put16(extra + 2, 24);
        put64(extra + 4, size);
        put64(extra + 12, size);
        put64(extra + 20, w->offsets[i]);
        if (!writer_emit(w, entry, 46) || !writer_emit(w, e->name, strlen(e->name)) || !writer_emit(w, ".npy", 4) ||
            !writer_emit(w, extra, 28))
            return false;
    }
    end = w->position;
    put32(end64, 0x06064b50);
    put64(end64 + 4, 44);
    put16(end64 + 12, 45);
    put16(end64 + 14, 45);
    put64(end64 + 24, w->n);
    put64(end64 + 32, w->n);
    put64(end64 + 40, end - start);
    put64(end64 + 48, start);
    put32(locator, 0x07064b50);
    put64(locator + 8, end);
    put32(locator + 16, 1);
    put32(last, 0x06054b50);
    put16(last + 8, 0xffff);
    put16(last + 10, 0xffff);
    put32(last + 12, 0xffffffff);
    put32(last + 16, 0xffffffff);
    return writer_emit(w, end64, 56) && writer_emit(w, locator, 20) && writer_emit(w, last, 22);
}
