// What a stage of the recipe needs of the model that it begins from.
#ifndef VL_TRAIN_STAGE_NEEDS_H
#define VL_TRAIN_STAGE_NEEDS_H

#include "train/model_source.h"

// The parts that have to be there before the stage begins: stored, or trained by an earlier stage. Others may begin
// from their initial values. A model of which nothing at all is stored may do so in every part.
VlGroups vl_stage_needs(const char *stage);

// Whether they are, before any value is read. Errors: VL_INVALID naming the part, the key of config.json or the first
// tensor that is missing, and what puts it there; those of vl_model_load. Not collective.
VlStatus vl_stage_check(const char *stage, const VlModelSource *source, const VlModelConfig *config);

#endif
