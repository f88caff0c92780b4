/*
 * files_end.c -- files that are removed when a transaction ends: those it wrote when it does not commit, those it
 * gave up when it does.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "utils/memutils.h"

#include "files.h"

typedef struct PendingRemoval
{
    struct PendingRemoval *next;
    bool                   at_commit;
    bool                   named; /* a row has named it since it was written */
    int                    nest_level;
    char                   path[FLEXIBLE_ARRAY_MEMBER];
} PendingRemoval;

static PendingRemoval *pending = NULL;

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
    for (p = pending; p != NULL; p = p->next)
        if (p->at_commit == at_commit && p->nest_level == GetCurrentTransactionNestLevel() &&
            strcmp(p->path, path) == 0)
            return;
    p = MemoryContextAllocZero(TopMemoryContext, offsetof(PendingRemoval, path) + strlen(path) + 1);
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

void
files_end_xact(XactEvent event)
{
    files_close();
    /* Of a prepared transaction nobody knows here how it ends: what it leaves, a later save removes. */
    settle(1, event == XACT_EVENT_COMMIT, event == XACT_EVENT_PREPARE);
}

void
files_end_subxact(bool commit)
{
    if (!commit)
        files_close();
    settle(GetCurrentTransactionNestLevel(), commit, false);
}

bool *
files_written_here(const char *path)
{
    for (PendingRemoval *p = pending; p != NULL; p = p->next)
        if (!p->at_commit && strcmp(p->path, path) == 0)
            return &p->named;
    return NULL;
}
