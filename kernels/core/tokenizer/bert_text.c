/*
 * bert_text.c -- BERT's normalizer and pre-tokenizer.
 *
 * The normalizer's steps follow one another in tokenizers: cleaning, blanks around ideographs, decomposition without
 * accents, lower case. Each looks at single characters, but for the order of marks, so that here every character goes
 * through all of them before the next one does; marks wait until their run ends.
 */
#include "bert_text.h"

#include <stdlib.h>
#include <string.h>

#include "bpe_internal.h"
#include "unicode_bert.h"

#define STOP_INTERVAL 16384
#define FEW_MARKS     32
#define REPLACEMENT   0xfffdu
/* The longest a character becomes: a decomposition of four between blanks */
#define MOST_BYTES 32

/* Hangul syllables, whose decomposition is computed (Unicode, section 3.12) */
#define HANGUL_FIRST    0xac00u
#define HANGUL_LAST     0xd7a3u
#define HANGUL_LEADING  0x1100u
#define HANGUL_VOWEL    0x1161u
#define HANGUL_TRAILING 0x11a7u
#define N_VOWELS        21u
#define N_TRAILING      28u

void llm_bert_free(llm_bert_buffer *b)
{
    free(b->text);
    llm_marks_free(&b->marks);
    memset(b, 0, sizeof(*b));
}

size_t llm_bert_memory(const llm_bert_buffer *b) { return b->room + llm_marks_memory(&b->marks); }

/* ---- characters ---- */

static inline int kind_of(uint32_t code) { return bert_kind[bert_page[code / 128] * 128 + code % 128]; }

static inline unsigned flags_of(uint32_t code) { return bert_kinds[kind_of(code)].flags; }

/* The character at p < end and its length; U+FFFD for what is none */
static inline uint32_t character(const uint8_t *p, const uint8_t *end, size_t *length)
{
    uint32_t code;

    if (*p < 0x80) {
        *length = 1;
        return *p;
    }
    *length = llm_bpe_next(p, end, &code);
    return code == UINT32_MAX ? REPLACEMENT : code;
}

size_t llm_utf8_put(uint8_t *p, uint32_t c)
{
    if (c < 0x80) {
        p[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        p[0] = (uint8_t)(0xc0 | c >> 6);
        p[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        p[0] = (uint8_t)(0xe0 | c >> 12);
        p[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        p[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    p[0] = (uint8_t)(0xf0 | c >> 18);
    p[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    p[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    p[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

static inline void put_code(llm_bert_buffer *b, uint32_t c) { b->n += llm_utf8_put(b->text + b->n, c); }

static bool reserve(llm_bert_buffer *b, size_t n)
{
    uint8_t *grown;

    if (b->room - b->n >= n)
        return true;
    grown = bytes_grow(b->text, &b->room, b->n + n, 1);
    if (grown != NULL)
        b->text = grown;
    return grown != NULL;
}

/* ---- the last steps: lower case, and out ---- */

static uint32_t lower(uint32_t code)
{
    size_t first = 0, last = sizeof(bert_lower) / sizeof(bert_lower[0]);

    while (last - first > 1) {
        size_t middle = (first + last) / 2;

        if (bert_lower[middle].first <= code)
            first = middle;
        else
            last = middle;
    }
    return (uint32_t)((int32_t)code + bert_lower[first].delta);
}

/* There is room for it. */
static void put(llm_bert_buffer *b, unsigned options, uint32_t code, unsigned flags)
{
    if (!(options & LLM_BERT_LOWERCASE) || !(flags & BERT_UPPER)) {
        put_code(b, code);
    } else if (code == 0x130) {
        put_code(b, 'i');
        put_code(b, 0x307);
    } else {
        put_code(b, lower(code));
    }
}

/* ---- decomposition: marks in their canonical order ---- */

void llm_marks_free(llm_marks *m)
{
    free(m->marks);
    free(m->sorted);
    memset(m, 0, sizeof(*m));
}

size_t llm_marks_memory(const llm_marks *m) { return (m->room + m->sorted_room) * sizeof(llm_mark); }

bool llm_marks_add(llm_marks *m, llm_mark mark)
{
    llm_mark *grown = bytes_grow(m->marks, &m->room, m->n + 1, sizeof(*grown));

    if (grown == NULL)
        return false;
    m->marks = grown;
    m->marks[m->n++] = mark;
    return true;
}

bool llm_marks_sort(llm_marks *m)
{
    size_t start[256] = { 0 }, n = m->n, total = 0;
    llm_mark *grown;

    if (n <= FEW_MARKS) {
        for (size_t i = 1; i < n; i++) {
            llm_mark mark = m->marks[i];
            size_t k = i;

            for (; k > 0 && m->marks[k - 1].class > mark.class; k--)
                m->marks[k] = m->marks[k - 1];
            m->marks[k] = mark;
        }
        return true;
    }
    grown = bytes_grow(m->sorted, &m->sorted_room, n, sizeof(*grown));
    if (grown == NULL)
        return false;
    m->sorted = grown;
    for (size_t i = 0; i < n; i++)
        start[m->marks[i].class]++;
    for (int class = 0; class < 256; class++) {
        size_t count = start[class];

        start[class] = total;
        total += count;
    }
    for (size_t i = 0; i < n; i++)
        m->sorted[start[m->marks[i].class]++] = m->marks[i];
    memcpy(m->marks, m->sorted, n * sizeof(*grown));
    return true;
}

uint8_t llm_unicode_class(uint32_t code) { return bert_kinds[kind_of(code)].class; }

int llm_unicode_decompose(uint32_t code, uint32_t parts[4])
{
    size_t first = 0, last = sizeof(bert_decompositions) / sizeof(bert_decompositions[0]);
    int n = 0;

    if (code >= HANGUL_FIRST && code <= HANGUL_LAST) {
        uint32_t i = code - HANGUL_FIRST, trailing = i % N_TRAILING;

        parts[0] = HANGUL_LEADING + i / N_TRAILING / N_VOWELS;
        parts[1] = HANGUL_VOWEL + i / N_TRAILING % N_VOWELS;
        parts[2] = HANGUL_TRAILING + trailing;
        return trailing == 0 ? 2 : 3;
    }
    parts[0] = code;
    if (!(flags_of(code) & BERT_DECOMPOSES))
        return 1;
    while (last - first > 1) {
        size_t middle = (first + last) / 2;

        if (bert_decompositions[middle].from <= code)
            first = middle;
        else
            last = middle;
    }
    for (; n < 4 && bert_decompositions[first].to[n] != 0; n++)
        parts[n] = bert_decompositions[first].to[n];
    return n;
}

/* Writes the run of marks that ends here. */
static bool end_marks(llm_bert_buffer *b, unsigned options)
{
    if (b->marks.n == 0)
        return true;
    if (!llm_marks_sort(&b->marks) || !reserve(b, b->marks.n * 4 + MOST_BYTES))
        return false;
    for (size_t i = 0; i < b->marks.n; i++)
        put(b, options, b->marks.marks[i].code, flags_of(b->marks.marks[i].code));
    b->marks.n = 0;
    return true;
}

/* A character that does not decompose: accents go, other marks wait, anything else ends their run. */
static bool put_part(llm_bert_buffer *b, unsigned options, uint32_t code)
{
    int kind = kind_of(code);

    /* Where an accent stood among the others is of no account. */
    if (bert_kinds[kind].class != 0)
        return (bert_kinds[kind].flags & BERT_MARK) ||
               llm_marks_add(&b->marks, (llm_mark){ code, bert_kinds[kind].class });
    if (!end_marks(b, options))
        return false;
    if (!(bert_kinds[kind].flags & BERT_MARK))
        put(b, options, code, bert_kinds[kind].flags);
    return true;
}

static bool put_decomposed(llm_bert_buffer *b, unsigned options, uint32_t code, unsigned flags)
{
    uint32_t parts[4];
    int n;

    if (!(flags & BERT_DECOMPOSES) && (code < HANGUL_FIRST || code > HANGUL_LAST))
        return put_part(b, options, code);
    n = llm_unicode_decompose(code, parts);
    for (int i = 0; i < n; i++)
        if (!put_part(b, options, parts[i]))
            return false;
    return true;
}

/* ---- the normalizer ---- */

static bool put_character(llm_bert_buffer *b, unsigned options, uint32_t code)
{
    unsigned flags = flags_of(code);
    bool blanks = (options & LLM_BERT_HANDLE_CHINESE_CHARS) && (flags & BERT_IDEOGRAPH);

    if (options & LLM_BERT_CLEAN_TEXT) {
        if (flags & BERT_OTHER)
            return true;
        if (flags & BERT_SPACE) {
            code = ' ';
            flags = BERT_SPACE;
        }
    }
    if (!(options & LLM_BERT_STRIP_ACCENTS)) {
        if (blanks)
            put_code(b, ' ');
        put(b, options, code, flags);
        if (blanks)
            put_code(b, ' ');
        return true;
    }
    if (blanks)
        return put_part(b, options, ' ') && put_decomposed(b, options, code, flags) && put_part(b, options, ' ');
    return put_decomposed(b, options, code, flags);
}

llm_bpe_status llm_bert_normalize(llm_bert_buffer *b, unsigned options, const uint8_t *text, size_t n,
                                  llm_should_stop stop, void *arg)
{
    const uint8_t *p = text, *end = text + n;
    size_t length;

    b->n = 0;
    b->marks.n = 0;
    for (size_t step = 1; p < end; step++, p += length) {
        uint32_t code = character(p, end, &length);

        /* Room for all that is left, if it stays as it is, so that a text is rarely moved. */
        if (b->room - b->n < MOST_BYTES && !reserve(b, (size_t)(end - p) + MOST_BYTES))
            return LLM_BPE_NO_MEMORY;
        if (!put_character(b, options, code))
            return LLM_BPE_NO_MEMORY;
        if (step % STOP_INTERVAL == 0 && stop != NULL && stop(arg))
            return LLM_BPE_STOPPED;
    }
    return end_marks(b, options) ? LLM_BPE_OK : LLM_BPE_NO_MEMORY;
}

/* ---- the pre-tokenizer ---- */

bool llm_bert_word(const uint8_t *text, size_t n, size_t *start, size_t *end, size_t *n_characters)
{
    const uint8_t *p = text + *start, *stop = text + n;
    size_t length;
    unsigned flags = BERT_SPACE;

    for (; p < stop; p += length) {
        flags = flags_of(character(p, stop, &length));
        if (!(flags & BERT_SPACE))
            break;
    }
    *start = (size_t)(p - text);
    *n_characters = 0;
    for (; p < stop; p += length) {
        flags = flags_of(character(p, stop, &length));
        if ((flags & BERT_SPACE) || ((flags & BERT_PUNCTUATION) && *n_characters > 0))
            break;
        ++*n_characters;
        if (flags & BERT_PUNCTUATION) {
            p += length;
            break;
        }
    }
    *end = (size_t)(p - text);
    return *n_characters > 0;
}
