/* optimizer.c -- AdamW over one tensor, split among threads by range. */
#include "engine/pool.h"
#include "engine/scalar_math.h"

#include <math.h>

#define ADAMW_GRAIN 16384 /* elements of one hand-off */

typedef struct adamw_job {
    const llm_math_kernels *math;
    float *w, *m, *v;
    const float *grad;
    llm_adamw_constants constants;
} adamw_job;

static void adamw_range(void *arg, size_t begin, size_t end)
{
    const adamw_job *j = arg;

    j->math->adamw(j->w + begin, j->m + begin, j->v + begin, j->grad + begin, &j->constants, end - begin);
}

/*
 * g = grad_scale grad;  w -= lr weight_decay w;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2;
 * w -= lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
 */
void llm_adamw_step(llm_engine *e, float *w, float *m, float *v, const float *grad, const llm_adamw *o, size_t n)
{
    const llm_fpenv saved = llm_fp_enter(); /* the constants are rounded as the kernels round */
    adamw_job job = {
        .math = &e->kernels->math,
        .w = w,
        .m = m,
        .v = v,
        .grad = grad,
        .constants = {
            .grad_scale = o->grad_scale,
            .decay = (float)(1.0 - o->lr * o->weight_decay),
            .beta1_rest = (float)(1.0 - o->beta1),
            .beta2 = (float)o->beta2,
            .beta2_rest = (float)(1.0 - o->beta2),
            .v_correction = (float)sqrt(1.0 - llm_power(o->beta2, o->step)),
            .eps = (float)o->eps,
            .step_size = (float)(o->lr / (1.0 - llm_power(o->beta1, o->step))),
        },
    };

    llm_parallel_for(e, n, ADAMW_GRAIN, adamw_range, &job);
    llm_fp_leave(saved);
}
