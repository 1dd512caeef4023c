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

VlStatus vl_check_offsets(const char *name, const int64_t *offsets, int64_t count, const char *rows_name,
                          int64_t rows) {
    for (int64_t s = 0; s < count; s++) {
        if (offsets[s] >= (s ? offsets[s - 1] : 0)) continue;
        return vl_error(VL_INVALID, "%s[%lld] is %lld, the offsets must not decrease", name, (long long)s,
                        (long long)offsets[s]);
    }
    if (offsets[0] == 0 && offsets[count - 1] == rows) return VL_OK;
    return vl_error(VL_INVALID, "%s runs from %lld to %lld, but %s has %lld rows", name, (long long)offsets[0],
                    (long long)offsets[count - 1], rows_name, (long long)rows);
}

VlStatus vl_check_sequences(VlContext *context, const char *name, VlTensor offsets, const char *rows_name,
                            int64_t rows) {
    VL_TRY(vl_check_tensor(context, name, offsets, VL_I64, VL_ANY));
    if (offsets.dim[0] < 1) {
        return vl_error(VL_INVALID, "%s is %s, it must hold at least one offset", name, vl_describe(offsets));
    }
    vl_device_open(context);
    const int64_t *known = vl_indices(context, offsets);
    VlStatus status = known ? vl_check_offsets(name, known, offsets.dim[0], rows_name, rows) : VL_OK;
    vl_device_close(context);
    return status;
}

static VlStatus check_values(const char *name, const int64_t *index, int64_t count, int64_t bound) {
    for (int64_t i = 0; i < count; i++) {
        if (index[i] < 0 || index[i] >= bound) {
            return vl_error(VL_INVALID, "%s[%lld] is %lld, it must be in [0, %lld)", name, (long long)i,
                            (long long)index[i], (long long)bound);
        }
    }
    return VL_OK;
}

VlStatus vl_check_indices(VlContext *context, const char *name, VlTensor indices, int64_t bound) {
    vl_device_open(context);
    const int64_t *known = vl_indices(context, indices);
    VlStatus status = known ? check_values(name, known, vl_elements(indices), bound) : VL_OK;
    vl_device_close(context);
    return status;
}
