/*
 * check.c -- the core against itself: every instruction set, thread count, tile size and path must give the
 * bits of the scalar path on one thread, and those must be right against plain loops. Prints a line per
 * group; exits 1 at any difference. The fingerprints of the results are the same on every machine; what came with
 * sequences end to end has one of its own, and so has what came with heads that share keys.
 *
 * usage: check [--no-fork] [--scalar-once]
 *   --no-fork       emulators and thread sanitizers may not follow a fork
 *   --scalar-once   the scalar path with three threads only: without fused multiply-add in hardware it takes
 *                   most of the time, above all in a build with checks
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "check.h"
#include "engine/numerics.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;
#define NOTHING 0xcbf29ce484222325u
static uint64_t fingerprint = NOTHING;
long compared;

void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "FAILED ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    failures++;
}

float *room(size_t n)
{
    float *p = malloc((n + 1) * sizeof *p);
    if (p == NULL)
        abort();
    for (size_t i = 0; i <= n; i++)
        p[i] = NAN; /* whatever is not written shows */
    return p;
}

float *noise(size_t n, uint64_t seed)
{
    float *p = room(n);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)(2 * llm_uniform(seed, 1, i) - 1);
    return p;
}

float *same(const float *p, size_t n)
{
    float *copy = room(n);
    memcpy(copy, p, n * sizeof *p);
    return copy;
}

/* Results of the scalar path go into the fingerprint (FNV-1a over their bits). */
void remember(const float *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, p + i, sizeof bits);
        fingerprint = (fingerprint ^ bits) * 0x100000001b3u;
    }
}

void expect_bits(const char *what, const char *where, const float *got, const float *wanted, size_t n)
{
    compared++;
    for (size_t i = 0; i < n; i++)
        if (memcmp(got + i, wanted + i, sizeof *got) != 0) {
            fail("%s on %s: element %zu is %a, not %a", what, where, i, (double)got[i], (double)wanted[i]);
            return;
        }
}

/* Relative distance of the whole, in the 2-norm. */
void expect_near(const char *what, const float *got, const double *wanted, size_t n, double bound)
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

setting settings[LLM_ISA_COUNT * 3];
size_t n_settings;

static void list_settings(bool scalar_once)
{
    static const int threads[] = { 1, 2, 3 }, chunks[] = { 64, 5, 33 };
    for (int isa = 0; isa < LLM_ISA_COUNT; isa++)
        for (int i = isa == LLM_ISA_SCALAR && scalar_once ? 2 : 0; i < 3 && llm_isa_available((llm_isa)isa); i++)
            settings[n_settings++] = (setting){ (llm_isa)isa, threads[i], chunks[i] };
}

static bool has_option(int argc, char **argv, const char *option)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], option) == 0)
            return true;
    return false;
}

llm_engine *engine_of(setting s)
{
    llm_engine *e = llm_engine_create();
    if (e == NULL || !llm_engine_set_isa(e, s.isa))
        abort();
    llm_engine_set_threads(e, s.threads);
    llm_engine_set_attention_chunk(e, s.chunk);
    return e;
}

const char *name_of(setting s)
{
    static char name[64];
    snprintf(name, sizeof name, "%s, %d threads, chunk %d", llm_isa_name(s.isa), s.threads, s.chunk);
    return name;
}

void finish(llm_engine *e)
{
    if (llm_engine_status(e) != LLM_OK)
        fail("status %d", (int)llm_engine_status(e));
    llm_engine_destroy(e);
}

/* ---- matrix product ---- */

/* The definition in numerics.h, one element at a time. */
void plain_gemm(float *C, const float *A, const float *B, size_t M, size_t N, size_t K, size_t ldc, size_t lda,
                size_t ldb, bool ta, bool tb, bool acc)
{
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            float c = acc ? C[i * ldc + j] : 0.0f;
            for (size_t k0 = 0; k0 < K; k0 += LLM_GEMM_KB) {
                float sum = 0.0f;
                for (size_t k = k0; k < K && k < k0 + LLM_GEMM_KB; k++)
                    sum = fmaf(ta ? A[k * lda + i] : A[i * lda + k], tb ? B[j * ldb + k] : B[k * ldb + j], sum);
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
        { 1, 1, 1 },      { 1, 5, 3 },      { 7, 1, 130 },     { 8, 16, 16 },     { 1, 300, 257 }, { 2, 33, 128 },
        { 14, 32, 129 },  { 15, 31, 40 },   { 28, 64, 100 },   { 29, 65, 385 },   { 61, 17, 400 }, { 100, 130, 0 },
        { 230, 75, 70 },  { 37, 1100, 20 }, { 113, 40, 1500 }, { 130, 129, 260 }, { 300, 1, 50 },  { 30, 20, 7000 },
        { 460, 70, 400 }, { 1, 1300, 400 }, { 1, 70, 9000 },
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

/* ---- head and loss ---- */

/* Fused in one call, in two, and not at all; more rows than one chunk of logits has. */
static void check_head_loss(void)
{
    const size_t n = 131, d = 5, vocab = 66000;
    const float scale = 1.0f / 130;
    float *x = noise(n * d, 1), *w = noise(vocab * d, 2), *logits = room(n * vocab);
    float *losses = room(n), *log_sum = room(n), *dx = room(n * d), *dw = room(vocab * d);
    float taken[131];
    int32_t targets[131];

    for (size_t i = 0; i < n; i++)
        targets[i] = i == 7 ? -1 : (int32_t)(i * 7919 % vocab);
    llm_engine *e = engine_of(settings[0]);
    llm_gemm(e, logits, x, w, n, vocab, d, vocab, d, d, false, true, false);
    llm_cross_entropy_forward(e, losses, log_sum, logits, targets, n, vocab);
    llm_cross_entropy_backward(e, logits, false, scale, logits, log_sum, targets, n, vocab);
    for (size_t i = 0; i < n; i++) /* the target's share comes last */
        if (targets[i] >= 0) {
            taken[i] = logits[i * vocab + (size_t)targets[i]];
            logits[i * vocab + (size_t)targets[i]] = 0;
        }
    llm_gemm(e, dx, logits, w, n, d, vocab, d, vocab, d, false, false, false);
    for (size_t i = 0; i < n; i++)
        if (targets[i] >= 0) {
            logits[i * vocab + (size_t)targets[i]] = taken[i];
            llm_scale(e, dx + i * d, w + (size_t)targets[i] * d, taken[i], true, d);
        }
    llm_gemm(e, dw, logits, x, vocab, d, n, d, vocab, d, true, false, false);
    finish(e);
    remember(losses, n), remember(dx, n * d), remember(dw, vocab * d);
    for (size_t i = 0; i < 2 * n_settings; i++) {
        const setting s = settings[i / 2];
        float *losses2 = room(n), *log_sum2 = room(n), *dx2 = room(n * d), *dw2 = room(vocab * d);
        e = engine_of(s);
        if (i % 2 == 0)
            llm_lm_head_loss_forward_backward(e, losses2, log_sum2, dx2, dw2, scale, x, w, targets, n, d, vocab);
        else {
            llm_lm_head_loss_forward(e, losses2, log_sum2, x, w, targets, n, d, vocab);
            llm_lm_head_loss_backward(e, dx2, false, dw2, false, scale, x, w, log_sum2, targets, n, d, vocab);
        }
        expect_bits("head loss", name_of(s), losses2, losses, n);
        expect_bits("head log_sum", name_of(s), log_sum2, log_sum, n);
        expect_bits("head dx", name_of(s), dx2, dx, n * d);
        expect_bits("head dw", name_of(s), dw2, dw, vocab * d);
        finish(e);
        free(losses2), free(log_sum2), free(dx2), free(dw2);
    }
    free(x), free(w), free(logits), free(losses), free(log_sum), free(dx), free(dw);
    printf("head and loss: %ld comparisons\n", compared);
}

int main(int argc, char **argv)
{
    list_settings(has_option(argc, argv, "--scalar-once"));
    for (size_t i = 0; i < n_settings; i++)
        if (i == 0 || settings[i].isa != settings[i - 1].isa)
            printf("%s ", llm_isa_name(settings[i].isa));
    printf("with 1 to 3 threads\n");
    check_gemm();
    check_linear_and_transpose();
    check_attention();
    check_head_loss();
    check_training();
    check_memory();
    check_quantized();
    check_pool(!has_option(argc, argv, "--no-fork"));
    const unsigned long long first = fingerprint;
    fingerprint = NOTHING;
    check_sequences();
    const unsigned long long second = fingerprint;
    fingerprint = NOTHING;
    check_shared_heads();
    printf("%s, %ld comparisons, fingerprints %016llx %016llx %016llx\n", failures ? "FAILED" : "all the same bits",
           compared, first, second, (unsigned long long)fingerprint);
    return failures != 0;
}
