/*
 * tape_internal.h -- what the files of the tape share: its values, its ops, the one tape of a session.
 */
#ifndef PG_LLM_TAPE_INTERNAL_H
#define PG_LLM_TAPE_INTERNAL_H

#include "params/params.h"
#include "session/settings.h"
#include "pass.h"
#include "tape.h"

typedef enum ValueKind
{
    VALUE_OUTPUT,
    VALUE_CONSTANT,
    VALUE_TRACKED,
    VALUE_PARAM,
    VALUE_LOST /* an output that a rollback took back: using it is an error */
} ValueKind;

typedef struct TapeValue
{
    ValueKind     kind;
    bool          needs_grad;
    bool          has_grad;
    bool          spent; /* its op has been differentiated */
    int           ndim;
    int32         dims[TENSOR_MAX_NDIM];
    size_t        n;
    double        norm; /* NaN: not taken */
    double        grad_norm;
    TensorBuffer *grad;    /* parameters keep theirs in their version */
    TensorBuffer *payload; /* with pg_llm.record = full */
    float        *data;
    uint32        node;    /* the op that computes an output */
    uint32        holders; /* ops that hold its numbers, and `source` */
    TensorBuffer *source;  /* its numbers, from which a segment can be computed again (recompute.c) */
    float        *source_data;
    ModelVersion *version; /* of a parameter */
    ModelParam   *param;
    char         *model; /* of a leaf mapped by hand */
    char         *name;
} TapeValue;

typedef struct TapeNode
{
    OpCall call;
    bool   done;
    bool   let_go; /* of all that its backward reads: compute it again */

    /* while its segment is computed again */
    bool          runs;
    uint32        last_reader; /* of its output */
    TensorBuffer *output;
    float        *output_data;
} TapeNode;

typedef struct Tape
{
    MemoryContext context;
    uint64        nonce; /* 0: empty */
    Oid           user;  /* who recorded it: nobody else sees it */
    TapeValue    *values;
    uint32        n_values, room_values;
    TapeNode     *nodes;
    uint32        n_nodes, room_nodes;
    uint32       *segments; /* the first op of each */
    uint32        n_segments, room_segments;
    uint32        n_let_go;  /* the first so many segments were */
    size_t        budget;    /* bytes that the pass may hold for its backward; 0: all that it needs */
    size_t        held;      /* bytes that it holds, parameters apart */
    int64         base;      /* ids outside are base + index */
    bool          quiet;     /* take no norms: this pass leaves no rows */
    uint64        backwards; /* ops differentiated, and backward passes begun, in the session so far */
    bool          began;     /* a backward pass did */
    const char   *broken;    /* why this tape cannot be differentiated; NULL: it can */
} Tape;

#define TAPE_MAX_VALUES (1u << 24) /* ids of one pass: see llm_pass_seq */

extern Tape tape;

extern bool tape_is_mine(void);       /* there is one, and the present role recorded it */
extern bool tape_wants_rows(void);    /* somebody will read this pass's rows: take norms */
extern void tape_require_whole(void); /* 55000 when the tape is broken */
extern void tape_release_node(TapeNode *node);
extern void tape_begin_segment(void); /* at the next op */

/* recompute.c */
extern void tape_count(const OpValue *v); /* a further reference to its numbers is held */
extern void tape_let_go(OpValue *v);
extern void tape_release_source(uint32 value);
extern void tape_hold_sources(const OpCall *call);
extern void tape_keep_within_budget(void);
extern void tape_truncate_segments(void);
extern void tape_compute_again(uint32 at); /* what the segment of this op let go of */

/* Makes `t` the leaf of a parameter; a further leaf of the same one has the same gradient. Not trained: it has none. */
extern void tape_param_leaf(Tensor *t, ModelVersion *version, ModelParam *param, bool trained);
/* The same value as a leaf that wants a gradient; its place among the values. */
extern Tensor *tape_tracked_leaf(Tensor *t, uint32 *value);

#endif
