#include "cli/model_input.h"

#include "base/memory.h"
#include "model/beats.h"

VlStatus vl_input_read_ids(const VlSafetensors *set, const char *path, const char *name, bool required, int64_t **ids,
                           int64_t *count) {
    *ids = NULL;
    *count = 0;
    const VlSafetensorsEntry *entry = vl_safetensors_find(set, name);
    if (!entry && !required) return VL_OK;
    if (!entry) return vl_error(VL_FORMAT, "%s has no tensor '%s' (i64, one extent)", path, name);
    if (entry->tensor.dtype != VL_I64 || entry->tensor.dims != 1) {
        return vl_error(VL_FORMAT, "%s: %s is %s; it must be i64 with one extent", path, name,
                        vl_describe(entry->tensor));
    }
    VL_TRY(VL_NEW(ids, entry->tensor.dim[0]));
    VlStatus status = vl_safetensors_read(set, entry, *ids);
    if (status != VL_OK) {
        vl_free(*ids);
        *ids = NULL;
        return vl_error_frame(status, __func__, __FILE__, __LINE__);
    }
    *count = entry->tensor.dim[0];
    return VL_OK;
}

static VlStatus read_f32(const VlSafetensors *set, const VlSafetensorsEntry *entry, const float **out) {
    float *values;
    VL_TRY(VL_NEW(&values, vl_elements(entry->tensor)));
    VlStatus status = vl_safetensors_read_as(set, entry, VL_F32, values);
    if (status == VL_OK) {
        *out = values;
        return VL_OK;
    }
    vl_free(values);
    return vl_error_frame(status, __func__, __FILE__, __LINE__);
}

VlStatus vl_input_read_pixels(const VlSafetensors *set, const char *path, const VlModelConfig *config,
                              VlMedium *medium) {
    const VlSafetensorsEntry *entry = vl_safetensors_find(set, "pixel_values");
    if (!entry) return VL_OK;
    VlTensor tensor = entry->tensor;
    int64_t side = config->vision.image_size;
    if (!config->has_vision) {
        return vl_error(VL_INVALID, "%s has pixel_values, but the model has no vision tower (mm_vision_tower)", path);
    }
    if (tensor.dims != 4 || tensor.dim[0] < 1 || tensor.dim[1] != 3 || tensor.dim[2] != side || tensor.dim[3] != side) {
        return vl_error(VL_FORMAT, "%s: pixel_values is %s; this model takes [frames,3,%lld,%lld]", path,
                        vl_describe(tensor), (long long)side, (long long)side);
    }
    medium->frames = tensor.dim[0];
    return read_f32(set, entry, &medium->pixels);
}

VlStatus vl_input_read_fbank(const VlSafetensors *set, const char *path, const VlModelConfig *config,
                             VlMedium *medium) {
    const VlSafetensorsEntry *entry = vl_safetensors_find(set, "fbank");
    if (!entry) return VL_OK;
    VlTensor tensor = entry->tensor;
    if (!config->has_audio) {
        return vl_error(VL_INVALID, "%s has fbank, but the model has no audio tower (mm_audio_tower)", path);
    }
    if (tensor.dims != 2 || tensor.dim[0] < 1 || tensor.dim[1] != VL_FBANK_BINS) {
        return vl_error(VL_FORMAT, "%s: fbank is %s; this model takes [rows,%d]", path, vl_describe(tensor),
                        VL_FBANK_BINS);
    }
    medium->rows = tensor.dim[0];
    return read_f32(set, entry, &medium->fbank);
}

void vl_input_free_medium(VlMedium *medium) {
    vl_free((void *)medium->pixels);
    vl_free((void *)medium->fbank);
    *medium = (VlMedium){0};
}
