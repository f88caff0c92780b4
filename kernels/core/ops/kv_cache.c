/*
 * kv_cache.c -- keys and values of one layer's past tokens, and attention of new tokens to them.
 *
 * Each head has a store as isa.h lays it out, the same on every instruction set, and is read by the kernel
 * of the full forward: a cached row is that row, whatever chunks it came in.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "attention.h"
#include "engine/pool.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* From here on a store is mapped. From malloc it may be memory used before: clearing it would touch all of its pages. */
#define MAP_BYTES  ((size_t)128 << 10)
#define READ_BYTES ((size_t)256 << 10) /* of keys and values: a task of one query reads so much, some 10 us */

struct llm_kv_cache {
    size_t n_head, d_head, capacity;
    size_t head_floats; /* from one head's store to the next */
    float *store;       /* per head: key panels, then value rows */
    void *memory;       /* what store lies aligned in */
    size_t mapped;      /* its bytes; 0: it is malloc's */
};

/* Zeros. The pages of positions nobody has reached stay untouched, and are nobody's memory. */
static bool get_memory(llm_kv_cache *c, size_t bytes)
{
    if (bytes < MAP_BYTES) {
        c->memory = calloc(1, bytes);
        return c->memory != NULL;
    }
    c->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    c->mapped = bytes;
    return c->memory != MAP_FAILED;
}

llm_kv_cache *llm_kv_cache_create(size_t n_head, size_t d_head, size_t capacity)
{
    llm_kv_cache *c = calloc(1, sizeof *c);
    size_t keys, values, bytes;

    if (c == NULL)
        return NULL;
    if (n_head == 0 || d_head == 0 || capacity == 0 || d_head > SIZE_MAX / 2 || capacity > SIZE_MAX / 2 ||
        __builtin_mul_overflow(llm_padded(capacity), d_head, &keys) ||
        __builtin_mul_overflow(capacity, llm_padded(d_head), &values) ||
        __builtin_add_overflow(keys, values, &c->head_floats) ||
        __builtin_mul_overflow(c->head_floats, n_head * sizeof(float), &bytes) || n_head > SIZE_MAX / sizeof(float) ||
        bytes > SIZE_MAX - 63) {
        free(c);
        return NULL;
    }
    if (!get_memory(c, bytes + 63)) {
        free(c);
        return NULL;
    }
    c->n_head = n_head;
    c->d_head = d_head;
    c->capacity = capacity;
    c->store = (float *)(((uintptr_t)c->memory + 63) & ~(uintptr_t)63);
    return c;
}

void llm_kv_cache_destroy(llm_kv_cache *c)
{
    if (c == NULL)
        return;
    if (c->mapped > 0)
        munmap(c->memory, c->mapped);
    else
        free(c->memory);
    free(c);
}

size_t llm_kv_cache_bytes(const llm_kv_cache *c) { return sizeof *c + c->n_head * c->head_floats * sizeof(float); }

static float *panels_of(const llm_kv_cache *c, size_t head) { return c->store + head * c->head_floats; }

static float *values_of(const llm_kv_cache *c, size_t head)
{
    return panels_of(c, head) + llm_padded(c->capacity) * c->d_head;
}

llm_kv_cache *llm_kv_cache_copy(const llm_kv_cache *c, size_t length)
{
    llm_kv_cache *copy = llm_kv_cache_create(c->n_head, c->d_head, c->capacity);

    if (copy == NULL)
        return NULL;
    for (size_t head = 0; head < c->n_head; head++) {
        memcpy(panels_of(copy, head), panels_of(c, head), llm_padded(length) * c->d_head * sizeof(float));
        memcpy(values_of(copy, head), values_of(c, head), length * llm_padded(c->d_head) * sizeof(float));
    }
    return copy;
}

typedef struct cached_job {
    llm_engine *e;
    llm_kv_cache *const *caches;
    const size_t *past;
    float *out;
    const float *q, *k, *v;
    size_t T, q_stride, k_stride, v_stride;
    size_t n_head, n_kv_head, group, d_head, window, tile, tiles;
} cached_job;

/* A unit is one head of keys and values of one sequence. */
static void store_range(void *arg, size_t begin, size_t end)
{
    const cached_job *j = arg;
    const llm_attention_kernels *kernels = &j->e->kernels->attention;

    for (size_t unit = begin; unit < end; unit++) {
        const size_t head = unit % j->n_kv_head, b = unit / j->n_kv_head, row = b * j->T, column = head * j->d_head;
        const llm_kv_cache *c = j->caches[b];
        kernels->store_keys(panels_of(c, head), j->k + row * j->k_stride + column, j->k_stride, j->past[b], j->T,
                            j->d_head);
        kernels->store_values(values_of(c, head), j->v + row * j->v_stride + column, j->v_stride, j->past[b], j->T,
                              j->d_head);
    }
}

/* A unit is one tile of queries of one head of one sequence. */
static void attend_range(void *arg, size_t begin, size_t end)
{
    const cached_job *j = arg;
    const size_t D = j->n_head * j->d_head;
    const llm_attention_head h = { .d_head = j->d_head, .window = j->window, .scale = llm_attention_scale(j->d_head) };

    for (size_t unit = begin; unit < end; unit++) {
        const size_t t = unit % j->tiles * j->tile, head = unit / j->tiles % j->n_head, b = unit / j->tiles / j->n_head;
        const size_t row = b * j->T + t, column = head * j->d_head, n = j->T - t < j->tile ? j->T - t : j->tile;
        const size_t kv = head / j->group;
        j->e->kernels->attention.forward(j->out + row * D + column, D, NULL, NULL, j->q + row * j->q_stride + column,
                                         j->q_stride, j->past[b] + t, n, panels_of(j->caches[b], kv),
                                         values_of(j->caches[b], kv), &h, llm_thread_scratch(j->e));
    }
}

void llm_attention_cached(llm_engine *e, float *out, llm_kv_cache *const *caches, const size_t *past, size_t B,
                          const float *q, const float *k, const float *v, size_t T, size_t q_stride, size_t k_stride,
                          size_t v_stride, size_t n_head, size_t window)
{
    cached_job j = { .e = e,
                     .caches = caches,
                     .past = past,
                     .out = out,
                     .q = q,
                     .k = k,
                     .v = v,
                     .T = T,
                     .q_stride = q_stride,
                     .k_stride = k_stride,
                     .v_stride = v_stride,
                     .n_head = n_head,
                     .window = window,
                     .tile = e->attention_chunk };
    double rows = (double)(j.tile < T ? j.tile : T);
    size_t longest = 0, seen;

    if (T == 0 || B == 0)
        return;
    for (size_t b = 0; b < B; b++)
        longest = past[b] + T > longest ? past[b] + T : longest;
    seen = window > 0 && window < longest ? window : longest;
    j.n_kv_head = caches[0]->n_head;
    j.group = n_head / j.n_kv_head;
    j.d_head = caches[0]->d_head;
    j.tiles = (T + j.tile - 1) / j.tile;
    if (!llm_scratch(e, e->kernels->attention.forward_scratch(longest, j.d_head)))
        return;
    /* few queries: keys and values are read from memory, which is what takes the time */
    size_t grain = llm_attention_grain(e, 4.0 * rows * (double)seen * (double)j.d_head);
    size_t head_bytes = 2 * seen * j.d_head * sizeof(float);
    if (j.tiles == 1 && grain > READ_BYTES / head_bytes)
        grain = READ_BYTES / head_bytes;
    /* storing a key takes about the time of a few products per element */
    if (llm_parallel_for(e, B * j.n_kv_head, llm_attention_grain(e, 32.0 * (double)T * (double)j.d_head), store_range,
                         &j))
        llm_parallel_for(e, B * j.n_head * j.tiles, grain, attend_range, &j);
}
