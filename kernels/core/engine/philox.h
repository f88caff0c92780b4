/*
 * philox.h -- constants of Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011) and how the project keys it: key = seed; counter = (index of the block, hash of what the
 * numbers are for), each 64 bits with the low word first.
 */
#ifndef LLM_PHILOX_H
#define LLM_PHILOX_H

#include <stdint.h>

#define PHILOX_ROUNDS 10
#define PHILOX_M0     0xd2511f53u
#define PHILOX_M1     0xcd9e8d57u
#define PHILOX_W0     0x9e3779b9u /* golden ratio */
#define PHILOX_W1     0xbb67ae85u /* sqrt(3) - 1 */

/* Words xored into the hash, so that a stream's uniforms, normals and permutations are independent */
#define PHILOX_DOMAIN_UNIFORM     0x6a09e667f3bcc908u
#define PHILOX_DOMAIN_NORMAL      0xbb67ae8584caa73bu
#define PHILOX_DOMAIN_PERMUTATION 0x3c6ef372fe94f82bu

/* A bijection whose output bits each depend on all input bits: the finalizer of SplitMix64 (Steele et al.
 * 2014) */
static inline uint64_t philox_mix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

#endif /* LLM_PHILOX_H */
