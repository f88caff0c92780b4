/* schedule.c -- learning rates by step: linear warm-up, then cosine, linear or no decay. */
#include "llm_core.h"
#include "engine/scalar_math.h"

double llm_lr_schedule(llm_schedule kind, int64_t i, int64_t warmup, int64_t total, double lr_max, double min_lr)
{
    double progress, cosine, sine;

    if (i <= warmup)
        return lr_max * (double)i / (double)warmup;
    if (kind == LLM_CONSTANT)
        return lr_max;
    /* 0 at the first step after warm-up; 1 only past the last one, where the rate stays at min_lr */
    progress = i > total ? 1.0 : (double)(i - warmup - 1) / (double)(total - warmup);
    if (kind == LLM_LINEAR)
        return lr_max + (min_lr - lr_max) * progress;
    /* Loshchilov & Hutter 2017, SGDR, eq. 5; (1 + cos 2a) / 2 = cos^2 a, which keeps its digits near 0 */
    llm_cos_sin_turn(&cosine, &sine, 0.25 * progress);
    return min_lr + (lr_max - min_lr) * cosine * cosine;
}
