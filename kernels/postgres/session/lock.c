/*
 * lock.c -- one trainer per model: exclusive locks by name, until the transaction ends or, for what commits as it goes,
 * until its statement does.
 *
 * Advisory locks would do, if not every role could take any of them. These are locks on an object of a relation, as
 * DDL takes on objects of catalogs, and no statement takes such a lock on an object of an ordinary relation: only who
 * may execute these functions can hold one. pg_locks shows them with locktype object.
 *
 * A lock that outlives a commit is a session's, as VACUUM's: PostgreSQL itself releases it with any error that ends the
 * transaction. As it is no advisory lock, DISCARD ALL and pg_advisory_unlock_all() leave it alone, which a statement of a
 * trigger could call. The portal of the statement that took it ends it in any case, so that none gets into a pool.
 */
#include "postgres.h"

#include "access/transam.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "lock.h"
#include "portals.h"

#define MAX_HELD 8

/* How long to wait for a transaction that is over to let its locks go, and how often to look */
#define RELEASE_TRIES    10000
#define RELEASE_PAUSE_US 100

/* Locks of the session, and the statement that each is held for */
static struct
{
    LOCKTAG tag;
    Portal  portal;
} held[MAX_HELD];

static int n_held = 0;

/* 48 bits of the name's hash are all that a lock's tag holds. A name for an object of a catalog's could be looked for. */
static LOCKTAG
tag_of(Oid relation, const text *name)
{
    uint64  hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), 0);
    LOCKTAG tag;

    if (relation < FirstNormalObjectId)
        ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
                errmsg("relation with OID %u is the system's: its objects are not to be locked", relation));
    SET_LOCKTAG_OBJECT(tag, MyDatabaseId, relation, (uint32) hash, (uint16) (hash >> 32));
    return tag;
}

/* The process that holds the lock, 0 for a prepared transaction, or -1 for none */
static int
holder_of(const LOCKTAG *tag)
{
    LockData *all = GetLockStatusData();
    int       pid = -1;

    for (int i = 0; i < all->nelements && pid < 0; i++)
        if (all->locks[i].holdMask != 0 && memcmp(&all->locks[i].locktag, tag, sizeof(LOCKTAG)) == 0)
            pid = all->locks[i].pid;
    /* acquire() asks again and again within one memory context. */
    pfree(all->locks);
    pfree(all);
    return pid;
}

/* Whether the process has ended its transaction: it does so before it lets its locks go. */
static bool
has_ended(int pid)
{
    PGPROC *proc = pid > 0 ? BackendPidGetProc(pid) : NULL;

#if PG_VERSION_NUM >= 170000
    return pid != 0 && (proc == NULL || proc->vxid.lxid == InvalidLocalTransactionId);
#else
    return pid != 0 && (proc == NULL || proc->lxid == InvalidLocalTransactionId);
#endif
}

/*
 * Takes the lock if no transaction that still runs holds it. One that has ended lets its locks go one after another:
 * whom the first wakes must not find the next still held.
 */
static bool
acquire(const LOCKTAG *tag, bool for_session)
{
    for (int i = 0; i < RELEASE_TRIES; i++)
    {
        if (LockAcquire(tag, ExclusiveLock, for_session, true) != LOCKACQUIRE_NOT_AVAIL)
            return true;
        if (!has_ended(holder_of(tag)))
            return false;
        CHECK_FOR_INTERRUPTS();
        pg_usleep(RELEASE_PAUSE_US);
    }
    return false;
}

/* pg_llm_try_lock(relation, name) -> whether this transaction has the exclusive lock of that name; waits for none */
PG_FUNCTION_INFO_V1(pg_llm_try_lock);
Datum
pg_llm_try_lock(PG_FUNCTION_ARGS)
{
    LOCKTAG tag = tag_of(PG_GETARG_OID(0), PG_GETARG_TEXT_PP(1));

    PreventCommandDuringRecovery("a change of a model");
    PG_RETURN_BOOL(acquire(&tag, false));
}

/* pg_llm_hold_lock(relation, name): likewise, but until the running statement ends, through its commits */
PG_FUNCTION_INFO_V1(pg_llm_hold_lock);
Datum
pg_llm_hold_lock(PG_FUNCTION_ARGS)
{
    LOCKTAG tag = tag_of(PG_GETARG_OID(0), PG_GETARG_TEXT_PP(1));
    Portal  portal = portals_watch();

    PreventCommandDuringRecovery("a change of a model");
    if (portal == NULL || n_held == MAX_HELD)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                portal == NULL ? errmsg("no statement runs that could hold a lock")
                               : errmsg("this statement holds %d locks already", n_held));
    if (!acquire(&tag, true))
        PG_RETURN_BOOL(false);
    held[n_held].tag = tag;
    held[n_held++].portal = portal;
    PG_RETURN_BOOL(true);
}

void
locks_portal_gone(Portal portal)
{
    for (int i = n_held - 1; i >= 0; i--)
        if (held[i].portal == portal)
        {
            LOCKTAG tag = held[i].tag;

            held[i] = held[--n_held];
            LockRelease(&tag, ExclusiveLock, true);
        }
}

/* pg_llm_drop_locks(): those of pg_llm_hold_lock that the running statement holds */
PG_FUNCTION_INFO_V1(pg_llm_drop_locks);
Datum
pg_llm_drop_locks(PG_FUNCTION_ARGS)
{
    locks_portal_gone(portals_watch());
    PG_RETURN_VOID();
}

void
locks_end_xact(bool commit)
{
    if (!commit)
        n_held = 0; /* PostgreSQL releases them */
}

/* pg_llm_lock_holder(relation, name) -> the process that holds that lock, or NULL */
PG_FUNCTION_INFO_V1(pg_llm_lock_holder);
Datum
pg_llm_lock_holder(PG_FUNCTION_ARGS)
{
    LOCKTAG tag = tag_of(PG_GETARG_OID(0), PG_GETARG_TEXT_PP(1));
    int     pid = holder_of(&tag);

    if (pid < 0)
        PG_RETURN_NULL();
    PG_RETURN_INT32(pid);
}
