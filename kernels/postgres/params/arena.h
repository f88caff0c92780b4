/*
 * arena.h -- the session's in-memory versions of models' parameters (arena.c, arena_feed.c,
 * arena_train.c).
 *
 * The table llm_param is the truth; a version is a copy of one model's rows, named by their fingerprint. Calls pin
 * the version they began with. PL/pgSQL feeds rows in and writes them back: nothing here names a relation.
 */
#ifndef PG_LLM_ARENA_H
#define PG_LLM_ARENA_H

#include "tensor/tensor.h"
#include "utils/portal.h"

#define ARENA_MAX_NAME 8191 /* bytes of a model's name, of a version's */

typedef struct ArenaPart
{
    int32 token_id; /* first row of the part */
    int32 rows;
    /* only while feeding */
    int           ndim;
    int32         dims[TENSOR_MAX_NDIM];
    size_t        n;
    TensorBuffer *fed[3]; /* data, m, v; the last two may be NULL */
} ArenaPart;

typedef struct ArenaParam
{
    char         *name;
    uint32        hash; /* of the name, once sealed */
    int           ndim;
    int32         dims[TENSOR_MAX_NDIM];
    size_t        n;
    TensorBuffer *data;
    TensorBuffer *grad; /* allocated by the first backward */
    TensorBuffer *sum;  /* of the gradients of the micro-batches before this one */
    TensorBuffer *m;    /* training versions only */
    TensorBuffer *v;
    bool          has_grad; /* something arrived since the gradients were cleared */
    bool          has_sum;
    int           n_parts, parts_room;
    ArenaPart    *parts;
} ArenaParam;

typedef struct ArenaVersion
{
    struct ArenaVersion *next;
    MemoryContext        context; /* everything but the buffers */
    char                *model;
    char                *fingerprint;
    int                  fingerprint_len;
    int                  refs; /* the cache itself, pins, generations, the tape */
    int                  pins;
    int                  trainers;   /* pins of those who will change it */
    int                  readers;    /* generations, which must see this version until they end */
    Oid                  user;       /* who read the rows: found by nobody else */
    SubTransactionId     touched;    /* the subtransaction that last changed gradients or weights */
    bool                 had_grads;  /* as it began to: its rollback loses them */
    bool                 grads_lost; /* gradients that others were added to are gone: see arena_require_grads */
    bool                 ready;      /* sealed */
    bool                 sealing;    /* seal began; and failed, unless ready */
    bool                 undone;     /* was ready, and a rollback threw its changed weights away */
    bool                 training;   /* holds m and v */
    bool                 dirty;      /* differs from the table: not to be found by anyone else */
    bool                 cached;     /* the cache holds one of refs */
    ArenaParam          *params;     /* sorted by name once sealed */
    int                  n_params;
    int                  room;
    int                 *slots;   /* once sealed: places in params by their names' hashes; -1: none */
    uint32               n_slots; /* a power of 2 */
    size_t               bytes;   /* of float32 numbers: version_bytes() adds the copies in fewer bits */
    uint64               last_used;
} ArenaVersion;

extern ArenaVersion *arena_retain(ArenaVersion *v);
extern void          arena_release(ArenaVersion *v);               /* never throws */
extern ArenaVersion *arena_pinned(const char *model);              /* NULL: no pin of this user in force */
extern ArenaVersion *arena_require(const char *model);             /* pinned and ready, or an error */
extern bool          arena_pinned_for_training(const char *model); /* the pin in force lets its holder change it */
extern void          arena_push_pin(ArenaVersion *v);              /* for the time of a generation's forward pass */
extern void          arena_pop_pin(ArenaVersion *v);
extern ArenaParam   *arena_find(ArenaVersion *v, const char *name); /* NULL: no such parameter */
extern ArenaParam   *arena_require_param(ArenaVersion *v, const char *name);
extern ArenaPart    *arena_require_part(ArenaVersion *v, ArenaParam *p, int32 token_id);
extern Tensor       *arena_part_tensor(ArenaParam *p, const ArenaPart *part, TensorBuffer *buffer);
extern float        *arena_gradient(ArenaVersion *v, ArenaParam *p, bool *acc); /* where a gradient goes */
/* The buffer is a parameter of a version pinned by this user, which nobody is changing. */
extern bool   arena_holds(const TensorBuffer *buffer);
extern void   arena_forget(ArenaVersion *v);                           /* out of the cache */
extern size_t arena_forget_unused(void);                               /* what nobody pins; its bytes. Never throws. */
extern void   arena_trim(const char *model, const ArenaVersion *keep); /* drops what nobody uses */
extern uint32 arena_hash_name(const char *name);
extern void   arena_touch(ArenaVersion *v);               /* before gradients or weights change: a rollback undoes it */
extern void   arena_require_grads(const ArenaVersion *v); /* that none were lost in a rollback, or an error */

/* Transaction events */
extern void arena_end_xact(bool commit);
extern void arena_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit);
extern void arena_portal_gone(Portal portal); /* never throws */

#endif
