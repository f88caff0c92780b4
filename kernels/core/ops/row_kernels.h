/*
 * row_kernels.h -- kernels over rows: sums, normalisations, softmax.
 *
 * A sum within a row keeps 16 partial sums, lane = index mod 16, and folds them 8-4-2-1; a tail is filled
 * with what leaves the partial sums as they are. A sum across rows adds LLM_ROW_BLOCK rows in order, and the
 * blocks pairwise.
 */
#ifndef LLM_ROW_KERNELS_H
#define LLM_ROW_KERNELS_H

#include "engine/numerics.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- sums within a row ----------------------------------------------------------------- */

static float kernel_sum(const float *x, size_t n)
{
    v16 sum = v16_zero();

    for (size_t i = 0; i < n; i += V16_LANES)
        sum = v16_add(sum, load_lanes(x + i, lanes_of(n - i)));
    return v16_hsum(sum);
}

/* sum (x - center)^2 */
LLM_INLINE float centered_sum_squares(const float *x, float center, size_t n)
{
    v16 sum = v16_zero();

    for (size_t i = 0; i < n; i += V16_LANES) {
        v16 a = v16_sub(load_lanes_or(x + i, lanes_of(n - i), center), v16_set1(center));

        sum = v16_fma(a, a, sum);
    }
    return v16_hsum(sum);
}

static float kernel_sum_squares(const float *x, size_t n) { return centered_sum_squares(x, 0.0f, n); }

LLM_INLINE float dot_of_rows(const float *a, const float *b, size_t n)
{
    v16 sum = v16_zero();

    for (size_t i = 0; i < n; i += V16_LANES) {
        size_t lanes = lanes_of(n - i);

        sum = v16_fma(load_lanes(a + i, lanes), load_lanes(b + i, lanes), sum);
    }
    return v16_hsum(sum);
}

/* Exact, so in no particular order; a NaN is passed over. */
LLM_INLINE float max_of_row(const float *x, size_t n)
{
    v16 max = v16_set1(-INFINITY);

    for (size_t i = 0; i < n; i += V16_LANES)
        max = v16_max(load_lanes_or(x + i, lanes_of(n - i), -INFINITY), max);
    return v16_hmax(max);
}

/* ---- layernorm ------------------------------------------------------------------------- */

/* Ba, Kiros & Hinton 2016: the biased variance, in two passes; eps under the root */
static void kernel_layernorm_forward(float *out, float *mean, float *rstd, const float *x, const float *gamma,
                                     const float *beta, float eps, size_t n, size_t d)
{
    for (size_t row = 0; row < n; row++, x += d, out += d) {
        float m = kernel_sum(x, d) / (float)d;
        float r = 1.0f / sqrtf(centered_sum_squares(x, m, d) / (float)d + eps);

        mean[row] = m;
        rstd[row] = r;
        for (size_t i = 0; i < d; i += V16_LANES) {
            size_t lanes = lanes_of(d - i);
            v16 norm = v16_mul(v16_sub(load_lanes(x + i, lanes), v16_set1(m)), v16_set1(r));
            v16 gain = gamma != NULL ? load_lanes(gamma + i, lanes) : v16_set1(1.0f);
            v16 bias = beta != NULL ? load_lanes(beta + i, lanes) : v16_zero();

            store_lanes(out + i, v16_fma(norm, gain, bias), lanes);
        }
    }
}

/* The gradient at the normalised value, dout * gamma */
LLM_INLINE v16 dnorm_at(const float *dout, const float *gamma, size_t i, size_t lanes)
{
    v16 d = load_lanes(dout + i, lanes);

    return gamma != NULL ? v16_mul(d, load_lanes(gamma + i, lanes)) : d;
}

/* dx = rstd (dnorm - mean(dnorm) - norm mean(dnorm norm)) with norm = (x - mean) rstd, row by row */
static void kernel_layernorm_backward(float *dx, bool acc, const float *dout, const float *x, const float *gamma,
                                      const float *mean, const float *rstd, size_t n, size_t d)
{
    for (size_t row = 0; row < n; row++, dx += d, dout += d, x += d) {
        const v16 m = v16_set1(mean[row]), r = v16_set1(rstd[row]);
        v16 sum = v16_zero(), sum_norm = v16_zero();
        v16 average, average_norm;

        for (size_t i = 0; i < d; i += V16_LANES) {
            size_t lanes = lanes_of(d - i);
            v16 dnorm = dnorm_at(dout, gamma, i, lanes);
            v16 norm = v16_mul(v16_sub(load_lanes(x + i, lanes), m), r);

            sum = v16_add(sum, dnorm);
            sum_norm = v16_fma(dnorm, norm, sum_norm);
        }
        average = v16_set1(v16_hsum(sum) / (float)d);
        average_norm = v16_set1(v16_hsum(sum_norm) / (float)d);
        for (size_t i = 0; i < d; i += V16_LANES) {
            size_t lanes = lanes_of(d - i);
            v16 norm = v16_mul(v16_sub(load_lanes(x + i, lanes), m), r);
            v16 rest = v16_sub(dnorm_at(dout, gamma, i, lanes), average);

            put_lanes(dx + i, acc, v16_mul(v16_fnma(norm, average_norm, rest), r), lanes);
        }
    }
}

/* ---- rmsnorm --------------------------------------------------------------------------- */

/* Zhang & Sennrich 2019; the gain multiplies the rounded norm, as in Hugging Face's models */
static void kernel_rmsnorm_forward(float *out, float *rstd, const float *x, const float *gain, float eps, size_t n,
                                   size_t d)
{
    for (size_t row = 0; row < n; row++, x += d, out += d) {
        rstd[row] = 1.0f / sqrtf(kernel_sum_squares(x, d) / (float)d + eps);
        if (gain == NULL) {
            kernel_scale(out, x, rstd[row], false, d);
            continue;
        }
        for (size_t i = 0; i < d; i += V16_LANES) {
            size_t lanes = lanes_of(d - i);
            v16 norm = v16_mul(load_lanes(x + i, lanes), v16_set1(rstd[row]));

            store_lanes(out + i, v16_mul(norm, load_lanes(gain + i, lanes)), lanes);
        }
    }
}

/* dx = rstd (dnorm - norm mean(dnorm norm)) with norm = x rstd, row by row */
static void kernel_rmsnorm_backward(float *dx, bool acc, const float *dout, const float *x, const float *gain,
                                    const float *rstd, size_t n, size_t d)
{
    for (size_t row = 0; row < n; row++, dx += d, dout += d, x += d) {
        const v16 r = v16_set1(rstd[row]);
        v16 sum = v16_zero();
        v16 average;

        for (size_t i = 0; i < d; i += V16_LANES) {
            size_t lanes = lanes_of(d - i);

            sum = v16_fma(dnorm_at(dout, gain, i, lanes), v16_mul(load_lanes(x + i, lanes), r), sum);
        }
        average = v16_set1(v16_hsum(sum) / (float)d);
        for (size_t i = 0; i < d; i += V16_LANES) {
            size_t lanes = lanes_of(d - i);
            v16 norm = v16_mul(load_lanes(x + i, lanes), r);

            put_lanes(dx + i, acc, v16_mul(v16_fnma(norm, average, dnorm_at(dout, gain, i, lanes)), r), lanes);
        }
    }
}

/* ---- l2 normalisation ------------------------------------------------------------------ */

#define LEAST_NORM 1e-12f /* what a row is divided by if its norm is smaller */

LLM_INLINE float scaled_sum_squares(const float *x, float scale, size_t n)
{
    v16 sum = v16_zero();

    for (size_t i = 0; i < n; i += V16_LANES) {
        v16 a = v16_mul(load_lanes(x + i, lanes_of(n - i)), v16_set1(scale));

        sum = v16_fma(a, a, sum);
    }
    return v16_hsum(sum);
}

/* A row whose squares overflow is made smaller first, by a power of two. */
static void kernel_l2_normalize_forward(float *out, float *norm, const float *x, size_t n, size_t d)
{
    for (size_t row = 0; row < n; row++, x += d, out += d) {
        float scale = 1.0f, squares = scaled_sum_squares(x, scale, d), length;

        if (squares > FLT_MAX) {
            scale = 0x1p-70f;
            squares = scaled_sum_squares(x, scale, d);
        }
        length = sqrtf(squares);
        if (length < LEAST_NORM)
            length = LEAST_NORM;
        norm[row] = length / scale;
        for (size_t i = 0; i < d; i += V16_LANES) {
            size_t lanes = lanes_of(d - i);

            store_lanes(out + i, v16_div(v16_mul(load_lanes(x + i, lanes), v16_set1(scale)), v16_set1(length)), lanes);
        }
    }
}

/* dx = (dout - out sum(dout out)) / |x|, row by row; a row that was too small was divided by a constant */
static void kernel_l2_normalize_backward(float *dx, bool acc, const float *dout, const float *out, const float *norm,
                                         size_t n, size_t d)
{
    for (size_t row = 0; row < n; row++, dx += d, dout += d, out += d) {
        const v16 length = v16_set1(norm[row]);
        const v16 along = v16_set1(norm[row] > LEAST_NORM ? dot_of_rows(dout, out, d) : 0.0f);

        for (size_t i = 0; i < d; i += V16_LANES) {
            size_t lanes = lanes_of(d - i);
            v16 across = v16_fnma(load_lanes(out + i, lanes), along, load_lanes(dout + i, lanes));

            put_lanes(dx + i, acc, v16_div(across, length), lanes);
        }
    }
}

/* ---- softmax and cross-entropy --------------------------------------------------------- */

static void kernel_softmax_forward(float *out, const float *x, size_t n, size_t d)
{
    for (size_t row = 0; row < n; row++, x += d, out += d) {
        const v16 max = v16_set1(max_of_row(x, d));
        v16 sum = v16_zero();

        for (size_t i = 0; i < d; i += V16_LANES) {
            size_t lanes = lanes_of(d - i);
            v16 e = v16_exp(v16_sub(load_lanes_or(x + i, lanes, -INFINITY), max));

            sum = v16_add(sum, e);
            store_lanes(out + i, e, lanes);
        }
        sum = v16_set1(v16_hsum(sum));
        for (size_t i = 0; i < d; i += V16_LANES) {
            size_t lanes = lanes_of(d - i);

            store_lanes(out + i, v16_div(load_lanes(out + i, lanes), sum), lanes);
        }
    }
}

/* dx = out (dout - sum(dout out)), row by row */
static void kernel_softmax_backward(float *dx, bool acc, const float *dout, const float *out, size_t n, size_t d)
{
    for (size_t row = 0; row < n; row++, dx += d, dout += d, out += d) {
        const v16 sum = v16_set1(dot_of_rows(dout, out, d));

        for (size_t i = 0; i < d; i += V16_LANES) {
            size_t lanes = lanes_of(d - i);
            v16 rest = v16_sub(load_lanes(dout + i, lanes), sum);

            put_lanes(dx + i, acc, v16_mul(load_lanes(out + i, lanes), rest), lanes);
        }
    }
}

static void kernel_max_and_exp_sum(float *max, float *sum, const float *x, size_t d)
{
    const float m = max_of_row(x, d);
    v16 total = v16_zero();

    for (size_t i = 0; i < d; i += V16_LANES)
        total = v16_add(total, v16_exp(v16_sub(load_lanes_or(x + i, lanes_of(d - i), -INFINITY), v16_set1(m))));
    *max = m;
    *sum = v16_hsum(total);
}

static void kernel_cross_entropy_backward(float *dlogits, bool acc, float scale, const float *logits, float log_sum,
                                          size_t target, size_t d)
{
    for (size_t i = 0; i < d; i += V16_LANES) {
        size_t lanes = lanes_of(d - i);
        v16 p = v16_exp(v16_sub(load_lanes(logits + i, lanes), v16_set1(log_sum)));

        /* subtracted before scaling: exact when p is near 1 */
        if (target - i < V16_LANES) {
            m16 hit = v16i_eq(v16i_iota(), v16i_set1((uint32_t)(target - i)));

            p = v16_select(hit, v16_sub(p, v16_set1(1.0f)), p);
        }
        put_lanes(dlogits + i, acc, v16_mul(v16_set1(scale), p), lanes);
    }
}

/* ---- sums across rows ------------------------------------------------------------------ */

#define COLUMN_VECTORS 16 /* vectors of columns walked together: 1 kB of each row */
#define ROW_LEVELS     40 /* 2^40 blocks of rows: more than an address space holds */

/*
 * sum[] = rows [first, last) of dout added in order, or of dout * norm when x and rstd are given, for columns
 * [begin, end) of at most COLUMN_VECTORS vectors. norm = (x - mean) * rstd; mean NULL: x * rstd.
 */
LLM_INLINE void sum_block(v16 sum[COLUMN_VECTORS], const float *dout, const float *x, const float *mean,
                          const float *rstd, size_t first, size_t last, size_t d, size_t begin, size_t end)
{
    for (size_t c = 0; c < COLUMN_VECTORS; c++)
        sum[c] = v16_zero();
    for (size_t row = first; row < last; row++)
        for (size_t i = begin, c = 0; i < end; i += V16_LANES, c++) {
            size_t lanes = lanes_of(end - i);
            v16 g = load_lanes(dout + row * d + i, lanes);

            if (x != NULL) {
                v16 centered = load_lanes(x + row * d + i, lanes);

                if (mean != NULL)
                    centered = v16_sub(centered, v16_set1(mean[row]));
                sum[c] = v16_fma(g, v16_mul(centered, v16_set1(rstd[row])), sum[c]);
            } else
                sum[c] = v16_add(sum[c], g);
        }
}

LLM_INLINE void add_to_sum(v16 sum[COLUMN_VECTORS], const v16 earlier[COLUMN_VECTORS])
{
    for (size_t c = 0; c < COLUMN_VECTORS; c++)
        sum[c] = v16_add(earlier[c], sum[c]);
}

/*
 * out (+)= the sum over all rows of what sum_block adds. Pairwise summation: while bit l of the number of blocks so
 * far is set, waiting[l] holds the sum of 2^l blocks that has no partner yet.
 */
LLM_INLINE void sum_columns(float *out, bool acc, const float *dout, const float *x, const float *mean,
                            const float *rstd, size_t n, size_t d, size_t begin, size_t end)
{
    v16 waiting[ROW_LEVELS][COLUMN_VECTORS], sum[COLUMN_VECTORS];
    size_t blocks = 0, level;

    for (size_t row = 0; row < n; row += LLM_ROW_BLOCK, blocks++) {
        sum_block(sum, dout, x, mean, rstd, row, n - row < LLM_ROW_BLOCK ? n : row + LLM_ROW_BLOCK, d, begin, end);
        for (level = 0; blocks >> level & 1; level++)
            add_to_sum(sum, waiting[level]);
        memcpy(waiting[level], sum, sizeof sum);
    }
    for (size_t c = 0; c < COLUMN_VECTORS; c++)
        sum[c] = v16_zero();
    for (level = 0; blocks >> level != 0; level++)
        if (blocks >> level & 1)
            add_to_sum(sum, waiting[level]);
    for (size_t i = begin, c = 0; i < end; i += V16_LANES, c++)
        put_lanes(out + i, acc, sum[c], lanes_of(end - i));
}

static void kernel_sum_rows(float *out, bool acc, const float *x, size_t n, size_t d, size_t begin, size_t end)
{
    const size_t step = COLUMN_VECTORS * V16_LANES;

    for (size_t i = begin; i < end; i += step)
        sum_columns(out, acc, x, NULL, NULL, NULL, n, d, i, end - i < step ? end : i + step);
}

static void kernel_layernorm_dgamma(float *dgamma, bool acc, const float *dout, const float *x, const float *mean,
                                    const float *rstd, size_t n, size_t d, size_t begin, size_t end)
{
    const size_t step = COLUMN_VECTORS * V16_LANES;

    for (size_t i = begin; i < end; i += step)
        sum_columns(dgamma, acc, dout, x, mean, rstd, n, d, i, end - i < step ? end : i + step);
}

static void kernel_rmsnorm_dgain(float *dgain, bool acc, const float *dout, const float *x, const float *rstd, size_t n,
                                 size_t d, size_t begin, size_t end)
{
    const size_t step = COLUMN_VECTORS * V16_LANES;

    for (size_t i = begin; i < end; i += step)
        sum_columns(dgain, acc, dout, x, NULL, rstd, n, d, i, end - i < step ? end : i + step);
}

#endif /* LLM_ROW_KERNELS_H */
