#include "ops/check.h"

#include <stdint.h>
#include <stdio.h>

static VlStatus check_memory(const VlContext *context, const char *name, VlTensor tensor) {
    if (tensor.data || context->planning || vl_elements(tensor) == 0) return VL_OK;
    return vl_error(VL_INVALID, "%s %s has no memory", name, vl_describe(tensor));
}

VlStatus vl_check_floating(const VlContext *context, const char *name, VlTensor tensor, int32_t dims) {
    if (tensor.dims != dims || (tensor.dtype != VL_F32 && tensor.dtype != VL_BF16)) {
        return vl_error(VL_INVALID, "%s is %s, it must be f32 or bf16 of %d extents", name, vl_describe(tensor), dims);
    }
    return check_memory(context, name, tensor);
}

static bool fits(VlTensor tensor, VlDtype dtype, int32_t dims, const int64_t *dim) {
    if (tensor.dtype != dtype || tensor.dims != dims) return false;
    for (int32_t i = 0; i < dims; i++) {
        if (dim[i] != VL_ANY && tensor.dim[i] != dim[i]) return false;
    }
    return true;
}

VlStatus vl_check_tensor_make(const VlContext *context, const char *name, VlTensor tensor, VlDtype dtype, int32_t dims,
                              const int64_t *dim) {
    if (fits(tensor, dtype, dims, dim)) return check_memory(context, name, tensor);
    char wanted[128] = "";
    int used = 0;
    for (int32_t i = 0; i < dims; i++) {
        const char *comma = i ? "," : "";
        used += dim[i] == VL_ANY
                    ? snprintf(wanted + used, sizeof wanted - (size_t)used, "%sany", comma)
                    : snprintf(wanted + used, sizeof wanted - (size_t)used, "%s%lld", comma, (long long)dim[i]);
    }
    return vl_error(VL_INVALID, "%s is %s, it must be [%s] %s", name, vl_describe(tensor), wanted,
                    vl_dtype_name(dtype));
}

VlStatus vl_check_like(const VlContext *context, const char *name, VlTensor tensor, const char *other_name,
                       VlTensor other) {
    if (fits(tensor, other.dtype, other.dims, other.dim)) return check_memory(context, name, tensor);
    return vl_error(VL_INVALID, "%s is %s, it must be as %s %s", name, vl_describe(tensor), other_name,
                    vl_describe(other));
}

VlStatus vl_check_apart(const char *name, VlTensor tensor, const char *other_name, VlTensor other) {
    const char *a = tensor.data, *b = other.data;
    int64_t a_bytes = vl_bytes(tensor), b_bytes = vl_bytes(other);
    if (!a || !b || !a_bytes || !b_bytes || a + a_bytes <= b || b + b_bytes <= a) return VL_OK;
    return vl_error(VL_INVALID, "%s %s and %s %s overlap in memory", name, vl_describe(tensor), other_name,
                    vl_describe(other));
}
