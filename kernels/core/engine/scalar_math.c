/* scalar_math.c -- double-precision exp, log, integer power, cosine and sine of a fraction of a turn. */
#include "scalar_math.h"

#include <string.h>

/* ln 2 = LN2_HI + LN2_LO; LN2_HI ends in 21 zero bits, so a product with an exponent is exact. */
#define LN2_HI 0x1.62e42feep-1
#define LN2_LO 0x1.a39ef35793c76p-33
#define LOG2_E 0x1.71547652b82fep+0
#define SQRT_2 0x1.6a09e667f3bcdp+0
#define PI     0x1.921fb54442d18p+1

/* 1/k!, for Taylor's series of exp, cos and sin */
static const double inverse_factorial[] = {
    1.0,
    1.0,
    1.0 / 2,
    1.0 / 6,
    1.0 / 24,
    1.0 / 120,
    1.0 / 720,
    1.0 / 5040,
    1.0 / 40320,
    1.0 / 362880,
    1.0 / 3628800,
    1.0 / 39916800,
    1.0 / 479001600,
    1.0 / 6227020800,
    1.0 / 87178291200,
    1.0 / 1307674368000,
    1.0 / 20922789888000,
    1.0 / 355687428096000,
};

/* 2/(2k+3), for the series of 2 atanh */
static const double atanh_series[] = {
    2.0 / 3, 2.0 / 5, 2.0 / 7, 2.0 / 9, 2.0 / 11, 2.0 / 13, 2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23,
};

static double double_of_bits(uint64_t bits)
{
    double x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint64_t bits_of_double(double x)
{
    uint64_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* 2^n for a normal result, -1022 <= n <= 1023 */
static double power_of_two(int n) { return double_of_bits((uint64_t)(n + 1023) << 52); }

/* The integer nearest to |x| < 2^31, halves away from zero */
static int nearest(double x) { return (int)(x < 0 ? x - 0.5 : x + 0.5); }

double llm_exp(double x)
{
    double sum = inverse_factorial[13];
    double r;
    int n;

    if (x != x)
        return x;
    if (x > 710.0)
        return double_of_bits(0x7ff0000000000000u);
    if (x < -746.0)
        return 0.0;
    n = nearest(x * LOG2_E);
    r = (x - n * LN2_HI) - n * LN2_LO;
    /* |r| <= ln(2)/2, so the term after r^13/13! is below 2^-57 */
    for (int k = 12; k >= 0; k--)
        sum = inverse_factorial[k] + sum * r;
    /* two factors, for results beyond the range of one: the first product is exact */
    return sum * power_of_two(n / 2) * power_of_two(n - n / 2);
}

double llm_log(double x)
{
    int exponent = 0;
    double f, s, s2, series;

    if (x != x || x < 0)
        return double_of_bits(0x7ff8000000000000u);
    if (x == 0)
        return double_of_bits(0xfff0000000000000u);
    if (bits_of_double(x) == 0x7ff0000000000000u)
        return x;
    if (x < 0x1p-1022) {
        x *= 0x1p+54;
        exponent = -54;
    }
    exponent += (int)(bits_of_double(x) >> 52) - 1023;
    x = double_of_bits((bits_of_double(x) & 0x000fffffffffffffu) | 0x3ff0000000000000u);
    if (x > SQRT_2) {
        x *= 0.5;
        exponent++;
    }
    /*
     * log(1 + f) = 2 atanh(s), s = f / (2 + f), |s| <= 0.172. With 2 s = f - s f the leading term f is exact
     * and the quotient's rounding enters only through s (f - series).
     */
    f = x - 1.0;
    s = f / (2.0 + f);
    s2 = s * s;
    series = 0.0;
    for (int k = 10; k >= 0; k--)
        series = s2 * (atanh_series[k] + series);
    return exponent * LN2_HI + (f - (s * (f - series) - exponent * LN2_LO));
}

double llm_power(double x, uint64_t n)
{
    double result = 1.0;

    for (; n > 0; n >>= 1) {
        if (n & 1)
            result *= x;
        x *= x;
    }
    return result;
}

void llm_cos_sin_turn(double *cosine, double *sine, double turn)
{
    int quarter = nearest(4.0 * turn);
    double a = 2.0 * PI * (turn - 0.25 * quarter); /* within an eighth of a turn; the difference is exact */
    double a2 = a * a;
    double c = inverse_factorial[16], s = inverse_factorial[17];

    /* at |a| <= pi/4 the first terms left out are below 2^-56 of the result */
    for (int k = 14; k >= 0; k -= 2) {
        c = inverse_factorial[k] - c * a2;
        s = inverse_factorial[k + 1] - s * a2;
    }
    s *= a;
    switch (quarter & 3) {
    case 0:
        *cosine = c;
        *sine = s;
        break;
    case 1:
        *cosine = -s;
        *sine = c;
        break;
    case 2:
        *cosine = -c;
        *sine = -s;
        break;
    default:
        *cosine = s;
        *sine = -c;
    }
}
