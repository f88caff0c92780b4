/*
 * bpe_internal.h -- the tokenizer's tables, shared by bpe.c (tokens, encoding) and bpe_merge.c (merging one
 * piece).
 *
 * Symbols are numbers of tokens in the order they were put, so that ids may be any.
 */
#ifndef LLM_BPE_INTERNAL_H
#define LLM_BPE_INTERNAL_H

#include "bpe.h"
#include "bytes_map.h"

#define NO_SYMBOL UINT32_MAX
#define NO_RANK UINT32_MAX
#define SPECIAL_LENGTHS 32

/* A merge rule in an open-addressing table; free slots have rank NO_RANK. */
typedef struct merge_rule {
    uint32_t left, right;
    uint32_t rank;
    uint32_t into;
} merge_rule;

typedef struct merge_table {
    merge_rule *slots;
    size_t n, n_slots; /* n_slots is a power of two, or 0 */
} merge_table;

/* What a short piece was encoded as, found again at its hash */
#define CACHED_BYTES 28
#define CACHED_IDS 8
typedef struct cached_piece {
    uint8_t bytes[CACHED_BYTES];
    uint8_t n_bytes; /* 0: empty */
    uint8_t n_ids;
    int32_t ids[CACHED_IDS];
} cached_piece;

typedef struct id_entry {
    int32_t id;
    uint32_t symbol;
} id_entry;

struct llm_bpe {
    bytes_map tokens;      /* symbol: its number in here */
    int32_t *ids;          /* of each symbol */
    size_t ids_room;
    bool *special;
    size_t special_room;
    uint16_t special_lengths[SPECIAL_LENGTHS]; /* of special tokens in bytes, the longest first, each once */
    size_t n_special_lengths;
    bytes_map ranks;       /* of merges, as 4 bytes, to refuse the second of a rank */
    merge_table merges;
    uint32_t byte_symbol[256];
    id_entry *by_id;       /* sorted, made when first needed */
    cached_piece *cache;   /* NULL until n_encoded is worth it */
    size_t n_encoded;      /* bytes, all texts together */
    int32_t *out;
    size_t n_out, out_room;
    uint8_t missing_byte;
};

static inline size_t
merge_slot(const merge_table *t, uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;

    return (size_t)((h ^ h >> 32) & (t->n_slots - 1));
}

/* The rule for two symbols, NULL when there is none */
static inline const merge_rule *
merge_find(const merge_table *t, uint32_t left, uint32_t right)
{
    if (t->n_slots == 0)
        return NULL;
    for (size_t i = merge_slot(t, left, right); t->slots[i].rank != NO_RANK; i = (i + 1) & (t->n_slots - 1))
        if (t->slots[i].left == left && t->slots[i].right == right)
            return &t->slots[i];
    return NULL;
}

/* Merges symbols (n) by lowest rank, leftmost first; *n becomes how many remain. */
llm_bpe_status llm_bpe_merge_piece(const merge_table *t, uint32_t *symbols, size_t *n, llm_should_stop stop,
                                   void *arg);

#endif
