/*
 * memory.h -- how much memory there is, and whether a large allocation may be made (memory.c).
 */
#ifndef LLM_MEMORY_H
#define LLM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Bytes that the system and all control groups above this process (version 2, or version 1's memory controller) can
 * still give; SIZE_MAX where they do not say. Linux promises memory that it does not have and kills whoever touches it.
 */
size_t llm_memory_available(void);
/* The same with other roots than /proc and /sys/fs/cgroup. */
size_t llm_memory_available_below(const char *proc, const char *cgroup);
/* Bytes that there are in all: the machine's, or the limit of the smallest of those control groups; SIZE_MAX: unknown. */
size_t llm_memory_total(void);
size_t llm_memory_total_below(const char *proc, const char *cgroup);

/*
 * A program may be asked before the core allocates as much as LLM_MEMORY_ASK bytes at once; what it answers false to
 * fails as if there were no memory. One function for the process, called by the thread that called the core.
 */
#define LLM_MEMORY_ASK ((size_t)8 << 20)
void llm_memory_set_room(bool (*room)(size_t bytes));
bool llm_memory_room(size_t bytes); /* true when nobody is to be asked */
void *llm_malloc(size_t bytes);     /* malloc and realloc that ask first */
void *llm_realloc(void *p, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif /* LLM_MEMORY_H */
