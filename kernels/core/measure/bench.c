/*
 * bench.c -- how fast the core is, against ceilings measured on the spot: FMA peak and memory bandwidth.
 * Prints a table; each line is the best of several runs.
 *
 * usage: bench [threads] [isa] [filter]    filter: only lines that contain it
 *
 * One thread is judged by its CPU time, so that a busy machine does not blur it; more by wall time.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "llm_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define RUNS      7
#define LONG_RUN  2.0 /* seconds of all runs together after which no further one is made */
#define MOST_DATA ((size_t)1 << 26)

static llm_engine *e;
static int threads = 1;
static const char *filter = "";
static double peak_gflops, peak_gbytes;

static double now(void)
{
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef void (*work)(const size_t *size);

static float *buffer[12]; /* MOST_DATA floats each, made on first use */

static float *data(int i)
{
    if (buffer[i] == NULL) {
        void *p = NULL;
        if (posix_memalign(&p, (size_t)2 << 20, MOST_DATA * sizeof(float)) != 0)
            abort();
#if defined(__linux__)
        madvise(p, MOST_DATA * sizeof(float), MADV_HUGEPAGE); /* as tensors have it */
#endif
        buffer[i] = p;
        llm_normal(e, buffer[i], 0, 0.1f, (uint64_t)i + 1, 1, MOST_DATA / 16);
        for (size_t j = MOST_DATA / 16; j < MOST_DATA; j += MOST_DATA / 16)
            memcpy(buffer[i] + j, buffer[i], MOST_DATA / 16 * sizeof(float));
    }
    return buffer[i];
}

static double best_time(work w, const size_t *size)
{
    double best = 1e9, total = 0;
    w(size);
    for (int run = 0; run < RUNS && total < LONG_RUN; run++) {
        double start = now();
        w(size);
        double seconds = now() - start;
        best = seconds < best ? seconds : best;
        total += seconds;
    }
    return best;
}

/* One line: against the FMA peak when flops are given, against bandwidth when bytes are. */
static void line(const char *name, work w, const size_t *size, double flops, double bytes)
{
    char what[96];
    snprintf(what, sizeof what, name, size[0], size[1], size[2]);
    if (strstr(what, filter) == NULL)
        return;
    double seconds = best_time(w, size);
    printf("%-38s %10.3f ms", what, seconds * 1e3);
    if (flops > 0)
        printf(" %9.1f GFLOP/s %6.3f of peak", flops / seconds * 1e-9, flops / seconds * 1e-9 / peak_gflops);
    if (bytes > 0)
        printf(" %9.1f GB/s %6.3f of memory", bytes / seconds * 1e-9, bytes / seconds * 1e-9 / peak_gbytes);
    printf("\n");
    fflush(stdout);
}

/* ---- ceilings ---- */

static double burst_flops;

static void burst(const size_t *size) { burst_flops = llm_fma_burst(e, size[0]); }

static double sum_sink;

static void read_memory(const size_t *size) { sum_sink = llm_sum(e, data(0), size[0]); }

static void measure_ceilings(void)
{
    size_t bursts = 4 * (size_t)threads, all = MOST_DATA;
    double seconds = best_time(burst, &bursts);
    peak_gflops = burst_flops / seconds * 1e-9;
    peak_gbytes = (double)all * sizeof(float) / best_time(read_memory, &all) * 1e-9;
    printf("%s, %d thread%s: FMA %.1f GFLOP/s, memory reads %.1f GB/s\n", llm_isa_name(llm_engine_isa(e)), threads,
           threads == 1 ? "" : "s", peak_gflops, peak_gbytes);
}

/* ---- products: size = M, N, K ---- */

static void nn(const size_t *s)
{
    llm_gemm(e, data(2), data(0), data(1), s[0], s[1], s[2], s[1], s[2], s[1], false, false, false);
}

static void nt(const size_t *s)
{
    llm_gemm(e, data(2), data(0), data(1), s[0], s[1], s[2], s[1], s[2], s[2], false, true, false);
}

static void tn(const size_t *s)
{
    llm_gemm(e, data(2), data(0), data(1), s[0], s[1], s[2], s[1], s[0], s[1], true, false, false);
}

static void product_lines(void)
{
    static const size_t rows[] = { 64, 256, 1024, 4096 },
                        layers[][2] = { { 768, 2304 }, { 768, 768 }, { 768, 3072 }, { 3072, 768 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t l = 0; l < sizeof layers / sizeof *layers; l++) {
            size_t m = rows[i], in = layers[l][0], out = layers[l][1];
            double flops = 2.0 * (double)m * (double)in * (double)out;
            line("linear %zu x %zu x %zu", nn, (size_t[]){ m, out, in }, flops, 0);
            line("linear dx %zu x %zu x %zu", nt, (size_t[]){ m, in, out }, flops, 0);
            line("linear dw %zu x %zu x %zu", tn, (size_t[]){ in, out, m }, flops, 0);
        }
    for (size_t i = 1; i < 3; i++) {
        size_t m = rows[i], vocab = 50257, d = 768;
        double flops = 2.0 * (double)m * (double)vocab * (double)d;
        line("head %zu x %zu x %zu", nt, (size_t[]){ m, vocab, d }, flops, 0);
        line("head dx %zu x %zu x %zu", nn, (size_t[]){ m, d, vocab }, flops, 0);
        line("head dw %zu x %zu x %zu", tn, (size_t[]){ vocab, d, m }, flops, 0);
    }
    for (size_t l = 0; l < sizeof layers / sizeof *layers; l++) /* what a few sequences read at a time */
        line("few rows %zu x %zu x %zu", nn, (size_t[]){ 8, layers[l][1], layers[l][0] }, 0,
             4.0 * (double)layers[l][0] * (double)layers[l][1]);
    line("few rows, head %zu x %zu x %zu", nt, (size_t[]){ 8, 50257, 768 }, 0, 4.0 * 50257 * 768);
    line("one row, head %zu x %zu x %zu", nt, (size_t[]){ 1, 50257, 768 }, 0, 4.0 * 50257 * 768);
    line("one row %zu x %zu x %zu", nn, (size_t[]){ 1, 3072, 768 }, 0, 4.0 * 3072 * 768);
    line("one row %zu x %zu x %zu", nn, (size_t[]){ 1, 768, 3072 }, 0, 4.0 * 3072 * 768);
}

/* ---- weights in fewer bits: size = rows, N, K ---- */

static llm_packed *weights;

static void packed(const size_t *s) { llm_packed_forward(e, data(2), data(0), weights, NULL, s[0]); }

static void packed_lines(void)
{
    static const struct {
        llm_precision precision;
        const char *name;
    } kinds[] = { { LLM_BF16, "bf16 %zu x %zu x %zu" },
                  { LLM_INT8, "int8 %zu x %zu x %zu" },
                  { LLM_INT4, "int4 %zu x %zu x %zu" } };
    static const size_t sizes[][3] = { { 1, 3072, 768 }, { 1, 50257, 768 }, { 8, 50257, 768 }, { 512, 3072, 768 } };

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            const size_t *s = sizes[j];
            weights = llm_pack(e, data(1), s[2], s[1], false, kinds[i].precision);
            if (weights == NULL)
                abort();
            line(kinds[i].name, packed, s, 2.0 * (double)s[0] * (double)s[1] * (double)s[2],
                 (double)llm_packed_bytes(weights));
            llm_packed_destroy(weights);
        }
}

/* ---- head and loss: size = rows, d, vocab ---- */

static const int32_t *targets_of(size_t n, size_t vocab)
{
    static int32_t targets[8192];
    for (size_t i = 0; i < n; i++)
        targets[i] = (int32_t)(i * 7919 % vocab);
    return targets;
}

static void head_loss(const size_t *s)
{
    llm_lm_head_loss_forward(e, data(3), data(3) + s[0], data(0), data(1), targets_of(s[0], s[2]), s[0], s[1], s[2]);
}

static void head_loss_training(const size_t *s)
{
    llm_lm_head_loss_forward_backward(e, data(3), data(3) + s[0], data(4), data(5), 1.0f / (float)s[0], data(0),
                                      data(1), targets_of(s[0], s[2]), s[0], s[1], s[2]);
}

static void head_lines(void)
{
    static const size_t rows[] = { 256, 1024 };
    for (size_t i = 0; i < 2; i++) {
        double flops = 2.0 * (double)rows[i] * 768 * 50257;
        line("head loss forward %zu", head_loss, (size_t[]){ rows[i], 768, 50257 }, flops, 0);
        line("head loss training %zu", head_loss_training, (size_t[]){ rows[i], 768, 50257 }, 3 * flops, 0);
    }
}

/* What dropout keeps: as a training step does, the forward leaves it to the backward. */
static uint16_t *mask(void) { return (uint16_t *)data(7); }

/* ---- attention: size = B, T, heads of 64; last dropout in percent ---- */

static llm_attention_shape attention_shape(const size_t *s)
{
    size_t d = 64 * s[2];
    return (llm_attention_shape){ .B = s[0],
                                  .T = s[1],
                                  .D = d,
                                  .n_head = s[2],
                                  .q_stride = 3 * d,
                                  .k_stride = 3 * d,
                                  .v_stride = 3 * d,
                                  .dropout_p = (float)s[3] / 100.0f,
                                  .key = { 1, 2, 3 },
                                  .kept = s[3] == 0 ? NULL : mask() };
}

static void attention_forward(const size_t *s)
{
    llm_attention_shape shape = attention_shape(s);
    llm_attention_forward(e, data(1), data(2), data(3), data(0), data(0) + shape.D, data(0) + 2 * shape.D, &shape);
}

static void attention_backward(const size_t *s)
{
    llm_attention_shape shape = attention_shape(s);
    size_t d = shape.D;
    llm_attention_backward(e, data(5), data(5) + d, data(5) + 2 * d, false, data(4), data(1), data(2), data(3), data(0),
                           data(0) + d, data(0) + 2 * d, &shape);
}

static void attention_lines(void)
{
    static const size_t shapes[][4] = {
        { 1, 1024, 12, 0 }, { 1, 1024, 12, 10 }, { 1, 1024, 1, 0 },
        { 4, 64, 12, 0 },   { 4, 64, 12, 10 },   { 12, 64, 4, 10 },
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const size_t *s = shapes[i];
        double flops = (double)(s[0] * s[2]) * (double)s[1] * (double)(s[1] + 1) * 64;
        const char *dropped = s[3] ? " dropout" : "";
        char name[64];
        snprintf(name, sizeof name, "attention %%zu x %%zu x %%zu%s", dropped);
        line(name, attention_forward, s, 2 * flops, 0);
        snprintf(name, sizeof name, "attention bwd %%zu x %%zu x %%zu%s", dropped);
        line(name, attention_backward, s, 5 * flops, 0);
    }
}

/* ---- elementwise and rows: size = n, or rows and d ---- */

static const llm_dropout_key key = { 1, 2, 3 };

static void fill(const size_t *s) { llm_fill(e, data(2), 1.0f, s[0]); }
static void add(const size_t *s) { llm_add(e, data(2), data(0), data(1), s[0]); }
static void copy_acc(const size_t *s) { llm_copy(e, data(2), data(0), true, s[0]); }
static void gelu(const size_t *s) { llm_gelu_forward(e, data(2), data(0), s[0]); }
static void gelu_back(const size_t *s) { llm_gelu_backward(e, data(2), false, data(1), data(0), s[0]); }
static void dropout(const size_t *s) { llm_dropout(e, data(2), false, data(0), 0.1f, key, 0, s[0], mask()); }
static void dropout_back(const size_t *s) { llm_dropout_backward(e, data(2), false, data(0), 0.1f, mask(), s[0]); }
static void squares(const size_t *s) { sum_sink = llm_sum_squares(e, data(0), s[0]); }

static void adamw(const size_t *s)
{
    const llm_adamw o = { 1e-4, 0.9, 0.999, 1e-8, 0.01, 5, 1.0f };
    memset(data(3), 0, 64);
    llm_adamw_step(e, data(1), data(2), data(6), data(0), &o, s[0]);
}

static void layernorm(const size_t *s)
{
    llm_layernorm_forward(e, data(2), data(3), data(3) + s[0], data(0), data(1), data(1) + s[1], 1e-5f, s[0], s[1]);
}

static void layernorm_back(const size_t *s)
{
    llm_layernorm_backward(e, data(2), false, data(4), false, data(5), false, data(6), data(0), data(1), data(3),
                           data(3) + s[0], s[0], s[1]);
}

static void row_sums(const size_t *s) { llm_sum_rows(e, data(2), false, data(0), s[0], s[1]); }

static void memory_lines(void)
{
    const size_t n = 38597376, small = 1024 * 3072;
    for (size_t i = 0; i < 7; i++) /* moments are squares: not negative */
        data((int)i);
    llm_mul(e, data(6), data(6), data(6), MOST_DATA);
    line("adamw %zu", adamw, (size_t[]){ n, 0, 0 }, 0, 28.0 * (double)n);
    line("sum of squares %zu", squares, (size_t[]){ n, 0, 0 }, 0, 4.0 * (double)n);
    line("fill %zu", fill, (size_t[]){ n, 0, 0 }, 0, 4.0 * (double)n);
    for (int i = 0; i < 2; i++) {
        size_t size[] = { i == 0 ? small : small / 4, 0, 0 };
        double bytes = 4.0 * (double)size[0];
        line("add %zu", add, size, 0, 3 * bytes);
        line("copy acc %zu", copy_acc, size, 0, 3 * bytes);
        line("gelu %zu", gelu, size, 0, 2 * bytes);
        line("gelu backward %zu", gelu_back, size, 0, 3 * bytes);
        line("dropout %zu", dropout, size, 0, 2 * bytes);
        line("dropout bwd %zu", dropout_back, size, 0, 2 * bytes);
    }
    line("layernorm %zu x %zu", layernorm, (size_t[]){ 1024, 768, 0 }, 0, 8.0 * 1024 * 768);
    line("layernorm backward %zu x %zu", layernorm_back, (size_t[]){ 1024, 768, 0 }, 0, 12.0 * 1024 * 768);
    line("sum of rows %zu x %zu", row_sums, (size_t[]){ 1024, 3072, 0 }, 0, 4.0 * 1024 * 3072);
}

/* ---- a sentence encoder's layer, MiniLM's: size = rows, inputs, outputs, or sequences, T, heads of 32 ---- */

static void linear_bias(const size_t *s)
{
    llm_linear_forward(e, data(2), data(0), data(1), data(3), s[0], s[1], s[2]);
}

static void gelu_exact(const size_t *s) { llm_gelu_exact_forward(e, data(2), data(0), s[0] * s[1]); }

static llm_attention_shape encoder_shape(const size_t *s)
{
    const size_t d = 32 * s[2];
    return (llm_attention_shape){
        .B = s[0], .T = s[1], .D = d, .n_head = s[2], .q_stride = d, .k_stride = d, .v_stride = d, .bidirectional = true
    };
}

static void encoder_attention(const size_t *s)
{
    llm_attention_shape shape = encoder_shape(s);
    llm_attention_forward(e, data(2), data(3), data(4), data(0), data(1), data(5), &shape);
}

static void encoder_attention_back(const size_t *s)
{
    llm_attention_shape shape = encoder_shape(s);
    llm_attention_backward(e, data(6), data(7), data(8), false, data(9), data(2), data(3), data(4), data(0), data(1),
                           data(5), &shape);
}

static void encoder_lines(void)
{
    static const size_t layers[][2] = { { 384, 384 }, { 384, 1536 }, { 1536, 384 } };
    const size_t rows = 8192, sequences[] = { 32, 256, 12 };
    const double flops = (double)(sequences[0] * sequences[2]) * (double)(sequences[1] * sequences[1]) * 32;

    for (size_t l = 0; l < sizeof layers / sizeof *layers; l++)
        line("encoder linear %zu x %zu x %zu", linear_bias, (size_t[]){ rows, layers[l][0], layers[l][1] },
             2.0 * (double)(rows * layers[l][0] * layers[l][1]), 0);
    line("encoder gelu exact %zu x %zu", gelu_exact, (size_t[]){ rows, 1536, 0 }, 0, 8.0 * (double)rows * 1536);
    line("encoder layernorm %zu x %zu", layernorm, (size_t[]){ rows, 384, 0 }, 0, 8.0 * (double)rows * 384);
    line("encoder attention %zu x %zu x %zu", encoder_attention, sequences, 4 * flops, 0);
    line("encoder attention bwd %zu x %zu x %zu", encoder_attention_back, sequences, 10 * flops, 0);
}

int main(int argc, char **argv)
{
    e = llm_engine_create();
    if (e == NULL)
        return 1;
    if (argc > 1)
        threads = atoi(argv[1]);
    for (int isa = 0; argc > 2 && isa < LLM_ISA_COUNT; isa++)
        if (strcmp(argv[2], llm_isa_name((llm_isa)isa)) == 0 && !llm_engine_set_isa(e, (llm_isa)isa))
            return 1;
    if (argc > 3)
        filter = argv[3];
    llm_engine_set_threads(e, threads);
    threads = llm_engine_threads(e);
    measure_ceilings();
    product_lines();
    packed_lines();
    head_lines();
    attention_lines();
    encoder_lines();
    memory_lines();
    llm_engine_destroy(e);
    return 0;
}
