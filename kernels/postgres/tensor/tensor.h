/*
 * tensor.h -- the SQL type `tensor`: its flat and its expanded form.
 *
 * Flat (on disk, in tuples): varlena header, version, element type, number of dimensions, the tape's identity,
 * the dimensions, padding to 8 bytes, the elements in row-major order: float32, or bf16, which is a way of storing
 * numbers and nothing else. Whoever reads one sees float32 (tensor_view.h), and only bf16.c makes one.
 * Expanded (in expressions): an ExpandedObject that holds a reference to a shared, 64-byte-aligned buffer,
 * so that nested calls, PL/pgSQL variables and the tape share one copy.
 */
#ifndef PG_LLM_TENSOR_H
#define PG_LLM_TENSOR_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/expandeddatum.h"

#define TENSOR_MAX_NDIM 8
#define TENSOR_VERSION  1
#define TENSOR_FLOAT32  1
#define TENSOR_BF16     2
/* No single tensor is larger than 4 GiB: a mistyped dimension fails before memory is asked for. */
#define TENSOR_MAX_ELEMENTS ((size_t) 1 << 30)
/* One value on its way to disk: the largest palloc, less room for the header. bf16 has no more: it has a float32 twin. */
#define TENSOR_MAX_FLAT_ELEMENTS ((MaxAllocSize - 256) / sizeof(float))

/* ---- buffers: reference-counted, aligned memory outside of memory contexts (buffer.c) ---- */

struct llm_packed;

typedef struct TensorBuffer
{
    int                refcount;
    bool               foreign;   /* memory of somebody else's, which must not be written to */
    bool               unfilled;  /* the numbers are there as bf16 only, and `data` is room for them: lazy.c */
    size_t             bytes;     /* usable size */
    float             *data;      /* 64-byte aligned */
    struct llm_packed *packed[2]; /* copies in fewer bits, as (in,out) and as (out,in); NULL: none (precision.c) */
} TensorBuffer;

/* Ensure room for n floats; contents are undefined. ereport(53200) when memory is short. */
extern TensorBuffer *tensor_buffer_alloc(size_t n);
extern TensorBuffer *tensor_buffer_retain(TensorBuffer *b);
extern void          tensor_buffer_release(TensorBuffer *b); /* NULL is fine; never throws */
/* Memory to read only, which is no part of this session's; `gone(arg)` is called as the last reference goes. */
extern TensorBuffer *tensor_buffer_foreign(float *data, size_t bytes, void (*gone)(void *arg), void *arg);

/*
 * The same of n numbers that are there as bf16, in memory that stays until `gone`. `data` is addresses without memory until
 * somebody needs float32. Whoever reads a tensor that came as a datum has them (tensor_from_datum, tensor_view_open);
 * ops that can do without, and those that read a parameter's buffer, ask for them.
 */
extern TensorBuffer *tensor_buffer_lazy(const uint16 *halves, size_t n, void (*gone)(void *arg), void *arg);
/* The same with memory of its own, which is to be written to at once. */
extern TensorBuffer *tensor_buffer_lazy_alloc(size_t n, uint16 **halves);
extern const uint16 *tensor_buffer_halves(const TensorBuffer *b); /* of one that is unfilled */
extern void          tensor_buffer_fill(TensorBuffer *b);         /* ereport(53200) when memory is short */

static inline void
tensor_buffer_need(TensorBuffer *b)
{
    if (b->unfilled)
        tensor_buffer_fill(b);
}

/* Who holds the only reference may write. */
static inline bool
tensor_buffer_writable(const TensorBuffer *b)
{
    return b->refcount == 1 && !b->foreign;
}

/* ---- the expanded form ---- */

typedef struct Tensor
{
    ExpandedObjectHeader  hdr;
    int32                 magic;
    int32                 ndim; /* 0: a single number */
    int32                 dims[TENSOR_MAX_NDIM];
    size_t                n; /* number of elements, the product of dims */
    TensorBuffer         *buffer;
    float                *data;     /* inside buffer */
    uint64                nonce;    /* the recorded pass this value belongs to; 0: none */
    uint32                index;    /* its number in that pass */
    struct TensorLow     *low;      /* what an adapter adds to it; NULL: nothing (low.c) */
    MemoryContextCallback callback; /* releases the buffer */
} Tensor;

/*
 * A matrix of low rank that an adapter adds to one of its base's: the tensor stands for itself + scale a b. An op that
 * multiplies by it takes the three as they are; whoever else reads it gets the sum, made then.
 */
typedef struct TensorLow
{
    Tensor *a, *b; /* [in, rank] and [rank, out], in the tensor's memory context */
    double  scale;
    bool    recorded; /* a and b are leaves of the tape, which the sum would not be */
} TensorLow;

/* A new tensor with its own, uninitialised buffer, in the current memory context. Checks sizes (54000). */
extern Tensor *tensor_new(int ndim, const int32 *dims);
/* A new tensor over an existing buffer, which it retains. */
extern Tensor *tensor_wrap(int ndim, const int32 *dims, TensorBuffer *buffer, float *data);
extern Tensor *tensor_scalar(double value); /* 0-d */
/* Expanded values are returned as they are, flat ones expanded in the current memory context. */
extern Tensor *tensor_from_datum(Datum d);
/* The same, whose buffer may be unfilled, and to which an adapter may add something. */
extern Tensor *tensor_from_datum_lazy(Datum d);
/* Its numbers are to be read: fills the buffer, and adds what an adapter adds. */
extern void tensor_need(Tensor *t);
/* The tensor becomes one to which an adapter adds scale a b; a and b were made in its memory context. */
extern void  tensor_set_low(Tensor *t, Tensor *a, Tensor *b, double scale, bool recorded);
extern Datum tensor_datum(Tensor *t); /* read-write pointer */
/* Product of dims with overflow and range checks; ereport(54000). */
extern size_t tensor_count(int ndim, const int32 *dims);
/* "[2,3]" in the current memory context, for messages. */
extern char *tensor_shape_text(int ndim, const int32 *dims);

#define PG_GETARG_TENSOR(i) tensor_from_datum(PG_GETARG_DATUM(i))
#define PG_RETURN_TENSOR(t) PG_RETURN_DATUM(tensor_datum(t))

/* int[] arguments: checked (no NULLs), any dimensionality (ndim, dims from the array; 0 elements allowed). */
typedef struct IntArray
{
    int          ndim;
    int32        dims[TENSOR_MAX_NDIM];
    size_t       n;
    const int32 *values;
} IntArray;
extern IntArray tensor_int_array(Datum array, const char *argument);
/* Ensure that sequences of these lengths, each at least 1, lie end to end over n tokens; `name` is who asks. */
extern void tensor_require_lengths(const char *name, const IntArray *lengths, size_t n);
/* An int[] of n numbers in the current memory context; 54000 when an array cannot hold them. */
extern struct ArrayType *tensor_make_int_array(const int32 *values, size_t n);

#endif
