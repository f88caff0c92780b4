/*
 * tensor_access.c -- looking at tensors (shape, ndims, norm) and making them (full, normal, zeros, ones).
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"

#include "session/engine.h"
#include "tensor_view.h"

/* ---- accessors ---- */

/* shape(tensor) -> dimensions; empty for 0 dimensions */
PG_FUNCTION_INFO_V1(pg_llm_shape);
Datum
pg_llm_shape(PG_FUNCTION_ARGS)
{
    TensorView v = tensor_view_open_shape(PG_GETARG_DATUM(0));
    Datum      dims[TENSOR_MAX_NDIM];

    if (v.ndim == 0)
        PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT4OID));
    for (int i = 0; i < v.ndim; i++)
        dims[i] = Int32GetDatum(v.dims[i]);
    PG_RETURN_ARRAYTYPE_P(construct_array(dims, v.ndim, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/* ndims(tensor) -> number of dimensions */
PG_FUNCTION_INFO_V1(pg_llm_ndims);
Datum
pg_llm_ndims(PG_FUNCTION_ARGS)
{
    TensorView v = tensor_view_open_shape(PG_GETARG_DATUM(0));

    PG_RETURN_INT32(v.ndim);
}

/* Euclidean (Frobenius) norm over all elements. */
PG_FUNCTION_INFO_V1(pg_llm_norm);
Datum
pg_llm_norm(PG_FUNCTION_ARGS)
{
    TensorView v = PG_GETARG_TENSOR_VIEW(0);

    PG_RETURN_FLOAT8(pg_llm_l2_norm(v.data, v.n));
}

/* ---- constructors ---- */

/* A new tensor of the shape in an int[] argument: '{}' is a single number. */
static Tensor *
tensor_of_shape(Datum array)
{
    IntArray shape = tensor_int_array(array, "shape");
    int      ndim;

    if (shape.ndim != 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("shape must be a list of dimensions, not an array of %d dimensions", shape.ndim));
    ndim = (int) Min(shape.n, (size_t) TENSOR_MAX_NDIM + 1);
    if (tensor_count(ndim, shape.values) > TENSOR_MAX_FLAT_ELEMENTS)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("a tensor of shape %s does not fit a row", tensor_shape_text(ndim, shape.values)),
                errdetail("The limit is %zu elements.", (size_t) TENSOR_MAX_FLAT_ELEMENTS),
                errhint("Create it in parts of whole rows."));
    return tensor_new(ndim, shape.values);
}

static Datum
filled(Tensor *t, float value)
{
    llm_engine *e = pg_llm_engine();

    llm_fill(e, t->data, value, t->n);
    pg_llm_check(e);
    PG_RETURN_TENSOR(t);
}

/* pg_llm_full(shape, value): a tensor with all elements equal */
PG_FUNCTION_INFO_V1(pg_llm_full);
Datum
pg_llm_full(PG_FUNCTION_ARGS)
{
    float value = tensor_float4(PG_GETARG_FLOAT8(1));

    return filled(tensor_of_shape(PG_GETARG_DATUM(0)), value);
}

static Tensor *
tensor_like_argument(FunctionCallInfo fcinfo)
{
    TensorView v = tensor_view_open_shape(PG_GETARG_DATUM(0));

    return tensor_new(v.ndim, v.dims);
}

/* pg_llm_zeros_like(x): zeros in the shape of x */
PG_FUNCTION_INFO_V1(pg_llm_zeros_like);
Datum
pg_llm_zeros_like(PG_FUNCTION_ARGS)
{
    return filled(tensor_like_argument(fcinfo), 0.0f);
}

/* pg_llm_ones_like(x): ones in the shape of x */
PG_FUNCTION_INFO_V1(pg_llm_ones_like);
Datum
pg_llm_ones_like(PG_FUNCTION_ARGS)
{
    return filled(tensor_like_argument(fcinfo), 1.0f);
}

/* pg_llm_normal(shape, mean, std, seed, stream): element i is keyed by (seed, stream, i). */
PG_FUNCTION_INFO_V1(pg_llm_normal);
Datum
pg_llm_normal(PG_FUNCTION_ARGS)
{
    float       mean = tensor_float4(PG_GETARG_FLOAT8(1));
    float       std = tensor_float4(PG_GETARG_FLOAT8(2));
    Tensor     *t;
    llm_engine *e;

    if (!isfinite(mean) || !isfinite(std) || std < 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("mean %g and standard deviation %g do not make a normal distribution", mean, std),
                errhint("Both must be finite, and the standard deviation 0 or more."));
    t = tensor_of_shape(PG_GETARG_DATUM(0));
    e = pg_llm_engine();
    llm_normal(e, t->data, mean, std, (uint64) PG_GETARG_INT64(3), (uint64) PG_GETARG_INT64(4), t->n);
    pg_llm_check(e);
    PG_RETURN_TENSOR(t);
}

/* pg_llm_uniform(shape, low, high, seed, stream): element i is keyed by (seed, stream, i). */
PG_FUNCTION_INFO_V1(pg_llm_uniform);
Datum
pg_llm_uniform(PG_FUNCTION_ARGS)
{
    double  low = PG_GETARG_FLOAT8(1);
    double  high = PG_GETARG_FLOAT8(2);
    Tensor *t;

    if (!isfinite(tensor_float4(low)) || !isfinite(tensor_float4(high)) || low > high)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("numbers cannot be uniformly distributed between %g and %g", low, high),
                errhint("Both must be finite, and low not above high."));
    t = tensor_of_shape(PG_GETARG_DATUM(0));
    for (size_t i = 0; i < t->n; i++)
    {
        double u = llm_uniform((uint64) PG_GETARG_INT64(3), (uint64) PG_GETARG_INT64(4), i);

        if ((i & 0xffff) == 0)
            CHECK_FOR_INTERRUPTS();
        t->data[i] = (float) (low + (high - low) * u);
    }
    PG_RETURN_TENSOR(t);
}
