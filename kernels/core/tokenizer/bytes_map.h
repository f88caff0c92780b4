/*
 * bytes_map.h -- a hash table from byte strings to numbers, which it gives out in the order of insertion.
 *
 * The strings are copied into one pool; string i is bytes[start[i]] .. bytes[start[i + 1]].
 */
#ifndef LLM_BYTES_MAP_H
#define LLM_BYTES_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BYTES_MAP_NONE UINT32_MAX

typedef struct bytes_map_slot {
    uint32_t number; /* + 1; 0: free */
    uint32_t tag;    /* the upper half of the hash */
} bytes_map_slot;

typedef struct bytes_map {
    uint8_t *bytes;
    size_t n_bytes, bytes_room;
    size_t *start; /* n + 1 of them once anything is in it */
    uint32_t n, room;
    bytes_map_slot *slots;
    size_t n_slots; /* a power of two, or 0 */
} bytes_map;

/* All begin as {0}. */
void bytes_map_free(bytes_map *m);
/* The string's number, BYTES_MAP_NONE when it is not there */
uint32_t bytes_map_find(const bytes_map *m, const void *s, size_t n);
/* Adds the string, or finds it (then *found). BYTES_MAP_NONE: no memory */
uint32_t bytes_map_add(bytes_map *m, const void *s, size_t n, bool *found);

static inline const uint8_t *bytes_map_get(const bytes_map *m, uint32_t i, size_t *n)
{
    *n = m->start[i + 1] - m->start[i];
    return m->bytes + m->start[i];
}

uint64_t bytes_hash(const void *s, size_t n);

/*
 * Room for at least `wanted` elements, doubling; the array, or NULL (which leaves it as it is) when there is
 * no memory.
 */
void *bytes_grow(void *array, size_t *room, size_t wanted, size_t element);

#endif
