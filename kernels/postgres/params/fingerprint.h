/*
 * fingerprint.h -- fingerprints of the rows that a snapshot sees (fingerprint.c), and the names that versions of models
 * have for all sessions (identity.c).
 */
#ifndef PG_LLM_FINGERPRINT_H
#define PG_LLM_FINGERPRINT_H

#include "postgres.h"

#include "storage/itemptr.h"
#include "utils/relcache.h"

extern void fingerprint_abort_subxact(void); /* never throws */

/* ---- identities: see identity.c ---- */

#define IDENTITY_BYTES 24

/* One row. `data` may point to TOAST: it is not fetched then. NULL: its data does not count. */
typedef struct IdentityRow
{
    const char     *name;
    int             name_len;
    int64           number;
    Oid             tableoid;
    ItemPointer     ctid;
    TransactionId   xmin;
    struct varlena *data;
} IdentityRow;

typedef struct Identity Identity;

/* Lives in the current memory context. Rows may be added in any order. */
extern Identity *identity_new(void);
extern void      identity_add(Identity *identity, const IdentityRow *row);
/* The rows' public name. False when they may yet be rolled back: the name must not leave this session then. */
extern bool identity_name(const Identity *identity, char name[IDENTITY_BYTES]);

/*
 * The public name, in hexadecimal digits, of the version that a fingerprint of pg_llm_fingerprint(..., data) is of.
 * False while its rows may yet be rolled back, and when it is not one that the present role has just been given: the
 * client's running statement must have computed it, in this transaction. So whoever has a name has been handed the
 * data's own pointers.
 */
extern bool fingerprint_public(const char *bytes, int len, char hex[2 * IDENTITY_BYTES + 1]);

/* Whether this is a fingerprint with data that the present role has not been given in this statement */
extern bool fingerprint_is_old(const char *bytes, int len);

/* ---- of rows and their relations, for identity.c ---- */

/* The ordinary table of a row, or an error; to be closed. */
extern Relation fingerprint_open(Oid relid);
/* Whether this transaction made the relation's file, and so may empty it in place */
extern bool fingerprint_own_file(Relation rel);
/* The command of this transaction that inserted the row at `tid`, plus 1; 0 when none did */
extern uint64 fingerprint_command_at(Oid relid, ItemPointer tid);

#endif
