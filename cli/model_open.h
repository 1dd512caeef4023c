// What the commands that run a model share: its options, and opening it.
#ifndef VL_CLI_MODEL_OPEN_H
#define VL_CLI_MODEL_OPEN_H

#include "cli/options.h"
#include "train/model_source.h"

// Targets of the options --model, --dtype, --device and --threads.
typedef struct VlModelOptions {
    const char *path;    // a model folder, a checkpoint, or a run's output folder
    const char *dtype;   // "f32", "bf16"
    const char *device;  // "auto", "cpu", "cuda"
    int64_t threads;     // 0: as many as the process may use
} VlModelOptions;

#define VL_MODEL_OPTIONS_DEFAULT ((VlModelOptions){.dtype = "f32", .device = "auto"})
// Rows of a command's option table.
#define VL_MODEL_OPTION_ROWS(options)                                                                                 \
    {"model", VL_OPTION_STRING, &(options).path, "DIR", "model folder, checkpoint, or a run's output folder", true},  \
        {"dtype", VL_OPTION_STRING, &(options).dtype, "f32|bf16", "type of weights and activations (f32)", false},    \
        {"device", VL_OPTION_STRING, &(options).device, "auto|cpu|cuda", "where to compute (auto)", false}, {         \
        "threads", VL_OPTION_INT64, &(options).threads, "N", "CPU threads (0: as many as the process may use)", false \
    }

// The words of --dtype and --device (vl_device_choose), for commands that open no stored model, too. Errors: VL_USAGE
// naming the nearest word.
VlStatus vl_read_dtype(const char *word, VlDtype *dtype);
VlStatus vl_read_device(const char *word, VlDevice *device);

typedef struct VlOpenModel {
    VlModelSource source;
    VlContext *context;
    VlVlm *model;
} VlOpenModel;

// Context, model and weights. A tensor that the folder lacks is an error. Errors: VL_USAGE for the options; VL_IO,
// VL_FORMAT, VL_INVALID, VL_UNSUPPORTED for what the path holds.
VlStatus vl_model_open(VlOpenModel *open, const VlModelOptions *options, VlGroups trainable);
void vl_model_close(VlOpenModel *open);

#endif
