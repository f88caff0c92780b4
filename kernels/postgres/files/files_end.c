/*
 * files_end.c -- files that are removed when a transaction ends: those it wrote when it does not commit, those it
 * gave up when it does.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "utils/memutils.h"

#include "files.h"
#include "session/at_end.h"

typedef struct PendingRemoval
{
    AtEnd head;
    bool  named; /* a row has named it since it was written */
    char  path[FLEXIBLE_ARRAY_MEMBER];
} PendingRemoval;

static AtEnd *pending = NULL;

/* What is to be done with that path when this happens, and was asked for at that nesting level (0: any); or NULL. */
static PendingRemoval *
find(const char *path, bool at_commit, int nest_level)
{
    for (AtEnd *entry = pending; entry != NULL; entry = entry->next)
    {
        PendingRemoval *p = (PendingRemoval *) entry;

        if (entry->at_commit == at_commit && (nest_level == 0 || entry->nest_level == nest_level) &&
            strcmp(p->path, path) == 0)
            return p;
    }
    return NULL;
}

/*
 * The commit that removes a file must be on disk first, whatever synchronous_commit says: after a crash the row would
 * be back and the file not. What others committed before is then on disk too. Without a transaction id there would be
 * no commit record.
 */
static void
make_commit_durable(void)
{
    (void) GetCurrentTransactionId();
    ForceSyncCommit();
}

void
files_remove_at_end(const char *path, bool at_commit)
{
    PendingRemoval *p;

    if (at_commit)
        make_commit_durable();
    if (find(path, at_commit, GetCurrentTransactionNestLevel()) != NULL)
        return;
    p = MemoryContextAllocZero(TopMemoryContext, offsetof(PendingRemoval, path) + strlen(path) + 1);
    strcpy(p->path, path);
    at_end_add(&pending, &p->head, at_commit);
}

/* Errors are of no use here: the next save cleans up. */
static void
remove_file(AtEnd *entry)
{
    (void) unlink(((PendingRemoval *) entry)->path);
}

void
files_end_xact(XactEvent event)
{
    files_close();
    /* Of a prepared transaction nobody knows here how it ends: what it leaves, a later save removes. */
    at_end_settle(&pending, 1, event == XACT_EVENT_COMMIT, event == XACT_EVENT_PREPARE, remove_file);
}

void
files_end_subxact(bool commit)
{
    if (!commit)
        files_close();
    at_end_settle(&pending, GetCurrentTransactionNestLevel(), commit, false, remove_file);
}

bool *
files_written_here(const char *path)
{
    PendingRemoval *p = find(path, false, 0);

    return p != NULL ? &p->named : NULL;
}
