/*
 * attention.c -- multi-head attention over threads, causal or not. A unit of work is one head of one sequence, or a
 * share of its query tiles when heads are few; each unit stores that head's keys and values for itself.
 */
#include "attention.h"
#include "engine/memory.h"
#include "engine/pool.h"

#include <math.h>
#include <stdlib.h>

float llm_attention_scale(size_t d_head) { return (float)(1.0 / sqrt((double)d_head)); }

size_t llm_attention_grain(const llm_engine *e, double flops)
{
    double least = e->kernels->gemm.task_flops / LLM_ATTENTION_LEAST;
    return flops >= least ? 1 : (size_t)(least / (flops < 1 ? 1 : flops));
}

/* Where a sequence lies: its tokens, and how many tokens, weights and words of the mask all before it have, per head. */
typedef struct attention_place {
    size_t T, row, weights, words;
} attention_place;

/*
 * out (B,T,D), row_max and row_sum (B,n_head,T) = softmax(scale q k^T) v per head, from q, k, v (B,T,D) whose rows lie
 * q_stride, k_stride, v_stride apart: three tensors, or one of rows [q | k | v]. Head h is columns h d_head to
 * (h + 1) d_head of a row, d_head = D / n_head. k and v have n_kv_head heads, each read by `group` of q's in a row.
 */
typedef struct attention_job {
    llm_engine *e;
    const llm_attention_shape *s;
    attention_place *places; /* of sequences of their own lengths; NULL: all are T long */
    double squares;          /* the average sequence's tokens squared */
    size_t d_head, n_kv_head, group;
    size_t tile, tiles, shares; /* query rows per tile, tiles of a head, units a head is split into */
    float *out, *row_max, *row_sum;
    const float *q, *k, *v;
    const llm_attention_grads *grads; /* of sequence 0, head 0 */
} attention_job;

static attention_place after(const llm_attention_shape *s, attention_place p, size_t T)
{
    return (attention_place){ T, p.row + p.T, p.weights + p.T * p.T, p.words + p.T * llm_attention_row_words(s, p.T) };
}

/* Find the heads, and where the sequences lie, before anything else of the job. false: no memory for it. */
static bool place_sequences(attention_job *j)
{
    const llm_attention_shape *s = j->s;
    attention_place p = { 0 };

    j->d_head = s->D / s->n_head;
    j->n_kv_head = s->n_kv_head > 0 ? s->n_kv_head : s->n_head;
    j->group = s->n_head / j->n_kv_head;
    j->squares = (double)s->T * (double)s->T;
    if (s->lengths == NULL)
        return true;
    j->places = llm_malloc(s->B * sizeof *j->places);
    if (j->places == NULL) {
        j->e->status = LLM_NO_MEMORY;
        return false;
    }
    for (size_t b = 0; b < s->B; b++)
        j->places[b] = p = after(s, p, (size_t)s->lengths[b]);
    j->squares = (double)after(s, p, 0).weights / (double)s->B;
    return true;
}

/* How many weights a head of the average sequence has that are not 0. */
static double seen_weights(const attention_job *j)
{
    const llm_attention_shape *s = j->s;
    double share = s->window > 0 && s->window < s->T ? (double)s->window / (double)s->T : 1;

    return j->squares * (s->bidirectional ? 1 : share - share * share / 2);
}

static attention_place place_of(const attention_job *j, size_t b)
{
    const size_t T = j->s->T;

    return j->places != NULL ? j->places[b]
                             : (attention_place){ T, b * T, b * T * T, b * T * llm_attention_row_words(j->s, T) };
}

/* What the kernels need to know of one head of a sequence: its scale, and where its dropout mask (T,T) begins */
static llm_attention_head head_of(const llm_attention_shape *s, const attention_place *p, size_t head)
{
    llm_attention_head h = {
        .d_head = s->D / s->n_head,
        .keys = s->bidirectional ? p->T : 0,
        .window = s->bidirectional ? 0 : s->window,
        .scale = llm_attention_scale(s->D / s->n_head),
        .index = s->first + (uint64_t)p->weights * s->n_head + (uint64_t)head * p->T * p->T,
        .index_row = p->T,
    };
    if (s->dropout_p > 0) { /* all is dropped at 1, where 1/(1-p) is no number */
        bool all = s->dropout_p >= 1;
        h.dropout = &s->key;
        h.dropout_scale = all ? 0.0f : (float)(1.0 / (1.0 - (double)s->dropout_p));
        h.dropout_threshold = all ? UINT32_MAX : (uint32_t)((double)s->dropout_p * 0x1p32);
        h.kept_row = llm_attention_row_words(s, p->T);
        h.kept = s->kept == NULL ? NULL : s->kept + p->words * s->n_head + head * p->T * h.kept_row;
    }
    return h;
}

/* Keys in panels, (d_head,T) padded along T, and values (T,d_head) padded along d_head: of one head */
static size_t store_floats(size_t T, size_t d_head) { return llm_padded(T) * d_head + T * llm_padded(d_head); }

/* ---- forward ---- */

/* Query tiles of one head, and the keys that are stored for them. */
typedef struct tile_range {
    size_t begin, end, step, first_key, end_key;
} tile_range;

/*
 * Of a head's `tiles`, those of one share: number share, share + shares, ..., so that all shares have as many keys to
 * see; or with a window as many in a row, of which each sees as many keys. A short sequence's share may have none.
 */
static tile_range share_of(const attention_job *j, const llm_attention_head *h, size_t T, size_t share)
{
    const size_t tiles = (T + j->tile - 1) / j->tile;
    tile_range r = { share, tiles, j->shares, 0, T };

    if (h->window > 0)
        r = (tile_range){ share * tiles / j->shares, (share + 1) * tiles / j->shares, 1, 0, T };
    if (h->keys > 0 || r.begin >= r.end)
        return r;
    const size_t last = r.begin + (r.end - 1 - r.begin) / r.step * r.step;
    r.first_key = llm_first_key(h, r.begin * j->tile) / LLM_KEY_PANEL * LLM_KEY_PANEL;
    r.end_key = (last + 1) * j->tile < T ? (last + 1) * j->tile : T;
    return r;
}

/* Rows of out (T,d_head) of one head: those of one share of its query tiles. */
static void forward_unit(const attention_job *j, size_t unit)
{
    const llm_attention_shape *s = j->s;
    const llm_attention_kernels *kernels = &j->e->kernels->attention;
    const size_t share = unit % j->shares, head = unit / j->shares % s->n_head;
    const attention_place p = place_of(j, unit / j->shares / s->n_head);
    const size_t row = p.row, column = head * j->d_head, stat = p.row * s->n_head + head * p.T;
    const llm_attention_head h = head_of(s, &p, head);
    const tile_range r = share_of(j, &h, p.T, share);
    const size_t n_keys = r.end_key - r.first_key, key = row + r.first_key, kv_column = head / j->group * j->d_head;
    float *panels = llm_thread_scratch(j->e), *values = panels + llm_padded(p.T) * j->d_head;
    float *scratch = values + p.T * llm_padded(j->d_head);

    if (r.begin >= r.end)
        return;
    kernels->store_keys(panels, j->k + key * s->k_stride + kv_column, s->k_stride, r.first_key, n_keys, j->d_head);
    kernels->store_values(values, j->v + key * s->v_stride + kv_column, s->v_stride, r.first_key, n_keys, j->d_head);
    for (size_t tile = r.begin; tile < r.end; tile += r.step) {
        size_t t = tile * j->tile, n = p.T - t < j->tile ? p.T - t : j->tile;
        if (llm_task_stopped(j->e))
            return;
        kernels->forward(j->out + (row + t) * s->D + column, s->D, j->row_max == NULL ? NULL : j->row_max + stat + t,
                         j->row_sum == NULL ? NULL : j->row_sum + stat + t, j->q + (row + t) * s->q_stride + column,
                         s->q_stride, t, n, panels, values, &h, scratch);
    }
}

static void forward_range(void *arg, size_t begin, size_t end)
{
    for (size_t unit = begin; unit < end; unit++)
        forward_unit(arg, unit);
}

/* Enough shares for every thread to get work and for should_stop to be polled, at most one per tile. */
static size_t choose_shares(const attention_job *j, double head_flops)
{
    size_t heads = j->s->B * j->s->n_head, wanted = 2 * (size_t)j->e->threads;
    double task = j->e->kernels->gemm.task_flops, shares = 1;

    if (j->e->threads > 1 && heads < wanted && head_flops > task / LLM_ATTENTION_LEAST)
        shares = (double)((wanted + heads - 1) / heads);
    if (head_flops / task > shares)
        shares = head_flops / task;
    return shares < (double)j->tiles ? (size_t)shares : j->tiles;
}

void llm_attention_forward(llm_engine *e, float *out, float *row_max, float *row_sum, const float *q, const float *k,
                           const float *v, const llm_attention_shape *s)
{
    if (s->B == 0 || s->T == 0 || s->D == 0)
        return;
    attention_job j = { .e = e,
                        .s = s,
                        .tile = e->attention_chunk,
                        .out = out,
                        .row_max = row_max,
                        .row_sum = row_sum,
                        .q = q,
                        .k = k,
                        .v = v };
    double flops;

    if (llm_failed(e) || !place_sequences(&j))
        return;
    flops = 4.0 * seen_weights(&j) * (double)j.d_head;
    j.tiles = (s->T + j.tile - 1) / j.tile;
    j.shares = choose_shares(&j, flops);
    if (llm_scratch(e, store_floats(s->T, j.d_head) + e->kernels->attention.forward_scratch(s->T, j.d_head)))
        llm_parallel_for(e, s->B * s->n_head * j.shares, llm_attention_grain(e, flops / (double)j.shares),
                         forward_range, &j);
    free(j.places);
}

/* ---- backward ---- */

static float *at(float *p, size_t offset) { return p == NULL ? NULL : p + offset; }

/*
 * dq, dk, dv (T,d_head) (+)= of one head of a sequence, from dout and out (T,d_head), row_max and row_sum (T). The heads
 * that share keys and values add to dk and dv one after the other.
 */
static void backward_head(const attention_job *j, const attention_place *place, size_t head)
{
    const llm_attention_shape *s = j->s;
    const attention_place p = *place;
    const size_t row = p.row, column = head * j->d_head, kv_column = head / j->group * j->d_head;
    const size_t stat = row * s->n_head + head * p.T;
    const llm_attention_head h = head_of(s, &p, head);
    llm_attention_grads g = *j->grads;

    g.dq = at(g.dq, row * s->q_stride + column);
    g.dk = at(g.dk, row * s->k_stride + kv_column);
    g.dv = at(g.dv, row * s->v_stride + kv_column);
    g.q += row * s->q_stride + column;
    g.k += row * s->k_stride + kv_column;
    g.v += row * s->v_stride + kv_column;
    g.out += row * s->D + column;
    g.dout += row * s->D + column;
    g.row_max += stat;
    g.row_sum += stat;
    g.T = p.T;
    g.acc_kv = g.acc || head % j->group > 0;
    j->e->kernels->attention.backward(&g, &h, llm_thread_scratch(j->e));
}

/* A unit is one head of keys and values of one sequence. */
static void backward_range(void *arg, size_t begin, size_t end)
{
    const attention_job *j = arg;

    for (size_t unit = begin; unit < end; unit++) {
        const attention_place p = place_of(j, unit / j->n_kv_head);
        const size_t first = unit % j->n_kv_head * j->group;
        for (size_t head = first; head < first + j->group && !llm_task_stopped(j->e); head++)
            backward_head(j, &p, head);
    }
}

void llm_attention_backward(llm_engine *e, float *dq, float *dk, float *dv, bool acc, const float *dout,
                            const float *out, const float *row_max, const float *row_sum, const float *q,
                            const float *k, const float *v, const llm_attention_shape *s)
{
    if (s->B == 0 || s->T == 0 || s->D == 0)
        return;
    llm_attention_grads g = { .dq = dq,
                              .dk = dk,
                              .dv = dv,
                              .q = q,
                              .k = k,
                              .v = v,
                              .out = out,
                              .dout = dout,
                              .row_max = row_max,
                              .row_sum = row_sum,
                              .q_stride = s->q_stride,
                              .k_stride = s->k_stride,
                              .v_stride = s->v_stride,
                              .out_stride = s->D,
                              .acc = acc,
                              .stopped = llm_task_stopped,
                              .e = e };
    attention_job j = { .e = e, .s = s, .grads = &g };
    double flops;

    if (llm_failed(e) || !place_sequences(&j))
        return;
    flops = 10.0 * seen_weights(&j) * (double)j.d_head * (double)j.group;
    if (llm_scratch(e, e->kernels->attention.backward_scratch(s->T, j.d_head)))
        llm_parallel_for(e, s->B * j.n_kv_head, llm_attention_grain(e, flops), backward_range, &j);
    free(j.places);
}
