#include "base/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static _Atomic int64_t fault_countdown = -1;

void vl_fault_arm(int64_t countdown) { atomic_store(&fault_countdown, countdown); }

bool vl_fault_hit(void) {
    if (atomic_load_explicit(&fault_countdown, memory_order_relaxed) < 0) return false;
    return atomic_fetch_sub(&fault_countdown, 1) == 0;
}

bool vl_multiply(int64_t a, int64_t b, int64_t *out) { return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, out); }

bool vl_add(int64_t a, int64_t b, int64_t *out) { return a >= 0 && b >= 0 && !__builtin_add_overflow(a, b, out); }

VlStatus vl_allocate(void *out, int64_t count, int64_t size) {
    int64_t bytes;
    void *memory = NULL;
    if (!vl_multiply(count, size, &bytes)) {
        return vl_error(VL_INVALID, "cannot allocate %lld elements of %lld bytes: the product is no valid size",
                        (long long)count, (long long)size);
    }
    if (!vl_fault_hit()) memory = calloc(1, bytes > 0 ? (size_t)bytes : 1);
    if (!memory) return vl_error(VL_OUT_OF_MEMORY, "out of memory: %lld bytes were asked for", (long long)bytes);
    memcpy(out, &memory, sizeof memory);
    return VL_OK;
}

VlStatus vl_reserve(void *array, int64_t *capacity, int64_t needed, int64_t size) {
    if (needed <= *capacity) return VL_OK;
    int64_t grown = *capacity < 8 ? 8 : *capacity, bytes;
    while (grown < needed) {
        if (!vl_multiply(grown, 2, &grown)) return vl_error(VL_INVALID, "an array would exceed 2^63 elements");
    }
    void *old, *memory;
    memcpy(&old, array, sizeof old);
    if (!vl_multiply(grown, size, &bytes) || vl_fault_hit() || !(memory = realloc(old, (size_t)bytes))) {
        return vl_error(VL_OUT_OF_MEMORY, "out of memory: an array of %lld elements of %lld bytes", (long long)grown,
                        (long long)size);
    }
    memset((char *)memory + *capacity * size, 0, (size_t)((grown - *capacity) * size));
    memcpy(array, &memory, sizeof memory);
    *capacity = grown;
    return VL_OK;
}

VlStatus vl_duplicate_bytes(char **out, const char *text, int64_t length) {
    VL_TRY(vl_allocate(out, length + 1, 1));
    memcpy(*out, text, (size_t)length);
    return VL_OK;
}

VlStatus vl_duplicate_string(char **out, const char *text) {
    return vl_duplicate_bytes(out, text, (int64_t)strlen(text));
}

void vl_free(void *memory) { free(memory); }
