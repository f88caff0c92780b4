/*
 * sample.c -- sampling from logits: temperature, top-k, top-p, penalties, the likeliest tokens.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "common/pg_prng.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "catalog/pg_type.h"
#include "utils/array.h"

#include "sample.h"
#include "session/engine.h"

#define POLL_EVERY 65536 /* elements between two looks at pending interrupts */

const float *
sample_last_row(const Tensor *t, size_t *vocab)
{
    if (t->ndim < 1 || t->n == 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("logits of shape %s hold nothing to sample from", tensor_shape_text(t->ndim, t->dims)));
    *vocab = t->dims[t->ndim - 1];
    return t->data + t->n - *vocab;
}

/* Turns what core says instead of a token, or of a number of them, into an error. */
static void
check_sampling(int64 result)
{
    if (result == -2)
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory while sampling"));
    CHECK_FOR_INTERRUPTS();
    if (result == -3)
        ereport(ERROR, errcode(ERRCODE_QUERY_CANCELED), errmsg("canceling statement: sampling was interrupted"));
}

void
sample_check(const llm_sampler *s)
{
    if (!(s->temperature >= 0.0) || s->top_k < 0 || !(s->top_p > 0.0 && s->top_p <= 1.0))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("cannot sample with temperature %g, top_k " INT64_FORMAT ", top_p %g", s->temperature, s->top_k,
                       s->top_p),
                errhint(
                    "temperature is at least 0 (0: greedy), top_k at least 0 (0: all), top_p above 0 and at most 1."));
}

int32
sample_token(const float *logits, size_t vocab, llm_sampler *s, uint64 seed, uint64 step)
{
    int64 id;

    s->stop = pg_llm_should_stop;
    s->arg = NULL;
    s->uniform = llm_uniform(seed, 0, step);
    id = llm_sample(logits, vocab, s);
    check_sampling(id);
    if (id < 0)
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("no logit is finite"),
                errhint("The model's weights may be damaged."));
    return (int32) id;
}

/* pg_llm_sample(logits, temperature, top_k, top_p, seed, step) -> token id, from the last row */
PG_FUNCTION_INFO_V1(pg_llm_sample);
Datum
pg_llm_sample(PG_FUNCTION_ARGS)
{
    Tensor      *logits;
    const float *row;
    size_t       vocab;
    llm_sampler  s;
    uint64       seed;

    for (int i = 0; i < 4; i++)
        if (PG_ARGISNULL(i))
            PG_RETURN_NULL();
    logits = PG_GETARG_TENSOR(0);
    s.temperature = PG_GETARG_FLOAT8(1);
    s.top_k = PG_GETARG_INT32(2);
    s.top_p = PG_GETARG_FLOAT8(3);
    sample_check(&s);
    seed = PG_ARGISNULL(4) ? pg_prng_uint64(&pg_global_prng_state) : (uint64) PG_GETARG_INT64(4);
    row = sample_last_row(logits, &vocab);
    PG_RETURN_INT32(sample_token(row, vocab, &s, seed, PG_ARGISNULL(5) ? 0 : (uint64) PG_GETARG_INT64(5)));
}

void
sample_check_seen(const int32 *seen, size_t n_seen, size_t vocab, double repetition)
{
    if (!(repetition > 0.0))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the repetition penalty must be above 0, not %g", repetition));
    for (size_t i = 0; i < n_seen; i++)
    {
        if (i % POLL_EVERY == 0)
            CHECK_FOR_INTERRUPTS();
        if (seen[i] < 0 || (size_t) seen[i] >= vocab)
            ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                    errmsg("token %d is outside a vocabulary of %zu", seen[i], vocab));
    }
}

void
sample_penalize(float *logits, size_t vocab, const int32 *seen, size_t n_seen, double repetition, double presence,
                double frequency)
{
    switch (llm_penalize(logits, vocab, seen, n_seen, repetition, presence, frequency, pg_llm_should_stop, NULL))
    {
        case LLM_OK:
            break;
        case LLM_NO_MEMORY:
            check_sampling(-2);
            break;
        case LLM_STOPPED:
            check_sampling(-3);
            break;
    }
}

/* pg_llm_penalize(logits, seen, repetition, presence, frequency) -> logits, the last row changed */
PG_FUNCTION_INFO_V1(pg_llm_penalize);
Datum
pg_llm_penalize(PG_FUNCTION_ARGS)
{
    Tensor     *logits = PG_GETARG_TENSOR(0);
    IntArray    seen = tensor_int_array(PG_GETARG_DATUM(1), "seen");
    double      repetition = PG_GETARG_FLOAT8(2);
    llm_engine *e = pg_llm_engine();
    Tensor     *out;
    size_t      vocab;

    (void) sample_last_row(logits, &vocab);
    sample_check_seen(seen.values, seen.n, vocab, repetition);
    out = tensor_new(logits->ndim, logits->dims);
    llm_copy(e, out->data, logits->data, false, logits->n);
    pg_llm_check(e);
    sample_penalize(out->data + out->n - vocab, vocab, seen.values, seen.n, repetition, PG_GETARG_FLOAT8(3),
                    PG_GETARG_FLOAT8(4));
    PG_RETURN_TENSOR(out);
}

/* pg_llm_top_tokens(logits, k) -> (token_ids, log_probs) of the k likeliest tokens after the last row */
PG_FUNCTION_INFO_V1(pg_llm_top_tokens);
Datum
pg_llm_top_tokens(PG_FUNCTION_ARGS)
{
    TupleDesc    desc;
    Datum        values[2];
    bool         nulls[2] = {false, false};
    Tensor      *logits = PG_GETARG_TENSOR(0);
    int32        k = PG_GETARG_INT32(1);
    size_t       vocab;
    const float *row = sample_last_row(logits, &vocab);
    int32       *ids;
    double      *log_probs;
    Datum       *elements;
    int64        n;

    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    if (k < 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("k must be at least 1, not %d", k));
    if ((size_t) k > vocab)
        k = (int32) vocab;
    if ((size_t) k > MaxAllocSize / sizeof(Datum) / 2)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("%d tokens do not fit into an array", k));
    ids = palloc(sizeof(int32) * k);
    log_probs = palloc(sizeof(double) * k);
    n = llm_top_tokens(row, vocab, k, ids, log_probs, pg_llm_should_stop, NULL);
    check_sampling(n);
    if (n == 0)
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("no logit is finite"),
                errhint("The model's weights may be damaged."));
    elements = palloc(sizeof(Datum) * n);
    for (int64 i = 0; i < n; i++)
        elements[i] = Int32GetDatum(ids[i]);
    values[0] = PointerGetDatum(construct_array(elements, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
    for (int64 i = 0; i < n; i++)
        elements[i] = Float8GetDatum(log_probs[i]);
    values[1] = PointerGetDatum(
        construct_array(elements, n, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
