/*
 * portals.c -- portals that state of a session belongs to.
 *
 * A cursor's query begins at its first FETCH, maybe inside of a savepoint that the cursor outlives. What began for
 * such a query, its generation or its pinned weights, ends with the portal rather than with the subtransaction that
 * happened to be open. One callback per portal says when it goes, so that no pointer to it is kept longer.
 */
#include "postgres.h"

#include "access/xact.h"
#include "tcop/pquery.h"
#include "utils/memutils.h"

#include "portals.h"

/* Lies in the portal's own memory. */
typedef struct Watch
{
    struct Watch         *next;
    Portal                portal;
    MemoryContextCallback callback;
} Watch;

static Watch *watched = NULL;
static void (*tell)(Portal portal);

static void
portal_gone(void *arg)
{
    Watch  *w = arg;
    Watch **link = &watched;

    while (*link != w)
        link = &(*link)->next;
    *link = w->next;
    tell(w->portal);
}

void
portals_init(void (*gone)(Portal portal))
{
    tell = gone;
}

Portal
portals_watch(void)
{
    Watch *w;

    if (ActivePortal == NULL)
        return NULL;
    for (w = watched; w != NULL; w = w->next)
        if (w->portal == ActivePortal)
            return ActivePortal;
    w = MemoryContextAllocZero(ActivePortal->portalContext, sizeof(Watch));
    w->portal = ActivePortal;
    w->callback.func = portal_gone;
    w->callback.arg = w;
    MemoryContextRegisterResetCallback(ActivePortal->portalContext, &w->callback);
    w->next = watched;
    watched = w;
    return ActivePortal;
}

bool
portals_waits(Portal portal, SubTransactionId mine)
{
    return portal != NULL && portal->createSubid != InvalidSubTransactionId && portal->createSubid != mine &&
           portal->status == PORTAL_READY;
}
