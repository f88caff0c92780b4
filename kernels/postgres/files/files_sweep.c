/*
 * files_sweep.c -- checkpoints that no row names, and the folders of dropped databases.
 *
 * Which rows there are is asked of the table itself, not of what the caller may see: a row that a policy hides counts.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "files.h"

/* ---- files of this database ---- */

typedef struct Candidate
{
    char *name; /* FOLDER/FILE */
    char *path;
    bool *own;   /* of a file that this transaction wrote: a row has named it */
    bool  named; /* by a row */
} Candidate;

typedef struct Candidates
{
    Candidate *item;
    int        n, room;
} Candidates;

static void
add(Candidates *c, const char *name, const char *path, bool *own)
{
    if (c->n == c->room)
    {
        int        room = Max(64, 2 * c->room);
        Candidate *larger = palloc_extended(room * sizeof(Candidate), MCXT_ALLOC_HUGE);

        if (c->n > 0)
            memcpy(larger, c->item, c->n * sizeof(Candidate));
        c->item = larger;
        c->room = room;
    }
    c->item[c->n++] = (Candidate){pstrdup(name), pstrdup(path), own, false};
}

/*
 * Whether the transaction whose number a file's name begins with has ended. A number that this server has not reached
 * came from another one, with a file that somebody put here.
 */
static bool
writer_ended(const char *file)
{
    char  *end;
    uint64 writer = strtou64(file, &end, 10), next = U64FromFullTransactionId(ReadNextFullTransactionId());

    if (end == file || *end != '-' || writer < FirstNormalTransactionId || writer >= next)
        return false;
    return next - writer > (uint64) 1 << 31 || !TransactionIdIsInProgress((TransactionId) writer);
}

static bool
ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);

    return n >= k && strcmp(s + n - k, end) == 0;
}

/* A directory of the server's own, which a link would not be */
static bool
is_own_directory(const char *path)
{
    struct stat about;

    return lstat(path, &about) == 0 && S_ISDIR(about.st_mode) && about.st_uid == geteuid();
}

/*
 * Collects the files in this database's folder in a directory whose writers have ended. Temporary files that nobody
 * writes any more are removed at once.
 */
static void
collect(Candidates *c, const char *directory)
{
    char          *database = files_database_folder(MyDatabaseId), *folder = psprintf("%s/%s", directory, database);
    DIR           *open;
    struct dirent *entry;

    if (!is_own_directory(folder))
        return;
    open = AllocateDir(folder);
    while ((entry = ReadDirExtended(open, folder, LOG)) != NULL)
    {
        char *name = psprintf("%s/%s", database, entry->d_name), *path = psprintf("%s/%s", directory, name);
        bool *own;

        CHECK_FOR_INTERRUPTS();
        if (!files_checkpoint_name_ok(name))
            continue;
        own = files_written_here(path);
        if (ends_with(name, ".tmp"))
            (void) files_remove_abandoned(path);
        else if (own != NULL || writer_ended(entry->d_name))
            add(c, name, path, own);
        pfree(path);
        pfree(name);
    }
    FreeDir(open);
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(((const Candidate *) a)->name, ((const Candidate *) b)->name);
}

/* Marks candidates of this name, of which each directory may have one. */
static void
mark(Candidates *c, const char *name)
{
    Candidate key = {(char *) name}, *found = bsearch(&key, c->item, c->n, sizeof(Candidate), by_name);

    if (found == NULL)
        return;
    while (found > c->item && strcmp(found[-1].name, name) == 0)
        found--;
    for (; found < c->item + c->n && strcmp(found->name, name) == 0; found++)
        found->named = true;
}

static Relation
open_rows(AttrNumber *column)
{
    Oid      schema = get_namespace_oid("public", false), id = get_relname_relid("llm_checkpoint", schema);
    Relation rel;

    if (!OidIsValid(id))
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation \"public.llm_checkpoint\" does not exist"));
    rel = table_open(id, AccessShareLock);
    *column = get_attnum(id, "file_path");
    if (rel->rd_rel->relkind != RELKIND_RELATION || *column == InvalidAttrNumber ||
        TupleDescAttr(RelationGetDescr(rel), *column - 1)->atttypid != TEXTOID)
        ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
                errmsg("llm_checkpoint is not an ordinary table with a column file_path of type text"));
    return rel;
}

/* Marks the candidates that rows which the snapshot shows name, whoever may see them. */
static void
mark_shown(Candidates *c, Relation rel, AttrNumber column, Snapshot snapshot)
{
    TupleTableSlot *slot = table_slot_create(rel, NULL);
    TableScanDesc   scan = table_beginscan(rel, snapshot, 0, NULL);

    while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
    {
        bool  null;
        Datum path = slot_getattr(slot, column, &null);

        CHECK_FOR_INTERRUPTS();
        if (!null)
        {
            char *name = TextDatumGetCString(path);

            mark(c, name);
            pfree(name);
        }
    }
    table_endscan(scan);
    ExecDropSingleTupleTableSlot(slot);
}

/*
 * Marks the candidates that rows name, now or once a running transaction commits. What this transaction has deleted
 * does not count. Two scans: one sees what is not committed, but may miss a row that an UPDATE moves behind it while
 * it looks; the other sees every committed row once.
 */
static void
mark_named(Candidates *c)
{
    AttrNumber   column;
    Relation     rel = open_rows(&column);
    SnapshotData dirty;
    Snapshot     latest;

    InitDirtySnapshot(dirty);
    mark_shown(c, rel, column, &dirty);
    latest = RegisterSnapshot(GetLatestSnapshot());
    mark_shown(c, rel, column, latest);
    UnregisterSnapshot(latest);
    table_close(rel, AccessShareLock);
}

/* pg_llm_checkpoint_sweep(): removes at commit the files of this database that no row of llm_checkpoint names. */
PG_FUNCTION_INFO_V1(pg_llm_checkpoint_sweep);
Datum
pg_llm_checkpoint_sweep(PG_FUNCTION_ARGS)
{
    Candidates c = {0};
    int        n;
    char     **dirs = files_checkpoint_dirs(&n);

    PreventCommandIfReadOnly("pg_llm_checkpoint_sweep()");
    for (int i = 0; i < n; i++)
        collect(&c, dirs[i]);
    if (c.n == 0)
        PG_RETURN_VOID();
    qsort(c.item, c.n, sizeof(Candidate), by_name);
    mark_named(&c);
    for (int i = 0; i < c.n; i++)
    {
        Candidate *one = &c.item[i];

        /* A file of this transaction's waits for its row, until that was there and is not any more. */
        if (one->own != NULL && one->named)
            *one->own = true;
        else if (!one->named && (one->own == NULL || *one->own))
            files_remove_at_end(one->path, true);
    }
    PG_RETURN_VOID();
}

/* ---- for administrators ---- */

/* pg_llm_checkpoint_files(): names, below their directories, of the files of this database. */
PG_FUNCTION_INFO_V1(pg_llm_checkpoint_files);
Datum
pg_llm_checkpoint_files(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
    char          *database = files_database_folder(MyDatabaseId);
    int            n;
    char         **dirs = files_checkpoint_dirs(&n);

    (void) files_path(psprintf("%s/any", database), true, false);
    InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
    for (int i = 0; i < n; i++)
    {
        char          *folder = psprintf("%s/%s", dirs[i], database);
        DIR           *open = AllocateDir(folder);
        struct dirent *entry;

        if (open == NULL)
            continue;
        while ((entry = ReadDir(open, folder)) != NULL)
        {
            char *name = psprintf("%s/%s", database, entry->d_name);
            Datum value = CStringGetTextDatum(name);
            bool  null = false;

            if (files_checkpoint_name_ok(name))
                tuplestore_putvalues(result->setResult, result->setDesc, &value, &null);
        }
        FreeDir(open);
    }
    return (Datum) 0;
}

/* The database that a folder's name tells, if it is of this cluster; InvalidOid otherwise */
static Oid
database_of(const char *folder)
{
    char         *system = psprintf(UINT64_FORMAT "-", GetSystemIdentifier()), *end;
    size_t        n = strlen(system);
    unsigned long oid;

    if (strncmp(folder, system, n) != 0 || folder[n] < '1' || folder[n] > '9')
        return InvalidOid;
    oid = strtoul(folder + n, &end, 10);
    return *end == '\0' && oid <= PG_UINT32_MAX ? (Oid) oid : InvalidOid;
}

/* Number and size of the files in a folder */
static void
measure(const char *folder, int64 *files, int64 *bytes)
{
    DIR           *open = AllocateDir(folder);
    struct dirent *entry;

    *files = *bytes = 0;
    while ((entry = ReadDir(open, folder)) != NULL)
    {
        struct stat about;

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            lstat(psprintf("%s/%s", folder, entry->d_name), &about) != 0)
            continue;
        (*files)++;
        *bytes += (int64) about.st_size;
    }
    FreeDir(open);
}

/*
 * pg_llm_checkpoint_orphans(remove) -> setof (folder, files, bytes): folders of databases that are no more, which are
 * removed, at once, when asked for.
 */
PG_FUNCTION_INFO_V1(pg_llm_checkpoint_orphans);
Datum
pg_llm_checkpoint_orphans(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
    int            n;
    char         **dirs = files_checkpoint_dirs(&n);

    files_require_argument(fcinfo, 0, "remove");
    if (!superuser())
        ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                errmsg("permission denied to look at the checkpoint folders of other databases"),
                errhint("Only superusers may do this."));
    if (PG_GETARG_BOOL(0))
        PreventCommandIfReadOnly("llm_checkpoint_orphans(true)");
    InitMaterializedSRF(fcinfo, 0);
    for (int i = 0; i < n; i++)
    {
        DIR           *open = AllocateDir(dirs[i]);
        struct dirent *entry;

        if (open == NULL)
            continue;
        while ((entry = ReadDir(open, dirs[i])) != NULL)
        {
            char *folder = psprintf("%s/%s", dirs[i], entry->d_name);
            Oid   database = database_of(entry->d_name);
            int64 files, bytes;
            Datum values[3];
            bool  nulls[3] = {0};

            if (!OidIsValid(database) || SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(database)) ||
                !is_own_directory(folder))
                continue;
            measure(folder, &files, &bytes);
            if (PG_GETARG_BOOL(0) && !rmtree(folder, true))
                ereport(ERROR, errcode_for_file_access(), errmsg("could not remove directory \"%s\": %m", folder));
            values[0] = CStringGetTextDatum(folder);
            values[1] = Int64GetDatum(files);
            values[2] = Int64GetDatum(bytes);
            tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
        }
        FreeDir(open);
    }
    return (Datum) 0;
}
