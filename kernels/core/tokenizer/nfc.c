/*
 * nfc.c -- normalization form C: every character decomposed, marks in their order, composed again.
 *
 * A run is a starter, which has combining class 0, and the marks behind it. When it ends its marks are sorted, and
 * each that nothing of its class stands before is taken into the starter if the two compose.
 */
#include "nfc.h"

#include <stdlib.h>
#include <string.h>

#include "bpe_internal.h"
#include "unicode_nfc.h"

#define STOP_INTERVAL 16384
#define NONE          UINT32_MAX
/* The first byte of U+0300: characters before it stay as they are among themselves */
#define FIRST_MARK 0xcc

/* Hangul syllables, which are computed (Unicode, section 3.12) */
#define SYLLABLES  0xac00u
#define LEADING    0x1100u
#define VOWEL      0x1161u
#define TRAILING   0x11a7u
#define N_LEADING  19u
#define N_VOWEL    21u
#define N_TRAILING 28u

void llm_nfc_free(llm_nfc_buffer *b)
{
    free(b->text);
    llm_marks_free(&b->marks);
    memset(b, 0, sizeof(*b));
}

size_t llm_nfc_memory(const llm_nfc_buffer *b) { return b->room + llm_marks_memory(&b->marks); }

static uint32_t compose_hangul(uint32_t first, uint32_t second)
{
    if (first - LEADING < N_LEADING && second - VOWEL < N_VOWEL)
        return SYLLABLES + ((first - LEADING) * N_VOWEL + second - VOWEL) * N_TRAILING;
    if (first - SYLLABLES < N_LEADING * N_VOWEL * N_TRAILING && (first - SYLLABLES) % N_TRAILING == 0 &&
        second > TRAILING && second - TRAILING < N_TRAILING)
        return first + second - TRAILING;
    return 0;
}

/* What two characters compose to, 0 when they do not */
static uint32_t compose(uint32_t first, uint32_t second)
{
    size_t low = 0, high = sizeof(nfc_pairs) / sizeof(nfc_pairs[0]);

    if (second < NFC_FIRST_SECOND || (second > NFC_LAST_SECOND && second < NFC_FIRST_SUPPLEMENTARY))
        return 0;
    if (second >= VOWEL && second < TRAILING + N_TRAILING)
        return compose_hangul(first, second);
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (nfc_pairs[middle].first < first || (nfc_pairs[middle].first == first && nfc_pairs[middle].second < second))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == sizeof(nfc_pairs) / sizeof(nfc_pairs[0]) || nfc_pairs[low].first != first ||
        nfc_pairs[low].second != second)
        return 0;
    return nfc_pairs[low].into;
}

static bool reserve(llm_nfc_buffer *b, size_t n)
{
    uint8_t *grown;

    if (b->room - b->n >= n)
        return true;
    grown = bytes_grow(b->text, &b->room, b->n + n, 1);
    if (grown != NULL)
        b->text = grown;
    return grown != NULL;
}

/* The run that ends here: marks are taken into *starter or left in b->marks, in their order. */
static bool compose_marks(llm_nfc_buffer *b, uint32_t *starter)
{
    size_t left = 0;
    uint32_t composed;

    if (!llm_marks_sort(&b->marks))
        return false;
    for (size_t i = 0; i < b->marks.n; i++) {
        llm_mark mark = b->marks.marks[i];
        bool blocked = left > 0 && b->marks.marks[left - 1].class == mark.class;

        if (*starter != NONE && !blocked && (composed = compose(*starter, mark.code)) != 0)
            *starter = composed;
        else
            b->marks.marks[left++] = mark;
    }
    b->marks.n = left;
    return true;
}

/* Writes a starter and its marks. */
static bool put_run(llm_nfc_buffer *b, uint32_t starter)
{
    if (!reserve(b, 4 * (b->marks.n + 1)))
        return false;
    if (starter != NONE)
        b->n += llm_utf8_put(b->text + b->n, starter);
    for (size_t i = 0; i < b->marks.n; i++)
        b->n += llm_utf8_put(b->text + b->n, b->marks.marks[i].code);
    b->marks.n = 0;
    return true;
}

/* A character that does not decompose, behind the run of *starter */
static bool put_part(llm_nfc_buffer *b, uint32_t *starter, uint32_t code)
{
    uint8_t class = llm_unicode_class(code);
    uint32_t composed;

    if (class != 0)
        return llm_marks_add(&b->marks, (llm_mark){ code, class });
    if (!compose_marks(b, starter))
        return false;
    if (*starter != NONE && b->marks.n == 0 && (composed = compose(*starter, code)) != 0) {
        *starter = composed;
        return true;
    }
    if (!put_run(b, *starter))
        return false;
    *starter = code;
    return true;
}

/* How much of the text stays as it is, up to the last character before one that may change */
static size_t unchanged(const uint8_t *text, size_t n)
{
    size_t at = 0, last = 0;

    while (at < n && text[at] < FIRST_MARK) {
        last = at++;
        if (text[last] >= 0xc2 && at < n && (text[at] & 0xc0) == 0x80)
            at++;
    }
    return at == n ? n : last;
}

llm_bpe_status llm_nfc(llm_nfc_buffer *b, const uint8_t *text, size_t n, llm_should_stop stop, void *arg,
                       const uint8_t **out, size_t *n_out)
{
    size_t kept = unchanged(text, n), length;
    const uint8_t *p = text + kept, *end = text + n;
    uint32_t starter = NONE;

    *out = text;
    *n_out = n;
    if (kept == n)
        return LLM_BPE_OK;
    b->n = 0;
    b->marks.n = 0;
    if (!reserve(b, n + 16))
        return LLM_BPE_NO_MEMORY;
    memcpy(b->text, text, kept);
    b->n = kept;
    for (size_t step = 1; p < end; step++, p += length) {
        uint32_t code, parts[4];
        int n_parts;

        kept = unchanged(p, (size_t)(end - p));
        if (kept > 0) {
            if (!compose_marks(b, &starter) || !put_run(b, starter) || !reserve(b, kept))
                return LLM_BPE_NO_MEMORY;
            memcpy(b->text + b->n, p, kept);
            b->n += kept;
            starter = NONE;
            length = kept;
            continue;
        }
        length = llm_bpe_next(p, end, &code);
        if (step % STOP_INTERVAL == 0 && stop != NULL && stop(arg))
            return LLM_BPE_STOPPED;
        if (code == UINT32_MAX) {
            if (!compose_marks(b, &starter) || !put_run(b, starter) || !reserve(b, length))
                return LLM_BPE_NO_MEMORY;
            memcpy(b->text + b->n, p, length);
            b->n += length;
            starter = NONE;
            continue;
        }
        n_parts = llm_unicode_decompose(code, parts);
        for (int i = 0; i < n_parts; i++)
            if (!put_part(b, &starter, parts[i]))
                return LLM_BPE_NO_MEMORY;
    }
    if (!compose_marks(b, &starter) || !put_run(b, starter))
        return LLM_BPE_NO_MEMORY;
    *out = b->text;
    *n_out = b->n;
    return LLM_BPE_OK;
}
