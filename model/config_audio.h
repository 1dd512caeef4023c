// The audio half of a model's configuration: the tower's own numbers, and the projector.
#ifndef VL_MODEL_CONFIG_AUDIO_H
#define VL_MODEL_CONFIG_AUDIO_H

#include "base/json.h"
#include "model/config.h"

// Fills has_audio and audio from the keys mm_audio_tower, mm_audio_config, mm_projector_a_type, mm_hidden_size_a and
// hidden_size_a of `json`, which was read from `path`; after decoder. Keys of mm_audio_config that are absent have the
// values of BEATs iter3+ (AS2M); where there is no mm_audio_config, the `cfg` of the tower's own file counts. Errors:
// VL_INVALID, VL_UNSUPPORTED naming key and value.
VlStatus vl_config_audio_load(VlModelConfig *config, const json_t *json, const char *path);

#endif
