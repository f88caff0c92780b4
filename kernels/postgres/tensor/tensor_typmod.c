/*
 * tensor_typmod.c -- type modifiers: tensor(768) and tensor(768,768).
 *
 * A modifier is one non-negative int32. Its upper five bits say how many of the lower 26 hold the first of two
 * dimensions; 0 says that all of them hold the only one. So two dimensions fit when their bits together are
 * 26 at most, which takes in GPT-2's 50257 x 768 and every part of a parameter (8 Mi elements). Other shapes
 * are for a CHECK on shape(x).
 */
#include "postgres.h"

#include "utils/array.h"

#include "tensor_text.h"
#include "tensor_typmod.h"
#include "tensor_view.h"

#define DIM_BITS 26
#define DIM_MASK ((1 << DIM_BITS) - 1)

static int
bits_of(int32 dim)
{
    int bits = 0;

    for (; dim > 0; dim >>= 1)
        bits++;
    return bits;
}

/* Number of dimensions a modifier demands, and which. */
static int
decode(int32 typmod, int32 dims[2])
{
    int first_bits = typmod >> DIM_BITS;
    int second_bits = DIM_BITS - first_bits;

    if (first_bits >= DIM_BITS)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%d is not a type modifier of tensor", typmod));
    if (first_bits == 0)
    {
        dims[0] = typmod & DIM_MASK;
        return 1;
    }
    dims[0] = (typmod & DIM_MASK) >> second_bits;
    dims[1] = typmod & ((1 << second_bits) - 1);
    return 2;
}

/* tensor(n) and tensor(m,n) as a type modifier */
PG_FUNCTION_INFO_V1(pg_llm_tensor_typmod_in);
Datum
pg_llm_tensor_typmod_in(PG_FUNCTION_ARGS)
{
    int    ndim;
    int32 *dims = ArrayGetIntegerTypmods(PG_GETARG_ARRAYTYPE_P(0), &ndim);
    int    first_bits;

    if (ndim < 1 || ndim > 2)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("type tensor takes one or two dimensions, not %d", ndim),
                errhint("Use CHECK (shape(x) = '{...}') for more."));
    for (int i = 0; i < ndim; i++)
        if (dims[i] < 1)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("dimension %d of type tensor must be at least 1, not %d", i + 1, dims[i]));
    first_bits = ndim == 2 ? bits_of(dims[0]) : 0;
    if (first_bits + bits_of(dims[ndim - 1]) > DIM_BITS)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("dimensions %s are too large for a type modifier", tensor_shape_text(ndim, dims)),
                errhint("Use CHECK (shape(x) = '{...}') instead."));
    if (ndim == 1)
        PG_RETURN_INT32(dims[0]);
    PG_RETURN_INT32(first_bits << DIM_BITS | dims[0] << (DIM_BITS - first_bits) | dims[1]);
}

/* A type modifier as text */
PG_FUNCTION_INFO_V1(pg_llm_tensor_typmod_out);
Datum
pg_llm_tensor_typmod_out(PG_FUNCTION_ARGS)
{
    int32 typmod = PG_GETARG_INT32(0);
    int32 dims[2];

    if (typmod < 0)
        PG_RETURN_CSTRING(pstrdup(""));
    if (decode(typmod, dims) == 1)
        PG_RETURN_CSTRING(psprintf("(%d)", dims[0]));
    PG_RETURN_CSTRING(psprintf("(%d,%d)", dims[0], dims[1]));
}

bool
tensor_fits_typmod(int ndim, const int32 *dims, int32 typmod, Node *context)
{
    int32 wanted[2];
    int   wanted_ndim;

    if (typmod < 0)
        return true;
    wanted_ndim = decode(typmod, wanted);
    if (ndim == wanted_ndim && memcmp(dims, wanted, sizeof(int32) * ndim) == 0)
        return true;
    input_error(context, errcode(ERRCODE_DATA_EXCEPTION),
                errmsg("expected a tensor of shape %s, not %s", tensor_shape_text(wanted_ndim, wanted),
                       tensor_shape_text(ndim, dims)));
    return false;
}

/* The cast from tensor to tensor(...): checks, never changes. */
PG_FUNCTION_INFO_V1(pg_llm_tensor_typmod_cast);
Datum
pg_llm_tensor_typmod_cast(PG_FUNCTION_ARGS)
{
    TensorView v = tensor_view_open_shape(PG_GETARG_DATUM(0));

    tensor_fits_typmod(v.ndim, v.dims, PG_GETARG_INT32(1), NULL);
    PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}
