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
 * (h + 1) d_head of a row, d_head = D / n_head.
 */
typedef struct attention_job {
    llm_engine *e;
    const llm_attention_shape *s;
    attention_place *places; /* of sequences of their own lengths; NULL: all are T long */
    double squares;          /* the average sequence's tokens squared */
    size_t d_head;
    size_t tile, tiles, shares; /* query rows per tile, tiles of a head, units a head is split into */
    float *out, *row_max, *row_sum;
    const float *q, *k, *v;
    const llm_attention_grads *grads; /* of sequence 0, head 0 */
} attention_job;

static attention_place after(attention_place p, size_t T)
{
    return (attention_place){ T, p.row + p.T, p.weights + p.T * p.T, p.words + p.T * llm_mask_words(p.T) };
}

/* Find where the sequences lie, before anything else of the job. false: the engine has no memory for it. */
static bool place_sequences(attention_job *j)
{
    const llm_attention_shape *s = j->s;
    attention_place p = { 0 };

    j->squares = (double)s->T * (double)s->T;
    if (s->lengths == NULL)
        return true;
    j->places = llm_malloc(s->B * sizeof *j->places);
    if (j->places == NULL) {
        j->e->status = LLM_NO_MEMORY;
        return false;
    }
    for (size_t b = 0; b < s->B; b++)
        j->places[b] = p = after(p, (size_t)s->lengths[b]);
    j->squares = (double)after(p, 0).weights / (double)s->B;
    return true;
}

static attention_place place_of(const attention_job *j, size_t b)
{
    const size_t T = j->s->T;

    return j->places != NULL ? j->places[b] : (attention_place){ T, b * T, b * T * T, b * T * llm_mask_words(T) };
}

/* What the kernels need to know of one head of a sequence: its scale, and where its dropout mask (T,T) begins */
static llm_attention_head head_of(const llm_attention_shape *s, const attention_place *p, size_t head)
{
    llm_attention_head h = {
        .d_head = s->D / s->n_head,
        .keys = s->bidirectional ? p->T : 0,
        .scale = llm_attention_scale(s->D / s->n_head),
        .index = s->first + (uint64_t)p->weights * s->n_head + (uint64_t)head * p->T * p->T,
        .index_row = p->T,
    };
    if (s->dropout_p > 0) { /* all is dropped at 1, where 1/(1-p) is no number */
        bool all = s->dropout_p >= 1;
        h.dropout = &s->key;
        h.dropout_scale = all ? 0.0f : (float)(1.0 / (1.0 - (double)s->dropout_p));
        h.dropout_threshold = all ? UINT32_MAX : (uint32_t)((double)s->dropout_p * 0x1p32);
        h.kept_row = llm_mask_words(p->T);
        h.kept = s->kept == NULL ? NULL : s->kept + p->words * s->n_head + head * p->T * h.kept_row;
    }
    return h;
}

/* Keys in panels, (d_head,T) padded along T, and values (T,d_head) padded along d_head: of one head */
static size_t store_floats(size_t T, size_t d_head) { return llm_padded(T) * d_head + T * llm_padded(d_head); }

/* ---- forward ---- */

/*
 * Rows of out (T,d_head) of one head: those of the query tiles share, share + shares, ..., of which a short sequence
 * may have none. Later keys are masked, unless attention is bidirectional.
 */
static void forward_unit(const attention_job *j, size_t unit)
{
    const llm_attention_shape *s = j->s;
    const llm_attention_kernels *kernels = &j->e->kernels->attention;
    const size_t share = unit % j->shares, head = unit / j->shares % s->n_head;
    const attention_place p = place_of(j, unit / j->shares / s->n_head);
    const size_t tiles = (p.T + j->tile - 1) / j->tile;
    size_t row = p.row, column = head * j->d_head, stat = p.row * s->n_head + head * p.T, keys = p.T;
    llm_attention_head h = head_of(s, &p, head);
    float *panels = llm_thread_scratch(j->e), *values = panels + llm_padded(p.T) * j->d_head;
    float *scratch = values + p.T * llm_padded(j->d_head);

    if (share >= tiles)
        return;
    if (!s->bidirectional) {
        size_t last = share + (tiles - 1 - share) / j->shares * j->shares; /* tile of this share */
        keys = (last + 1) * j->tile < p.T ? (last + 1) * j->tile : p.T;
    }
    kernels->store_keys(panels, j->k + row * s->k_stride + column, s->k_stride, 0, keys, j->d_head);
    kernels->store_values(values, j->v + row * s->v_stride + column, s->v_stride, 0, keys, j->d_head);
    for (size_t tile = share; tile < tiles; tile += j->shares) {
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
                        .d_head = s->D / s->n_head,
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
    flops = (s->bidirectional ? 4.0 : 2.0) * j.squares * (double)j.d_head;
    j.tiles = (s->T + j.tile - 1) / j.tile;
    j.shares = choose_shares(&j, flops);
    if (llm_scratch(e, store_floats(s->T, j.d_head) + e->kernels->attention.forward_scratch(s->T, j.d_head)))
        llm_parallel_for(e, s->B * s->n_head * j.shares, llm_attention_grain(e, flops / (double)j.shares),
                         forward_range, &j);
    free(j.places);
}

/* ---- backward ---- */

static float *at(float *p, size_t offset) { return p == NULL ? NULL : p + offset; }

/* dq, dk, dv (T,d_head) (+)= of heads begin to end, from dout and out (T,d_head), row_max and row_sum (T) */
static void backward_range(void *arg, size_t begin, size_t end)
{
    const attention_job *j = arg;
    const llm_attention_shape *s = j->s;

    for (size_t unit = begin; unit < end; unit++) {
        const attention_place p = place_of(j, unit / s->n_head);
        size_t head = unit % s->n_head, row = p.row, column = head * j->d_head, stat = row * s->n_head + head * p.T;
        llm_attention_head h = head_of(s, &p, head);
        llm_attention_grads g = *j->grads;
        g.dq = at(g.dq, row * s->q_stride + column);
        g.dk = at(g.dk, row * s->k_stride + column);
        g.dv = at(g.dv, row * s->v_stride + column);
        g.q += row * s->q_stride + column;
        g.k += row * s->k_stride + column;
        g.v += row * s->v_stride + column;
        g.out += row * s->D + column;
        g.dout += row * s->D + column;
        g.row_max += stat;
        g.row_sum += stat;
        g.T = p.T;
        j->e->kernels->attention.backward(&g, &h, llm_thread_scratch(j->e));
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
    attention_job j = { .e = e, .s = s, .d_head = s->D / s->n_head, .grads = &g };
    double flops;

    if (llm_failed(e) || !place_sequences(&j))
        return;
    flops = (s->bidirectional ? 10.0 : 5.0) * j.squares * (double)j.d_head;
    if (llm_scratch(e, e->kernels->attention.backward_scratch(s->T, j.d_head)))
        llm_parallel_for(e, s->B * s->n_head, llm_attention_grain(e, flops), backward_range, &j);
    free(j.places);
}
