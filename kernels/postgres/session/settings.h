/*
 * settings.h -- the settings of a session (settings.c).
 */
#ifndef PG_LLM_SETTINGS_H
#define PG_LLM_SETTINGS_H

#include "postgres.h"

typedef enum RecordMode
{
    RECORD_OFF,
    RECORD_GRAPH,
    RECORD_FULL
} RecordMode;

/* Settings */
extern int   pg_llm_threads;
extern int   pg_llm_max_threads;
extern int   pg_llm_isa;
extern int   pg_llm_attention_chunk;
extern int   pg_llm_record;
extern int   pg_llm_tape_keep;
extern int   pg_llm_cache_size_mb;
extern int   pg_llm_recompute_budget_kb;
extern int   pg_llm_weights; /* an llm_precision */
extern bool  pg_llm_autograd;
extern char *pg_llm_default_model;

extern void settings_init(void);    /* called once by _PG_init */
extern void search_path_init(void); /* hooks of search_path.c; called once by _PG_init */

#endif
