/*
 * weights_write.h -- what the writers of weight files share: the file being written, and headers.
 */
#ifndef LLM_WEIGHTS_WRITE_H
#define LLM_WEIGHTS_WRITE_H

#include "weights_file.h"

#define STORED_BLOCK 65535u /* bytes, the most that deflate allows */

struct llm_weights_writer {
    llm_sink sink;
    llm_weights_format format;
    const llm_weights_entry *entries;
    size_t n, current; /* tensors; the one whose data are expected */
    uint64_t left;     /* bytes of it still to come */
    uint64_t position; /* bytes written */
    uint32_t crc;      /* zip: of the member; gzip: of everything */
    uint64_t plain;    /* gzip: bytes before compression */
    uint64_t *offsets; /* zip: of local headers */
    uint32_t *crcs;
    uint8_t *block; /* gzip: a stored block being filled */
    size_t in_block;
    char *text; /* a header being built */
    size_t text_length, text_capacity;
    llm_weights_status status;
    char error[LLM_WEIGHTS_ERROR];
};

/* Sets status and error once; always false. */
extern bool writer_fail(llm_weights_writer *w, llm_weights_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
extern bool writer_emit(llm_weights_writer *w, const void *bytes, size_t n);
/* Of a tensor whose shape was checked. */
extern uint64_t writer_data_bytes(const llm_weights_entry *e);

/* Writes the header of a .safetensors file. */
extern bool writer_safetensors_header(llm_weights_writer *w, const llm_weights_pair *metadata, size_t n_metadata);
/* Puts the header of a .npy file into w->text, padded so that data begin at a multiple of 64. */
extern bool writer_npy_header(llm_weights_writer *w, const llm_weights_entry *e);

/* The member of w->current, up to its data; what follows them; the directory of all. */
extern bool zip_write_begin(llm_weights_writer *w);
extern bool zip_write_end(llm_weights_writer *w);
extern bool zip_write_directory(llm_weights_writer *w);

/* The record of w->current, up to its data; its data; the end of the stream. */
extern bool gzip_write_begin(llm_weights_writer *w);
extern bool gzip_write(llm_weights_writer *w, const void *bytes, size_t n);
extern bool gzip_write_end(llm_weights_writer *w);

#endif
