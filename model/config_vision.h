// The vision half of a model's configuration: the tower's own numbers, and the connector.
#ifndef VL_MODEL_CONFIG_VISION_H
#define VL_MODEL_CONFIG_VISION_H

#include "base/json.h"
#include "model/config.h"

enum { VL_CONFIG_LIMIT = 16 << 20 };  // bytes of a config.json

// Fills has_vision, vision_folder, vision and connector from the keys mm_* of `json`, which was read from `path`; after
// folder and decoder.
VlStatus vl_config_vision_load(VlModelConfig *config, const json_t *json, const char *path);

// *out = an integer member in [low, high]; a missing key or null keeps *out unless `required`.
VlStatus vl_config_int(const json_t *json, const char *path, const char *key, bool required, int64_t low, int64_t high,
                       int64_t *out);

// A key whose value changes the arithmetic in a way that this version does not know. Its member must be absent, null or
// equal to `accepted` (JSON text; NULL: no value). Errors: VL_UNSUPPORTED naming key and value.
typedef struct VlConfigFixed {
    const char *key;
    const char *accepted;
} VlConfigFixed;
VlStatus vl_config_check_fixed(const json_t *json, const char *path, const VlConfigFixed *fixed, int64_t count);

#endif
