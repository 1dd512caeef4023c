// Functions of one f32 that loops over them vectorise: no calls, no branches, no tables.
#ifndef VL_OPS_CPU_VECTOR_MATH_H
#define VL_OPS_CPU_VECTOR_MATH_H

#include <stdint.h>
#include <string.h>

// A kernel compiled for three instruction sets, chosen at run time. Parallel regions stand outside of it: their bodies
// become functions of their own, which would not be cloned.
#if defined(__x86_64__)
#define VL_VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VL_VECTORISED
#endif

static inline float vl_float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// e^x within 2 units in the last place: x = n ln 2 + r with |r| <= ln(2)/2, a Taylor polynomial in r, times 2^n. The
// results are 0 below -104 and infinite above 89; NaN stays NaN.
static inline float vl_exp(float x) {
    const float round = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
    float limited = x < -104.0f ? -104.0f : x;
    limited = limited > 89.0f ? 89.0f : limited;
    float shifted = limited * 1.44269504f + round;
    float n = shifted - round;
    float r = limited - n * 0x1.62ep-1f;  // the upper bits of ln 2: the product is exact
    r = r - n * 0x1.0bfbe8p-15f;
    float sum = 1.0f / 5040;
    sum = sum * r + 1.0f / 720;
    sum = sum * r + 1.0f / 120;
    sum = sum * r + 1.0f / 24;
    sum = sum * r + 1.0f / 6;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.0f;
    sum = sum * r + 1.0f;
    // 2^n in two factors, each in range where 2^n itself is denormal or infinite.
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    int32_t power = bits - 0x4b400000, half = power >> 1;
    return sum * vl_float_from_bits((uint32_t)(half + 127) << 23) *
           vl_float_from_bits((uint32_t)(power - half + 127) << 23);
}

// e^x, but 0 below -64: for exponentials that are summed with larger ones. Denormal numbers, which are slow to multiply
// on many processors, do not arise.
static inline float vl_exp_flushed(float x) { return x < -64.0f ? 0.0f : vl_exp(x); }

static inline float vl_sigmoid(float x) { return 1.0f / (1.0f + vl_exp(-x)); }

#endif
