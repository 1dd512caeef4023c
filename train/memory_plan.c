#include "train/memory_plan.h"

#include <inttypes.h>

#include "base/memory.h"
#include "model/batch_build.h"
#include "optim/optimizer.h"

// The program, its libraries and what they keep for themselves.
enum { PROGRAM_BYTES = 96 << 20 };

static int64_t host_bytes(const VlModelConfig *config, const VlPlanOptions *options, const VlBatch *batch) {
    int64_t frame = config->has_vision ? 3 * config->vision.image_size * config->vision.image_size : 0;
    // Pixels as levels in the samples that wait, as f32 while a batch is built and in it; index arrays are small beside
    // them.
    return PROGRAM_BYTES + options->samples_ahead * options->frames * frame + batch->frames * frame * (4 + 4) +
           batch->tokens * 64;
}

static VlStatus plan_on(VlContext *context, const VlModelConfig *config, const VlPlanOptions *options,
                        const VlBatch *batch, VlMemoryPlan *plan) {
    VlVlm *model = NULL;
    VlOptimizer optimizer = {0};
    VlStatus status = VL_OK;
    VL_TRY_GOTO(status, vl_vlm_create(&model, context, config, options->backward ? options->trainable : 0), done);
    VlParams *params = vl_vlm_params(model);
    VL_TRY_GOTO(status, vl_params_bind(context, params, options->dtype), done);
    VL_TRY_GOTO(status, vl_optimizer_create(&optimizer, context, params, (VlOptimizerSettings){0}), done);
    context->flops = 0;
    VL_TRY_GOTO(status, vl_vlm_plan(model, batch, false), done);  // as vl_vlm_prepare, which binds the arenas
    if (options->backward) VL_TRY_GOTO(status, vl_vlm_plan(model, batch, true), done);
    *plan = (VlMemoryPlan){.frozen_bytes = params->frozen_bytes,
                           .trainable_bytes = params->trainable_bytes,
                           .gradient_bytes = params->gradient_bytes,
                           .master_bytes = params->master_bytes,
                           .optimizer_bytes = optimizer.bytes,
                           .activation_bytes = context->activations.peak,
                           .scratch_bytes = context->scratch.peak,
                           .host_bytes = host_bytes(config, options, batch),
                           .micro_flops = context->flops,
                           .micro_tokens = batch->tokens};
    for (int64_t i = 0; i < params->count; i++) {
        int64_t elements = vl_elements(params->rows[i]->shape);
        plan->parameters += elements;
        if (params->rows[i]->trainable) plan->trainable_parameters += elements;
    }
    plan->total_bytes = plan->frozen_bytes + plan->trainable_bytes + plan->gradient_bytes + plan->master_bytes +
                        plan->optimizer_bytes + plan->activation_bytes + plan->scratch_bytes + plan->host_bytes;
done:
    vl_optimizer_free(&optimizer);
    vl_vlm_free(model);
    return status;
}

VlStatus vl_memory_plan_batch(const VlModelConfig *config, const VlPlanOptions *options, const VlBatch *batch,
                              VlMemoryPlan *plan) {
    VlContext *context;
    VL_TRY(vl_context_create(&context, "plan", options->threads));
    VlStatus status = plan_on(context, config, options, batch, plan);
    vl_context_free(context);
    return status;
}

// A batch of `count` sequences of `tokens` tokens, each with a video of `frames` frames where frames > 0; its shape
// only.
static VlStatus make_batch(const VlModelConfig *model, int64_t count, int64_t tokens, int64_t frames, VlBatch *batch) {
    VlModelConfig shapes = *model;
    VlSequence *sequences = NULL;
    int64_t *ids = NULL, *labels = NULL;
    shapes.decoder.window = 0;  // sequences stand for others here, and may be longer than any sample
    VlMedium medium = {.frames = frames};
    VlStatus status = VL_OK;
    VL_TRY_GOTO(status, VL_NEW(&sequences, count), done);
    VL_TRY_GOTO(status, VL_NEW(&ids, tokens), done);
    VL_TRY_GOTO(status, VL_NEW(&labels, tokens), done);
    if (frames > 0) ids[0] = VL_VIDEO_ID, labels[0] = VL_IGNORE;
    for (int64_t i = 0; i < count; i++) {
        sequences[i] =
            (VlSequence){.tokens = tokens, .ids = ids, .labels = labels, .media = frames > 0, .medium = &medium};
    }
    status = vl_batch_build(batch, &shapes, count, sequences);
done:
    vl_free(sequences);
    vl_free(ids);
    vl_free(labels);
    return status;
}

VlStatus vl_plan_sample_flops(const VlModelConfig *config, const VlPlanOptions *options, int64_t tokens, int64_t frames,
                              int64_t *flops) {
    VlBatch batch = {0};
    VlMemoryPlan plan = {0};
    VL_TRY(make_batch(config, 1, tokens, frames, &batch));
    VlStatus status = vl_memory_plan_batch(config, options, &batch, &plan);
    vl_batch_free(&batch);
    *flops = plan.micro_flops;
    return status;
}

static int64_t at_least(int64_t value, int64_t least) { return value > least ? value : least; }

VlStatus vl_memory_plan(const VlModelConfig *config, const VlPlanOptions *options, VlMemoryPlan *plan) {
    // Two ends: long sequences of text alone, every token labelled; and as many videos as fit, each with little text.
    int64_t budget = at_least(options->micro_tokens, options->max_tokens);
    int64_t texts = budget / options->max_tokens, text_tokens = at_least(budget / texts, 2);
    VlBatch batch = {0};
    VlMemoryPlan video = {0};
    VL_TRY(make_batch(config, texts, text_tokens, 0, &batch));
    VlStatus status = vl_memory_plan_batch(config, options, &batch, plan);
    vl_batch_free(&batch);
    if (status != VL_OK || !config->has_vision) return status;
    enum { LEAST_TEXT = 2 };  // tokens of text beside a video
    int64_t visual = vl_model_visual_tokens(config, options->frames);
    int64_t videos = at_least(budget / (visual + LEAST_TEXT), 1);
    int64_t beside = at_least(budget / videos - visual + 1, LEAST_TEXT);
    VL_TRY(make_batch(config, videos, beside, options->frames, &batch));
    status = vl_memory_plan_batch(config, options, &batch, &video);
    vl_batch_free(&batch);
    if (status != VL_OK) return status;
    VlMemoryPlan text = *plan;
    *plan = video;
    plan->activation_bytes = at_least(text.activation_bytes, video.activation_bytes);
    plan->scratch_bytes = at_least(text.scratch_bytes, video.scratch_bytes);
    plan->total_bytes += plan->activation_bytes - video.activation_bytes + plan->scratch_bytes - video.scratch_bytes;
    return VL_OK;
}

static void row(FILE *file, const char *name, int64_t bytes) {
    fprintf(file, "  %-34s %12.1f MB\n", name, (double)bytes / 1e6);
}

void vl_memory_plan_print(FILE *file, const VlMemoryPlan *plan) {
    fprintf(file, "Parameters: %" PRId64 ", of which %" PRId64 " train\n", plan->parameters,
            plan->trainable_parameters);
    fprintf(file, "Memory per rank:\n");
    row(file, "frozen weights", plan->frozen_bytes);
    row(file, "trainable weights", plan->trainable_bytes);
    row(file, "f32 masters", plan->master_bytes);
    row(file, "gradients", plan->gradient_bytes);
    row(file, "optimizer state", plan->optimizer_bytes);
    row(file, "activations", plan->activation_bytes);
    row(file, "scratch", plan->scratch_bytes);
    row(file, "host (program, batches)", plan->host_bytes);
    row(file, "total", plan->total_bytes);
    fprintf(file, "Model FLOPs of a micro-batch of %" PRId64 " tokens: %.1f GFLOP\n", plan->micro_tokens,
            (double)plan->micro_flops / 1e9);
}
