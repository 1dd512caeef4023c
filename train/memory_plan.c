#include "train/memory_plan.h"

#include <inttypes.h>

#include "base/memory.h"
#include "model/batch_build.h"
#include "model/beats.h"
#include "optim/optimizer.h"
#include "train/micro_batch.h"

// The program, its libraries and what they keep for themselves.
enum { PROGRAM_BYTES = 96 << 20 };

static int64_t host_bytes(const VlModelConfig *config, const VlPlanOptions *options, const VlBatch *batch) {
    int64_t frame = config->has_vision ? 3 * config->vision.image_size * config->vision.image_size : 0;
    int64_t row = VL_FBANK_BINS * (int64_t)sizeof(float);
    // Pixels as levels in the samples that wait, as f32 while a batch is built and in it; filter banks are f32 in both.
    // Index arrays are small beside them.
    return PROGRAM_BYTES + options->samples_ahead * (options->frames * frame + options->rows * row) +
           batch->frames * frame * (4 + 4) + batch->fbank_rows * row + batch->tokens * 64;
}

static void add_up(VlMemoryPlan *plan) {
    plan->device_bytes = plan->frozen_bytes + plan->trainable_bytes + plan->gradient_bytes + plan->remainder_bytes +
                         plan->optimizer_bytes + plan->activation_bytes + plan->scratch_bytes + plan->driver_bytes;
    plan->total_bytes = plan->device_bytes + plan->host_bytes;
}

// What a step does beside its micro-batches.
static VlStatus plan_optimizer(VlContext *context, VlOptimizer *optimizer, VlMemoryPlan *plan) {
    double norm;
    if (optimizer->params->trainable_elements == 0) return VL_OK;
    vl_roofline_clear(&context->roofline);
    VL_TRY(vl_optimizer_clear_gradients(optimizer));
    VL_TRY(vl_optimizer_gradient_norm(optimizer, &norm));
    VL_TRY(vl_optimizer_step(optimizer, 0, norm));
    plan->optimizer_seconds = vl_roofline_seconds(&context->roofline);
    if (context->roofline.bytes_per_second > 0) {  // which counts a tensor once: AdamW writes its state back, too
        int64_t state = plan->trainable_bytes + plan->remainder_bytes + plan->optimizer_bytes;
        plan->optimizer_seconds += (double)state / context->roofline.bytes_per_second;
    }
    plan->scratch_bytes = context->scratch.peak;
    return VL_OK;
}

static VlStatus plan_on(VlContext *context, const VlModelConfig *config, const VlPlanOptions *options,
                        const VlBatch *batch, VlMemoryPlan *plan) {
    VlVlm *model = NULL;
    VlOptimizer optimizer = {0};
    VlStatus status = VL_OK;
    if (options->gpu) context->roofline = vl_gpu_roofline(options->gpu, options->dtype, options->shares);
    VL_TRY_GOTO(status, vl_vlm_create(&model, context, config, options->backward ? options->trainable : 0), done);
    VlParams *params = vl_vlm_params(model);
    VL_TRY_GOTO(status, vl_params_bind(context, params, options->dtype), done);
    VL_TRY_GOTO(status, vl_optimizer_create(&optimizer, context, params, (VlOptimizerSettings){0}), done);
    VL_TRY_GOTO(status, vl_vlm_plan(model, batch, false), done);  // as vl_vlm_prepare, which binds the arenas
    if (options->backward) VL_TRY_GOTO(status, vl_vlm_plan(model, batch, true), done);
    *plan = (VlMemoryPlan){.device = context->device,
                           .frozen_bytes = params->frozen_bytes,
                           .trainable_bytes = params->trainable_bytes,
                           .gradient_bytes = params->gradient_bytes,
                           .remainder_bytes = params->remainder_bytes,
                           .optimizer_bytes = optimizer.bytes,
                           .activation_bytes = context->activations.peak,
                           .scratch_bytes = context->scratch.peak,
                           .host_bytes = host_bytes(config, options, batch),
                           .driver_bytes = options->gpu ? options->gpu->driver_memory : 0,
                           .micro_time = context->roofline,
                           .micro_flops = vl_flops_total(&context->flops),
                           .micro_parts = *vl_vlm_flops(model),
                           .micro_tokens = batch->tokens};
    for (int64_t i = 0; i < params->count; i++) {
        int64_t elements = vl_elements(params->rows[i]->shape);
        plan->parameters += elements;
        if (params->rows[i]->trainable) plan->trainable_parameters += elements;
    }
    if (options->backward) VL_TRY_GOTO(status, plan_optimizer(context, &optimizer, plan), done);
    add_up(plan);
done:
    vl_optimizer_free(&optimizer);
    vl_vlm_free(model);
    return status;
}

VlStatus vl_memory_plan_batch(const VlModelConfig *config, const VlPlanOptions *options, const VlBatch *batch,
                              VlMemoryPlan *plan) {
    VlContext *context;
    VL_TRY(vl_context_create_plan(&context, options->device, options->threads));
    VlStatus status = plan_on(context, config, options, batch, plan);
    vl_context_free(context);
    return status;
}

// A batch of `count` samples of one shape, and of one more of another where `last` is not NULL; its shape only.
static VlStatus make_batch(const VlModelConfig *model, int64_t count, VlSampleShape shape, const VlSampleShape *last,
                           VlBatch *batch) {
    static const int64_t modality_ids[] = {0, VL_IMAGE_ID, VL_VIDEO_ID, VL_AUDIO_ID};  // by VlModal
    enum { MODALS = VL_MODAL_AUDIO + 1 };
    VlModelConfig shapes = *model;
    VlSequence *sequences = NULL;
    VlMedium *media = NULL;
    int64_t *ids = NULL, *labels = NULL;
    int64_t longest = last && last->tokens > shape.tokens ? last->tokens : shape.tokens, all = count + (last != NULL);
    shapes.decoder.window = 0;  // sequences stand for others here, and may be longer than any sample
    VlStatus status = VL_OK;
    VL_TRY_GOTO(status, VL_NEW(&sequences, all), done);
    VL_TRY_GOTO(status, VL_NEW(&media, all), done);
    VL_TRY_GOTO(status, VL_NEW(&ids, MODALS * longest), done);
    VL_TRY_GOTO(status, VL_NEW(&labels, longest), done);
    for (int64_t modal = 0; modal < MODALS; modal++) ids[modal * longest] = modality_ids[modal];
    for (int64_t i = 0; i < all; i++) {
        VlSampleShape of = i < count ? shape : *last;
        media[i] = (VlMedium){.frames = of.frames, .rows = of.rows};
        sequences[i] = (VlSequence){.tokens = of.tokens,
                                    .ids = ids + (int64_t)of.modal * longest,
                                    .labels = labels,
                                    .media = of.modal != VL_MODAL_TEXT,
                                    .medium = &media[i]};
    }
    status = vl_batch_build(batch, &shapes, all, sequences);
done:
    vl_free(sequences);
    vl_free(media);
    vl_free(ids);
    vl_free(labels);
    return status;
}

VlStatus vl_plan_samples(const VlModelConfig *config, const VlPlanOptions *options, VlSampleShape shape, int64_t count,
                         VlMemoryPlan *plan) {
    VlBatch batch = {0};
    VL_TRY(make_batch(config, count, shape, NULL, &batch));
    VlStatus status = vl_memory_plan_batch(config, options, &batch, plan);
    vl_batch_free(&batch);
    return status;
}

VlStatus vl_plan_sample_flops(const VlModelConfig *config, const VlPlanOptions *options, VlSampleShape shape,
                              VlPartFlops *flops) {
    VlMemoryPlan plan = {0};
    VL_TRY(vl_plan_samples(config, options, shape, 1, &plan));
    *flops = plan.micro_parts;
    return VL_OK;
}

static int64_t at_least(int64_t value, int64_t least) { return value > least ? value : least; }

enum { LEAST_TEXT = 2 };  // tokens of text beside a medium

// Plans as many samples of the shape as fit, each with little text, and one more of another where `other` is not NULL:
// *plan becomes this one, with the larger arenas of the two.
static VlStatus plan_media(const VlModelConfig *config, const VlPlanOptions *options, VlSampleShape shape,
                           const VlSampleShape *other, VlMemoryPlan *plan) {
    int64_t budget = at_least(options->micro_tokens, options->max_tokens);
    int64_t media = vl_media_tokens(config, shape.modal, shape.frames, shape.rows);
    int64_t count = at_least(budget / (media + LEAST_TEXT), 1);
    shape.tokens = at_least(budget / count - media + 1, LEAST_TEXT);
    VlMemoryPlan before = *plan;
    VlBatch batch = {0};
    VL_TRY(make_batch(config, count, shape, other, &batch));
    VlStatus status = vl_memory_plan_batch(config, options, &batch, plan);
    vl_batch_free(&batch);
    VL_TRY(status);
    plan->activation_bytes = at_least(plan->activation_bytes, before.activation_bytes);
    plan->scratch_bytes = at_least(plan->scratch_bytes, before.scratch_bytes);
    plan->host_bytes = at_least(plan->host_bytes, before.host_bytes);
    add_up(plan);
    return VL_OK;
}

VlStatus vl_memory_plan(const VlModelConfig *config, const VlPlanOptions *options, VlMemoryPlan *plan) {
    int64_t budget = at_least(options->micro_tokens, options->max_tokens), texts = budget / options->max_tokens;
    int64_t frames = config->has_vision ? options->frames : 0, rows = config->has_audio ? options->rows : 0;
    VL_TRY(vl_plan_samples(config, options, (VlSampleShape){.tokens = at_least(budget / texts, 2)}, texts, plan));
    // Sounds and videos in one batch take a copy of their tokens: a batch of one kind is planned with one of the other.
    const VlSampleShape sound = {.modal = VL_MODAL_AUDIO, .tokens = LEAST_TEXT, .rows = rows};
    const VlSampleShape video = {.modal = VL_MODAL_VIDEO, .tokens = LEAST_TEXT, .frames = frames};
    const VlSampleShape both = {.modal = VL_MODAL_VIDEO, .frames = frames, .rows = rows};
    if (rows > 0) VL_TRY(plan_media(config, options, sound, frames > 0 ? &video : NULL, plan));
    if (rows > 0 && frames > 0) VL_TRY(plan_media(config, options, both, NULL, plan));
    if (frames > 0) VL_TRY(plan_media(config, options, video, rows > 0 ? &sound : NULL, plan));
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
    row(file, "remainders of f32 masters", plan->remainder_bytes);
    row(file, "gradients", plan->gradient_bytes);
    row(file, "optimizer state", plan->optimizer_bytes);
    row(file, "activations", plan->activation_bytes);
    row(file, "scratch", plan->scratch_bytes);
    if (plan->device == VL_DEVICE_CUDA) {
        row(file, "driver and libraries", plan->driver_bytes);
        row(file, "total on the GPU", plan->device_bytes);
    }
    row(file, "host (program, batches)", plan->host_bytes);
    if (plan->device == VL_DEVICE_CPU) row(file, "total", plan->total_bytes);
    fprintf(file, "Model FLOPs of a micro-batch of %" PRId64 " tokens: %.1f GFLOP\n", plan->micro_tokens,
            (double)plan->micro_flops / 1e9);
}
