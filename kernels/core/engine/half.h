/* half.h -- IEEE 754's binary16, one number at a time. */
#ifndef LLM_HALF_H
#define LLM_HALF_H

#include <stdint.h>
#include <string.h>

#define LLM_LARGEST_HALF 65504.0f

static inline float llm_half_value(uint16_t half)
{
    const uint32_t exponent = (half >> 10) & 31, fraction = half & 1023;
    uint32_t bits;
    float value;

    if (exponent == 0) {
        value = (float)fraction * 0x1p-24f;
        return half & 0x8000 ? -value : value;
    }
    bits = (uint32_t)(half & 0x8000) << 16 | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The nearest one, ties to even; the largest finite one for numbers beyond it. No NaN. */
static inline uint16_t llm_half_bits(float value)
{
    const float size = value < 0 ? -value : value;
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffffu;
    if (size < 0x1p-14f) { /* a multiple of 2^-24, which is the last place of numbers from 1/2 to 1 */
        const float rounded = size + 0.5f;
        memcpy(&bits, &rounded, sizeof bits);
        return (uint16_t)(sign | (bits & 0x7fffffu));
    }
    if (size >= LLM_LARGEST_HALF)
        return (uint16_t)(sign | 0x7bff);
    return (uint16_t)(sign | (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13);
}

#endif /* LLM_HALF_H */
