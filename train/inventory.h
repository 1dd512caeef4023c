// What a model folder, a checkpoint or a run holds of the model that its configuration describes, and what a stage of
// the recipe makes of it.
#ifndef VL_TRAIN_INVENTORY_H
#define VL_TRAIN_INVENTORY_H

#include "base/weights.h"
#include "model/params.h"
#include "train/tensor_hash.h"

typedef enum VlIssueKind {
    VL_ISSUE_MISSING,    // a parameter that no file holds
    VL_ISSUE_SHAPE,      // stored with other extents
    VL_ISSUE_LEFT_OVER,  // stored, and no part of the model
} VlIssueKind;

typedef struct VlIssue {
    VlIssueKind kind;
    VlGroup group;  // of a parameter
    char *name;
    VlTensor wanted, stored;  // shapes, where there is one
} VlIssue;

typedef struct VlInventory {
    // Tensors and elements that the model has, and tensors that are stored, by group; optional ones (parts of a tower
    // that are never run) are not counted.
    int64_t wanted[VL_GROUP_COUNT], elements[VL_GROUP_COUNT], stored[VL_GROUP_COUNT];
    int64_t skipped;  // stored tensors that are known to take no part
    int64_t issues, capacity;
    VlIssue *issue;
} VlInventory;

// PATH: a model folder, a checkpoint or a run's output folder (its newest checkpoint, upon what it was trained from).
// Reads headers, not values. Free with vl_inventory_free. Errors: VL_IO, VL_FORMAT, VL_UNSUPPORTED, VL_INVALID.
VlStatus vl_inventory_take(VlInventory *inventory, const char *path);
void vl_inventory_free(VlInventory *inventory);

// Whether training would take the tensors of a group: all there, or none (then they begin from their initial values;
// the language model, the towers and what the stage `needs` (train/stage_needs.h) may do so only where nothing at all
// is stored).
bool vl_inventory_group_is_usable(const VlInventory *inventory, VlGroup group, VlGroups needs);
// The groups that a stage trains by default. VL_USAGE naming the stages for any other word.
VlStatus vl_inventory_stage(const char *stage, VlGroups *trained);

// XXH3-128 of a stored tensor's bytes, as in checkpoints (train/tensor_hash.h).
VlStatus vl_inventory_hash(const VlWeights *weights, const VlWeightsEntry *entry, char hex[VL_HASH_TEXT]);

#endif
