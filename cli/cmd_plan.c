#include <inttypes.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "data/audio.h"
#include "train/config.h"
#include "train/memory_plan.h"
#include "train/model_source.h"
#include "train/sample_length.h"
#include "train/time_plan.h"

static VlStatus plan(const VlConfig *config, int64_t ranks, double tflops) {
    VlModelSource source;
    VlModelConfig model;
    VlMemoryPlan memory;
    VlTimePlan time;
    VlPlanOptions options = {.micro_tokens = config->train.micro_tokens, .threads = config->threads, .backward = true};
    VL_TRY(vl_config_need_model(config));
    VL_TRY(vl_model_source_open(&source, config->model.path, config->train.seed));
    VL_TRY(vl_model_config_load(&model, source.folder));
    int64_t frames = config->data.frames > 0 ? config->data.frames : source.frames;
    if (frames > 0) model.num_frames = frames;
    options.frames = model.num_frames;
    options.rows = model.has_audio ? vl_audio_rows(config->data.sound_seconds) : 0;
    // The step that is worked on and those that are prefetched, this rank's share of each.
    options.samples_ahead = (config->data.prefetch + 1) * ((config->train.global_batch + ranks - 1) / ranks);
    VL_TRY(vl_sample_check_longest(config, &model));
    options.max_tokens = vl_sample_longest(config, &model);
    options.dtype = vl_config_dtype(config);
    VL_TRY(vl_groups_parse(config->train.trainable, &options.trainable));
    VL_TRY(vl_memory_plan(&model, &options, &memory));
    VL_TRY(vl_time_plan(config, &model, &options, &time));
    vl_memory_plan_print(stdout, &memory);
    printf("Ranks: %" PRId64 "; the sum of gradients moves %.1f MB per rank and step between them\n", ranks,
           ranks > 1 ? 2.0 * (double)(ranks - 1) / (double)ranks * (double)memory.gradient_bytes / 1e6 : 0.0);
    vl_time_plan_print(stdout, &time, config->train.global_batch, ranks, tflops * 1e12);
    return VL_OK;
}

VlStatus vl_cmd_plan(int argc, char **argv) {
    VlConfig config;
    bool help;
    int64_t positional, ranks = 1;
    double tflops = 0;
    VlOption option[] = {
        {"ranks", VL_OPTION_INT64, &ranks, "N", "ranks that train together (1)", false},
        {"tflops", VL_OPTION_DOUBLE, &tflops, "X", "TFLOP/s that a rank reaches in training: tells the time", false}};
    VlCommand command = {
        "plan",
        "Memory per rank, FLOPs and time of a configuration, from the model's own code without memory or computation.",
        "CONFIG [key=value ...]",
        1,
        1000,
        2,
        option};
    VL_TRY(vl_options_parse(&command, argc, argv, &positional, &help));
    if (help) return VL_OK;
    if (ranks < 1) return vl_error(VL_USAGE, "vl2 plan: --ranks %" PRId64 " is below 1", ranks);
    if (tflops < 0) return vl_error(VL_USAGE, "vl2 plan: --tflops %g is below 0", tflops);
    VL_TRY(vl_config_load(&config, argv[0], positional - 1, (const char *const *)(argv + 1)));
    VlStatus status = plan(&config, ranks, tflops);
    vl_config_free(&config);
    return status;
}
