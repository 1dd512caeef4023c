#include "base/random.h"

#include <math.h>

#include "base/status.h"

void vl_philox(uint32_t out[4], uint64_t key, uint64_t counter_high, uint64_t counter_low) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t product0 = (uint64_t)0xD2511F53u * c0, product1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)product1;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)product0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

uint64_t vl_random_u64(VlRandom *random) {
    uint32_t words[4];
    vl_philox(words, random->seed, random->stream, random->position++);
    return (uint64_t)words[1] << 32 | words[0];
}

int64_t vl_random_below(VlRandom *random, int64_t bound) {
    VL_ASSERT(bound >= 1);
    uint64_t range = (uint64_t)bound, limit = UINT64_MAX - UINT64_MAX % range, draw;
    do {
        draw = vl_random_u64(random);
    } while (draw >= limit);
    return (int64_t)(draw % range);
}

double vl_random_uniform(VlRandom *random) { return (double)(vl_random_u64(random) >> 11) * 0x1p-53; }

double vl_random_normal(VlRandom *random) {
    double radius = sqrt(-2.0 * log(1.0 - vl_random_uniform(random)));
    return radius * cos(6.283185307179586 * vl_random_uniform(random));
}

uint64_t vl_hash_string(const char *text) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) hash = (hash ^ *c) * 0x100000001b3u;
    hash ^= hash >> 33;
    hash *= 0xff51afd7ed558ccdu;
    return hash ^ hash >> 33;
}

int64_t vl_permute(int64_t index, int64_t count, uint64_t key) {
    VL_ASSERT(index >= 0 && index < count);
    int half = 1;
    while (half < 32 && ((int64_t)1 << (2 * half)) < count) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1, value = (uint64_t)index;
    do {
        uint64_t left = value >> half, right = value & mask;
        for (uint64_t round = 0; round < 6; round++) {
            uint32_t words[4];
            vl_philox(words, key, round, right);
            uint64_t next = left ^ (((uint64_t)words[1] << 32 | words[0]) & mask);
            left = right;
            right = next;
        }
        value = left << half | right;
    } while (value >= (uint64_t)count);
    return (int64_t)value;
}
