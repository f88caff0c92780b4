/*
 * bytea_floats.c -- float32 arrays in bytea arguments and results, checked against explicit dimensions.
 */
#include "postgres.h"

#include "port/pg_bswap.h"
#include "utils/memutils.h"

#include "bytea_floats.h"
#include "tensor/tensor.h"

/* bytea holds little-endian numbers wherever the server runs. */
static void
swap_if_needed(float *data, size_t n)
{
#ifdef WORDS_BIGENDIAN
    uint32 *words = (uint32 *) data;

    for (size_t i = 0; i < n; i++)
        words[i] = pg_bswap32(words[i]);
#else
    (void) data;
    (void) n;
#endif
}

Floats
floats_arg(FunctionCallInfo fcinfo, int i, const char *name)
{
#ifdef WORDS_BIGENDIAN
    bytea *b = PG_GETARG_BYTEA_P_COPY(i);
#else
    bytea *b = PG_GETARG_BYTEA_P(i);
#endif
    size_t bytes = VARSIZE(b) - VARHDRSZ;

    if (bytes % sizeof(float) != 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s has %zu bytes, not a multiple of the 4 bytes of a float32", name, bytes));
    swap_if_needed((float *) VARDATA(b), bytes / sizeof(float));
    return (Floats){name, (const float *) VARDATA(b), bytes / sizeof(float)};
}

size_t
floats_dim(FunctionCallInfo fcinfo, int i, const char *name)
{
    int32 dim = PG_GETARG_INT32(i);

    if (dim < 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must be at least 1, not %d", name, dim));
    return (size_t) dim;
}

void
floats_expect(const Floats *f, size_t rows, size_t cols)
{
    /* both come from int32s: the product cannot wrap */
    if (f->n != rows * cols)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s has %zu elements, not %zu x %zu", f->name, f->n, rows, cols),
                errhint("bytea arguments hold float32 elements, 4 bytes each, row by row."));
}

void
floats_expect_like(const Floats *f, const Floats *other)
{
    if (f->n != other->n)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s has %zu elements, %s has %zu", f->name, f->n, other->name, other->n),
                errhint("They must have the same size."));
}

bytea *
floats_new(size_t n, float **data)
{
    bytea *result;

    if (n > TENSOR_MAX_FLAT_ELEMENTS)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("a result of %zu elements is too large for bytea", n),
                errdetail("The limit is %zu.", (size_t) TENSOR_MAX_FLAT_ELEMENTS));
    result = palloc(VARHDRSZ + n * sizeof(float));
    SET_VARSIZE(result, VARHDRSZ + n * sizeof(float));
    *data = (float *) VARDATA(result);
    return result;
}

Datum
floats_result(bytea *result)
{
    swap_if_needed((float *) VARDATA(result), (VARSIZE(result) - VARHDRSZ) / sizeof(float));
    PG_RETURN_BYTEA_P(result);
}
