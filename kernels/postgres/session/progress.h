/*
 * progress.h -- the session's slot among the running trainings (progress.c).
 */
#ifndef PG_LLM_PROGRESS_H
#define PG_LLM_PROGRESS_H

extern void progress_clear(void); /* this session trains no more; never throws */
extern void progress_end_xact(bool commit);
extern void progress_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit);

#endif
