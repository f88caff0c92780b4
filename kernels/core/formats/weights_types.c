/*
 * weights_types.c -- types of elements in weight files, and their conversion to float32.
 */
#include <string.h>

#include "engine/half.h"
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

void weights_convert(float *out, const uint8_t *in, llm_dtype dtype, size_t n)
{
    for (size_t i = 0; i < n; i++)
        switch (dtype) {
        case LLM_DTYPE_F16:
            out[i] = llm_half_value(le16(in + 2 * i));
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
