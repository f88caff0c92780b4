/* sequences.c -- one row for each of several sequences laid end to end: the mean of its rows, or the first of them. */
#include "engine/memory.h"
#include "engine/numerics.h"
#include "engine/pool.h"

#include <stdlib.h>
#include <string.h>

#define POOL_GRAIN   32768 /* elements in one hand-off */
#define POOL_COLUMNS 256   /* of a sequence, walked together: whole vectors */

/* The row at which each sequence begins, and the row after the last; to be freed. NULL: no memory. */
static size_t *starts_of(llm_engine *e, const int32_t *lengths, size_t B)
{
    size_t *starts = llm_malloc((B + 1) * sizeof *starts);

    if (starts == NULL) {
        e->status = LLM_NO_MEMORY;
        return NULL;
    }
    starts[0] = 0;
    for (size_t b = 0; b < B; b++)
        starts[b + 1] = starts[b] + (size_t)lengths[b];
    return starts;
}

/* x, dx (N,d); out, dout (B,d). A unit is a sequence's share of columns. */
typedef struct pool_job {
    const llm_math_kernels *math;
    float *out;
    const float *x;
    const size_t *starts;
    size_t d, shares;
    bool acc;
} pool_job;

/* A unit: its sequence's number, rows [first, last) of x, columns [begin, end) */
typedef struct pool_unit {
    size_t b, first, last, begin, end;
} pool_unit;

static pool_unit unit_at(const pool_job *j, size_t unit)
{
    const size_t b = unit / j->shares, begin = unit % j->shares * POOL_COLUMNS;

    return (pool_unit){ b, j->starts[b], j->starts[b + 1], begin,
                        j->d - begin < POOL_COLUMNS ? j->d : begin + POOL_COLUMNS };
}

static void mean_forward_range(void *arg, size_t begin, size_t end)
{
    const pool_job *j = arg;

    for (size_t unit = begin; unit < end; unit++) {
        const pool_unit u = unit_at(j, unit);
        const float rows = (float)(u.last - u.first);
        float *out = j->out + u.b * j->d;

        j->math->sum_rows(out, false, j->x + u.first * j->d, u.last - u.first, j->d, u.begin, u.end);
        for (size_t i = u.begin; i < u.end; i++)
            out[i] /= rows;
    }
}

static void mean_backward_range(void *arg, size_t begin, size_t end)
{
    const pool_job *j = arg;

    for (size_t unit = begin; unit < end; unit++) {
        const pool_unit u = unit_at(j, unit);
        const float share = 1.0f / (float)(u.last - u.first);

        for (size_t row = u.first; row < u.last; row++)
            j->math->scale(j->out + row * j->d + u.begin, j->x + u.b * j->d + u.begin, share, j->acc, u.end - u.begin);
    }
}

static void cls_forward_range(void *arg, size_t begin, size_t end)
{
    const pool_job *j = arg;

    for (size_t unit = begin; unit < end; unit++) {
        const pool_unit u = unit_at(j, unit);

        memcpy(j->out + u.b * j->d + u.begin, j->x + u.first * j->d + u.begin, (u.end - u.begin) * sizeof *j->out);
    }
}

/* All rows but the first have no share in it. */
static void cls_backward_range(void *arg, size_t begin, size_t end)
{
    const pool_job *j = arg;

    for (size_t unit = begin; unit < end; unit++) {
        const pool_unit u = unit_at(j, unit);

        j->math->copy(j->out + u.first * j->d + u.begin, j->x + u.b * j->d + u.begin, j->acc, u.end - u.begin);
        for (size_t row = u.first + 1; row < u.last && !j->acc; row++)
            j->math->fill(j->out + row * j->d + u.begin, 0.0f, u.end - u.begin);
    }
}

/* out (+)= what the task makes of x, either of them being the one of whole sequences */
static void pool(llm_engine *e, float *out, bool acc, const float *x, const int32_t *lengths, size_t B, size_t d,
                 llm_range_task task)
{
    pool_job job = { .math = &e->kernels->math,
                     .out = out,
                     .x = x,
                     .d = d,
                     .shares = (d + POOL_COLUMNS - 1) / POOL_COLUMNS,
                     .acc = acc };
    size_t *starts, elements;

    if (B == 0 || d == 0 || llm_failed(e) || (starts = starts_of(e, lengths, B)) == NULL)
        return;
    elements = starts[B] / B * (d < POOL_COLUMNS ? d : POOL_COLUMNS);
    job.starts = starts;
    llm_parallel_for(e, B * job.shares, POOL_GRAIN / (elements + 1) + 1, task, &job);
    free(starts);
}

void llm_mean_pool_forward(llm_engine *e, float *out, const float *x, const int32_t *lengths, size_t B, size_t d)
{
    pool(e, out, false, x, lengths, B, d, mean_forward_range);
}

void llm_mean_pool_backward(llm_engine *e, float *dx, bool acc, const float *dout, const int32_t *lengths, size_t B,
                            size_t d)
{
    pool(e, dx, acc, dout, lengths, B, d, mean_backward_range);
}

void llm_cls_pool_forward(llm_engine *e, float *out, const float *x, const int32_t *lengths, size_t B, size_t d)
{
    pool(e, out, false, x, lengths, B, d, cls_forward_range);
}

void llm_cls_pool_backward(llm_engine *e, float *dx, bool acc, const float *dout, const int32_t *lengths, size_t B,
                           size_t d)
{
    pool(e, dx, acc, dout, lengths, B, d, cls_backward_range);
}
