/*
 * tensor_compare.c -- equality, order and hashes, so that DISTINCT, GROUP BY, ORDER BY and indexes work.
 *
 * Elements compare as PostgreSQL's real does: NaN equals NaN and is larger than any number, -0 equals 0. The
 * order is that of arrays: element by element, then by number of elements, dimensions and shape. What a value
 * was in a recorded pass does not matter.
 */
#include "postgres.h"

#include <math.h>

#include "common/hashfn.h"
#include "miscadmin.h"

#include "tensor_view.h"

#define CHUNK      1024  /* elements hashed at a time */
#define POLL_EVERY 65536 /* elements between two looks at pending interrupts */

static int
compare_elements(float a, float b)
{
    if (a < b)
        return -1;
    if (a > b)
        return 1;
    if (a == b)
        return 0;
    return (int) isnan(a) - (int) isnan(b);
}

/* Negative, zero, positive. */
static int
compare_views(const TensorView *a, const TensorView *b)
{
    size_t n = Min(a->n, b->n);

    for (size_t i = 0; i < n; i++)
    {
        int order;

        if (i % POLL_EVERY == 0)
            CHECK_FOR_INTERRUPTS();
        if (a->data[i] == b->data[i])
            continue;
        order = compare_elements(a->data[i], b->data[i]);
        if (order != 0)
            return order;
    }
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    if (a->ndim != b->ndim)
        return a->ndim < b->ndim ? -1 : 1;
    for (int i = 0; i < a->ndim; i++)
        if (a->dims[i] != b->dims[i])
            return a->dims[i] < b->dims[i] ? -1 : 1;
    return 0;
}

static int
compare_arguments(FunctionCallInfo fcinfo)
{
    TensorView a = PG_GETARG_TENSOR_VIEW(0);
    TensorView b = PG_GETARG_TENSOR_VIEW(1);
    int        order = compare_views(&a, &b);

    /* index and sort support functions must not leak: they run in a long-lived memory context */
    tensor_view_close(&a);
    tensor_view_close(&b);
    return order;
}

static bool
equal_arguments(FunctionCallInfo fcinfo)
{
    TensorView a = PG_GETARG_TENSOR_VIEW(0);
    TensorView b = PG_GETARG_TENSOR_VIEW(1);
    bool       equal = tensor_same_dims(a.ndim, a.dims, b.ndim, b.dims) && compare_views(&a, &b) == 0;

    tensor_view_close(&a);
    tensor_view_close(&b);
    return equal;
}

#define COMPARISON(name, condition)                                                                                    \
    PG_FUNCTION_INFO_V1(pg_llm_tensor_##name);                                                                         \
    Datum pg_llm_tensor_##name(PG_FUNCTION_ARGS)                                                                       \
    {                                                                                                                  \
        PG_RETURN_BOOL(condition);                                                                                     \
    }                                                                                                                  \
    extern int pg_llm_require_semicolon_##name

/* Comparison of elements in order, then of shapes; NaN equals NaN and is above all numbers, -0 equals 0. */
COMPARISON(eq, equal_arguments(fcinfo));
COMPARISON(ne, !equal_arguments(fcinfo));
COMPARISON(lt, compare_arguments(fcinfo) < 0);
COMPARISON(le, compare_arguments(fcinfo) <= 0);
COMPARISON(gt, compare_arguments(fcinfo) > 0);
COMPARISON(ge, compare_arguments(fcinfo) >= 0);

/* -1, 0 or 1: the order that btree indexes and ORDER BY use */
PG_FUNCTION_INFO_V1(pg_llm_tensor_cmp);
Datum
pg_llm_tensor_cmp(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32(compare_arguments(fcinfo));
}

/* Over the shape and the elements, in chunks: equal tensors have equal hashes. */
static uint64
hash_view(const TensorView *v, uint64 seed)
{
    uint64 hash = seed;
    float  chunk[CHUNK];

    if (v->ndim > 0)
        hash = DatumGetUInt64(hash_any_extended((const unsigned char *) v->dims, v->ndim * (int) sizeof(int32), hash));
    for (size_t i = 0; i < v->n; i += CHUNK)
    {
        size_t m = Min(CHUNK, v->n - i);

        if (i % POLL_EVERY == 0)
            CHECK_FOR_INTERRUPTS();
        for (size_t j = 0; j < m; j++)
            chunk[j] = v->data[i + j] == 0 ? 0 : tensor_canonical(v->data[i + j]);
        hash = DatumGetUInt64(hash_any_extended((const unsigned char *) chunk, (int) (m * sizeof(float)), hash));
    }
    return hash;
}

/* The hash that hash indexes, joins and GROUP BY use */
PG_FUNCTION_INFO_V1(pg_llm_tensor_hash);
Datum
pg_llm_tensor_hash(PG_FUNCTION_ARGS)
{
    TensorView v = PG_GETARG_TENSOR_VIEW(0);
    uint32     hash = (uint32) hash_view(&v, 0);

    tensor_view_close(&v);
    PG_RETURN_UINT32(hash);
}

/* The same in 64 bits, seeded, for hash partitions */
PG_FUNCTION_INFO_V1(pg_llm_tensor_hash_extended);
Datum
pg_llm_tensor_hash_extended(PG_FUNCTION_ARGS)
{
    TensorView v = PG_GETARG_TENSOR_VIEW(0);
    uint64     hash = hash_view(&v, DatumGetUInt64(PG_GETARG_DATUM(1)));

    tensor_view_close(&v);
    PG_RETURN_UINT64(hash);
}
