/* rows.c -- ops on rows: layernorm, rmsnorm, l2 normalisation, softmax, sums over rows and over whole arrays. */
#include "engine/numerics.h"
#include "engine/pool.h"

#include <stdatomic.h>

#define ROW_GRAIN          32768  /* elements of whole rows in one hand-off */
#define COLUMN_GRAIN       131072 /* elements of whole columns in one hand-off, */
#define MIN_COLUMN_VECTORS 4      /* but at least this many vectors of each row: 256 bytes */
#define FINITE_GRAIN       65536  /* elements */
#define SUM_BLOCKS_AT_ONCE 512    /* their sums lie on the stack */

/* x, out, dout (n,d); gamma, beta (d); mean, rstd (n). What begin and end count is the task's: rows, or 16 columns. */
typedef struct row_job {
    const llm_math_kernels *math;
    float *out, *mean_out, *rstd_out;
    const float *dout, *x, *gamma, *beta, *mean, *rstd;
    float eps;
    bool acc;
    size_t n, d;
} row_job;

/* Whole rows, about ROW_GRAIN elements a task */
static void by_rows(llm_engine *e, row_job *job, llm_range_task task)
{
    job->math = &e->kernels->math;
    llm_parallel_for(e, job->n, job->d < ROW_GRAIN ? ROW_GRAIN / (job->d + 1) + 1 : 1, task, job);
}

/* Ranges of columns in multiples of 16 lanes, each thread walking all rows */
static void by_columns(llm_engine *e, row_job *job, llm_range_task task)
{
    size_t vectors = job->d / LLM_LANES + (job->d % LLM_LANES != 0);
    size_t grain = COLUMN_GRAIN / LLM_LANES / (job->n + 1) + 1;

    job->math = &e->kernels->math;
    llm_parallel_for(e, vectors, grain > MIN_COLUMN_VECTORS ? grain : MIN_COLUMN_VECTORS, task, job);
}

static size_t column_end(const row_job *j, size_t end) { return end * LLM_LANES < j->d ? end * LLM_LANES : j->d; }

/* ---- layernorm ------------------------------------------------------------------------- */

/* out (n,d) = (x - mean) rstd gamma + beta, mean and rstd (n), of rows begin to end */
static void layernorm_forward_range(void *arg, size_t begin, size_t end)
{
    const row_job *j = arg;

    j->math->layernorm_forward(j->out + begin * j->d, j->mean_out + begin, j->rstd_out + begin, j->x + begin * j->d,
                               j->gamma, j->beta, j->eps, end - begin, j->d);
}

void llm_layernorm_forward(llm_engine *e, float *out, float *mean, float *rstd, const float *x, const float *gamma,
                           const float *beta, float eps, size_t n, size_t d)
{
    row_job job = {
        .out = out, .mean_out = mean, .rstd_out = rstd, .x = x, .gamma = gamma, .beta = beta, .eps = eps, .n = n, .d = d
    };

    by_rows(e, &job, layernorm_forward_range);
}

/* dx (n,d) (+)= of rows begin to end */
static void layernorm_backward_range(void *arg, size_t begin, size_t end)
{
    const row_job *j = arg;

    j->math->layernorm_backward(j->out + begin * j->d, j->acc, j->dout + begin * j->d, j->x + begin * j->d, j->gamma,
                                j->mean + begin, j->rstd + begin, end - begin, j->d);
}

/* dgamma (d) (+)= sum over the n rows of dout (x - mean) rstd, of some columns */
static void layernorm_dgamma_range(void *arg, size_t begin, size_t end)
{
    const row_job *j = arg;

    j->math->layernorm_dgamma(j->out, j->acc, j->dout, j->x, j->mean, j->rstd, j->n, j->d, begin * LLM_LANES,
                              column_end(j, end));
}

void llm_layernorm_backward(llm_engine *e, float *dx, bool acc_x, float *dgamma, bool acc_gamma, float *dbeta,
                            bool acc_beta, const float *dout, const float *x, const float *gamma, const float *mean,
                            const float *rstd, size_t n, size_t d)
{
    row_job job = { .dout = dout, .x = x, .gamma = gamma, .mean = mean, .rstd = rstd, .n = n, .d = d };

    if (dx != NULL) {
        job.out = dx;
        job.acc = acc_x;
        by_rows(e, &job, layernorm_backward_range);
    }
    if (dgamma != NULL) {
        job.out = dgamma;
        job.acc = acc_gamma;
        by_columns(e, &job, layernorm_dgamma_range);
    }
    if (dbeta != NULL)
        llm_sum_rows(e, dbeta, acc_beta, dout, n, d);
}

/* ---- rmsnorm --------------------------------------------------------------------------- */

/* out (n,d) = x rstd gain, rstd (n) = 1 / sqrt(mean(x^2) + eps), of rows begin to end; gamma is the gain here */
static void rmsnorm_forward_range(void *arg, size_t begin, size_t end)
{
    const row_job *j = arg;

    j->math->rmsnorm_forward(j->out + begin * j->d, j->rstd_out + begin, j->x + begin * j->d, j->gamma, j->eps,
                             end - begin, j->d);
}

void llm_rmsnorm_forward(llm_engine *e, float *out, float *rstd, const float *x, const float *gain, float eps, size_t n,
                         size_t d)
{
    row_job job = { .out = out, .rstd_out = rstd, .x = x, .gamma = gain, .eps = eps, .n = n, .d = d };

    by_rows(e, &job, rmsnorm_forward_range);
}

/* dx (n,d) (+)= of rows begin to end */
static void rmsnorm_backward_range(void *arg, size_t begin, size_t end)
{
    const row_job *j = arg;

    j->math->rmsnorm_backward(j->out + begin * j->d, j->acc, j->dout + begin * j->d, j->x + begin * j->d, j->gamma,
                              j->rstd + begin, end - begin, j->d);
}

/* dgain (d) (+)= sum over the n rows of dout x rstd, of some columns */
static void rmsnorm_dgain_range(void *arg, size_t begin, size_t end)
{
    const row_job *j = arg;

    j->math->rmsnorm_dgain(j->out, j->acc, j->dout, j->x, j->rstd, j->n, j->d, begin * LLM_LANES, column_end(j, end));
}

void llm_rmsnorm_backward(llm_engine *e, float *dx, bool acc_x, float *dgain, bool acc_gain, const float *dout,
                          const float *x, const float *gain, const float *rstd, size_t n, size_t d)
{
    row_job job = { .dout = dout, .x = x, .gamma = gain, .rstd = rstd, .n = n, .d = d };

    if (dx != NULL) {
        job.out = dx;
        job.acc = acc_x;
        by_rows(e, &job, rmsnorm_backward_range);
    }
    if (dgain != NULL) {
        job.out = dgain;
        job.acc = acc_gain;
        by_columns(e, &job, rmsnorm_dgain_range);
    }
}

/* ---- l2 normalisation ------------------------------------------------------------------ */

/* out (n,d) = x / max(|x|, 1e-12), norm (n) that maximum, of rows begin to end */
static void l2_normalize_forward_range(void *arg, size_t begin, size_t end)
{
    const row_job *j = arg;

    j->math->l2_normalize_forward(j->out + begin * j->d, j->rstd_out + begin, j->x + begin * j->d, end - begin, j->d);
}

void llm_l2_normalize_forward(llm_engine *e, float *out, float *norm, const float *x, size_t n, size_t d)
{
    row_job job = { .out = out, .rstd_out = norm, .x = x, .n = n, .d = d };

    by_rows(e, &job, l2_normalize_forward_range);
}

/* dx (n,d) (+)= of rows begin to end; x is the forward's out here, rstd its norm */
static void l2_normalize_backward_range(void *arg, size_t begin, size_t end)
{
    const row_job *j = arg;

    j->math->l2_normalize_backward(j->out + begin * j->d, j->acc, j->dout + begin * j->d, j->x + begin * j->d,
                                   j->rstd + begin, end - begin, j->d);
}

void llm_l2_normalize_backward(llm_engine *e, float *dx, bool acc, const float *dout, const float *out,
                               const float *norm, size_t n, size_t d)
{
    row_job job = { .out = dx, .acc = acc, .dout = dout, .x = out, .rstd = norm, .n = n, .d = d };

    by_rows(e, &job, l2_normalize_backward_range);
}

/* ---- softmax --------------------------------------------------------------------------- */

/* out (n,d) = softmax of each row of x, of rows begin to end */
static void softmax_forward_range(void *arg, size_t begin, size_t end)
{
    const row_job *j = arg;

    j->math->softmax_forward(j->out + begin * j->d, j->x + begin * j->d, end - begin, j->d);
}

void llm_softmax_forward(llm_engine *e, float *out, const float *x, size_t n, size_t d)
{
    row_job job = { .out = out, .x = x, .n = n, .d = d };

    by_rows(e, &job, softmax_forward_range);
}

/* dx (n,d) (+)= out (dout - sum(dout out)) per row, of rows begin to end; x is the forward's out here */
static void softmax_backward_range(void *arg, size_t begin, size_t end)
{
    const row_job *j = arg;

    j->math->softmax_backward(j->out + begin * j->d, j->acc, j->dout + begin * j->d, j->x + begin * j->d, end - begin,
                              j->d);
}

void llm_softmax_backward(llm_engine *e, float *dx, bool acc, const float *dout, const float *out, size_t n, size_t d)
{
    row_job job = { .out = dx, .acc = acc, .dout = dout, .x = out, .n = n, .d = d };

    by_rows(e, &job, softmax_backward_range);
}

/* ---- sums ------------------------------------------------------------------------------ */

/* out (d) (+)= sum over the n rows of x (n,d), of some columns */
static void sum_rows_range(void *arg, size_t begin, size_t end)
{
    const row_job *j = arg;

    j->math->sum_rows(j->out, j->acc, j->x, j->n, j->d, begin * LLM_LANES, column_end(j, end));
}

void llm_sum_rows(llm_engine *e, float *out, bool acc, const float *x, size_t n, size_t d)
{
    row_job job = { .out = out, .acc = acc, .x = x, .n = n, .d = d };

    by_columns(e, &job, sum_rows_range);
}

typedef struct sum_job {
    float (*block_sum)(const float *x, size_t n);
    const float *x;
    size_t n;
    float *sums;
} sum_job;

/* sums (blocks): those of LLM_SUM_BLOCK elements each of x (n) */
static void sum_range(void *arg, size_t begin, size_t end)
{
    const sum_job *j = arg;

    for (size_t block = begin; block < end; block++) {
        size_t start = block * LLM_SUM_BLOCK;

        j->sums[block] = j->block_sum(j->x + start, j->n - start < LLM_SUM_BLOCK ? j->n - start : LLM_SUM_BLOCK);
    }
}

/* The blocks' sums added in double in their order, so that the result does not depend on threads */
static double sum_in_blocks(llm_engine *e, float (*block_sum)(const float *, size_t), const float *x, size_t n)
{
    const size_t stretch = (size_t)LLM_SUM_BLOCK * SUM_BLOCKS_AT_ONCE;
    double total = 0;

    for (size_t start = 0; start < n; start += stretch) {
        float sums[SUM_BLOCKS_AT_ONCE];
        size_t left = n - start < stretch ? n - start : stretch;
        size_t blocks = left / LLM_SUM_BLOCK + (left % LLM_SUM_BLOCK != 0);
        sum_job job = { block_sum, x + start, left, sums };

        if (!llm_parallel_for(e, blocks, 8, sum_range, &job))
            break;
        for (size_t block = 0; block < blocks; block++)
            total += sums[block];
    }
    return total;
}

double llm_sum(llm_engine *e, const float *x, size_t n) { return sum_in_blocks(e, e->kernels->math.sum, x, n); }

double llm_sum_squares(llm_engine *e, const float *x, size_t n)
{
    return sum_in_blocks(e, e->kernels->math.sum_squares, x, n);
}

typedef struct finite_job {
    const llm_math_kernels *math;
    const float *x;
    atomic_bool all;
} finite_job;

static void finite_range(void *arg, size_t begin, size_t end)
{
    finite_job *j = arg;

    if (atomic_load_explicit(&j->all, memory_order_relaxed) && !j->math->all_finite(j->x + begin, end - begin))
        atomic_store_explicit(&j->all, false, memory_order_relaxed);
}

bool llm_all_finite(llm_engine *e, const float *x, size_t n)
{
    finite_job job = { &e->kernels->math, x, true };

    return llm_parallel_for(e, n, FINITE_GRAIN, finite_range, &job) && job.all;
}
