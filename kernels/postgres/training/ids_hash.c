/*
 * ids_hash.c -- 64-bit hashes of token ids, the same on every machine: of batches, and of the rows of a dataset.
 *
 * h begins as the given start. Of each array, tokens first: its number of dimensions, their lengths, and its ids in
 * order, every one as a word of 32 bits w: h = (h xor w) * 0x9e3779b97f4a7c15 mod 2^64, then h = h xor (h >> 32). One
 * step is one-to-one in w, so ids that differ in one place never have the same hash.
 *
 * Also here: whether ids are within bounds, which is asked of the same rows.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "session/mixed.h"

static uint64
add_ids(uint64 h, ArrayType *ids)
{
    const int32 *values = (const int32 *) ARR_DATA_PTR(ids);
    int          n = ArrayGetNItems(ARR_NDIM(ids), ARR_DIMS(ids));

    if (array_contains_nulls(ids))
        ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("tokens and targets cannot contain NULL"));
    h = mixed(h, (uint32) ARR_NDIM(ids));
    for (int axis = 0; axis < ARR_NDIM(ids); axis++)
        h = mixed(h, (uint32) ARR_DIMS(ids)[axis]);
    for (int i = 0; i < n; i++)
    {
        h = mixed(h, (uint32) values[i]);
        if (i % (1 << 20) == 0)
            CHECK_FOR_INTERRUPTS();
    }
    return h;
}

/* pg_llm_ids_hash(tokens, targets, start) */
PG_FUNCTION_INFO_V1(pg_llm_ids_hash);
Datum
pg_llm_ids_hash(PG_FUNCTION_ARGS)
{
    uint64 h = add_ids((uint64) PG_GETARG_INT64(2), PG_GETARG_ARRAYTYPE_P(0));

    PG_RETURN_INT64((int64) add_ids(h, PG_GETARG_ARRAYTYPE_P(1)));
}

/* ---- a set of rows: their number, and two sums of their hashes, in whatever order they come ---- */

/*
 * All modulo the prime 2^61 - 1. When one row has changed, the difference of the plain sums is that of its hash, and
 * the difference of the sums weighted by id is its id times that: division gives its id.
 */
#define PRIME ((UINT64CONST(1) << 61) - 1)

typedef struct RowsHash
{
    uint64 rows, plain, weighted;
} RowsHash;

static uint64
times(uint64 a, uint64 b)
{
#ifdef HAVE_INT128
    uint128 product = (uint128) a * b;

    return (uint64) (product % PRIME);
#else
    uint64 result = 0;

    for (; b > 0; b >>= 1, a = a * 2 % PRIME)
        if (b & 1)
            result = (result + a) % PRIME;
    return result;
#endif
}

/* b to the power of PRIME - 2 is 1 / b */
static uint64
divided(uint64 a, uint64 b)
{
    uint64 square = b;

    for (uint64 power = PRIME - 2; power > 0; power >>= 1, square = times(square, square))
        if (power & 1)
            a = times(a, square);
    return a;
}

/* Transition function: (state, id, tokens, target); a row with a NULL does not count */
PG_FUNCTION_INFO_V1(pg_llm_rows_hash_add);
Datum
pg_llm_rows_hash_add(PG_FUNCTION_ARGS)
{
    MemoryContext aggregate;
    RowsHash     *state;
    ArrayType    *tokens, *targets;
    uint64        id, h;

    if (!AggCheckCallContext(fcinfo, &aggregate))
        ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                errmsg("pg_llm_rows_hash_add is the transition function of pg_llm_rows_hash"));
    state = PG_ARGISNULL(0) ? MemoryContextAllocZero(aggregate, sizeof(RowsHash)) : (RowsHash *) PG_GETARG_POINTER(0);
    for (int i = 1; i <= 3; i++)
        if (PG_ARGISNULL(i))
            PG_RETURN_POINTER(state);
    id = (uint64) PG_GETARG_INT64(1);
    tokens = PG_GETARG_ARRAYTYPE_P(2);
    targets = PG_GETARG_ARRAYTYPE_P(3);
    h = add_ids(add_ids(id, tokens), targets) % PRIME;
    state->rows++;
    state->plain = (state->plain + h) % PRIME;
    state->weighted = (state->weighted + times(h, id % PRIME)) % PRIME;
    PG_FREE_IF_COPY(tokens, 2);
    PG_FREE_IF_COPY(targets, 3);
    PG_RETURN_POINTER(state);
}

/* Final function: 24 bytes in network order; NULL without rows */
PG_FUNCTION_INFO_V1(pg_llm_rows_hash_final);
Datum
pg_llm_rows_hash_final(PG_FUNCTION_ARGS)
{
    const RowsHash *state;
    uint64          sums[3];
    bytea          *result = palloc(VARHDRSZ + sizeof(sums));

    if (PG_ARGISNULL(0))
        PG_RETURN_NULL();
    state = (RowsHash *) PG_GETARG_POINTER(0);
    sums[0] = pg_hton64(state->rows);
    sums[1] = pg_hton64(state->plain);
    sums[2] = pg_hton64(state->weighted);
    SET_VARSIZE(result, VARHDRSZ + sizeof(sums));
    memcpy(VARDATA(result), sums, sizeof(sums));
    PG_RETURN_BYTEA_P(result);
}

static RowsHash
rows_hash_of(const bytea *value)
{
    uint64 sums[3];

    if (VARSIZE_ANY_EXHDR(value) != sizeof(sums))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a hash of rows has %zu bytes, not %zu", sizeof(sums), (size_t) VARSIZE_ANY_EXHDR(value)),
                errhint("Pass what pg_llm_rows_hash returned."));
    memcpy(sums, VARDATA_ANY(value), sizeof(sums));
    return (RowsHash){pg_ntoh64(sums[0]), pg_ntoh64(sums[1]) % PRIME, pg_ntoh64(sums[2]) % PRIME};
}

/* pg_llm_rows_changed(before, after) -> the id of the row whose change explains both, if it was one; else NULL */
PG_FUNCTION_INFO_V1(pg_llm_rows_changed);
Datum
pg_llm_rows_changed(PG_FUNCTION_ARGS)
{
    RowsHash before = rows_hash_of(PG_GETARG_BYTEA_PP(0));
    RowsHash after = rows_hash_of(PG_GETARG_BYTEA_PP(1));
    uint64   plain = (after.plain + PRIME - before.plain) % PRIME;
    uint64   weighted = (after.weighted + PRIME - before.weighted) % PRIME;

    if (before.rows != after.rows || plain == 0)
        PG_RETURN_NULL();
    PG_RETURN_INT64((int64) divided(weighted, plain));
}

/* pg_llm_ids_within(ids, low, high) -> whether none is NULL and all are at least low and below high */
PG_FUNCTION_INFO_V1(pg_llm_ids_within);
Datum
pg_llm_ids_within(PG_FUNCTION_ARGS)
{
    ArrayType   *ids = PG_GETARG_ARRAYTYPE_P(0);
    const int32 *values = (const int32 *) ARR_DATA_PTR(ids);
    int32        low = PG_GETARG_INT32(1);
    int32        high = PG_GETARG_INT32(2);
    int          n = ArrayGetNItems(ARR_NDIM(ids), ARR_DIMS(ids));

    if (array_contains_nulls(ids))
        PG_RETURN_BOOL(false);
    for (int i = 0; i < n; i++)
        if (values[i] < low || values[i] >= high)
            PG_RETURN_BOOL(false);
    PG_FREE_IF_COPY(ids, 0);
    PG_RETURN_BOOL(true);
}
