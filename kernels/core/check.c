/*
 * check.c -- the core against itself: every instruction set, thread count, tile size and path must give the
 * bits of the scalar path on one thread, and those must be right against plain loops. Prints a line per
 * group; exits 1 at any difference. The fingerprint of the results is the same on every machine.
 *
 * usage: check [--no-fork]   (emulators and thread sanitizers may not follow a fork)
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "llm_core.h"
#include "numerics.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;
static uint64_t fingerprint = 0xcbf29ce484222325u;
static long compared;

static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "FAILED ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    failures++;
}

static float *room(size_t n)
{
    float *p = malloc((n + 1) * sizeof *p);
    if (p == NULL)
        abort();
    for (size_t i = 0; i <= n; i++)
        p[i] = NAN; /* whatever is not written shows */
    return p;
}

static float *noise(size_t n, uint64_t seed)
{
    float *p = room(n);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)(2 * llm_uniform(seed, 1, i) - 1);
    return p;
}

static float *same(const float *p, size_t n)
{
    float *copy = room(n);
    memcpy(copy, p, n * sizeof *p);
    return copy;
}

/* Results of the scalar path go into the fingerprint (FNV-1a over their bits). */
static void remember(const float *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, p + i, sizeof bits);
        fingerprint = (fingerprint ^ bits) * 0x100000001b3u;
    }
}

static void expect_bits(const char *what, const char *where, const float *got, const float *wanted, size_t n)
{
    compared++;
    for (size_t i = 0; i < n; i++)
        if (memcmp(got + i, wanted + i, sizeof *got) != 0) {
            fail("%s on %s: element %zu is %a, not %a", what, where, i, (double)got[i], (double)wanted[i]);
            return;
        }
}

/* Relative distance of the whole, in the 2-norm. */
static void expect_near(const char *what, const float *got, const double *wanted, size_t n, double bound)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference += (got[i] - wanted[i]) * (got[i] - wanted[i]);
        size += wanted[i] * wanted[i];
    }
    compared++;
    if (!(sqrt(difference) <= bound * sqrt(size)))
        fail("%s: relative error %g, allowed %g", what, sqrt(difference / size), bound);
}

/* ---- engines: every instruction set of this machine, one to three threads ---- */

typedef struct setting {
    llm_isa isa;
    int threads, chunk;
} setting;

static setting settings[LLM_ISA_COUNT * 4];
static size_t n_settings;

static void list_settings(void)
{
    static const int threads[] = { 1, 2, 3 }, chunks[] = { 64, 5, 33 };
    for (int isa = 0; isa < LLM_ISA_COUNT; isa++)
        for (int i = 0; i < 3 && llm_isa_available((llm_isa)isa); i++)
            settings[n_settings++] = (setting){ (llm_isa)isa, threads[i], chunks[i] };
}

static llm_engine *engine_of(setting s)
{
    llm_engine *e = llm_engine_create();
    if (e == NULL || !llm_engine_set_isa(e, s.isa))
        abort();
    llm_engine_set_threads(e, s.threads);
    llm_engine_set_attention_chunk(e, s.chunk);
    return e;
}

static const char *name_of(setting s)
{
    static char name[64];
    snprintf(name, sizeof name, "%s, %d threads, chunk %d", llm_isa_name(s.isa), s.threads, s.chunk);
    return name;
}

static void finish(llm_engine *e)
{
    if (llm_engine_status(e) != LLM_OK)
        fail("status %d", (int)llm_engine_status(e));
    llm_engine_destroy(e);
}

/* ---- matrix product ---- */

/* The definition in numerics.h, one element at a time. */
static void plain_gemm(float *C, const float *A, const float *B, size_t M, size_t N, size_t K, size_t ldc,
                       size_t lda, size_t ldb, bool ta, bool tb, bool acc)
{
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            float c = acc ? C[i * ldc + j] : 0.0f;
            for (size_t k0 = 0; k0 < K; k0 += LLM_GEMM_KB) {
                float sum = 0.0f;
                for (size_t k = k0; k < K && k < k0 + LLM_GEMM_KB; k++)
                    sum =
                        fmaf(ta ? A[k * lda + i] : A[i * lda + k], tb ? B[j * ldb + k] : B[k * ldb + j], sum);
                c += sum;
            }
            C[i * ldc + j] = c;
        }
}

static void check_gemm_shape(size_t M, size_t N, size_t K, unsigned form)
{
    const bool ta = form & 1, tb = form & 2, acc = form & 4;
    const size_t ldc = N + form % 3, lda = (ta ? M : K) + 1, ldb = (tb ? K : N) + (form & 1);
    const size_t na = (ta ? K : M) * lda, nb = (tb ? N : K) * ldb, nc = M * ldc;
    float *A = noise(na, 1), *B = noise(nb, 2), *before = noise(nc, 3), *wanted = same(before, nc);

    plain_gemm(wanted, A, B, M, N, K, ldc, lda, ldb, ta, tb, acc);
    for (size_t i = 0; i < n_settings; i++) {
        char what[96];
        float *C = same(before, nc);
        llm_engine *e = engine_of(settings[i]);
        llm_gemm(e, C, A, B, M, N, K, ldc, lda, ldb, ta, tb, acc);
        snprintf(what, sizeof what, "gemm %zu x %zu x %zu%s%s%s", M, N, K, ta ? " ta" : "", tb ? " tb" : "",
                 acc ? " acc" : "");
        expect_bits(what, name_of(settings[i]), C, wanted, nc);
        finish(e);
        free(C);
    }
    free(A), free(B), free(before), free(wanted);
}

static void check_gemm(void)
{
    static const size_t shapes[][3] = {
        { 1, 1, 1 },       { 1, 5, 3 },     { 7, 1, 130 },   { 8, 16, 16 },    { 1, 300, 257 },
        { 2, 33, 128 },    { 14, 32, 129 }, { 15, 31, 40 },  { 28, 64, 100 },  { 29, 65, 385 },
        { 61, 17, 400 },   { 100, 130, 0 }, { 230, 75, 70 }, { 37, 1100, 20 }, { 113, 40, 1500 },
        { 130, 129, 260 }, { 300, 1, 50 },
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (unsigned form = 0; form < 8; form++)
            check_gemm_shape(shapes[i][0], shapes[i][1], shapes[i][2], form);
    printf("matrix product: %ld comparisons\n", compared);
}

static void check_linear_and_transpose(void)
{
    const size_t n = 37, in = 45, out = 70;
    float *x = noise(n * in, 1), *w = noise(in * out, 2), *b = noise(out, 3), *dout = noise(n * out, 4);
    float *y = room(n * out), *dx = room(n * in), *dw = room(in * out), *xt = room(n * in);

    plain_gemm(y, x, w, n, out, in, out, in, out, false, false, false);
    for (size_t i = 0; i < n * out; i++)
        y[i] += b[i % out];
    plain_gemm(dx, dout, w, n, in, out, in, out, out, false, true, false);
    plain_gemm(dw, x, dout, in, out, n, out, in, out, true, false, false);
    for (size_t i = 0; i < n * in; i++)
        xt[i % in * n + i / in] = x[i];
    for (size_t i = 0; i < n_settings; i++) {
        llm_engine *e = engine_of(settings[i]);
        float *y2 = room(n * out), *dx2 = room(n * in), *dw2 = room(in * out), *xt2 = room(n * in);
        llm_linear_forward(e, y2, x, w, b, n, in, out);
        llm_linear_backward(e, dx2, false, dw2, false, NULL, false, dout, x, w, n, in, out);
        llm_transpose(e, xt2, x, n, in);
        expect_bits("linear forward", name_of(settings[i]), y2, y, n * out);
        expect_bits("linear dx", name_of(settings[i]), dx2, dx, n * in);
        expect_bits("linear dw", name_of(settings[i]), dw2, dw, in * out);
        expect_bits("transpose", name_of(settings[i]), xt2, xt, n * in);
        finish(e);
        free(y2), free(dx2), free(dw2), free(xt2);
    }
    free(x), free(w), free(b), free(dout), free(y), free(dx), free(dw), free(xt);
    printf("linear, transpose: %ld comparisons\n", compared);
}

/* ---- attention ---- */

/* One sequence and head in double, no dropout; d* may be NULL. Rows are `stride` apart, out rows `D`. */
static void plain_attention(double *out, double *dq, double *dk, double *dv, const float *q, const float *k,
                            const float *v, const float *dout, size_t T, size_t dh, size_t stride, size_t D)
{
    double *p = calloc(T, sizeof *p), *dp = calloc(T, sizeof *dp), scale = 1 / sqrt((double)dh);

    for (size_t t = 0; t < T; t++) {
        double max = -INFINITY, sum = 0, delta = 0;
        for (size_t s = 0; s <= t; s++) {
            p[s] = 0;
            for (size_t c = 0; c < dh; c++)
                p[s] += (double)q[t * stride + c] * k[s * stride + c] * scale;
            max = fmax(max, p[s]);
        }
        for (size_t s = 0; s <= t; s++)
            sum += p[s] = exp(p[s] - max);
        for (size_t s = 0; s <= t; s++) {
            p[s] /= sum;
            dp[s] = 0;
            for (size_t c = 0; c < dh; c++) {
                out[t * D + c] += p[s] * v[s * stride + c];
                dp[s] += (double)dout[t * D + c] * v[s * stride + c];
                dv[s * stride + c] += p[s] * dout[t * D + c];
            }
            delta += p[s] * dp[s];
        }
        for (size_t s = 0; s <= t; s++)
            for (size_t c = 0; c < dh; c++) {
                dq[t * stride + c] += p[s] * (dp[s] - delta) * scale * k[s * stride + c];
                dk[s * stride + c] += p[s] * (dp[s] - delta) * scale * q[t * stride + c];
            }
    }
    free(p), free(dp);
}

typedef struct attention_result {
    float *out, *max, *sum, *dqkv;
} attention_result;

static attention_result run_attention(llm_engine *e, const llm_attention_shape *s, const float *qkv,
                                      const float *dout, const float *before)
{
    const size_t n = s->B * s->T * s->D, rows = s->B * s->n_head * s->T;
    attention_result r = { room(n), room(rows), room(rows),
                           before == NULL ? room(3 * n) : same(before, 3 * n) };

    llm_attention_forward(e, r.out, r.max, r.sum, qkv, qkv + s->D, qkv + 2 * s->D, s);
    llm_attention_backward(e, r.dqkv, r.dqkv + s->D, r.dqkv + 2 * s->D, before != NULL, dout, r.out, r.max,
                           r.sum, qkv, qkv + s->D, qkv + 2 * s->D, s);
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
            plain_attention(out + o, grads + at, grads + at + s->D, grads + at + 2 * s->D, qkv + at,
                            qkv + at + s->D, qkv + at + 2 * s->D, dout + o, s->T, dh, 3 * s->D, s->D);
        }
    expect_near("attention forward", r->out, out, n, 1e-6);
    expect_near("attention backward", r->dqkv, grads, 3 * n, 2e-6);
    free(out), free(grads);
}

/* Chunks of a sequence through a cache against the rows of the full forward. */
static void check_cached(llm_engine *e, const char *where, const llm_attention_shape *s, const float *qkv,
                         const float *wanted)
{
    static const size_t plans[][3] = {
        { 1, 1, 1 }, { 7, 1, 1 }, { 16, 5, 1 }, { 40, 33, 2 }, { 1000, 1, 1 }
    };
    const size_t stride = 3 * s->D;

    for (size_t plan = 0; plan < sizeof plans / sizeof *plans; plan++) {
        llm_kv_cache *c = llm_kv_cache_create(s->n_head, s->D / s->n_head, s->T + plan);
        float *out = room(s->T * s->D);
        for (size_t past = 0, step = 0, n; past < s->T; past += n, step++) {
            n = plans[plan][step < 3 ? step : 2];
            if (n > s->T - past)
                n = s->T - past;
            const float *q = qkv + past * stride;
            llm_attention_cached(e, out + past * s->D, c, past, q, q + s->D, q + 2 * s->D, n, stride, stride,
                                 stride);
        }
        expect_bits("cached attention", where, out, wanted, s->T * s->D);
        free(out);
        llm_kv_cache_destroy(c);
    }
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
    float *qkv = noise(3 * n, 1), *dout = noise(n, 2), *before = noise(3 * n, 3);
    attention_result wanted, added;

    for (size_t i = 0; i < n_settings; i++) {
        const char *where = name_of(settings[i]);
        llm_engine *e = engine_of(settings[i]);
        attention_result r = run_attention(e, &s, qkv, dout, NULL),
                         a = run_attention(e, &s, qkv, dout, before);
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
        if (p == 0 && B == 1)
            check_cached(e, where, &s, qkv, wanted.out);
        finish(e);
    }
    free_result(wanted);
    free_result(added);
    free(qkv), free(dout), free(before);
}

static void check_attention(void)
{
    static const size_t shapes[][4] = { { 1, 1, 1, 1 },    { 1, 1, 2, 16 },  { 2, 8, 4, 4 },
                                        { 1, 9, 1, 3 },    { 1, 50, 1, 40 }, { 3, 64, 2, 32 },
                                        { 1, 129, 2, 33 }, { 1, 300, 1, 64 } };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int drop = 0; drop < 3; drop++)
            check_attention_shape(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3],
                                  drop == 0   ? 0.0f
                                  : drop == 1 ? 0.3f
                                              : 1.0f);
    printf("attention: %ld comparisons\n", compared);
}

/* ---- the pool ---- */

static bool stop_after(void *left) { return (*(int *)left)-- <= 0; }

static void check_stop(void)
{
    const size_t n = 200;
    float *a = noise(n * n, 1), *c = room(n * n);
    llm_engine *e = engine_of((setting){ llm_isa_best(), 2, 64 });
    int left = 0;

    llm_engine_set_should_stop(e, stop_after, &left);
    llm_gemm(e, c, a, a, n, n, n, n, n, n, false, false, false);
    if (llm_engine_status(e) != LLM_STOPPED)
        fail("a stopped engine says %d", (int)llm_engine_status(e));
    c[0] = 42;
    llm_gemm(e, c, a, a, n, n, n, n, n, n, false, false, false);
    if (c[0] != 42)
        fail("an engine that was stopped goes on");
    left = 1 << 20;
    llm_engine_clear_status(e);
    llm_gemm(e, c, a, a, n, n, n, n, n, n, false, false, false);
    if (c[0] == 42)
        fail("a cleared engine does not run");
    finish(e);
    free(a), free(c);
}

/* A child of a process whose pool runs starts its own. */
static void check_fork(void)
{
    const size_t n = 300;
    float *a = noise(n * n, 1), *c = room(n * n), *wanted = room(n * n);
    llm_engine *e = engine_of((setting){ llm_isa_best(), 2, 64 });

    llm_gemm(e, wanted, a, a, n, n, n, n, n, n, false, false, false);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        llm_gemm(e, c, a, a, n, n, n, n, n, n, false, false, false);
        _exit(memcmp(c, wanted, n * n * sizeof *c) != 0);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        fail("a forked child: status %d", status);
    finish(e);
    free(a), free(c), free(wanted);
}

int main(int argc, char **argv)
{
    list_settings();
    for (size_t i = 0; i < n_settings; i += 3)
        printf("%s ", llm_isa_name(settings[i].isa));
    printf("with 1 to 3 threads\n");
    check_gemm();
    check_linear_and_transpose();
    check_attention();
    check_stop();
    if (argc < 2 || strcmp(argv[1], "--no-fork") != 0)
        check_fork();
    printf("%s, %ld comparisons, fingerprint %016llx\n", failures ? "FAILED" : "all the same bits", compared,
           (unsigned long long)fingerprint);
    return failures != 0;
}
