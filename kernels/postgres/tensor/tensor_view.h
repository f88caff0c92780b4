/*
 * tensor_view.h -- reading a tensor argument without caring whether it is flat or expanded (tensor.c), nor how its
 * elements are stored (bf16.c).
 */
#ifndef PG_LLM_TENSOR_VIEW_H
#define PG_LLM_TENSOR_VIEW_H

#include "tensor.h"

#include "utils/memutils.h"

/* The flat form; the elements follow the dimensions at the next multiple of 8 bytes. */
typedef struct FlatTensor
{
    int32  vl_len_;
    uint8  version;
    uint8  dtype;
    uint8  ndim;
    uint8  flags; /* 0 */
    uint64 nonce;
    uint32 index;
    int32  dims[FLEXIBLE_ARRAY_MEMBER];
} FlatTensor;

#define FLAT_TENSOR_DATA_OFFSET(ndim) TYPEALIGN(8, offsetof(FlatTensor, dims) + (size_t) (ndim) * sizeof(int32))

/* Valid as long as the datum it was made from, and until tensor_view_close. */
typedef struct TensorView
{
    int           ndim;
    const int32  *dims;
    size_t        n;
    const float  *data;
    const uint16 *bf16; /* the elements as they are stored; NULL: as float32 */
    uint64        nonce;
    uint32        index;
    uint8         dtype;   /* as which the value is stored */
    void         *copy;    /* detoasted copy that close frees, or NULL */
    float        *widened; /* its elements as float32, freed as well, or NULL */
} TensorView;

extern TensorView tensor_view_open(Datum d);
/* The same with either data or bf16 (NULL: the other), so that nothing is copied to be widened. */
extern TensorView tensor_view_open_stored(Datum d);
/* The same without elements (NULL): of a value stored out of line, only the first chunk is read. */
extern TensorView tensor_view_open_shape(Datum d);
extern void       tensor_view_close(TensorView *v);

#define PG_GETARG_TENSOR_VIEW(i) tensor_view_open(PG_GETARG_DATUM(i))

/* ---- bf16 (bf16.c): the upper half of a float32 ---- */

extern void tensor_widen(float *out, const uint16 *in, size_t n);
/* A flat value with room for its elements, in the current memory context; 54000: no row holds it. */
extern FlatTensor *tensor_flat_bf16(int ndim, const int32 *dims, uint16 **elements);

extern bool tensor_same_dims(int ndim_a, const int32 *a, int ndim_b, const int32 *b);
/* double to float32; a finite value beyond float32's range is error 22003. */
extern float tensor_float4(double value);

/* Every NaN leaves the server, and is hashed, as this one. */
static inline float
tensor_canonical(float x)
{
    union
    {
        uint32 bits;
        float  value;
    } nan = {0x7fc00000u};

    return x != x ? nan.value : x;
}

#endif
