/*
 * check_training.c -- twenty steps of a small GPT with dropout, clipping and AdamW on every instruction set with
 * one to four threads: losses, weights and optimizer state must be the scalar path's, bit for bit. Then the ops
 * that this model has no use for.
 */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { L = 2, H = 3, D = 39, T = 21, B = 3, N = B * T, V = 101, STEPS = 20 };

/* Parameters of a layer in one array, in this order; then embeddings, positions, the last norm. */
enum {
    LN_1 = 0,
    QKV = LN_1 + 2 * D,
    PROJECT = QKV + 3 * D * (D + 1),
    LN_2 = PROJECT + D * (D + 1),
    EXPAND = LN_2 + 2 * D,
    CONTRACT = EXPAND + 4 * D * (D + 1),
    LAYER = CONTRACT + D * (4 * D + 1)
};
enum { WTE = L * LAYER, WPE = WTE + V * D, LN_F = WPE + T * D, PARAMETERS = LN_F + 2 * D };

typedef struct activations {
    float x[N * D], ln_1[N * D], qkv[3 * N * D], attended[N * D], h[N * D], ln_2[N * D], hidden[4 * N * D],
        active[4 * N * D], mean_1[N], rstd_1[N], mean_2[N], rstd_2[N], max[B * H * T], sum[B * H * T];
} activations;

enum { SITES = 20 + L }; /* of dropout: 1, 10 + layer, 20 + layer */

typedef struct training {
    llm_engine *e;
    uint64_t step;
    float w[PARAMETERS], grad[PARAMETERS], m[PARAMETERS], v[PARAMETERS], losses[STEPS];
    activations layer[L + 1]; /* the last one holds the stream after all layers, its norm and statistics */
    uint16_t kept[SITES][(N * D + LLM_MASK_BITS - 1) / LLM_MASK_BITS]; /* what dropout leaves to the backward */
    float wide[4 * N * D], dwide[4 * N * D], branch[N * D], dx[N * D], dh[N * D], log_sum[N], token_loss[N];
} training;

static void drop(training *t, float *out, bool acc, const float *x, uint64_t site)
{
    llm_dropout(t->e, out, acc, x, 0.15f, (llm_dropout_key){ 3, t->step, site }, 0, N * D, t->kept[site]);
}

static void drop_backward(training *t, float *dx, const float *dout, uint64_t site)
{
    llm_dropout_backward(t->e, dx, false, dout, 0.15f, t->kept[site], N * D);
}

static llm_attention_shape attention_shape(const training *t, uint64_t layer)
{
    return (llm_attention_shape){ .B = B,
                                  .T = T,
                                  .D = D,
                                  .n_head = H,
                                  .q_stride = 3 * D,
                                  .k_stride = 3 * D,
                                  .v_stride = 3 * D,
                                  .dropout_p = 0.15f,
                                  .key = { 3, t->step, 100 + layer } };
}

static void layer_forward(training *t, uint64_t i)
{
    const float *w = t->w + i * LAYER;
    activations *a = &t->layer[i];
    const llm_attention_shape s = attention_shape(t, i);

    llm_layernorm_forward(t->e, a->ln_1, a->mean_1, a->rstd_1, a->x, w + LN_1, w + LN_1 + D, 1e-5f, N, D);
    llm_linear_forward(t->e, a->qkv, a->ln_1, w + QKV, w + QKV + 3 * D * D, N, D, 3 * D);
    llm_attention_forward(t->e, a->attended, a->max, a->sum, a->qkv, a->qkv + D, a->qkv + 2 * D, &s);
    llm_linear_forward(t->e, t->branch, a->attended, w + PROJECT, w + PROJECT + D * D, N, D, D);
    llm_copy(t->e, a->h, a->x, false, N * D);
    drop(t, a->h, true, t->branch, 10 + i);
    llm_layernorm_forward(t->e, a->ln_2, a->mean_2, a->rstd_2, a->h, w + LN_2, w + LN_2 + D, 1e-5f, N, D);
    llm_linear_forward(t->e, a->hidden, a->ln_2, w + EXPAND, w + EXPAND + 4 * D * D, N, D, 4 * D);
    llm_gelu_forward(t->e, a->active, a->hidden, 4 * N * D);
    llm_linear_forward(t->e, t->branch, a->active, w + CONTRACT, w + CONTRACT + 4 * D * D, N, 4 * D, D);
    llm_copy(t->e, t->layer[i + 1].x, a->h, false, N * D);
    drop(t, t->layer[i + 1].x, true, t->branch, 20 + i);
}

/* t->dx: from the gradient of the layer's output to that of its input. */
static void layer_backward(training *t, uint64_t i)
{
    const float *w = t->w + i * LAYER;
    float *g = t->grad + i * LAYER, *qkv = t->dwide;
    activations *a = &t->layer[i];
    const llm_attention_shape s = attention_shape(t, i);

    drop_backward(t, t->branch, t->dx, 20 + i);
    llm_linear_backward(t->e, t->wide, false, g + CONTRACT, false, g + CONTRACT + 4 * D * D, false, t->branch,
                        a->active, w + CONTRACT, N, 4 * D, D);
    llm_gelu_backward(t->e, t->dwide, false, t->wide, a->hidden, 4 * N * D);
    llm_linear_backward(t->e, t->branch, false, g + EXPAND, false, g + EXPAND + 4 * D * D, false, t->dwide, a->ln_2,
                        w + EXPAND, N, D, 4 * D);
    llm_layernorm_backward(t->e, t->dx, true, g + LN_2, false, g + LN_2 + D, false, t->branch, a->h, w + LN_2,
                           a->mean_2, a->rstd_2, N, D);
    drop_backward(t, t->branch, t->dx, 10 + i);
    llm_linear_backward(t->e, t->dh, false, g + PROJECT, false, g + PROJECT + D * D, false, t->branch, a->attended,
                        w + PROJECT, N, D, D);
    llm_attention_backward(t->e, qkv, qkv + D, qkv + 2 * D, false, t->dh, a->attended, a->max, a->sum, a->qkv,
                           a->qkv + D, a->qkv + 2 * D, &s);
    llm_linear_backward(t->e, t->branch, false, g + QKV, false, g + QKV + 3 * D * D, false, qkv, a->ln_1, w + QKV, N, D,
                        3 * D);
    llm_layernorm_backward(t->e, t->dx, true, g + LN_1, false, g + LN_1 + D, false, t->branch, a->x, w + LN_1,
                           a->mean_1, a->rstd_1, N, D);
}

static float head_loss(training *t, const int32_t *targets)
{
    activations *a = &t->layer[L];
    const float *w = t->w;
    size_t count = 0;

    llm_layernorm_forward(t->e, a->ln_1, a->mean_1, a->rstd_1, a->x, w + LN_F, w + LN_F + D, 1e-5f, N, D);
    llm_lm_head_loss_forward_backward(t->e, t->token_loss, t->log_sum, t->branch, t->grad + WTE, 1.0f / (N - 1),
                                      a->ln_1, w + WTE, targets, N, D, V);
    llm_layernorm_backward(t->e, t->dx, false, t->grad + LN_F, false, t->grad + LN_F + D, false, t->branch, a->x,
                           w + LN_F, a->mean_1, a->rstd_1, N, D);
    return (float)llm_mean_loss(t->token_loss, targets, N, &count);
}

static void train_step(training *t)
{
    int32_t ids[N], targets[N], positions[N];

    for (size_t i = 0; i < N; i++) {
        ids[i] = (int32_t)(V * llm_uniform(t->step, 1, i));
        targets[i] = i == 5 ? -1 : (int32_t)(V * llm_uniform(t->step, 2, i));
        positions[i] = (int32_t)(i % T);
    }
    memset(t->grad, 0, sizeof t->grad);
    llm_embedding_forward(t->e, t->layer[0].h, t->w + WTE, ids, N, D);
    llm_embedding_forward(t->e, t->branch, t->w + WPE, positions, N, D);
    llm_add(t->e, t->layer[0].h, t->layer[0].h, t->branch, N * D);
    drop(t, t->layer[0].x, false, t->layer[0].h, 1);
    for (uint64_t i = 0; i < L; i++)
        layer_forward(t, i);
    t->losses[t->step - 1] = head_loss(t, targets);
    for (uint64_t i = L; i-- > 0;)
        layer_backward(t, i);
    drop_backward(t, t->branch, t->dx, 1);
    llm_embedding_backward(t->e, t->grad + WTE, t->branch, ids, N, V, D);
    llm_embedding_backward(t->e, t->grad + WPE, t->branch, positions, N, T, D);

    const double norm = sqrt(llm_sum_squares(t->e, t->grad, PARAMETERS));
    const llm_adamw o = { 1e-2, 0.9, 0.999, 1e-8, 0.01, t->step, norm > 0.5 ? (float)(0.5 / norm) : 1.0f };
    llm_adamw_step(t->e, t->w, t->m, t->v, t->grad, &o, PARAMETERS);
}

static training *train(setting s)
{
    training *t = calloc(1, sizeof *t);

    if (t == NULL)
        abort();
    t->e = engine_of(s);
    llm_normal(t->e, t->w, 0, 0.2f, 1, 1, PARAMETERS);
    for (t->step = 1; t->step <= STEPS; t->step++)
        train_step(t);
    finish(t->e);
    return t;
}

static void check_steps(void)
{
    training *wanted = NULL;

    for (int isa = 0; isa < LLM_ISA_COUNT; isa++)
        for (int threads = 1; threads <= 4 && llm_isa_available((llm_isa)isa); threads++) {
            const setting s = { (llm_isa)isa, threads, threads == 1 ? 64 : 5 * threads };
            training *t = train(s);
            if (wanted == NULL) {
                wanted = t;
                remember(t->losses, STEPS);
                remember(t->w, PARAMETERS);
                remember(t->grad, PARAMETERS);
                remember(t->v, PARAMETERS);
                if (!(t->losses[0] < 20 && t->losses[STEPS - 1] > 0))
                    fail("losses from %g to %g", (double)t->losses[0], (double)t->losses[STEPS - 1]);
                continue;
            }
            expect_bits("losses of 20 steps", name_of(s), t->losses, wanted->losses, STEPS);
            expect_bits("weights after 20 steps", name_of(s), t->w, wanted->w, PARAMETERS);
            expect_bits("gradients of step 20", name_of(s), t->grad, wanted->grad, PARAMETERS);
            expect_bits("m after 20 steps", name_of(s), t->m, wanted->m, PARAMETERS);
            expect_bits("v after 20 steps", name_of(s), t->v, wanted->v, PARAMETERS);
            free(t);
        }
    free(wanted);
    printf("training: %ld comparisons\n", compared);
}

/* ---- ops of other models, and those that stand alone ---- */

enum { ROWS = 70, WIDTH = 83, ALL = ROWS * WIDTH, RESULTS = 12 };

static void other_ops(llm_engine *e, float *out[RESULTS], const float *x, const float *y)
{
    float *rstd = room(ROWS), *softmax = out[5];

    llm_sub(e, out[0], x, y, ALL);
    llm_mul(e, out[1], x, y, ALL);
    llm_div(e, out[2], x, y, ALL);
    llm_rmsnorm_forward(e, out[3], rstd, x, NULL, 1e-5f, ROWS, WIDTH);
    llm_rmsnorm_backward(e, out[4], false, NULL, false, y, x, NULL, rstd, ROWS, WIDTH);
    llm_softmax_forward(e, softmax, x, ROWS, WIDTH);
    llm_softmax_backward(e, out[6], false, y, softmax, ROWS, WIDTH);
    llm_relu_forward(e, out[7], x, ALL);
    llm_relu_backward(e, out[8], false, y, x, ALL);
    llm_scale(e, out[9], x, 0.3f, false, ALL);
    llm_mul_acc(e, out[9], x, y, true, ALL);
    llm_neg(e, out[10], x, ALL);
    llm_sum_rows(e, out[10], true, x, ROWS, WIDTH);
    llm_fill(e, out[11], 0.1f, ALL);
    out[11][0] = (float)llm_sum(e, x, ALL);
    free(rstd);
}

static void check_other_ops(void)
{
    float *x = noise(ALL, 1), *y = noise(ALL, 2), *wanted[RESULTS];

    for (size_t i = 0; i < n_settings; i++) {
        float *got[RESULTS];
        llm_engine *e = engine_of(settings[i]);
        for (size_t r = 0; r < RESULTS; r++)
            got[r] = room(ALL);
        other_ops(e, got, x, y);
        finish(e);
        for (size_t r = 0; r < RESULTS; r++) {
            if (i == 0) {
                wanted[r] = got[r];
                remember(got[r], ALL);
                continue;
            }
            char what[32];
            snprintf(what, sizeof what, "other op %zu", r);
            expect_bits(what, name_of(settings[i]), got[r], wanted[r], ALL);
            free(got[r]);
        }
    }
    for (size_t r = 0; r < RESULTS; r++)
        free(wanted[r]);
    free(x), free(y);
    printf("other ops: %ld comparisons\n", compared);
}

void check_training(void)
{
    check_steps();
    check_other_ops();
}
