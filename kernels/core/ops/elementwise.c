/* elementwise.c -- ops whose element i depends on element i of their inputs, split among threads by range. */
#include "engine/pool.h"

/* Elements of one hand-off, some 10 to 20 us: arithmetic is bound by memory, functions by their polynomials
 */
#define ARITHMETIC_GRAIN 65536
#define FUNCTION_GRAIN   32768

typedef struct elementwise_job {
    const llm_math_kernels *math;
    float *out;
    const float *a, *b;
    float scalar;
    bool acc;
} elementwise_job;

#define RANGE_TASK(op, ...)                                                                                            \
    static void op##_range(void *arg, size_t begin, size_t end)                                                        \
    {                                                                                                                  \
        const elementwise_job *j = arg;                                                                                \
                                                                                                                       \
        j->math->op(j->out + begin, __VA_ARGS__, end - begin);                                                         \
    }

RANGE_TASK(fill, j->scalar)
RANGE_TASK(copy, j->a + begin, j->acc)
RANGE_TASK(add, j->a + begin, j->b + begin)
RANGE_TASK(sub, j->a + begin, j->b + begin)
RANGE_TASK(mul, j->a + begin, j->b + begin)
RANGE_TASK(div, j->a + begin, j->b + begin)
RANGE_TASK(mul_acc, j->a + begin, j->b + begin)
RANGE_TASK(scale, j->a + begin, j->scalar, j->acc)
RANGE_TASK(neg, j->a + begin)
RANGE_TASK(swiglu_forward, j->a + begin, j->b + begin)

static void run(llm_engine *e, llm_range_task task, size_t grain, float *out, const float *a, const float *b,
                float scalar, bool acc, size_t n)
{
    elementwise_job job = { &e->kernels->math, out, a, b, scalar, acc };

    llm_parallel_for(e, n, grain, task, &job);
}

void llm_fill(llm_engine *e, float *out, float value, size_t n)
{
    run(e, fill_range, ARITHMETIC_GRAIN, out, NULL, NULL, value, false, n);
}

void llm_copy(llm_engine *e, float *out, const float *x, bool acc, size_t n)
{
    run(e, copy_range, ARITHMETIC_GRAIN, out, x, NULL, 0, acc, n);
}

void llm_add(llm_engine *e, float *out, const float *a, const float *b, size_t n)
{
    run(e, add_range, ARITHMETIC_GRAIN, out, a, b, 0, false, n);
}

void llm_sub(llm_engine *e, float *out, const float *a, const float *b, size_t n)
{
    run(e, sub_range, ARITHMETIC_GRAIN, out, a, b, 0, false, n);
}

void llm_mul(llm_engine *e, float *out, const float *a, const float *b, size_t n)
{
    run(e, mul_range, ARITHMETIC_GRAIN, out, a, b, 0, false, n);
}

void llm_div(llm_engine *e, float *out, const float *a, const float *b, size_t n)
{
    run(e, div_range, ARITHMETIC_GRAIN, out, a, b, 0, false, n);
}

void llm_scale(llm_engine *e, float *out, const float *x, float s, bool acc, size_t n)
{
    run(e, scale_range, ARITHMETIC_GRAIN, out, x, NULL, s, acc, n);
}

void llm_mul_acc(llm_engine *e, float *out, const float *a, const float *b, bool acc, size_t n)
{
    run(e, acc ? mul_acc_range : mul_range, ARITHMETIC_GRAIN, out, a, b, 0, false, n);
}

void llm_neg(llm_engine *e, float *out, const float *x, size_t n)
{
    run(e, neg_range, ARITHMETIC_GRAIN, out, x, NULL, 0, false, n);
}

void llm_swiglu_forward(llm_engine *e, float *out, const float *gate, const float *up, size_t n)
{
    run(e, swiglu_forward_range, FUNCTION_GRAIN, out, gate, up, 0, false, n);
}

typedef struct swiglu_job {
    const llm_math_kernels *math;
    float *dgate, *dup; /* or NULL */
    const float *dout, *gate, *up;
    bool acc_gate, acc_up;
} swiglu_job;

static void swiglu_backward_range(void *arg, size_t begin, size_t end)
{
    const swiglu_job *j = arg;

    j->math->swiglu_backward(j->dgate == NULL ? NULL : j->dgate + begin, j->acc_gate,
                             j->dup == NULL ? NULL : j->dup + begin, j->acc_up, j->dout + begin, j->gate + begin,
                             j->up + begin, end - begin);
}

void llm_swiglu_backward(llm_engine *e, float *dgate, bool acc_gate, float *dup, bool acc_up, const float *dout,
                         const float *gate, const float *up, size_t n)
{
    swiglu_job job = { &e->kernels->math, dgate, dup, dout, gate, up, acc_gate, acc_up };

    llm_parallel_for(e, n, FUNCTION_GRAIN, swiglu_backward_range, &job);
}

#define ACTIVATION(name)                                                                                               \
    RANGE_TASK(name##_forward, j->a + begin)                                                                           \
    RANGE_TASK(name##_backward, j->acc, j->a + begin, j->b + begin)                                                    \
                                                                                                                       \
    void llm_##name##_forward(llm_engine *e, float *out, const float *x, size_t n)                                     \
    {                                                                                                                  \
        run(e, name##_forward_range, FUNCTION_GRAIN, out, x, NULL, 0, false, n);                                       \
    }                                                                                                                  \
                                                                                                                       \
    void llm_##name##_backward(llm_engine *e, float *dx, bool acc, const float *dout, const float *x, size_t n)        \
    {                                                                                                                  \
        run(e, name##_backward_range, FUNCTION_GRAIN, dx, dout, x, 0, acc, n);                                         \
    }

ACTIVATIONS(ACTIVATION)

/* ---- dropout --------------------------------------------------------------------------- */

typedef struct dropout_job {
    const llm_math_kernels *math;
    float *out;
    const float *x;
    float scale;
    uint32_t threshold;
    const llm_dropout_key *key;
    uint64_t first;
    bool acc;
    uint16_t *drawn;      /* where the mask is left, or NULL */
    const uint16_t *kept; /* the mask that was left */
} dropout_job;

_Static_assert(FUNCTION_GRAIN % LLM_MASK_BITS == 0, "ranges begin with a word of the mask");

static void dropout_range(void *arg, size_t begin, size_t end)
{
    const dropout_job *j = arg;

    j->math->dropout(j->out + begin, j->acc, j->x + begin, j->scale, j->threshold, j->key, j->first + begin,
                     end - begin, j->drawn == NULL ? NULL : j->drawn + begin / LLM_MASK_BITS);
}

static void dropout_kept_range(void *arg, size_t begin, size_t end)
{
    const dropout_job *j = arg;

    j->math->dropout_kept(j->out + begin, j->acc, j->x + begin, j->scale, j->kept + begin / LLM_MASK_BITS, end - begin);
}

/* At p = 1 nothing is kept, and 1/(1-p) is no number. */
static bool drops_all(llm_engine *e, float *out, bool acc, float p, size_t n)
{
    if (p >= 1.0f && !acc)
        llm_fill(e, out, 0.0f, n);
    return p >= 1.0f;
}

static float kept_scale(float p) { return (float)(1.0 / (1.0 - (double)p)); }

void llm_dropout(llm_engine *e, float *out, bool acc, const float *x, float p, llm_dropout_key key, uint64_t first,
                 size_t n, uint16_t *kept)
{
    if (drops_all(e, out, acc, p, n))
        return;
    const llm_fpenv saved = llm_fp_enter();
    dropout_job job = { .math = &e->kernels->math,
                        .out = out,
                        .x = x,
                        .scale = kept_scale(p),
                        .threshold = (uint32_t)((double)p * 0x1p32),
                        .key = &key,
                        .first = first,
                        .acc = acc,
                        .drawn = kept };
    llm_parallel_for(e, n, FUNCTION_GRAIN, dropout_range, &job);
    llm_fp_leave(saved);
}

void llm_dropout_backward(llm_engine *e, float *dx, bool acc, const float *dout, float p, const uint16_t *kept,
                          size_t n)
{
    if (drops_all(e, dx, acc, p, n))
        return;
    const llm_fpenv saved = llm_fp_enter();
    dropout_job job = {
        .math = &e->kernels->math, .out = dx, .x = dout, .scale = kept_scale(p), .acc = acc, .kept = kept
    };
    llm_parallel_for(e, n, FUNCTION_GRAIN, dropout_kept_range, &job);
    llm_fp_leave(saved);
}
