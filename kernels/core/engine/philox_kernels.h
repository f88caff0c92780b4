/*
 * philox_kernels.h -- dropout's keep masks: Philox in 16 lanes, one block of four words per lane.
 * Element i of a site takes word i % 4 of block i / 4, whatever the alignment of the request.
 */
#ifndef LLM_PHILOX_KERNELS_H
#define LLM_PHILOX_KERNELS_H

#include "philox.h"

/* words[w] lane b = word w of block `block` + b of the site and step of `key` */
static inline void philox16(v16i words[4], const llm_dropout_key *key, uint64_t block)
{
    uint64_t use = key->site ^ philox_mix64(key->step);
    uint32_t k0 = (uint32_t)key->seed, k1 = (uint32_t)(key->seed >> 32);
    v16i low = v16i_set1((uint32_t)block), high = v16i_set1((uint32_t)(block >> 32));
    v16i c0 = v16i_add(low, v16i_iota());
    v16i c1 = v16i_select(v16i_lt_u32(c0, low), v16i_add(high, v16i_set1(1)), high); /* the carry */
    v16i c2 = v16i_set1((uint32_t)use), c3 = v16i_set1((uint32_t)(use >> 32));
    const v16i m0 = v16i_set1(PHILOX_M0), m1 = v16i_set1(PHILOX_M1);

    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        v16i high0, low0 = v16i_mul_wide_u32(&high0, m0, c0);
        v16i high1, low1 = v16i_mul_wide_u32(&high1, m1, c2);

        c0 = v16i_xor(v16i_xor(high1, c1), v16i_set1(k0));
        c1 = low1;
        c2 = v16i_xor(v16i_xor(high0, c3), v16i_set1(k1));
        c3 = low0;
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

/* Bit b of the low 16 to bit 4 b */
LLM_INLINE uint64_t spread_by_4(uint64_t bits)
{
    bits = (bits | bits << 24) & 0x000000ff000000ffu;
    bits = (bits | bits << 12) & 0x000f000f000f000fu;
    bits = (bits | bits << 6) & 0x0303030303030303u;
    return (bits | bits << 3) & 0x1111111111111111u;
}

LLM_INLINE m16 m16_of_bits(uint32_t bits)
{
    static const uint32_t lane_bit[16] = {
        1u << 0, 1u << 1, 1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,
        1u << 8, 1u << 9, 1u << 10, 1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15
    };
    v16i lanes = v16i_load(lane_bit);

    return v16i_eq(v16i_and(v16i_set1(bits), lanes), lanes);
}

/* How many of dropout_keep_bits's bits are valid: a multiple of 16 */
LLM_INLINE size_t dropout_run(uint64_t first_index) { return first_index % 4 == 0 ? 64 : 48; }

/* Bit i: whether element first_index + i is kept, for i < dropout_run(first_index) */
static inline uint64_t dropout_keep_bits(const llm_dropout_key *key, uint64_t first_index, uint32_t threshold)
{
    v16i words[4];
    uint64_t dropped = 0;

    philox16(words, key, first_index / 4);
    for (int w = 0; w < 4; w++)
        dropped |= spread_by_4(m16_bits(v16i_lt_u32(words[w], v16i_set1(threshold)))) << w;
    return ~dropped >> first_index % 4;
}

/* The mask of n elements from first_index on, 16 to a word; bits beyond the n-th hold anything. */
static void draw_mask(uint16_t *kept, const llm_dropout_key *key, uint32_t threshold, uint64_t first_index, size_t n)
{
    const size_t run = dropout_run(first_index);

    for (size_t i = 0; i < n; i += run) {
        uint64_t keep = dropout_keep_bits(key, first_index + i, threshold);
        for (size_t j = i; j < i + run && j < n; j += 16, keep >>= 16)
            kept[j / 16] = (uint16_t)keep;
    }
}

/* x scaled where the mask keeps it, else +0 */
LLM_INLINE v16 masked(v16 x, uint16_t kept, v16 scale)
{
    return v16_select(m16_of_bits(kept), v16_mul(x, scale), v16_zero());
}

#endif /* LLM_PHILOX_KERNELS_H */
