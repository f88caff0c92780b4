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
#include "nfc.h"

/* What pre-tokenizers tell apart, in the order of make_unicode_classes.py's table */
enum kind {
    KIND_OTHER,
    KIND_LETTER, /* \p{Lm} \p{Lo} */
    KIND_UPPER,  /* \p{Lu} \p{Lt} */
    KIND_LOWER,
    KIND_MARK,
    KIND_NUMBER,
    KIND_LATE_NUMBER, /* numeric for tokenizers' Digits alone */
    KIND_SPACE,       /* white space but for what follows */
    KIND_NEWLINE,     /* \r \n */
    KIND_BLANK,
    KIND_SLASH,
    N_KINDS
};

#define NO_SYMBOL UINT32_MAX
#define NO_RANK   UINT32_MAX

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

/* Ranks that are taken. As they are dense, each slot is beside that of the rank before. */
typedef struct rank_set {
    uint32_t *slots;   /* rank + 1, 0: free */
    size_t n, n_slots; /* n_slots is a power of two, or 0 */
} rank_set;

/* What a short piece was encoded as, found again at its hash */
#define CACHED_BYTES 28
#define CACHED_IDS   8
typedef struct cached_piece {
    uint8_t bytes[CACHED_BYTES];
    uint8_t n_bytes; /* 0: empty */
    uint8_t n_ids;
    int32_t ids[CACHED_IDS];
} cached_piece;

typedef struct id_entry {
    int32_t id;
    uint32_t symbol;
    bool added; /* then its number among the added tokens */
} id_entry;

/* Added tokens (bpe_added.c), in tries by what comes first: not normalized, normalized */
typedef struct added_edge {
    uint32_t from, to; /* to is 0 in a free slot */
    uint8_t byte;
} added_edge;

typedef struct added_trie {
    added_edge *edges;
    size_t n_slots;  /* a power of two, or 0 */
    uint32_t *token; /* of each node, NO_SYMBOL for none */
    size_t token_room;
    uint32_t n_nodes;         /* but for the root */
    uint32_t first[256];      /* the root's edges once more */
    size_t n_tokens, n_plain; /* n_plain: those that are not special */
} added_trie;

typedef struct added_tokens {
    bytes_map tokens;
    int32_t *ids;
    uint8_t *flags;
    size_t ids_room, flags_room;
    added_trie tries[2];
} added_tokens;

/* A match and where the search goes on: begins as {0}, and is handed back as it was left. */
typedef struct added_match {
    bool found;
    int32_t id;
    size_t start, end; /* white space that the token takes with it included */
    size_t search;
} added_match;

struct llm_bpe {
    llm_bpe_settings settings;
    llm_nfc_buffer normalized;
    bytes_map tokens; /* those that merging makes; symbol: its number in here */
    int32_t *ids;     /* of each symbol */
    size_t ids_room;
    added_tokens added;
    rank_set ranks; /* of merges, to refuse the second of a rank */
    merge_table merges;
    uint32_t byte_symbol[256];
    id_entry *by_id; /* of all tokens, sorted, made when first needed */
    size_t n_by_id;
    cached_piece *cache; /* NULL until n_encoded is worth it */
    size_t n_encoded;    /* bytes, all texts together */
    int32_t *out;
    size_t n_out, out_room;
    uint8_t missing_byte;
};

static inline size_t merge_slot(const merge_table *t, uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;

    return (size_t)((h ^ h >> 32) & (t->n_slots - 1));
}

/* The rule for two symbols, NULL when there is none */
static inline const merge_rule *merge_find(const merge_table *t, uint32_t left, uint32_t right)
{
    if (t->n_slots == 0)
        return NULL;
    for (size_t i = merge_slot(t, left, right); t->slots[i].rank != NO_RANK; i = (i + 1) & (t->n_slots - 1))
        if (t->slots[i].left == left && t->slots[i].right == right)
            return &t->slots[i];
    return NULL;
}

void llm_bpe_added_free(added_tokens *a);
size_t llm_bpe_added_memory(const added_tokens *a);
/* pattern is what a text is searched for, the normalized token or the token itself. */
llm_bpe_status llm_bpe_added_put(added_tokens *a, int32_t id, const uint8_t *bytes, size_t n, const uint8_t *pattern,
                                 size_t n_pattern, unsigned flags);
/* Whether a text needs to be searched at all: level 0 is not normalized, level 1 normalized. */
bool llm_bpe_added_any(const added_tokens *a, int level, bool special);
/* The next added token in text (n); special ones only if asked for. */
llm_bpe_status llm_bpe_added_next(const added_tokens *a, int level, bool special, const uint8_t *text, size_t n,
                                  added_match *m, llm_should_stop stop, void *arg);

/* The trie alone: the node that an edge leads to, 0 when there is none; a way to a token by its bytes (false: no memory) */
uint32_t llm_bpe_trie_follow(const added_trie *t, uint32_t from, uint8_t byte);
bool llm_bpe_trie_add(added_trie *t, const uint8_t *bytes, size_t n, uint32_t token);
size_t llm_bpe_trie_memory(const added_trie *t);
void llm_bpe_trie_free(added_trie *t);

/*
 * SentencePiece (bpe_sentencepiece.c): text with U+2581 for blanks, in b, and one in front; the symbols of a piece; the
 * byte that a token <0x41> stands for, -1 for none
 */
bool llm_bpe_mark_blanks(llm_nfc_buffer *b, const uint8_t *text, size_t n, bool in_front, bool once);
llm_bpe_status llm_bpe_character_symbols(llm_bpe *t, const uint8_t *piece, size_t n, uint32_t *symbols,
                                         size_t *n_symbols);
int llm_bpe_byte_token(const uint8_t *token, size_t n);
/* Where the piece ends that begins at text[at] */
size_t llm_bpe_blank_piece(const uint8_t *text, size_t n, size_t at);

/* One of enum kind */
unsigned llm_bpe_kind(uint32_t code);

bool llm_bpe_is_utf8(const uint8_t *text, size_t n);
/* The length of the character at p < end, and its code point, UINT32_MAX for what is no UTF-8 */
size_t llm_bpe_next(const uint8_t *p, const uint8_t *end, uint32_t *code);
/* The code point at p < end, UINT32_MAX for what is no UTF-8; the length of the white space character there, or 0 */
uint32_t llm_bpe_code_point(const uint8_t *p, const uint8_t *end);
size_t llm_bpe_space(const uint8_t *p, const uint8_t *end);

/* Merges symbols (n) by lowest rank, leftmost first; *n becomes how many remain. */
llm_bpe_status llm_bpe_merge_piece(const merge_table *t, uint32_t *symbols, size_t *n, llm_should_stop stop, void *arg);

#endif
