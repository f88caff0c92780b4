/*
 * attention_kernels.h -- attention of one head, MR queries at a time against stored keys and values:
 * all scores, their exact maximum, the weights, then weights times values. Nothing is rescaled on the way.
 *
 * Bits: scores and outputs are matrix products in numerics.h's order, sums of weights run in 16 lanes by key
 * index. A key after the query, or before its window, has weight +0, and adding its products leaves an accumulator's
 * value as it was, so a row does not see how far its tile reaches: prefill, decode and any tiling agree. For the same
 * reason the panels of keys that no query of a tile sees are left out.
 */
#ifndef LLM_ATTENTION_KERNELS_H
#define LLM_ATTENTION_KERNELS_H

#include "products/gemm_kernels.h"
#include "math_kernels.h"

_Static_assert(LLM_KEY_PANEL % NR == 0, "micro-tiles divide a stored panel");

/* ---- the store ---- */

enum { AHEAD = 16 }; /* rows of keys or values to ask for: each is a short stream of its own */

/* Lanes without a key hold anything: their scores are never read. */
static void store_keys(float *panels, const float *k, size_t stride, size_t at, size_t n, size_t d_head)
{
    for (size_t i = 0; i < n;) {
        size_t s = at + i, keys = s % 16 == 0 ? smaller(16, n - i) : 1;
        float *to = panels + s / LLM_KEY_PANEL * LLM_KEY_PANEL * d_head + s % LLM_KEY_PANEL;
        if (s % 16 == 0)
            for (size_t c = 0; c < d_head; c += 16)
                if (keys == 16 && d_head - c >= 16) {
                    for (size_t r = 0; r < 16; r++)
                        __builtin_prefetch(k + (i + AHEAD + r) * stride + c);
                    transpose_whole(to + c * LLM_KEY_PANEL, LLM_KEY_PANEL, k + i * stride + c, stride, 16);
                } else
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
    size_t width = llm_padded(d_head), whole = d_head / 16 * 16;
    for (size_t i = 0; i < n; i++) {
        float *to = rows + (at + i) * width;
        const float *from = v + i * stride;
        for (size_t c = 0; c < whole; c += 16) {
            __builtin_prefetch(from + AHEAD * stride + c);
            v16_store(to + c, v16_load(from + c));
        }
        for (size_t c = whole; c < width; c += 16)
            v16_store(to + c, load_lanes(from + smaller(c, d_head), lanes_of(d_head - smaller(c, d_head))));
    }
}

/* ---- weights of a row ---- */

/* The largest of n scores, scaled: rounding keeps order, so it is the largest scaled score too. */
LLM_INLINE float scaled_maximum(const float *scores, size_t n, float scale)
{
    v16 max = v16_set1(-__builtin_inff()), other = max; /* two, for each waits for itself */
    size_t s = 0;
    for (; s + 32 <= n; s += 32) {
        max = v16_max(max, v16_load(scores + s));
        other = v16_max(other, v16_load(scores + s + 16));
    }
    for (; s < n; s += 16)
        max = v16_max(max, load_lanes_or(scores + s, lanes_of(n - s), -__builtin_inff()));
    return v16_hmax(v16_max(max, other)) * scale;
}

/* exp(scale * score - max) over n scores in place, +0 from there up to `width`; their sum */
LLM_INLINE float exponentials(float *scores, size_t n, size_t width, float scale, float max)
{
    v16 sum = v16_zero();
    size_t s = 0;
    for (; s + 16 <= n; s += 16) {
        v16 p = v16_exp(v16_fma(v16_load(scores + s), v16_set1(scale), v16_set1(-max)));
        sum = v16_add(sum, p);
        v16_store(scores + s, p);
    }
    if (s < n) {
        v16 p = v16_exp(v16_fma(v16_load(scores + s), v16_set1(scale), v16_set1(-max)));
        p = v16_select(m16_first(n - s), p, v16_zero());
        sum = v16_add(sum, p);
        v16_store(scores + s, p);
        s += 16;
    }
    for (; s < width; s += 16)
        v16_store(scores + s, v16_zero());
    return v16_hsum(sum);
}

/* The mask of the weights that query `t` gives to n keys from `from` on, drawn into `kept`. */
LLM_INLINE void draw_weights_mask(uint16_t *kept, const llm_attention_head *h, size_t t, size_t from, size_t n)
{
    draw_mask(kept, h->dropout, h->dropout_threshold, h->index + t * h->index_row + from, n);
}

/*
 * weights (n) = dropout(exponentials times factor) that query t gives to the keys from `from` on, where its mask begins;
 * `mask` has room for n bits if h->kept is NULL.
 */
LLM_INLINE void weights_of(float *row, float factor, size_t t, size_t from, size_t n, const llm_attention_head *h,
                           uint16_t *mask)
{
    const v16 by = v16_set1(factor), scale = v16_set1(h->dropout_scale);

    if (h->dropout == NULL) {
        for (size_t s = 0; s < n; s += 16)
            v16_store(row + s, v16_mul(v16_load(row + s), by));
        return;
    }
    if (h->kept != NULL)
        mask = h->kept + t * h->kept_row;
    draw_weights_mask(mask, h, t, from, n);
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

/* The same with rows of a that lie lda apart */
LLM_INLINE void rows_times_rows(float *c, const float *a, size_t lda, size_t rows, const float *b, size_t k,
                                size_t width, bool first)
{
    for (size_t j = 0; j < width; j += NR)
        rows_tiles[rows](k, a, lda, b + j, width, c + j, width, first);
}

/* The same for one row of weights, which is read once: whole rows of b rather than micro-tiles. */
LLM_INLINE void weights_times_rows(float *c, const float *weights, const float *b, size_t k, size_t width, float *sums,
                                   bool first)
{
    for (size_t p = 0; p < k; p += LLM_GEMM_KB) {
        row_block(sums, weights + p, b + p * width, width, width, smaller(LLM_GEMM_KB, k - p));
        row_add_blocks(c, sums, 1, width, !first || p > 0, NULL);
    }
}

/* One row of n from a padded buffer: out (+)= x */
LLM_INLINE void put_row(float *out, bool acc, const float *x, size_t n)
{
    for (size_t c = 0; c < n; c += 16)
        put_lanes(out + c, acc, v16_load(x + c), lanes_of(n - c));
}

/* ---- forward ---- */

/* From one row of scores to the next: an odd number of lines, so that a column of them spreads over the cache's sets */
LLM_INLINE size_t score_row(size_t keys) { return llm_padded(keys) + 16; }

static size_t attention_forward_scratch(size_t keys, size_t d_head)
{
    return MR * (score_row(keys) + llm_padded(d_head) + d_head) + PANEL_SLACK + llm_mask_words(keys);
}

/* What begins a row of scores of query t, the first of which is key `low`'s: those before its window are no scores. */
LLM_INLINE size_t begin_row(float *row, size_t low, size_t t, const llm_attention_head *h)
{
    const size_t first = llm_first_key(h, t) - low, begin = first / 16 * 16;

    for (size_t s = 0; s < begin; s += 16)
        v16_store(row + s, v16_zero());
    for (size_t s = begin; s < first; s++)
        row[s] = -__builtin_inff();
    return begin;
}

/* o (n,width) = weights of the keys from `low` on times their values, in numeric blocks counted from key 0 */
LLM_INLINE void weigh_values(float *o, const float *weights, size_t ld, size_t n, const float *values, size_t low,
                             size_t keys, size_t width)
{
    for (size_t s = low; s < keys;) {
        const size_t end = low % LLM_GEMM_KB == 0 || s > low ? keys : smaller(keys, round_up(s, LLM_GEMM_KB));

        if (n == 1)
            weights_times_rows(o, weights + s - low, values + s * width, end - s, width, o + width, s == low);
        else
            rows_times_rows(o, weights + s - low, ld, n, values + s * width, end - s, width, s == low);
        s = end;
    }
}

/* At most MR queries from position `from` on. */
static void attend(float *out, size_t out_stride, float *row_max, float *row_sum, const float *q, size_t q_stride,
                   size_t from, size_t n, const float *panels, const float *values, const llm_attention_head *h,
                   float *scratch)
{
    const size_t low = llm_first_key(h, from) / LLM_KEY_PANEL * LLM_KEY_PANEL;
    const size_t keys = h->keys > 0 ? h->keys : from + n, ld = score_row(keys - low), width = llm_padded(h->d_head);
    float *scores = scratch, *o = scores + MR * ld, *ap = o + MR * width;
    uint16_t *mask = (uint16_t *)(ap + MR * h->d_head + PANEL_SLACK);
    float maxima[MR];
    size_t begin[MR];

    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < h->d_head; c += 16)
            __builtin_prefetch(out + i * out_stride + c, 1);
    pack_rows(ap, q, q_stride, n, h->d_head);
    panel_scores(scores, ld, ap, n, panels + low * h->d_head, keys - low, h->d_head);
    for (size_t i = 0; i < n; i++) {
        size_t seen = (h->keys > 0 ? h->keys : from + i + 1) - low;
        begin[i] = begin_row(scores + i * ld, low, from + i, h);
        maxima[i] = scaled_maximum(scores + i * ld + begin[i], seen - begin[i], h->scale);
    }
    for (size_t i = 0; i < n; i++) {
        size_t seen = (h->keys > 0 ? h->keys : from + i + 1) - low - begin[i];
        float *row = scores + i * ld + begin[i];
        float sum = exponentials(row, seen, keys - low - begin[i], h->scale, maxima[i]);
        weights_of(row, 1.0f / sum, from + i, low + begin[i], seen, h, mask);
        if (row_max != NULL) {
            row_max[i] = maxima[i];
            row_sum[i] = sum;
        }
    }
    weigh_values(o, scores, ld, n, values, low, keys, width);
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
