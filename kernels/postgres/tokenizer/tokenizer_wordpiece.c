/*
 * tokenizer_wordpiece.c -- WordPiece in a session's memory: its settings, the tokens around a text, decoding.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "tensor/tensor.h"
#include "tokenizer.h"

/* pg_llm_wordpiece_create(model, version, normalizer, unk_token, prefix, max_characters, cleanup, before_ids, after_ids) */
PG_FUNCTION_INFO_V1(pg_llm_wordpiece_create);
Datum
pg_llm_wordpiece_create(PG_FUNCTION_ARGS)
{
    int32                  normalizer = PG_GETARG_INT32(2), max_characters = PG_GETARG_INT32(5);
    IntArray               before = tensor_int_array(PG_GETARG_DATUM(7), "before_ids");
    IntArray               after = tensor_int_array(PG_GETARG_DATUM(8), "after_ids");
    llm_wordpiece_settings settings = {.normalizer = (unsigned) normalizer, .cleanup = PG_GETARG_BOOL(6)};
    Tokenizer             *t;

    if (normalizer < 0 || normalizer > 2 * LLM_BERT_LOWERCASE - 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%d is not a set of normalizer options", normalizer));
    if (max_characters < 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a word must be allowed at least one character, got %d", max_characters));
    settings.unknown = tokenizer_utf8(PG_GETARG_TEXT_PP(3), &settings.n_unknown);
    settings.prefix = tokenizer_utf8(PG_GETARG_TEXT_PP(4), &settings.n_prefix);
    settings.max_characters = (size_t) max_characters;
    t = tokenizer_begin(PG_GETARG_TEXT_PP(0), PG_GETARG_BYTEA_PP(1));
    tokenizer_put_around(t, before, after);
    t->wordpiece = llm_wordpiece_create(&settings);
    if (t->wordpiece == NULL)
    {
        tokenizer_forget(t);
        tokenizer_check(LLM_BPE_NO_MEMORY);
    }
    PG_RETURN_INT32(t->handle);
}

void
wordpiece_put_token(Tokenizer *t, int32 id, const uint8_t *bytes, size_t n, unsigned flags)
{
    llm_bpe_status status = llm_wordpiece_put_token(t->wordpiece, id, bytes, n, flags);

    if (status == LLM_BPE_DUPLICATE)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("token %d of model \"%s\" reads like another token", id, t->model));
    if (status == LLM_BPE_BAD_TOKEN && n > 0 && n <= LLM_BPE_MAX_TOKEN && id >= 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the normalizer leaves nothing of the added token %d of model \"%s\"", id, t->model),
                errhint("Take the flag \"normalized\" from the token."));
    if (status == LLM_BPE_BAD_TOKEN)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("token %d of model \"%s\" has " UINT64_FORMAT " bytes, not 1 to %d", id, t->model, (uint64) n,
                       LLM_BPE_MAX_TOKEN));
    tokenizer_check(status);
}

void
wordpiece_seal(Tokenizer *t)
{
    llm_bpe_status status = llm_wordpiece_seal(t->wordpiece);

    if (status == LLM_BPE_UNKNOWN_TOKEN)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the vocabulary of model \"%s\" lacks the token of unknown words", t->model),
                errhint("The setting unk_token names it; by default it is [UNK]."));
    tokenizer_check(status);
}

bytea *
wordpiece_decode(Tokenizer *t, const int32 *ids, size_t n_ids)
{
    uint8_t part[LLM_WORDPIECE_PART];
    size_t  total = VARHDRSZ;
    bytea  *result;
    char   *p;

    for (size_t i = 0; i < n_ids; i++)
    {
        size_t n = llm_wordpiece_part(t->wordpiece, ids[i], i == 0, part);

        if ((i & 0xffff) == 0)
            CHECK_FOR_INTERRUPTS();
        if (n == SIZE_MAX)
            tokenizer_unknown_id(t, ids[i]);
        total += n;
    }
    if (!AllocSizeIsValid(total))
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the text would have %zu bytes", total));
    result = palloc(total);
    SET_VARSIZE(result, total);
    p = VARDATA(result);
    for (size_t i = 0; i < n_ids; i++)
    {
        size_t n = llm_wordpiece_part(t->wordpiece, ids[i], i == 0, part);

        if ((i & 0xffff) == 0)
            CHECK_FOR_INTERRUPTS();
        memcpy(p, part, n);
        p += n;
    }
    return result;
}

/* pg_llm_encode_sequence(handle, text, max_tokens) -> (ids with what stands around a text, their number uncut) */
PG_FUNCTION_INFO_V1(pg_llm_encode_sequence);
Datum
pg_llm_encode_sequence(PG_FUNCTION_ARGS)
{
    Tokenizer     *t = tokenizer_require(PG_GETARG_INT32(0), true);
    int32          max_tokens = PG_GETARG_INT32(2), around = t->n_before + t->n_after;
    size_t         n_ids, kept, bytes;
    const int32_t *ids;
    int32         *sequence;
    TupleDesc      description;
    Datum          values[2];
    bool           nulls[2] = {false, false};

    if (get_call_result_type(fcinfo, NULL, &description) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    if (max_tokens < around || max_tokens < 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("max_tokens must be at least %d, got %d", Max(around, 1), max_tokens),
                errdetail("The tokenizer of model \"%s\" puts %d tokens around a text.", t->model, around));
    tokenizer_encode(t, PG_GETARG_TEXT_PP(1), true, true, &ids, &n_ids);
    kept = Min(n_ids, (size_t) (max_tokens - around));
    bytes = (kept + around) * sizeof(int32);
    if (!AllocSizeIsValid(bytes + VARHDRSZ))
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("the text has %zu tokens, more than an array can hold", n_ids));
    sequence = palloc(bytes + sizeof(int32));
    if (t->n_before > 0)
        memcpy(sequence, t->around, t->n_before * sizeof(int32));
    if (kept > 0)
        memcpy(sequence + t->n_before, ids, kept * sizeof(int32));
    if (t->n_after > 0)
        memcpy(sequence + t->n_before + kept, t->around + t->n_before, t->n_after * sizeof(int32));
    tokenizer_end_encode(t, n_ids);
    values[0] = PointerGetDatum(tensor_make_int_array(sequence, kept + around));
    values[1] = Int32GetDatum((int32) Min(n_ids + around, (size_t) PG_INT32_MAX));
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(description), values, nulls)));
}
