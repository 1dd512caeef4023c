// Keys and values of the tokens so far, for decoding one sequence token by token.
#ifndef VL_MODEL_KV_CACHE_H
#define VL_MODEL_KV_CACHE_H

#include "model/config.h"

typedef struct VlKvCache {
    int64_t layers, capacity;  // tokens that fit
    int64_t length;            // tokens held
    VlTensor *keys, *values;   // [layers] of [capacity, kv_heads*head_size]; keys are rotated already
    void *memory;              // device
} VlKvCache;

// Takes device memory for `capacity` tokens. Errors: VL_INVALID, VL_OUT_OF_MEMORY.
VlStatus vl_kv_cache_create(VlContext *context, VlKvCache *cache, const VlDecoderConfig *config, int64_t capacity,
                            VlDtype dtype);
void vl_kv_cache_free(VlContext *context, VlKvCache *cache);

#endif
