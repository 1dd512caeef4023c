// The configuration of `vl2 pack`, `vl2 train` and `vl2 plan`: one YAML file, includes, and key=value from the command
// line. One table (config.c) makes the parser, the help text, the resolved dump and the limits.
#ifndef VL_TRAIN_CONFIG_H
#define VL_TRAIN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/dtype.h"
#include "base/files.h"

enum { VL_CONFIG_TEXT = 256 };

typedef struct VlConfigSource {
    char annotations[VL_PATH_MAX], media[VL_PATH_MAX], shards[VL_PATH_MAX];
    double weight;
} VlConfigSource;

typedef struct VlConfig {
    char stage[VL_CONFIG_TEXT];
    struct {
        char path[VL_PATH_MAX];
    } model;
    struct {
        int64_t sources, sources_capacity;
        VlConfigSource *source;
        int64_t frames;  // 0: the model's num_frames
        char aspect[VL_CONFIG_TEXT], protocol[VL_CONFIG_TEXT], labels[VL_CONFIG_TEXT], mix[VL_CONFIG_TEXT],
            truncate[VL_CONFIG_TEXT];
        char fbank_dtype[VL_CONFIG_TEXT];
        double sound_seconds;
        int64_t max_tokens, prefetch, loader_threads;
    } data;
    struct {
        char annotations[VL_PATH_MAX], media[VL_PATH_MAX];
        int64_t every, limit;
        char controls[VL_CONFIG_TEXT];
    } heldout;
    struct {
        char trainable[VL_CONFIG_TEXT], dtype[VL_CONFIG_TEXT], nonfinite[VL_CONFIG_TEXT];
        int64_t steps, epochs, global_batch, micro_tokens, seed;
        double layer_drop;
    } train;
    struct {
        double lr, warmup_ratio, weight_decay, beta1, beta2, eps, clip_norm;
        char schedule[VL_CONFIG_TEXT];
    } optim;
    struct {
        int64_t every, keep;
        char fallback[VL_CONFIG_TEXT];
    } checkpoint;
    struct {
        int64_t bad_samples, bad_in_a_row;
    } limits;
    struct {
        double timeout;
    } parallel;
    char device[VL_CONFIG_TEXT];
    int64_t threads;
    char output[VL_PATH_MAX];
} VlConfig;

// Defaults, then the stage's own defaults, then the file (with what it includes, the including file wins), then the
// overrides "key=value". path may be NULL: overrides alone. Errors (VL_USAGE): unknown key, wrong type, value out of
// range, with file, line and the nearest name. Free with vl_config_free.
VlStatus vl_config_load(VlConfig *config, const char *path, int64_t overrides, const char *const *override);
void vl_config_free(VlConfig *config);
// VL_USAGE unless model.path is set.
VlStatus vl_config_need_model(const VlConfig *config);
// train.dtype as a type.
VlDtype vl_config_dtype(const VlConfig *config);
// The resolved configuration as YAML that vl_config_load reads back to the same values; owner frees *text.
VlStatus vl_config_dump(const VlConfig *config, char **text);
// The table of keys for --help and the reference page.
void vl_config_help(FILE *file);

#endif
