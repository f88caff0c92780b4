/*
 * fingerprint.h -- fingerprints of the rows that a snapshot sees: of whole relations (fingerprint.c), and of a query's
 * rows (identity.c).
 */
#ifndef PG_LLM_FINGERPRINT_H
#define PG_LLM_FINGERPRINT_H

#include "postgres.h"

#include "storage/itemptr.h"
#include "utils/relcache.h"

extern void fingerprint_abort_subxact(void); /* never throws */

/* ---- identity.c ---- */

/* Whether this may be a fingerprint, and none with data that the present role has been given in this statement */
extern bool fingerprint_is_old(const char *bytes, int len);

/* ---- of rows and their relations, for identity.c ---- */

/* The ordinary table of a row, or an error; to be closed. */
extern Relation fingerprint_open(Oid relid);
/* Whether this transaction made the relation's file, and so may empty it in place */
extern bool fingerprint_own_file(Relation rel);
/* The command of this transaction that inserted the row at `tid`, plus 1; 0 when none did */
extern uint64 fingerprint_command_at(Oid relid, ItemPointer tid);

#endif
