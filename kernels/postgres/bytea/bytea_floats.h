/*
 * bytea_floats.h -- float32 arrays in bytea arguments and results, checked against explicit dimensions.
 */
#ifndef PG_LLM_BYTEA_FLOATS_H
#define PG_LLM_BYTEA_FLOATS_H

#include "postgres.h"

#include "fmgr.h"

/* An argument's elements; `name` is what messages call it. */
typedef struct Floats
{
    const char  *name;
    const float *data;
    size_t       n;
} Floats;

/* Argument i, contiguous little-endian float32; error 22023 unless whole elements. */
extern Floats floats_arg(FunctionCallInfo fcinfo, int i, const char *name);
/* A dimension argument: at least 1. */
extern size_t floats_dim(FunctionCallInfo fcinfo, int i, const char *name);
/* Ensure that an argument holds rows x cols elements. */
extern void floats_expect(const Floats *f, size_t rows, size_t cols);
/* Ensure that two arguments have equal lengths. */
extern void floats_expect_like(const Floats *f, const Floats *other);

/* A new bytea of n elements, and where they lie. floats_result makes a Datum of it when they are filled in. */
extern bytea *floats_new(size_t n, float **data);
extern Datum  floats_result(bytea *result);

#endif
