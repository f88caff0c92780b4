/*
 * check_sequences.c -- sequences laid end to end: bidirectional attention and pooling of every engine against the scalar
 * one, bit for bit, each sequence alone and in their midst, and against plain loops; normalisation of rows by their norm.
 */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct result {
    float *out, *max, *sum, *dqkv;
} result;

static result run(llm_engine *e, const llm_attention_shape *s, size_t n, const float *qkv, const float *dout,
                  const float *before)
{
    result r = { room(n * s->D), room(n * s->n_head), room(n * s->n_head),
                 before == NULL ? room(3 * n * s->D) : same(before, 3 * n * s->D) };

    llm_attention_forward(e, r.out, r.max, r.sum, qkv, qkv + s->D, qkv + 2 * s->D, s);
    llm_attention_backward(e, r.dqkv, r.dqkv + s->D, r.dqkv + 2 * s->D, before != NULL, dout, r.out, r.max, r.sum, qkv,
                           qkv + s->D, qkv + 2 * s->D, s);
    return r;
}

static void free_result(result r) { free(r.out), free(r.max), free(r.sum), free(r.dqkv); }

static void check_truth(const llm_attention_shape *s, size_t n, const result *r, const float *qkv, const float *dout)
{
    const size_t dh = s->D / s->n_head;
    double *out = calloc(n * s->D, sizeof *out), *grads = calloc(3 * n * s->D, sizeof *grads);

    for (size_t b = 0, row = 0; b < s->B; row += (size_t)s->lengths[b++])
        for (size_t h = 0; h < s->n_head; h++) {
            size_t at = row * 3 * s->D + h * dh, o = row * s->D + h * dh;
            plain_attention(out + o, grads + at, grads + at + s->D, grads + at + 2 * s->D, qkv + at, qkv + at + s->D,
                            qkv + at + 2 * s->D, dout + o, (size_t)s->lengths[b], dh, 3 * s->D, 3 * s->D, s->D, false,
                            0);
        }
    expect_near("bidirectional attention", r->out, out, n * s->D, 1e-6);
    expect_near("bidirectional attention backward", r->dqkv, grads, 3 * n * s->D, 2e-6);
    free(out), free(grads);
}

/* Each sequence as a batch of its own, without lengths, has the rows that it has among the others. */
static void check_alone(llm_engine *e, const char *where, const llm_attention_shape *s, const result *r,
                        const float *qkv, const float *dout)
{
    for (size_t b = 0, row = 0; b < s->B; row += (size_t)s->lengths[b++]) {
        const size_t T = (size_t)s->lengths[b], n = T * s->D;
        llm_attention_shape one = *s;
        one.B = 1;
        one.T = T;
        one.lengths = NULL;
        one.kept = NULL;
        result alone = run(e, &one, T, qkv + row * 3 * s->D, dout + row * s->D, NULL);
        expect_bits("sequence alone", where, alone.out, r->out + row * s->D, n);
        expect_bits("sequence alone, row_max", where, alone.max, r->max + row * s->n_head, T * s->n_head);
        expect_bits("sequence alone, row_sum", where, alone.sum, r->sum + row * s->n_head, T * s->n_head);
        expect_bits("sequence alone, backward", where, alone.dqkv, r->dqkv + row * 3 * s->D, 3 * n);
        free_result(alone);
    }
}

/* Sequences of one length lie as a batch without lengths does, down to the numbers that dropout draws. */
static void check_batch(llm_engine *e, const char *where, const llm_attention_shape *s, size_t n, const result *r,
                        const float *qkv, const float *dout)
{
    llm_attention_shape batch = *s;
    batch.lengths = NULL;
    batch.kept = NULL;
    result other = run(e, &batch, n, qkv, dout, NULL);
    expect_bits("batch", where, other.out, r->out, n * s->D);
    expect_bits("batch, row_sum", where, other.sum, r->sum, n * s->n_head);
    expect_bits("batch, backward", where, other.dqkv, r->dqkv, 3 * n * s->D);
    free_result(other);
}

static void check_lengths(const int32_t *lengths, size_t B, size_t n_head, size_t dh, float p)
{
    const size_t D = n_head * dh;
    size_t n = 0, longest = 0, shortest = SIZE_MAX;

    for (size_t b = 0; b < B; b++) {
        n += (size_t)lengths[b];
        longest = (size_t)lengths[b] > longest ? (size_t)lengths[b] : longest;
        shortest = (size_t)lengths[b] < shortest ? (size_t)lengths[b] : shortest;
    }
    llm_attention_shape s = { .B = B,
                              .T = longest,
                              .D = D,
                              .n_head = n_head,
                              .q_stride = 3 * D,
                              .k_stride = 3 * D,
                              .v_stride = 3 * D,
                              .bidirectional = true,
                              .lengths = lengths,
                              .dropout_p = p,
                              .key = { 5, 6, 7 },
                              .first = 11 };
    uint16_t *mask = malloc(llm_attention_mask_words(&s) * sizeof *mask);
    float *qkv = noise(3 * n * D, 1), *dout = noise(n * D, 2), *before = noise(3 * n * D, 3);
    result wanted = { 0 }, added = { 0 };

    for (size_t i = 0; i < n_settings; i++) {
        const char *where = name_of(settings[i]);
        llm_engine *e = engine_of(settings[i]);
        s.kept = i % 2 == 1 && p > 0 ? mask : NULL; /* left to the backward or drawn again */
        result r = run(e, &s, n, qkv, dout, NULL), a = run(e, &s, n, qkv, dout, before);
        if (i == 0) {
            wanted = r;
            added = a;
            remember(r.out, n * D);
            remember(r.sum, n * n_head);
            remember(a.dqkv, 3 * n * D);
            if (p == 0)
                check_truth(&s, n, &r, qkv, dout);
        } else {
            expect_bits("bidirectional attention", where, r.out, wanted.out, n * D);
            expect_bits("bidirectional row_max", where, r.max, wanted.max, n * n_head);
            expect_bits("bidirectional row_sum", where, r.sum, wanted.sum, n * n_head);
            expect_bits("bidirectional backward", where, r.dqkv, wanted.dqkv, 3 * n * D);
            expect_bits("bidirectional backward acc", where, a.dqkv, added.dqkv, 3 * n * D);
            free_result(r);
            free_result(a);
        }
        if (p == 0)
            check_alone(e, where, &s, &wanted, qkv, dout);
        if (shortest == longest)
            check_batch(e, where, &s, n, &wanted, qkv, dout);
        finish(e);
    }
    free_result(wanted);
    free_result(added);
    free(qkv), free(dout), free(before), free(mask);
}

/* ---- pooling ---- */

static void check_pooling(const int32_t *lengths, size_t B, size_t d)
{
    size_t n = 0;
    for (size_t b = 0; b < B; b++)
        n += (size_t)lengths[b];
    float *x = noise(n * d, 4), *dout = noise(B * d, 5), *before = noise(n * d, 6), *first = room(B * d);
    float *d_first = room(n * d), *mean = NULL, *d_mean = NULL;
    double *true_mean = calloc(B * d, sizeof *true_mean);

    for (size_t b = 0, row = 0; b < B; row += (size_t)lengths[b++])
        for (size_t i = 0; i < d; i++) {
            first[b * d + i] = x[row * d + i];
            for (size_t r = row; r < row + (size_t)lengths[b]; r++) {
                d_first[r * d + i] = r == row ? dout[b * d + i] : 0.0f;
                true_mean[b * d + i] += (double)x[r * d + i] / lengths[b];
            }
        }
    for (size_t i = 0; i < n_settings; i++) {
        const char *where = name_of(settings[i]);
        llm_engine *e = engine_of(settings[i]);
        float *out = room(B * d), *dx = room(n * d), *m = room(B * d), *dm = same(before, n * d);
        llm_cls_pool_forward(e, out, x, lengths, B, d);
        llm_cls_pool_backward(e, dx, false, dout, lengths, B, d);
        llm_mean_pool_forward(e, m, x, lengths, B, d);
        llm_mean_pool_backward(e, dm, true, dout, lengths, B, d);
        expect_bits("cls pool", where, out, first, B * d);
        expect_bits("cls pool backward", where, dx, d_first, n * d);
        if (mean == NULL) {
            remember(mean = m, B * d);
            remember(d_mean = dm, n * d);
            expect_near("mean pool", m, true_mean, B * d, 1e-6);
        } else {
            expect_bits("mean pool", where, m, mean, B * d);
            expect_bits("mean pool backward acc", where, dm, d_mean, n * d);
            free(m), free(dm);
        }
        finish(e);
        free(out), free(dx);
    }
    free(x), free(dout), free(before), free(first), free(d_first), free(mean), free(d_mean), free(true_mean);
}

/* ---- normalisation ---- */

/* Rows of one size each, from too small to be divided by their norm to such whose squares overflow. */
static void check_normalize(size_t n, size_t d)
{
    float *x = noise(n * d, 7), *dout = noise(n * d, 8), *wanted = NULL, *wanted_dx = NULL;
    double *truth = calloc(n * d, sizeof *truth);

    for (size_t row = 0; row < n; row++) {
        double squares = 0;
        for (size_t i = 0; i < d; i++) {
            x[row * d + i] = ldexpf(x[row * d + i], (int)row * 16 - 64);
            squares += (double)x[row * d + i] * x[row * d + i];
        }
        for (size_t i = 0; i < d; i++)
            truth[row * d + i] = x[row * d + i] / fmax(sqrt(squares), 1e-12);
    }
    for (size_t i = 0; i < n_settings; i++) {
        llm_engine *e = engine_of(settings[i]);
        float *out = room(n * d), *norm = room(n), *dx = room(n * d);
        llm_l2_normalize_forward(e, out, norm, x, n, d);
        llm_l2_normalize_backward(e, dx, false, dout, out, norm, n, d);
        if (wanted == NULL) {
            remember(wanted = out, n * d);
            remember(wanted_dx = dx, n * d);
            for (size_t row = 0; row < n; row++)
                expect_near("l2 normalize", out + row * d, truth + row * d, d, 1e-6);
        } else {
            expect_bits("l2 normalize", name_of(settings[i]), out, wanted, n * d);
            expect_bits("l2 normalize backward", name_of(settings[i]), dx, wanted_dx, n * d);
            free(out), free(dx);
        }
        finish(e);
        free(norm);
    }
    free(x), free(dout), free(wanted), free(wanted_dx), free(truth);
}

void check_sequences(void)
{
    static const struct {
        size_t B, n_head, dh;
        int32_t lengths[6];
    } cases[] = {
        { 1, 1, 1, { 1 } },
        { 3, 2, 4, { 1, 1, 1 } },
        { 4, 2, 16, { 9, 1, 15, 33 } },
        { 3, 3, 7, { 64, 5, 65 } },
        { 2, 2, 33, { 129, 140 } },
        { 3, 12, 32, { 50, 50, 50 } },
        { 6, 2, 32, { 2, 256, 7, 128, 1, 31 } },
        { 1, 1, 40, { 300 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int drop = 0; drop < 3; drop++)
            check_lengths(cases[i].lengths, cases[i].B, cases[i].n_head, cases[i].dh,
                          drop == 0   ? 0.0f
                          : drop == 1 ? 0.3f
                                      : 1.0f);
        check_pooling(cases[i].lengths, cases[i].B, cases[i].n_head * cases[i].dh);
        check_pooling(cases[i].lengths, cases[i].B, 300);
    }
    check_normalize(12, 37);
    check_normalize(12, 384);
    printf("sequences end to end: %ld comparisons\n", compared);
}
