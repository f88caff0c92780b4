/*
 * scalar_math.h -- elementary functions in double precision, one value at a time: schedules, sampling, the
 * normal distribution, the logarithm of a row's sum. Plain IEEE additions, multiplications and divisions, so
 * that every machine gives the same bits; within 2 ulp of the true value. Vector functions stand in
 * math_kernels.h.
 */
#ifndef LLM_SCALAR_MATH_H
#define LLM_SCALAR_MATH_H

#include <stdint.h>

/* e^x; 0 and infinity beyond double's range, gradual underflow between */
double llm_exp(double x);
/* Natural logarithm; log 0 = -infinity, NaN below 0. */
double llm_log(double x);
/* x^n by repeated squaring, for n >= 0 */
double llm_power(double x, uint64_t n);
/* cos(2 pi turn) and sin(2 pi turn) for a turn in [0, 1] */
void llm_cos_sin_turn(double *cosine, double *sine, double turn);

#endif /* LLM_SCALAR_MATH_H */
