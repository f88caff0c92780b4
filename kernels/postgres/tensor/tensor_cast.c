/*
 * tensor_cast.c -- explicit casts: SQL arrays, numbers and bytes to tensors and back.
 *
 * Arrays keep their shape, their lower bounds do not matter, NULL elements are an error (22004), and a number
 * beyond float32's range is one too (22003). bytea is the contiguous little-endian data without the shape.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "tensor_view.h"

/* Looks at pending interrupts every so many elements. */
static inline void
poll(size_t i)
{
    if ((i & 0xffff) == 0)
        CHECK_FOR_INTERRUPTS();
}

/* ---- from arrays ---- */

/* A tensor of the array's shape; '{}' has none, it is a list of no numbers. */
static Tensor *
tensor_like_array(ArrayType *a)
{
    int32 none = 0;

    if (array_contains_nulls(a))
        ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("a tensor cannot have NULL elements"),
                errhint("Use coalesce() or array_remove() first."));
    if (ARR_NDIM(a) == 0)
        return tensor_new(1, &none);
    return tensor_new(ARR_NDIM(a), ARR_DIMS(a));
}

/* tensor(real[]): the array's shape and elements */
PG_FUNCTION_INFO_V1(pg_llm_tensor_from_float4_array);
Datum
pg_llm_tensor_from_float4_array(PG_FUNCTION_ARGS)
{
    ArrayType *a = PG_GETARG_ARRAYTYPE_P(0);
    Tensor    *t = tensor_like_array(a);

    if (t->n > 0)
        memcpy(t->data, ARR_DATA_PTR(a), t->n * sizeof(float));
    PG_RETURN_TENSOR(t);
}

/* tensor(double precision[]), rounded to float32 */
PG_FUNCTION_INFO_V1(pg_llm_tensor_from_float8_array);
Datum
pg_llm_tensor_from_float8_array(PG_FUNCTION_ARGS)
{
    ArrayType    *a = PG_GETARG_ARRAYTYPE_P(0);
    Tensor       *t = tensor_like_array(a);
    const float8 *values = (const float8 *) ARR_DATA_PTR(a);

    for (size_t i = 0; i < t->n; i++)
    {
        poll(i);
        t->data[i] = tensor_float4(values[i]);
    }
    PG_RETURN_TENSOR(t);
}

/* tensor(integer[]), rounded to float32 */
PG_FUNCTION_INFO_V1(pg_llm_tensor_from_int4_array);
Datum
pg_llm_tensor_from_int4_array(PG_FUNCTION_ARGS)
{
    ArrayType   *a = PG_GETARG_ARRAYTYPE_P(0);
    Tensor      *t = tensor_like_array(a);
    const int32 *values = (const int32 *) ARR_DATA_PTR(a);

    for (size_t i = 0; i < t->n; i++)
    {
        poll(i);
        t->data[i] = (float) values[i];
    }
    PG_RETURN_TENSOR(t);
}

/* Drivers send a list of integers in the narrowest type that holds them. */
PG_FUNCTION_INFO_V1(pg_llm_tensor_from_int2_array);
Datum
pg_llm_tensor_from_int2_array(PG_FUNCTION_ARGS)
{
    ArrayType   *a = PG_GETARG_ARRAYTYPE_P(0);
    Tensor      *t = tensor_like_array(a);
    const int16 *values = (const int16 *) ARR_DATA_PTR(a);

    for (size_t i = 0; i < t->n; i++)
        t->data[i] = (float) values[i];
    PG_RETURN_TENSOR(t);
}

/* tensor(bigint[]), rounded to float32 */
PG_FUNCTION_INFO_V1(pg_llm_tensor_from_int8_array);
Datum
pg_llm_tensor_from_int8_array(PG_FUNCTION_ARGS)
{
    ArrayType   *a = PG_GETARG_ARRAYTYPE_P(0);
    Tensor      *t = tensor_like_array(a);
    const int64 *values = (const int64 *) ARR_DATA_PTR(a);

    for (size_t i = 0; i < t->n; i++)
        t->data[i] = (float) values[i];
    PG_RETURN_TENSOR(t);
}

/* By way of numeric's text, so that each decimal is rounded once. */
static float
float4_of_numeric(Datum value)
{
    return DatumGetFloat4(DirectFunctionCall1(numeric_float4, value));
}

/* tensor(numeric[]), rounded to float32 */
PG_FUNCTION_INFO_V1(pg_llm_tensor_from_numeric_array);
Datum
pg_llm_tensor_from_numeric_array(PG_FUNCTION_ARGS)
{
    ArrayType    *a = PG_GETARG_ARRAYTYPE_P(0);
    Tensor       *t = tensor_like_array(a);
    ArrayIterator values = array_create_iterator(a, 0, NULL);
    Datum         value;
    bool          isnull;

    for (size_t i = 0; array_iterate(values, &value, &isnull); i++)
    {
        poll(i);
        t->data[i] = float4_of_numeric(value);
    }
    array_free_iterator(values);
    PG_RETURN_TENSOR(t);
}

/* ---- to arrays ---- */

/* An array of the tensor's shape with room for its elements; a single number becomes {number}. */
static ArrayType *
array_like_tensor(const TensorView *v, Oid element_type, size_t element_size)
{
    int        ndim = v->ndim == 0 ? 1 : v->ndim;
    size_t     header = ARR_OVERHEAD_NONULLS(ndim);
    ArrayType *a;

    if (v->n == 0)
        return construct_empty_array(element_type);
    if (ndim > MAXDIM)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("an array has at most %d dimensions, the tensor has %d", MAXDIM, ndim));
    if (v->n > (MaxAllocSize - header) / element_size)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("a tensor of shape %s is too large for an array", tensor_shape_text(v->ndim, v->dims)));
    a = palloc0(header + v->n * element_size);
    SET_VARSIZE(a, header + v->n * element_size);
    a->ndim = ndim;
    a->dataoffset = 0;
    a->elemtype = element_type;
    for (int i = 0; i < ndim; i++)
    {
        ARR_DIMS(a)[i] = v->ndim == 0 ? 1 : v->dims[i];
        ARR_LBOUND(a)[i] = 1;
    }
    return a;
}

/* tensor::real[]; 0 dimensions give one element */
PG_FUNCTION_INFO_V1(pg_llm_tensor_to_float4_array);
Datum
pg_llm_tensor_to_float4_array(PG_FUNCTION_ARGS)
{
    TensorView v = PG_GETARG_TENSOR_VIEW(0);
    ArrayType *a = array_like_tensor(&v, FLOAT4OID, sizeof(float4));
    float4    *values = (float4 *) ARR_DATA_PTR(a);

    for (size_t i = 0; i < v.n; i++)
    {
        poll(i);
        values[i] = tensor_canonical(v.data[i]);
    }
    PG_RETURN_ARRAYTYPE_P(a);
}

/* tensor::double precision[]; 0 dimensions give one element */
PG_FUNCTION_INFO_V1(pg_llm_tensor_to_float8_array);
Datum
pg_llm_tensor_to_float8_array(PG_FUNCTION_ARGS)
{
    TensorView v = PG_GETARG_TENSOR_VIEW(0);
    ArrayType *a = array_like_tensor(&v, FLOAT8OID, sizeof(float8));
    float8    *values = (float8 *) ARR_DATA_PTR(a);

    for (size_t i = 0; i < v.n; i++)
    {
        poll(i);
        values[i] = (float8) tensor_canonical(v.data[i]);
    }
    PG_RETURN_ARRAYTYPE_P(a);
}

/* ---- single numbers ---- */

/* tensor(double precision): 0 dimensions */
PG_FUNCTION_INFO_V1(pg_llm_tensor_from_float8);
Datum
pg_llm_tensor_from_float8(PG_FUNCTION_ARGS)
{
    PG_RETURN_TENSOR(tensor_scalar(PG_GETARG_FLOAT8(0)));
}

/* tensor(integer): 0 dimensions */
PG_FUNCTION_INFO_V1(pg_llm_tensor_from_int4);
Datum
pg_llm_tensor_from_int4(PG_FUNCTION_ARGS)
{
    PG_RETURN_TENSOR(tensor_scalar((double) PG_GETARG_INT32(0)));
}

/* tensor(numeric): 0 dimensions */
PG_FUNCTION_INFO_V1(pg_llm_tensor_from_numeric);
Datum
pg_llm_tensor_from_numeric(PG_FUNCTION_ARGS)
{
    PG_RETURN_TENSOR(tensor_scalar((double) float4_of_numeric(PG_GETARG_DATUM(0))));
}

/* Also the cast to double precision. */
PG_FUNCTION_INFO_V1(pg_llm_item);
Datum
pg_llm_item(PG_FUNCTION_ARGS)
{
    TensorView v = PG_GETARG_TENSOR_VIEW(0);

    if (v.n != 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("a tensor of shape %s is not a single number", tensor_shape_text(v.ndim, v.dims)),
                errhint("Take one element, or pg_llm_mean() or pg_llm_sum() of it."));
    PG_RETURN_FLOAT8((float8) tensor_canonical(v.data[0]));
}

/* ---- bytes ---- */

static uint32
little_endian(uint32 bits)
{
#ifdef WORDS_BIGENDIAN
    return pg_bswap32(bits);
#else
    return bits;
#endif
}

/* tensor::bytea: the elements as little-endian float32, without the shape */
PG_FUNCTION_INFO_V1(pg_llm_tensor_to_bytea);
Datum
pg_llm_tensor_to_bytea(PG_FUNCTION_ARGS)
{
    TensorView v = PG_GETARG_TENSOR_VIEW(0);
    bytea     *result;
    uint32    *words;

    if (v.n > TENSOR_MAX_FLAT_ELEMENTS)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("a tensor of shape %s is too large for bytea", tensor_shape_text(v.ndim, v.dims)));
    result = palloc(VARHDRSZ + v.n * sizeof(float));
    SET_VARSIZE(result, VARHDRSZ + v.n * sizeof(float));
    words = (uint32 *) VARDATA(result);
    for (size_t i = 0; i < v.n; i++)
    {
        float  x = tensor_canonical(v.data[i]);
        uint32 bits;

        poll(i);
        memcpy(&bits, &x, sizeof(bits));
        words[i] = little_endian(bits);
    }
    PG_RETURN_BYTEA_P(result);
}

/* tensor(data, shape) from little-endian float32 */
PG_FUNCTION_INFO_V1(pg_llm_tensor_from_bytea);
Datum
pg_llm_tensor_from_bytea(PG_FUNCTION_ARGS)
{
    bytea   *bytes = PG_GETARG_BYTEA_PP(0);
    size_t   size = VARSIZE_ANY_EXHDR(bytes);
    IntArray shape = tensor_int_array(PG_GETARG_DATUM(1), "shape");
    size_t   n;
    Tensor  *t;

    if (shape.ndim != 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("shape must be a list of dimensions, not an array of %d dimensions", shape.ndim));
    /* before a shape that cannot match is given memory */
    n = tensor_count((int) Min(shape.n, TENSOR_MAX_NDIM + 1), shape.values);
    if (size != n * sizeof(float))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%zu bytes are not a tensor of shape %s", size, tensor_shape_text((int) shape.n, shape.values)),
                errhint("It takes %zu bytes, 4 per element.", n * sizeof(float)));
    t = tensor_new((int) shape.n, shape.values);
    for (size_t i = 0; i < n; i++)
    {
        uint32 bits;

        poll(i);
        memcpy(&bits, VARDATA_ANY(bytes) + i * sizeof(bits), sizeof(bits));
        bits = little_endian(bits);
        memcpy(&t->data[i], &bits, sizeof(bits));
    }
    PG_RETURN_TENSOR(t);
}
