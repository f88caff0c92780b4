/*
 * at_end.h -- what is to be done when the transaction has ended that asked for it (at_end.c).
 */
#ifndef PG_LLM_AT_END_H
#define PG_LLM_AT_END_H

#include "postgres.h"

/* The head of what a list holds, which is allocated in TopMemoryContext. */
typedef struct AtEnd
{
    struct AtEnd *next;
    int           nest_level; /* of the transaction or subtransaction that asked */
    bool          at_commit;  /* else when it is rolled back */
} AtEnd;

extern void at_end_add(AtEnd **list, AtEnd *entry, bool at_commit); /* for the present nesting level */

/*
 * Settles what was asked for at this nesting level and below: done where it ended as `at_commit` says, dropped where it
 * ended otherwise or `forget` is set, handed to the parent where a subtransaction commits. Frees what is settled.
 */
extern void at_end_settle(AtEnd **list, int nest_level, bool commit, bool forget, void (*act)(AtEnd *entry));

#endif
