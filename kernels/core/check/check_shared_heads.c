/*
 * check_shared_heads.c -- attention whose heads share keys and values, or see no further than a window, of every engine against
 * the scalar one, bit for bit, and against plain loops; through caches; norms with a gain and gated activations.
 */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shape {
    size_t B, T, n_head, n_kv_head, dh, window;
} shape;

typedef struct result {
    float *out, *max, *sum, *dq, *dk, *dv;
} result;

static size_t kv_width(const llm_attention_shape *s) { return s->D / s->n_head * s->n_kv_head; }

static result run(llm_engine *e, const llm_attention_shape *s, const float *const qkv[3], const float *dout,
                  const float *const before[3])
{
    const size_t n = s->B * s->T, nq = n * s->D, nkv = n * kv_width(s);
    result r = { room(nq), room(n * s->n_head), room(n * s->n_head), NULL, NULL, NULL };

    r.dq = before == NULL ? room(nq) : same(before[0], nq);
    r.dk = before == NULL ? room(nkv) : same(before[1], nkv);
    r.dv = before == NULL ? room(nkv) : same(before[2], nkv);
    llm_attention_forward(e, r.out, r.max, r.sum, qkv[0], qkv[1], qkv[2], s);
    llm_attention_backward(e, r.dq, r.dk, r.dv, before != NULL, dout, r.out, r.max, r.sum, qkv[0], qkv[1], qkv[2], s);
    return r;
}

static void free_result(result r) { free(r.out), free(r.max), free(r.sum), free(r.dq), free(r.dk), free(r.dv); }

static void expect_same(const char *what, const char *where, const llm_attention_shape *s, const result *got,
                        const result *wanted)
{
    const size_t n = s->B * s->T, nq = n * s->D, nkv = n * kv_width(s);

    expect_bits(what, where, got->out, wanted->out, nq);
    expect_bits(what, where, got->max, wanted->max, n * s->n_head);
    expect_bits(what, where, got->sum, wanted->sum, n * s->n_head);
    expect_bits(what, where, got->dq, wanted->dq, nq);
    expect_bits(what, where, got->dk, wanted->dk, nkv);
    expect_bits(what, where, got->dv, wanted->dv, nkv);
}

static void check_truth(const llm_attention_shape *s, const result *r, const float *const qkv[3], const float *dout)
{
    const size_t dh = s->D / s->n_head, nq = s->B * s->T * s->D, Dkv = kv_width(s), nkv = s->B * s->T * Dkv;
    double *out = calloc(nq, sizeof *out), *dq = calloc(nq, sizeof *dq);
    double *dk = calloc(nkv, sizeof *dk), *dv = calloc(nkv, sizeof *dv);

    for (size_t b = 0; b < s->B; b++)
        for (size_t h = 0; h < s->n_head; h++) {
            size_t at = b * s->T * s->D + h * dh, kv = b * s->T * Dkv + h / (s->n_head / s->n_kv_head) * dh;
            plain_attention(out + at, dq + at, dk + kv, dv + kv, qkv[0] + at, qkv[1] + kv, qkv[2] + kv, dout + at, s->T,
                            dh, s->D, Dkv, s->D, true, s->window);
        }
    expect_near("grouped attention", r->out, out, nq, 1e-6);
    expect_near("grouped attention dq", r->dq, dq, nq, 2e-6);
    expect_near("grouped attention dk", r->dk, dk, nkv, 2e-6);
    expect_near("grouped attention dv", r->dv, dv, nkv, 2e-6);
    free(out), free(dq), free(dk), free(dv);
}

/* Heads with keys of their own that are copies of the shared ones give the same bits. */
static void check_copied_keys(llm_engine *e, const char *where, const llm_attention_shape *s, const result *wanted,
                              const float *const qkv[3])
{
    const size_t dh = s->D / s->n_head, n = s->B * s->T, Dkv = kv_width(s), group = s->n_head / s->n_kv_head;
    float *copies[2] = { room(n * s->D), room(n * s->D) }, *out = room(n * s->D);
    llm_attention_shape own = *s;

    for (size_t i = 0; i < 2; i++)
        for (size_t row = 0; row < n; row++)
            for (size_t h = 0; h < s->n_head; h++)
                memcpy(copies[i] + row * s->D + h * dh, qkv[1 + i] + row * Dkv + h / group * dh, dh * sizeof(float));
    own.n_kv_head = 0;
    own.k_stride = own.v_stride = s->D;
    own.kept = NULL;
    llm_attention_forward(e, out, NULL, NULL, qkv[0], copies[0], copies[1], &own);
    expect_bits("heads with copied keys", where, out, wanted->out, n * s->D);
    free(copies[0]), free(copies[1]), free(out);
}

/* Chunks of a sequence through a cache against the rows of the full forward. */
static void check_cached(llm_engine *e, const char *where, const llm_attention_shape *s, const result *wanted,
                         const float *const qkv[3])
{
    static const size_t plans[][3] = { { 1, 1, 1 }, { 7, 1, 1 }, { 40, 33, 2 }, { 1000, 1, 1 } };
    const size_t Dkv = kv_width(s);

    for (size_t plan = 0; plan < sizeof plans / sizeof *plans; plan++) {
        llm_kv_cache *c = llm_kv_cache_create(s->n_kv_head, s->D / s->n_head, s->T + plan);
        float *out = room(s->T * s->D);
        for (size_t past = 0, step = 0, n; past < s->T; past += n, step++) {
            n = plans[plan][step < 3 ? step : 2];
            if (n > s->T - past)
                n = s->T - past;
            llm_attention_cached(e, out + past * s->D, &c, &past, 1, qkv[0] + past * s->D, qkv[1] + past * Dkv,
                                 qkv[2] + past * Dkv, n, s->D, Dkv, Dkv, s->n_head, s->window);
        }
        expect_bits("cached grouped attention", where, out, wanted->out, s->T * s->D);
        free(out);
        llm_kv_cache_destroy(c);
    }
}

static void check_shape(shape a, float p)
{
    llm_attention_shape s = { .B = a.B,
                              .T = a.T,
                              .D = a.n_head * a.dh,
                              .n_head = a.n_head,
                              .n_kv_head = a.n_kv_head,
                              .window = a.window,
                              .q_stride = a.n_head * a.dh,
                              .k_stride = a.n_kv_head * a.dh,
                              .v_stride = a.n_kv_head * a.dh,
                              .dropout_p = p,
                              .key = { 5, 6, 7 },
                              .first = 11 };
    const size_t n = a.B * a.T, nq = n * s.D, nkv = n * kv_width(&s);
    uint16_t *mask = malloc(llm_attention_mask_words(&s) * sizeof *mask);
    const float *qkv[3] = { noise(nq, 1), noise(nkv, 2), noise(nkv, 3) };
    const float *before[3] = { noise(nq, 4), noise(nkv, 5), noise(nkv, 6) }, *dout = noise(nq, 7);
    result wanted = { 0 }, added = { 0 };

    for (size_t i = 0; i < n_settings; i++) {
        const char *where = name_of(settings[i]);
        llm_engine *e = engine_of(settings[i]);
        s.kept = i % 2 == 1 && p > 0 ? mask : NULL; /* left to the backward or drawn again */
        result r = run(e, &s, qkv, dout, NULL), g = run(e, &s, qkv, dout, before);
        if (i == 0) {
            wanted = r;
            added = g;
            remember(r.out, nq);
            remember(g.dq, nq), remember(g.dk, nkv), remember(g.dv, nkv);
            if (p == 0)
                check_truth(&s, &r, qkv, dout);
        } else {
            expect_same("grouped attention", where, &s, &r, &wanted);
            expect_same("grouped attention, added", where, &s, &g, &added);
            free_result(r);
            free_result(g);
        }
        check_copied_keys(e, where, &s, &wanted, qkv);
        if (p == 0 && a.B == 1)
            check_cached(e, where, &s, &wanted, qkv);
        if (a.window >= a.T) { /* what a window that holds all changes: nothing */
            llm_attention_shape whole = s;
            whole.window = 0;
            whole.kept = NULL;
            r = run(e, &whole, qkv, dout, NULL);
            expect_same("a window of all", where, &s, &r, &wanted);
            free_result(r);
        }
        finish(e);
    }
    free_result(wanted);
    free_result(added);
    for (size_t i = 0; i < 3; i++)
        free((void *)(uintptr_t)qkv[i]), free((void *)(uintptr_t)before[i]);
    free((void *)(uintptr_t)dout), free(mask);
}

/* ---- norms with a gain, gated activations ---- */

static void check_gain_and_gate(size_t n, size_t d)
{
    enum { RESULTS = 7 };
    const size_t size[RESULTS] = { n * d, n, n * d, d, n * d, n * d, n * d };
    float *x = noise(n * d, 8), *y = noise(n * d, 9), *gain = noise(d, 10), *wanted[RESULTS];

    for (size_t i = 0; i < n_settings; i++) {
        float *got[RESULTS];
        llm_engine *e = engine_of(settings[i]);
        for (size_t r = 0; r < RESULTS; r++)
            got[r] = same(r == 3 ? gain : x, size[r]);
        llm_rmsnorm_forward(e, got[0], got[1], x, gain, 1e-5f, n, d);
        llm_rmsnorm_backward(e, got[2], false, got[3], true, y, x, gain, got[1], n, d);
        llm_swiglu_forward(e, got[4], x, y, n * d);
        llm_swiglu_backward(e, got[5], false, got[6], true, y, x, y, n * d);
        finish(e);
        for (size_t r = 0; r < RESULTS; r++) {
            if (i == 0)
                remember(wanted[r] = got[r], size[r]);
            else {
                expect_bits("gain and gate", name_of(settings[i]), got[r], wanted[r], size[r]);
                free(got[r]);
            }
        }
    }
    for (size_t r = 0; r < RESULTS; r++)
        free(wanted[r]);
    free(x), free(y), free(gain);
}

void check_shared_heads(void)
{
    static const shape shapes[] = {
        { 1, 5, 2, 1, 16, 3 },    { 2, 9, 4, 2, 3, 0 },      { 1, 70, 3, 1, 24, 5 },    { 1, 150, 2, 2, 33, 40 },
        { 2, 50, 6, 2, 16, 100 }, { 1, 300, 2, 1, 64, 128 }, { 1, 420, 1, 1, 20, 150 }, { 1, 290, 2, 2, 8, 129 },
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int drop = 0; drop < 2; drop++)
            check_shape(shapes[i], drop == 0 ? 0.0f : 0.3f);
    check_gain_and_gate(70, 83);
    check_gain_and_gate(300, 16);
    printf("shared keys, windows, gains and gates: %ld comparisons\n", compared);
}
