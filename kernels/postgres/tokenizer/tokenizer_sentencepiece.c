/*
 * tokenizer_sentencepiece.c -- SentencePiece's BPE in a session's memory: its settings, decoding.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "tensor/tensor.h"
#include "tokenizer.h"

#define OPTION_SPLIT 1
#define OPTION_STRIP 2

static llm_bpe_blank
blank_of(const char *name)
{
    if (strcmp(name, "never") == 0)
        return LLM_BPE_BLANK_NEVER;
    if (strcmp(name, "prepend") == 0)
        return LLM_BPE_BLANK_PREPEND;
    if (strcmp(name, "always") == 0)
        return LLM_BPE_BLANK_ALWAYS;
    if (strcmp(name, "first") == 0)
        return LLM_BPE_BLANK_FIRST;
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("prefix_space must be never, prepend, always or first, got \"%s\"", name));
}

/* pg_llm_sentencepiece_create(model, version, prefix_space, options, before_ids, after_ids) -> handle */
PG_FUNCTION_INFO_V1(pg_llm_sentencepiece_create);
Datum
pg_llm_sentencepiece_create(PG_FUNCTION_ARGS)
{
    int32            options = PG_GETARG_INT32(3);
    IntArray         before = tensor_int_array(PG_GETARG_DATUM(4), "before_ids");
    IntArray         after = tensor_int_array(PG_GETARG_DATUM(5), "after_ids");
    llm_bpe_settings settings = {.blank = blank_of(text_to_cstring(PG_GETARG_TEXT_PP(2))),
                                 .split = (options & OPTION_SPLIT) != 0,
                                 .strip = (options & OPTION_STRIP) != 0};
    Tokenizer       *t;

    if (options < 0 || options > 2 * OPTION_STRIP - 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%d is not a set of options", options));
    t = tokenizer_begin(PG_GETARG_TEXT_PP(0), PG_GETARG_BYTEA_PP(1));
    t->sentencepiece = true;
    tokenizer_put_around(t, before, after);
    t->bpe = llm_bpe_create(&settings);
    if (t->bpe == NULL)
    {
        tokenizer_forget(t);
        tokenizer_check(LLM_BPE_NO_MEMORY);
    }
    PG_RETURN_INT32(t->handle);
}

bytea *
sentencepiece_decode(Tokenizer *t, const int32 *ids, size_t n_ids)
{
    size_t n, known;
    bytea *result;

    CHECK_FOR_INTERRUPTS();
    known = llm_bpe_decode_text(t->bpe, ids, n_ids, NULL, &n);
    if (known < n_ids)
        tokenizer_unknown_id(t, ids[known]);
    if (!AllocSizeIsValid(n + VARHDRSZ))
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the text would have %zu bytes", n));
    result = palloc(n + VARHDRSZ);
    CHECK_FOR_INTERRUPTS();
    (void) llm_bpe_decode_text(t->bpe, ids, n_ids, (uint8_t *) VARDATA(result), &n);
    SET_VARSIZE(result, n + VARHDRSZ);
    return result;
}
