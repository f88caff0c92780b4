/*
 * mixed.h -- a step of a 64-bit hash that is the same on every machine: multiply by 2^64 over the golden ratio, fold.
 * One-to-one in the word and in what was hashed before. No secret: whoever chooses the words can make two hashes equal.
 */
#ifndef PG_LLM_MIXED_H
#define PG_LLM_MIXED_H

#include "postgres.h"

static inline uint64
mixed(uint64 h, uint64 word)
{
    h = (h ^ word) * UINT64CONST(0x9e3779b97f4a7c15);
    return h ^ h >> 32;
}

#endif
