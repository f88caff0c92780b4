/*
 * bf16.c -- tensors whose elements are stored as bf16, the upper halves of float32: in half the room, and exactly the
 * numbers of a model that was published in bf16.
 *
 * Such a value is flat. Whatever computes with it, compares it or sends it sees its float32 twin, which tensor_view_open
 * and tensor_from_datum make; so does what comes of it. Only what hands values on as they are (a copy of a row, an
 * assignment, a cast to tensor(n)) keeps bf16.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "tensor_view.h"

#define PIECE 65536 /* elements between two looks at pending interrupts */

extern Datum pg_llm_tensor_from_bytea(PG_FUNCTION_ARGS);

void
tensor_widen(float *out, const uint16 *in, size_t n)
{
    for (size_t i = 0; i < n; i++)
    {
        uint32 bits = (uint32) in[i] << 16;

        memcpy(out + i, &bits, sizeof(bits));
    }
}

FlatTensor *
tensor_flat_bf16(int ndim, const int32 *dims, uint16 **elements)
{
    size_t      n = tensor_count(ndim, dims);
    size_t      offset = FLAT_TENSOR_DATA_OFFSET(ndim);
    FlatTensor *flat;

    if (n > TENSOR_MAX_FLAT_ELEMENTS)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("a tensor of shape %s does not fit a row", tensor_shape_text(ndim, dims)),
                errdetail("A stored value can have at most %zu elements.", (size_t) TENSOR_MAX_FLAT_ELEMENTS),
                errhint("Store it in parts of whole rows."));
    flat = palloc(offset + n * sizeof(uint16));
    /* padding included: equal values are equal bytes */
    memset(flat, 0, offset);
    SET_VARSIZE(flat, offset + n * sizeof(uint16));
    flat->version = TENSOR_VERSION;
    flat->dtype = TENSOR_BF16;
    flat->ndim = (uint8) ndim;
    if (ndim > 0)
        memcpy(flat->dims, dims, sizeof(int32) * ndim);
    *elements = (uint16 *) ((char *) flat + offset);
    return flat;
}

/* To the nearest, of two as near to the even one; NaN stays one. */
static uint16
narrow(float x)
{
    uint32 bits;

    memcpy(&bits, &x, sizeof(bits));
    if (x != x)
        return (uint16) (bits >> 16 | 0x40);
    return (uint16) ((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* dtype(tensor) -> as what its elements are stored: float32 or bf16 */
PG_FUNCTION_INFO_V1(pg_llm_dtype);
Datum
pg_llm_dtype(PG_FUNCTION_ARGS)
{
    TensorView v = tensor_view_open_shape(PG_GETARG_DATUM(0));

    PG_RETURN_TEXT_P(cstring_to_text(v.dtype == TENSOR_BF16 ? "bf16" : "float32"));
}

/* pg_llm_to_bf16(x): its elements rounded to the nearest bf16, and stored as such */
PG_FUNCTION_INFO_V1(pg_llm_to_bf16);
Datum
pg_llm_to_bf16(PG_FUNCTION_ARGS)
{
    TensorView  v = tensor_view_open_stored(PG_GETARG_DATUM(0));
    uint16     *out;
    FlatTensor *flat;

    if (v.dtype == TENSOR_BF16)
    {
        tensor_view_close(&v);
        PG_RETURN_DATUM(PG_GETARG_DATUM(0));
    }
    flat = tensor_flat_bf16(v.ndim, v.dims, &out);
    for (size_t i = 0; i < v.n; i++)
    {
        if (i % PIECE == 0)
            CHECK_FOR_INTERRUPTS();
        out[i] = narrow(v.data[i]);
        if ((out[i] & 0x7fff) == 0x7f80 && v.data[i] - v.data[i] == 0)
            ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                    errmsg("value %g is out of range for bf16", v.data[i]),
                    errhint("The largest number of bf16 is 3.38953e+38."));
    }
    tensor_view_close(&v);
    PG_RETURN_POINTER(flat);
}

/* pg_llm_to_float32(x): the same numbers, stored as float32 */
PG_FUNCTION_INFO_V1(pg_llm_to_float32);
Datum
pg_llm_to_float32(PG_FUNCTION_ARGS)
{
    TensorView v = tensor_view_open_shape(PG_GETARG_DATUM(0));
    bool       same = v.dtype == TENSOR_FLOAT32;

    tensor_view_close(&v);
    if (same)
        PG_RETURN_DATUM(PG_GETARG_DATUM(0));
    PG_RETURN_TENSOR(tensor_from_datum(PG_GETARG_DATUM(0)));
}

/* tensor(data, shape, dtype) from little-endian elements of that type */
PG_FUNCTION_INFO_V1(pg_llm_tensor_from_bytea_of);
Datum
pg_llm_tensor_from_bytea_of(PG_FUNCTION_ARGS)
{
    bytea      *bytes = PG_GETARG_BYTEA_PP(0);
    size_t      size = VARSIZE_ANY_EXHDR(bytes);
    IntArray    shape = tensor_int_array(PG_GETARG_DATUM(1), "shape");
    char       *dtype = text_to_cstring(PG_GETARG_TEXT_PP(2));
    uint16     *out;
    size_t      n;
    FlatTensor *flat;

    if (strcmp(dtype, "float32") == 0)
        return DirectFunctionCall2(pg_llm_tensor_from_bytea, PG_GETARG_DATUM(0), PG_GETARG_DATUM(1));
    if (strcmp(dtype, "bf16") != 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown element type \"%s\"", dtype),
                errhint("Element types are float32 and bf16."));
    if (shape.ndim != 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("shape must be a list of dimensions, not an array of %d dimensions", shape.ndim));
    n = tensor_count((int) Min(shape.n, TENSOR_MAX_NDIM + 1), shape.values);
    if (size != n * sizeof(uint16))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%zu bytes are not a bf16 tensor of shape %s", size,
                       tensor_shape_text((int) shape.n, shape.values)),
                errhint("It takes %zu bytes, 2 per element.", n * sizeof(uint16)));
    flat = tensor_flat_bf16((int) shape.n, shape.values, &out);
    for (size_t i = 0; i < n; i++)
    {
        const uint8 *pair = (const uint8 *) VARDATA_ANY(bytes) + 2 * i;

        if (i % PIECE == 0)
            CHECK_FOR_INTERRUPTS();
        out[i] = (uint16) (pair[0] | pair[1] << 8);
    }
    PG_RETURN_POINTER(flat);
}
