/*
 * wordpiece.c -- the vocabulary as a trie, encoding word by word, decoding.
 */
#include "wordpiece.h"

#include <stdlib.h>
#include <string.h>

#include "bpe_internal.h"
#include "engine/memory.h"

#define STOP_INTERVAL 16384
#define KEPT_OUTPUT   (1 << 20)
#define NOWHERE       UINT32_MAX

typedef struct id_slot {
    int32_t id;
    uint32_t token;
} id_slot;

struct llm_wordpiece {
    llm_wordpiece_settings settings; /* unknown and prefix are own copies */
    bytes_map tokens;                /* texts; their numbers here are what the trie leads to */
    int32_t *ids;                    /* of each */
    size_t ids_room;
    added_trie words;      /* tokens that words are made of */
    uint32_t inside;       /* the trie's node behind the prefix; NOWHERE: no token has it */
    added_tokens added[2]; /* not normalized, normalized */
    id_slot *by_id;        /* sorted, made by seal */
    int32_t unknown;
    llm_bert_buffer normal; /* the text between two added tokens */
    int32_t *out;
    size_t n_out, out_room;
    size_t looked; /* bytes of words, since stop was asked */
};

static uint8_t *copy_of(const uint8_t *bytes, size_t n)
{
    uint8_t *copy = llm_malloc(n + 1);

    if (copy != NULL && n > 0)
        memcpy(copy, bytes, n);
    return copy;
}

llm_wordpiece *llm_wordpiece_create(const llm_wordpiece_settings *settings)
{
    llm_wordpiece *t = calloc(1, sizeof(llm_wordpiece));

    if (t == NULL)
        return NULL;
    t->settings = *settings;
    t->settings.unknown = copy_of(settings->unknown, settings->n_unknown);
    t->settings.prefix = copy_of(settings->prefix, settings->n_prefix);
    if (t->settings.unknown == NULL || t->settings.prefix == NULL) {
        llm_wordpiece_destroy(t);
        return NULL;
    }
    return t;
}

void llm_wordpiece_destroy(llm_wordpiece *t)
{
    if (t == NULL)
        return;
    free((void *)(uintptr_t)t->settings.unknown);
    free((void *)(uintptr_t)t->settings.prefix);
    bytes_map_free(&t->tokens);
    free(t->ids);
    llm_bpe_trie_free(&t->words);
    llm_bpe_added_free(&t->added[0]);
    llm_bpe_added_free(&t->added[1]);
    free(t->by_id);
    llm_bert_free(&t->normal);
    free(t->out);
    free(t);
}

size_t llm_wordpiece_memory(const llm_wordpiece *t)
{
    return sizeof(*t) + t->settings.n_unknown + t->settings.n_prefix + t->tokens.bytes_room +
           t->tokens.n * (sizeof(size_t) + sizeof(int32_t)) + t->tokens.n_slots * sizeof(bytes_map_slot) +
           llm_bpe_trie_memory(&t->words) + llm_bpe_added_memory(&t->added[0]) + llm_bpe_added_memory(&t->added[1]) +
           (t->by_id == NULL ? 0 : t->tokens.n * sizeof(id_slot)) + llm_bert_memory(&t->normal) +
           t->out_room * sizeof(int32_t);
}

/* ---- tokens ---- */

/* What the text is searched for: the token itself, or what the normalizer makes of it */
static llm_bpe_status put_added(llm_wordpiece *t, int32_t id, const uint8_t *token, size_t n, unsigned flags)
{
    llm_bpe_status status;

    if (!(flags & LLM_BPE_NORMALIZED))
        return llm_bpe_added_put(&t->added[0], id, token, n, token, n, flags);
    status = llm_bert_normalize(&t->normal, t->settings.normalizer, token, n, NULL, NULL);
    if (status != LLM_BPE_OK)
        return status;
    if (t->normal.n == 0)
        return LLM_BPE_BAD_TOKEN;
    status = llm_bpe_added_put(&t->added[1], id, t->normal.text, t->normal.n, t->normal.text, t->normal.n, flags);
    return status == LLM_BPE_DUPLICATE ? LLM_BPE_OK : status;
}

llm_bpe_status llm_wordpiece_put_token(llm_wordpiece *t, int32_t id, const uint8_t *token, size_t n, unsigned flags)
{
    uint32_t number;
    bool found;
    void *grown;

    if (id < 0 || n == 0 || n > LLM_BPE_MAX_TOKEN)
        return LLM_BPE_BAD_TOKEN;
    if ((grown = bytes_grow(t->ids, &t->ids_room, (size_t)t->tokens.n + 1, sizeof(int32_t))) == NULL)
        return LLM_BPE_NO_MEMORY;
    t->ids = grown;
    number = bytes_map_add(&t->tokens, token, n, &found);
    if (number == BYTES_MAP_NONE)
        return LLM_BPE_NO_MEMORY;
    if (found)
        return LLM_BPE_DUPLICATE;
    t->ids[number] = id;
    if ((!(flags & LLM_BPE_ADDED) || (flags & LLM_BPE_BASE)) && !llm_bpe_trie_add(&t->words, token, n, number))
        return LLM_BPE_NO_MEMORY;
    return flags & LLM_BPE_ADDED ? put_added(t, id, token, n, flags) : LLM_BPE_OK;
}

static int compare_ids(const void *a, const void *b)
{
    int32_t x = ((const id_slot *)a)->id, y = ((const id_slot *)b)->id;

    return (x > y) - (x < y);
}

/* The trie's node behind some bytes; NOWHERE: there is none. Nothing at all leads to the root. */
static uint32_t walk(const added_trie *t, const uint8_t *bytes, size_t n)
{
    uint32_t node = 0;

    for (size_t i = 0; i < n; i++) {
        node = llm_bpe_trie_follow(t, node, bytes[i]);
        if (node == 0)
            return NOWHERE;
    }
    return node;
}

llm_bpe_status llm_wordpiece_seal(llm_wordpiece *t)
{
    uint32_t unknown = walk(&t->words, t->settings.unknown, t->settings.n_unknown);

    if (unknown == NOWHERE || unknown == 0 || t->words.token[unknown] == NO_SYMBOL)
        return LLM_BPE_UNKNOWN_TOKEN;
    t->unknown = t->ids[t->words.token[unknown]];
    t->inside = walk(&t->words, t->settings.prefix, t->settings.n_prefix);
    t->by_id = llm_malloc(t->tokens.n * sizeof(id_slot));
    if (t->by_id == NULL)
        return LLM_BPE_NO_MEMORY;
    for (uint32_t i = 0; i < t->tokens.n; i++)
        t->by_id[i] = (id_slot){ t->ids[i], i };
    qsort(t->by_id, t->tokens.n, sizeof(id_slot), compare_ids);
    return LLM_BPE_OK;
}

const uint8_t *llm_wordpiece_token(const llm_wordpiece *t, int32_t id, size_t *n)
{
    id_slot key = { id, 0 };
    const id_slot *slot;

    if (id >= 0 && (uint32_t)id < t->tokens.n && t->by_id[id].id == id)
        slot = &t->by_id[id];
    else
        slot = bsearch(&key, t->by_id, t->tokens.n, sizeof(id_slot), compare_ids);
    return slot == NULL ? NULL : bytes_map_get(&t->tokens, slot->token, n);
}

/* ---- encoding ---- */

static bool reserve_output(llm_wordpiece *t, size_t n)
{
    int32_t *grown;

    if (t->out_room - t->n_out >= n)
        return true;
    grown = bytes_grow(t->out, &t->out_room, t->n_out + n, sizeof(int32_t));
    if (grown != NULL)
        t->out = grown;
    return grown != NULL;
}

/* The longest token that word[at] begins with, within a word or at its start; *end: where it ends */
static uint32_t longest(llm_wordpiece *t, const uint8_t *word, size_t n, size_t at, size_t *end)
{
    uint32_t node = at == 0 ? 0 : t->inside, found = NO_SYMBOL;
    size_t i = at;

    if (node == NOWHERE)
        return NO_SYMBOL;
    for (; i < n; i++) {
        node = i == 0 ? t->words.first[word[0]] : llm_bpe_trie_follow(&t->words, node, word[i]);
        if (node == 0)
            break;
        if (t->words.token[node] != NO_SYMBOL) {
            found = t->words.token[node];
            *end = i + 1;
        }
    }
    t->looked += i - at + 1;
    return found;
}

static llm_bpe_status encode_word(llm_wordpiece *t, const uint8_t *word, size_t n, size_t n_characters,
                                  llm_should_stop stop, void *arg)
{
    size_t before = t->n_out;
    bool whole = n_characters <= t->settings.max_characters;

    for (size_t at = 0, end = 0; at < n && whole; at = end) {
        uint32_t token = longest(t, word, n, at, &end);

        if (t->looked >= STOP_INTERVAL) {
            t->looked = 0;
            if (stop != NULL && stop(arg))
                return LLM_BPE_STOPPED;
        }
        whole = token != NO_SYMBOL;
        if (!whole)
            break;
        if (!reserve_output(t, 1))
            return LLM_BPE_NO_MEMORY;
        t->out[t->n_out++] = t->ids[token];
    }
    if (whole)
        return LLM_BPE_OK;
    t->n_out = before;
    if (!reserve_output(t, 1))
        return LLM_BPE_NO_MEMORY;
    t->out[t->n_out++] = t->unknown;
    return LLM_BPE_OK;
}

/* Normalized text without added tokens */
static llm_bpe_status encode_words(llm_wordpiece *t, const uint8_t *text, size_t n, llm_should_stop stop, void *arg)
{
    llm_bpe_status status = LLM_BPE_OK;
    size_t start = 0, end, n_characters;

    while (status == LLM_BPE_OK && llm_bert_word(text, n, &start, &end, &n_characters)) {
        status = encode_word(t, text + start, end - start, n_characters, stop, arg);
        /* A word too long to be looked at was read all the same. */
        t->looked += end - start;
        start = end;
    }
    return status;
}

/* Text in which added tokens of this level and the next one are searched for; before level 1 it is normalized. */
static llm_bpe_status encode_level(llm_wordpiece *t, int level, const uint8_t *text, size_t n, bool special,
                                   llm_should_stop stop, void *arg)
{
    added_match m = { 0 };
    llm_bpe_status status = LLM_BPE_OK;
    bool any;

    if (level == 2)
        return encode_words(t, text, n, stop, arg);
    if (level == 1) {
        status = llm_bert_normalize(&t->normal, t->settings.normalizer, text, n, stop, arg);
        if (status != LLM_BPE_OK)
            return status;
        text = t->normal.text;
        n = t->normal.n;
        if (n == 0)
            return LLM_BPE_OK;
    }
    any = llm_bpe_added_any(&t->added[level], level, special);
    if (!any)
        return encode_level(t, level + 1, text, n, special, stop, arg);
    while (status == LLM_BPE_OK) {
        size_t done = m.end, until;

        status = llm_bpe_added_next(&t->added[level], level, special, text, n, &m, stop, arg);
        until = m.found ? m.start : n;
        if (status == LLM_BPE_OK && done < until)
            status = encode_level(t, level + 1, text + done, until - done, special, stop, arg);
        if (status != LLM_BPE_OK || !m.found)
            break;
        if (!reserve_output(t, 1))
            return LLM_BPE_NO_MEMORY;
        t->out[t->n_out++] = m.id;
    }
    return status;
}

llm_bpe_status llm_wordpiece_encode(llm_wordpiece *t, const uint8_t *text, size_t n, bool special, llm_should_stop stop,
                                    void *arg, const int32_t **ids, size_t *n_ids)
{
    llm_bpe_status status;

    if (t->out_room > KEPT_OUTPUT) {
        free(t->out);
        t->out = NULL;
        t->out_room = 0;
    }
    if (llm_bert_memory(&t->normal) > KEPT_OUTPUT)
        llm_bert_free(&t->normal);
    t->n_out = 0;
    if (!reserve_output(t, n / 4 + 8))
        return LLM_BPE_NO_MEMORY;
    status = encode_level(t, 0, text, n, special, stop, arg);
    *ids = t->out;
    *n_ids = t->n_out;
    return status;
}

/* ---- decoding ---- */

/* What tokenizers' WordPiece decoder does to each token by itself, in this order */
static const char *const cleanups[][2] = { { " .", "." },     { " ?", "?" },           { " !", "!" },
                                           { " ,", "," },     { " ' ", "'" },          { " n't", "n't" },
                                           { " 'm", "'m" },   { " do not", " don't" }, { " 's", "'s" },
                                           { " 've", "'ve" }, { " 're", "'re" } };

/* Each place where text (n) reads `from`, from left to right, becomes the shorter `to`; returns the new length. */
static size_t replace(uint8_t *text, size_t n, const char *from, const char *to)
{
    size_t n_from = strlen(from), n_to = strlen(to), written = 0;

    for (size_t i = 0; i < n;) {
        if (n - i >= n_from && memcmp(text + i, from, n_from) == 0) {
            memcpy(text + written, to, n_to);
            written += n_to;
            i += n_from;
        } else {
            text[written++] = text[i++];
        }
    }
    return written;
}

size_t llm_wordpiece_part(const llm_wordpiece *t, int32_t id, bool first, uint8_t *out)
{
    size_t n, n_prefix = t->settings.n_prefix;
    const uint8_t *token = llm_wordpiece_token(t, id, &n);

    if (token == NULL)
        return SIZE_MAX;
    if (first) {
        memcpy(out, token, n);
    } else if (n >= n_prefix && memcmp(token, t->settings.prefix, n_prefix) == 0) {
        n -= n_prefix;
        memcpy(out, token + n_prefix, n);
    } else {
        out[0] = ' ';
        memcpy(out + 1, token, n++);
    }
    for (size_t i = 0; t->settings.cleanup && i < sizeof(cleanups) / sizeof(cleanups[0]); i++)
        n = replace(out, n, cleanups[i][0], cleanups[i][1]);
    return n;
}
