/*
 * bpe.c -- the tokenizer: its tokens and rules, encoding a text piece by piece, decoding ids.
 */
#include "bpe_internal.h"
#include "engine/memory.h"

#include <stdlib.h>
#include <string.h>

#define CACHE_SLOTS   32768 /* 2 MB; a corpus has few more words that come again and again */
#define CACHE_AFTER   16384 /* bytes */
#define STOP_INTERVAL 16384
#define KEPT_OUTPUT   (1 << 20)

llm_bpe *llm_bpe_create(const llm_bpe_settings *settings)
{
    llm_bpe *t = calloc(1, sizeof(llm_bpe));

    if (t == NULL)
        return NULL;
    t->settings = *settings;
    memset(t->byte_symbol, 0xff, sizeof(t->byte_symbol));
    return t;
}

void llm_bpe_destroy(llm_bpe *t)
{
    if (t == NULL)
        return;
    bytes_map_free(&t->tokens);
    free(t->ranks.slots);
    free(t->ids);
    llm_bpe_added_free(&t->added);
    llm_nfc_free(&t->normalized);
    free(t->merges.slots);
    free(t->by_id);
    free(t->cache);
    free(t->out);
    free(t);
}

size_t llm_bpe_memory(const llm_bpe *t)
{
    return sizeof(*t) + t->tokens.bytes_room + t->tokens.n * (sizeof(size_t) + sizeof(int32_t)) +
           llm_bpe_added_memory(&t->added) + llm_nfc_memory(&t->normalized) +
           t->tokens.n_slots * sizeof(bytes_map_slot) + t->ranks.n_slots * sizeof(uint32_t) +
           t->merges.n_slots * sizeof(merge_rule) + (t->by_id == NULL ? 0 : t->n_by_id * sizeof(id_entry)) +
           (t->cache == NULL ? 0 : CACHE_SLOTS * sizeof(cached_piece)) + t->out_room * sizeof(int32_t);
}

/* ---- tokens and rules ---- */

/* An added token is searched for as its text is after normalizing, if it is searched for there. */
static llm_bpe_status put_added(llm_bpe *t, int32_t id, const uint8_t *bytes, size_t n, unsigned flags)
{
    const uint8_t *pattern = bytes;
    size_t n_pattern = n;

    if ((flags & LLM_BPE_NORMALIZED) && t->settings.nfc &&
        llm_nfc(&t->normalized, bytes, n, NULL, NULL, &pattern, &n_pattern) != LLM_BPE_OK)
        return LLM_BPE_NO_MEMORY;
    if ((flags & LLM_BPE_NORMALIZED) && t->settings.blank == LLM_BPE_BLANK_PREPEND) {
        if (!llm_bpe_mark_blanks(&t->normalized, bytes, n, true, false))
            return LLM_BPE_NO_MEMORY;
        pattern = t->normalized.text;
        n_pattern = t->normalized.n;
    }
    return llm_bpe_added_put(&t->added, id, bytes, n, pattern, n_pattern, flags);
}

llm_bpe_status llm_bpe_put_token(llm_bpe *t, int32_t id, const uint8_t *bytes, size_t n, unsigned flags)
{
    uint32_t symbol;
    bool found;
    void *grown;
    int byte;

    if (id < 0 || n == 0 || n > LLM_BPE_MAX_TOKEN)
        return LLM_BPE_BAD_TOKEN;
    free(t->by_id);
    t->by_id = NULL;
    if (flags & LLM_BPE_ADDED) {
        llm_bpe_status status = put_added(t, id, bytes, n, flags);

        if (status != LLM_BPE_OK || !(flags & LLM_BPE_BASE))
            return status;
    }
    if ((grown = bytes_grow(t->ids, &t->ids_room, (size_t)t->tokens.n + 1, sizeof(int32_t))) == NULL)
        return LLM_BPE_NO_MEMORY;
    t->ids = grown;
    symbol = bytes_map_add(&t->tokens, bytes, n, &found);
    if (symbol == BYTES_MAP_NONE)
        return LLM_BPE_NO_MEMORY;
    if (found)
        return LLM_BPE_DUPLICATE;
    t->ids[symbol] = id;
    byte = t->settings.blank != LLM_BPE_BYTE_LEVEL ? llm_bpe_byte_token(bytes, n) : n == 1 ? bytes[0] : -1;
    if (byte >= 0)
        t->byte_symbol[byte] = symbol;
    return LLM_BPE_OK;
}

static bool grow_merges(merge_table *m)
{
    merge_table larger = { NULL, m->n, m->n_slots == 0 ? 1024 : m->n_slots * 2 };

    larger.slots = llm_malloc(larger.n_slots * sizeof(merge_rule));
    if (larger.slots == NULL)
        return false;
    for (size_t i = 0; i < larger.n_slots; i++)
        larger.slots[i].rank = NO_RANK;
    for (size_t i = 0; i < m->n_slots; i++)
        if (m->slots[i].rank != NO_RANK) {
            size_t slot = merge_slot(&larger, m->slots[i].left, m->slots[i].right);

            while (larger.slots[slot].rank != NO_RANK)
                slot = (slot + 1) & (larger.n_slots - 1);
            larger.slots[slot] = m->slots[i];
        }
    free(m->slots);
    *m = larger;
    return true;
}

static inline size_t rank_slot(const rank_set *s, uint32_t rank)
{
    size_t i = (rank ^ (size_t)(rank >> 16) * 0x9e3779b1u) & (s->n_slots - 1);

    while (s->slots[i] != 0 && s->slots[i] != rank + 1)
        i = (i + 1) & (s->n_slots - 1);
    return i;
}

static bool grow_ranks(rank_set *s)
{
    rank_set larger = { NULL, s->n, s->n_slots == 0 ? 1024 : s->n_slots * 2 };

    if (llm_memory_room(larger.n_slots * sizeof(uint32_t)))
        larger.slots = calloc(larger.n_slots, sizeof(uint32_t));
    if (larger.slots == NULL)
        return false;
    for (size_t i = 0; i < s->n_slots; i++)
        if (s->slots[i] != 0)
            larger.slots[rank_slot(&larger, s->slots[i] - 1)] = s->slots[i];
    free(s->slots);
    *s = larger;
    return true;
}

llm_bpe_status llm_bpe_put_merge(llm_bpe *t, uint32_t rank, const uint8_t *left, size_t n_left, const uint8_t *right,
                                 size_t n_right)
{
    uint8_t joined[LLM_BPE_MAX_TOKEN];
    merge_rule rule = { NO_SYMBOL, NO_SYMBOL, rank, NO_SYMBOL };
    merge_table *merges = &t->merges;
    size_t slot, of_rank;

    if (n_left + n_right > LLM_BPE_MAX_TOKEN || rank == NO_RANK)
        return LLM_BPE_UNKNOWN_TOKEN;
    memcpy(joined, left, n_left);
    memcpy(joined + n_left, right, n_right);
    rule.left = bytes_map_find(&t->tokens, left, n_left);
    rule.right = bytes_map_find(&t->tokens, right, n_right);
    rule.into = bytes_map_find(&t->tokens, joined, n_left + n_right);
    if (rule.left == NO_SYMBOL || rule.right == NO_SYMBOL || rule.into == NO_SYMBOL)
        return LLM_BPE_UNKNOWN_TOKEN;
    if ((merges->n * 2 >= merges->n_slots && !grow_merges(merges)) ||
        (t->ranks.n * 2 >= t->ranks.n_slots && !grow_ranks(&t->ranks)))
        return LLM_BPE_NO_MEMORY;
    slot = merge_slot(merges, rule.left, rule.right);
    for (; merges->slots[slot].rank != NO_RANK; slot = (slot + 1) & (merges->n_slots - 1))
        if (merges->slots[slot].left == rule.left && merges->slots[slot].right == rule.right)
            return LLM_BPE_DUPLICATE;
    of_rank = rank_slot(&t->ranks, rank);
    if (t->ranks.slots[of_rank] != 0)
        return LLM_BPE_DUPLICATE;
    t->ranks.slots[of_rank] = rank + 1;
    t->ranks.n++;
    merges->slots[slot] = rule;
    merges->n++;
    free(t->cache);
    t->cache = NULL;
    return LLM_BPE_OK;
}

/* ---- decoding ---- */

static int compare_ids(const void *a, const void *b)
{
    int32_t x = ((const id_entry *)a)->id, y = ((const id_entry *)b)->id;

    return (x > y) - (x < y);
}

/* The place of an id among the sorted ones, NULL when there is none (or no memory to sort them) */
static const id_entry *find_id(llm_bpe *t, int32_t id)
{
    id_entry key = { id, 0, false };

    if (t->by_id == NULL) {
        size_t n = 0;

        t->by_id = llm_malloc(((size_t)t->tokens.n + t->added.tokens.n + 1) * sizeof(id_entry));
        if (t->by_id == NULL)
            return NULL;
        for (uint32_t i = 0; i < t->tokens.n; i++)
            t->by_id[n++] = (id_entry){ t->ids[i], i, false };
        for (uint32_t i = 0; i < t->added.tokens.n; i++)
            if (!(t->added.flags[i] & LLM_BPE_BASE))
                t->by_id[n++] = (id_entry){ t->added.ids[i], i, true };
        t->n_by_id = n;
        qsort(t->by_id, n, sizeof(id_entry), compare_ids);
    }
    if (id >= 0 && (size_t)id < t->n_by_id && t->by_id[id].id == id)
        return &t->by_id[id];
    return bsearch(&key, t->by_id, t->n_by_id, sizeof(id_entry), compare_ids);
}

const uint8_t *llm_bpe_token(llm_bpe *t, int32_t id, size_t *n)
{
    const id_entry *entry = find_id(t, id);

    if (entry == NULL)
        return NULL;
    return bytes_map_get(entry->added ? &t->added.tokens : &t->tokens, entry->symbol, n);
}

/* ---- encoding ---- */

uint8_t llm_bpe_missing_byte(const llm_bpe *t) { return t->missing_byte; }

static bool reserve_output(llm_bpe *t, size_t n)
{
    int32_t *grown = bytes_grow(t->out, &t->out_room, t->n_out + n, sizeof(int32_t));

    if (grown != NULL)
        t->out = grown;
    return grown != NULL;
}

static llm_bpe_status byte_symbols(llm_bpe *t, const uint8_t *piece, size_t n, uint32_t *symbols, size_t *n_symbols)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        symbols[kept] = t->byte_symbol[piece[i]];
        if (symbols[kept] != NO_SYMBOL) {
            kept++;
        } else if (!t->settings.drop_unknown) {
            t->missing_byte = piece[i];
            return LLM_BPE_NO_BYTE;
        }
    }
    *n_symbols = kept;
    return LLM_BPE_OK;
}

/* The ids of a piece, from its bytes on, at the end of the output */
static llm_bpe_status encode_piece(llm_bpe *t, const uint8_t *piece, size_t n, llm_should_stop stop, void *arg)
{
    uint32_t *symbols, whole;
    llm_bpe_status status;

    if (n > LLM_BPE_MAX_PIECE)
        return LLM_BPE_TOO_LONG;
    if (!reserve_output(t, n))
        return LLM_BPE_NO_MEMORY;
    if (t->settings.ignore_merges && n <= LLM_BPE_MAX_TOKEN) {
        whole = bytes_map_find(&t->tokens, piece, n);
        if (whole != BYTES_MAP_NONE) {
            t->out[t->n_out++] = t->ids[whole];
            return LLM_BPE_OK;
        }
    }
    /* Symbols become ids where they stand. */
    symbols = (uint32_t *)(t->out + t->n_out);
    status = t->settings.blank == LLM_BPE_BYTE_LEVEL ? byte_symbols(t, piece, n, symbols, &n)
                                                     : llm_bpe_character_symbols(t, piece, n, symbols, &n);
    if (status != LLM_BPE_OK)
        return status;
    status = llm_bpe_merge_piece(&t->merges, symbols, &n, stop, arg);
    if (status != LLM_BPE_OK)
        return status;
    for (size_t i = 0; i < n; i++)
        t->out[t->n_out + i] = t->ids[symbols[i]];
    t->n_out += n;
    return LLM_BPE_OK;
}

/* The same for a piece short enough for the cache */
static llm_bpe_status encode_cached(llm_bpe *t, const uint8_t *piece, size_t n)
{
    cached_piece *c = &t->cache[bytes_hash(piece, n) & (CACHE_SLOTS - 1)];
    size_t before = t->n_out, n_ids;
    llm_bpe_status status;

    if (c->n_bytes == n && memcmp(c->bytes, piece, n) == 0) {
        if (!reserve_output(t, CACHED_IDS))
            return LLM_BPE_NO_MEMORY;
        memcpy(t->out + t->n_out, c->ids, sizeof(c->ids));
        t->n_out += c->n_ids;
        return LLM_BPE_OK;
    }
    status = encode_piece(t, piece, n, NULL, NULL);
    n_ids = t->n_out - before;
    if (status == LLM_BPE_OK && n_ids <= CACHED_IDS) {
        memcpy(c->bytes, piece, n);
        c->n_bytes = (uint8_t)n;
        c->n_ids = (uint8_t)n_ids;
        memcpy(c->ids, t->out + before, n_ids * sizeof(int32_t));
    }
    return status;
}

/* Normalized text without added tokens */
static llm_bpe_status encode_ordinary(llm_bpe *t, const uint8_t *text, size_t n, llm_should_stop stop, void *arg)
{
    llm_bpe_status status = LLM_BPE_OK;
    size_t at = 0;

    for (size_t step = 1; at < n && status == LLM_BPE_OK; step++) {
        /* A piece that would be too long need not be looked at to its end. */
        size_t visible = n - at > LLM_BPE_MAX_PIECE + 8 ? at + LLM_BPE_MAX_PIECE + 8 : n;
        size_t end = t->settings.blank == LLM_BPE_BYTE_LEVEL
                         ? llm_bpe_piece(t->settings.pre_tokenizer, text, visible, at)
                     : t->settings.split ? llm_bpe_blank_piece(text, visible, at)
                                         : visible;

        if (t->cache != NULL && end - at <= CACHED_BYTES)
            status = encode_cached(t, text + at, end - at);
        else
            status = encode_piece(t, text + at, end - at, stop, arg);
        at = end;
        if (step % STOP_INTERVAL == 0 && stop != NULL && stop(arg))
            return LLM_BPE_STOPPED;
    }
    return status;
}

/* A search for added tokens that keeps its place, of one of two levels: in the text, in what is then normalized */
typedef struct search {
    int level;
    bool first; /* the text begins here */
    bool special;
    llm_should_stop stop;
    void *arg;
} search;

static llm_bpe_status encode_level(llm_bpe *t, search s, const uint8_t *text, size_t n);

/* What lies between the added tokens of this level */
static llm_bpe_status encode_between(llm_bpe *t, search s, const uint8_t *text, size_t n)
{
    llm_bpe_status status = LLM_BPE_OK;
    llm_bpe_blank blank = t->settings.blank;

    /* Prepend is a normalizer, what Metaspace does comes after all added tokens were found. */
    if (blank != LLM_BPE_BYTE_LEVEL && (s.level == 0) == (blank == LLM_BPE_BLANK_PREPEND)) {
        bool in_front = blank == LLM_BPE_BLANK_FIRST ? s.first : blank != LLM_BPE_BLANK_NEVER;

        if (!llm_bpe_mark_blanks(&t->normalized, text, n, in_front, blank != LLM_BPE_BLANK_PREPEND))
            return LLM_BPE_NO_MEMORY;
        text = t->normalized.text;
        n = t->normalized.n;
    }
    if (s.level == 1)
        return encode_ordinary(t, text, n, s.stop, s.arg);
    if (t->settings.nfc)
        status = llm_nfc(&t->normalized, text, n, s.stop, s.arg, &text, &n);
    s.level = 1;
    return status == LLM_BPE_OK ? encode_level(t, s, text, n) : status;
}

/* Text in which added tokens of this level and the next one are searched for */
static llm_bpe_status encode_level(llm_bpe *t, search s, const uint8_t *text, size_t n)
{
    added_match m = { 0 };
    llm_bpe_status status = LLM_BPE_OK;
    bool first = s.first;

    if (!llm_bpe_added_any(&t->added, s.level, s.special))
        return encode_between(t, s, text, n);
    while (status == LLM_BPE_OK) {
        size_t done = m.end, until;

        status = llm_bpe_added_next(&t->added, s.level, s.special, text, n, &m, s.stop, s.arg);
        until = m.found ? m.start : n;
        s.first = first && done == 0;
        if (status == LLM_BPE_OK && done < until)
            status = encode_between(t, s, text + done, until - done);
        if (status != LLM_BPE_OK || !m.found)
            break;
        if (!reserve_output(t, 1))
            status = LLM_BPE_NO_MEMORY;
        else
            t->out[t->n_out++] = m.id;
    }
    return status;
}

llm_bpe_status llm_bpe_encode(llm_bpe *t, const uint8_t *text, size_t n, bool special, bool begins,
                              llm_should_stop stop, void *arg, const int32_t **ids, size_t *n_ids)
{
    llm_bpe_status status;

    if (t->out_room > KEPT_OUTPUT) {
        free(t->out);
        t->out = NULL;
        t->out_room = 0;
    }
    if (t->normalized.room > KEPT_OUTPUT)
        llm_nfc_free(&t->normalized);
    t->n_out = 0;
    if (!reserve_output(t, n / 4 + CACHED_IDS))
        return LLM_BPE_NO_MEMORY;
    /*
     * Memory for a cache is worth it once more than a few lines were encoded; without it all is only slower.
     */
    t->n_encoded += n;
    if (t->cache == NULL && t->n_encoded >= CACHE_AFTER)
        t->cache = calloc(CACHE_SLOTS, sizeof(cached_piece));
    status = encode_level(t, (search){ 0, begins, special, stop, arg }, text, n);
    *ids = t->out;
    *n_ids = t->n_out;
    return status;
}
