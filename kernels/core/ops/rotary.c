/* rotary.c -- rotary position embedding: tables of cosines and sines, and the turns of each head's pairs. */
#include "engine/pool.h"
#include "engine/scalar_math.h"

#include <math.h>

#define TABLE_GRAIN  128                    /* angles of one hand-off: each costs some 50 ns */
#define ROTATE_GRAIN 32768                  /* elements */
#define TURNS        0.15915494309189533577 /* 1 / (2 pi) */

typedef struct rotary_job {
    const llm_engine *e;
    const llm_rotary_shape *s;
    const llm_rotary_scaling *scaling;
    const int32_t *positions;
    double log_theta;
    float *cosine_out, *sine_out; /* (n_positions, half) */
    const float *cosine, *sine;
    float *out; /* (n, n_head * d_head) */
    const float *x;
    bool acc, inverse;
} rotary_job;

/* theta^(-i/half) in float32 from one operation to the next, as Hugging Face computes it */
static float frequency(const rotary_job *j, size_t i)
{
    float exponent = (float)(2 * i) / (float)(2 * j->s->half);

    return 1.0f / (float)llm_exp((double)exponent * j->log_theta);
}

/* The frequency as the scaling leaves it; llama3 is transformers' _compute_llama3_parameters. */
static float scaled(const llm_rotary_scaling *r, float f)
{
    const float two_pi = 6.283185307179586f, factor = (float)r->factor;

    if (r->kind == LLM_ROTARY_LINEAR)
        return f / factor;
    if (r->kind == LLM_ROTARY_LLAMA3) {
        float wave = two_pi / f, low = (float)r->low_freq_factor, high = (float)r->high_freq_factor;
        float context = (float)r->context;

        if (wave > context / low)
            return f / factor;
        if (!(wave < context / high)) {
            float smooth = (context / wave - low) / (high - low);
            return (1.0f - smooth) * f / factor + smooth * f;
        }
    }
    return f;
}

/* cosine and sine of the angles with numbers begin to end, counted over (n_positions, half) */
static void table_range(void *arg, size_t begin, size_t end)
{
    const rotary_job *j = arg;
    const size_t half = j->s->half;

    for (size_t i = begin; i < end; i++) {
        float angle = (float)j->positions[i / half] * scaled(j->scaling, frequency(j, i % half));
        double cosine, sine, turns = (double)angle * TURNS;

        llm_cos_sin_turn(&cosine, &sine, turns - floor(turns));
        j->cosine_out[i] = (float)cosine;
        j->sine_out[i] = (float)sine;
    }
}

/* out (+)= the heads begin to end of x, counted over (n, n_head) */
static void rotate_range(void *arg, size_t begin, size_t end)
{
    const rotary_job *j = arg;
    const llm_rotary_shape *s = j->s;
    const llm_math_kernels *math = &j->e->kernels->math;

    for (size_t head = begin; head < end; head++) {
        size_t row = head / s->n_head % s->n_positions, at = head * s->d_head;

        math->rotate(j->out + at, j->acc, j->x + at, j->cosine + row * s->half, j->sine + row * s->half, j->inverse,
                     s->half);
        if (2 * s->half < s->d_head)
            math->copy(j->out + at + 2 * s->half, j->x + at + 2 * s->half, j->acc, s->d_head - 2 * s->half);
    }
}

static void rotate(llm_engine *e, rotary_job *job)
{
    const llm_rotary_shape *s = job->s;

    llm_parallel_for(e, s->n * s->n_head, ROTATE_GRAIN / (s->d_head + 1) + 1, rotate_range, job);
}

void llm_rotary_forward(llm_engine *e, float *out, float *cosine, float *sine, const float *x, const int32_t *positions,
                        double theta, const llm_rotary_scaling *scaling, const llm_rotary_shape *s)
{
    rotary_job job = { .e = e,
                       .s = s,
                       .scaling = scaling,
                       .positions = positions,
                       .log_theta = llm_log(theta),
                       .cosine_out = cosine,
                       .sine_out = sine,
                       .cosine = cosine,
                       .sine = sine,
                       .out = out,
                       .x = x };

    llm_parallel_for(e, s->n_positions * s->half, TABLE_GRAIN, table_range, &job);
    rotate(e, &job);
}

void llm_rotary_backward(llm_engine *e, float *dx, bool acc, const float *dout, const float *cosine, const float *sine,
                         const llm_rotary_shape *s)
{
    rotary_job job = {
        .e = e, .s = s, .cosine = cosine, .sine = sine, .out = dx, .x = dout, .acc = acc, .inverse = true
    };

    rotate(e, &job);
}
