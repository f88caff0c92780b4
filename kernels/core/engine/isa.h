/*
 * isa.h -- the table of kernels that one instruction set fills, and the engine that holds one of them.
 *
 * isa_<name>.c is compiled with its ISA's flags: it defines LLM_VEC_<NAME>, includes vec.h and the kernel
 * headers (static functions over v16), and defines the table llm_kernels_<name>. All other sources are
 * plain C and reach vector code only through e->kernels. llm_isa_available() in engine.c is the one place
 * that asks the machine what it can run.
 */
#ifndef LLM_ISA_H
#define LLM_ISA_H

#include "llm_core.h"
#include "math_kernels_table.h"
#include "quantized.h"

/* ---- matrix products (gemm_kernels.h) ---- */

/* A matrix as its rows and columns are reached: element (i,k) at p[i * row + k * column]. */
typedef struct llm_view {
    const float *p;
    size_t row, column;
} llm_view;

typedef struct llm_gemm_kernels {
    size_t mr, nr;     /* micro-tile: rows and columns of C held in registers */
    double task_flops; /* a task between two polls of should_stop does about this much */
    /* floats of scratch that product() needs for a task of that size */
    size_t (*scratch)(size_t m, size_t n, size_t k);
    /*
     * C (m,n) = or += A (m,k) B (k,n), whole k, and then row (n), which may be NULL, to every row, by one thread;
     * unfinished once stopped(e), which is asked often
     */
    void (*product)(float *c, size_t ldc, llm_view a, llm_view b, size_t m, size_t n, size_t k, bool acc,
                    const float *row, float *scratch, bool (*stopped)(llm_engine *e), llm_engine *e);
    /* c (m,n) += row (n), to every row */
    void (*add_row)(float *c, size_t ldc, const float *row, size_t m, size_t n);
    /* dst (cols,rows) = transpose of src (rows,cols) */
    void (*transpose)(float *dst, size_t ldd, const float *src, size_t lds, size_t rows, size_t cols);
    /* Multiply-adds in registers, fma_chains * 16 of them a round (measure_kernels.h) */
    float (*fma_rounds)(size_t rounds, float x);
    size_t fma_chains;
} llm_gemm_kernels;

/* ---- products of one row (row_product_kernels.h) ---- */

typedef struct llm_row_product_kernels {
    /* sums (n) = a (kb) times kb rows of B, `b_row` apart: one numeric block (kb at most LLM_GEMM_KB), from +0 */
    void (*block)(float *sums, const float *a, const float *b, size_t b_row, size_t n, size_t kb);
    /* c (n) = or += the blocks' sums (blocks,n) in their order; then row (n) is added unless it is NULL */
    void (*add_blocks)(float *c, const float *sums, size_t blocks, size_t n, bool acc, const float *row);
    /* c (n) = or += a (k) times B, of which each column is contiguous */
    void (*columns)(float *c, const float *a, llm_view b, size_t n, size_t k, bool acc);
} llm_row_product_kernels;

/* ---- attention (attention_kernels.h) ---- */

/*
 * One head over stored keys and values: keys transposed in panels of LLM_KEY_PANEL, (key s, column c) at
 * panels[s / P * P * d_head + c * P + s % P]; values as rows of llm_padded(d_head) floats, zeros at their
 * end.
 */
enum { LLM_KEY_PANEL = 32 };

static inline size_t llm_padded(size_t n) { return (n + LLM_KEY_PANEL - 1) / LLM_KEY_PANEL * LLM_KEY_PANEL; }

/* What the rows of one head share. `index` is the logical index of the weight (query 0, key 0). */
typedef struct llm_attention_head {
    size_t d_head;
    size_t keys;                    /* the first so many are what each query attends to; 0: those up to its own, */
    size_t window;                  /* the last so many of them; 0: all */
    float scale;                    /* 1 / sqrt(d_head) */
    const llm_dropout_key *dropout; /* NULL: none */
    float dropout_scale;
    uint32_t dropout_threshold;
    uint64_t index;
    size_t index_row; /* T_max: from one query's weights to the next one's */
    uint16_t *kept;   /* the mask of query 0, or NULL; a query's begins with the word of the first key it sees */
    size_t kept_row;  /* words from one query's mask to the next one's */
} llm_attention_head;

/* The first key that query t sees */
static inline size_t llm_first_key(const llm_attention_head *h, size_t t)
{
    return h->window > 0 && t >= h->window ? t + 1 - h->window : 0;
}

/* One head's tensors in the backward; strides are from token to token. */
typedef struct llm_attention_grads {
    float *dq, *dk, *dv;
    const float *q, *k, *v, *out, *dout;
    const float *row_max, *row_sum;
    size_t q_stride, k_stride, v_stride, out_stride, T;
    bool acc, acc_kv;               /* dq; dk and dv */
    bool (*stopped)(llm_engine *e); /* asked between blocks: true, and the gradients are left undefined */
    llm_engine *e;
} llm_attention_grads;

typedef struct llm_attention_kernels {
    /* Put n keys (values), `stride` floats apart, to positions at .. at + n of the store. */
    void (*store_keys)(float *panels, const float *k, size_t stride, size_t at, size_t n, size_t d_head);
    void (*store_values)(float *rows, const float *v, size_t stride, size_t at, size_t n, size_t d_head);
    /*
     * out rows of the queries at positions from .. from + n, each over the keys up to its own position, in its window,
     * or h->keys. Keys before the first query's window need not be stored.
     * q and out point at the first of them; row_max and row_sum (n) may be NULL.
     */
    void (*forward)(float *out, size_t out_stride, float *row_max, float *row_sum, const float *q, size_t q_stride,
                    size_t from, size_t n, const float *panels, const float *rows, const llm_attention_head *h,
                    float *scratch);
    size_t (*forward_scratch)(size_t keys, size_t d_head); /* floats */
    void (*backward)(const llm_attention_grads *g, const llm_attention_head *h, float *scratch);
    size_t (*backward_scratch)(size_t T, size_t d_head);
} llm_attention_kernels;

/* ---- one instruction set ---- */

typedef struct llm_kernels {
    llm_isa isa;
    bool compiled; /* false: built for another architecture, the rest is empty */
    llm_gemm_kernels gemm;
    llm_row_product_kernels row_product;
    llm_attention_kernels attention;
    llm_math_kernels math;
    llm_packed_kernels packed;
} llm_kernels;

extern const llm_kernels llm_kernels_scalar, llm_kernels_neon, llm_kernels_avx2, llm_kernels_avx512;

/* ---- the engine ---- */

struct llm_engine {
    const llm_kernels *kernels;
    int threads;
    size_t attention_chunk;
    llm_should_stop should_stop;
    void *stop_arg;
    llm_status status;
    float **scratch;      /* one buffer per thread, see llm_scratch() */
    size_t *scratch_size; /* their sizes in floats */
    int scratch_count;
    float *logits; /* of the fused head, a chunk of rows at a time */
    size_t logits_size;
};

/* An op of a stopped or failed engine returns at once. */
static inline bool llm_failed(const llm_engine *e) { return e->status != LLM_OK; }

/*
 * Give every thread of the engine at least `floats` floats, 64-byte aligned, before a parallel section.
 * false: LLM_NO_MEMORY is set. What a buffer held before is lost.
 */
bool llm_scratch(llm_engine *e, size_t floats);

/* Uninitialised floats, 64-byte aligned, to be freed by free(); NULL: no memory. */
float *llm_aligned_alloc(size_t floats);

#endif /* LLM_ISA_H */
