/*
 * relation_version.c -- pg_llm_relation_version: which rows of relations a snapshot sees, as a fingerprint.
 *
 * The fingerprint is over relation, file, and (ctid, xmin) of every visible row: it is
 * right under rollbacks, savepoints, restores, replicas and disabled triggers alike. A scan of 100,000 rows
 * takes milliseconds, so the last one is remembered for as long as the snapshot is the same: until a transaction that
 * has written ends anywhere, or this one writes.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define MAX_RELATIONS 8

typedef struct Hash { uint64 a, b; } Hash;

/* The last fingerprint, and what it depends on */
static struct
{
    bool    valid;
    Hash    key;
    Hash    version;
} last;

static inline void
add(Hash *h, uint64 value)
{
    h->a = (h->a ^ value) * UINT64CONST(0x9e3779b97f4a7c15);
    h->a ^= h->a >> 29;
    h->b = (h->b + value) * UINT64CONST(0xd6e8feb86659fd93);
    h->b ^= h->b >> 32;
}

/* A rollback to a savepoint changes what is visible without changing the snapshot. */
static void
subtransaction_ended(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
    (void) mine;
    (void) parent;
    (void) arg;
    if (event == SUBXACT_EVENT_ABORT_SUB)
        last.valid = false;
}

/* What decides which rows are visible to a snapshot of this transaction */
static void
add_snapshot(Hash *h, Snapshot s)
{
    add(h, (uint64) s->xmin << 32 | s->xmax);
    add(h, (uint64) s->curcid << 32 | (uint32) GetTopTransactionIdIfAny());
    add(h, (uint64) s->xcnt << 32 | (uint32) s->subxcnt);
    add(h, (s->suboverflowed ? 1 : 0) | (s->takenDuringRecovery ? 2 : 0));
    for (uint32 i = 0; i < s->xcnt; i++)
        add(h, s->xip[i]);
    for (int32 i = 0; i < s->subxcnt; i++)
        add(h, s->subxip[i]);
}

static Relation
open_readable(Oid relid)
{
    Relation rel = table_open(relid, AccessShareLock);

    if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
        aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(rel->rd_rel->relkind), RelationGetRelationName(rel));
    if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relam != HEAP_TABLE_AM_OID)
        ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
                errmsg("\"%s\" is not an ordinary table", RelationGetRelationName(rel)));
    return rel;
}

static void
add_rows(Hash *h, Relation rel, Snapshot snapshot)
{
    /* From the first block on: a scan that joins another's halfway would see the rows in another order. */
    TableScanDesc scan = table_beginscan_strat(rel, snapshot, 0, NULL, true, false);
    HeapTuple tuple;

    while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
    {
        add(h, (uint64) ItemPointerGetBlockNumber(&tuple->t_self) << 16 | ItemPointerGetOffsetNumber(&tuple->t_self));
        add(h, HeapTupleHeaderGetRawXmin(tuple->t_data));
    }
    table_endscan(scan);
}

/* pg_llm_relation_version(relations) -> 16 bytes that are equal when the same rows are visible */
PG_FUNCTION_INFO_V1(pg_llm_relation_version);
Datum
pg_llm_relation_version(PG_FUNCTION_ARGS)
{
    static bool registered = false;
    ArrayType *array = PG_GETARG_ARRAYTYPE_P(0);
    int     n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
    Oid    *relids = (Oid *) ARR_DATA_PTR(array);
    Relation rels[MAX_RELATIONS];
    Snapshot snapshot = GetActiveSnapshot();
    Hash    key = {1, 2}, version = {3, 4};
    bytea  *result = palloc(VARHDRSZ + sizeof(Hash));

    if (n > MAX_RELATIONS || array_contains_nulls(array))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("relations must be at most %d, none of them NULL", MAX_RELATIONS));
    if (!registered)
    {
        RegisterSubXactCallback(subtransaction_ended, NULL);
        registered = true;
    }
    add_snapshot(&key, snapshot);
    for (int i = 0; i < n; i++)
    {
        rels[i] = open_readable(relids[i]);
        add(&version, (uint64) relids[i] << 32 | rels[i]->rd_rel->relfilenode);
    }
    add(&key, version.a);
    add(&key, version.b);
    if (last.valid && last.key.a == key.a && last.key.b == key.b)
        version = last.version;
    else
        for (int i = 0; i < n; i++)
            add_rows(&version, rels[i], snapshot);
    for (int i = 0; i < n; i++)
        table_close(rels[i], AccessShareLock);
    last.valid = true;
    last.key = key;
    last.version = version;
    SET_VARSIZE(result, VARHDRSZ + sizeof(Hash));
    memcpy(VARDATA(result), &version, sizeof(Hash));
    PG_RETURN_BYTEA_P(result);
}
