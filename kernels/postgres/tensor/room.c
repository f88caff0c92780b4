/*
 * room.c -- how much disk and memory there is, for those who ask before they begin something large.
 */
#include "postgres.h"

#include <dirent.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_tablespace_d.h"
#include "common/relpath.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/rel.h"

#include "buffer.h"

/* The directory of the relation's tablespace; NULL: it has none of its own. */
static const char *
directory_of(Oid relation)
{
    Relation rel = try_relation_open(relation, AccessShareLock);
    Oid      tablespace;

    if (rel == NULL)
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("relation with OID %u does not exist", relation));
    tablespace = rel->rd_rel->reltablespace;
    relation_close(rel, AccessShareLock);
    if (!OidIsValid(tablespace))
        tablespace = MyDatabaseTableSpace;
    return tablespace == GLOBALTABLESPACE_OID ? NULL : GetDatabasePath(MyDatabaseId, tablespace);
}

/* Bytes free on the file system of a path; -1 when it does not say. */
static int64
free_at(const char *path)
{
    struct statvfs s;

    if (path == NULL || statvfs(path, &s) != 0 || s.f_frsize == 0)
        return -1;
    if ((uint64) s.f_bavail > (uint64) INT64_MAX / s.f_frsize)
        return INT64_MAX;
    return (int64) s.f_bavail * (int64) s.f_frsize;
}

/* pg_llm_disk_free(relation) -> bytes free on the file system of its tablespace; NULL when it does not say */
PG_FUNCTION_INFO_V1(pg_llm_disk_free);
Datum
pg_llm_disk_free(PG_FUNCTION_ARGS)
{
    int64 bytes = free_at(directory_of(PG_GETARG_OID(0)));

    if (bytes < 0)
        PG_RETURN_NULL();
    PG_RETURN_INT64(bytes);
}

/* Bytes of the WAL files that lie ready behind the one that is being written: they will be used before new ones are. */
static int64
wal_ahead(void)
{
    char           current[MAXFNAMELEN];
    XLogSegNo      segment;
    int64          bytes = 0;
    DIR           *dir;
    struct dirent *file;

    if (RecoveryInProgress())
        return 0;
    XLByteToSeg(GetXLogInsertRecPtr(), segment, wal_segment_size);
    XLogFileName(current, GetWALInsertionTimeLine(), segment, wal_segment_size);
    dir = AllocateDir(XLOGDIR);
    if (dir == NULL)
        return 0;
    while ((file = ReadDirExtended(dir, XLOGDIR, LOG)) != NULL)
        if (IsXLogFileName(file->d_name) && strcmp(file->d_name, current) > 0)
            bytes += wal_segment_size;
    FreeDir(dir);
    return bytes;
}

/*
 * pg_llm_wal_free(relation) -> (free, ahead, shared): bytes free on the file system of WAL, NULL when it does not say;
 * bytes of WAL files that are there for what is still to be written; whether the relation lies on the same file system.
 */
PG_FUNCTION_INFO_V1(pg_llm_wal_free);
Datum
pg_llm_wal_free(PG_FUNCTION_ARGS)
{
    const char *directory = directory_of(PG_GETARG_OID(0));
    int64       bytes = free_at(XLOGDIR);
    struct stat wal, table;
    TupleDesc   desc;
    Datum       values[3];
    bool        nulls[3] = {false, false, false};

    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != 3)
        elog(ERROR, "pg_llm_wal_free must return a row of three columns");
    nulls[0] = bytes < 0;
    values[0] = Int64GetDatum(bytes);
    values[1] = Int64GetDatum(wal_ahead());
    values[2] = BoolGetDatum(directory != NULL && stat(XLOGDIR, &wal) == 0 && stat(directory, &table) == 0 &&
                             wal.st_dev == table.st_dev);
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
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
