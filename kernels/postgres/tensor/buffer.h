/*
 * buffer.h -- what the buffer allocator says about itself (buffer.c); the buffers are declared in tensor.h.
 */
#ifndef PG_LLM_BUFFER_H
#define PG_LLM_BUFFER_H

#include "tensor.h"

extern size_t tensor_buffer_cached(void);          /* bytes of released blocks kept for the next tensor */
extern size_t tensor_buffer_in_use(void);          /* bytes of blocks that some tensor or the tape refers to */
extern size_t tensor_buffer_available(void);       /* bytes that the system can still give; SIZE_MAX: unknown */
extern bool   tensor_buffer_room(size_t bytes);    /* whether the system has so much memory, for what is not a tensor */
extern bool   tensor_buffer_reserve(size_t bytes); /* the same, and counts them as this session's */
extern void   tensor_buffer_unreserve(size_t bytes);
extern void  *tensor_buffer_foreign_arg(const TensorBuffer *b); /* what tensor_buffer_foreign was given */
extern void   tensor_buffer_unpack(TensorBuffer *b);            /* forget its copies in fewer bits; never throws */
extern void tensor_buffer_training(int versions); /* so many more (fewer) versions with optimizer state are in memory */
extern void tensor_buffer_end_xact(void); /* give back what should not wait between transactions; never throws */
extern void tensor_buffer_trim(void);     /* give the cached bytes back to the system, and wait until it has them */

#endif
