/*
 * int4_blocks.c -- weights that a file holds in 4 bits, recognised by their values.
 *
 * A weight of such a block (GGUF's Q4_1, say) is fl(d * q + m): d and m are float16, so d * q is exact and the sum is
 * rounded once. Between two weights lie whole steps of d, but for that rounding, and the block's span is 1 to 15 of them.
 * So every number of steps is tried, most often in vain at the first weights of the block; then d lies in a narrow interval
 * around span / steps, and each weight leaves an interval for m. What is found has been tried on all weights.
 */
#include "int4_blocks.h"
#include "engine/half.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { MOST_STEPS = 15, MOST_INPUTS = 32, NEIGHBOURS = 8 };

typedef struct block {
    const float *w;
    size_t n;
    double lowest, span, noise; /* noise: what rounding may add to a difference of two weights */
    int steps[MOST_INPUTS];     /* from the lowest weight to each */
} block;

/* Half of a float's last place. */
static double half_place(float x)
{
    uint32_t bits;
    uint64_t wide;
    double half;

    memcpy(&bits, &x, sizeof bits);
    bits = bits >> 23 & 255;
    wide = (uint64_t)((bits > 0 ? bits : 1) + 1023 - 151) << 52;
    memcpy(&half, &wide, sizeof half);
    return half;
}

/* The float16 number that is `away` places from the nearest one to x. False: there is none. */
static bool half_near(double x, int away, float *half)
{
    const uint16_t bits = llm_half_bits((float)x);
    const int place = (bits & 0x8000 ? -(bits & 0x7fff) : bits) + away;

    if (place > 0x7bff || place < -0x7bff)
        return false;
    *half = llm_half_value((uint16_t)(place < 0 ? 0x8000 | -place : place));
    return true;
}

/* To the nearest whole number, ties to even, as the kernels do it; anything that is no q stays none. */
static float whole(float x) { return fabsf(x) < 0x1p22f ? x + 0x1.8p23f - 0x1.8p23f : -1; }

static bool makes_all(const block *b, float d, float m)
{
    for (size_t k = 0; k < b->n; k++) {
        const float q = d == 0 ? 0 : whole((b->w[k] - m) / d);
        if (!(q >= 0 && q <= MOST_STEPS) || d * q + m != b->w[k])
            return false;
    }
    return true;
}

/* The m that goes with d, where the lowest weight has `first` steps from m. */
static bool find_minimum(const block *b, float d, int first, float *m)
{
    double least = -HUGE_VAL, most = HUGE_VAL;

    for (size_t k = 0; k < b->n; k++) {
        const double at = (double)b->w[k] - (double)d * (b->steps[k] + first), room = half_place(b->w[k]);
        least = at - room > least ? at - room : least;
        most = at + room < most ? at + room : most;
    }
    if (least > most)
        return false;
    for (int away = 0; away < 3; away++)
        if (half_near((least + most) / 2, away == 2 ? -1 : away, m) && makes_all(b, d, *m))
            return true;
    return false;
}

/* Are all weights whole steps of span / steps from the lowest one? */
static bool count_steps(block *b, int steps)
{
    const double step = b->span / steps, per_step = 1 / step, close = 0x1p-10 + 2 * b->noise * per_step;

    if (close > 0.25)
        return false;
    for (size_t k = 0; k < b->n; k++) {
        const double at = ((double)b->w[k] - b->lowest) * per_step, nearest = (double)(int)(at + 0.5);
        if (fabs(at - nearest) > close)
            return false;
        b->steps[k] = (int)nearest;
    }
    return true;
}

static bool find_scale(const block *b, int steps, float *d, float *m)
{
    const double step = b->span / steps, room = b->noise / steps;

    for (int i = 0; i < NEIGHBOURS; i++) {
        /* 0, 1, -1, 2, ...: the nearest alone, unless rounding blurs it */
        if (!half_near(step, i % 2 == 0 ? -i / 2 : i / 2 + 1, d) || *d == 0)
            continue;
        if (i > 0 && fabs((double)*d - step) > room)
            continue;
        for (int first = 0; first + steps <= MOST_STEPS; first++)
            if (find_minimum(b, *d, first, m))
                return true;
    }
    return false;
}

/* A constant is a float16 number, or some steps from one. */
static bool find_constant(const block *b, float *d, float *m)
{
    const float w = b->w[0];

    for (int i = 0; i < 4 * NEIGHBOURS; i++)
        if (half_near(w, i % 2 == 0 ? -i / 2 : i / 2 + 1, m))
            for (int q = 1; q <= MOST_STEPS; q++)
                if (half_near(((double)w - *m) / q, 0, d) && makes_all(b, *d, *m))
                    return true;
    return false;
}

bool llm_int4_block(const float *w, size_t n, float *d, float *m)
{
    block b = { .w = w, .n = n };
    float least = w[0], most = w[0], largest;

    for (size_t k = 1; k < n; k++) {
        least = w[k] < least ? w[k] : least;
        most = w[k] > most ? w[k] : most;
    }
    largest = fabsf(least) > fabsf(most) ? fabsf(least) : fabsf(most);
    if (!(largest <= (MOST_STEPS + 1) * LLM_LARGEST_HALF))
        return false;
    if (least == most)
        return find_constant(&b, d, m);
    b.lowest = least;
    b.span = (double)most - least;
    b.noise = 2 * half_place(largest);
    for (int steps = MOST_STEPS; steps > 0; steps--)
        if (count_steps(&b, steps) && find_scale(&b, steps, d, m))
            return true;
    return false;
}
