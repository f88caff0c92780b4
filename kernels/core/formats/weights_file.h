/*
 * weights_file.h -- what the parsers of weight files share: the table of contents they fill, and byte
 * streams.
 */
#ifndef LLM_WEIGHTS_FILE_H
#define LLM_WEIGHTS_FILE_H

#include "inflate.h"

#define NPY_MAX_HEADER         65536
#define SAFETENSORS_MAX_HEADER 100000000u
/* Items and names in memory: compressed, a million tensors without elements take 200 kB. */
#define WEIGHTS_MAX_TABLE 100000000u
#define WEIGHTS_PICKLE                                                                                                 \
    "a pickle of PyTorch (torch.save), which can run code and is refused: load it in Python and write its "            \
    "tensors with safetensors.torch.save_file or numpy.savez"
/* Deflate makes at most 258 bytes of two bits. */
#define DEFLATE_MAX_RATIO 1032u

typedef struct weights_item {
    llm_weights_entry entry;
    bool fortran;      /* .npy data in column-major order */
    bool deflated;     /* a zip member's compression */
    uint64_t offset;   /* safetensors: of the data in the file; zip: of the (compressed) bytes */
    uint64_t end;      /* zip: where the (compressed) bytes end */
    uint64_t skip;     /* inflated bytes before the data: of the member, of the gzip stream */
    uint64_t inflated; /* zip: bytes of the member */
    uint32_t crc;      /* zip: of the inflated member */
} weights_item;

typedef struct weights_name {
    const char *name;
    size_t index;
} weights_name;

/* Inflated bytes of a zip member or of a gzip file, from front to back. */
typedef struct byte_stream {
    bool open;
    size_t item;           /* zip: whose member */
    weights_item member;   /* zip: where it is */
    uint64_t position;     /* inflated bytes handed out */
    uint32_t crc;          /* of the member so far */
    uint64_t member_start; /* gzip: position at which the running member began */
    bool at_end;
    inflate_stream z;
} byte_stream;

struct llm_weights {
    llm_source source;
    llm_weights_format format;
    uint64_t max_bytes; /* still to be declared */
    weights_item *items;
    size_t n_items, capacity;
    size_t table_bytes;    /* of items and their names */
    weights_name *by_name; /* sorted */
    llm_weights_pair *metadata;
    size_t n_metadata, metadata_capacity;
    byte_stream stream;
    float *whole; /* a Fortran-ordered tensor in row-major order */
    size_t whole_item;
    llm_weights_status status;
    char error[LLM_WEIGHTS_ERROR];
};

/* Sets status and error once; always false. */
extern bool weights_fail(llm_weights *w, llm_weights_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
extern bool weights_source_read(llm_weights *w, uint64_t offset, void *out, uint64_t n);
/* An array with room for one element more; NULL: no memory. */
extern void *weights_grow(llm_weights *w, void *array, size_t n, size_t *capacity, size_t size);
/* Takes over item.entry.name, whatever happens. Checks the name, the dims and what they amount to. */
extern bool weights_add(llm_weights *w, weights_item item);
/* Product of dims and size of their data in bytes; false when that is beyond reason. */
extern bool weights_size(const llm_weights_entry *e, uint64_t *count, uint64_t *bytes);
extern bool weights_valid_utf8(const uint8_t *s, size_t n);
/* out (n) as float32 from n little-endian elements of a floating-point type */
extern void weights_convert(float *out, const uint8_t *in, llm_dtype dtype, size_t n);

/* Parsers: fill w from the source, false after weights_fail. */
extern bool safetensors_open(llm_weights *w);
extern bool zip_open(llm_weights *w);
extern bool gzip_open(llm_weights *w);

/* Reads a .npy header through `read`; sets dtype, dims, fortran, and the header's length in bytes. */
typedef bool (*npy_reader)(llm_weights *w, void *out, size_t n);
extern bool npy_header(llm_weights *w, npy_reader read, const char *name, weights_item *item, uint64_t *length);

/* Begins at a member's first byte, or the gzip file's. */
extern void zip_stream_begin(llm_weights *w, const weights_item *member, size_t item);
extern bool zip_stream_read(llm_weights *w, void *out, size_t n);
extern void gzip_stream_begin(llm_weights *w);
extern bool gzip_stream_read(llm_weights *w, void *out, size_t n);

static inline uint16_t le16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t le32(const uint8_t *p) { return le16(p) | (uint32_t)le16(p + 2) << 16; }
static inline uint64_t le64(const uint8_t *p) { return le32(p) | (uint64_t)le32(p + 4) << 32; }
static inline void put16(uint8_t *p, uint32_t x)
{
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}
static inline void put32(uint8_t *p, uint32_t x)
{
    put16(p, x);
    put16(p + 2, x >> 16);
}
static inline void put64(uint8_t *p, uint64_t x)
{
    put32(p, (uint32_t)x);
    put32(p + 4, (uint32_t)(x >> 32));
}

#endif
