#include "model/audio_file.h"

#include <string.h>

VlStatus vl_audio_file_find(char path[VL_PATH_MAX], const char *model_folder, const char *name) {
    VL_TRY(vl_path_join(path, model_folder, name));
    if (!vl_path_exists(path) || vl_path_is_folder(path)) path[0] = '\0';
    return VL_OK;
}

VlStatus vl_audio_file_prefix(const VlWeights *weights, const char *path, const char **prefix) {
    static const char *const prefixes[] = {VL_AUDIO_TOWER_PREFIX, "audio_tower.", "model."};
    for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes; p++) {
        *prefix = prefixes[p];
        for (int64_t i = 0; i < weights->count; i++) {
            if (strncmp(weights->entries[i].name, *prefix, strlen(*prefix)) == 0) return VL_OK;
        }
    }
    return vl_error(VL_FORMAT, "%s holds no audio tower (%s...); it holds %s, ...", path, *prefix,
                    weights->count > 0 ? weights->entries[0].name : "nothing");
}

VlStatus vl_audio_file_config(const char *path, json_t **config) {
    VlWeights weights;
    *config = NULL;
    VL_TRY(vl_weights_open(&weights, path));
    const json_t *data = vl_weights_data(&weights, 0), *own = data ? json_object_get(data, "cfg") : NULL;
    VlStatus status = VL_OK;
    if (json_is_object(own)) {
        *config = json_deep_copy(own);
        if (!*config) status = vl_error(VL_OUT_OF_MEMORY, "out of memory for the configuration in %s", path);
    }
    vl_weights_close(&weights);
    return status;
}
