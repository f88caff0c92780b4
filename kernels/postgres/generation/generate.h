/*
 * generate.h -- key/value caches of running generations, as the ops see them (generate.c).
 */
#ifndef PG_LLM_GENERATE_H
#define PG_LLM_GENERATE_H

#include "session/engine.h"
#include "utils/portal.h"

/* Where a forward pass stood as a subtransaction began. */
typedef struct GenerateMark
{
    uint64 pass; /* 0: none was running */
    int    layer;
    size_t pending;
} GenerateMark;

extern bool generate_in_use(void); /* between pg_llm_gen_use and pg_llm_gen_done */
/*
 * The next layer's caches, one per sequence of the running pass, and how many positions each holds; made on their
 * first use. Errors when the pass has not `n_sequences`, `n_new` positions do not fit, or its layers are not those of
 * the passes before it.
 */
extern void generate_next_caches(llm_kv_cache **caches, size_t *past, size_t n_sequences, size_t n_kv_head,
                                 size_t d_head, size_t n_new);

extern size_t kept_forget(void); /* the caches that outlived their generation; their bytes. Never throws. */

extern GenerateMark generate_mark(void);
extern void         generate_end_xact(void);
extern void generate_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit, const GenerateMark *mark);
extern void generate_portal_gone(Portal portal); /* never throws */

#endif
