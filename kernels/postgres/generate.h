/*
 * generate.h -- key/value caches of running generations, as the ops see them (generate.c).
 */
#ifndef PG_LLM_GENERATE_H
#define PG_LLM_GENERATE_H

#include "engine.h"

extern bool   generate_in_use(void);        /* between pg_llm_gen_use and pg_llm_gen_done */
extern size_t generate_past(void);          /* positions already in the cache */
extern void   generate_new_positions(size_t n);     /* noted by pg_llm_positions */
/* The next layer's cache; made on its first use. Errors when `n_new` positions do not fit. */
extern llm_kv_cache *generate_next_cache(size_t n_head, size_t d_head, size_t n_new);

extern void generate_end_xact(void);
extern void generate_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit);

#endif
