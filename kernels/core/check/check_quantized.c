/*
 * check_quantized.c -- weights in fewer bits: the same bytes whatever packed them, and the same products from a view
 * of those bytes in read-only memory, which ends where they end.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "check.h"
#include "engine/half.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* FNV-1a over the packed bytes of all shapes: of LLM_PACKING_VERSION 1. Another number needs another version. */
#define BYTES_OF_VERSION      0xd91361f52adbf4e4u
#define INT4_BYTES_OF_VERSION 0x04bc7e659b7f9660u
#define FNV_START             0xcbf29ce484222325u

static uint64_t hash = FNV_START;

/* n bytes that end at a page nobody may touch, and may be read only; `base` and `size` are for munmap. */
static const void *at_the_end(const void *bytes, size_t n, char **base, size_t *size)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (n + page - 1) / page * page;

    *size = pages + page;
    *base = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (*base == MAP_FAILED)
        abort();
    memcpy(*base + pages - n, bytes, n);
    mprotect(*base, pages, PROT_READ);
    mprotect(*base + pages, page, PROT_NONE);
    return *base + pages - n;
}

static void check_view(setting s, const llm_packed *w, const float *x, const float *b, const float *wanted, size_t n)
{
    const size_t i = llm_packed_inputs(w), o = llm_packed_outputs(w);
    const llm_precision precision = llm_packed_precision(w);
    size_t bytes, size;
    char *base;
    const void *data = llm_packed_data(w, &bytes), *there = at_the_end(data, bytes, &base, &size);
    llm_packed *view = llm_packed_view(there, bytes, i, o, precision);
    llm_engine *e = engine_of(s);
    float *out = room(n * o);

    if (view == NULL || !llm_packed_is_view(view) || llm_packed_is_view(w) || llm_packed_bytes(view) != bytes)
        fail("a view of %zu x %zu is refused", i, o);
    else {
        llm_packed_forward(e, out, x, view, b, n);
        expect_bits("view", name_of(s), out, wanted, n * o);
        for (size_t row = 0; row < n; row += 3) /* alone: another path through the panels */
            llm_packed_forward(e, out + row * o, x + row * i, view, b, 1);
        expect_bits("view, one row", name_of(s), out, wanted, n * o);
    }
    llm_packed_destroy(view);
    finish(e);
    munmap(base, size);
    free(out);
}

/* Noise with what rounds in a special way: ties, zeros, the largest and the smallest numbers. */
static float *weights(size_t n)
{
    static const float special[] = { 0.0f,    -0.0f,      FLT_MAX,     -FLT_MAX, FLT_TRUE_MIN,     -FLT_TRUE_MIN,
                                     FLT_MIN, 0x1.01p+0f, -0x1.03p-9f, 127.5f,   FLT_TRUE_MIN * 5, 0x1.fffffep+7f };
    float *w = noise(n, 1);

    for (size_t i = 0; i < n; i += 17)
        w[i] = special[i / 17 % (sizeof special / sizeof *special)];
    return w;
}

static void check_shape(size_t i, size_t o, llm_precision precision)
{
    const size_t n = 7;
    float *w = weights(i * o), *t = room(i * o), *x = noise(n * i, 2), *b = noise(o, 3), *wanted = room(n * o);
    llm_engine *e = engine_of(settings[0]);
    llm_packed *first = llm_pack(e, w, i, o, false, precision);
    size_t bytes;
    const unsigned char *data = llm_packed_data(first, &bytes);

    if (bytes != llm_pack_bytes(i, o, precision))
        fail("packed %zu x %zu: %zu bytes", i, o, bytes);
    for (size_t at = 0; at < bytes; at++)
        hash = (hash ^ data[at]) * 0x100000001b3u;
    for (size_t at = 0; at < n * i; at++)
        x[at] *= 1e-6f; /* no sum is infinite */
    llm_packed_forward(e, wanted, x, first, b, n);
    llm_transpose(e, t, w, i, o);
    finish(e);
    for (size_t at = 0; at < 2 * n_settings; at++) {
        const bool transposed = at % 2 == 1;
        size_t bytes2;
        e = engine_of(settings[at / 2]);
        llm_packed *other = llm_pack(e, transposed ? t : w, i, o, transposed, precision);
        const void *data2 = llm_packed_data(other, &bytes2);
        compared++;
        if (bytes2 != bytes || memcmp(data2, data, bytes) != 0)
            fail("packed %zu x %zu on %s%s: other bytes", i, o, name_of(settings[at / 2]), transposed ? ", t" : "");
        llm_packed_destroy(other);
        finish(e);
        if (!transposed)
            check_view(settings[at / 2], first, x, b, wanted, n);
    }
    llm_packed_destroy(first);
    free(w), free(t), free(x), free(b), free(wanted);
}

/* Weights that 4 bits give exactly: products with them are those of float32, to the bit, and packed again they are the same. */
static void check_recovery(size_t i, size_t o)
{
    const size_t n = 3;
    float *w = room(i * o), *x = noise(n * i, 2), *wanted = room(n * o), *out = room(n * o);
    uint32_t word = 1;

    for (size_t k = 0; k < i; k++)
        for (size_t j = 0; j < o; j++) {
            const uint16_t d = (uint16_t)(1 + (k / 32 * 977 + j * 131) % 0x2fff), m = (uint16_t)(d + 0x0c00 + j % 7);
            word = word * 1664525 + 1013904223;
            w[k * o + j] = llm_half_value(d) * (float)(word >> 28) - llm_half_value(m);
        }
    for (size_t s = 0; s < n_settings; s++) {
        llm_engine *e = engine_of(settings[s]);
        llm_packed *packed = llm_pack(e, w, i, o, false, LLM_INT4);
        llm_linear_forward(e, wanted, x, w, NULL, n, i, o);
        llm_packed_forward(e, out, x, packed, NULL, n);
        expect_bits("recovered int4", name_of(settings[s]), out, wanted, n * o);
        llm_packed_forward(e, out, x, packed, NULL, 1);
        expect_bits("recovered int4, one row", name_of(settings[s]), out, wanted, n * o);
        llm_packed_destroy(packed);
        finish(e);
    }
    free(w), free(x), free(wanted), free(out);
}

static void expect_no_view(const char *why, const void *bytes, size_t n, size_t i, size_t o, llm_precision precision)
{
    llm_packed *view = llm_packed_view(bytes, n, i, o, precision);

    compared++;
    if (view != NULL)
        fail("a view is made of %s", why);
    llm_packed_destroy(view);
}

static void check_refusals(void)
{
    llm_engine *e = engine_of(settings[0]);
    float *w = noise(200 * 70, 1);
    llm_packed *packed = llm_pack(e, w, 200, 70, false, LLM_INT8);
    size_t n;
    const char *bytes = llm_packed_data(packed, &n);

    expect_no_view("too few bytes", bytes, n - 1, 200, 70, LLM_INT8);
    expect_no_view("too many bytes", bytes, n + 1, 200, 70, LLM_INT8);
    expect_no_view("bytes of another shape", bytes, n, 201, 70, LLM_INT8);
    expect_no_view("bytes of another precision", bytes, n, 200, 70, LLM_BF16);
    expect_no_view("float32", bytes, 200 * 70 * sizeof(float), 200, 70, LLM_FLOAT32);
    expect_no_view("a precision that is none", bytes, n, 200, 70, (llm_precision)77);
    expect_no_view("bytes out of line", bytes + 4, n, 200, 70, LLM_INT8);
    expect_no_view("nothing", NULL, n, 200, 70, LLM_INT8);
    expect_no_view("int8 as int4", bytes, n, 200, 70, LLM_INT4);
    expect_no_view("too few bytes of int4", bytes, llm_pack_bytes(200, 70, LLM_INT4) - 1, 200, 70, LLM_INT4);
    /* sizes whose bytes, modulo what an address can hold, are few */
    for (size_t bits = 8; bits <= sizeof(size_t) * 8; bits++) {
        const size_t i = SIZE_MAX >> (sizeof(size_t) * 8 - bits), o = SIZE_MAX / 2 / i + 1;

        if (bits > 40 && llm_pack_bytes(i, o, LLM_BF16) < i)
            fail("%zu x %zu takes %zu bytes", i, o, llm_pack_bytes(i, o, LLM_BF16));
        expect_no_view("a size past all memory", bytes, 0, i, SIZE_MAX / 2, LLM_BF16);
        expect_no_view("a size past all memory", bytes, n, SIZE_MAX - i, o, LLM_INT8);
        expect_no_view("a size past all memory", bytes, n, SIZE_MAX - i, o, LLM_INT4);
        expect_no_view("a size past all memory", bytes, 0, i, SIZE_MAX / 2, LLM_INT4);
        if (llm_pack(e, w, i, SIZE_MAX, false, LLM_INT8) != NULL)
            fail("%zu x SIZE_MAX is packed", i);
    }
    llm_packed_destroy(packed);
    finish(e);
    free(w);
}

void check_quantized(void)
{
    static const size_t shapes[][2] = { { 1, 1 },     { 3, 64 },    { 128, 65 }, { 129, 63 },
                                        { 300, 200 }, { 768, 130 }, { 0, 7 } };

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        check_shape(shapes[s][0], shapes[s][1], LLM_BF16);
        check_shape(shapes[s][0], shapes[s][1], LLM_INT8);
    }
    if (hash != BYTES_OF_VERSION || llm_packing_version() != 1)
        fail("packed bytes are %016llx, not those of packing version %d", (unsigned long long)hash,
             llm_packing_version());
    hash = FNV_START;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        check_shape(shapes[s][0], shapes[s][1], LLM_INT4);
        check_recovery(shapes[s][0], shapes[s][1]);
    }
    if (hash != INT4_BYTES_OF_VERSION)
        fail("int4 bytes are %016llx, not those of packing version %d", (unsigned long long)hash,
             llm_packing_version());
    check_refusals();
    printf("weights in fewer bits: %ld comparisons\n", compared);
}
