/*
 * portals.h -- portals that state of a session belongs to (portals.c).
 */
#ifndef PG_LLM_PORTALS_H
#define PG_LLM_PORTALS_H

#include "postgres.h"

#include "utils/portal.h"

/* Called once by _PG_init: `gone` is told of each watched portal that goes; it never throws. */
extern void portals_init(void (*gone)(Portal portal));
/* The portal that runs now, or NULL; from now on it is watched. */
extern Portal portals_watch(void);
/*
 * While subtransaction `mine` aborts: whether the portal was made before it and waits to be asked for further rows,
 * as a cursor does that PostgreSQL keeps.
 */
extern bool portals_waits(Portal portal, SubTransactionId mine);

#endif
