/*
 * tokenizer.c -- tokenizers that a session keeps in memory, encoding and decoding with them.
 *
 * The rows of llm_bpe_vocab and llm_bpe_merges are the truth; a tokenizer here is one version of a model's, named by
 * bytes that PL/pgSQL chooses. PL/pgSQL looks a version up, feeds its rows when memory lacks it, and gets a handle.
 * A tokenizer is its role's alone: nobody else finds it, so that what a role may not read stays hidden, and what it
 * fed by hand deceives no SECURITY DEFINER function.
 *
 * States of a handle: bpe_create or wordpiece_create --> being fed (put_token, put_merge; the next create forgets it); seal --> in memory
 * (encode, decode, bpe_open), which ends with llm_release() or when others take its place. Anything else is 55000.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "session/engine.h"
#include "tensor/tensor.h"
#include "tokenizer.h"

#define MAX_TOKENIZERS 8
#define LARGE_OUTPUT   (1 << 20)

static Tokenizer *tokenizers = NULL;
static int32      last_handle = 0;

/* ---- errors and text ---- */

void
tokenizer_check(llm_bpe_status status)
{
    switch (status)
    {
        case LLM_BPE_OK:
            return;
        case LLM_BPE_NO_MEMORY:
            ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory in the tokenizer"));
            break;
        case LLM_BPE_TOO_LONG:
            ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                    errmsg("a word of the text is longer than %zu bytes", LLM_BPE_MAX_PIECE),
                    errhint("GPT-2's pre-tokenizer splits a text into words: runs of letters, of digits, ..."));
            break;
        default:
            CHECK_FOR_INTERRUPTS();
            ereport(ERROR, errcode(ERRCODE_QUERY_CANCELED),
                    errmsg("canceling statement: the tokenizer was interrupted"));
    }
}

const uint8_t *
tokenizer_utf8(const text *t, size_t *n)
{
    char *server = VARDATA_ANY(t);
    int   len = VARSIZE_ANY_EXHDR(t);
    char *utf8 = pg_server_to_any(server, len, PG_UTF8);

    *n = utf8 == server ? (size_t) len : strlen(utf8);
    return (const uint8_t *) utf8;
}

text *
tokenizer_text(const uint8_t *utf8, size_t n)
{
    char *server = pg_any_to_server((char *) (uintptr_t) utf8, (int) n, PG_UTF8);

    return cstring_to_text_with_len(server, server == (const char *) utf8 ? (int) n : (int) strlen(server));
}

/* ---- tokenizers in memory ---- */

void
tokenizer_forget(Tokenizer *t)
{
    Tokenizer **link = &tokenizers;

    while (*link != t)
        link = &(*link)->next;
    *link = t->next;
    llm_bpe_destroy(t->bpe);
    llm_wordpiece_destroy(t->wordpiece);
    if (t->around != NULL)
        pfree(t->around);
    pfree(t->model);
    pfree(t->version);
    pfree(t);
}

size_t
tokenizer_release(void)
{
    size_t bytes = 0;

    while (tokenizers != NULL)
    {
        if (tokenizers->bpe != NULL)
            bytes += llm_bpe_memory(tokenizers->bpe);
        if (tokenizers->wordpiece != NULL)
            bytes += llm_wordpiece_memory(tokenizers->wordpiece);
        tokenizer_forget(tokenizers);
    }
    return bytes;
}

static void
move_to_front(Tokenizer *t)
{
    Tokenizer **link = &tokenizers;

    while (*link != t)
        link = &(*link)->next;
    *link = t->next;
    t->next = tokenizers;
    tokenizers = t;
}

Tokenizer *
tokenizer_require(int32 handle, bool sealed)
{
    for (Tokenizer *t = tokenizers; t != NULL; t = t->next)
        if (t->handle == handle && t->user == GetUserId() && t->sealed == sealed)
            return t;
    ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
            errmsg("tokenizer %d is not %s", handle, sealed ? "in memory" : "being fed"),
            errhint("Call llm_encode or llm_decode, which read the tokenizer when they need it."));
}

/* pg_llm_bpe_open(model, version) -> handle, NULL when memory lacks that version */
PG_FUNCTION_INFO_V1(pg_llm_bpe_open);
Datum
pg_llm_bpe_open(PG_FUNCTION_ARGS)
{
    text  *model = PG_GETARG_TEXT_PP(0);
    bytea *version = PG_GETARG_BYTEA_PP(1);
    size_t model_len = VARSIZE_ANY_EXHDR(model);
    int    version_len = VARSIZE_ANY_EXHDR(version);

    for (Tokenizer *t = tokenizers; t != NULL; t = t->next)
        if (t->sealed && t->user == GetUserId() && t->version_len == version_len &&
            memcmp(t->version, VARDATA_ANY(version), version_len) == 0 && strlen(t->model) == model_len &&
            memcmp(t->model, VARDATA_ANY(model), model_len) == 0)
        {
            move_to_front(t);
            PG_RETURN_INT32(t->handle);
        }
    PG_RETURN_NULL();
}

/* Room for one more: this role's other versions of the model go, what it never fed to the end, and the least recently used. */
static void
trim(const char *model)
{
    int n = 0;

    for (Tokenizer *t = tokenizers, *next; t != NULL; t = next)
    {
        next = t->next;
        if ((t->user == GetUserId() && (!t->sealed || strcmp(t->model, model) == 0)) || ++n >= MAX_TOKENIZERS)
            tokenizer_forget(t);
    }
}

Tokenizer *
tokenizer_begin(text *model, bytea *version)
{
    char      *name = text_to_cstring(model);
    int        version_len = VARSIZE_ANY_EXHDR(version);
    char      *own_model = MemoryContextStrdup(TopMemoryContext, name);
    char      *own_version = MemoryContextAlloc(TopMemoryContext, version_len + 1);
    Tokenizer *t = MemoryContextAllocZero(TopMemoryContext, sizeof(Tokenizer));

    trim(name);
    memcpy(own_version, VARDATA_ANY(version), version_len);
    t->next = tokenizers;
    t->handle = ++last_handle;
    t->user = GetUserId();
    t->model = own_model;
    t->version_len = version_len;
    t->version = own_version;
    tokenizers = t;
    return t;
}

void
tokenizer_put_around(Tokenizer *t, IntArray before, IntArray after)
{
    if (before.n > LLM_BPE_MAX_TOKEN || after.n > LLM_BPE_MAX_TOKEN)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("there can be at most %d tokens before and behind a text", LLM_BPE_MAX_TOKEN));
    t->around = MemoryContextAlloc(TopMemoryContext, (before.n + after.n + 1) * sizeof(int32));
    if (before.n > 0)
        memcpy(t->around, before.values, before.n * sizeof(int32));
    if (after.n > 0)
        memcpy(t->around + before.n, after.values, after.n * sizeof(int32));
    t->n_before = (int32) before.n;
    t->n_after = (int32) after.n;
}

/* The pre-tokenizer of that name */
static llm_bpe_pre_tokenizer
pre_tokenizer_of(const char *name)
{
    const char    *known;
    StringInfoData all;

    for (int i = 0; (known = llm_bpe_pre_tokenizer_name(i)) != NULL; i++)
        if (strcmp(known, name) == 0)
            return (llm_bpe_pre_tokenizer) i;
    initStringInfo(&all);
    for (int i = 0; (known = llm_bpe_pre_tokenizer_name(i)) != NULL; i++)
        appendStringInfo(&all, "%s%s", i == 0 ? "" : ", ", known);
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("there is no pre-tokenizer \"%s\"", name),
            errhint("There are %s.", all.data));
}

#define OPTION_NFC           1
#define OPTION_IGNORE_MERGES 2
#define OPTION_DROP_UNKNOWN  4

/* pg_llm_bpe_create(model, version, pre_tokenizer, options, before_ids, after_ids) -> handle, to be fed and sealed */
PG_FUNCTION_INFO_V1(pg_llm_bpe_create);
Datum
pg_llm_bpe_create(PG_FUNCTION_ARGS)
{
    int32            options = PG_GETARG_INT32(3);
    IntArray         before = tensor_int_array(PG_GETARG_DATUM(4), "before_ids");
    IntArray         after = tensor_int_array(PG_GETARG_DATUM(5), "after_ids");
    llm_bpe_settings settings = {.pre_tokenizer = pre_tokenizer_of(text_to_cstring(PG_GETARG_TEXT_PP(2))),
                                 .nfc = (options & OPTION_NFC) != 0,
                                 .ignore_merges = (options & OPTION_IGNORE_MERGES) != 0,
                                 .drop_unknown = (options & OPTION_DROP_UNKNOWN) != 0};
    Tokenizer       *t;

    if (options < 0 || options > 2 * OPTION_DROP_UNKNOWN - 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%d is not a set of options", options));
    t = tokenizer_begin(PG_GETARG_TEXT_PP(0), PG_GETARG_BYTEA_PP(1));
    tokenizer_put_around(t, before, after);
    t->bpe = llm_bpe_create(&settings);
    if (t->bpe == NULL)
    {
        tokenizer_forget(t);
        tokenizer_check(LLM_BPE_NO_MEMORY);
    }
    PG_RETURN_INT32(t->handle);
}

/* pg_llm_bpe_put_token(handle, token_id, bytes, flags); flags are LLM_BPE_ADDED ... */
PG_FUNCTION_INFO_V1(pg_llm_bpe_put_token);
Datum
pg_llm_bpe_put_token(PG_FUNCTION_ARGS)
{
    Tokenizer     *t = tokenizer_require(PG_GETARG_INT32(0), false);
    bytea         *bytes = PG_GETARG_BYTEA_PP(2);
    int32          flags = PG_GETARG_INT32(3);
    llm_bpe_status status;

    if (flags < 0 || flags > 2 * LLM_BPE_BASE - 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%d is not a set of token flags", flags));
    if (t->wordpiece != NULL)
    {
        wordpiece_put_token(t, PG_GETARG_INT32(1), (const uint8_t *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes),
                            (unsigned) flags);
        PG_RETURN_VOID();
    }
    status = llm_bpe_put_token(t->bpe, PG_GETARG_INT32(1), (const uint8_t *) VARDATA_ANY(bytes),
                               VARSIZE_ANY_EXHDR(bytes), (unsigned) flags);

    if (status == LLM_BPE_DUPLICATE)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("token %d of model \"%s\" has the same bytes as another token", PG_GETARG_INT32(1), t->model));
    if (status == LLM_BPE_BAD_TOKEN)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("token %d of model \"%s\" has " UINT64_FORMAT " bytes, not 1 to %d", PG_GETARG_INT32(1),
                       t->model, (uint64) VARSIZE_ANY_EXHDR(bytes), LLM_BPE_MAX_TOKEN));
    tokenizer_check(status);
    PG_RETURN_VOID();
}

/* The bytes of a token of the merges: what its characters stand for, unless they are plain text */
static uint8_t *
token_bytes(const text *token, bool plain, size_t *n)
{
    size_t         len;
    const uint8_t *utf8 = tokenizer_utf8(token, &len);
    uint8_t       *bytes = palloc(len + 1);

    *n = plain ? SIZE_MAX : llm_bpe_alphabet_bytes(bytes, utf8, len);
    if (*n == SIZE_MAX)
    {
        memcpy(bytes, utf8, len);
        *n = len;
    }
    return bytes;
}

/* pg_llm_bpe_put_merge(handle, rank, left_token, right_token) */
PG_FUNCTION_INFO_V1(pg_llm_bpe_put_merge);
Datum
pg_llm_bpe_put_merge(PG_FUNCTION_ARGS)
{
    Tokenizer     *t = tokenizer_require(PG_GETARG_INT32(0), false);
    size_t         n_left, n_right;
    uint8_t       *left = token_bytes(PG_GETARG_TEXT_PP(2), t->sentencepiece, &n_left);
    uint8_t       *right = token_bytes(PG_GETARG_TEXT_PP(3), t->sentencepiece, &n_right);
    llm_bpe_status status;

    if (t->bpe == NULL)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("tokenizer %d of model \"%s\" has no merges", t->handle, t->model));
    status = llm_bpe_put_merge(t->bpe, (uint32_t) PG_GETARG_INT32(1), left, n_left, right, n_right);
    if (status == LLM_BPE_UNKNOWN_TOKEN)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("merge %d of model \"%s\", \"%s\" and \"%s\", names or makes a token that is not in its "
                       "vocabulary",
                       PG_GETARG_INT32(1), t->model, text_to_cstring(PG_GETARG_TEXT_PP(2)),
                       text_to_cstring(PG_GETARG_TEXT_PP(3))),
                errhint("Load the vocabulary and the merges of the same tokenizer."));
    if (status == LLM_BPE_DUPLICATE)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("merge %d of model \"%s\", \"%s\" and \"%s\", appears twice", PG_GETARG_INT32(1), t->model,
                       text_to_cstring(PG_GETARG_TEXT_PP(2)), text_to_cstring(PG_GETARG_TEXT_PP(3))));
    tokenizer_check(status);
    PG_RETURN_VOID();
}

static bool
has_token(Tokenizer *t, int32 id)
{
    size_t n;

    return (t->wordpiece != NULL ? llm_wordpiece_token(t->wordpiece, id, &n) : llm_bpe_token(t->bpe, id, &n)) != NULL;
}

/* pg_llm_bpe_seal(handle): completes a tokenizer; from now on pg_llm_bpe_open finds it */
PG_FUNCTION_INFO_V1(pg_llm_bpe_seal);
Datum
pg_llm_bpe_seal(PG_FUNCTION_ARGS)
{
    Tokenizer *t = tokenizer_require(PG_GETARG_INT32(0), false);

    if (t->wordpiece != NULL)
        wordpiece_seal(t);
    for (int32 i = 0; i < t->n_before + t->n_after; i++)
        if (!has_token(t, t->around[i]))
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("the template of model \"%s\" has token %d, which the vocabulary lacks", t->model,
                           t->around[i]));
    t->sealed = true;
    PG_RETURN_VOID();
}

/* ---- encoding and decoding ---- */

static ArrayType *
int_array(const int32_t *values, size_t n)
{
    size_t     bytes = ARR_OVERHEAD_NONULLS(1) + n * sizeof(int32);
    ArrayType *a;

    if (n == 0)
        return construct_empty_array(INT4OID);
    if (!AllocSizeIsValid(bytes))
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("the text has %zu tokens, more than an array can hold", n));
    a = palloc(bytes);
    SET_VARSIZE(a, bytes);
    a->ndim = 1;
    a->dataoffset = 0;
    a->elemtype = INT4OID;
    ARR_DIMS(a)[0] = (int) n;
    ARR_LBOUND(a)[0] = 1;
    memcpy(ARR_DATA_PTR(a), values, n * sizeof(int32));
    return a;
}

void
tokenizer_encode(Tokenizer *t, text *document, bool special, bool begins, const int32_t **token_ids, size_t *n_ids)
{
    size_t         n;
    const uint8_t *utf8 = tokenizer_utf8(document, &n);
    llm_bpe_status status;

    if (t->wordpiece != NULL)
        status = llm_wordpiece_encode(t->wordpiece, utf8, n, special, pg_llm_should_stop, NULL, token_ids, n_ids);
    else
        status = llm_bpe_encode(t->bpe, utf8, n, special, begins, pg_llm_should_stop, NULL, token_ids, n_ids);
    if (status == LLM_BPE_NO_BYTE)
        ereport(ERROR, errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
                errmsg("the tokenizer of model \"%s\" has no token for the byte 0x%02x", t->model,
                       llm_bpe_missing_byte(t->bpe)),
                errhint("A byte-level vocabulary has a token for each of the 256 bytes."));
    tokenizer_check(status);
}

void
tokenizer_end_encode(Tokenizer *t, size_t n_ids)
{
    const uint8_t  empty = 0;
    const int32_t *none;
    size_t         n;

    if (n_ids <= LARGE_OUTPUT)
        return;
    if (t->wordpiece != NULL)
        (void) llm_wordpiece_encode(t->wordpiece, &empty, 0, false, NULL, NULL, &none, &n);
    else
        (void) llm_bpe_encode(t->bpe, &empty, 0, false, true, NULL, NULL, &none, &n);
}

/* pg_llm_bpe_encode(handle, text, special, begins) -> token ids */
PG_FUNCTION_INFO_V1(pg_llm_bpe_encode);
Datum
pg_llm_bpe_encode(PG_FUNCTION_ARGS)
{
    Tokenizer     *t = tokenizer_require(PG_GETARG_INT32(0), true);
    size_t         n_ids;
    const int32_t *ids;
    ArrayType     *result;

    tokenizer_encode(t, PG_GETARG_TEXT_PP(1), PG_GETARG_BOOL(2), PG_GETARG_BOOL(3), &ids, &n_ids);
    result = int_array(ids, n_ids);
    tokenizer_end_encode(t, n_ids);
    PG_RETURN_ARRAYTYPE_P(result);
}

void
tokenizer_unknown_id(Tokenizer *t, int32 id)
{
    ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
            errmsg("token %d is not in the tokenizer of model \"%s\"", id, t->model),
            errhint("llm_bpe_vocab lists the tokens."));
}

/* pg_llm_bpe_decode(handle, ids) -> the bytes that the tokens stand for */
PG_FUNCTION_INFO_V1(pg_llm_bpe_decode);
Datum
pg_llm_bpe_decode(PG_FUNCTION_ARGS)
{
    Tokenizer *t = tokenizer_require(PG_GETARG_INT32(0), true);
    IntArray   ids = tensor_int_array(PG_GETARG_DATUM(1), "ids");
    size_t     total = VARHDRSZ, n;
    bytea     *result;
    char      *p;

    if (t->wordpiece != NULL)
        PG_RETURN_BYTEA_P(wordpiece_decode(t, ids.values, ids.n));
    if (t->sentencepiece)
        PG_RETURN_BYTEA_P(sentencepiece_decode(t, ids.values, ids.n));
    for (size_t i = 0; i < ids.n; i++)
    {
        if ((i & 0xffff) == 0)
            CHECK_FOR_INTERRUPTS();
        if (llm_bpe_token(t->bpe, ids.values[i], &n) == NULL)
            tokenizer_unknown_id(t, ids.values[i]);
        total += n;
    }
    if (!AllocSizeIsValid(total))
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the text would have %zu bytes", total));
    result = palloc(total);
    SET_VARSIZE(result, total);
    p = VARDATA(result);
    for (size_t i = 0; i < ids.n; i++, p += n)
    {
        const uint8_t *bytes = llm_bpe_token(t->bpe, ids.values[i], &n);

        if ((i & 0xffff) == 0)
            CHECK_FOR_INTERRUPTS();
        memcpy(p, bytes, n);
    }
    PG_RETURN_BYTEA_P(result);
}

/* pg_llm_utf8_text(bytes, final) -> text, U+FFFD for what is no UTF-8 and for NUL; see llm_utf8_replace */
PG_FUNCTION_INFO_V1(pg_llm_utf8_text);
Datum
pg_llm_utf8_text(PG_FUNCTION_ARGS)
{
    bytea         *bytes = PG_GETARG_BYTEA_PP(0);
    const uint8_t *p = (const uint8_t *) VARDATA_ANY(bytes);
    size_t         len = VARSIZE_ANY_EXHDR(bytes), n = llm_utf8_replace(NULL, p, len, PG_GETARG_BOOL(1), true);
    uint8_t       *utf8;

    if (!AllocSizeIsValid(n + VARHDRSZ))
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the text would have %zu bytes", n));
    utf8 = palloc(n + 1);
    (void) llm_utf8_replace(utf8, p, len, PG_GETARG_BOOL(1), true);
    utf8[n] = '\0';
    PG_RETURN_TEXT_P(tokenizer_text(utf8, n));
}
