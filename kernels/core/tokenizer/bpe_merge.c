/*
 * bpe_merge.c -- merging the symbols of one piece: the applicable rule of lowest rank first, the leftmost of
 * equals.
 *
 * Short pieces look through all their pairs for every merge. In long ones a heap knows the next pair, and
 * symbols form a list: n log n, whatever the input.
 */
#include "bpe_internal.h"
#include "engine/memory.h"

#include <stdlib.h>
#include <string.h>

#define SHORT_PIECE   64
#define STOP_INTERVAL 8192

static size_t merge_short(const merge_table *t, uint32_t *symbols, size_t n)
{
    uint32_t rank[SHORT_PIECE], into[SHORT_PIECE];

    for (size_t i = 0; i + 1 < n; i++) {
        const merge_rule *rule = merge_find(t, symbols[i], symbols[i + 1]);

        rank[i] = rule == NULL ? NO_RANK : rule->rank;
        into[i] = rule == NULL ? NO_SYMBOL : rule->into;
    }
    while (n > 1) {
        size_t at = 0;

        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[at])
                at = i;
        if (rank[at] == NO_RANK)
            break;
        symbols[at] = into[at];
        n--;
        memmove(symbols + at + 1, symbols + at + 2, (n - at - 1) * sizeof(*symbols));
        memmove(rank + at, rank + at + 1, (n - at) * sizeof(*rank));
        memmove(into + at, into + at + 1, (n - at) * sizeof(*into));
        for (size_t i = at == 0 ? 0 : at - 1; i <= at && i + 1 < n; i++) {
            const merge_rule *rule = merge_find(t, symbols[i], symbols[i + 1]);

            rank[i] = rule == NULL ? NO_RANK : rule->rank;
            into[i] = rule == NULL ? NO_SYMBOL : rule->into;
        }
    }
    return n;
}

/* ---- long pieces ---- */

#define END UINT32_MAX

typedef struct node {
    uint32_t previous, next; /* positions, END at the ends; a merged-away node's next is itself */
    uint32_t symbol;
    uint32_t rank, into; /* of the pair that begins here */
} node;

/*
 * Pairs by rank and position, least first: rank << 32 | position. Outdated entries are told by the node's
 * rank.
 */
typedef struct heap {
    uint64_t *entries;
    size_t n;
} heap;

static void sift_down(heap *h, size_t i)
{
    uint64_t entry = h->entries[i];

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->entries[child + 1] < h->entries[child])
            child++;
        if (h->entries[child] >= entry)
            break;
        h->entries[i] = h->entries[child];
        i = child;
    }
    h->entries[i] = entry;
}

static void heap_push(heap *h, uint64_t entry)
{
    size_t i = h->n++;

    for (; i > 0 && h->entries[(i - 1) / 2] > entry; i = (i - 1) / 2)
        h->entries[i] = h->entries[(i - 1) / 2];
    h->entries[i] = entry;
}

static uint64_t heap_pop(heap *h)
{
    uint64_t least = h->entries[0];

    h->entries[0] = h->entries[--h->n];
    if (h->n > 0)
        sift_down(h, 0);
    return least;
}

/* The rule of the pair that begins at a node; true when there is one */
static bool find_pair(const merge_table *t, node *nodes, uint32_t at)
{
    const merge_rule *rule = nodes[at].next == END ? NULL
                                                   : merge_find(t, nodes[at].symbol, nodes[nodes[at].next].symbol);

    nodes[at].rank = rule == NULL ? NO_RANK : rule->rank;
    nodes[at].into = rule == NULL ? NO_SYMBOL : rule->into;
    return rule != NULL;
}

/* The node takes in the one after it. */
static void merge_node(const merge_table *t, node *nodes, uint32_t at, heap *h)
{
    uint32_t gone = nodes[at].next, previous = nodes[at].previous;

    nodes[at].symbol = nodes[at].into;
    nodes[at].next = nodes[gone].next;
    if (nodes[gone].next != END)
        nodes[nodes[gone].next].previous = at;
    nodes[gone].next = gone;
    nodes[gone].rank = NO_RANK;
    if (find_pair(t, nodes, at))
        heap_push(h, (uint64_t)nodes[at].rank << 32 | at);
    if (previous != END && find_pair(t, nodes, previous))
        heap_push(h, (uint64_t)nodes[previous].rank << 32 | previous);
}

static llm_bpe_status merge_long(const merge_table *t, uint32_t *symbols, size_t *n, llm_should_stop stop, void *arg)
{
    const bool room = llm_memory_room(*n * (sizeof(node) + 2 * sizeof(uint64_t)));
    node *nodes = room ? malloc(*n * sizeof(node)) : NULL;
    /* Every pair once, and up to two new ones for every merge, which takes one away. */
    heap h = { room ? malloc(2 * *n * sizeof(uint64_t)) : NULL, 0 };
    llm_bpe_status status = LLM_BPE_OK;
    size_t kept = 0;

    if (nodes == NULL || h.entries == NULL) {
        free(nodes);
        free(h.entries);
        return LLM_BPE_NO_MEMORY;
    }
    for (uint32_t i = 0; i < *n; i++)
        nodes[i] = (node){ i == 0 ? END : i - 1, i + 1 == *n ? END : i + 1, symbols[i], NO_RANK, NO_SYMBOL };
    for (uint32_t i = 0; i < *n && status == LLM_BPE_OK; i++) {
        if (find_pair(t, nodes, i))
            h.entries[h.n++] = (uint64_t)nodes[i].rank << 32 | i;
        if (i % STOP_INTERVAL == 0 && stop != NULL && stop(arg))
            status = LLM_BPE_STOPPED;
    }
    for (size_t i = h.n / 2; i-- > 0;)
        sift_down(&h, i);
    for (size_t step = 0; h.n > 0 && status == LLM_BPE_OK; step++) {
        uint64_t entry = heap_pop(&h);
        uint32_t at = (uint32_t)entry;

        if (nodes[at].rank == entry >> 32)
            merge_node(t, nodes, at, &h);
        if (step % STOP_INTERVAL == 0 && stop != NULL && stop(arg)) {
            status = LLM_BPE_STOPPED;
            break;
        }
    }
    for (uint32_t i = 0; status == LLM_BPE_OK && i != END; i = nodes[i].next)
        symbols[kept++] = nodes[i].symbol;
    *n = kept;
    free(nodes);
    free(h.entries);
    return status;
}

llm_bpe_status llm_bpe_merge_piece(const merge_table *t, uint32_t *symbols, size_t *n, llm_should_stop stop, void *arg)
{
    if (*n > SHORT_PIECE)
        return merge_long(t, symbols, n, stop, arg);
    *n = merge_short(t, symbols, *n);
    return LLM_BPE_OK;
}
