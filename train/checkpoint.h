// Checkpoints: what trains, the optimizer's state, and where the run stands, as logical tensors that do not depend on
// the number of ranks. A checkpoint is a folder step-00000030/ with one HDF5 file a rank and the table of its tensors,
// the resolved configuration, and manifest.json, which holds the hashes (train/checkpoint_manifest.h). It is written
// under a temporary name, fsynced, and renamed: it is there whole or not at all. What does not train is kept by
// reference (path and hash), not by copy. Another kind of checkpoint holds a whole model, and nothing of a run: it is
// what a model folder becomes (train/convert.h).
#ifndef VL_TRAIN_CHECKPOINT_H
#define VL_TRAIN_CHECKPOINT_H

#include "base/files.h"
#include "dist/comm.h"
#include "optim/optimizer.h"
#include "train/model_source.h"

// Where a run stands. All of it is written and read back.
typedef struct VlProgress {
    int64_t step;         // optimizer steps done; also the loader's cursor
    int64_t skipped;      // steps left out because something was not finite
    int64_t bad_samples;  // empty slots so far
    int64_t bad_in_a_row;
    int64_t global_batch;
    int64_t seed;
    int64_t steps;  // of the whole run: the learning rate depends on it
    uint64_t data_hash;
} VlProgress;

typedef struct VlCheckpointInfo {
    bool model;  // a whole model: nothing below applies
    VlProgress progress;
    char trainable[256];     // names of the groups that trained
    char base[VL_PATH_MAX];  // the model that the run started from: its frozen parts are used
    char base_hash[33];
    int64_t seed;  // of what the base lacks
} VlCheckpointInfo;

// Writes RUN/checkpoints/step-N and removes the oldest ones over `keep`. `configuration` is the resolved YAML; `base`
// is identified (vl_model_source_identify). Collective.
VlStatus vl_checkpoint_save(VlComm *comm, const char *run, const VlOptimizer *optimizer, const VlModelSource *base,
                            const char *trainable, const VlProgress *progress, const char *configuration, int64_t keep);

// The newest complete checkpoint of a run in *path ("" when there is none); half-written ones are not seen. With
// `before` >= 0: the newest one with fewer steps than that.
VlStatus vl_checkpoint_newest(const char *run, int64_t before, char path[VL_PATH_MAX]);
// N of a path that ends in step-N.
int64_t vl_checkpoint_step(const char *path);
// Reads the manifest and the tables that it names.
VlStatus vl_checkpoint_info(const char *path, VlCheckpointInfo *info);
// Hashes the checkpoint's files against its manifest; ranks share the work. Collective; every rank leaves with the same
// verdict.
VlStatus vl_checkpoint_verify(VlComm *comm, const char *path);
// Parameters that the checkpoint holds into `params` (a tensor of another shape or an unknown one: VL_FORMAT); with
// `optimizer` also its moments and number of steps, and then every trainable parameter has to be there. Not collective.
VlStatus vl_checkpoint_load(VlContext *context, const char *path, VlParams *params, VlOptimizer *optimizer);
// Leftovers of saves that never finished. Called by one rank.
VlStatus vl_checkpoint_clean(const char *run);

#endif
