/*
 * random.c -- counter-based random numbers: Philox4x32-10, and from it uniforms, normals and permutations.
 * A number depends on its key and index alone, never on what was drawn before. Dropout's vector form of
 * Philox stands in philox_kernels.h.
 */
#include "llm_core.h"
#include "pool.h"
#include "philox.h"
#include "scalar_math.h"

#include <math.h>

#define NORMAL_GRAIN 4096 /* elements a thread takes at a time; even, for a block gives two */

void llm_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];

    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t product0 = (uint64_t)PHILOX_M0 * c0;
        uint64_t product1 = (uint64_t)PHILOX_M1 * c2;

        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)product1;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)product0;
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* FNV-1a (Fowler, Noll, Vo), then mixed so that names alike in their ends differ in all bits */
uint64_t llm_site(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (; *name != '\0'; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return philox_mix64(hash);
}

/* Two 64-bit words: block `index` of `stream` in one of the domains that keep uses apart */
static void draw_block(uint64_t words[2], uint64_t seed, uint64_t stream, uint64_t index, uint64_t domain)
{
    uint64_t s = philox_mix64(stream) ^ domain;
    uint32_t counter[4] = { (uint32_t)index, (uint32_t)(index >> 32), (uint32_t)s, (uint32_t)(s >> 32) };
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    uint32_t out[4];

    llm_philox(out, counter, key);
    words[0] = out[0] | (uint64_t)out[1] << 32;
    words[1] = out[2] | (uint64_t)out[3] << 32;
}

static double unit_interval(uint64_t word) { return (double)(word >> 11) * 0x1p-53; }

double llm_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t words[2];

    draw_block(words, seed, stream, index, PHILOX_DOMAIN_UNIFORM);
    return unit_interval(words[0]);
}

typedef struct normal_job {
    float *out;
    double mean, std;
    uint64_t seed, stream;
    size_t n;
} normal_job;

/* Box & Muller 1958: elements 2i and 2i + 1 from block i. begin is even. */
static void normal_range(void *arg, size_t begin, size_t end)
{
    const normal_job *job = arg;

    for (size_t i = begin; i < end; i += 2) {
        uint64_t words[2];
        double radius, cosine, sine;

        draw_block(words, job->seed, job->stream, i / 2, PHILOX_DOMAIN_NORMAL);
        radius = job->std * sqrt(-2.0 * llm_log(1.0 - unit_interval(words[0])));
        llm_cos_sin_turn(&cosine, &sine, unit_interval(words[1]));
        job->out[i] = (float)(job->mean + radius * cosine);
        if (i + 1 < end)
            job->out[i + 1] = (float)(job->mean + radius * sine);
    }
}

void llm_normal(llm_engine *e, float *out, float mean, float std, uint64_t seed, uint64_t stream, size_t n)
{
    normal_job job = { out, mean, std, seed, stream, n };

    llm_parallel_for(e, n, NORMAL_GRAIN, normal_range, &job);
}

/* High half of a 64 x 64 bit product */
static uint64_t multiply_high(uint64_t a, uint64_t b)
{
    uint64_t a0 = (uint32_t)a, a1 = a >> 32;
    uint64_t b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
    uint64_t low_middle = a0 * b1 + (uint32_t)middle;

    return a1 * b1 + (middle >> 32) + (low_middle >> 32);
}

/* Fisher-Yates; a 64-bit word scaled to i + 1 choices has a bias below (i + 1) / 2^64 */
void llm_permutation(int64_t *out, size_t n, uint64_t seed, uint64_t epoch)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (int64_t)i;
    llm_permutation_swaps(out, 1, n, seed, epoch);
}

void llm_permutation_swaps(int64_t *out, size_t first, size_t end, uint64_t seed, uint64_t epoch)
{
    for (size_t i = end; i-- > first;) {
        uint64_t words[2];
        size_t j;
        int64_t taken;

        draw_block(words, seed, epoch, i, PHILOX_DOMAIN_PERMUTATION);
        j = (size_t)multiply_high(words[0], (uint64_t)i + 1);
        taken = out[i];
        out[i] = out[j];
        out[j] = taken;
    }
}
