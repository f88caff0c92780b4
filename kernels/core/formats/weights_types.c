/*
 * weights_types.c -- types of elements in weight files, and their conversion to float32.
 */
#include <string.h>

#include "weights_file.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[LLM_DTYPE_COUNT] = {
    { "F32", 4 }, { "F16", 2 }, { "BF16", 2 }, { "F64", 8 }, { "U8", 1 },  { "BOOL", 1 }, { "I8", 1 },
    { "I16", 2 }, { "U16", 2 }, { "I32", 4 },  { "U32", 4 }, { "I64", 8 }, { "U64", 8 },  { "F8", 1 },
};

const char *llm_dtype_name(llm_dtype dtype) { return dtypes[dtype].name; }

size_t llm_dtype_size(llm_dtype dtype) { return dtypes[dtype].size; }

static float from_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
    union {
        uint32_t bits;
        float value;
    } x;

    if (exponent == 0) {
        x.value = (float)fraction * 0x1p-24f;
        x.bits |= sign;
    } else if (exponent == 31)
        x.bits = sign | 0x7f800000u | fraction << 13;
    else
        x.bits = sign | (exponent + 112) << 23 | fraction << 13;
    return x.value;
}

void weights_convert(float *out, const uint8_t *in, llm_dtype dtype, size_t n)
{
    for (size_t i = 0; i < n; i++)
        switch (dtype) {
        case LLM_DTYPE_F16:
            out[i] = from_half(le16(in + 2 * i));
            break;
        case LLM_DTYPE_BF16: {
            uint32_t bits = (uint32_t)le16(in + 2 * i) << 16;

            memcpy(out + i, &bits, 4);
            break;
        }
        case LLM_DTYPE_F64: {
            double value;

            memcpy(&value, in + 8 * i, 8);
            out[i] = (float)value;
            break;
        }
        default:
            memcpy(out + i, in + 4 * i, 4);
        }
}
