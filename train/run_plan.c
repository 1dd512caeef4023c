#include "train/run_plan.h"

#include <stdio.h>

#include "base/log.h"
#include "data/audio.h"
#include "train/sample_length.h"

VlStatus vl_run_plan_options(const VlConfig *config, const VlModelConfig *model, int64_t ranks, VlDevice device,
                             VlPlanOptions *options) {
    *options = (VlPlanOptions){.dtype = vl_config_dtype(config),
                               .micro_tokens = config->train.micro_tokens,
                               .frames = model->num_frames,
                               .rows = model->has_audio ? vl_audio_rows(config->data.sound_seconds) : 0,
                               .threads = config->threads,
                               .backward = true,
                               .device = device};
    // The step that is worked on and those that are prefetched, this rank's share of each.
    options->samples_ahead = (config->data.prefetch + 1) * ((config->train.global_batch + ranks - 1) / ranks);
    VL_TRY(vl_sample_check_longest(config, model));
    options->max_tokens = vl_sample_longest(config, model);
    return vl_groups_parse(config->train.trainable, &options->trainable);
}

// Kernels and cuBLASLt's are loaded when they first run, NCCL's buffers when ranks join: all after this check.
static const int64_t library_bytes = 512LL << 20, collective_bytes = 1536LL << 20;

VlStatus vl_run_check_memory(const VlMemoryPlan *plan, VlContext *context, int64_t ranks) {
    int64_t left, whole, needed = plan->device_bytes;
    VL_TRY(vl_device_memory(context, &left, &whole));
    bool gpu = context->device == VL_DEVICE_CUDA;
    needed += !gpu ? plan->host_bytes : library_bytes + (ranks > 1 ? collective_bytes : 0);
    if (needed <= left) return VL_OK;
    int64_t state = plan->frozen_bytes + plan->trainable_bytes + plan->gradient_bytes + plan->remainder_bytes +
                    plan->optimizer_bytes;
    char text[512];
    snprintf(
        text, sizeof text,
        "this run takes up to %.2f GB, of which %.2f are weights, gradients and optimizer state and %.2f the "
        "largest micro-batch; %.2f of the %s's %.2f GB can be had: lower train.micro_tokens or data.max_tokens, or "
        "train fewer parts (vl2 plan shows what takes how much)",
        (double)needed / 1e9, (double)state / 1e9, (double)(plan->activation_bytes + plan->scratch_bytes) / 1e9,
        (double)left / 1e9, gpu ? "GPU" : "machine", (double)whole / 1e9);
    if (gpu) return vl_error(VL_OUT_OF_MEMORY, "%s", text);
    vl_log(VL_LOG_WARNING, "%s", text);
    return VL_OK;
}
