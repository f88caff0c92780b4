/*
 * bpe_train.c -- learning merge rules: pairs are counted once, afterwards only what each merge changes.
 *
 * Equal pieces of text are one word with a count. The symbols of all words lie in one list; a pair knows the
 * positions where it may stand, so that a merge costs as much as it has occurrences, however long the words
 * are.
 */
#include "bpe.h"

#include <stdlib.h>
#include <string.h>

#include "bytes_map.h"
#include "engine/memory.h"

#define STOP_INTERVAL 4096
#define END           UINT32_MAX
#define GONE          (-1)

typedef struct symbol {
    int32_t id;              /* GONE when merged into the one before */
    uint32_t previous, next; /* positions, END at the ends of a word */
    uint32_t word;
} symbol;

typedef struct pair {
    int32_t left, right;
    int64_t count;
    uint32_t *positions; /* of its left symbols, ascending; those where it no longer stands are passed over */
    size_t n, room;
} pair;

/*
 * A pair as it was counted when it was put into the heap; outdated entries are corrected when they come up.
 */
typedef struct candidate {
    int64_t count;
    int32_t left, right;
    uint32_t pair;
} candidate;

struct llm_bpe_trainer {
    bytes_map words;
    int64_t *counts; /* of each word */
    size_t counts_room;
    symbol *symbols;
    size_t n_symbols;
    bytes_map pair_numbers; /* of (left, right) */
    pair *pairs;
    size_t n_pairs, pairs_room;
    candidate *heap;
    size_t n_heap, heap_room;
    int32_t *merges;
    size_t n_merges, merges_room;
    uint16_t *lengths; /* of the merged tokens, in bytes */
    size_t lengths_room;
    size_t work; /* since should_stop was asked */
};

llm_bpe_trainer *llm_bpe_trainer_create(void) { return calloc(1, sizeof(llm_bpe_trainer)); }

static void forget_pairs(llm_bpe_trainer *t)
{
    for (size_t i = 0; i < t->n_pairs; i++)
        free(t->pairs[i].positions);
    free(t->pairs);
    free(t->symbols);
    free(t->heap);
    bytes_map_free(&t->pair_numbers);
    t->pairs = NULL;
    t->symbols = NULL;
    t->heap = NULL;
    t->n_pairs = t->pairs_room = t->n_symbols = t->n_heap = t->heap_room = 0;
}

void llm_bpe_trainer_destroy(llm_bpe_trainer *t)
{
    if (t == NULL)
        return;
    forget_pairs(t);
    bytes_map_free(&t->words);
    free(t->counts);
    free(t->merges);
    free(t->lengths);
    free(t);
}

llm_bpe_status llm_bpe_trainer_add(llm_bpe_trainer *t, const uint8_t *text, size_t n, llm_should_stop stop, void *arg)
{
    for (size_t at = 0, step = 1; at < n; step++) {
        size_t visible = n - at > LLM_BPE_MAX_PIECE ? at + LLM_BPE_MAX_PIECE : n;
        size_t end = llm_bpe_split(text, visible, at);
        int64_t *grown;
        uint32_t word;
        bool found;

        word = bytes_map_add(&t->words, text + at, end - at, &found);
        if (word == BYTES_MAP_NONE)
            return LLM_BPE_NO_MEMORY;
        grown = bytes_grow(t->counts, &t->counts_room, (size_t)word + 1, sizeof(int64_t));
        if (grown == NULL)
            return LLM_BPE_NO_MEMORY;
        t->counts = grown;
        t->counts[word] = found ? t->counts[word] + 1 : 1;
        at = end;
        if (step % STOP_INTERVAL == 0 && stop != NULL && stop(arg))
            return LLM_BPE_STOPPED;
    }
    return LLM_BPE_OK;
}

/* ---- the heap of candidates ---- */

static bool comes_before(const candidate *a, const candidate *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static bool heap_push(llm_bpe_trainer *t, uint32_t number)
{
    candidate c = { t->pairs[number].count, t->pairs[number].left, t->pairs[number].right, number };
    candidate *grown = bytes_grow(t->heap, &t->heap_room, t->n_heap + 1, sizeof(candidate));
    size_t i;

    if (grown == NULL)
        return false;
    t->heap = grown;
    i = t->n_heap++;
    for (; i > 0 && comes_before(&c, &t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = c;
    return true;
}

static candidate heap_pop(llm_bpe_trainer *t)
{
    candidate first = t->heap[0], last = t->heap[--t->n_heap];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= t->n_heap)
            break;
        if (child + 1 < t->n_heap && comes_before(&t->heap[child + 1], &t->heap[child]))
            child++;
        if (!comes_before(&t->heap[child], &last))
            break;
        t->heap[i] = t->heap[child];
        i = child;
    }
    t->heap[i] = last;
    return first;
}

/* ---- counting ---- */

/*
 * The number of the pair of symbols at `at` and after it, which is made if it must; BYTES_MAP_NONE: no memory
 */
static uint32_t pair_number(llm_bpe_trainer *t, int32_t left, int32_t right)
{
    int32_t key[2] = { left, right };
    bool found;
    uint32_t number = bytes_map_add(&t->pair_numbers, key, sizeof(key), &found);
    pair *grown;

    if (number == BYTES_MAP_NONE || found)
        return number;
    grown = bytes_grow(t->pairs, &t->pairs_room, t->n_pairs + 1, sizeof(pair));
    if (grown == NULL)
        return BYTES_MAP_NONE;
    t->pairs = grown;
    t->pairs[t->n_pairs++] = (pair){ left, right, 0, NULL, 0, 0 };
    return number;
}

/* One more place where two adjacent symbols stand */
static bool count_pair(llm_bpe_trainer *t, uint32_t at)
{
    const symbol *s = &t->symbols[at];
    uint32_t number = pair_number(t, s->id, t->symbols[s->next].id), *grown;
    pair *p;

    if (number == BYTES_MAP_NONE)
        return false;
    p = &t->pairs[number];
    grown = bytes_grow(p->positions, &p->room, p->n + 1, sizeof(uint32_t));
    if (grown == NULL)
        return false;
    p->positions = grown;
    p->positions[p->n++] = at;
    p->count += t->counts[s->word];
    return true;
}

/* One place fewer; the position is passed over later. */
static void discount_pair(llm_bpe_trainer *t, int32_t left, int32_t right, int64_t count)
{
    int32_t key[2] = { left, right };

    t->pairs[bytes_map_find(&t->pair_numbers, key, sizeof(key))].count -= count;
}

static bool ask_to_stop(llm_bpe_trainer *t, llm_should_stop stop, void *arg)
{
    return ++t->work % STOP_INTERVAL == 0 && stop != NULL && stop(arg);
}

/* Words become symbols, symbols pairs, pairs candidates. */
static llm_bpe_status count_all(llm_bpe_trainer *t, llm_should_stop stop, void *arg)
{
    int32_t id_of_byte[256];
    size_t at = 0;

    for (int i = 0; i < 256; i++)
        id_of_byte[llm_bpe_byte(i)] = i;
    if (t->words.n_bytes >= END)
        return LLM_BPE_TOO_LONG;
    /*
     * A symbol per byte, and the positions of pairs: one per symbol, two more for each that a merge takes away, in
     * arrays that are at most half empty.
     */
    if (!llm_memory_room((t->words.n_bytes + 1) * (sizeof(symbol) + 6 * sizeof(uint32_t))))
        return LLM_BPE_NO_MEMORY;
    t->symbols = malloc((t->words.n_bytes + 1) * sizeof(symbol));
    if (t->symbols == NULL)
        return LLM_BPE_NO_MEMORY;
    for (uint32_t word = 0; word < t->words.n; word++) {
        size_t n;
        const uint8_t *bytes = bytes_map_get(&t->words, word, &n);

        for (size_t i = 0; i < n; i++, at++)
            t->symbols[at] = (symbol){ id_of_byte[bytes[i]], i == 0 ? END : (uint32_t)at - 1,
                                       i + 1 == n ? END : (uint32_t)at + 1, word };
        if (ask_to_stop(t, stop, arg))
            return LLM_BPE_STOPPED;
    }
    t->n_symbols = at;
    for (at = 0; at < t->n_symbols; at++) {
        if (t->symbols[at].next != END && !count_pair(t, (uint32_t)at))
            return LLM_BPE_NO_MEMORY;
        if (ask_to_stop(t, stop, arg))
            return LLM_BPE_STOPPED;
    }
    for (size_t i = 0; i < t->n_pairs; i++) {
        if (!heap_push(t, (uint32_t)i))
            return LLM_BPE_NO_MEMORY;
        if (ask_to_stop(t, stop, arg))
            return LLM_BPE_STOPPED;
    }
    return LLM_BPE_OK;
}

/* ---- merging ---- */

/* Makes one symbol of the two at a position and counts the pairs it then stands in. */
static bool merge_at(llm_bpe_trainer *t, uint32_t at, int32_t id)
{
    symbol *s = &t->symbols[at], *gone = &t->symbols[s->next];
    int64_t count = t->counts[s->word];

    discount_pair(t, s->id, gone->id, count);
    if (s->previous != END)
        discount_pair(t, t->symbols[s->previous].id, s->id, count);
    if (gone->next != END) {
        discount_pair(t, gone->id, t->symbols[gone->next].id, count);
        t->symbols[gone->next].previous = at;
    }
    s->id = id;
    s->next = gone->next;
    gone->id = GONE;
    return (s->previous == END || count_pair(t, s->previous)) && (s->next == END || count_pair(t, at));
}

/* Merges a pair everywhere into the symbol id; the new pairs are candidates then. */
static llm_bpe_status merge_pair(llm_bpe_trainer *t, uint32_t number, int32_t id, llm_should_stop stop, void *arg)
{
    pair merged = t->pairs[number];
    size_t first_new = t->n_pairs;
    llm_bpe_status status = LLM_BPE_OK;

    t->pairs[number].positions = NULL;
    t->pairs[number].n = t->pairs[number].room = 0;
    for (size_t i = 0; i < merged.n && status == LLM_BPE_OK; i++) {
        const symbol *s = &t->symbols[merged.positions[i]];

        if (s->id == merged.left && s->next != END && t->symbols[s->next].id == merged.right &&
            !merge_at(t, merged.positions[i], id))
            status = LLM_BPE_NO_MEMORY;
        if (ask_to_stop(t, stop, arg))
            status = LLM_BPE_STOPPED;
    }
    free(merged.positions);
    for (size_t i = first_new; i < t->n_pairs && status == LLM_BPE_OK; i++) {
        if (!heap_push(t, (uint32_t)i))
            status = LLM_BPE_NO_MEMORY;
        else if (ask_to_stop(t, stop, arg))
            status = LLM_BPE_STOPPED;
    }
    return status;
}

static size_t token_length(const llm_bpe_trainer *t, int32_t id) { return id < 256 ? 1 : t->lengths[id - 256]; }

/* Writes down a merge; false: no memory */
static bool note_merge(llm_bpe_trainer *t, int32_t left, int32_t right)
{
    size_t n = t->n_merges;
    int32_t *merges = bytes_grow(t->merges, &t->merges_room, 2 * n + 2, sizeof(int32_t));
    uint16_t *lengths;

    if (merges == NULL)
        return false;
    t->merges = merges;
    lengths = bytes_grow(t->lengths, &t->lengths_room, n + 1, sizeof(uint16_t));
    if (lengths == NULL)
        return false;
    t->lengths = lengths;
    merges[2 * n] = left;
    merges[2 * n + 1] = right;
    lengths[n] = (uint16_t)(token_length(t, left) + token_length(t, right));
    t->n_merges++;
    return true;
}

llm_bpe_status llm_bpe_trainer_run(llm_bpe_trainer *t, size_t n_merges, int64_t min_count, llm_should_stop stop,
                                   void *arg, const int32_t **pairs, size_t *n_pairs)
{
    llm_bpe_status status = count_all(t, stop, arg);

    while (status == LLM_BPE_OK && t->n_merges < n_merges && t->n_heap > 0) {
        candidate c = heap_pop(t);

        if (t->pairs[c.pair].count != c.count) {
            if (t->pairs[c.pair].count > 0 && !heap_push(t, c.pair))
                status = LLM_BPE_NO_MEMORY;
            if (ask_to_stop(t, stop, arg))
                status = LLM_BPE_STOPPED;
            continue;
        }
        if (c.count < min_count || c.count < 1)
            break;
        if (token_length(t, c.left) + token_length(t, c.right) > LLM_BPE_MAX_TOKEN)
            continue;
        if (!note_merge(t, c.left, c.right))
            status = LLM_BPE_NO_MEMORY;
        else
            status = merge_pair(t, c.pair, 255 + (int32_t)t->n_merges, stop, arg);
    }
    forget_pairs(t);
    *pairs = t->merges;
    *n_pairs = t->n_merges;
    return status;
}
