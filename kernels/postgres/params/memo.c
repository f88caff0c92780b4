/*
 * memo.c -- what a statement computed last with its pinned versions.
 *
 * PostgreSQL calls a stable function again where its result cannot be different: that of an ORDER BY for an index, and
 * then for each row that the index returns. A statement's pin says what the result depends on and how long it holds.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

#include "params_internal.h"
#include "tensor/tensor_view.h"

#define MAX_MEMOS   4
#define MAX_KEY     16384 /* bytes */
#define MAX_NUMBERS 65536

typedef struct Memo
{
    uint64 pin; /* whose statement computed it */
    int    ndim;
    int32  dims[TENSOR_MAX_NDIM];
    size_t n;
    float *numbers;
    int    key_bytes;
    char   key[FLEXIBLE_ARRAY_MEMBER];
} Memo;

static Memo *memos[MAX_MEMOS];
static int   next_memo = 0;

void
memo_forget(uint64 pin)
{
    for (int i = 0; i < MAX_MEMOS; i++)
        if (memos[i] != NULL && memos[i]->pin == pin)
        {
            pfree(memos[i]);
            memos[i] = NULL;
        }
}

/* pg_llm_memo(model, key) -> what pg_llm_memo_put was given under that key while the statement's pin holds, or NULL */
PG_FUNCTION_INFO_V1(pg_llm_memo);
Datum
pg_llm_memo(PG_FUNCTION_ARGS)
{
    uint64 pin = params_statement_pin(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    text  *key = PG_GETARG_TEXT_PP(1);
    int    key_bytes = VARSIZE_ANY_EXHDR(key);

    for (int i = 0; pin != 0 && i < MAX_MEMOS; i++)
    {
        Memo   *m = memos[i];
        Tensor *t;

        if (m == NULL || m->pin != pin || m->key_bytes != key_bytes || memcmp(m->key, VARDATA_ANY(key), key_bytes) != 0)
            continue;
        t = tensor_new(m->ndim, m->dims);
        memcpy(t->data, m->numbers, m->n * sizeof(float));
        PG_RETURN_TENSOR(t);
    }
    PG_RETURN_NULL();
}

/* pg_llm_memo_put(model, key, value): keeps a small value until the statement's pin ends, or for a few others */
PG_FUNCTION_INFO_V1(pg_llm_memo_put);
Datum
pg_llm_memo_put(PG_FUNCTION_ARGS)
{
    uint64     pin = params_statement_pin(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    text      *key = PG_GETARG_TEXT_PP(1);
    int        key_bytes = VARSIZE_ANY_EXHDR(key);
    TensorView v = PG_GETARG_TENSOR_VIEW(2);

    if (pin != 0 && key_bytes <= MAX_KEY && v.n <= MAX_NUMBERS)
    {
        Size  head = MAXALIGN(offsetof(Memo, key) + key_bytes);
        Memo *m = MemoryContextAlloc(TopMemoryContext, head + v.n * sizeof(float));

        m->pin = pin;
        m->ndim = v.ndim;
        memcpy(m->dims, v.dims, v.ndim * sizeof(int32));
        m->n = v.n;
        m->numbers = (float *) ((char *) m + head);
        memcpy(m->numbers, v.data, v.n * sizeof(float));
        m->key_bytes = key_bytes;
        memcpy(m->key, VARDATA_ANY(key), key_bytes);
        if (memos[next_memo] != NULL)
            pfree(memos[next_memo]);
        memos[next_memo] = m;
        next_memo = (next_memo + 1) % MAX_MEMOS;
    }
    PG_RETURN_VOID();
}
