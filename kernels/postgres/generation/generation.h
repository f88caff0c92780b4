/*
 * generation.h -- one running generation, as the files of this room see it.
 */
#ifndef PG_LLM_GENERATION_H
#define PG_LLM_GENERATION_H

#include "generate.h"
#include "params/params.h"

#define MAX_GENERATIONS 16384 /* of a session: their handles are looked for one by one */

typedef struct Sampling Sampling; /* next_token.c */

typedef struct Generation
{
    struct Generation *next;
    int32              handle;
    SubTransactionId   subid;
    Portal             portal; /* whose query began it, as long as that lives */
    Oid                user;   /* nobody else may use the handle */
    ModelVersion      *version;
    int32             *tokens; /* those of the prompt first */
    int                n_tokens, room, n_prompt;
    size_t             capacity;          /* positions a cache holds */
    size_t             length;            /* positions in the caches */
    llm_kv_cache     **caches;            /* one per layer */
    size_t             n_kv_head, d_head; /* heads of keys and values, of all of them */
    int                n_caches;
    Sampling          *sampling; /* how its next tokens are chosen, and their text; NULL: not said */
    char              *key;      /* what its caches are kept as when it ends (kept.c); NULL: they are not */
    int                n_key;
} Generation;

/* ---- generate.c ---- */

/* The generation of this handle, which must be the present role's. */
extern Generation *generation_find(int32 handle);
/* The same, and no pass is in the middle of it. */
extern Generation *generation_find_idle(int32 handle);
extern void        generation_append(Generation *g, const int32 *tokens, size_t n);
extern void        generation_close(Generation *g);
/* The memory of one that is in no list. Never throws. */
extern void generation_free(Generation *g);
/* A cache for a layer that has none. */
extern void generation_add_cache(Generation *g, size_t n_kv_head, size_t d_head);
/* Frees the caches from number `keep` on. */
extern void generation_drop_caches(Generation *g, int keep);

/* ---- kept.c ---- */

extern bool kept_take(Generation *g); /* whether it is the kept one from now on. Never throws. */

/* ---- forward_pass.c ---- */

extern bool forward_pass_includes(const Generation *g);
/* Whether nothing was computed since the mark was made. */
extern bool forward_pass_is_at(const GenerateMark *mark);
extern void forward_pass_leave(void);

/* ---- next_token.c ---- */

extern void sampling_free(Sampling *s); /* may be NULL; never throws */

#endif
