#include "model/kv_cache.h"

#include "base/memory.h"

VlStatus vl_kv_cache_create(VlContext *context, VlKvCache *cache, const VlDecoderConfig *config, int64_t capacity,
                            VlDtype dtype) {
    VlStatus status;
    int64_t width = config->kv_heads * config->head_size, bytes;
    *cache = (VlKvCache){.layers = config->layers, .capacity = capacity};
    if (capacity < 0 || !vl_multiply(capacity, width * 2 * config->layers * vl_dtype_size(dtype), &bytes)) {
        return vl_error(VL_INVALID, "a cache of %lld tokens has no valid size", (long long)capacity);
    }
    VL_TRY_GOTO(status, VL_NEW(&cache->keys, config->layers), failed);
    VL_TRY_GOTO(status, VL_NEW(&cache->values, config->layers), failed);
    VL_TRY_GOTO(status, vl_device_allocate(context, bytes, &cache->memory), failed);
    VlTensor all = vl_tensor(cache->memory, dtype, config->layers * 2, capacity, width);
    for (int64_t i = 0; i < config->layers; i++) {
        cache->keys[i] = vl_reshape(vl_rows(all, 2 * i, 1), capacity, width);
        cache->values[i] = vl_reshape(vl_rows(all, 2 * i + 1, 1), capacity, width);
    }
    return VL_OK;
failed:
    vl_kv_cache_free(context, cache);
    return status;
}

void vl_kv_cache_free(VlContext *context, VlKvCache *cache) {
    vl_device_free(context, cache->memory);
    vl_free(cache->keys);
    vl_free(cache->values);
    *cache = (VlKvCache){0};
}
