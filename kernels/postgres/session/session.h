/*
 * session.h -- what a session knows between calls: settings, the running pass, recording (session.c).
 */
#ifndef PG_LLM_SESSION_H
#define PG_LLM_SESSION_H

#include "postgres.h"

typedef struct PassState
{
    bool    keyed;          /* pass_begin was called in this transaction */
    uint64  seed;
    uint64  step;
    uint64  micro_batch;
    int     sites;          /* unnamed dropout sites so far */
} PassState;

typedef enum RecordMode { RECORD_OFF, RECORD_GRAPH, RECORD_FULL } RecordMode;

/* Settings */
extern int    pg_llm_threads;
extern int    pg_llm_max_threads;
extern int    pg_llm_isa;
extern int    pg_llm_attention_chunk;
extern int    pg_llm_record;
extern int    pg_llm_tape_keep;
extern int    pg_llm_cache_size_mb;
extern int    pg_llm_weights;         /* an llm_precision */
extern bool   pg_llm_autograd;
extern char  *pg_llm_default_model;

extern const PassState *session_pass(void);
extern int  session_next_site(void);
extern bool session_recording(void);    /* autograd is on and no key/value cache is in use */

extern void session_init(void);         /* settings; called once by _PG_init */
extern void search_path_init(void);     /* hooks of search_path.c; called once by _PG_init */

#endif
