/*
 * weights.h -- files of named tensors: .safetensors, .npz, and the gzip stream of (name, .npy) records.
 *
 * No file is opened here: callers give bytes through llm_source and take them through llm_sink. Files are
 * hostile until proven otherwise: every size, offset, name and checksum is checked, nothing is allocated on a
 * file's word beyond a fixed limit, and compressed data inflates to what its own header declares and no
 * further. The formats are described in docs/reference/formats.md.
 */
#ifndef LLM_WEIGHTS_H
#define LLM_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LLM_WEIGHTS_MAX_NDIM 8
#define LLM_WEIGHTS_MAX_NAME 4096
#define LLM_WEIGHTS_ERROR    256

typedef enum llm_weights_format { LLM_SAFETENSORS, LLM_NPZ, LLM_NPY_GZIP } llm_weights_format;

/* Types of elements. Those before LLM_DTYPE_U8 can be read as float32. */
typedef enum llm_dtype {
    LLM_DTYPE_F32,
    LLM_DTYPE_F16,
    LLM_DTYPE_BF16,
    LLM_DTYPE_F64,
    LLM_DTYPE_U8,
    LLM_DTYPE_BOOL,
    LLM_DTYPE_I8,
    LLM_DTYPE_I16,
    LLM_DTYPE_U16,
    LLM_DTYPE_I32,
    LLM_DTYPE_U32,
    LLM_DTYPE_I64,
    LLM_DTYPE_U64,
    LLM_DTYPE_F8,
    LLM_DTYPE_COUNT
} llm_dtype;

typedef enum llm_weights_status {
    LLM_WEIGHTS_OK,
    LLM_WEIGHTS_INVALID,    /* the file is not what it should be */
    LLM_WEIGHTS_UNREADABLE, /* llm_source.read or llm_sink.write said no */
    LLM_WEIGHTS_NO_MEMORY
} llm_weights_status;

/* Where bytes come from: read() fills `out` with the n bytes at `offset`, or returns false. */
typedef struct llm_source {
    void *arg;
    uint64_t size;
    bool (*read)(void *arg, uint64_t offset, void *out, size_t n);
} llm_source;

/* Where bytes go, in order. */
typedef struct llm_sink {
    void *arg;
    bool (*write)(void *arg, const void *bytes, size_t n);
} llm_sink;

typedef struct llm_weights_entry {
    const char *name; /* UTF-8, no NUL */
    llm_dtype dtype;
    int ndim;
    uint64_t dims[LLM_WEIGHTS_MAX_NDIM];
    uint64_t count; /* elements: the product of dims */
} llm_weights_entry;

typedef struct llm_weights llm_weights;

/*
 * Reads a file's table of contents; the format is told by the content. At most `max_bytes` of tensor data may
 * be declared in all. NULL: *status and error[] say why.
 */
llm_weights *llm_weights_open(const llm_source *source, uint64_t max_bytes, llm_weights_status *status,
                              char error[LLM_WEIGHTS_ERROR]);
void llm_weights_close(llm_weights *w); /* NULL is fine */
llm_weights_format llm_weights_format_of(const llm_weights *w);
size_t llm_weights_count(const llm_weights *w);
/* The i-th tensor, in the order of the file's data. */
const llm_weights_entry *llm_weights_get(const llm_weights *w, size_t i);
/* Its index, or SIZE_MAX. */
size_t llm_weights_find(const llm_weights *w, const char *name);
/* safetensors' __metadata__: value of a key, NULL when there is none. */
const char *llm_weights_metadata(const llm_weights *w, const char *key);

/*
 * Elements [first, first + n) of the i-th tensor in row-major order as float32 (float64 is rounded).
 * Compressed tensors are fastest read from front to back. An error leaves `out` undefined;
 * llm_weights_error() tells it.
 */
llm_weights_status llm_weights_read(llm_weights *w, size_t i, uint64_t first, uint64_t n, float *out);
/* The same as it lies in the file, of a BF16 tensor. */
llm_weights_status llm_weights_read_bf16(llm_weights *w, size_t i, uint64_t first, uint64_t n, uint16_t *out);
/* The same without conversion; for one-byte types. */
llm_weights_status llm_weights_read_bytes(llm_weights *w, size_t i, uint64_t first, uint64_t n, void *out);
const char *llm_weights_error(const llm_weights *w);

const char *llm_dtype_name(llm_dtype dtype); /* as safetensors calls it: "F32" */
size_t llm_dtype_size(llm_dtype dtype);

/* ---- writing: uncompressed, float32 and uint8, in safetensors also bf16 ---- */

typedef struct llm_weights_writer llm_weights_writer;

typedef struct llm_weights_pair {
    const char *key, *value;
} llm_weights_pair;

/*
 * Begins a file with these tensors, whose data follow in this order. `metadata` is for safetensors only.
 * Names and dims are checked as a reader checks them. The entries must outlive the writer.
 */
llm_weights_writer *llm_weights_write_begin(const llm_sink *sink, llm_weights_format format,
                                            const llm_weights_entry *entries, size_t n_entries,
                                            const llm_weights_pair *metadata, size_t n_metadata,
                                            llm_weights_status *status, char error[LLM_WEIGHTS_ERROR]);
/* The tensor whose data are expected next; NULL: none. */
const llm_weights_entry *llm_weights_write_next(const llm_weights_writer *w);
/* The next bytes of the data, which may not reach over the end of a tensor. */
llm_weights_status llm_weights_write(llm_weights_writer *w, const void *bytes, size_t n);
/* Ends the file; INVALID when data are missing. */
llm_weights_status llm_weights_write_end(llm_weights_writer *w);
void llm_weights_write_free(llm_weights_writer *w);
const char *llm_weights_write_error(const llm_weights_writer *w);

/*
 * Row of Megatron-LM's fused query_key_value that holds row `row` of [q; k; v] with heads in order inside
 * each: checkpoint version 1.0 (`interleaved` false): heads x d_head x 3; from 2.0: heads x 3 x d_head.
 */
uint64_t llm_megatron_row(uint64_t row, uint64_t n_head, uint64_t d_head, bool version_2);

#endif
