/*
 * unmap.h -- memory goes back to the system in the background (unmap.c).
 */
#ifndef PG_LLM_UNMAP_H
#define PG_LLM_UNMAP_H

#include <stdbool.h>
#include <stddef.h>

extern void unmap_later(void *mapping, size_t bytes); /* of mmap, at least a page; never throws */
extern bool unmap_finished(int milliseconds);         /* nothing is left to do; waits so long for it */

#endif
