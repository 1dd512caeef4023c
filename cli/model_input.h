// Model inputs that lie in safetensors files.
#ifndef VL_CLI_MODEL_INPUT_H
#define VL_CLI_MODEL_INPUT_H

#include "base/safetensors.h"
#include "model/batch_build.h"

// The i64 tensor NAME [count]; the caller frees *ids with vl_free. Absent: VL_FORMAT if `required`, else *ids = NULL,
// *count = 0.
VlStatus vl_input_read_ids(const VlSafetensors *set, const char *path, const char *name, bool required, int64_t **ids,
                           int64_t *count);
// pixel_values [T,3,image_size,image_size] f32 as the frames, and fbank [rows,128] f32 as the sound of *medium, which
// is left as it is where the file has none. vl_input_free_medium frees both.
VlStatus vl_input_read_pixels(const VlSafetensors *set, const char *path, const VlModelConfig *config,
                              VlMedium *medium);
VlStatus vl_input_read_fbank(const VlSafetensors *set, const char *path, const VlModelConfig *config, VlMedium *medium);
void vl_input_free_medium(VlMedium *medium);

#endif
