/*
 * dead_rows.c -- tells autovacuum what a running CALL has left dead: pg_llm_report_dead(relation).
 *
 * A session collects how many rows its transactions have changed, and hands the numbers to the other processes between
 * statements (pgstat_report_stat), at most once a second. A procedure that commits is one statement, though: autovacuum
 * would hear of the first write-back when the last has ended, after hours, and the table would grow by a version with
 * each. The public ways to hand over earlier refuse to work inside a transaction.
 *
 * So the numbers that autovacuum decides by are moved here as pgstat_relation_flush_cb() would move them, under the same
 * lock: of committed (and rolled back) transactions only, since those of the open one are kept apart until it ends.
 * What is moved is taken from what is pending, and nothing counts twice. The rest (scans, blocks) stays for the
 * end of the statement: it needs the time at which a transaction has stopped, which ours has not.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/pgstat_internal.h"
#include "utils/syscache.h"

#if PG_VERSION_NUM >= 160000
#define PENDING(table, name) ((table)->counts.name)
#define SHARED_LIVE          live_tuples
#define SHARED_DEAD          dead_tuples
#define SHARED_CHANGED       mod_since_analyze
#define SHARED_INSERTED      ins_since_vacuum
#else
#define PENDING(table, name) ((table)->t_counts.t_##name)
#define SHARED_LIVE          n_live_tuples
#define SHARED_DEAD          n_dead_tuples
#define SHARED_CHANGED       changes_since_analyze
#define SHARED_INSERTED      inserts_since_vacuum
#endif

/* Of one table, where this session has counted anything; returns how many dead rows became known. */
static int64
report(Oid relid)
{
    PgStat_EntryRef     *ref = pgstat_fetch_pending_entry(PGSTAT_KIND_RELATION, MyDatabaseId, relid);
    PgStat_TableStatus  *pending;
    PgStat_StatTabEntry *shared;
    int64                dead;

    if (ref == NULL)
        return 0;
    pending = ref->pending;
    dead = PENDING(pending, delta_dead_tuples);
    pgstat_lock_entry(ref, false);
    shared = &((PgStatShared_Relation *) ref->shared_stats)->stats;
    if (PENDING(pending, truncdropped))
        shared->SHARED_LIVE = shared->SHARED_DEAD = shared->SHARED_INSERTED = 0;
    /* What is pending can be below zero: rows that pruning has removed. */
    shared->SHARED_LIVE = Max(shared->SHARED_LIVE + PENDING(pending, delta_live_tuples), 0);
    shared->SHARED_DEAD = Max(shared->SHARED_DEAD + dead, 0);
    shared->SHARED_CHANGED += PENDING(pending, changed_tuples);
    pgstat_unlock_entry(ref);

    PENDING(pending, truncdropped) = false;
    PENDING(pending, delta_live_tuples) = 0;
    PENDING(pending, delta_dead_tuples) = 0;
    PENDING(pending, changed_tuples) = 0;
    return dead;
}

/* pg_llm_report_dead(relation) -> dead rows of the table, its TOAST table and its children that became known */
PG_FUNCTION_INFO_V1(pg_llm_report_dead);
Datum
pg_llm_report_dead(PG_FUNCTION_ARGS)
{
    int64     dead = 0;
    List     *relids = list_make1_oid(PG_GETARG_OID(0));
    ListCell *cell;

    /* Nothing of the tables is read, so there are no locks: a table may go meanwhile. Children join the list. */
    foreach (cell, relids)
    {
        Oid       relid = lfirst_oid(cell);
        HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
        Oid       toast;

        if (!HeapTupleIsValid(tuple))
            continue;
        toast = ((Form_pg_class) GETSTRUCT(tuple))->reltoastrelid;
        ReleaseSysCache(tuple);
        relids = list_concat_unique_oid(relids, find_inheritance_children(relid, NoLock));
        dead += report(relid);
        if (OidIsValid(toast))
            dead += report(toast);
    }
    PG_RETURN_INT64(dead);
}
