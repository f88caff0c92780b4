/*
 * next_token.c -- how a generation goes on: its sampling settings, the next token, and the text so far.
 *
 * The settings are said once, with pg_llm_gen_sampling. Then each token takes two calls: pg_llm_gen_sample chooses it
 * from the logits, and pg_llm_gen_write takes its bytes, which the caller looked up in the vocabulary.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "generation.h"
#include "sample.h"
#include "tokenizer/tokenizer.h"

/* A seed that may be NULL: then each token is drawn anew. */
typedef struct Seed
{
    bool  given;
    int64 value;
} Seed;

typedef struct StopTexts
{
    int    n;
    text **texts; /* as in the database's encoding, none empty */
} StopTexts;

/*
 * What a generation is told about its sampling: name, C type, SQL type, and the value without any effect. See
 * models/arguments.py.
 */
#define SAMPLING_SETTINGS(SETTING)                                                                                     \
    SETTING(max_tokens, int32, INT4OID, PG_INT32_MAX)                                                                  \
    SETTING(temperature, double, FLOAT8OID, 1.0)                                                                       \
    SETTING(top_k, int32, INT4OID, 0)                                                                                  \
    SETTING(top_p, double, FLOAT8OID, 1.0)                                                                             \
    SETTING(seed, Seed, INT8OID, {0})                                                                                  \
    SETTING(stop, StopTexts, TEXTARRAYOID, {0})                                                                        \
    SETTING(repetition_penalty, double, FLOAT8OID, 1.0)                                                                \
    SETTING(presence_penalty, double, FLOAT8OID, 0.0)                                                                  \
    SETTING(frequency_penalty, double, FLOAT8OID, 0.0)

struct Sampling
{
    MemoryContext context; /* of all of it */
#define FIELD(name, c_type, sql_type, neutral) c_type name;
    SAMPLING_SETTINGS(FIELD)
#undef FIELD
    IntArray       end_tokens; /* any of them ends the text, and is not part of it */
    StringInfoData written;    /* the bytes of the tokens so far */
    int            shown;      /* characters of the text that earlier calls returned */
};

static const struct
{
    const char *name;
    Oid         type;
    size_t      offset;
} settings[] = {
#define ENTRY(name, c_type, sql_type, neutral) {#name, sql_type, offsetof(Sampling, name)},
    SAMPLING_SETTINGS(ENTRY)
#undef ENTRY
};

void
sampling_free(Sampling *s)
{
    if (s != NULL)
        MemoryContextDelete(s->context);
}

/* ---- settings ---- */

static StopTexts
copy_stop_texts(Datum array, MemoryContext context)
{
    StopTexts stop = {0, NULL};
    Datum    *elements;
    bool     *nulls;
    int       n;

    deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
    stop.texts = MemoryContextAllocHuge(context, sizeof(text *) * Max(n, 1));
    for (int i = 0; i < n; i++)
    {
        text *from = nulls[i] ? NULL : DatumGetTextPP(elements[i]);

        CHECK_FOR_INTERRUPTS();
        if (from == NULL || VARSIZE_ANY_EXHDR(from) == 0)
            continue;
        stop.texts[stop.n] = MemoryContextAlloc(context, VARSIZE_ANY(from));
        memcpy(stop.texts[stop.n++], from, VARSIZE_ANY(from));
    }
    return stop;
}

static void
store_setting(Sampling *s, int i, Datum value, bool isnull)
{
    void *at = (char *) s + settings[i].offset;

    if (isnull && (settings[i].type == INT4OID || settings[i].type == FLOAT8OID))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the sampling setting \"%s\" must not be NULL", settings[i].name));
    if (isnull)
        return;
    switch (settings[i].type)
    {
        case INT4OID:
            *(int32 *) at = DatumGetInt32(value);
            break;
        case FLOAT8OID:
            *(double *) at = DatumGetFloat8(value);
            break;
        case INT8OID:
            *(Seed *) at = (Seed){true, DatumGetInt64(value)};
            break;
        case TEXTARRAYOID:
            *(StopTexts *) at = copy_stop_texts(value, s->context);
            break;
    }
}

/* The number of the setting that an argument names, whose value has that type. */
static int
find_setting(Datum name, Oid name_type, bool isnull, Oid value_type)
{
    char *wanted = isnull || name_type != TEXTOID ? NULL : TextDatumGetCString(name);

    for (int i = 0; wanted != NULL && i < (int) lengthof(settings); i++)
    {
        if (strcmp(settings[i].name, wanted) != 0)
            continue;
        if (settings[i].type != value_type)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("the sampling setting \"%s\" must be of type %s, not %s", wanted,
                           format_type_be(settings[i].type), format_type_be(value_type)));
        return i;
    }
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("there is no sampling setting \"%s\"", wanted == NULL ? "NULL" : wanted),
            errhint("Pass names, as text, and values in turn, as to jsonb_build_object."));
}

static Sampling *
new_sampling(MemoryContext context)
{
    Sampling *s = MemoryContextAlloc(context, sizeof(Sampling));

#define NEUTRAL(name, c_type, sql_type, neutral) .name = neutral,
    *s = (Sampling){.context = context, SAMPLING_SETTINGS(NEUTRAL)};
#undef NEUTRAL
    return s;
}

static Sampling *
read_sampling(MemoryContext context, IntArray end_tokens, int n_args, const Datum *args, const Oid *types,
              const bool *nulls)
{
    Sampling     *s = new_sampling(context);
    MemoryContext caller;
    int32        *ids;

    for (int i = 0; i + 1 < n_args; i += 2)
        store_setting(s, find_setting(args[i], types[i], nulls[i], types[i + 1]), args[i + 1], nulls[i + 1]);
    ids = MemoryContextAllocHuge(context, sizeof(int32) * Max(end_tokens.n, 1));
    if (end_tokens.n > 0)
        memcpy(ids, end_tokens.values, sizeof(int32) * end_tokens.n);
    s->end_tokens.n = end_tokens.n;
    s->end_tokens.values = ids;
    caller = MemoryContextSwitchTo(context);
    initStringInfo(&s->written);
    MemoryContextSwitchTo(caller);
    return s;
}

/* pg_llm_gen_sampling(handle, end_tokens, name, value, ...): how the generation goes on; its text begins. */
PG_FUNCTION_INFO_V1(pg_llm_gen_sampling);
Datum
pg_llm_gen_sampling(PG_FUNCTION_ARGS)
{
    Generation   *g;
    IntArray      end_tokens;
    Datum        *args;
    Oid          *types;
    bool         *nulls;
    int           n_args;
    MemoryContext context;
    Sampling     *s;

    if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
        PG_RETURN_NULL();
    g = generation_find_idle(PG_GETARG_INT32(0));
    end_tokens = tensor_int_array(PG_GETARG_DATUM(1), "end_tokens");
    n_args = extract_variadic_args(fcinfo, 2, true, &args, &types, &nulls);
    if (n_args < 0 || n_args % 2 != 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("sampling settings are names and values in turn, got %d arguments", Max(n_args, 0)));
    context = AllocSetContextCreate(TopMemoryContext, "pg_llm sampling", ALLOCSET_SMALL_SIZES);
    PG_TRY();
    {
        s = read_sampling(context, end_tokens, n_args, args, types, nulls);
    }
    PG_CATCH();
    {
        MemoryContextDelete(context);
        PG_RE_THROW();
    }
    PG_END_TRY();
    sampling_free(g->sampling);
    g->sampling = s;
    PG_RETURN_VOID();
}

static Generation *
find_sampling(int32 handle)
{
    Generation *g = generation_find_idle(handle);

    if (g->sampling == NULL)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("generation %d has no sampling settings", handle), errhint("Call pg_llm_gen_sampling first."));
    return g;
}

/* ---- the next token ---- */

/* The logits after the penalties on tokens that the text, or the prompt and the text, has. */
static const float *
penalized(const Generation *g, const float *logits, size_t vocab)
{
    const Sampling *s = g->sampling;
    float          *row;

    if (s->repetition_penalty == 1.0 && s->presence_penalty == 0.0 && s->frequency_penalty == 0.0)
        return logits;
    sample_check_seen(g->tokens, g->n_tokens, vocab, s->repetition_penalty);
    row = palloc_extended(sizeof(float) * vocab, MCXT_ALLOC_HUGE);
    memcpy(row, logits, sizeof(float) * vocab);
    sample_penalize(row, vocab, g->tokens, g->n_tokens, s->repetition_penalty, 0.0, 0.0);
    sample_penalize(row, vocab, g->tokens + g->n_prompt, g->n_tokens - g->n_prompt, 1.0, s->presence_penalty,
                    s->frequency_penalty);
    return row;
}

/* pg_llm_gen_sample(handle, logits) -> the next token, which is appended to the generation */
PG_FUNCTION_INFO_V1(pg_llm_gen_sample);
Datum
pg_llm_gen_sample(PG_FUNCTION_ARGS)
{
    Generation     *g = find_sampling(PG_GETARG_INT32(0));
    const Sampling *s = g->sampling;
    llm_sampler     sampler = {.temperature = s->temperature, .top_k = s->top_k, .top_p = s->top_p};
    uint64          seed = s->seed.given ? (uint64) s->seed.value : pg_prng_uint64(&pg_global_prng_state);
    size_t          vocab;
    const float    *row = sample_last_row(PG_GETARG_TENSOR(1), &vocab);
    int32           token;

    sample_check(&sampler);
    token = sample_token(penalized(g, row, vocab), vocab, &sampler, seed, (uint64) (g->n_tokens - g->n_prompt) + 1);
    generation_append(g, &token, 1);
    PG_RETURN_INT32(token);
}

/* ---- the text ---- */

/* How many bytes at the text's end may begin a stop text. */
static int
held_back(const text *visible, const StopTexts *stop)
{
    const char *from = VARDATA_ANY(visible);
    int         n = VARSIZE_ANY_EXHDR(visible), longest = 0;

    for (int i = 0; i < stop->n; i++)
        longest = Max(longest, (int) VARSIZE_ANY_EXHDR(stop->texts[i]) - 1);
    for (int at = 0; longest > 0 && at < n; at += pg_mblen(from + at))
    {
        CHECK_FOR_INTERRUPTS();
        for (int i = 0; i < stop->n && n - at <= longest; i++)
            if (n - at < (int) VARSIZE_ANY_EXHDR(stop->texts[i]) &&
                memcmp(from + at, VARDATA_ANY(stop->texts[i]), n - at) == 0)
                return n - at;
    }
    return 0;
}

/*
 * The part of the bytes that can be shown: nothing from a stop text on and, unless it is final, no incomplete
 * character and no possible beginning of a stop text.
 */
static text *
visible_text(const uint8 *bytes, size_t n, const StopTexts *stop, bool final, bool *stopped)
{
    size_t size = llm_utf8_replace(NULL, bytes, n, final, true);
    uint8 *utf8;
    text  *visible;
    int    first = 0;

    if (!AllocSizeIsValid(size + VARHDRSZ))
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the text would have %zu bytes", size));
    utf8 = palloc(size + 1);
    (void) llm_utf8_replace(utf8, bytes, n, final, true);
    utf8[size] = '\0';
    visible = tokenizer_text(utf8, size);
    for (int i = 0; i < stop->n; i++)
    {
        int at = DatumGetInt32(DirectFunctionCall2Coll(textpos, DEFAULT_COLLATION_OID, PointerGetDatum(visible),
                                                       PointerGetDatum(stop->texts[i])));

        CHECK_FOR_INTERRUPTS();
        if (at > 0 && (first == 0 || at < first))
            first = at;
    }
    *stopped = first > 0;
    if (first > 0)
        return DatumGetTextPP(DirectFunctionCall2(text_left, PointerGetDatum(visible), Int32GetDatum(first - 1)));
    if (final)
        return visible;
    return cstring_to_text_with_len(VARDATA_ANY(visible), VARSIZE_ANY_EXHDR(visible) - held_back(visible, stop));
}

static TupleDesc
row_type(FunctionCallInfo fcinfo)
{
    TupleDesc desc;

    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    return BlessTupleDesc(desc);
}

/* pg_llm_visible_text(bytes, stop, is_final) -> (visible, stopped) */
PG_FUNCTION_INFO_V1(pg_llm_visible_text);
Datum
pg_llm_visible_text(PG_FUNCTION_ARGS)
{
    bytea    *bytes;
    StopTexts stop = {0, NULL};
    Datum     values[2] = {0};
    bool      nulls[2] = {true, true};
    bool      stopped;

    if (!PG_ARGISNULL(0) && !PG_ARGISNULL(2))
    {
        bytes = PG_GETARG_BYTEA_PP(0);
        if (!PG_ARGISNULL(1))
            stop = copy_stop_texts(PG_GETARG_DATUM(1), CurrentMemoryContext);
        values[0] = PointerGetDatum(visible_text((const uint8 *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), &stop,
                                                 PG_GETARG_BOOL(2), &stopped));
        values[1] = BoolGetDatum(stopped);
        nulls[0] = nulls[1] = false;
    }
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(row_type(fcinfo), values, nulls)));
}

static bool
is_end_token(const Sampling *s, int32 token)
{
    for (size_t i = 0; i < s->end_tokens.n; i++)
        if (s->end_tokens.values[i] == token)
            return true;
    return false;
}

/*
 * pg_llm_gen_write(handle, bytes) -> (step, token, text, is_complete): the text after the newest token, whose bytes are
 * given, and the part of it that no earlier call returned. After the last token the generation is closed.
 */
PG_FUNCTION_INFO_V1(pg_llm_gen_write);
Datum
pg_llm_gen_write(PG_FUNCTION_ARGS)
{
    Generation *g = find_sampling(PG_GETARG_INT32(0));
    bytea      *bytes = PG_GETARG_BYTEA_PP(1);
    Sampling   *s = g->sampling;
    int         step = g->n_tokens - g->n_prompt;
    bool        at_end = step > 0 && is_end_token(s, g->tokens[g->n_tokens - 1]);
    bool        final = at_end || step >= s->max_tokens;
    bool        nulls[4] = {false};
    bool        stopped;
    Datum       values[4];
    TupleDesc   desc = row_type(fcinfo);
    int         before = s->written.len;
    text       *visible;

    PG_TRY();
    {
        if (!at_end)
            appendBinaryStringInfo(&s->written, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
        visible = visible_text((const uint8 *) s->written.data, s->written.len, &s->stop, final, &stopped);
        values[1] = DirectFunctionCall2(text_substr_no_len, PointerGetDatum(visible), Int32GetDatum(s->shown + 1));
    }
    PG_CATCH();
    {
        s->written.len = before; /* the token may be written again after a savepoint */
        PG_RE_THROW();
    }
    PG_END_TRY();
    values[0] = Int32GetDatum(step);
    values[2] = PointerGetDatum(visible);
    values[3] = BoolGetDatum(final || stopped);
    s->shown = pg_mbstrlen_with_len(VARDATA_ANY(visible), VARSIZE_ANY_EXHDR(visible));
    if (final || stopped)
        generation_close(g);
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
