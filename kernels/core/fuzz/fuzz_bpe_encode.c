/*
 * fuzz_bpe_encode.c -- any bytes to tokens and back, the tokens compared with those of plain merging; any ids
 * to bytes; any bytes to UTF-8.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz_bpe.h"

#define COMPARED      256 /* bytes: plain merging is quadratic */
#define FIRST_SPECIAL 100000

/* Added tokens that overlap; those that strip take white space that decoding does not give back. */
static const struct {
    const char *text;
    unsigned flags;
} specials[] = { { "<|x|>", LLM_BPE_ADDED | LLM_BPE_SPECIAL },
                 { "<|xx|>", LLM_BPE_ADDED | LLM_BPE_SPECIAL | LLM_BPE_NORMALIZED },
                 { "<a>", LLM_BPE_ADDED | LLM_BPE_SPECIAL | LLM_BPE_SINGLE_WORD },
                 { "<<a>", LLM_BPE_ADDED | LLM_BPE_SPECIAL | LLM_BPE_SINGLE_WORD | LLM_BPE_NORMALIZED } };

/* Words that share parts, runs of one letter, and characters of several bytes. */
static const char taught[] =
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa aaaa aa aaaaaaaa abab abababab bababa abc abcabc 0000 00 0001000 1010 "
    "the then there their other another he her here the the in ing ring string ings ed red reed "
    " \n\n  \n\n    the "
    "\xc3\xa9\xc3\xa9\xc3\xa9 \xc3\xa9t\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac "
    "\xe6\x97\xa5\xe6\x9c\xac\xe6\x97\xa5 "
    "\xf0\x9f\x98\x80\xf0\x9f\x98\x80 \xf0\x9f\x98\x80 \xe2\x80\x8d\xe2\x80\x8d "
    "it's it's we're we're <| <| |> |> ...... ...";

static llm_bpe *tokenizer;
static uint16_t rank[256 + FUZZ_MAX_MERGES][256 + FUZZ_MAX_MERGES]; /* from 1; 0: no merge */

static void prepare(void)
{
    size_t n;
    const int32_t *pairs;

    tokenizer = fuzz_learn((const uint8_t *)taught, sizeof(taught) - 1, FUZZ_MAX_MERGES);
    pairs = fuzz_merges(&n);
    for (size_t i = 0; i < n; i++)
        rank[pairs[2 * i]][pairs[2 * i + 1]] = (uint16_t)(i + 1);
    for (size_t i = 0; i < sizeof(specials) / sizeof(specials[0]); i++)
        if (llm_bpe_put_token(tokenizer, FIRST_SPECIAL + (int32_t)i, (const uint8_t *)specials[i].text,
                              strlen(specials[i].text), specials[i].flags) != LLM_BPE_OK)
            abort();
}

/*
 * The tokens of one piece by the definition: merge the leftmost of the pairs of lowest rank until there is
 * none.
 */
static size_t merge_plainly(int32_t *ids, const uint8_t *piece, size_t n)
{
    static int32_t id_of[256];

    if (id_of['!'] == id_of['"'])
        for (int32_t i = 0; i < 256; i++)
            id_of[llm_bpe_byte(i)] = i;
    for (size_t i = 0; i < n; i++)
        ids[i] = id_of[piece[i]];
    for (;;) {
        size_t at = n;
        uint16_t least = UINT16_MAX;

        for (size_t i = 0; i + 1 < n; i++) {
            uint16_t r = rank[ids[i]][ids[i + 1]];

            if (r != 0 && r < least) {
                least = r;
                at = i;
            }
        }
        if (at == n)
            return n;
        ids[at] = 255 + least;
        n--;
        memmove(ids + at + 1, ids + at + 2, (n - at - 1) * sizeof(*ids));
    }
}

static void compare(const int32_t *found, const uint8_t *text, size_t size)
{
    int32_t ids[COMPARED];

    for (size_t at = 0, end; at < size; at = end) {
        size_t n;

        end = llm_bpe_split(text, size, at);
        if (end <= at || end > size)
            abort();
        n = merge_plainly(ids, text + at, end - at);
        if (memcmp(ids, found, n * sizeof(*ids)) != 0)
            abort();
        found += n;
    }
}

static void decode(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i + 4 <= size && i < 64; i += 4) {
        int32_t id;
        size_t n = 0;
        const uint8_t *bytes;

        memcpy(&id, data + i, 4);
        bytes = llm_bpe_token(tokenizer, id, &n);
        if (bytes != NULL && (n == 0 || n > LLM_BPE_MAX_TOKEN || id < 0 || id >= FIRST_SPECIAL + 4))
            abort();
    }
}

/* What became UTF-8 is, and stays as it is; the bytes' stand-ins stand for them. */
static void to_text(const uint8_t *data, size_t size)
{
    uint8_t *text = malloc(3 * size + 1), *back = malloc(size + 1);
    size_t n = llm_utf8_replace(NULL, data, size, true, true);

    if (n > 3 * size || llm_utf8_replace(text, data, size, true, true) != n ||
        llm_utf8_replace(NULL, text, n, true, true) != n || llm_utf8_replace(NULL, data, size, false, true) > n)
        abort();
    n = llm_bpe_alphabet(text, data, size);
    if (n > 2 * size || llm_bpe_alphabet_bytes(back, text, n) != size || (size > 0 && memcmp(back, data, size) != 0))
        abort();
    free(text);
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const int32_t *ids;

    if (tokenizer == NULL)
        prepare();
    fuzz_round_trip(tokenizer, data, size, true);
    ids = fuzz_round_trip(tokenizer, data, size, false);
    if (size <= COMPARED)
        compare(ids, data, size);
    decode(data, size);
    to_text(data, size);
    return 0;
}
