/*
 * measure_decode.c -- GPT-2's next-token loop in plain C over the engine's ops, on weights that mean nothing: what
 * generating a token costs where nothing but arithmetic is done. Benchmarks hold generation in SQL against it.
 */
#include "measure_decode.h"
#include "engine/isa.h"

#include <stdlib.h>

#define WEIGHT 0.01f
#define EPS    1e-5f

enum { QKV, PROJECTION, WIDEN, NARROW, N_LINEAR };

/* w (i,o), or the same packed */
typedef struct linear {
    size_t i, o;
    const float *w; /* `own`, or where it was moved to */
    float *own;
    llm_packed *packed;
} linear;

typedef struct layer {
    linear linear[N_LINEAR];
    llm_kv_cache *cache;
} layer;

struct llm_decode {
    llm_engine *e;
    size_t n_layer, n_head, d, n_positions, vocab;
    layer *layers;
    linear embedding; /* w (vocab,d) */
    llm_packed *head;
    float *small; /* (4 d): gains, biases and positions of every layer */
    float *x, *normed, *wide, *mean, *logits;
};

static float *filled(llm_engine *e, size_t n)
{
    float *p = llm_aligned_alloc(n);

    if (p != NULL)
        llm_fill(e, p, WEIGHT, n);
    return p;
}

static bool make_linear(llm_engine *e, linear *l, size_t i, size_t o, llm_precision precision)
{
    l->i = i;
    l->o = o;
    l->w = l->own = filled(e, i * o);
    if (l->w == NULL || precision == LLM_FLOAT32)
        return l->w != NULL;
    l->packed = llm_pack(e, l->w, i, o, false, precision);
    free(l->own);
    l->w = l->own = NULL;
    return l->packed != NULL;
}

static bool make_layer(const llm_decode *g, layer *l, llm_precision precision)
{
    const size_t d = g->d;

    l->cache = llm_kv_cache_create(g->n_head, d / g->n_head, g->n_positions);
    return l->cache != NULL && make_linear(g->e, &l->linear[QKV], d, 3 * d, precision) &&
           make_linear(g->e, &l->linear[PROJECTION], d, d, precision) &&
           make_linear(g->e, &l->linear[WIDEN], d, 4 * d, precision) &&
           make_linear(g->e, &l->linear[NARROW], 4 * d, d, precision);
}

llm_decode *llm_decode_create(llm_engine *e, size_t n_layer, size_t n_head, size_t d, size_t n_positions, size_t vocab,
                              llm_precision precision)
{
    llm_decode *g = calloc(1, sizeof *g);

    if (g == NULL)
        return NULL;
    *g = (llm_decode){ .e = e, .n_head = n_head, .d = d, .n_positions = n_positions, .vocab = vocab };
    g->layers = calloc(n_layer, sizeof *g->layers);
    g->small = filled(e, 4 * d);
    g->x = filled(e, d);
    g->normed = filled(e, d);
    g->wide = filled(e, 4 * d);
    g->mean = filled(e, 2);
    g->logits = filled(e, vocab);
    bool made = make_linear(e, &g->embedding, vocab, d, LLM_FLOAT32) && g->layers != NULL && g->small != NULL &&
                g->x != NULL && g->normed != NULL && g->wide != NULL && g->mean != NULL && g->logits != NULL;
    for (; made && g->n_layer < n_layer; g->n_layer++)
        made = make_layer(g, &g->layers[g->n_layer], precision);
    if (made && precision != LLM_FLOAT32) {
        g->head = llm_pack(e, g->embedding.w, d, vocab, true, precision);
        made = g->head != NULL;
    }
    if (!made) {
        llm_decode_destroy(g);
        return NULL;
    }
    return g;
}

void llm_decode_destroy(llm_decode *g)
{
    if (g == NULL)
        return;
    for (size_t i = 0; g->layers != NULL && i < g->n_layer; i++) {
        for (int k = 0; k < N_LINEAR; k++) {
            free(g->layers[i].linear[k].own);
            llm_packed_destroy(g->layers[i].linear[k].packed);
        }
        llm_kv_cache_destroy(g->layers[i].cache);
    }
    llm_packed_destroy(g->head);
    float *const buffers[] = { g->embedding.own, g->small, g->x, g->normed, g->wide, g->mean, g->logits };
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        free(buffers[i]);
    free(g->layers);
    free(g);
}

static bool move_packed(llm_packed **packed, llm_decode_place place, void *arg)
{
    size_t n;
    const void *from = llm_packed_data(*packed, &n), *to = place(arg, from, n);
    llm_packed *view = to == NULL ? NULL
                                  : llm_packed_view(to, n, llm_packed_inputs(*packed), llm_packed_outputs(*packed),
                                                    llm_packed_precision(*packed));

    if (view == NULL)
        return false;
    llm_packed_destroy(*packed);
    *packed = view;
    return true;
}

static bool move_linear(linear *l, llm_decode_place place, void *arg)
{
    if (l->packed != NULL)
        return move_packed(&l->packed, place, arg);
    l->w = place(arg, l->own, l->i * l->o * sizeof(float));
    free(l->own);
    l->own = NULL;
    return l->w != NULL;
}

bool llm_decode_move(llm_decode *g, llm_decode_place place, void *arg)
{
    bool moved = true;

    for (size_t i = 0; moved && i < g->n_layer; i++)
        for (int k = 0; moved && k < N_LINEAR; k++)
            moved = move_linear(&g->layers[i].linear[k], place, arg);
    if (!moved)
        return false;
    return g->head == NULL ? move_linear(&g->embedding, place, arg) : move_packed(&g->head, place, arg);
}

/* out (o) = x (i) w + b */
static void apply(const llm_decode *g, const linear *l, float *out, const float *x)
{
    if (l->packed != NULL)
        llm_packed_forward(g->e, out, x, l->packed, g->small, 1);
    else
        llm_linear_forward(g->e, out, x, l->w, g->small, 1, l->i, l->o);
}

static void normalise(const llm_decode *g)
{
    llm_layernorm_forward(g->e, g->normed, g->mean, g->mean + 1, g->x, g->small, g->small, EPS, 1, g->d);
}

static void block(const llm_decode *g, layer *l, size_t past)
{
    const size_t d = g->d;

    normalise(g);
    apply(g, &l->linear[QKV], g->wide, g->normed);
    llm_attention_cached(g->e, g->normed, &l->cache, &past, 1, g->wide, g->wide + d, g->wide + 2 * d, 1, 3 * d, 3 * d,
                         3 * d, g->n_head, 0);
    apply(g, &l->linear[PROJECTION], g->wide, g->normed);
    llm_add(g->e, g->x, g->x, g->wide, d);
    normalise(g);
    apply(g, &l->linear[WIDEN], g->wide, g->normed);
    llm_gelu_forward(g->e, g->wide, g->wide, 4 * d);
    apply(g, &l->linear[NARROW], g->normed, g->wide);
    llm_add(g->e, g->x, g->x, g->normed, d);
}

/* Keys and values of `past` tokens in every layer's cache, as a prompt would leave them. */
bool llm_decode_prompt(llm_decode *g, size_t past)
{
    float *tokens = filled(g->e, past * 4 * g->d + 1);
    const size_t none = 0;

    if (tokens == NULL)
        return false;
    for (size_t i = 0; i < g->n_layer; i++)
        llm_attention_cached(g->e, tokens + past * 3 * g->d, &g->layers[i].cache, &none, 1, tokens, tokens + g->d,
                             tokens + 2 * g->d, past, 3 * g->d, 3 * g->d, 3 * g->d, g->n_head, 0);
    free(tokens);
    return true;
}

int64_t llm_decode_tokens(llm_decode *g, size_t past, size_t n)
{
    const llm_sampler greedy = { .temperature = 0, .top_p = 1 };
    int64_t token = 0;

    for (size_t end = past + n; past < end; past++) {
        const int32_t id = (int32_t)token;
        llm_embedding_forward(g->e, g->x, g->embedding.w, &id, 1, g->d);
        llm_add(g->e, g->x, g->x, g->small, g->d);
        for (size_t i = 0; i < g->n_layer; i++)
            block(g, &g->layers[i], past);
        normalise(g);
        if (g->head != NULL)
            llm_packed_forward(g->e, g->logits, g->normed, g->head, NULL, 1);
        else
            llm_gemm(g->e, g->logits, g->normed, g->embedding.w, 1, g->vocab, g->d, g->vocab, g->d, g->d, false, true,
                     false);
        token = llm_sample(g->logits, g->vocab, &greedy);
    }
    return token;
}
