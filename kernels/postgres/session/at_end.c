/*
 * at_end.c -- lists of what is to be done when a transaction ends: nested as subtransactions are.
 */
#include "postgres.h"

#include "access/xact.h"

#include "at_end.h"

void
at_end_add(AtEnd **list, AtEnd *entry, bool at_commit)
{
    entry->at_commit = at_commit;
    entry->nest_level = GetCurrentTransactionNestLevel();
    entry->next = *list;
    *list = entry;
}

void
at_end_settle(AtEnd **list, int nest_level, bool commit, bool forget, void (*act)(AtEnd *entry))
{
    AtEnd **link = list;

    while (*link != NULL)
    {
        AtEnd *entry = *link;

        if (entry->nest_level < nest_level)
        {
            link = &entry->next;
            continue;
        }
        if (commit && nest_level > 1)
        {
            entry->nest_level = nest_level - 1;
            link = &entry->next;
            continue;
        }
        if (!forget && entry->at_commit == commit)
            act(entry);
        *link = entry->next;
        pfree(entry);
    }
}
