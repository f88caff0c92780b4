/*
 * quantized.c -- packing weights as bf16, int8 or int4, and the linear layer over them (quantized.h has the layout,
 * quantized_kernels.h the arithmetic).
 */
#include "engine/quantized.h"
#include "engine/isa.h"
#include "engine/minmax.h"
#include "engine/pool.h"
#include "int4_blocks.h"

#include <stdlib.h>
#include <string.h>

#define TASK_BYTES ((size_t)128 << 10) /* of packed weights: what a task of one row reads, some 5 us */
#define TASK_ROWS  64                  /* from here on a panel is a task of its own */

struct llm_packed {
    llm_precision precision;
    size_t inputs, outputs, panels, blocks;
    size_t panel_words; /* of one panel */
    const uint32_t *words;
    const float *scales; /* right after the words; NULL but for int8 */
    size_t bytes;
    void *own; /* where words begin, to be freed; NULL: memory of somebody else */
};

static size_t panel_words(size_t i, llm_precision precision)
{
    if (precision == LLM_INT4)
        return (i / LLM_INT4_BLOCK + (i % LLM_INT4_BLOCK > 0)) * LLM_PACKED_COLUMNS + (i / 2 + i % 2) * 16;
    return i * (precision == LLM_BF16 ? LLM_PACKED_COLUMNS / 2 : LLM_PACKED_COLUMNS / 4);
}

/* Sizes of a layer, without memory for it. False: not a packed precision, or more than can be addressed. */
static bool describe(llm_packed *p, size_t i, size_t o, llm_precision precision)
{
    const size_t panels = o / LLM_PACKED_COLUMNS + (o % LLM_PACKED_COLUMNS > 0);
    const size_t blocks = i / LLM_GEMM_KB + (i % LLM_GEMM_KB > 0);
    const size_t scales = precision == LLM_INT8 ? blocks * LLM_PACKED_COLUMNS : 0;
    size_t words;

    if ((precision != LLM_BF16 && precision != LLM_INT8 && precision != LLM_INT4) ||
        i > SIZE_MAX / 16 / LLM_PACKED_COLUMNS)
        return false;
    words = panel_words(i, precision);
    if (panels > 0 && words + scales > SIZE_MAX / 8 / panels)
        return false;
    *p = (llm_packed){ .precision = precision,
                       .inputs = i,
                       .outputs = o,
                       .panels = panels,
                       .blocks = blocks,
                       .panel_words = words,
                       .bytes = panels * (words + scales) * sizeof(uint32_t) };
    return true;
}

/* Words and scales in a block of p->bytes. */
static void place(llm_packed *p, const void *block)
{
    p->words = block;
    p->scales = p->precision != LLM_INT8 ? NULL : (const float *)(p->words + p->panels * p->panel_words);
}

/* ---- packing ---- */

typedef struct pack_job {
    const llm_packed_kernels *kernels;
    const llm_packed *to;
    const float *w;
    size_t input_step, output_step; /* weight (input k, output j) is w[k * input_step + j * output_step] */
} pack_job;

/* One numeric block of a panel's weights, zeros past its last column. */
typedef struct tile {
    float w[LLM_GEMM_KB][LLM_PACKED_COLUMNS];
    size_t n; /* inputs */
} tile;

static void load_tile(tile *t, const pack_job *j, size_t first, size_t columns, size_t k0)
{
    const float *from = j->w + k0 * j->input_step + first * j->output_step;

    t->n = smaller(LLM_GEMM_KB, j->to->inputs - k0);
    if (columns < LLM_PACKED_COLUMNS)
        memset(t->w, 0, sizeof t->w);
    if (j->output_step == 1)
        for (size_t k = 0; k < t->n; k++)
            memcpy(t->w[k], from + k * j->input_step, columns * sizeof(float));
    else
        for (size_t column = 0; column < columns; column++)
            for (size_t k = 0; k < t->n; k++)
                t->w[k][column] = from[column * j->output_step + k];
}

/* A tile as int4 blocks at `words`; returns what follows them. */
static uint32_t *pack_int4_tile(const llm_packed_kernels *kernels, uint32_t *words, const tile *t, size_t columns)
{
    for (size_t k = 0; k < t->n; k += LLM_INT4_BLOCK) {
        const size_t n = smaller(LLM_INT4_BLOCK, t->n - k);
        float d[LLM_PACKED_COLUMNS] = { 0 }, m[LLM_PACKED_COLUMNS] = { 0 }, column[LLM_INT4_BLOCK];
        uint32_t known[LLM_PACKED_COLUMNS] = { 0 };
        for (size_t j = 0; j < columns; j++) {
            for (size_t i = 0; i < n; i++)
                column[i] = t->w[k + i][j];
            known[j] = llm_int4_block(column, n, &d[j], &m[j]);
        }
        kernels->pack_int4(words, t->w[k], n, d, m, known);
        words += panel_words(n, LLM_INT4);
    }
    return words;
}

static void pack_panel_task(void *arg, size_t panel)
{
    const pack_job *j = arg;
    const llm_packed *p = j->to;
    const size_t first = panel * LLM_PACKED_COLUMNS, columns = smaller(LLM_PACKED_COLUMNS, p->outputs - first);
    uint32_t *const block = p->own, *words = block + panel * p->panel_words;
    float *scales = (float *)(block + p->panels * p->panel_words) + panel * p->blocks * LLM_PACKED_COLUMNS;
    tile t;

    for (size_t k = 0; k < p->inputs; k += LLM_GEMM_KB) {
        load_tile(&t, j, first, columns, k);
        if (p->precision == LLM_BF16)
            j->kernels->pack_bf16(words + k * 32, t.w[0], t.n);
        else if (p->precision == LLM_INT8)
            j->kernels->pack_int8((int8_t *)(words + k * 16), scales + k / LLM_GEMM_KB * LLM_PACKED_COLUMNS, t.w[0],
                                  t.n);
        else
            words = pack_int4_tile(j->kernels, words, &t, columns);
    }
}

size_t llm_pack_bytes(size_t i, size_t o, llm_precision precision)
{
    llm_packed p;

    return describe(&p, i, o, precision) ? p.bytes : SIZE_MAX;
}

llm_packed *llm_pack(llm_engine *e, const float *w, size_t i, size_t o, bool transposed, llm_precision precision)
{
    llm_packed *p = llm_failed(e) ? NULL : calloc(1, sizeof *p);
    pack_job j = { .kernels = &e->kernels->packed,
                   .to = p,
                   .w = w,
                   .input_step = transposed ? 1 : o,
                   .output_step = transposed ? i : 1 };

    if (p == NULL)
        return NULL;
    if (describe(p, i, o, precision) && (p->own = llm_aligned_alloc(p->bytes / sizeof(float) + 16)) != NULL) {
        place(p, p->own);
        if (llm_parallel(e, p->panels, pack_panel_task, &j))
            return p;
    }
    llm_packed_destroy(p);
    return NULL;
}

llm_packed *llm_packed_view(const void *bytes, size_t n, size_t i, size_t o, llm_precision precision)
{
    llm_packed described, *p;

    if (!describe(&described, i, o, precision) || n != described.bytes ||
        (uintptr_t)bytes % LLM_PACKED_ALIGNMENT != 0 || (bytes == NULL && n > 0) || (p = malloc(sizeof *p)) == NULL)
        return NULL;
    *p = described;
    place(p, bytes);
    return p;
}

const void *llm_packed_data(const llm_packed *p, size_t *n)
{
    *n = p->bytes;
    return p->words;
}

void llm_packed_destroy(llm_packed *p)
{
    if (p == NULL)
        return;
    free(p->own);
    free(p);
}

int llm_packing_version(void) { return LLM_PACKING_VERSION; }

const char *llm_precision_name(llm_precision precision)
{
    static const char *const names[LLM_PRECISIONS] = { "float32", "bf16", "int8", "int4" };

    return names[precision];
}

bool llm_packed_is_view(const llm_packed *p) { return p->own == NULL; }

size_t llm_packed_bytes(const llm_packed *p) { return p == NULL ? 0 : p->bytes; }

llm_precision llm_packed_precision(const llm_packed *p) { return p->precision; }

size_t llm_packed_inputs(const llm_packed *p) { return p->inputs; }

size_t llm_packed_outputs(const llm_packed *p) { return p->outputs; }

/* ---- the linear layer ---- */

typedef struct packed_job {
    llm_engine *e;
    float *out;
    const float *x, *b;
    const llm_packed *w;
    size_t n;
} packed_job;

static void packed_panels(void *arg, size_t begin, size_t end)
{
    const packed_job *j = arg;
    const llm_packed *w = j->w;
    const llm_packed_kernels *kernels = &j->e->kernels->packed;
    const llm_packed_product product = w->precision == LLM_BF16   ? kernels->bf16
                                       : w->precision == LLM_INT8 ? kernels->int8
                                                                  : kernels->int4;

    for (size_t panel = begin; panel < end; panel++) {
        const size_t first = panel * LLM_PACKED_COLUMNS;
        const float *scales = w->scales == NULL ? NULL : w->scales + panel * w->blocks * LLM_PACKED_COLUMNS;
        product(j->out + first, w->outputs, j->x, w->words + panel * w->panel_words, scales, j->n,
                smaller(LLM_PACKED_COLUMNS, w->outputs - first), w->inputs, j->b == NULL ? NULL : j->b + first,
                llm_thread_scratch(j->e));
    }
}

void llm_packed_forward(llm_engine *e, float *out, const float *x, const llm_packed *w, const float *b, size_t n)
{
    packed_job j = { .e = e, .out = out, .x = x, .b = b, .w = w, .n = n };
    const size_t panel_bytes = w->panel_words * sizeof *w->words;
    size_t grain = n >= TASK_ROWS || panel_bytes == 0 ? 1 : TASK_BYTES / panel_bytes / (n > 0 ? n : 1);

    if (n > 0 && llm_scratch(e, LLM_GEMM_KB * LLM_PACKED_COLUMNS))
        llm_parallel_for(e, w->panels, grain > 0 ? grain : 1, packed_panels, &j);
}
