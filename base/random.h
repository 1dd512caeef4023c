// A counter-based random number generator: a draw is a pure function of its key and counter, hence the same on any
// number of ranks and threads. Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#ifndef VL_BASE_RANDOM_H
#define VL_BASE_RANDOM_H

#include <stdint.h>

// Four words from a 64-bit key and a 128-bit counter.
void vl_philox(uint32_t out[4], uint64_t key, uint64_t counter_high, uint64_t counter_low);

// A stream: draws number 0, 1, 2, ... under (seed, stream).
typedef struct VlRandom {
    uint64_t seed, stream, position;
} VlRandom;

static inline VlRandom vl_random(uint64_t seed, uint64_t stream) { return (VlRandom){seed, stream, 0}; }
uint64_t vl_random_u64(VlRandom *random);
int64_t vl_random_below(VlRandom *random, int64_t bound);  // uniform in [0, bound), bound >= 1, without bias
double vl_random_uniform(VlRandom *random);                // [0, 1) with 53 bits
double vl_random_normal(VlRandom *random);                 // mean 0, standard deviation 1 (Box-Muller)

// A 64-bit hash of a string (FNV-1a, finished by a mixer), to key streams by name.
uint64_t vl_hash_string(const char *text);

// A keyed permutation of [0, count): the image of `index`. A Feistel network over the next power of four, walked
// until it lands inside. count >= 1.
int64_t vl_permute(int64_t index, int64_t count, uint64_t key);

#endif
