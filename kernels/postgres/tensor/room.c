/*
 * room.c -- how much disk and memory there is, for those who ask before they begin something large.
 */
#include "postgres.h"

#include <limits.h>
#include <sys/statvfs.h>

#include "access/relation.h"
#include "catalog/pg_tablespace_d.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "buffer.h"

/* pg_llm_disk_free(relation) -> bytes free on the file system of its tablespace; NULL when it does not say */
PG_FUNCTION_INFO_V1(pg_llm_disk_free);
Datum
pg_llm_disk_free(PG_FUNCTION_ARGS)
{
    Relation       rel = try_relation_open(PG_GETARG_OID(0), AccessShareLock);
    Oid            tablespace;
    struct statvfs s;

    if (rel == NULL)
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
                errmsg("relation with OID %u does not exist", PG_GETARG_OID(0)));
    tablespace = rel->rd_rel->reltablespace;
    relation_close(rel, AccessShareLock);
    if (!OidIsValid(tablespace))
        tablespace = MyDatabaseTableSpace;
    if (tablespace == GLOBALTABLESPACE_OID || statvfs(GetDatabasePath(MyDatabaseId, tablespace), &s) != 0 ||
        s.f_frsize == 0)
        PG_RETURN_NULL();
    if ((uint64) s.f_bavail > (uint64) INT64_MAX / s.f_frsize)
        PG_RETURN_INT64(INT64_MAX);
    PG_RETURN_INT64((int64) s.f_bavail * (int64) s.f_frsize);
}

/* pg_llm_memory_free() -> bytes that this session's tensors can have, those they hold included; NULL when unknown */
PG_FUNCTION_INFO_V1(pg_llm_memory_free);
Datum
pg_llm_memory_free(PG_FUNCTION_ARGS)
{
    size_t available = tensor_buffer_available();

    if (available == SIZE_MAX)
        PG_RETURN_NULL();
    PG_RETURN_INT64((int64) (available + tensor_buffer_in_use() + tensor_buffer_cached()));
}
