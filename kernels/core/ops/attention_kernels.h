/*
 * attention_kernels.h -- attention of one head, MR queries at a time against stored keys and values:
 * all scores, their exact maximum, the weights, then weights times values. Nothing is rescaled on the way.
 *
 * Bits: scores and outputs are matrix products in numerics.h's order, sums of weights run in 16 lanes by key
 * index. A key after the query has weight +0, and adding its products leaves an accumulator's value as it
 * was, so a row does not see how far its tile reaches: prefill, decode and any tiling agree.
 */
#ifndef LLM_ATTENTION_KERNELS_H
#define LLM_ATTENTION_KERNELS_H

#include "products/gemm_kernels.h"
#include "math_kernels.h"

_Static_assert(LLM_KEY_PANEL % NR == 0, "micro-tiles divide a stored panel");

/* ---- the store ---- */

/* Lanes without a key hold anything: their scores are never read. */
static void store_keys(float *panels, const float *k, size_t stride, size_t at, size_t n, size_t d_head)
{
    for (size_t i = 0; i < n;) {
        size_t s = at + i, keys = s % 16 == 0 ? smaller(16, n - i) : 1;
        float *to = panels + s / LLM_KEY_PANEL * LLM_KEY_PANEL * d_head + s % LLM_KEY_PANEL;
        if (s % 16 == 0)
            for (size_t c = 0; c < d_head; c += 16)
                transpose_block(to + c * LLM_KEY_PANEL, LLM_KEY_PANEL, k + i * stride + c, stride, keys,
                                smaller(16, d_head - c));
        else
            for (size_t c = 0; c < d_head; c++)
                to[c * LLM_KEY_PANEL] = k[i * stride + c];
        i += keys;
    }
}

static void store_values(float *rows, const float *v, size_t stride, size_t at, size_t n, size_t d_head)
{
    size_t width = llm_padded(d_head);
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < width; c += 16)
            v16_store(rows + (at + i) * width + c,
                      load_lanes(v + i * stride + smaller(c, d_head), lanes_of(d_head - smaller(c, d_head))));
}

/* ---- weights of a row ---- */

/* The largest of n scores, scaled: rounding keeps order, so it is the largest scaled score too. */
LLM_INLINE float scaled_maximum(const float *scores, size_t n, float scale)
{
    v16 max = v16_set1(-__builtin_inff());
    for (size_t s = 0; s < n; s += 16)
        max = v16_max(max, load_lanes_or(scores + s, lanes_of(n - s), -__builtin_inff()));
    return v16_hmax(max) * scale;
}

/* exp(scale * score - max) over n scores in place, +0 from there up to `width`; their sum */
LLM_INLINE float exponentials(float *scores, size_t n, size_t width, float scale, float max)
{
    v16 sum = v16_zero();
    for (size_t s = 0; s < n; s += 16) {
        v16 p = v16_exp(v16_fma(v16_load(scores + s), v16_set1(scale), v16_set1(-max)));
        if (n - s < 16)
            p = v16_select(m16_first(n - s), p, v16_zero());
        sum = v16_add(sum, p);
        v16_store(scores + s, p);
    }
    for (size_t s = round_up(n, 16); s < width; s += 16)
        v16_store(scores + s, v16_zero());
    return v16_hsum(sum);
}

/* The mask of the weights that query `t` gives to n keys from `from` on, drawn into `kept`. */
LLM_INLINE void draw_weights_mask(uint16_t *kept, const llm_attention_head *h, size_t t, size_t from, size_t n)
{
    draw_mask(kept, h->dropout, h->dropout_threshold, h->index + t * h->index_row + from, n);
}

/* weights (n) = dropout(exponentials times factor) of query t; `mask` has room for n bits if h->kept is NULL. */
LLM_INLINE void weights_of(float *row, float factor, size_t t, size_t n, const llm_attention_head *h, uint16_t *mask)
{
    const v16 by = v16_set1(factor), scale = v16_set1(h->dropout_scale);

    if (h->dropout == NULL) {
        for (size_t s = 0; s < n; s += 16)
            v16_store(row + s, v16_mul(v16_load(row + s), by));
        return;
    }
    if (h->kept != NULL)
        mask = h->kept + t * h->kept_row;
    draw_weights_mask(mask, h, t, 0, n);
    for (size_t s = 0; s < n; s += 16)
        v16_store(row + s, masked(v16_mul(v16_load(row + s), by), mask[s / 16], scale));
}

/* ---- products with stored panels ---- */

/* c (rows, keys rounded up to NR) = a panel of queries (rows,d) times stored keys from a panel's start on */
LLM_INLINE void panel_scores(float *c, size_t ldc, const float *ap, size_t rows, const float *panels, size_t keys,
                             size_t d)
{
    for (size_t j = 0; j < keys; j += NR)
        tiles[rows](d, ap, panels + j / LLM_KEY_PANEL * LLM_KEY_PANEL * d + j % LLM_KEY_PANEL, LLM_KEY_PANEL, c + j,
                    ldc, true);
}

/* c (rows,width) (+)= a panel (rows,k) times rows of b, `width` (whole micro-tiles) apart and wide */
LLM_INLINE void panel_times_rows(float *c, const float *ap, size_t rows, const float *b, size_t k, size_t width,
                                 bool first)
{
    for (size_t j = 0; j < width; j += NR)
        tiles[rows](k, ap, b + j, width, c + j, width, first);
}

/* The same for one row of weights, which is read once: whole rows of b rather than micro-tiles. */
LLM_INLINE void weights_times_rows(float *c, const float *weights, const float *b, size_t k, size_t width, float *sums)
{
    for (size_t p = 0; p < k; p += LLM_GEMM_KB) {
        row_block(sums, weights + p, b + p * width, width, width, smaller(LLM_GEMM_KB, k - p));
        row_add_blocks(c, sums, 1, width, p > 0, NULL);
    }
}

/* One row of n from a padded buffer: out (+)= x */
LLM_INLINE void put_row(float *out, bool acc, const float *x, size_t n)
{
    for (size_t c = 0; c < n; c += 16)
        put_lanes(out + c, acc, v16_load(x + c), lanes_of(n - c));
}

/* ---- forward ---- */

static size_t attention_forward_scratch(size_t keys, size_t d_head)
{
    size_t wide = llm_padded(keys);
    return MR * (wide + llm_padded(d_head)) + MR * (wide > d_head ? wide : d_head) + PANEL_SLACK + llm_mask_words(keys);
}

/* At most MR queries from position `from` on. */
static void attend(float *out, size_t out_stride, float *row_max, float *row_sum, const float *q, size_t q_stride,
                   size_t from, size_t n, const float *panels, const float *values, const llm_attention_head *h,
                   float *scratch)
{
    const size_t keys = h->keys > 0 ? h->keys : from + n, ld = llm_padded(keys), width = llm_padded(h->d_head);
    float *scores = scratch, *o = scores + MR * ld, *ap = o + MR * width;
    uint16_t *mask = (uint16_t *)(ap + MR * (ld > h->d_head ? ld : h->d_head) + PANEL_SLACK);

    pack_panel(ap, (llm_view){ q, q_stride, 1 }, n, h->d_head);
    panel_scores(scores, ld, ap, n, panels, keys, h->d_head);
    for (size_t i = 0; i < n; i++) {
        size_t seen = h->keys > 0 ? h->keys : from + i + 1;
        float *row = scores + i * ld;
        float max = scaled_maximum(row, seen, h->scale);
        float sum = exponentials(row, seen, ld, h->scale, max);
        weights_of(row, 1.0f / sum, from + i, seen, h, mask);
        if (row_max != NULL) {
            row_max[i] = max;
            row_sum[i] = sum;
        }
    }
    if (n == 1)
        weights_times_rows(o, scores, values, keys, width, o + width);
    else {
        pack_panel(ap, (llm_view){ scores, ld, 1 }, n, keys);
        panel_times_rows(o, ap, n, values, keys, width, true);
    }
    for (size_t i = 0; i < n; i++)
        put_row(out + i * out_stride, false, o + i * width, h->d_head);
}

static void attention_forward(float *out, size_t out_stride, float *row_max, float *row_sum, const float *q,
                              size_t q_stride, size_t from, size_t n, const float *panels, const float *rows,
                              const llm_attention_head *h, float *scratch)
{
    for (size_t i = 0; i < n; i += MR)
        attend(out + i * out_stride, out_stride, row_max == NULL ? NULL : row_max + i,
               row_sum == NULL ? NULL : row_sum + i, q + i * q_stride, q_stride, from + i, smaller(MR, n - i), panels,
               rows, h, scratch);
}

#define ATTENTION_KERNELS                                                                                              \
    { .store_keys = store_keys,                                                                                        \
      .store_values = store_values,                                                                                    \
      .forward = attention_forward,                                                                                    \
      .forward_scratch = attention_forward_scratch,                                                                    \
      .backward = attention_backward,                                                                                  \
      .backward_scratch = attention_backward_scratch }

#endif /* LLM_ATTENTION_KERNELS_H */
