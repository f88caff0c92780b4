/*
 * bpe_added.c -- added tokens: whole strings that a text is searched for before anything is merged.
 *
 * As Hugging Face's tokenizers do it (added_vocabulary.rs): the leftmost of them, of those the longest; first the ones
 * that are not normalized, then, in what lies between, the others. A match that its flags rule out is text, and the
 * search goes on behind it.
 */
#include "bpe_internal.h"

#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"
#include "unicode_words.h"

#define STOP_INTERVAL 16384 /* bytes looked at */

void llm_bpe_added_free(added_tokens *a)
{
    bytes_map_free(&a->tokens);
    free(a->ids);
    free(a->flags);
    for (int i = 0; i < 2; i++)
        llm_bpe_trie_free(&a->tries[i]);
}

size_t llm_bpe_added_memory(const added_tokens *a)
{
    size_t bytes = a->tokens.bytes_room + a->tokens.n * (sizeof(size_t) + sizeof(int32_t) + sizeof(uint8_t)) +
                   a->tokens.n_slots * sizeof(bytes_map_slot);

    return bytes + llm_bpe_trie_memory(&a->tries[0]) + llm_bpe_trie_memory(&a->tries[1]);
}

/*
 * ---- the trie: nodes from 1 on, reached by edges in an open-addressing table; node 0 is the root. A way to a token for
 * which memory ran out leads to none. ----
 */

static inline size_t edge_slot(const added_trie *t, uint32_t from, uint8_t byte)
{
    uint64_t h = ((uint64_t)from << 8 | byte) * 0x9e3779b97f4a7c15u;

    return (size_t)((h ^ h >> 32) & (t->n_slots - 1));
}

void llm_bpe_trie_free(added_trie *t)
{
    free(t->edges);
    free(t->token);
}

size_t llm_bpe_trie_memory(const added_trie *t)
{
    return t->n_slots * sizeof(added_edge) + t->token_room * sizeof(uint32_t);
}

static inline uint32_t follow(const added_trie *t, uint32_t from, uint8_t byte)
{
    if (t->n_slots == 0)
        return 0;
    for (size_t i = edge_slot(t, from, byte); t->edges[i].to != 0; i = (i + 1) & (t->n_slots - 1))
        if (t->edges[i].from == from && t->edges[i].byte == byte)
            return t->edges[i].to;
    return 0;
}

uint32_t llm_bpe_trie_follow(const added_trie *t, uint32_t from, uint8_t byte) { return follow(t, from, byte); }

static void put_edge(added_trie *t, added_edge edge)
{
    size_t i = edge_slot(t, edge.from, edge.byte);

    while (t->edges[i].to != 0)
        i = (i + 1) & (t->n_slots - 1);
    t->edges[i] = edge;
}

static bool grow_edges(added_trie *t)
{
    added_trie larger = *t;

    larger.n_slots = t->n_slots == 0 ? 64 : t->n_slots * 2;
    larger.edges = llm_memory_room(larger.n_slots * sizeof(added_edge)) ? calloc(larger.n_slots, sizeof(added_edge))
                                                                        : NULL;
    if (larger.edges == NULL)
        return false;
    for (size_t i = 0; i < t->n_slots; i++)
        if (t->edges[i].to != 0)
            put_edge(&larger, t->edges[i]);
    free(t->edges);
    *t = larger;
    return true;
}

bool llm_bpe_trie_add(added_trie *t, const uint8_t *bytes, size_t n, uint32_t token)
{
    uint32_t node = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t next = follow(t, node, bytes[i]);

        if (next == 0) {
            uint32_t *grown = bytes_grow(t->token, &t->token_room, (size_t)t->n_nodes + 2, sizeof(uint32_t));

            if (grown == NULL)
                return false;
            t->token = grown;
            if (((size_t)t->n_nodes + 1) * 2 >= t->n_slots && !grow_edges(t))
                return false;
            next = ++t->n_nodes;
            t->token[next] = NO_SYMBOL;
            put_edge(t, (added_edge){ node, next, bytes[i] });
            if (node == 0)
                t->first[bytes[i]] = next;
        }
        node = next;
    }
    t->token[node] = token;
    return true;
}

llm_bpe_status llm_bpe_added_put(added_tokens *a, int32_t id, const uint8_t *bytes, size_t n, const uint8_t *pattern,
                                 size_t n_pattern, unsigned flags)
{
    added_trie *trie = &a->tries[flags & LLM_BPE_NORMALIZED ? 1 : 0];
    uint32_t token;
    bool found;
    void *grown;

    if ((grown = bytes_grow(a->ids, &a->ids_room, (size_t)a->tokens.n + 1, sizeof(int32_t))) == NULL)
        return LLM_BPE_NO_MEMORY;
    a->ids = grown;
    if ((grown = bytes_grow(a->flags, &a->flags_room, (size_t)a->tokens.n + 1, sizeof(uint8_t))) == NULL)
        return LLM_BPE_NO_MEMORY;
    a->flags = grown;
    token = bytes_map_add(&a->tokens, bytes, n, &found);
    if (token == BYTES_MAP_NONE)
        return LLM_BPE_NO_MEMORY;
    if (found)
        return LLM_BPE_DUPLICATE;
    a->ids[token] = id;
    a->flags[token] = (uint8_t)flags;
    if (!llm_bpe_trie_add(trie, pattern, n_pattern, token))
        return LLM_BPE_NO_MEMORY;
    trie->n_tokens++;
    if (!(flags & LLM_BPE_SPECIAL))
        trie->n_plain++;
    return LLM_BPE_OK;
}

/* ---- what stands beside a match ---- */

static bool is_word(uint32_t code)
{
    size_t low = 0, high = sizeof(unicode_words) / sizeof(unicode_words[0]);

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (code > unicode_words[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof(unicode_words) / sizeof(unicode_words[0]) && code >= unicode_words[low].first;
}

/* Where the last character before p begins */
static const uint8_t *previous(const uint8_t *start, const uint8_t *p)
{
    const uint8_t *q = p - 1;

    while (q > start && p - q < 4 && (*q & 0xc0) == 0x80)
        q--;
    return q;
}

static bool word_before(const uint8_t *start, const uint8_t *p)
{
    return p > start && is_word(llm_bpe_code_point(previous(start, p), p));
}

static bool word_after(const uint8_t *p, const uint8_t *end) { return p < end && is_word(llm_bpe_code_point(p, end)); }

/* Where the white space that ends at p begins, not before `from` */
static const uint8_t *spaces_before(const uint8_t *from, const uint8_t *p)
{
    while (p > from) {
        const uint8_t *q = previous(from, p);

        if (llm_bpe_space(q, p) != (size_t)(p - q))
            break;
        p = q;
    }
    return p;
}

static const uint8_t *spaces_after(const uint8_t *p, const uint8_t *end)
{
    size_t length;

    while (p < end && (length = llm_bpe_space(p, end)) > 0)
        p += length;
    return p;
}

/* ---- the search ---- */

bool llm_bpe_added_any(const added_tokens *a, int level, bool special)
{
    return special ? a->tries[level].n_tokens > 0 : a->tries[level].n_plain > 0;
}

/* The longest token that begins at p; *length: how many of its bytes, *looked: how many were looked at */
static uint32_t token_at(const added_trie *t, const uint8_t *p, const uint8_t *end, size_t *length, size_t *looked)
{
    uint32_t node = t->first[*p], found = NO_SYMBOL;
    const uint8_t *q = p + 1;

    for (; node != 0; q++) {
        if (t->token[node] != NO_SYMBOL) {
            found = t->token[node];
            *length = (size_t)(q - p);
        }
        if (q == end)
            break;
        node = follow(t, node, *q);
    }
    *looked += (size_t)(q - p);
    return found;
}

llm_bpe_status llm_bpe_added_next(const added_tokens *a, int level, bool special, const uint8_t *text, size_t n,
                                  added_match *m, llm_should_stop stop, void *arg)
{
    const uint8_t *end = text + n;
    size_t looked = 0;

    for (const uint8_t *p = text + m->search; p < end;) {
        size_t length = 0;
        uint32_t token = token_at(&a->tries[level], p, end, &length, &looked);

        if (looked >= STOP_INTERVAL) {
            looked = 0;
            if (stop != NULL && stop(arg))
                return LLM_BPE_STOPPED;
        }
        if (token == NO_SYMBOL) {
            p++;
            continue;
        }
        m->search = (size_t)(p - text) + length;
        if ((special || !(a->flags[token] & LLM_BPE_SPECIAL)) &&
            !((a->flags[token] & LLM_BPE_SINGLE_WORD) && (word_before(text, p) || word_after(p + length, end)))) {
            size_t taken = m->end;

            m->id = a->ids[token];
            m->start = (size_t)(p - text);
            if (a->flags[token] & LLM_BPE_LSTRIP)
                m->start = taken < m->start ? (size_t)(spaces_before(text + taken, p) - text) : taken;
            m->end = m->search;
            if (a->flags[token] & LLM_BPE_RSTRIP)
                m->end = (size_t)(spaces_after(text + m->search, end) - text);
            /* White space that the token before took with it may be all there is to this one: then it is none. */
            m->found = m->start < m->end;
            if (!m->found) {
                p = text + m->search;
                continue;
            }
            return LLM_BPE_OK;
        }
        p += length;
    }
    m->found = false;
    return LLM_BPE_OK;
}
