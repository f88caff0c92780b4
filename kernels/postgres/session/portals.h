/*
 * portals.h -- portals that state of a session belongs to (portals.c).
 */
#ifndef PG_LLM_PORTALS_H
#define PG_LLM_PORTALS_H

#include "postgres.h"

#include "utils/portal.h"

/* The portal that runs now, or NULL. generate_portal_gone and arena_portal_gone are told when it goes. */
extern Portal portals_watch(void);
/*
 * While subtransaction `mine` aborts: whether the portal was made before it and waits to be asked for further rows,
 * as a cursor does that PostgreSQL keeps.
 */
extern bool portals_waits(Portal portal, SubTransactionId mine);

#endif
