/*
 * op.h -- the op table: how one differentiable op is declared, called and differentiated.
 *
 * An op is one OpDef: its name, its SQL arguments, a forward that checks shapes and computes, a backward that
 * adds up gradients, and which values the backward reads (all others are let go as soon as SQL drops them).
 * The same entry serves the SQL function, its `_backward` twin and the tape.
 */
#ifndef PG_LLM_OP_H
#define PG_LLM_OP_H

#include "session/engine.h"
#include "tensor/tensor.h"

#define OP_MAX_INPUTS 5
#define OP_MAX_SAVED  3
#define OP_MAX_CONSTS 3
#define OP_SITE_LEN   64

#define NO_VALUE UINT32_MAX /* a tensor that is not on the tape */

typedef struct OpDef OpDef;

/* One tensor as an op sees it. The buffer belongs to whoever holds the OpCall. */
typedef struct OpValue
{
    int           ndim;
    int32         dims[TENSOR_MAX_NDIM];
    size_t        n;
    TensorBuffer *buffer;
    float        *data;  /* NULL on the tape when the backward does not read it */
    uint32        value; /* number on the tape, or NO_VALUE */
} OpValue;

/* One call: inputs, constants, output, and what the forward keeps for the backward. */
typedef struct OpCall
{
    const OpDef    *op;
    int             n_inputs;
    OpValue         in[OP_MAX_INPUTS];
    OpValue         out;
    OpValue         saved[OP_MAX_SAVED];
    IntArray        ids; /* token ids, targets or a shape */
    int64           ints[OP_MAX_CONSTS];
    double          reals[OP_MAX_CONSTS];
    bool            flag;      /* training */
    bool            read_only; /* no gradient will be asked for: weights may be rounded */
    char            site[OP_SITE_LEN];
    llm_dropout_key key;
    uint64          first; /* logical index of the first dropout element */
    double          dout;  /* the gradient of the output for which a forward has saved gradients of the inputs */
    size_t          count; /* what a mean was taken over */
    Tensor         *result;
} OpCall;

/* Where the gradient of one input goes; data NULL: not wanted. */
typedef struct OpGrad
{
    float         *data;
    bool           acc;
    TensorBuffer **buffer; /* who holds data: a backward may put another buffer in its place; or NULL */
} OpGrad;

#define KEEPS_IN(i) (1u << (i))
#define KEEPS_OUT   (1u << 8)

struct OpDef
{
    const char *name; /* pg_llm_<name> in SQL, <name> on the tape */
    const char *args; /* t tensor, i int[], n integer, r double precision, b boolean, s text */
    void (*forward)(OpCall *call);
    void (*backward)(const OpCall *call, const float *dout, OpGrad *din);
    uint32 keeps; /* values the backward reads */
};

/* Runs one call whose inputs and constants are set: forward, interrupts, tape. */
extern Tensor *op_run(OpCall *call);
extern Tensor *op_run1(const OpDef *op, Tensor *x); /* for ops made of ops */
extern void    op_set_input(OpCall *call, int i, Tensor *t);

/* Bodies of the SQL functions. */
extern Datum op_sql_call(FunctionCallInfo fcinfo, const OpDef *op);
extern Datum op_sql_backward(FunctionCallInfo fcinfo, const OpDef *op);

/* pg_llm_<name> and pg_llm_<name>_backward: an op and its gradients */
#define SQL_OP(name, def)                                                                                              \
    PG_FUNCTION_INFO_V1(pg_llm_##name);                                                                                \
    Datum pg_llm_##name(PG_FUNCTION_ARGS)                                                                              \
    {                                                                                                                  \
        return op_sql_call(fcinfo, &(def));                                                                            \
    }                                                                                                                  \
    PG_FUNCTION_INFO_V1(pg_llm_##name##_backward);                                                                     \
    Datum pg_llm_##name##_backward(PG_FUNCTION_ARGS)                                                                   \
    {                                                                                                                  \
        return op_sql_backward(fcinfo, &(def));                                                                        \
    }                                                                                                                  \
    extern int pg_llm_require_semicolon_##name

/* Used by forwards. */
extern float    *op_output(OpCall *call, int ndim, const int32 *dims); /* allocates call->out */
extern float    *op_output_like(OpCall *call, int input);
extern float    *op_save(OpCall *call, int i, size_t n);          /* becomes call->saved[i] if one will read it */
extern uint16_t *op_save_mask(OpCall *call, int i, size_t words); /* a mask of dropout, which a backward finds */
extern uint16_t *op_saved_mask(const OpCall *call, int i);        /* here; NULL: none */
extern float    *op_scratch(size_t n);                            /* until the memory context is reset */
extern size_t    op_rows(const OpValue *v);                       /* product of all but the last axis */
extern size_t    op_last_dim(const OpValue *v);                   /* 1 for a single number */
extern char     *op_shape(const OpValue *v);                      /* "[2,3]" for messages */
extern void      op_require_ndim(const OpCall *call, int input, int least);
extern void      op_require_ids(const OpCall *call, int64 limit, bool negative_ok);
extern void      op_dropout_key(OpCall *call); /* from the pass and call->site */
extern void __attribute__((noreturn)) op_shape_error(const OpCall *call, const char *expects);

#endif
