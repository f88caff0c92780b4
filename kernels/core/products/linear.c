/* linear.c -- the affine layer over the matrix product, and the transpose. */
#include "gemm.h"
#include "engine/pool.h"

/* out (n,o) = x (n,i) w (i,o) + b */
void llm_linear_forward(llm_engine *e, float *out, const float *x, const float *w, const float *b, size_t n, size_t i,
                        size_t o)
{
    llm_product(e, out, o, (llm_view){ x, i, 1 }, (llm_view){ w, o, 1 }, n, o, i, false, b);
}

/* dx (n,i) = dout w^T; dw (i,o) = x^T dout, the tokens being its K; db (o) = the sum of dout's rows */
void llm_linear_backward(llm_engine *e, float *dx, bool acc_x, float *dw, bool acc_w, float *db, bool acc_b,
                         const float *dout, const float *x, const float *w, size_t n, size_t i, size_t o)
{
    if (dx != NULL)
        llm_product(e, dx, i, (llm_view){ dout, o, 1 }, (llm_view){ w, 1, o }, n, i, o, acc_x, NULL);
    if (dw != NULL)
        llm_product(e, dw, o, (llm_view){ x, 1, i }, (llm_view){ dout, o, 1 }, i, o, n, acc_w, NULL);
    if (db != NULL)
        llm_sum_rows(e, db, acc_b, dout, n, o);
}

#define TRANSPOSE_GRAIN 65536 /* elements: about what a hand-off costs */

typedef struct transpose_job {
    const llm_kernels *kernels;
    float *dst;
    const float *src;
    size_t rows, cols;
} transpose_job;

static void transpose_rows(void *arg, size_t begin, size_t end)
{
    const transpose_job *j = arg;
    j->kernels->gemm.transpose(j->dst + begin, j->rows, j->src + begin * j->cols, j->cols, end - begin, j->cols);
}

void llm_transpose(llm_engine *e, float *dst, const float *src, size_t rows, size_t cols)
{
    transpose_job j = { .kernels = e->kernels, .dst = dst, .src = src, .rows = rows, .cols = cols };
    size_t grain = cols > 0 && cols < TRANSPOSE_GRAIN / 16 ? TRANSPOSE_GRAIN / cols / 16 * 16 : 16;
    llm_parallel_for(e, rows, grain, transpose_rows, &j);
}
