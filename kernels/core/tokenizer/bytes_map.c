/*
 * bytes_map.c -- the hash table of bytes_map.h: open addressing, linear probing, at most half full.
 */
#include "bytes_map.h"
#include "engine/memory.h"

#include <stdlib.h>
#include <string.h>

static inline uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    h ^= h >> 32;
    return h * 0xd6e8feb86659fd93u;
}

uint64_t bytes_hash(const void *s, size_t n)
{
    const uint8_t *p = s;
    uint64_t h = n * 0x9e3779b97f4a7c15u, word;

    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&word, p, 8);
        h = mix(h ^ word);
    }
    word = 0;
    for (size_t i = 0; i < n; i++)
        word |= (uint64_t)p[i] << 8 * i;
    h = mix(h ^ word);
    return h ^ h >> 29;
}

void *bytes_grow(void *array, size_t *room, size_t wanted, size_t element)
{
    size_t larger = *room == 0 ? 8 : *room;
    void *grown;

    if (array != NULL && wanted <= *room)
        return array;
    while (larger < wanted) {
        if (larger > SIZE_MAX / 2)
            return NULL;
        larger *= 2;
    }
    if (larger > SIZE_MAX / element)
        return NULL;
    grown = llm_realloc(array, larger * element);
    if (grown != NULL)
        *room = larger;
    return grown;
}

void bytes_map_free(bytes_map *m)
{
    free(m->bytes);
    free(m->start);
    free(m->slots);
    memset(m, 0, sizeof(*m));
}

/* The slot that holds the string, or the free one where it would go */
static size_t slot_of(const bytes_map *m, const void *s, size_t n, uint64_t hash)
{
    size_t i = hash & (m->n_slots - 1);
    uint32_t tag = (uint32_t)(hash >> 32);

    for (; m->slots[i].number != 0; i = (i + 1) & (m->n_slots - 1)) {
        uint32_t number = m->slots[i].number - 1;

        if (m->slots[i].tag == tag && m->start[number + 1] - m->start[number] == n &&
            (n == 0 || memcmp(m->bytes + m->start[number], s, n) == 0))
            break;
    }
    return i;
}

uint32_t bytes_map_find(const bytes_map *m, const void *s, size_t n)
{
    if (m->n_slots == 0)
        return BYTES_MAP_NONE;
    return m->slots[slot_of(m, s, n, bytes_hash(s, n))].number - 1;
}

/* A table of twice as many slots */
static bool rehash(bytes_map *m)
{
    size_t n_slots = m->n_slots == 0 ? 64 : m->n_slots * 2;
    bytes_map_slot *slots = NULL;

    if (llm_memory_room(n_slots * sizeof(bytes_map_slot)))
        slots = calloc(n_slots, sizeof(bytes_map_slot));
    if (slots == NULL)
        return false;
    for (uint32_t number = 0; number < m->n; number++) {
        uint64_t hash = bytes_hash(m->bytes + m->start[number], m->start[number + 1] - m->start[number]);
        size_t i = hash & (n_slots - 1);

        while (slots[i].number != 0)
            i = (i + 1) & (n_slots - 1);
        slots[i] = (bytes_map_slot){ number + 1, (uint32_t)(hash >> 32) };
    }
    free(m->slots);
    m->slots = slots;
    m->n_slots = n_slots;
    return true;
}

/* Room for one more string of n bytes; the slots stay */
static bool make_room(bytes_map *m, size_t n)
{
    size_t room = m->room;
    void *grown;

    if (m->n >= UINT32_MAX - 2 || n > SIZE_MAX - m->n_bytes)
        return false;
    grown = bytes_grow(m->start, &room, (size_t)m->n + 2, sizeof(size_t));
    if (grown == NULL)
        return false;
    m->start = grown;
    m->room = room > UINT32_MAX ? UINT32_MAX : (uint32_t)room;
    grown = bytes_grow(m->bytes, &m->bytes_room, m->n_bytes + n, 1);
    if (grown != NULL)
        m->bytes = grown;
    return grown != NULL;
}

uint32_t bytes_map_add(bytes_map *m, const void *s, size_t n, bool *found)
{
    uint64_t hash = bytes_hash(s, n);
    size_t slot = 0;

    *found = false;
    if (m->n_slots != 0) {
        slot = slot_of(m, s, n, hash);
        *found = m->slots[slot].number != 0;
        if (*found)
            return m->slots[slot].number - 1;
    }
    if (!make_room(m, n))
        return BYTES_MAP_NONE;
    if ((size_t)m->n * 2 >= m->n_slots) {
        if (!rehash(m))
            return BYTES_MAP_NONE;
        slot = slot_of(m, s, n, hash);
    }
    if (n > 0)
        memcpy(m->bytes + m->n_bytes, s, n);
    m->start[m->n] = m->n_bytes;
    m->n_bytes += n;
    m->start[m->n + 1] = m->n_bytes;
    m->slots[slot] = (bytes_map_slot){ ++m->n, (uint32_t)(hash >> 32) };
    return m->n - 1;
}
