#include "base/dtype.h"

#include "base/status.h"

static const struct {
    const char *name;
    int64_t size;
} dtypes[VL_DTYPE_COUNT] = {
    [VL_F32] = {"f32", 4}, [VL_BF16] = {"bf16", 2}, [VL_F16] = {"f16", 2}, [VL_F64] = {"f64", 8},
    [VL_I64] = {"i64", 8}, [VL_I32] = {"i32", 4},   [VL_I16] = {"i16", 2}, [VL_I8] = {"i8", 1},
    [VL_U8] = {"u8", 1},   [VL_BOOL] = {"bool", 1},
};

int64_t vl_dtype_size(VlDtype dtype) { return dtypes[dtype].size; }

const char *vl_dtype_name(VlDtype dtype) { return dtypes[dtype].name; }

float vl_f32_from_f16(VlF16 value) {
    uint32_t sign = (uint32_t)(value & 0x8000u) << 16, exponent = (value >> 10) & 0x1fu, mantissa = value & 0x3ffu;
    uint32_t bits;
    if (exponent == 0x1f) {
        bits = sign | 0x7f800000u | (mantissa << 13);
    } else if (exponent) {
        bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
    } else {  // subnormal: mantissa * 2^-24 is exact in f32
        float magnitude = (float)mantissa * 0x1p-24f;
        memcpy(&bits, &magnitude, sizeof bits);
        bits |= sign;
    }
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

VlF16 vl_f16_from_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (VlF16)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return (VlF16)(sign | 0x7c00u);  // 65520 and above round to infinity
    if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 aligns the mantissa at 2^-24 and rounds
        float shifted;
        memcpy(&shifted, &magnitude, sizeof shifted);
        shifted += 0.5f;
        memcpy(&magnitude, &shifted, sizeof magnitude);
        return (VlF16)(sign | (magnitude - 0x3f000000u));
    }
    uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return (VlF16)(sign | ((rounded - 0x38000000u) >> 13));
}

static double load_element(const void *from, VlDtype dtype, int64_t i) {
    switch (dtype) {
    case VL_F32: return (double)((const float *)from)[i];
    case VL_BF16: return (double)vl_f32_from_bf16(((const VlBf16 *)from)[i]);
    case VL_F16: return (double)vl_f32_from_f16(((const VlF16 *)from)[i]);
    default: VL_ASSERT(dtype == VL_F64); return ((const double *)from)[i];
    }
}

// An f32 that a further rounding to a shorter type treats as it would treat `value` itself: rounded to odd, that is
// towards zero with the last bit set when inexact, so that no half-way case arises or disappears.
static float narrow(double value) {
    float rounded = (float)value;
    if ((double)rounded == value || value != value) return rounded;
    uint32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    if (((double)rounded > value) == (value > 0)) bits--;
    bits |= 1u;
    memcpy(&rounded, &bits, sizeof rounded);
    return rounded;
}

static void store_element(void *to, VlDtype dtype, int64_t i, double value) {
    switch (dtype) {
    case VL_F32: ((float *)to)[i] = (float)value; break;
    case VL_BF16: ((VlBf16 *)to)[i] = vl_bf16_from_f32(narrow(value)); break;
    case VL_F16: ((VlF16 *)to)[i] = vl_f16_from_f32(narrow(value)); break;
    default: VL_ASSERT(dtype == VL_F64); ((double *)to)[i] = value;
    }
}

void vl_convert(void *to, VlDtype to_dtype, const void *from, VlDtype from_dtype, int64_t count) {
    if (to_dtype == from_dtype) {
        memmove(to, from, (size_t)(count * vl_dtype_size(to_dtype)));
    } else if (to_dtype == VL_F32 && from_dtype == VL_BF16) {
        float *restrict out = to;
        const VlBf16 *restrict in = from;
        for (int64_t i = 0; i < count; i++) out[i] = vl_f32_from_bf16(in[i]);
    } else if (to_dtype == VL_BF16 && from_dtype == VL_F32) {
        VlBf16 *restrict out = to;
        const float *restrict in = from;
        for (int64_t i = 0; i < count; i++) out[i] = vl_bf16_from_f32(in[i]);
    } else {
        for (int64_t i = 0; i < count; i++) store_element(to, to_dtype, i, load_element(from, from_dtype, i));
    }
}
