// The registry of parameters: one row per tensor of the model, under its Hugging Face name. Layers register what they
// own; the registry then drives initialisation, freezing, loading, checkpoints, optimizer groups and tests.
#ifndef VL_MODEL_PARAMS_H
#define VL_MODEL_PARAMS_H

#include "ops/ops.h"

typedef enum VlGroup {
    VL_GROUP_VISION_TOWER,
    VL_GROUP_CONNECTOR,
    VL_GROUP_LLM,
    VL_GROUP_AUDIO_TOWER,
    VL_GROUP_AUDIO_PROJECTOR,
    VL_GROUP_COUNT
} VlGroup;

// A set of groups, one bit each. vl_groups_parse reads the names of `train.trainable` ("connector,llm").
typedef uint32_t VlGroups;
#define VL_GROUP_BIT(group) ((VlGroups)1 << (group))
const char *vl_group_name(VlGroup group);  // "vision_tower", "connector", "llm", "audio_tower", "audio_projector"
VlStatus vl_groups_parse(const char *list, VlGroups *groups);

typedef enum VlInitKind {
    VL_INIT_ZEROS,
    VL_INIT_ONES,
    VL_INIT_NORMAL,  // mean 0, standard deviation init.scale
    VL_INIT_UNIFORM  // in [-init.scale, init.scale); PyTorch's default of Linear and Conv is scale = 1/sqrt(fan in)
} VlInitKind;

typedef struct VlInit {
    VlInitKind kind;
    float scale;
} VlInit;

typedef struct VlParam {
    char *name;  // Hugging Face name, e.g. model.layers.0.self_attn.q_proj.weight
    VlGroup group;
    VlInit init;
    bool decay;     // weight decay applies (matrices; not biases, norms, class and position embeddings)
    bool optional;  // may be missing from a model folder without a word (seeded initialisation otherwise says so)
    bool unused;    // belongs to the checkpoint and takes no part in the model: never trained, whatever its group
    bool joined;    // begins where the row before it ends, of the same group: an operation reads both as one tensor
    bool trainable;
    int64_t index;       // its row
    int64_t offset;      // of its first element in the flat range of trainable parameters; -1 when frozen
    VlTensor shape;      // Hugging Face extents; data NULL
    VlTensor value;      // device, storage type
    VlTensor gradient;   // device, f32, empty when frozen
    VlTensor remainder;  // device, i16: what a bf16 value lacks to its f32 master; empty in f32 runs and when frozen
} VlParam;

// In bf16 runs a trainable parameter has an f32 master, which the optimizer updates. It is kept as its two halves
// (vl_halves_from_f32): the value, which is the nearest bf16, and the remainder.
//
// Rows keep their address. Trainable rows are laid out one after the other, in order of registration, in one flat range
// of `trainable_elements` f32 gradients; each row that is not joined to the one before it starts at a multiple of 16
// elements and the gaps stay zero.
typedef struct VlParams {
    int64_t count, capacity;
    VlParam **rows;
    VlDtype dtype;
    int64_t trainable_elements;
    VlTensor flat_value, flat_gradient;  // [trainable_elements] values and f32 gradients, after vl_params_bind
    VlTensor flat_remainder;             // bf16 runs: [trainable_elements] i16; empty in f32 runs
    int64_t frozen_bytes, trainable_bytes, gradient_bytes,
        remainder_bytes;  // what vl_params_bind takes (known after planning too)
    void *memory[4];
} VlParams;

// Adds a row; `extents` as stored in the checkpoint. *param stays valid until vl_params_free; `param` may be NULL. The
// row is frozen until vl_params_set_trainable. Errors: VL_INVALID for a name that is registered already and for extents
// below 1.
VlStatus vl_params_add(VlParams *params, VlParam **param, const char *name, VlGroup group, VlInit init, bool decay,
                       int32_t dims, const int64_t *extents);
#define vl_params_register(params, param, name, group, init, decay, ...) \
    vl_params_add((params), (param), (name), (group), (init), (decay),   \
                  (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
// NULL when absent.
VlParam *vl_params_find(const VlParams *params, const char *name);
// Marks the rows of `groups` trainable and the others frozen, and lays out the flat range. Before vl_params_bind.
void vl_params_set_trainable(VlParams *params, VlGroups groups);
// Takes device memory for values (dtype), gradients and remainders of trainable rows, zeroed. On a planning context:
// only counts.
VlStatus vl_params_bind(VlContext *context, VlParams *params, VlDtype dtype);
// Elements [begin, begin + count) of what an init gives the parameter `name` under `seed`.
void vl_init_values(VlInit init, const char *name, uint64_t seed, int64_t begin, int64_t count, float *values);
// Values from the row's init, keyed by (seed, name): the same on any rank and in any order of rows.
VlStatus vl_params_initialise(VlContext *context, VlParams *params, VlParam *param, uint64_t seed);
// Value (and remainder) from `count` host elements of `dtype`; and the value (the master where there is one) to host
// f32.
VlStatus vl_params_set(VlContext *context, VlParam *param, const void *host, VlDtype dtype);
VlStatus vl_params_get(VlContext *context, const VlParam *param, float *host);
// The same for elements [begin, begin + count) only, so that a large tensor passes in pieces.
VlStatus vl_params_set_part(VlContext *context, VlParam *param, int64_t begin, int64_t count, const void *host,
                            VlDtype dtype);
VlStatus vl_params_get_part(VlContext *context, const VlParam *param, int64_t begin, int64_t count, float *host);
void vl_params_free(VlContext *context, VlParams *params);

// Called during backward when the gradients of rows [first, first + count) are complete. NULL callback: nobody listens.
typedef struct VlGradientHook {
    VlStatus (*ready)(void *user, int64_t first, int64_t count);
    void *user;
} VlGradientHook;

#endif
