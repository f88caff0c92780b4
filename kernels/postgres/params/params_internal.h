/*
 * params_internal.h -- what the files of the parameter cache share.
 */
#ifndef PG_LLM_PARAMS_INTERNAL_H
#define PG_LLM_PARAMS_INTERNAL_H

#include "params.h"

/* versions.c */
extern ModelVersion *versions_new(const char *model, const char *fingerprint, int len, bool training);
/* Ready, and for this user to read or, when training, to change; NULL: memory has no such version. */
extern ModelVersion *versions_find(const char *model, const char *fingerprint, int len, bool training);
/* Kept for the run after the step logged there, on the rows with that fingerprint; NULL: memory has no such version. */
extern ModelVersion *versions_find_kept(const char *model, const char *fingerprint, int len, int64 run_id,
                                        int64 log_id);
extern void          versions_forget_kept(const char *model); /* this user's, unless pinned */
extern void          versions_let_go(Portal holder);   /* kept versions of that portal, or all, are like any others */
extern void          versions_use(ModelVersion *v);    /* the most recently used one */
extern void          versions_unpack(ModelVersion *v); /* drops the copies of its weights in fewer bits */
extern void          versions_forget(ModelVersion *v); /* out of the cache */
extern void          versions_trim(const char *model, const ModelVersion *keep); /* drops what nobody uses */
extern ModelVersion *versions_next(ModelVersion *v);  /* all of them in turn; NULL: the first, and the end */
extern void          versions_touch(ModelVersion *v); /* before gradients or weights change: a rollback undoes it */
extern void          versions_forget_outdated(void);  /* unused ones whose shared file is gone */
extern void          versions_end_xact(bool commit);
extern void          versions_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit);

/* pins.c */
extern void          params_require_pin_room(void);
extern void          params_push_training_pin(ModelVersion *v);
extern ModelVersion *params_pinned(const char *model);              /* NULL: no pin of this user in force */
extern bool          params_pinned_for_training(const char *model); /* the pin in force lets its holder change it */
extern uint64        params_statement_pin(const char *model);       /* that pin, if its statement's end ends it; or 0 */

/* memo.c */
extern void memo_forget(uint64 pin); /* as it ends; never throws */

/* lookup.c */
extern uint32      params_hash_name(const char *name);
extern ModelParam *params_find(ModelVersion *v, const char *name); /* NULL: no such parameter */
extern ParamPart  *params_require_part(ModelVersion *v, ModelParam *p, int32 token_id);
extern Tensor     *params_part_tensor(ModelParam *p, const ParamPart *part, TensorBuffer *buffer);

/* feed.c */
extern void feed_index(ModelVersion *v); /* once its parameters are sorted by name */

/* packed.c */
extern void packed_release(ModelVersion *v);         /* what lies in shared files, as the version goes */
extern void packed_forget_outdated(ModelVersion *v); /* what lies in files that are gone; nothing uses it just now */

/* adapter.c */
extern void adapter_forget_base(ModelVersion *v);

/* train.c */
extern ModelVersion *params_require_training(text *model);        /* pinned by the caller to change it, or an error */
extern void          params_require_grads(const ModelVersion *v); /* that none were lost in a rollback, or an error */

#endif
