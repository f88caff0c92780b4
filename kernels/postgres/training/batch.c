/*
 * batch.c -- which rows a training step takes: seeded permutations, one per epoch.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "batch.h"
#include "session/engine.h"
#include "tensor/buffer.h"

/*
 * The last two epochs' permutations: a batch may lie across an epoch's end. They stay for the next batch, until
 * llm_release() or, if they are large, the transaction's end.
 */
typedef struct Epoch
{
    int64 *order; /* NULL: none */
    int64  n;
    uint64 seed, epoch;
} Epoch;

static Epoch epochs[2];

#define PERMUTE_PIECE ((int64) 1 << 18) /* elements between two looks at interrupts */
#define MAX_ROWS      ((int64) 1 << 28) /* of a permutation: 2 GB of them */
#define KEPT_ROWS     ((int64) 1 << 20) /* when the transaction is over */

static size_t
forget_epoch(Epoch *slot)
{
    size_t bytes = slot->n * sizeof(int64);

    if (slot->order == NULL)
        return 0;
    pfree(slot->order);
    slot->order = NULL;
    slot->n = 0;
    tensor_buffer_unreserve(bytes);
    return bytes;
}

size_t
batch_release(void)
{
    return forget_epoch(&epochs[0]) + forget_epoch(&epochs[1]);
}

void
batch_end_xact(void)
{
    for (int i = 0; i < 2; i++)
        if (epochs[i].n > KEPT_ROWS)
            forget_epoch(&epochs[i]);
}

static const int64 *
epoch_order(int64 n, uint64 seed, uint64 epoch)
{
    Epoch *slot = &epochs[epoch % 2];
    int64 *order;

    if (slot->order != NULL && slot->n == n && slot->seed == seed && slot->epoch == epoch)
        return slot->order;
    forget_epoch(slot);
    if (!tensor_buffer_room(n * sizeof(int64)))
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a permutation of " INT64_FORMAT, n));
    if (!tensor_buffer_reserve(n * sizeof(int64)))
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a permutation of " INT64_FORMAT, n));
    PG_TRY();
    {
        order = MemoryContextAllocHuge(TopMemoryContext, n * sizeof(int64));
    }
    PG_CATCH();
    {
        tensor_buffer_unreserve(n * sizeof(int64));
        PG_RE_THROW();
    }
    PG_END_TRY();
    /* the slot's, but of an epoch that is never looked for in it: an interrupt may end this */
    *slot = (Epoch){order, n, 0, epoch + 1};
    for (int64 i = 0; i < n; i++)
    {
        order[i] = i;
        if (i % PERMUTE_PIECE == 0)
            CHECK_FOR_INTERRUPTS();
    }
    for (int64 end = n; end > 1; end -= Min(end, PERMUTE_PIECE))
    {
        llm_permutation_swaps(order, Max(1, end - PERMUTE_PIECE), end, seed, epoch);
        CHECK_FOR_INTERRUPTS();
    }
    slot->seed = seed;
    slot->epoch = epoch;
    return order;
}

static void
require_count(int64 n, const char *what)
{
    if (n < 1 || n > MAX_ROWS)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s must be between 1 and " INT64_FORMAT ", not " INT64_FORMAT, what, MAX_ROWS, n));
}

static Datum
int8_datums(Datum *ids, int n)
{
    return PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64), true, TYPALIGN_DOUBLE));
}

/* pg_llm_permutation(n, seed, epoch): 0 .. n-1 in that epoch's order */
PG_FUNCTION_INFO_V1(pg_llm_permutation);
Datum
pg_llm_permutation(PG_FUNCTION_ARGS)
{
    int64        n = PG_GETARG_INT64(0);
    Datum       *ids;
    const int64 *order;

    require_count(n, "n");
    if (n > (int64) (MaxAllocSize / sizeof(Datum) / 2))
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("a permutation of " INT64_FORMAT " does not fit into an array", n));
    order = epoch_order(n, (uint64) PG_GETARG_INT64(1), (uint64) PG_GETARG_INT64(2));
    ids = palloc(sizeof(Datum) * n);
    for (int64 i = 0; i < n; i++)
        ids[i] = Int64GetDatum(order[i]);
    CHECK_FOR_INTERRUPTS();
    PG_RETURN_DATUM(int8_datums(ids, (int) n));
}

/* pg_llm_batch(n, seed, first, size): ordinals from 1 at positions first .. of all epochs one after another */
PG_FUNCTION_INFO_V1(pg_llm_batch);
Datum
pg_llm_batch(PG_FUNCTION_ARGS)
{
    int64  n = PG_GETARG_INT64(0);
    uint64 seed = (uint64) PG_GETARG_INT64(1);
    int64  first = PG_GETARG_INT64(2);
    int32  size = PG_GETARG_INT32(3);
    Datum *ids;

    require_count(n, "n");
    require_count(size, "the batch size");
    if (first < 0 || first > PG_INT64_MAX - size || size > (int32) (MaxAllocSize / sizeof(Datum) / 2))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a batch of %d cannot begin at position " INT64_FORMAT, size, first));
    ids = palloc(sizeof(Datum) * size);
    for (int32 i = 0; i < size; i++)
    {
        int64 position = first + i;

        if (i % 1024 == 0)
            CHECK_FOR_INTERRUPTS();
        ids[i] = Int64GetDatum(epoch_order(n, seed, (uint64) (position / n))[position % n] + 1);
    }
    PG_RETURN_DATUM(int8_datums(ids, size));
}
