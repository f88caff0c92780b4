/*
 * files_checkpoint.c -- the checkpoint directory: its setting, its files, and their removal when a transaction ends.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "files.h"

char   *pg_llm_checkpoint_dir = NULL;

/* ---- removal at the end of a transaction ---- */

typedef struct PendingRemoval
{
    struct PendingRemoval *next;
    bool    at_commit;
    int     nest_level;
    char    path[FLEXIBLE_ARRAY_MEMBER];
} PendingRemoval;

static PendingRemoval *pending = NULL;

void
files_remove_at_end(const char *path, bool at_commit)
{
    PendingRemoval *p = MemoryContextAlloc(TopMemoryContext, offsetof(PendingRemoval, path) + strlen(path) + 1);

    p->at_commit = at_commit;
    p->nest_level = GetCurrentTransactionNestLevel();
    strcpy(p->path, path);
    p->next = pending;
    pending = p;
}

/* Settles what was asked for at this nesting level and below. Errors are of no use here: the next save cleans up. */
static void
settle(int nest_level, bool commit, bool forget)
{
    PendingRemoval **link = &pending;

    while (*link != NULL)
    {
        PendingRemoval *p = *link;

        if (p->nest_level < nest_level)
        {
            link = &p->next;
            continue;
        }
        if (commit && nest_level > 1)
        {
            p->nest_level = nest_level - 1;
            link = &p->next;
            continue;
        }
        if (!forget && p->at_commit == commit)
            (void) unlink(p->path);
        *link = p->next;
        pfree(p);
    }
}

static void
end_xact(XactEvent event, void *arg)
{
    (void) arg;
    if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
        return;
    files_close();
    /* of a prepared transaction nobody knows here how it ends */
    settle(1, event == XACT_EVENT_COMMIT, event == XACT_EVENT_PREPARE);
}

static void
end_subxact(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
    (void) mine;
    (void) parent;
    (void) arg;
    if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
        return;
    if (event == SUBXACT_EVENT_ABORT_SUB)
        files_close();
    settle(GetCurrentTransactionNestLevel(), event == SUBXACT_EVENT_COMMIT_SUB, false);
}

/* pg_llm_checkpoint_files(): names, below the checkpoint directory, of the files of this database. */
PG_FUNCTION_INFO_V1(pg_llm_checkpoint_files);
Datum
pg_llm_checkpoint_files(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
    char       *any = psprintf("%s/any", files_database_folder()), *folder;
    DIR        *directory;
    struct dirent *entry;

    (void) files_path(any, true, true);
    folder = files_checkpoint_folder();
    InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
    directory = AllocateDir(folder);
    if (directory == NULL && errno == ENOENT)
        return (Datum) 0;
    while ((entry = ReadDir(directory, folder)) != NULL)
    {
        Datum   value;
        bool    null = false;
        char   *name = psprintf("%s/%s", files_database_folder(), entry->d_name);

        if (!files_checkpoint_name_ok(name))
            continue;
        value = CStringGetTextDatum(name);
        tuplestore_putvalues(result->setResult, result->setDesc, &value, &null);
    }
    FreeDir(directory);
    return (Datum) 0;
}

/* pg_llm_checkpoint_name(file): the file in the folder of this database. */
PG_FUNCTION_INFO_V1(pg_llm_checkpoint_name);
Datum
pg_llm_checkpoint_name(PG_FUNCTION_ARGS)
{
    PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s/%s", files_database_folder(), text_to_cstring(PG_GETARG_TEXT_PP(0)))));
}

/* pg_llm_checkpoint_remove(name): when the transaction commits. */
PG_FUNCTION_INFO_V1(pg_llm_checkpoint_remove);
Datum
pg_llm_checkpoint_remove(PG_FUNCTION_ARGS)
{
    files_remove_at_end(files_path(text_to_cstring(PG_GETARG_TEXT_PP(0)), true, true), true);
    PG_RETURN_VOID();
}

void
files_init(void)
{
    DefineCustomStringVariable("pg_llm.checkpoint_dir", "Directory of the checkpoints that llm_trainer may write and read.",
                               "Relative to the data directory; each database has a folder in it.",
                               &pg_llm_checkpoint_dir, "pg_llm_checkpoints", PGC_SUSET, GUC_SUPERUSER_ONLY, NULL, NULL,
                               NULL);
    RegisterXactCallback(end_xact, NULL);
    RegisterSubXactCallback(end_subxact, NULL);
}
