/*
 * attention_backward_kernels.h -- gradients of attention of one head, causal or not. With P the weights, Pd what
 * dropout left of them, dP the gradient that reaches P, and D[t] = dout[t] . out[t]:
 *
 *   dv = Pd^T dout     dP = dropout(dout v^T)     dS = P (dP - D) / sqrt(d_head)     dq = dS k     dk = dS^T
 * q
 *
 * Blocks of LLM_ATTENTION_QB queries by as many keys; weights are recomputed from the saved maximum and sum
 * by the forward's own arithmetic. dk and dv are products whose K is the queries, dq one whose K is the keys:
 * blocks are visited in order and are numeric blocks, so nothing but the shape decides the bits.
 */
#ifndef LLM_ATTENTION_BACKWARD_KERNELS_H
#define LLM_ATTENTION_BACKWARD_KERNELS_H

#include "attention_kernels.h"

enum { QB = LLM_ATTENTION_QB };

_Static_assert(QB == LLM_GEMM_KB && QB % LLM_KEY_PANEL == 0, "a block is one numeric block of whole panels");

/* Buffers of one head; `width` is the padded d_head. */
typedef struct backward_buffers {
    float *keys, *values; /* stored transposed in panels, (T padded, d_head) */
    float *key_rows;      /* (T, width) */
    float *dk, *dv;       /* (T, width) */
    /* of the current block of queries */
    float *q_rows, *dout_rows; /* (QB, width) */
    float *q_panels, *dout_panels;
    float *dq;              /* (QB, width) */
    float *delta, *inverse; /* (QB): D and 1 / row_sum */
    /* of the current pair of blocks */
    float *p, *ds; /* (QB, QB) */
    float *packed;
    uint16_t *mask; /* (QB) bits */
    size_t width;
} backward_buffers;

static size_t attention_backward_scratch(size_t T, size_t d_head)
{
    size_t width = llm_padded(d_head);
    return 2 * llm_padded(T) * d_head + 3 * T * width + 3 * QB * width + 2 * (QB * d_head + PANEL_SLACK) + 2 * QB +
           2 * QB * QB + QB * QB + PANEL_SLACK + QB;
}

static float *take(float **from, size_t floats)
{
    float *p = *from;
    *from += floats;
    return p;
}

static backward_buffers lay_out(float *scratch, size_t T, size_t d_head)
{
    size_t width = llm_padded(d_head);
    backward_buffers w = { .width = width };
    w.p = take(&scratch, QB * QB);
    w.ds = take(&scratch, QB * QB);
    w.q_rows = take(&scratch, QB * width);
    w.dout_rows = take(&scratch, QB * width);
    w.dq = take(&scratch, QB * width);
    w.delta = take(&scratch, QB);
    w.inverse = take(&scratch, QB);
    w.key_rows = take(&scratch, T * width);
    w.dk = take(&scratch, T * width);
    w.dv = take(&scratch, T * width);
    w.keys = take(&scratch, llm_padded(T) * d_head);
    w.values = take(&scratch, llm_padded(T) * d_head);
    w.q_panels = take(&scratch, QB * d_head + PANEL_SLACK);
    w.dout_panels = take(&scratch, QB * d_head + PANEL_SLACK);
    w.packed = take(&scratch, QB * QB + PANEL_SLACK);
    w.mask = (uint16_t *)take(&scratch, QB);
    return w;
}

static float dot_row(const float *a, const float *b, size_t n)
{
    v16 sum = v16_zero();
    for (size_t c = 0; c < n; c += 16) {
        size_t lanes = lanes_of(n - c);
        sum = v16_fma(load_lanes(a + c, lanes), load_lanes(b + c, lanes), sum);
    }
    return v16_hsum(sum);
}

/* Load the block of `n` queries from position `from` on. */
static void begin_queries(const backward_buffers *w, const llm_attention_grads *g, size_t d_head, size_t from, size_t n)
{
    const float *q = g->q + from * g->q_stride;
    const float *dout = g->dout + from * g->out_stride, *out = g->out + from * g->out_stride;

    store_values(w->q_rows, q, g->q_stride, 0, n, d_head);
    store_values(w->dout_rows, dout, g->out_stride, 0, n, d_head);
    pack_block(w->q_panels, (llm_view){ q, g->q_stride, 1 }, n, d_head);
    pack_block(w->dout_panels, (llm_view){ dout, g->out_stride, 1 }, n, d_head);
    for (size_t i = 0; i < n; i++) {
        w->delta[i] = dot_row(dout + i * g->out_stride, out + i * g->out_stride, d_head);
        w->inverse[i] = 1.0f / g->row_sum[from + i];
    }
}

/*
 * Row i of the pair of blocks: scores become weights that dropout acted on, gradients of those become gradients of
 * scores, and both are +0 before key `first` and from key `seen` on. `kept` begins with the word of key `first`.
 */
LLM_INLINE void weight_row(const backward_buffers *w, const llm_attention_head *h, size_t i, size_t first, size_t seen,
                           float max, const uint16_t *kept)
{
    const size_t begin = first / 16 * 16;
    float *p = w->p + i * QB, *ds = w->ds + i * QB;
    const v16 delta = v16_set1(w->delta[i]), inverse = v16_set1(w->inverse[i]);
    const v16 scale = v16_set1(h->scale), dropout_scale = v16_set1(h->dropout_scale);

    for (size_t s = 0; s < begin; s += 16) {
        v16_store(p + s, v16_zero());
        v16_store(ds + s, v16_zero());
    }
    for (size_t s = begin; s < seen; s += 16) {
        v16 score = v16_fma(v16_load(p + s), scale, v16_set1(-max)), d = v16_load(ds + s);
        v16 weight = v16_mul(v16_exp(score), inverse);

        if (seen - s < 16) /* keys to come */
            weight = v16_select(m16_first(seen - s), weight, v16_zero());
        if (s < first) /* keys before the window */
            weight = v16_select(m16_first(first - s), v16_zero(), weight);
        if (kept != NULL)
            d = masked(d, kept[(s - begin) / 16], dropout_scale);
        d = v16_mul(v16_mul(weight, v16_sub(d, delta)), scale);
        if (seen - s < 16)
            d = v16_select(m16_first(seen - s), d, v16_zero());
        if (s < first)
            d = v16_select(m16_first(first - s), v16_zero(), d);
        v16_store(ds + s, d);
        v16_store(p + s, kept != NULL ? masked(weight, kept[(s - begin) / 16], dropout_scale) : weight);
    }
    for (size_t s = round_up(seen, 16); s < QB; s += 16) {
        v16_store(p + s, v16_zero());
        v16_store(ds + s, v16_zero());
    }
}

/* The first key of the block from key0 on that query t sees; past the block's end: none */
LLM_INLINE size_t first_in_block(const llm_attention_head *h, size_t t, size_t key0)
{
    size_t first = llm_first_key(h, t);

    return first > key0 ? first - key0 : 0;
}

/* The panel of that key: what is left out comes before it. */
LLM_INLINE size_t low_panel(const llm_attention_head *h, size_t t, size_t key0)
{
    return first_in_block(h, t, key0) / LLM_KEY_PANEL * LLM_KEY_PANEL;
}

static void weight_rows(const backward_buffers *w, const llm_attention_grads *g, const llm_attention_head *h,
                        size_t from, size_t queries, size_t key0, size_t keys)
{
    for (size_t i = 0; i < queries; i++) {
        size_t t = from + i, seen = h->keys == 0 && from == key0 ? i + 1 : keys, first = first_in_block(h, t, key0);
        const uint16_t *kept = w->mask;

        if (first >= seen) /* all of the block is before its window */
            first = seen = 0;
        if (h->dropout == NULL || seen == 0) {
            weight_row(w, h, i, first, seen, g->row_max[t], NULL);
            continue;
        }
        if (h->kept != NULL)
            kept = h->kept + t * h->kept_row + (key0 + first) / 16 - llm_first_key(h, t) / 16;
        else
            draw_weights_mask(w->mask, h, t, key0 + first / 16 * 16, seen - first / 16 * 16);
        weight_row(w, h, i, first, seen, g->row_max[t], kept);
    }
}

/*
 * to (keys,width) (+)= x^T b, x (queries,keys) a block of weights, b (queries,width); its first block begins it. Key i
 * is in the window of queries up to number i + reach.
 */
static void add_to_keys(const backward_buffers *w, float *to, const float *x, const float *b, size_t queries,
                        size_t keys, bool diagonal, bool first, ptrdiff_t reach)
{
    pack_block(w->packed, (llm_view){ x, 1, QB }, keys, queries);
    for (size_t i = 0; i < keys; i += MR) {
        size_t rows = smaller(MR, keys - i), unseen = diagonal ? i : 0; /* queries before key i */
        ptrdiff_t last = reach + (ptrdiff_t)(i + rows);
        size_t end = last < 0 ? 0 : smaller(queries, (size_t)last);
        if (unseen < end)
            panel_times_rows(to + i * w->width, w->packed + i * queries + unseen * rows, rows, b + unseen * w->width,
                             end - unseen, w->width, first);
    }
}

/*
 * One block of queries against one block of keys; the causal one of the same positions is a triangle. The first block
 * of queries that meets these keys is the causal one of their own positions, or the first of all.
 */
static void backward_pair(const backward_buffers *w, const llm_attention_grads *g, const llm_attention_head *h,
                          size_t from, size_t queries, size_t key0)
{
    const size_t d = h->d_head, keys = smaller(QB, g->T - key0);
    const bool diagonal = h->keys == 0 && from == key0, first = h->keys == 0 ? diagonal : from == 0;
    const size_t apart = h->keys == 0 ? from - key0 : 0;
    const ptrdiff_t reach = (ptrdiff_t)(h->window > 0 && h->window < apart + QB ? h->window - 1 : apart + QB) -
                            (ptrdiff_t)apart;

    for (size_t i = 0; i < queries; i += MR) {
        size_t rows = smaller(MR, queries - i), seen = diagonal ? i + rows : keys,
               at = key0 + low_panel(h, from + i, key0);
        if (at >= key0 + seen)
            continue;
        panel_scores(w->p + i * QB + at - key0, QB, w->q_panels + i * d, rows, w->keys + at * d, key0 + seen - at, d);
        panel_scores(w->ds + i * QB + at - key0, QB, w->dout_panels + i * d, rows, w->values + at * d, key0 + seen - at,
                     d);
    }
    weight_rows(w, g, h, from, queries, key0, keys);

    add_to_keys(w, w->dv + key0 * w->width, w->p, w->dout_rows, queries, keys, diagonal, first, reach);
    add_to_keys(w, w->dk + key0 * w->width, w->ds, w->q_rows, queries, keys, diagonal, first, reach);
    pack_block(w->packed, (llm_view){ w->ds, QB, 1 }, queries, keys);
    for (size_t i = 0; i < queries; i += MR) {
        size_t rows = smaller(MR, queries - i), seen = diagonal ? i + rows : keys, low = low_panel(h, from + i, key0);
        if (low < seen)
            panel_times_rows(w->dq + i * w->width, w->packed + i * keys + low * rows, rows,
                             w->key_rows + (key0 + low) * w->width, seen - low, w->width,
                             key0 == llm_first_key(h, from + i) / QB * QB);
    }
}

static void put_rows(float *out, size_t stride, bool acc, const float *x, size_t width, size_t rows, size_t n)
{
    if (out != NULL)
        for (size_t i = 0; i < rows; i++)
            put_row(out + i * stride, acc, x + i * width, n);
}

static void attention_backward(const llm_attention_grads *g, const llm_attention_head *h, float *scratch)
{
    const size_t d = h->d_head;
    backward_buffers w = lay_out(scratch, g->T, d);

    store_keys(w.keys, g->k, g->k_stride, 0, g->T, d);
    store_keys(w.values, g->v, g->v_stride, 0, g->T, d);
    store_values(w.key_rows, g->k, g->k_stride, 0, g->T, d);
    for (size_t from = 0; from < g->T; from += QB) {
        size_t n = smaller(QB, g->T - from);
        begin_queries(&w, g, d, from, n);
        for (size_t key0 = llm_first_key(h, from) / QB * QB; key0 < (h->keys > 0 ? g->T : from + n); key0 += QB) {
            if (g->stopped(g->e))
                return;
            backward_pair(&w, g, h, from, n, key0);
        }
        put_rows(g->dq == NULL ? NULL : g->dq + from * g->q_stride, g->q_stride, g->acc, w.dq, w.width, n, d);
    }
    put_rows(g->dk, g->k_stride, g->acc_kv, w.dk, w.width, g->T, d);
    put_rows(g->dv, g->v_stride, g->acc_kv, w.dv, w.width, g->T, d);
}

#endif /* LLM_ATTENTION_BACKWARD_KERNELS_H */
