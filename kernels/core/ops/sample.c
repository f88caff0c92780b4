/*
 * sample.c -- from logits to a token: penalties for tokens seen, temperature, top-k, top-p, the draw; or to the
 * likeliest tokens and their probabilities.
 * Linear in the vocabulary: the candidates are ordered by radix sort.
 */
#include "llm_core.h"
#include "engine/memory.h"
#include "engine/scalar_math.h"

#include <stdlib.h>
#include <string.h>

#define FEW_TOKENS 16384      /* are counted on the stack */
#define POLL_EVERY (1u << 19) /* elements between two looks at should_stop: a millisecond or two */

typedef struct poll {
    llm_should_stop stop;
    void *arg;
    bool stopped;
} poll;

/* The end of the block of 0 .. n that begins at `begin`; false when there is none, or it was stopped. */
static bool next_block(poll *p, size_t begin, size_t n, size_t *end)
{
    if (p->stopped || begin >= n)
        return false;
    if (begin > 0 && p->stop != NULL && p->stop(p->arg)) {
        p->stopped = true;
        return false;
    }
    *end = n - begin < POLL_EVERY ? n : begin + POLL_EVERY;
    return true;
}

static bool is_finite(float x) { return x - x == 0; }

/* ---- penalties ------------------------------------------------------------------------- */

static float penalized(float logit, uint32_t count, double repetition, double presence, double frequency)
{
    double x = logit;

    x = x > 0 ? x / repetition : x * repetition;
    return (float)(x - presence - frequency * count);
}

llm_status llm_penalize(float *logits, size_t vocab, const int32_t *seen, size_t n_seen, double repetition,
                        double presence, double frequency, llm_should_stop stop, void *arg)
{
    poll p = { stop, arg, false };
    uint32_t few[FEW_TOKENS], *count = few;

    if (repetition == 1.0 && presence == 0.0 && frequency == 0.0)
        return LLM_OK;
    if (vocab > FEW_TOKENS && (count = llm_malloc(vocab * sizeof *count)) == NULL)
        return LLM_NO_MEMORY;
    for (size_t begin = 0, end; next_block(&p, begin, vocab, &end); begin = end)
        memset(count + begin, 0, (end - begin) * sizeof *count);
    for (size_t begin = 0, end; next_block(&p, begin, n_seen, &end); begin = end)
        for (size_t i = begin; i < end; i++)
            count[seen[i]]++;
    for (size_t begin = 0, end; next_block(&p, begin, n_seen, &end); begin = end)
        for (size_t i = begin; i < end; i++)
            if (count[seen[i]] > 0) {
                logits[seen[i]] = penalized(logits[seen[i]], count[seen[i]], repetition, presence, frequency);
                count[seen[i]] = 0; /* each token once */
            }
    if (count != few)
        free(count);
    return p.stopped ? LLM_STOPPED : LLM_OK;
}

/* ---- candidates ------------------------------------------------------------------------ */

typedef struct candidate {
    uint32_t rank; /* ascending as logits descend */
    uint32_t id;
} candidate;

#define DIGIT_BITS   11
#define DIGITS       3 /* 33 bits cover a rank */
#define DIGIT_VALUES (1u << DIGIT_BITS)

static uint32_t digit_of(uint32_t rank, int digit) { return rank >> (digit * DIGIT_BITS) & (DIGIT_VALUES - 1); }

/* Order-preserving map from finite floats to integers, reversed; -0 ranks as +0 */
static uint32_t rank_of(float logit)
{
    uint32_t bits;

    logit += 0.0f;
    memcpy(&bits, &logit, sizeof bits);
    return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}

/* Stable least-significant-digit radix sort: ids stay ascending within a rank. Returns where the result is. */
static candidate *sort_by_rank(candidate *from, candidate *to, size_t n, poll *p)
{
    for (int digit = 0; digit < DIGITS; digit++) {
        size_t start[DIGIT_VALUES] = { 0 };
        size_t position = 0;
        candidate *swap = from;

        for (size_t begin = 0, end; next_block(p, begin, n, &end); begin = end)
            for (size_t i = begin; i < end; i++)
                start[digit_of(from[i].rank, digit)]++;
        for (uint32_t value = 0; value < DIGIT_VALUES; value++) {
            size_t count = start[value];

            start[value] = position;
            position += count;
        }
        for (size_t begin = 0, end; next_block(p, begin, n, &end); begin = end)
            for (size_t i = begin; i < end; i++)
                to[start[digit_of(from[i].rank, digit)]++] = from[i];
        from = to;
        to = swap;
    }
    return from;
}

/*
 * The k-th smallest rank, k from 1, digit by digit from the top; *before counts the smaller ones. Of no meaning when it
 * was stopped.
 */
static uint32_t select_rank(const candidate *c, size_t n, size_t k, size_t *before, poll *p)
{
    uint32_t prefix = 0, known = 0;

    *before = 0;
    for (int digit = DIGITS - 1; digit >= 0 && !p->stopped; digit--) {
        size_t count[DIGIT_VALUES] = { 0 };
        uint32_t value = 0;

        for (size_t begin = 0, end; next_block(p, begin, n, &end); begin = end)
            for (size_t i = begin; i < end; i++)
                if ((c[i].rank & known) == prefix)
                    count[digit_of(c[i].rank, digit)]++;
        for (; value < DIGIT_VALUES - 1 && *before + count[value] < k; value++)
            *before += count[value];
        prefix |= value << (digit * DIGIT_BITS);
        known |= (DIGIT_VALUES - 1) << (digit * DIGIT_BITS);
    }
    return prefix;
}

/* Keeps the k candidates of smallest rank, lowest ids first among equals, in place and in order of id. */
static void keep_smallest(candidate *c, size_t n, size_t k, poll *p)
{
    size_t before, kept = 0, ties;
    uint32_t last = select_rank(c, n, k, &before, p);

    ties = k - before;
    for (size_t begin = 0, end; next_block(p, begin, n, &end); begin = end)
        for (size_t i = begin; i < end; i++) {
            if (c[i].rank > last || (c[i].rank == last && ties == 0))
                continue;
            if (c[i].rank == last)
                ties--;
            c[kept++] = c[i];
        }
}

static size_t finite_candidates(candidate *c, const float *logits, size_t vocab, poll *p)
{
    size_t n = 0;

    for (size_t begin = 0, end; next_block(p, begin, vocab, &end); begin = end)
        for (size_t i = begin; i < end; i++)
            if (is_finite(logits[i]))
                c[n++] = (candidate){ rank_of(logits[i]), (uint32_t)i };
    return n;
}

/* ---- the draw -------------------------------------------------------------------------- */

static int64_t largest(const float *logits, size_t vocab, poll *p)
{
    int64_t best = -1;

    for (size_t begin = 0, end; next_block(p, begin, vocab, &end); begin = end)
        for (size_t i = begin; i < end; i++)
            if (is_finite(logits[i]) && (best < 0 || logits[i] > logits[best]))
                best = (int64_t)i;
    return best;
}

/* Candidates in descending order of probability; weight (n) is scratch. */
static int64_t draw(const candidate *c, size_t n, double *weight, const float *logits, const llm_sampler *s, poll *p)
{
    double total = 0, kept_total = 0, cumulative = 0;
    double top = logits[c[0].id];
    size_t kept = n;

    for (size_t begin = 0, end; next_block(p, begin, n, &end); begin = end)
        for (size_t i = begin; i < end; i++) {
            weight[i] = llm_exp((logits[c[i].id] - top) / s->temperature);
            total += weight[i];
        }
    if (p->stopped)
        return -3;
    kept_total = total;
    if (s->top_p < 1.0) {
        kept_total = weight[0];
        for (kept = 1; kept < n && kept_total < s->top_p * total; kept++)
            kept_total += weight[kept];
    }
    for (size_t i = 0; i + 1 < kept; i++) {
        cumulative += weight[i];
        if (s->uniform * kept_total < cumulative)
            return c[i].id;
    }
    /* rounding may leave the last sum short of the total: the last token of any weight */
    while (kept > 1 && weight[kept - 1] == 0)
        kept--;
    return c[kept - 1].id;
}

/* `n` elements of `size` bytes, asked for before they are taken */
static void *room_for(size_t n, size_t size) { return n < SIZE_MAX / size ? llm_malloc((n + 1) * size) : NULL; }

int64_t llm_sample(const float *logits, size_t vocab, const llm_sampler *s)
{
    poll p = { s->stop, s->arg, false };
    candidate *c, *sorted;
    double *weight;
    size_t n;
    int64_t id;

    if (!(s->temperature > 0)) {
        id = largest(logits, vocab, &p);
        return p.stopped ? -3 : id;
    }
    c = room_for(vocab, 2 * sizeof *c + sizeof *weight);
    if (c == NULL)
        return -2;
    weight = (double *)(c + 2 * (vocab + 1));
    n = finite_candidates(c, logits, vocab, &p);
    if (n == 0 || p.stopped) {
        free(c);
        return p.stopped ? -3 : -1;
    }
    if (s->top_k > 0 && (uint64_t)s->top_k < n) {
        keep_smallest(c, n, (size_t)s->top_k, &p);
        n = (size_t)s->top_k;
    }
    sorted = p.stopped ? c : sort_by_rank(c, c + vocab + 1, n, &p);
    id = p.stopped ? -3 : draw(sorted, n, weight, logits, s, &p);
    free(c);
    return id;
}

/* ---- the likeliest ------------------------------------------------------------------------ */

int64_t llm_top_tokens(const float *logits, size_t vocab, size_t k, int32_t *ids, double *log_probs,
                       llm_should_stop stop, void *arg)
{
    poll p = { stop, arg, false };
    candidate *c = room_for(vocab, 2 * sizeof *c), *sorted;
    double top, sum = 0;
    int64_t best;
    size_t n;

    if (c == NULL)
        return -2;
    n = finite_candidates(c, logits, vocab, &p);
    best = n == 0 ? -1 : largest(logits, vocab, &p);
    top = best < 0 ? 0 : logits[best];
    for (size_t begin = 0, end; next_block(&p, begin, n, &end); begin = end)
        for (size_t i = begin; i < end; i++)
            sum += llm_exp(logits[c[i].id] - top);
    if (k < n) {
        if (k > 0)
            keep_smallest(c, n, k, &p);
        n = k;
    }
    sorted = p.stopped ? c : sort_by_rank(c, c + vocab + 1, n, &p);
    for (size_t i = 0; i < n && !p.stopped; i++) {
        ids[i] = (int32_t)sorted[i].id;
        log_probs[i] = logits[sorted[i].id] - top - llm_log(sum);
    }
    free(c);
    return p.stopped ? -3 : (int64_t)n;
}
