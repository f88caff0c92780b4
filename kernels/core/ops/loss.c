/*
 * loss.c -- cross-entropy, alone and fused with the language model's head, where the logits exist only a
 * chunk of rows at a time.
 */
#include "engine/numerics.h"
#include "engine/pool.h"
#include "engine/scalar_math.h"

#define ROW_GRAIN             32768              /* elements of whole rows in one hand-off */
#define LOGITS_SCRATCH_FLOATS ((size_t)16 << 20) /* 64 MB of logits at a time, if LLM_GEMM_KB rows fit */

typedef struct loss_job {
    const llm_math_kernels *math;
    float *losses, *log_sum_out, *dlogits;
    bool acc;
    float scale;
    const float *logits, *log_sum;
    const int32_t *targets;
    size_t vocab;
} loss_job;

/* Rows of logits (n,vocab) that make one hand-off */
static size_t rows_per_task(size_t vocab) { return vocab < ROW_GRAIN ? ROW_GRAIN / (vocab + 1) + 1 : 1; }

/* losses (n) = log_sum - logits[target], log_sum (n) = log(sum(exp(logits))); logits (n,vocab), rows begin to end */
static void forward_range(void *arg, size_t begin, size_t end)
{
    const loss_job *j = arg;

    for (size_t i = begin; i < end; i++) {
        const float *row = j->logits + i * j->vocab;
        float max, sum;
        double log_sum;

        j->math->max_and_exp_sum(&max, &sum, row, j->vocab);
        log_sum = max + llm_log(sum);
        j->log_sum_out[i] = (float)log_sum;
        j->losses[i] = j->targets[i] < 0 ? 0.0f : (float)(log_sum - row[j->targets[i]]);
    }
}

void llm_cross_entropy_forward(llm_engine *e, float *losses, float *log_sum, const float *logits,
                               const int32_t *targets, size_t n, size_t vocab)
{
    loss_job job = { .math = &e->kernels->math,
                     .losses = losses,
                     .log_sum_out = log_sum,
                     .logits = logits,
                     .targets = targets,
                     .vocab = vocab };

    llm_parallel_for(e, n, rows_per_task(vocab), forward_range, &job);
}

/* dlogits (n,vocab) (+)= scale * (softmax(logits) - one_hot(target)); rows whose target is below 0 get no gradient */
static void backward_range(void *arg, size_t begin, size_t end)
{
    const loss_job *j = arg;

    for (size_t i = begin; i < end; i++) {
        float *row = j->dlogits + i * j->vocab;

        if (j->targets[i] >= 0)
            j->math->cross_entropy_backward(row, j->acc, j->scale, j->logits + i * j->vocab, j->log_sum[i],
                                            (size_t)j->targets[i], j->vocab);
        else if (!j->acc)
            j->math->fill(row, 0.0f, j->vocab);
    }
}

void llm_cross_entropy_backward(llm_engine *e, float *dlogits, bool acc, float scale, const float *logits,
                                const float *log_sum, const int32_t *targets, size_t n, size_t vocab)
{
    loss_job job = { .math = &e->kernels->math,
                     .dlogits = dlogits,
                     .acc = acc,
                     .scale = scale,
                     .logits = logits,
                     .log_sum = log_sum,
                     .targets = targets,
                     .vocab = vocab };

    llm_parallel_for(e, n, rows_per_task(vocab), backward_range, &job);
}

double llm_mean_loss(const float *losses, const int32_t *targets, size_t n, size_t *count)
{
    double sum = 0;
    size_t counted = 0;

    for (size_t i = 0; i < n; i++)
        if (targets[i] >= 0) {
            sum += losses[i];
            counted++;
        }
    if (count != NULL)
        *count = counted;
    return counted > 0 ? sum / (double)counted : 0.0;
}

/* ---- fused with the head --------------------------------------------------------------- */

/* Rows in a chunk: whole numeric blocks of the product over rows (dw), so that chunks leave its bits alone */
static size_t chunk_rows(size_t n, size_t vocab)
{
    size_t blocks = LOGITS_SCRATCH_FLOATS / (vocab * LLM_GEMM_KB);
    size_t rows = blocks > 0 ? blocks * LLM_GEMM_KB : LLM_GEMM_KB;

    return rows < n ? rows : n;
}

/*
 * A chunk's logits, and a float more per row. Lives with the engine: mapping so many pages anew for every call costs
 * as much as a pass over them.
 */
static float *logits_scratch(llm_engine *e, size_t n, size_t vocab)
{
    const size_t floats = chunk_rows(n, vocab) * (vocab + 1);

    if (n == 0 || llm_failed(e))
        return NULL;
    if (e->logits_size < floats) {
        llm_engine_trim(e);
        e->logits = llm_aligned_alloc(floats);
        if (e->logits == NULL)
            e->status = LLM_NO_MEMORY;
        else
            e->logits_size = floats;
    }
    return e->logits;
}

/* x (n,d), w (vocab,d), targets (n); dx (n,d), dw (vocab,d) or NULL. The logits (n,vocab) = x w^T exist in chunks. */
typedef struct head_job {
    const float *x, *w;
    const int32_t *targets;
    float *dx, *dw;
    bool acc_x, acc_w;
    float scale;
    size_t n, d, vocab;
    const llm_packed *packed; /* instead of w; forward only */
} head_job;

/* logits (rows,vocab) of the chunk of rows from `i` on */
static void chunk_logits(llm_engine *e, float *logits, const head_job *j, size_t i, size_t rows)
{
    if (j->packed != NULL)
        llm_packed_forward(e, logits, j->x + i * j->d, j->packed, NULL, rows);
    else
        llm_gemm(e, logits, j->x + i * j->d, j->w, rows, j->vocab, j->d, j->vocab, j->d, j->d, false, true, false);
}

typedef struct target_job {
    const llm_math_kernels *math;
    const int32_t *targets;
    const float *w;
    float *dlogits, *taken, *dx;
    size_t d, vocab;
} target_job;

/* taken (rows) = the gradients dlogits (rows,vocab) holds at the targets, which become zero there */
static void take_targets(const target_job *j, size_t rows)
{
    for (size_t r = 0; r < rows; r++)
        if (j->targets[r] >= 0) {
            j->taken[r] = j->dlogits[r * j->vocab + (size_t)j->targets[r]];
            j->dlogits[r * j->vocab + (size_t)j->targets[r]] = 0.0f;
        }
}

/* Puts the gradients that were taken back, and dx (rows,d) += taken * w[target]. */
static void return_targets(void *arg, size_t begin, size_t end)
{
    const target_job *j = arg;

    for (size_t r = begin; r < end; r++)
        if (j->targets[r] >= 0) {
            const size_t target = (size_t)j->targets[r];

            j->dlogits[r * j->vocab + target] = j->taken[r];
            j->math->scale(j->dx + r * j->d, j->w + target * j->d, j->taken[r], true, j->d);
        }
}

/*
 * dx (rows,d) (+)= dlogits w, the target's share of a row last: it outweighs all others together, and with it in
 * the middle of the sum each later addition would round at its size (relative error 4.1e-7 instead of 2.7e-8 at a
 * vocabulary of 50257).
 */
static void chunk_dx(llm_engine *e, float *dlogits, const head_job *j, size_t i, size_t rows)
{
    const size_t d = j->d, vocab = j->vocab;
    target_job job = { .math = &e->kernels->math,
                       .targets = j->targets + i,
                       .w = j->w,
                       .dlogits = dlogits,
                       .taken = dlogits + chunk_rows(j->n, vocab) * vocab,
                       .dx = j->dx + i * d,
                       .d = d,
                       .vocab = vocab };

    take_targets(&job, rows);
    llm_gemm(e, job.dx, dlogits, j->w, rows, d, vocab, d, vocab, d, false, false, j->acc_x);
    llm_parallel_for(e, rows, ROW_GRAIN / (d + 1) + 1, return_targets, &job);
}

/*
 * Of the rows from `i` on: dx (rows,d) (+)= dlogits w and dw (vocab,d) (+)= dlogits^T x, where dlogits (rows,vocab)
 * takes the place of the logits: each is read before it is written.
 */
static void chunk_backward(llm_engine *e, float *logits, const head_job *j, const float *log_sum, size_t i, size_t rows)
{
    const size_t d = j->d, vocab = j->vocab;

    llm_cross_entropy_backward(e, logits, false, j->scale, logits, log_sum + i, j->targets + i, rows, vocab);
    if (j->dx != NULL)
        chunk_dx(e, logits, j, i, rows);
    if (j->dw != NULL)
        llm_gemm(e, j->dw, logits, j->x + i * d, vocab, d, rows, d, vocab, d, true, false, j->acc_w || i > 0);
}

/* losses, log_sum (n) of x (n,d) and w (vocab,d), a chunk of rows at a time */
static void head_loss(llm_engine *e, float *losses, float *log_sum, const head_job *j)
{
    size_t step = chunk_rows(j->n, j->vocab);
    float *logits = logits_scratch(e, j->n, j->vocab);

    for (size_t i = 0; i < j->n && !llm_failed(e); i += step) {
        size_t rows = j->n - i < step ? j->n - i : step;

        chunk_logits(e, logits, j, i, rows);
        llm_cross_entropy_forward(e, losses + i, log_sum + i, logits, j->targets + i, rows, j->vocab);
    }
}

void llm_lm_head_loss_forward(llm_engine *e, float *losses, float *log_sum, const float *x, const float *w,
                              const int32_t *targets, size_t n, size_t d, size_t vocab)
{
    const head_job j = { .x = x, .w = w, .targets = targets, .n = n, .d = d, .vocab = vocab };
    head_loss(e, losses, log_sum, &j);
}

void llm_packed_head_loss_forward(llm_engine *e, float *losses, float *log_sum, const float *x, const llm_packed *w,
                                  const int32_t *targets, size_t n)
{
    const head_job j = {
        .x = x, .packed = w, .targets = targets, .n = n, .d = llm_packed_inputs(w), .vocab = llm_packed_outputs(w)
    };
    head_loss(e, losses, log_sum, &j);
}

void llm_lm_head_loss_backward(llm_engine *e, float *dx, bool acc_x, float *dw, bool acc_w, float scale, const float *x,
                               const float *w, const float *log_sum, const int32_t *targets, size_t n, size_t d,
                               size_t vocab)
{
    const head_job j = { x, w, targets, dx, dw, acc_x, acc_w, scale, n, d, vocab, NULL };
    size_t step = chunk_rows(n, vocab);
    float *logits = logits_scratch(e, n, vocab);

    if (n == 0 && dw != NULL && !acc_w)
        llm_fill(e, dw, 0.0f, vocab * d);
    for (size_t i = 0; i < n && !llm_failed(e); i += step) {
        size_t rows = n - i < step ? n - i : step;

        chunk_logits(e, logits, &j, i, rows);
        chunk_backward(e, logits, &j, log_sum, i, rows);
    }
}

void llm_lm_head_loss_forward_backward(llm_engine *e, float *losses, float *log_sum, float *dx, float *dw, float scale,
                                       const float *x, const float *w, const int32_t *targets, size_t n, size_t d,
                                       size_t vocab)
{
    const head_job j = { x, w, targets, dx, dw, false, false, scale, n, d, vocab, NULL };
    size_t step = chunk_rows(n, vocab);
    float *logits = logits_scratch(e, n, vocab);

    if (n == 0 && dw != NULL)
        llm_fill(e, dw, 0.0f, vocab * d);
    for (size_t i = 0; i < n && !llm_failed(e); i += step) {
        size_t rows = n - i < step ? n - i : step;

        chunk_logits(e, logits, &j, i, rows);
        llm_cross_entropy_forward(e, losses + i, log_sum + i, logits, targets + i, rows, vocab);
        chunk_backward(e, logits, &j, log_sum, i, rows);
    }
}
