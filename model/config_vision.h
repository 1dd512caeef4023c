// The vision half of a model's configuration: the tower's own numbers, and the connector.
#ifndef VL_MODEL_CONFIG_VISION_H
#define VL_MODEL_CONFIG_VISION_H

#include "base/json.h"
#include "model/config.h"

enum { VL_CONFIG_LIMIT = 16 << 20 };  // bytes of a config.json

// Fills has_vision, vision_folder, vision and connector from the keys mm_* of `json`, which was read from `path`; after
// folder and decoder.
VlStatus vl_config_vision_load(VlModelConfig *config, const json_t *json, const char *path);

// A tower's own config.json: CLIPVisionConfig or SiglipVisionConfig, alone or as `vision_config` of the whole.
// run_layers is left to the model that uses the tower. Errors: VL_IO, VL_FORMAT, VL_UNSUPPORTED, VL_INVALID.
VlStatus vl_vision_config_load(VlVisionConfig *vision, const char *path);

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

// The ids of a member that is one id or a list of ids, each in [0, vocabulary), to stop[VL_MOST_STOPS]; a missing key
// or null keeps both.
VlStatus vl_config_token_ids(const json_t *json, const char *path, const char *key, int64_t vocabulary, int64_t *stop,
                             int64_t *stops);

#endif
