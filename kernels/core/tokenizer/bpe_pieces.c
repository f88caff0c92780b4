/*
 * bpe_pieces.c -- pre-tokenizers beside GPT-2's: how a text is cut into the pieces within which merging happens.
 *
 * Each is a regular expression, written down as ordered alternatives of classes of characters with a least and a most
 * number of them. The first alternative that matches makes the piece; runs are as long as they can be, and are cut
 * back only where what follows demands it, so that the time is linear in the text.
 */
#include "bpe_internal.h"

#include <string.h>

#define MANY 255

#define BIT(kind) (1u << (kind))
#define L         (BIT(KIND_LETTER) | BIT(KIND_UPPER) | BIT(KIND_LOWER))
#define N         BIT(KIND_NUMBER)
#define M         BIT(KIND_MARK)
#define R         BIT(KIND_NEWLINE)
#define S         (R | BIT(KIND_BLANK) | BIT(KIND_SPACE))
#define ANY       (BIT(N_KINDS) - 1u)
#define UPPERISH  (BIT(KIND_UPPER) | BIT(KIND_LETTER) | M) /* [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] */
#define LOWERISH  (BIT(KIND_LOWER) | BIT(KIND_LETTER) | M) /* [\p{Ll}\p{Lm}\p{Lo}\p{M}] */
#define BLANK     { BIT(KIND_BLANK), 0, 1 }
#define SYMBOLS   ANY & ~(S | L | N)
/* What Rust calls numeric: a later Unicode's digits, too */
#define DIGITS (N | BIT(KIND_LATE_NUMBER))

/* 's 't 're 've 'm 'll 'd */
enum { NO_CONTRACTION, ALONE, ALONE_ANY_CASE, BEHIND_ANY_CASE };

typedef struct run {
    uint16_t kinds;
    uint8_t least, most;
} run;

#define MOST_RUNS 3
typedef struct alternative {
    uint8_t contraction; /* ALONE: instead of runs; BEHIND: after them, if it is there */
    uint16_t not_before; /* (?![...]): kinds that may not follow */
    run runs[MOST_RUNS];
} alternative;

#define MOST_ALTERNATIVES 8
typedef struct pattern {
    int n;
    alternative alternatives[MOST_ALTERNATIVES];
} pattern;

/* \s+(?!\S)|\s+ */
#define WHITE_SPACE                                                                                                    \
    { .not_before = ANY & ~S, .runs = { { S, 1, MANY } } }, { .runs = { { S, 1, MANY } } }
/* \s*[\r\n]+ */
#define LINE_ENDS                                                                                                      \
    {                                                                                                                  \
        .runs = { { S, 0, MANY }, { R, 1, MANY } }                                                                     \
    }
#define UPPER_THEN_LOWER(least_upper, least_lower, after)                                                              \
    {                                                                                                                  \
        .contraction = after,                                                                                          \
        .runs = { { ANY & ~(R | L | N), 0, 1 }, { UPPERISH, least_upper, MANY }, { LOWERISH, least_lower, MANY } }     \
    }

static const pattern patterns[] = {
    /* GPT-2's within what Digits leaves: each digit alone, and an end of text before every digit */
    [LLM_BPE_SMOLLM] = { 6,
                         { { .runs = { { DIGITS, 1, 1 } } },
                           { .contraction = ALONE },
                           { .runs = { BLANK, { L, 1, MANY } } },
                           { .runs = { BLANK, { SYMBOLS & ~DIGITS, 1, MANY } } },
                           { .not_before = ANY & ~(S | DIGITS), .runs = { { S, 1, MANY } } },
                           { .runs = { { S, 1, MANY } } } } },
    /*
     * (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
     * \s+(?!\S)|\s+
     */
    [LLM_BPE_LLAMA3] = { 7,
                         { { .contraction = ALONE_ANY_CASE },
                           { .runs = { { ANY & ~(R | L | N), 0, 1 }, { L, 1, MANY } } },
                           { .runs = { { N, 1, 3 } } },
                           { .runs = { BLANK, { SYMBOLS, 1, MANY }, { R, 0, MANY } } },
                           LINE_ENDS,
                           WHITE_SPACE } },
    /* The same with \p{N} */
    [LLM_BPE_QWEN2] = { 7,
                        { { .contraction = ALONE_ANY_CASE },
                          { .runs = { { ANY & ~(R | L | N), 0, 1 }, { L, 1, MANY } } },
                          { .runs = { { N, 1, 1 } } },
                          { .runs = { BLANK, { SYMBOLS, 1, MANY }, { R, 0, MANY } } },
                          LINE_ENDS,
                          WHITE_SPACE } },
    /*
     * [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|
     * the same with + and *|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
     */
    [LLM_BPE_O200K] = { 7,
                        { UPPER_THEN_LOWER(0, 1, BEHIND_ANY_CASE),
                          UPPER_THEN_LOWER(1, 0, BEHIND_ANY_CASE),
                          { .runs = { { N, 1, 3 } } },
                          { .runs = { BLANK, { SYMBOLS, 1, MANY }, { R | BIT(KIND_SLASH), 0, MANY } } },
                          LINE_ENDS,
                          WHITE_SPACE } },
    /* The same without contractions, and with \p{N} */
    [LLM_BPE_TEKKEN] = { 7,
                         { UPPER_THEN_LOWER(0, 1, NO_CONTRACTION),
                           UPPER_THEN_LOWER(1, 0, NO_CONTRACTION),
                           { .runs = { { N, 1, 1 } } },
                           { .runs = { BLANK, { SYMBOLS, 1, MANY }, { R | BIT(KIND_SLASH), 0, MANY } } },
                           LINE_ENDS,
                           WHITE_SPACE } },
};

static const char *const names[] = {
    [LLM_BPE_GPT2] = "gpt2",   [LLM_BPE_SMOLLM] = "smollm", [LLM_BPE_LLAMA3] = "llama3",
    [LLM_BPE_QWEN2] = "qwen2", [LLM_BPE_O200K] = "o200k",   [LLM_BPE_TEKKEN] = "tekken",
};

const char *llm_bpe_pre_tokenizer_name(int i)
{
    return i >= 0 && (size_t)i < sizeof(names) / sizeof(names[0]) ? names[i] : NULL;
}

static inline unsigned kind_at(const uint8_t *p, const uint8_t *end, size_t *length)
{
    uint32_t code = *p;

    *length = 1;
    if (code >= 0x80)
        *length = llm_bpe_next(p, end, &code);
    return llm_bpe_kind(code);
}

/* The letter at p without case, 0 for others; U+017F is a small s. */
static int letter(const uint8_t *p, const uint8_t *end, bool any_case, size_t *length)
{
    *length = 1;
    if (p == end)
        return 0;
    if (any_case && end - p >= 2 && p[0] == 0xc5 && p[1] == 0xbf) {
        *length = 2;
        return 's';
    }
    return any_case && *p >= 'A' && *p <= 'Z' ? *p + 'a' - 'A' : *p;
}

/* The length of 's 't 're 've 'm 'll 'd at p, 0 when it is none of them */
static size_t contraction(const uint8_t *p, const uint8_t *end, bool any_case)
{
    size_t first, second;
    int a, b;

    if (p == end || *p != '\'')
        return 0;
    a = letter(p + 1, end, any_case, &first);
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 1 + first;
    if (a != 'r' && a != 'v' && a != 'l')
        return 0;
    b = letter(p + 1 + first, end, any_case, &second);
    return b == (a == 'l' ? 'l' : 'e') ? 1 + first + second : 0;
}

/* Where runs[i] and those behind it end when they begin at p; NULL: they do not match */
static const uint8_t *match(const alternative *a, int i, const uint8_t *p, const uint8_t *end)
{
    const run *r = &a->runs[i];
    const uint8_t *q = p;
    size_t length, n = 0;

    if (i == MOST_RUNS || r->kinds == 0) {
        if (a->not_before != 0 && p < end && (a->not_before & BIT(kind_at(p, end, &length))))
            return NULL;
        return p;
    }
    while (q < end && (r->most == MANY || n < r->most) && (r->kinds & BIT(kind_at(q, end, &length)))) {
        q += length;
        n++;
    }
    /*
     * A run is cut back by a character at a time. Only white space, letters and marks ever are, which are UTF-8, and
     * what may be there once; at least one is the most that is demanded.
     */
    for (;;) {
        const uint8_t *matched = q == p && r->least > 0 ? NULL : match(a, i + 1, q, end);

        if (matched != NULL || q == p)
            return matched;
        for (q--; q > p && (*q & 0xc0) == 0x80; q--) {
        }
    }
}

static const uint8_t *match_alternative(const alternative *a, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *matched;
    size_t length;

    if (a->contraction == ALONE || a->contraction == ALONE_ANY_CASE) {
        length = contraction(p, end, a->contraction == ALONE_ANY_CASE);
        return length == 0 ? NULL : p + length;
    }
    matched = match(a, 0, p, end);
    if (matched != NULL && a->contraction == BEHIND_ANY_CASE)
        matched += contraction(matched, end, true);
    return matched;
}

size_t llm_bpe_piece(llm_bpe_pre_tokenizer kind, const uint8_t *text, size_t n, size_t at)
{
    const uint8_t *p = text + at, *end = text + n;
    size_t length;

    if (kind == LLM_BPE_GPT2)
        return llm_bpe_split(text, n, at);
    for (int i = 0; i < patterns[kind].n; i++) {
        const uint8_t *matched = match_alternative(&patterns[kind].alternatives[i], p, end);

        if (matched != NULL && matched > p)
            return (size_t)(matched - text);
    }
    /* No pattern leaves a character out. */
    (void)kind_at(p, end, &length);
    return at + length;
}
