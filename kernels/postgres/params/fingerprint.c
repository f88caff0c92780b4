/*
 * fingerprint.c -- which rows a snapshot sees, as a fingerprint: of whole relations (pg_llm_relation_version); identity.c
 * has those of the rows that a query gives (pg_llm_fingerprint).
 *
 * A fingerprint is over what identifies the relation's storage and columns, and over (ctid, xmin) of every row: right
 * under rollbacks, savepoints, restores, replicas, other snapshots and disabled triggers alike, for a place in a file
 * is given to a second row only after the transaction of the first is over, and that of the second is another.
 *
 * One transaction is the exception: it may empty, in place, a file that it made itself (TRUNCATE of a table that it
 * created, truncated or rewrote), and fill the same places again under the same transaction id. There the command that
 * inserted a row counts too. Command ids never repeat within a transaction; they are lost with it, so what such a
 * transaction kept in memory is read once more after it.
 *
 * Fingerprints are keyed by a secret of the session: SQL can neither make nor predict one that is equal by design.
 * They are compared within one session only.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "fingerprint.h"

#define MAX_RELATIONS 8

#if PG_VERSION_NUM < 160000
#define rd_firstRelfilelocatorSubid rd_firstRelfilenodeSubid
#endif

typedef struct Hash
{
    uint64 a, b;
} Hash;

/* The last fingerprint of whole relations, and what it depends on */
static struct
{
    bool valid;
    Hash key;
    Hash version;
} last;

static inline void
add(Hash *h, uint64 value)
{
    h->a = (h->a ^ value) * UINT64CONST(0x9e3779b97f4a7c15);
    h->a ^= h->a >> 29;
    h->b = (h->b + value) * UINT64CONST(0xd6e8feb86659fd93);
    h->b ^= h->b >> 32;
}

/* Where every hash of this session starts */
static Hash
secret_start(void)
{
    static Hash secret = {0, 0};

    while (secret.a == 0)
        if (!pg_strong_random(&secret, sizeof(secret)))
            ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not draw a random number"));
    return secret;
}

/* ---- identity of a relation and of a row ---- */

/* Files of an ordinary table, and columns: one that is renamed, or dropped and added, holds other values in old rows. */
static void
add_relation(Hash *h, Relation rel)
{
    TupleDesc desc = RelationGetDescr(rel);

    add(h, (uint64) RelationGetRelid(rel) << 32 | rel->rd_rel->relfilenode);
    add(h, (uint64) rel->rd_rel->reltablespace << 32 | (uint32) desc->natts);
    for (int i = 0; i < desc->natts; i++)
    {
        Form_pg_attribute column = TupleDescAttr(desc, i);

        add(h, hash_bytes_extended((const unsigned char *) NameStr(column->attname),
                                   (int) strlen(NameStr(column->attname)), column->atttypid));
    }
}

/* Whether this transaction made the relation's file, and so may empty it in place */
bool
fingerprint_own_file(Relation rel)
{
    return rel->rd_createSubid != InvalidSubTransactionId ||
           rel->rd_firstRelfilelocatorSubid != InvalidSubTransactionId;
}

/* For a relation whose file is this transaction's: the command that inserted the row, 0 when another transaction did */
static uint64
inserting_command(HeapTupleHeader row)
{
    if (!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmin(row)))
        return 0;
    /*
     * A delete that was rolled back leaves a combined id, which is resolved. Of a row that COPY FREEZE wrote it
     * overwrites the id by its own, which is still later than the last TRUNCATE's and before the next one's.
     */
    if (row->t_infomask & HEAP_COMBOCID)
        return 1 + (uint64) HeapTupleHeaderGetCmin(row);
    return 1 + (uint64) HeapTupleHeaderGetRawCommandId(row);
}

static void
require_table(Relation rel)
{
    if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relam != HEAP_TABLE_AM_OID ||
        RELATION_IS_OTHER_TEMP(rel))
        ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
                errmsg("\"%s\" is not an ordinary table", RelationGetRelationName(rel)),
                errhint("Row versions are known only of ordinary tables (access method heap)."));
}

/* ---- whole relations ---- */

/* A rollback to a savepoint changes what is visible without changing the snapshot. */
void
fingerprint_abort_subxact(void)
{
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

/* An ordinary table all of whose rows and columns the present role may read */
static Relation
open_readable(Oid relid)
{
    Relation rel = try_table_open(relid, AccessShareLock);

    if (rel == NULL)
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("relation with OID %u does not exist", relid));
    if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK &&
        pg_attribute_aclcheck_all(relid, GetUserId(), ACL_SELECT, ACLMASK_ALL) != ACLCHECK_OK)
        aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(rel->rd_rel->relkind), RelationGetRelationName(rel));
    require_table(rel);
    if (check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
        ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                errmsg("row-level security hides rows of \"%s\" from the current role", RelationGetRelationName(rel)),
                errhint("Aggregate the rows that the role can see with pg_llm_fingerprint."));
    return rel;
}

static void
add_rows(Hash *h, Relation rel, Snapshot snapshot)
{
    /* From the first block on: a scan that joins another's halfway would see the rows in another order. */
    TableScanDesc scan = table_beginscan_strat(rel, snapshot, 0, NULL, true, false);
    bool          with_command = fingerprint_own_file(rel);
    HeapTuple     tuple;

    while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
    {
        add(h, (uint64) ItemPointerGetBlockNumber(&tuple->t_self) << 16 | ItemPointerGetOffsetNumber(&tuple->t_self));
        add(h, HeapTupleHeaderGetRawXmin(tuple->t_data));
        if (with_command)
            add(h, UINT64CONST(1) << 63 | inserting_command(tuple->t_data));
    }
    table_endscan(scan);
}

/*
 * pg_llm_relation_version(relations) -> 16 bytes that are equal when the same rows are visible. A scan of 100,000
 * rows takes milliseconds, so the last one is remembered for as long as the snapshot is the same: until a transaction
 * that has written ends anywhere, or this one writes. Under SERIALIZABLE every call scans: reading is what it locks.
 */
PG_FUNCTION_INFO_V1(pg_llm_relation_version);
Datum
pg_llm_relation_version(PG_FUNCTION_ARGS)
{
    ArrayType *array = PG_GETARG_ARRAYTYPE_P(0);
    int        n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
    Oid       *relids = (Oid *) ARR_DATA_PTR(array);
    Relation   rels[MAX_RELATIONS];
    Snapshot   snapshot = GetActiveSnapshot();
    Hash       key = secret_start(), version = secret_start();
    bytea     *result = palloc(VARHDRSZ + sizeof(Hash));
    bool       believe = !IsolationIsSerializable();

    if (n > MAX_RELATIONS || array_contains_nulls(array))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("there can be at most %d relations, and none may be NULL", MAX_RELATIONS));
    add_snapshot(&key, snapshot);
    for (int i = 0; i < n; i++)
    {
        rels[i] = open_readable(relids[i]);
        add_relation(&version, rels[i]);
        if (fingerprint_own_file(rels[i]))
            believe = false; /* emptied in place, it keeps its file and the snapshot its command */
    }
    add(&key, version.a);
    add(&key, version.b);
    if (believe && last.valid && last.key.a == key.a && last.key.b == key.b)
        version = last.version;
    else
        for (int i = 0; i < n; i++)
            add_rows(&version, rels[i], snapshot);
    for (int i = 0; i < n; i++)
        table_close(rels[i], AccessShareLock);
    last.valid = believe;
    last.key = key;
    last.version = version;
    SET_VARSIZE(result, VARHDRSZ + sizeof(Hash));
    memcpy(VARDATA(result), &version, sizeof(Hash));
    PG_RETURN_BYTEA_P(result);
}

/* ---- rows of a query, for identity.c ---- */

Relation
fingerprint_open(Oid relid)
{
    Relation rel = try_table_open(relid, AccessShareLock);

    if (rel == NULL)
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("relation with OID %u does not exist", relid));
    require_table(rel);
    return rel;
}

/* inserting_command() of the row at `tid`; 0 when no row of this transaction is there */
uint64
fingerprint_command_at(Oid relid, ItemPointer tid)
{
    Relation      rel = fingerprint_open(relid);
    HeapTupleData tuple;
    Buffer        buffer;
    uint64        command = 0;

    tuple.t_self = *tid;
    if (ItemPointerGetBlockNumberNoCheck(tid) < RelationGetNumberOfBlocks(rel) &&
        heap_fetch(rel, SnapshotAny, &tuple, &buffer, false))
    {
        command = inserting_command(tuple.t_data);
        ReleaseBuffer(buffer);
    }
    table_close(rel, AccessShareLock);
    return command;
}
