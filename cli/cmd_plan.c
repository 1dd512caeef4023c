#include <inttypes.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "train/model_source.h"
#include "train/run_plan.h"
#include "train/time_plan.h"

// The time of a step on the GPU, at its limits and as expected.
static VlStatus print_gpu(const VlConfig *config, const VlModelConfig *model, const VlPlanOptions *options,
                          const VlMemoryPlan *memory, const VlTimePlan *limits, int64_t ranks) {
    const VlGpu *gpu = options->gpu;
    VlPlanOptions real = *options;
    VlTimePlan expected;
    real.shares = vl_gpu_expected;
    VL_TRY(vl_time_plan(config, model, &real, &expected));
    vl_time_plan_print_gpu(stdout, limits, &expected, gpu, options->dtype, config->train.global_batch, ranks);
    printf("%s of memory: %.1f of %.1f GB are taken: this %s\n", gpu->name, (double)memory->device_bytes / 1e9,
           (double)gpu->memory / 1e9, memory->device_bytes <= gpu->memory ? "fits" : "DOES NOT FIT");
    return VL_OK;
}

static VlStatus plan(const VlConfig *config, int64_t ranks, double tflops, const VlGpu *gpu) {
    VlModelSource source;
    VlModelConfig model;
    VlMemoryPlan memory;
    VlTimePlan time;
    VlPlanOptions options;
    VL_TRY(vl_config_need_model(config));
    VL_TRY(vl_model_source_open(&source, config->model.path, config->train.seed));
    VL_TRY(vl_model_config_load(&model, source.folder));
    int64_t frames = config->data.frames > 0 ? config->data.frames : source.frames;
    if (frames > 0) model.num_frames = frames;
    VlDevice device = VL_DEVICE_CUDA;
    if (!gpu) VL_TRY(vl_device_choose(&device, config->device));
    VL_TRY(vl_run_plan_options(config, &model, ranks, device, &options));
    options.gpu = gpu;
    options.shares = vl_gpu_limits;
    VL_TRY(vl_memory_plan(&model, &options, &memory));
    VL_TRY(vl_time_plan(config, &model, &options, &time));
    vl_memory_plan_print(stdout, &memory);
    printf("Ranks: %" PRId64 "; the sum of gradients moves %.1f MB per rank and step between them\n", ranks,
           ranks > 1 ? 2.0 * (double)(ranks - 1) / (double)ranks * (double)memory.gradient_bytes / 1e6 : 0.0);
    vl_time_plan_print(stdout, &time, config->train.global_batch, ranks, tflops * 1e12);
    return gpu ? print_gpu(config, &model, &options, &memory, &time, ranks) : VL_OK;
}

VlStatus vl_cmd_plan(int argc, char **argv) {
    VlConfig config;
    bool help;
    int64_t positional, ranks = 1;
    double tflops = 0;
    const char *gpu_name = NULL;
    const VlGpu *gpu = NULL;
    VlOption option[] = {
        {"ranks", VL_OPTION_INT64, &ranks, "N", "ranks that train together (1)", false},
        {"gpu", VL_OPTION_STRING, &gpu_name, "NAME",
         "plan for this GPU (a100, h100, h200): does it fit, how long does a step take", false},
        {"tflops", VL_OPTION_DOUBLE, &tflops, "X", "TFLOP/s that a rank reaches in training: tells the time", false}};
    VlCommand command = {
        "plan",
        "Memory per rank, FLOPs and time of a configuration, from the model's own code without memory or computation.",
        "CONFIG [key=value ...]",
        1,
        1000,
        3,
        option};
    VL_TRY(vl_options_parse(&command, argc, argv, &positional, &help));
    if (help) return VL_OK;
    if (ranks < 1) return vl_error(VL_USAGE, "vl2 plan: --ranks %" PRId64 " is below 1", ranks);
    if (tflops < 0) return vl_error(VL_USAGE, "vl2 plan: --tflops %g is below 0", tflops);
    if (gpu_name) VL_TRY_CONTEXT(vl_gpu_parse(&gpu, gpu_name), "vl2 plan: --gpu");
    VL_TRY(vl_config_load(&config, argv[0], positional - 1, (const char *const *)(argv + 1)));
    VlStatus status = plan(&config, ranks, tflops, gpu);
    vl_config_free(&config);
    return status;
}
