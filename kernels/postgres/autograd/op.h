/*
 * op.h -- the op table: how one differentiable op is declared, called and differentiated.
 *
 * An op is one OpDef: its name, its SQL arguments, a forward that checks shapes and computes, a backward that
 * adds up gradients, and which values the backward reads (all others are let go as soon as SQL drops them).
 * The same entry serves the SQL function, its `_backward` and the tape.
 */
#ifndef PG_LLM_OP_H
#define PG_LLM_OP_H

#include "fmgr.h"
#include "utils/jsonb.h"

#include "session/engine.h"
#include "tensor/tensor.h"

#define OP_MAX_INPUTS 5
#define OP_MAX_ARGS   9
#define OP_MAX_SAVED  3
#define OP_MAX_CONSTS 3
#define OP_SITE_LEN   64

#define NO_INTEGER PG_INT64_MIN /* an integer argument that was NULL */

#define NO_VALUE UINT32_MAX /* a tensor that is not on the tape */

typedef struct OpDef  OpDef;
typedef struct OpCall OpCall;

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
struct OpCall
{
    const OpDef    *op;
    int             n_inputs;
    OpValue         in[OP_MAX_INPUTS];
    OpValue         out;
    OpValue         saved[OP_MAX_SAVED];
    IntArray        ids; /* token ids, targets, a shape, lengths; values NULL: not given */
    int64           ints[OP_MAX_CONSTS];
    double          reals[OP_MAX_CONSTS];
    bool            flag;      /* training, enabled */
    bool            read_only; /* no gradient will be asked for: weights may be rounded */
    TensorLow      *low;       /* what an adapter adds to the op's second input; NULL: nothing */
    bool            again;     /* computed again as recorded: dropout's key is there already */
    bool            pure;      /* depends on nothing but its arguments: no key/value cache, no rounded weights */
    char            site[OP_SITE_LEN];
    llm_dropout_key key;
    uint64          first;        /* logical index of the first dropout element */
    double          dout;         /* the gradient of the output for which a forward has saved gradients of the inputs */
    Oid             functions[2]; /* of an op that is a user's: forward, backward (user_op.c) */
    Oid             tensor_type;
    Tensor        **gradients; /* what `prepare` computed */
    size_t          count;     /* what a mean was taken over */
    Jsonb          *settings;
    Tensor         *result;
    float *(*allocate)(OpCall *call, size_t n); /* where the output lies, if not in a tensor: see `bytes` */
    bytea *bytes;
};

/* Where the gradient of one input goes; data NULL: not wanted. */
typedef struct OpGrad
{
    float         *data;
    bool           acc;
    TensorBuffer **buffer; /* who holds data: a backward may put another buffer in its place; or NULL */
} OpGrad;

#define KEEPS_IN(i) (1u << (i))
#define KEEPS_OUT   (1u << 8)

/* One argument of an op: its kind, its name in SQL, and a tensor's shape on bytea or the default of another. */
typedef struct OpArg
{
    char        kind;
    const char *name;
    const char *text;
} OpArg;

/*
 * How arguments are declared, at most OP_MAX_ARGS of them. The default, if there is one, is SQL text. An argument whose
 * default is NULL may be NULL; any other NULL gives NULL.
 *
 * A shape says what a bytea holds for the tensor: its axes, "n, 3 d", whose names the op's overload for bytea takes
 * as further arguments, in the order in which they are first named. "= n": a vector, as long as the bytea is.
 * "*, d": as many rows of d as there are. NULL: the op is about shapes, which bytes do not have. Before a colon
 * stands the argument's name on bytea, where it is another one.
 */
#define TENSOR(name, shape) {'t', name, shape}
#define INTEGERS(name, ...) {'i', name, __VA_ARGS__} /* token ids, targets, a shape, lengths: at most one argument */
#define INTEGER(name, ...)  {'n', name, __VA_ARGS__}
#define REAL(name, ...)     {'r', name, __VA_ARGS__}
#define BOOLEAN(name, ...)  {'b', name, __VA_ARGS__}
#define SITE(name, ...)     {'s', name, __VA_ARGS__} /* the place in the model that keys random numbers */
#define SETTINGS(name, ...) {'j', name, __VA_ARGS__} /* jsonb */

/*
 * An op, declared by OP(id, .name = ..., ...) in ops/op_*.c. ops/make_ops.py reads these declarations and writes
 * all that follows from them: the SQL of both functions and of their overloads for bytea, and the list of ops.
 */
struct OpDef
{
    const char *name; /* pg_llm_<name> in SQL, <name> on the tape */
    OpArg       args[OP_MAX_ARGS + 1];
    const char *doc;       /* the SQL function's comment */
    const char *bytea_doc; /* that of its overload for bytea, where it says more than doc */
    void (*forward)(OpCall *call);
    void (*backward)(const OpCall *call, const float *dout, OpGrad *din);
    void (*prepare)(OpCall *call, const float *dout); /* before a backward, while nobody points at gradients; or NULL */
    uint32 keeps;                                     /* values the backward reads */
    uint32 lazy;       /* KEEPS_IN of inputs that come unfilled: the forward asks for what it needs (op_need) */
    bool   is_number;  /* the output is 0-d: double precision where tensors are bytea */
    int    bytea_args; /* so many of the arguments belong to the overload for bytea; 0: all */
    /* For an op that may have nothing to do: whether the call's first argument is its result, after checks. */
    bool (*is_identity)(FunctionCallInfo fcinfo);
    /* For an op whose second input may be a matrix that an adapter adds to: runs the call, and what call->low adds. */
    Tensor *(*adapted)(OpCall *call);
};

/* The number of arguments. */
extern int op_n_args(const OpDef *op);
/* How many arguments of its kind stand before argument number `arg`. */
extern int op_arg_rank(const OpDef *op, int arg);
/* The SQL type of a kind of argument. */
extern const char *op_arg_type(char kind);
/* The name of the n-th argument of a kind, n from 0. */
extern const char *op_arg_name(const OpDef *op, char kind, int n);
/* Whether the result is NULL: an argument is that must not be, the op's standing from number `arg` on. */
extern bool op_null_argument(const OpDef *op, FunctionCallInfo fcinfo, int arg);
/* Reads the argument number `arg` of a function call, of a kind other than a tensor; `n` counts those of its kind. */
extern void op_read_constant(OpCall *call, FunctionCallInfo fcinfo, int arg, char kind, int n);

/* Runs one call whose inputs and constants are set: forward, interrupts, tape. */
extern Tensor *op_run(OpCall *call);
extern Tensor *op_run1(const OpDef *op, Tensor *x); /* for ops made of ops */
extern void    op_set_input(OpCall *call, int i, Tensor *t);

/* Bodies of the SQL functions. */
extern Datum op_sql_call(FunctionCallInfo fcinfo, const OpDef *op);
extern Datum op_sql_backward(FunctionCallInfo fcinfo, const OpDef *op);

/* Declares an op and defines its two SQL functions. */
#define OP(id, ...)                                                                                                    \
    const OpDef op_##id = {__VA_ARGS__};                                                                               \
    PG_FUNCTION_INFO_V1(pg_llm_##id);                                                                                  \
    Datum pg_llm_##id(PG_FUNCTION_ARGS)                                                                                \
    {                                                                                                                  \
        return op_sql_call(fcinfo, &op_##id);                                                                          \
    }                                                                                                                  \
    PG_FUNCTION_INFO_V1(pg_llm_##id##_backward);                                                                       \
    Datum pg_llm_##id##_backward(PG_FUNCTION_ARGS)                                                                     \
    {                                                                                                                  \
        return op_sql_backward(fcinfo, &op_##id);                                                                      \
    }                                                                                                                  \
    extern int pg_llm_require_semicolon_##id

/* Differentiates a computed call: new tensors for the gradients of all its inputs. */
extern void op_gradients(const OpCall *call, const float *dout, Tensor **grads);

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
extern void      op_value_of(OpValue *v, const Tensor *t);        /* v is t, on no tape */
extern void      op_need(const OpValue *v);                       /* an input's float32 numbers, if it is lazy */
extern void      op_require_ndim(const OpCall *call, int input, int least);
extern void      op_require_ids(const OpCall *call, int64 limit, bool negative_ok);
extern void      op_dropout_key(OpCall *call); /* from the pass and call->site */
extern void __attribute__((noreturn)) op_shape_error(const OpCall *call, const char *expects);

#endif
