// The audio tower's own file, which mm_audio_tower names: BEATs as it was published (a PyTorch file with `cfg` and
// `model`), or the reference's audio_tower.bin.
#ifndef VL_MODEL_AUDIO_FILE_H
#define VL_MODEL_AUDIO_FILE_H

#include "base/weights.h"

#define VL_AUDIO_TOWER_PREFIX "model.audio_tower."

// The file's path, "" when there is none: `name` is absolute or relative to the model folder.
VlStatus vl_audio_file_find(char path[VL_PATH_MAX], const char *model_folder, const char *name);

// What stands in the file in the place of VL_AUDIO_TOWER_PREFIX. VL_FORMAT when no tensor of a tower is there.
VlStatus vl_audio_file_prefix(const VlWeights *weights, const char *path, const char **prefix);

// The `cfg` of a published file: a new reference, NULL when it has none.
VlStatus vl_audio_file_config(const char *path, json_t **config);

#endif
