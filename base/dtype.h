// Element types and their conversions.
#ifndef VL_BASE_DTYPE_H
#define VL_BASE_DTYPE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef enum VlDtype {
    VL_F32,
    VL_BF16,
    VL_F16,
    VL_F64,
    VL_I64,
    VL_I32,
    VL_I16,
    VL_I8,
    VL_U8,
    VL_BOOL,
    VL_DTYPE_COUNT
} VlDtype;

typedef uint16_t VlBf16;  // the upper half of an f32
typedef uint16_t VlF16;   // IEEE 754 binary16

int64_t vl_dtype_size(VlDtype dtype);
static inline bool vl_dtype_is_floating(VlDtype dtype) {
    return dtype == VL_F32 || dtype == VL_BF16 || dtype == VL_F16 || dtype == VL_F64;
}
const char *vl_dtype_name(VlDtype dtype);  // "f32", "bf16", ...

static inline float vl_f32_from_bf16(VlBf16 value) {
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

// Round to nearest, ties to even; NaN stays NaN (quiet).
static inline VlBf16 vl_bf16_from_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    return (bits & 0x7fffffffu) > 0x7f800000u ? (VlBf16)((bits >> 16) | 0x40u) : (VlBf16)(rounded >> 16);
}

// An f32 as two numbers of 16 bits: the bf16 next to it, and what remains, the difference of their bits. Exact, but for
// a NaN, which becomes a quiet one. Half-way cases go away from zero: rounded to even, an even bf16 would stand for
// 65537 numbers, one more than 16 bits tell apart.
typedef struct VlHalves {
    VlBf16 upper;
    int16_t remainder;
} VlHalves;
static inline VlHalves vl_halves_from_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bool number = (bits & 0x7fffffffu) <= 0x7f800000u;
    return (VlHalves){(VlBf16)(number ? (bits + 0x8000u) >> 16 : (bits >> 16) | 0x40u),
                      (int16_t)(number ? bits & 0xffffu : 0)};
}
static inline float vl_f32_from_halves(VlBf16 upper, int16_t remainder) {
    uint32_t bits = ((uint32_t)upper << 16) + (uint32_t)(int32_t)remainder;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

float vl_f32_from_f16(VlF16 value);
VlF16 vl_f16_from_f32(float value);  // round to nearest even; overflow to infinity

// Converts `count` elements between F32, BF16, F16 and F64 on the host; equal types are copied.
void vl_convert(void *to, VlDtype to_dtype, const void *from, VlDtype from_dtype, int64_t count);

#endif
