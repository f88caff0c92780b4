/*
 * self_test.c -- whether this build, on this machine, computes the bits that the numerical rules prescribe.
 *
 * A run that is taken up by another build, or on another machine, asks this before it computes for an hour. A sample of
 * kernels, large enough for whole tiles and their rests, on numbers that integers give; the hash of all results is
 * known for each version of the rules, whatever instruction set and number of threads.
 */
#include "postgres.h"

#include "fmgr.h"

#include "engine.h"
#include "mixed.h"

#define ROWS    37
#define INNER   150
#define COLUMNS 70
#define PLACES  (ROWS * INNER)
#define ROOM    (INNER * COLUMNS) /* of every array */

#define EXPECTED_VERSION 3
#define EXPECTED         UINT64CONST(9610601866578725595)

static uint64
add_bits(uint64 h, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
    {
        uint32 word;

        memcpy(&word, x + i, sizeof(word));
        h = mixed(h, word);
    }
    return h;
}

/* Multiples of 2^-22 in [-1, 1) */
static void
fill(float *x, size_t n, uint32 start)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float) ((int32) ((uint32) (i + start) * 2654435761U) >> 9) / (float) (1 << 22);
}

static uint64
compute(llm_engine *e)
{
    float    *a = palloc(sizeof(float) * ROOM), *b = palloc(sizeof(float) * ROOM);
    float    *c = palloc(sizeof(float) * ROOM), *d = palloc(sizeof(float) * ROOM);
    float     mean[ROWS], rstd[ROWS];
    uint64    h = 0;
    llm_adamw step = {0.01, 0.9, 0.999, 1e-8, 0.1, 3, 0.5F};

    fill(a, ROOM, 1);
    fill(b, ROOM, 7);
    llm_gemm(e, c, a, b, ROWS, COLUMNS, INNER, COLUMNS, INNER, COLUMNS, false, false, false);
    h = add_bits(h, c, ROWS * COLUMNS);
    llm_softmax_forward(e, d, c, ROWS, COLUMNS);
    h = add_bits(h, d, ROWS * COLUMNS);
    llm_layernorm_forward(e, d, mean, rstd, a, b, b + INNER, 1e-5F, ROWS, INNER);
    h = add_bits(h, d, PLACES);
    llm_gelu_forward(e, c, d, PLACES);
    h = add_bits(h, c, PLACES);
    llm_dropout(e, d, false, c, 0.1F, (llm_dropout_key){1, 2, 3}, 0, PLACES, NULL);
    h = add_bits(h, d, PLACES);
    llm_normal(e, c, 0.0F, 0.02F, 1, 2, PLACES);
    h = add_bits(h, c, PLACES);
    for (int i = 0; i < PLACES; i++)
        d[i] = c[i] * c[i]; /* a second moment is not negative */
    llm_adamw_step(e, a, c, d, b, &step, PLACES);
    h = add_bits(add_bits(h, a, PLACES), d, PLACES);
    pg_llm_check(e);
    return h;
}

/* pg_llm_self_test() */
PG_FUNCTION_INFO_V1(pg_llm_self_test);
Datum
pg_llm_self_test(PG_FUNCTION_ARGS)
{
    uint64 h = compute(pg_llm_engine());

    ereport(DEBUG1, errmsg_internal("self-test: " UINT64_FORMAT, h));
    PG_RETURN_BOOL(llm_numerics_version() == EXPECTED_VERSION && h == EXPECTED);
}
