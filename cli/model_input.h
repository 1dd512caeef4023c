// Model inputs that lie in safetensors files.
#ifndef VL_CLI_MODEL_INPUT_H
#define VL_CLI_MODEL_INPUT_H

#include "base/safetensors.h"
#include "model/batch_build.h"

// The i64 tensor NAME [count]; the caller frees *ids with vl_free. Absent: VL_FORMAT if `required`, else *ids = NULL,
// *count = 0.
VlStatus vl_input_read_ids(const VlSafetensors *set, const char *path, const char *name, bool required, int64_t **ids,
                           int64_t *count);
// pixel_values [T,3,image_size,image_size] f32 as the frames of one visual; the caller frees frames->pixels with
// vl_free. *visuals = 1, or 0 when the file has none.
VlStatus vl_input_read_frames(const VlSafetensors *set, const char *path, const VlModelConfig *config, VlFrames *frames,
                              int64_t *visuals);

#endif
