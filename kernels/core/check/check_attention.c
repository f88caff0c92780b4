/*
 * check_attention.c -- attention of every engine against the scalar one, bit for bit, and of that one against
 * plain loops in double; a sequence that comes in chunks through the key/value cache against the whole.
 */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One sequence and head in double, no dropout. Rows are q_stride and kv_stride apart, out rows `D`; window 0: none. */
void plain_attention(double *out, double *dq, double *dk, double *dv, const float *q, const float *k, const float *v,
                     const float *dout, size_t T, size_t dh, size_t q_stride, size_t kv_stride, size_t D, bool causal,
                     size_t window)
{
    double *p = calloc(T, sizeof *p), *dp = calloc(T, sizeof *dp), scale = 1 / sqrt((double)dh);

    for (size_t t = 0; t < T; t++) {
        const size_t seen = causal ? t + 1 : T, first = window > 0 && t >= window ? t + 1 - window : 0;
        double max = -INFINITY, sum = 0, delta = 0;
        for (size_t s = first; s < seen; s++) {
            p[s] = 0;
            for (size_t c = 0; c < dh; c++)
                p[s] += (double)q[t * q_stride + c] * k[s * kv_stride + c] * scale;
            max = fmax(max, p[s]);
        }
        for (size_t s = first; s < seen; s++)
            sum += p[s] = exp(p[s] - max);
        for (size_t s = first; s < seen; s++) {
            p[s] /= sum;
            dp[s] = 0;
            for (size_t c = 0; c < dh; c++) {
                out[t * D + c] += p[s] * v[s * kv_stride + c];
                dp[s] += (double)dout[t * D + c] * v[s * kv_stride + c];
                dv[s * kv_stride + c] += p[s] * dout[t * D + c];
            }
            delta += p[s] * dp[s];
        }
        for (size_t s = first; s < seen; s++)
            for (size_t c = 0; c < dh; c++) {
                dq[t * q_stride + c] += p[s] * (dp[s] - delta) * scale * k[s * kv_stride + c];
                dk[s * kv_stride + c] += p[s] * (dp[s] - delta) * scale * q[t * q_stride + c];
            }
    }
    free(p), free(dp);
}

typedef struct attention_result {
    float *out, *max, *sum, *dqkv;
} attention_result;

static attention_result run_attention(llm_engine *e, const llm_attention_shape *s, const float *qkv, const float *dout,
                                      const float *before)
{
    const size_t n = s->B * s->T * s->D, rows = s->B * s->n_head * s->T;
    attention_result r = { room(n), room(rows), room(rows), before == NULL ? room(3 * n) : same(before, 3 * n) };

    llm_attention_forward(e, r.out, r.max, r.sum, qkv, qkv + s->D, qkv + 2 * s->D, s);
    llm_attention_backward(e, r.dqkv, r.dqkv + s->D, r.dqkv + 2 * s->D, before != NULL, dout, r.out, r.max, r.sum, qkv,
                           qkv + s->D, qkv + 2 * s->D, s);
    return r;
}

static void free_result(attention_result r) { free(r.out), free(r.max), free(r.sum), free(r.dqkv); }

static void check_attention_truth(const llm_attention_shape *s, const attention_result *r, const float *qkv,
                                  const float *dout)
{
    const size_t dh = s->D / s->n_head, n = s->B * s->T * s->D;
    double *out = calloc(n, sizeof *out), *grads = calloc(3 * n, sizeof *grads);

    for (size_t b = 0; b < s->B; b++)
        for (size_t h = 0; h < s->n_head; h++) {
            size_t at = b * s->T * 3 * s->D + h * dh, o = b * s->T * s->D + h * dh;
            plain_attention(out + o, grads + at, grads + at + s->D, grads + at + 2 * s->D, qkv + at, qkv + at + s->D,
                            qkv + at + 2 * s->D, dout + o, s->T, dh, 3 * s->D, 3 * s->D, s->D, true, 0);
        }
    expect_near("attention forward", r->out, out, n, 1e-6);
    expect_near("attention backward", r->dqkv, grads, 3 * n, 2e-6);
    free(out), free(grads);
}

/* Chunks of a sequence through a cache against the rows of the full forward. */
static void check_cached(llm_engine *e, const char *where, const llm_attention_shape *s, const float *qkv,
                         const float *wanted)
{
    static const size_t plans[][3] = { { 1, 1, 1 }, { 7, 1, 1 }, { 16, 5, 1 }, { 40, 33, 2 }, { 1000, 1, 1 } };
    const size_t stride = 3 * s->D;

    for (size_t plan = 0; plan < sizeof plans / sizeof *plans; plan++) {
        llm_kv_cache *c = llm_kv_cache_create(s->n_head, s->D / s->n_head, s->T + plan);
        float *out = room(s->T * s->D);
        for (size_t past = 0, step = 0, n; past < s->T; past += n, step++) {
            n = plans[plan][step < 3 ? step : 2];
            if (n > s->T - past)
                n = s->T - past;
            const float *q = qkv + past * stride;
            llm_attention_cached(e, out + past * s->D, &c, &past, 1, q, q + s->D, q + 2 * s->D, n, stride, stride,
                                 stride, s->n_head, 0);
        }
        expect_bits("cached attention", where, out, wanted, s->T * s->D);
        free(out);
        llm_kv_cache_destroy(c);
    }
}

/* Sequences at several places, a token of each at once, against the rows of the full forward. */
static void check_cached_together(llm_engine *e, const char *where, const llm_attention_shape *s, const float *qkv,
                                  const float *wanted)
{
    enum { SEQUENCES = 3 };
    const size_t stride = 3 * s->D, past[SEQUENCES] = { s->T / 2, 0, s->T - 1 };
    llm_kv_cache *caches[SEQUENCES];
    float *out = room(s->T * s->D + SEQUENCES * s->D), *tokens = room(SEQUENCES * stride);

    for (size_t b = 0; b < SEQUENCES; b++) {
        const size_t none = 0;
        caches[b] = llm_kv_cache_create(s->n_head, s->D / s->n_head, s->T);
        llm_attention_cached(e, out, &caches[b], &none, 1, qkv, qkv + s->D, qkv + 2 * s->D, past[b], stride, stride,
                             stride, s->n_head, 0);
        memcpy(tokens + b * stride, qkv + past[b] * stride, stride * sizeof *tokens);
    }
    llm_attention_cached(e, out, caches, past, SEQUENCES, tokens, tokens + s->D, tokens + 2 * s->D, 1, stride, stride,
                         stride, s->n_head, 0);
    for (size_t b = 0; b < SEQUENCES; b++) {
        expect_bits("cached attention of several", where, out + b * s->D, wanted + past[b] * s->D, s->D);
        llm_kv_cache_destroy(caches[b]);
    }
    free(out), free(tokens);
}

static void check_attention_shape(size_t B, size_t T, size_t n_head, size_t dh, float p)
{
    const size_t D = n_head * dh, n = B * T * D, rows = B * n_head * T;
    llm_attention_shape s = { .B = B,
                              .T = T,
                              .D = D,
                              .n_head = n_head,
                              .q_stride = 3 * D,
                              .k_stride = 3 * D,
                              .v_stride = 3 * D,
                              .dropout_p = p,
                              .key = { 5, 6, 7 },
                              .first = 11 };
    uint16_t *mask = malloc(llm_attention_mask_words(&s) * sizeof *mask);
    float *qkv = noise(3 * n, 1), *dout = noise(n, 2), *before = noise(3 * n, 3);
    attention_result wanted, added;

    for (size_t i = 0; i < n_settings; i++) {
        const char *where = name_of(settings[i]);
        llm_engine *e = engine_of(settings[i]);
        s.kept = i % 2 == 1 && p > 0 ? mask : NULL; /* left to the backward or drawn again */
        attention_result r = run_attention(e, &s, qkv, dout, NULL), a = run_attention(e, &s, qkv, dout, before);
        if (i == 0) {
            wanted = r;
            added = a;
            remember(r.out, n);
            remember(r.sum, rows);
            remember(a.dqkv, 3 * n);
            if (p == 0)
                check_attention_truth(&s, &r, qkv, dout);
        } else {
            expect_bits("attention forward", where, r.out, wanted.out, n);
            expect_bits("attention row_max", where, r.max, wanted.max, rows);
            expect_bits("attention row_sum", where, r.sum, wanted.sum, rows);
            expect_bits("attention backward", where, r.dqkv, wanted.dqkv, 3 * n);
            expect_bits("attention backward acc", where, a.dqkv, added.dqkv, 3 * n);
            free_result(r);
            free_result(a);
        }
        if (p == 0 && B == 1) {
            check_cached(e, where, &s, qkv, wanted.out);
            check_cached_together(e, where, &s, qkv, wanted.out);
        }
        finish(e);
    }
    free_result(wanted);
    free_result(added);
    free(qkv), free(dout), free(before), free(mask);
}

void check_attention(void)
{
    static const size_t shapes[][4] = { { 1, 1, 1, 1 },   { 1, 1, 2, 16 },  { 2, 8, 4, 4 },    { 1, 9, 1, 3 },
                                        { 1, 50, 1, 40 }, { 3, 64, 2, 32 }, { 1, 129, 2, 33 }, { 1, 300, 1, 64 } };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int drop = 0; drop < 3; drop++)
            check_attention_shape(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3],
                                  drop == 0   ? 0.0f
                                  : drop == 1 ? 0.3f
                                              : 1.0f);
    printf("attention: %ld comparisons\n", compared);
}
