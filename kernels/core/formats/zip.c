/*
 * zip.c -- .npz files: zip archives (stored or deflated, zip64) whose members are .npy files.
 *
 * The central directory is the table of contents. It must end where the end record begins, members may not
 * overlap each other or the directory, and a member inflates to what the directory declares, checksum
 * included.
 */
#include <stdlib.h>
#include <string.h>

#include "weights_file.h"

#define END_SIZE      22
#define END64_SIZE    56
#define LOCATOR_SIZE  20
#define CENTRAL_SIZE  46
#define LOCAL_SIZE    30
#define MAX_DIRECTORY 100000000u

typedef struct member {
    char *name;
    uint64_t local, data, end; /* offsets: local header, data, end of data */
    uint64_t inflated;
    uint32_t crc;
    bool deflated;
} member;

typedef struct directory {
    uint64_t offset, size, n;
    uint8_t *bytes;
    member *members;
    size_t n_members, capacity;
} directory;

/* ---- the end record ---- */

static bool find_directory(llm_weights *w, directory *d)
{
    uint8_t end[END_SIZE], locator[LOCATOR_SIZE], end64[END64_SIZE];
    uint64_t limit = w->source.size - END_SIZE;

    if (w->source.size < END_SIZE || !weights_source_read(w, limit, end, END_SIZE) || le32(end) != 0x06054b50 ||
        le16(end + 20) != 0)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "the zip archive has no valid end record");
    d->n = le16(end + 10);
    d->size = le32(end + 12);
    d->offset = le32(end + 16);
    if (limit >= LOCATOR_SIZE + END64_SIZE && (d->n == 0xffff || d->size == 0xffffffff || d->offset == 0xffffffff)) {
        uint64_t at;

        if (!weights_source_read(w, limit - LOCATOR_SIZE, locator, LOCATOR_SIZE))
            return false;
        at = le64(locator + 8);
        if (le32(locator) != 0x07064b50 || at != limit - LOCATOR_SIZE - END64_SIZE ||
            !weights_source_read(w, at, end64, END64_SIZE) || le32(end64) != 0x06064b50)
            return weights_fail(w, LLM_WEIGHTS_INVALID, "the zip archive has no valid zip64 end record");
        d->n = le64(end64 + 32);
        d->size = le64(end64 + 40);
        d->offset = le64(end64 + 48);
        limit = at;
    }
    if (d->size > MAX_DIRECTORY || d->offset > limit || d->size != limit - d->offset || d->n > d->size / CENTRAL_SIZE)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "the zip archive's directory is not where it should be");
    return true;
}

/* ---- the directory ---- */

/* Replaces what the 32-bit fields could not hold by the zip64 extra field. */
static bool zip64_fields(const uint8_t *extra, size_t n, uint64_t *inflated, uint64_t *compressed, uint64_t *offset)
{
    uint64_t *wanted[3] = { inflated, compressed, offset };

    if (*inflated != 0xffffffff && *compressed != 0xffffffff && *offset != 0xffffffff)
        return true;
    while (n >= 4) {
        size_t length = le16(extra + 2);

        if (length > n - 4)
            return false;
        if (le16(extra) == 1) {
            const uint8_t *field = extra + 4;

            for (int i = 0; i < 3; i++)
                if (*wanted[i] == 0xffffffff) {
                    if ((size_t)(extra + 4 + length - field) < 8)
                        return false;
                    *wanted[i] = le64(field);
                    field += 8;
                }
            return true;
        }
        extra += 4 + length;
        n -= 4 + length;
    }
    return false;
}

/* The member's local header: its data begin behind it. */
static bool local_header(llm_weights *w, const directory *d, member *m, uint64_t compressed, int method)
{
    uint8_t local[LOCAL_SIZE];

    if (m->local > d->offset || d->offset - m->local < LOCAL_SIZE)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" is outside the zip archive", m->name);
    if (!weights_source_read(w, m->local, local, LOCAL_SIZE))
        return false;
    if (le32(local) != 0x04034b50 || le16(local + 8) != method)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" has an invalid header in the zip archive", m->name);
    m->data = m->local + LOCAL_SIZE + le16(local + 26) + le16(local + 28);
    if (m->data > d->offset || compressed > d->offset - m->data)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" reaches beyond the zip archive's data", m->name);
    m->end = m->data + compressed;
    return true;
}

/* One entry of the directory; returns its length, 0 after an error. */
static size_t read_entry(llm_weights *w, directory *d, const uint8_t *p, size_t left)
{
    member m = { 0 };
    uint64_t compressed;
    size_t n_name, n_extra, length;
    int method;
    member *members;

    if (left < CENTRAL_SIZE || le32(p) != 0x02014b50)
        return (size_t)weights_fail(w, LLM_WEIGHTS_INVALID, "the zip archive's directory is damaged");
    n_name = le16(p + 28);
    n_extra = le16(p + 30);
    length = CENTRAL_SIZE + n_name + n_extra + le16(p + 32);
    method = le16(p + 10);
    m.crc = le32(p + 16);
    compressed = le32(p + 20);
    m.inflated = le32(p + 24);
    m.local = le32(p + 42);
    m.deflated = method == 8;
    if (length > left || !zip64_fields(p + CENTRAL_SIZE + n_name, n_extra, &m.inflated, &compressed, &m.local))
        return (size_t)weights_fail(w, LLM_WEIGHTS_INVALID, "the zip archive's directory is damaged");
    if (n_name >= 8 && memcmp(p + CENTRAL_SIZE + n_name - 8, "data.pkl", 8) == 0)
        return (size_t)weights_fail(w, LLM_WEIGHTS_INVALID, WEIGHTS_PICKLE);
    if (n_name < 5 || n_name > LLM_WEIGHTS_MAX_NAME || memcmp(p + CENTRAL_SIZE + n_name - 4, ".npy", 4) != 0 ||
        memchr(p + CENTRAL_SIZE, '\0', n_name) != NULL || !weights_valid_utf8(p + CENTRAL_SIZE, n_name))
        return (size_t)weights_fail(w, LLM_WEIGHTS_INVALID, "the zip archive contains files other than .npy files");
    members = weights_grow(w, d->members, d->n_members, &d->capacity, sizeof(member));
    if (members == NULL)
        return 0;
    d->members = members;
    m.name = malloc(n_name - 3);
    if (m.name == NULL)
        return (size_t)weights_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
    memcpy(m.name, p + CENTRAL_SIZE, n_name - 4);
    m.name[n_name - 4] = '\0';
    d->members[d->n_members++] = m;
    if ((le16(p + 8) & 0x2041) != 0 || (method != 0 && method != 8))
        return (size_t)weights_fail(w, LLM_WEIGHTS_INVALID,
                                    "\"%.100s\" is encrypted or compressed by method %d, "
                                    "which is unknown",
                                    m.name, method);
    if ((method == 0 && compressed != m.inflated) || (method == 8 && m.inflated / DEFLATE_MAX_RATIO > compressed))
        return (size_t)weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" cannot have %llu bytes in %llu", m.name,
                                    (unsigned long long)m.inflated, (unsigned long long)compressed);
    return local_header(w, d, &d->members[d->n_members - 1], compressed, method) ? length : 0;
}

static int compare_offsets(const void *a, const void *b)
{
    const member *x = a, *y = b;

    return x->local < y->local ? -1 : x->local > y->local;
}

static bool read_directory(llm_weights *w, directory *d)
{
    size_t at = 0;

    d->bytes = malloc((size_t)d->size + 1);
    if (d->bytes == NULL)
        return weights_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
    if (!weights_source_read(w, d->offset, d->bytes, d->size))
        return false;
    for (uint64_t i = 0; i < d->n; i++) {
        size_t length = read_entry(w, d, d->bytes + at, (size_t)d->size - at);

        if (length == 0)
            return false;
        at += length;
    }
    if (at != d->size)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "the zip archive's directory has more entries than it says");
    if (d->n_members > 1)
        qsort(d->members, d->n_members, sizeof(member), compare_offsets);
    for (size_t i = 1; i < d->n_members; i++)
        if (d->members[i].local < d->members[i - 1].end)
            return weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" and \"%.100s\" overlap in the zip archive",
                                d->members[i - 1].name, d->members[i].name);
    return true;
}

/* ---- members ---- */

void zip_stream_begin(llm_weights *w, const weights_item *source, size_t item)
{
    byte_stream *s = &w->stream;

    memset(s, 0, offsetof(byte_stream, z));
    s->open = true;
    s->item = item;
    s->member = *source;
    if (source->deflated)
        inflate_begin(&s->z, &w->source, source->offset, source->end);
}

/* Ensure that a member that was read to its end is what its checksum says. */
static bool finish_member(llm_weights *w)
{
    byte_stream *s = &w->stream;
    uint8_t more;

    if (s->member.deflated && (inflate_read(&s->z, &more, 1) != 0 || inflate_end_offset(&s->z) != s->member.end))
        return weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" inflates to more than %llu bytes", s->member.entry.name,
                            (unsigned long long)s->member.inflated);
    if (s->crc != s->member.crc)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" is damaged: its checksum does not match",
                            s->member.entry.name);
    return true;
}

bool zip_stream_read(llm_weights *w, void *out, size_t n)
{
    byte_stream *s = &w->stream;
    const char *name = s->member.entry.name;

    if (n > s->member.inflated - s->position)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" ends too early", name);
    if (s->member.deflated) {
        size_t k = inflate_read(&s->z, out, n);

        if (k == SIZE_MAX)
            return weights_fail(w, s->z.unreadable ? LLM_WEIGHTS_UNREADABLE : LLM_WEIGHTS_INVALID, "\"%.100s\" %s",
                                name, s->z.error);
        if (k < n)
            return weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" inflates to less than %llu bytes", name,
                                (unsigned long long)s->member.inflated);
    } else if (!weights_source_read(w, s->member.offset + s->position, out, n))
        return false;
    s->crc = llm_crc32(s->crc, out, n);
    s->position += n;
    return s->position < s->member.inflated || finish_member(w);
}

/* Takes over the member's name. */
static bool add_member(llm_weights *w, member *m)
{
    weights_item item = { 0 };
    uint64_t count, bytes;

    item.entry.name = m->name;
    item.deflated = m->deflated;
    item.offset = m->data;
    item.end = m->end;
    item.inflated = m->inflated;
    item.crc = m->crc;
    zip_stream_begin(w, &item, SIZE_MAX);
    if (!npy_header(w, zip_stream_read, m->name, &item, &item.skip))
        return false;
    if (!weights_size(&item.entry, &count, &bytes) || item.skip + bytes != item.inflated)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" has a shape that does not fit its %llu bytes", m->name,
                            (unsigned long long)m->inflated);
    m->name = NULL;
    return weights_add(w, item);
}

bool zip_open(llm_weights *w)
{
    directory d = { 0 };
    bool ok = find_directory(w, &d) && read_directory(w, &d);

    for (size_t i = 0; ok && i < d.n_members; i++)
        ok = add_member(w, &d.members[i]);
    for (size_t i = 0; i < d.n_members; i++)
        free(d.members[i].name);
    free(d.members);
    free(d.bytes);
    w->stream.open = false;
    return ok;
}
