// The plan of a run: what its configuration asks for, and whether the device has room for it.
#ifndef VL_TRAIN_RUN_PLAN_H
#define VL_TRAIN_RUN_PLAN_H

#include "train/config.h"
#include "train/memory_plan.h"

// What the run that `config` describes is planned with: this model (with the run's num_frames), so many ranks, this
// device. Errors: VL_USAGE, as vl_sample_check_longest and vl_groups_parse.
VlStatus vl_run_plan_options(const VlConfig *config, const VlModelConfig *model, int64_t ranks, VlDevice device,
                             VlPlanOptions *options);
// Holds a plan, and on a GPU what libraries will take beside it, against what can still be had of the device's memory.
// On a GPU too little is VL_OUT_OF_MEMORY, on the CPU a warning: what is never touched takes nothing there.
VlStatus vl_run_check_memory(const VlMemoryPlan *plan, VlContext *context, int64_t ranks);

#endif
