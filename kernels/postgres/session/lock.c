/*
 * lock.c -- one trainer per model: exclusive locks by name, until the transaction ends.
 *
 * Advisory locks would do, if not every role could take any of them. These are locks on an object of a relation, as
 * DDL takes on objects of catalogs, and no statement takes such a lock on an object of an ordinary relation: only who
 * may execute these functions can hold one. pg_locks shows them with locktype object.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 48 bits of the name's hash are all that a lock's tag holds. */
static LOCKTAG
tag_of(Oid relation, const text *name)
{
    uint64  hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), 0);
    LOCKTAG tag;

    SET_LOCKTAG_OBJECT(tag, MyDatabaseId, relation, (uint32) hash, (uint16) (hash >> 32));
    return tag;
}

/* pg_llm_try_lock(relation, name) -> whether this transaction has the exclusive lock of that name; never waits */
PG_FUNCTION_INFO_V1(pg_llm_try_lock);
Datum
pg_llm_try_lock(PG_FUNCTION_ARGS)
{
    LOCKTAG tag = tag_of(PG_GETARG_OID(0), PG_GETARG_TEXT_PP(1));

    PreventCommandDuringRecovery("a change of a model");
    PG_RETURN_BOOL(LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL);
}

/* pg_llm_lock_holder(relation, name) -> the process that holds that lock, or NULL */
PG_FUNCTION_INFO_V1(pg_llm_lock_holder);
Datum
pg_llm_lock_holder(PG_FUNCTION_ARGS)
{
    LOCKTAG   tag = tag_of(PG_GETARG_OID(0), PG_GETARG_TEXT_PP(1));
    LockData *all = GetLockStatusData();

    for (int i = 0; i < all->nelements; i++)
        if (all->locks[i].holdMask != 0 && memcmp(&all->locks[i].locktag, &tag, sizeof(LOCKTAG)) == 0)
            PG_RETURN_INT32(all->locks[i].pid);
    PG_RETURN_NULL();
}
