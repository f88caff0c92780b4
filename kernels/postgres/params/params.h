/*
 * params.h -- the versioned parameter cache: a session's versions of models' parameters in memory (the head of versions.c
 * says what may be called when).
 *
 * The table llm_param is the truth; a version is a copy of one model's rows, named by their fingerprint. Calls pin
 * the version they began with. PL/pgSQL feeds rows in and writes them back: nothing here names a relation.
 */
#ifndef PG_LLM_PARAMS_H
#define PG_LLM_PARAMS_H

#include "shared/shared.h"
#include "tensor/tensor.h"
#include "utils/portal.h"

#define PARAMS_MAX_NAME 8191 /* bytes of a model's name, of a version's */

typedef struct ParamPart
{
    int32 token_id; /* first row of the part */
    int32 rows;
    /* only while feeding */
    int           ndim;
    int32         dims[TENSOR_MAX_NDIM];
    size_t        n;
    TensorBuffer *fed[3]; /* data, m, v; the last two may be NULL */
} ParamPart;

typedef struct ModelParam
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
    ParamPart    *parts;
} ModelParam;

typedef struct ModelVersion
{
    struct ModelVersion *next;
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
    bool                 grads_lost; /* gradients that others were added to are gone: see params_require_grads */
    bool                 ready;      /* sealed */
    bool                 sealing;    /* seal began; and failed, unless ready */
    bool                 undone;     /* was ready, and a rollback threw its changed weights away */
    bool                 training;   /* holds m and v */
    bool                 dirty;      /* differs from the table: not to be found by anyone else */
    bool                 changed;    /* by this transaction */
    bool                 discarded;  /* and what it is, nobody knows: never to be kept */
    bool                 kept;       /* outlives its pins, even dirty, for `run_id` after a step (ahead.c) */
    int64                run_id;
    int64                log_id; /* of the step */
    Portal               holder; /* of a kept version: while this runs, no room is made at its cost */
    bool                 cached; /* the cache holds one of refs */
    ModelParam          *params; /* sorted by name once sealed */
    int                  n_params;
    int                  room;
    int                 *slots;   /* once sealed: places in params by their names' hashes; -1: none */
    uint32               n_slots; /* a power of 2 */
    size_t               bytes;   /* of float32 numbers: version_bytes() adds the copies in fewer bits */
    uint64               last_used;
    SharedMapping       *mapping;  /* of the file that holds its weights; NULL: they are this session's own */
    bool                 known;    /* its own, and read from the rows of `version` */
    TimestampTz          share_at; /* when to look for a file the next time */
    SharedMapping       *packs[LLM_PRECISIONS]; /* by precision, beside `mapping`: what copies in fewer bits lie in */
    struct ModelVersion *base;                  /* of an adapter: whose parameters it adds to */
    double               base_scale;            /* and by how much */
    int                  adapters;              /* versions that have this one as their base */
    bool                 hashed;                /* sha256 is that of its parameters */
    uint8                sha256[32];
    bool                 own_packs;  /* some of these copies may be this session's own */
    TimestampTz          publish_at; /* when to write them to a file the next time, after a failure */
    uint8                version[SHARED_VERSION_BYTES];
} ModelVersion;

/* versions.c */
extern ModelVersion *params_retain(ModelVersion *v);
extern void          params_release(ModelVersion *v); /* never throws */
extern size_t        params_forget_unused(void);      /* drops what nobody pins; its bytes. Never throws. */

/* pins.c */
extern ModelVersion *params_require(const char *model); /* pinned by this user and ready, or an error */
extern ModelVersion *
params_holding(const TensorBuffer *buffer);   /* pinned by this user, or a pinned one's base, unchanging; or NULL */
extern void params_push_pin(ModelVersion *v); /* for the time of a generation's forward pass */
extern void params_pop_pin(ModelVersion *v);
extern void params_end_xact(bool commit);
extern void params_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit);
extern void params_portal_gone(Portal portal); /* never throws */

/* packed.c: weights in fewer bits in shared files */
/* A parameter of such a version in its file; NULL: it is not there. */
extern llm_packed *params_packed_view(ModelVersion *v, const TensorBuffer *buffer, bool transposed, size_t inputs,
                                      size_t outputs, llm_precision precision);
extern void        params_packed_own(ModelVersion *v); /* a buffer of its got a copy in this session's memory */
extern void        params_publish(void); /* writes such copies to files, in the place of which they come */

/* lookup.c */
extern ModelParam *params_require_param(ModelVersion *v, const char *name);

/* adapter.c */
extern ModelParam *params_of_base(ModelVersion *v,
                                  const char   *name); /* which the adapter v has not; NULL: there is none */
extern ModelParam *params_low(ModelVersion *v, const char *name, const char *factor); /* what v adds to it: a or b */

/* train.c: where a parameter's gradient goes, and whether it is to be added to what is there */
extern float *params_gradient(ModelVersion *v, ModelParam *p, bool *acc);

#endif
