/*
 * tokenizer_train.c -- the aggregate pg_llm_bpe_learn: merge rules from the documents of a query.
 *
 * The trainer lives with the aggregate's memory. It is run once, after the last document, which is why the final
 * function is declared READ_WRITE: no window asks it again.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "session/engine.h"
#include "tokenizer.h"

typedef struct Learning
{
    MemoryContextCallback callback;
    llm_bpe_trainer      *trainer;
    int32                 n_merges;
    int64                 min_count;
} Learning;

static void
end_learning(void *arg)
{
    llm_bpe_trainer_destroy(((Learning *) arg)->trainer);
}

static Learning *
begin_learning(MemoryContext aggregate, int32 n_merges, int64 min_count)
{
    Learning *l = MemoryContextAllocZero(aggregate, sizeof(Learning));

    l->n_merges = n_merges;
    l->min_count = min_count;
    l->trainer = llm_bpe_trainer_create();
    if (l->trainer == NULL)
        tokenizer_check(LLM_BPE_NO_MEMORY);
    l->callback.func = end_learning;
    l->callback.arg = l;
    MemoryContextRegisterResetCallback(aggregate, &l->callback);
    return l;
}

/* pg_llm_bpe_learn_add(state, document, n_merges, min_count) -> state */
PG_FUNCTION_INFO_V1(pg_llm_bpe_learn_add);
Datum
pg_llm_bpe_learn_add(PG_FUNCTION_ARGS)
{
    MemoryContext aggregate;
    Learning     *l = PG_ARGISNULL(0) ? NULL : (Learning *) PG_GETARG_POINTER(0);

    if (!AggCheckCallContext(fcinfo, &aggregate))
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("pg_llm_bpe_learn_add is a part of the aggregate pg_llm_bpe_learn"));
    if (PG_ARGISNULL(2) || PG_ARGISNULL(3) || PG_GETARG_INT32(2) < 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("n_merges must be at least 0, and neither it nor min_count NULL"));
    if (l == NULL)
        l = begin_learning(aggregate, PG_GETARG_INT32(2), PG_GETARG_INT64(3));
    if (!PG_ARGISNULL(1))
    {
        size_t         n;
        const uint8_t *utf8 = tokenizer_utf8(PG_GETARG_TEXT_PP(1), &n);

        tokenizer_check(llm_bpe_trainer_add(l->trainer, utf8, n, pg_llm_should_stop, NULL));
    }
    PG_RETURN_POINTER(l);
}

/* pg_llm_bpe_learn_final(state) -> left and right id of every merge, one after the other */
PG_FUNCTION_INFO_V1(pg_llm_bpe_learn_final);
Datum
pg_llm_bpe_learn_final(PG_FUNCTION_ARGS)
{
    Learning      *l;
    const int32_t *pairs;
    size_t         n, bytes;
    ArrayType     *a;

    if (!AggCheckCallContext(fcinfo, NULL))
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("pg_llm_bpe_learn_final is a part of the aggregate pg_llm_bpe_learn"));
    if (PG_ARGISNULL(0))
        PG_RETURN_NULL();
    l = (Learning *) PG_GETARG_POINTER(0);
    tokenizer_check(
        llm_bpe_trainer_run(l->trainer, (size_t) l->n_merges, l->min_count, pg_llm_should_stop, NULL, &pairs, &n));
    if (n == 0)
        PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT4OID));
    bytes = ARR_OVERHEAD_NONULLS(1) + 2 * n * sizeof(int32);
    a = palloc(bytes);
    SET_VARSIZE(a, bytes);
    a->ndim = 1;
    a->dataoffset = 0;
    a->elemtype = INT4OID;
    ARR_DIMS(a)[0] = (int) (2 * n);
    ARR_LBOUND(a)[0] = 1;
    memcpy(ARR_DATA_PTR(a), pairs, 2 * n * sizeof(int32));
    PG_RETURN_ARRAYTYPE_P(a);
}
