/*
 * bpe_recover.c -- the merge rules of an encoding that is known by its tokens only, whose ids are the ranks.
 */
#include "bpe_internal.h"
#include "engine/memory.h"

#include <stdlib.h>
#include <string.h>

/* The id of the token made of bytes, NO_RANK when there is none */
static uint32_t rank_of(const llm_bpe *t, const uint8_t *bytes, size_t n)
{
    uint32_t symbol = bytes_map_find(&t->tokens, bytes, n);

    return symbol == NO_SYMBOL ? NO_RANK : (uint32_t)t->ids[symbol];
}

/*
 * Merges the bytes of a token (n), lowest id first, by pairs whose id is below `limit`; cuts (*n_parts + 1)
 * become where the parts begin and end.
 */
static void split_token(const llm_bpe *t, const uint8_t *bytes, size_t n, uint32_t limit, uint16_t *cuts,
                        size_t *n_parts)
{
    size_t parts = n;
    uint32_t rank[LLM_BPE_MAX_TOKEN];

    for (size_t i = 0; i <= n; i++)
        cuts[i] = (uint16_t)i;
    for (size_t i = 0; i + 1 < parts; i++)
        rank[i] = rank_of(t, bytes + i, 2);
    while (parts > 2) {
        size_t at = 0;

        for (size_t i = 1; i + 1 < parts; i++)
            if (rank[i] < rank[at])
                at = i;
        if (rank[at] >= limit)
            break;
        parts--;
        memmove(cuts + at + 1, cuts + at + 2, (parts - at) * sizeof(*cuts));
        memmove(rank + at, rank + at + 1, (parts - at) * sizeof(*rank));
        for (size_t i = at == 0 ? 0 : at - 1; i <= at && i + 1 < parts; i++)
            rank[i] = rank_of(t, bytes + cuts[i], (size_t)(cuts[i + 2] - cuts[i]));
    }
    *n_parts = parts;
}

static int by_id(const void *a, const void *b)
{
    int32_t x = ((const id_entry *)a)->id, y = ((const id_entry *)b)->id;

    return (x > y) - (x < y);
}

llm_bpe_status llm_bpe_recover_merges(const llm_bpe *t, llm_should_stop stop, void *stop_arg, llm_bpe_merge_sink sink,
                                      void *arg)
{
    id_entry *order = llm_malloc((t->tokens.n + (size_t)1) * sizeof(id_entry));
    llm_bpe_status status = LLM_BPE_OK;
    uint32_t rank = 0;

    if (order == NULL)
        return LLM_BPE_NO_MEMORY;
    for (uint32_t i = 0; i < t->tokens.n; i++)
        order[i] = (id_entry){ t->ids[i], i, false };
    qsort(order, t->tokens.n, sizeof(id_entry), by_id);
    for (uint32_t i = 0; i < t->tokens.n && status == LLM_BPE_OK; i++) {
        uint16_t cuts[LLM_BPE_MAX_TOKEN + 1];
        size_t n, n_parts;
        const uint8_t *bytes = bytes_map_get(&t->tokens, order[i].symbol, &n);

        if (i % 256 == 0 && stop != NULL && stop(stop_arg))
            status = LLM_BPE_STOPPED;
        if (n < 2)
            continue;
        split_token(t, bytes, n, (uint32_t)order[i].id, cuts, &n_parts);
        if (n_parts == 2 && rank_of(t, bytes, cuts[1]) < (uint32_t)order[i].id &&
            rank_of(t, bytes + cuts[1], n - cuts[1]) < (uint32_t)order[i].id &&
            !sink(arg, rank++, bytes, cuts[1], bytes + cuts[1], n - cuts[1]))
            status = LLM_BPE_STOPPED;
    }
    free(order);
    return status;
}
