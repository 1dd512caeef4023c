// Fills the parameters of a model from its folder in the Hugging Face layout.
#ifndef VL_MODEL_LOAD_H
#define VL_MODEL_LOAD_H

#include "base/weights.h"
#include "model/config.h"
#include "model/params.h"

typedef struct VlLoadReport {
    int64_t loaded;                          // parameters read from files
    int64_t initialised[VL_GROUP_COUNT];     // parameters that no file has: from their init, by the seed
    int64_t stored[VL_GROUP_COUNT];          // parameters that a file has, without those that may be missing
    const VlParam *missing[VL_GROUP_COUNT];  // the first that none has; NULL: all are there
    int64_t skipped;  // stored tensors that are known and take no part (rotary tables, position ids)
} VlLoadReport;

// Values of all parameters (after vl_params_bind): from config->folder, the vision tower also from
// config->vision_folder with names from `vision_model.` on, the audio tower also from config->audio_file, and what none
// has from the parameter's own initialisation under `seed`; the report counts them. A folder without any weights gives
// a model from scratch. On a planning context nothing is read but headers. `report` may be NULL. `strict`: a group of
// which some parameters are stored and others are not is an error, and so is a language model or tower that is missing
// as a whole while other weights are stored (connector and audio projector may be missing: they are trained first).
// Errors: VL_FORMAT naming the tensor (missing, of another shape with both shapes, or unknown), VL_IO, VL_UNSUPPORTED.
VlStatus vl_model_load(VlContext *context, VlParams *params, const VlModelConfig *config, uint64_t seed, bool strict,
                       VlLoadReport *report);
// The same from a set of tensors under their full names.
VlStatus vl_model_load_weights(VlContext *context, VlParams *params, const VlModelConfig *config,
                               const VlWeights *weights, uint64_t seed, bool strict, VlLoadReport *report);

// Whether a stored tensor that is no parameter of the model is known to take no part (rotary tables, position ids, a
// tied head); any other left-over tensor is an error.
bool vl_model_load_skips(const char *name);

#endif
