#include "model/vlm.h"

#include "base/memory.h"
#include "model/audio_projector.h"
#include "model/beats.h"
#include "model/connector.h"
#include "model/decoder.h"
#include "model/vit.h"
#include "ops/profile.h"

enum { LOGIT_ROWS = 64 };  // rows whose logits are in memory together

struct VlVlm {
    VlContext *context;
    VlModelConfig config;
    VlGroups trainable;
    VlParams params;
    VlVit vit;
    VlConnector connector;
    VlBeats beats;
    VlAudioProjector audio_projector;
    VlDecoder decoder;
    // First rows in params of connector, audio tower and audio projector, which follow upon the vision tower's; the
    // language model's stand last.
    int64_t connector_row, audio_row, projector_row;
    int64_t activations, scratch;  // marks where the last forward pass began
    int64_t *labelled;             // host: positions with a target, then their targets
    int64_t labelled_capacity;
    VlPartFlops flops;
    VlFlops charged;  // the context's count when the last part was charged
    VlContext *plan;  // of vl_vlm_prepare, made by its first call: a planning context,
    VlVlm *planned;   // and the same model upon it
};

VlStatus vl_vlm_create(VlVlm **out, VlContext *context, const VlModelConfig *config, VlGroups trainable) {
    VlStatus status;
    VlVlm *model;
    *out = NULL;
    VL_TRY(VL_NEW(&model, 1));
    model->context = context;
    model->config = *config;
    model->trainable = trainable;
    if (config->has_vision) {
        VL_TRY_GOTO(status, vl_vit_plan(&model->params, &model->vit, &config->vision), failed);
        model->connector_row = model->params.count;
        VL_TRY_GOTO(status, vl_connector_plan(&model->params, &model->connector, &config->connector), failed);
    }
    model->audio_row = model->projector_row = model->params.count;
    if (config->has_audio) {
        VL_TRY_GOTO(status, vl_beats_plan(&model->params, &model->beats, &config->audio), failed);
        model->projector_row = model->params.count;
        VL_TRY_GOTO(status,
                    vl_audio_projector_plan(&model->params, &model->audio_projector, config->audio.hidden,
                                            config->decoder.hidden),
                    failed);
    }
    VL_TRY_GOTO(status, vl_decoder_plan(&model->params, &model->decoder, &config->decoder), failed);
    vl_params_set_trainable(&model->params, trainable);
    *out = model;
    return VL_OK;
failed:
    vl_vlm_free(model);
    return status;
}

void vl_vlm_free(VlVlm *model) {
    if (!model) return;
    vl_vlm_free(model->planned);
    vl_context_free(model->plan);
    vl_decoder_free(&model->decoder);
    vl_beats_free(&model->beats);
    vl_connector_free(&model->connector);
    vl_vit_free(&model->vit);
    vl_params_free(model->context, &model->params);
    vl_free(model->labelled);
    vl_free(model);
}

void vl_vlm_drop_layers(VlVlm *model, double probability, uint64_t seed, int64_t step) {
    if (model->config.has_audio) vl_beats_drop_blocks(&model->beats, probability, seed, step);
}

VlContext *vl_vlm_context(VlVlm *model) { return model->context; }
VlParams *vl_vlm_params(VlVlm *model) { return &model->params; }
const VlModelConfig *vl_vlm_config(const VlVlm *model) { return &model->config; }
const VlPartFlops *vl_vlm_flops(const VlVlm *model) { return &model->flops; }

// What was counted since the last call was the part's.
static void charge(VlVlm *model, VlGroup group) {
    const VlFlops *now = &model->context->flops;
    for (int product = 0; product < VL_PRODUCTS; product++) {
        for (int pass = 0; pass < VL_PASSES; pass++) {
            model->flops.of[group][pass] += now->of[product][pass] - model->charged.of[product][pass];
        }
    }
    model->charged = *now;
    vl_profile_charge(model->context->profile, group);
}

static bool trains(const VlVlm *model, VlGroup group) { return model->trainable & VL_GROUP_BIT(group); }

// Whether gradients of this batch are wanted by a tower; at or below the part that joins it to the language model;
// anywhere.
typedef struct Wanted {
    bool vision_tower, visual, audio_tower, sound, any;
} Wanted;

static Wanted gradients_wanted(const VlVlm *model, const VlBatch *batch, bool backward) {
    bool some = backward && batch->labels > 0, visuals = some && batch->visuals > 0, sounds = some && batch->sounds > 0;
    Wanted wanted = {.vision_tower = visuals && trains(model, VL_GROUP_VISION_TOWER),
                     .audio_tower = sounds && trains(model, VL_GROUP_AUDIO_TOWER)};
    wanted.visual = wanted.vision_tower || (visuals && trains(model, VL_GROUP_CONNECTOR));
    wanted.sound = wanted.audio_tower || (sounds && trains(model, VL_GROUP_AUDIO_PROJECTOR));
    wanted.any = wanted.visual || wanted.sound || (some && trains(model, VL_GROUP_LLM));
    return wanted;
}

// Tower and connector. Without gradients of the tower the pixels are scratch.
static VlStatus see(VlVlm *model, const VlBatch *batch, Wanted wanted, VlVlmForward *forward) {
    VlContext *context = model->context;
    VlArena *arena = wanted.vision_tower ? &context->activations : &context->scratch;
    int64_t side = model->config.vision.image_size, mark = vl_arena_mark(&context->scratch);
    VlTensor pixels;
    VL_TRY(vl_arena_push(arena, &pixels, VL_F32, batch->frames, 3, side, side));
    VL_TRY(vl_copy_from_host(context, pixels, batch->pixels));
    VL_TRY_CONTEXT(vl_vit_forward(context, &model->vit, pixels, wanted.vision_tower, &forward->vision_features),
                   "vision tower");
    vl_arena_release(&context->scratch, mark);
    charge(model, VL_GROUP_VISION_TOWER);
    VL_TRY_CONTEXT(vl_connector_forward(context, &model->connector, forward->vision_features, batch->visuals,
                                        batch->visual, wanted.visual, &forward->visual_tokens),
                   "connector");
    charge(model, VL_GROUP_CONNECTOR);
    return VL_OK;
}

// Audio tower and projector. Without gradients of the tower the filter banks are scratch.
static VlStatus hear(VlVlm *model, const VlBatch *batch, Wanted wanted, VlVlmForward *forward) {
    VlContext *context = model->context;
    VlArena *arena = wanted.audio_tower ? &context->activations : &context->scratch;
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor fbank;
    VL_TRY(vl_arena_push(arena, &fbank, VL_F32, batch->fbank_rows, VL_FBANK_BINS));
    VL_TRY(vl_copy_from_host(context, fbank, batch->fbank));
    VL_TRY_CONTEXT(vl_beats_forward(context, &model->beats, fbank, batch->sounds, batch->sound_rows, wanted.audio_tower,
                                    &forward->audio_features),
                   "audio tower");
    vl_arena_release(&context->scratch, mark);
    charge(model, VL_GROUP_AUDIO_TOWER);
    VL_TRY_CONTEXT(vl_audio_projector_forward(context, &model->audio_projector, forward->audio_features, wanted.sound,
                                              &forward->audio_tokens),
                   "audio projector");
    charge(model, VL_GROUP_AUDIO_PROJECTOR);
    return VL_OK;
}

// The tokens of all visuals, then those of all sounds, in one tensor.
static VlStatus join_media(VlContext *context, VlTensor visual, VlTensor sound, VlTensor *media) {
    *media = vl_is_empty(visual) ? sound : visual;
    if (vl_is_empty(visual) || vl_is_empty(sound)) return VL_OK;
    VL_TRY(vl_arena_push(&context->activations, media, visual.dtype, visual.dim[0] + sound.dim[0], visual.dim[1]));
    VL_TRY(vl_cast(context, vl_rows(*media, 0, visual.dim[0]), visual));
    VL_TRY(vl_cast(context, vl_rows(*media, visual.dim[0], sound.dim[0]), sound));
    return VL_OK;
}

static VlStatus run_forward(VlVlm *model, const VlBatch *batch, VlKvCache *cache, bool keep, VlVlmForward *forward) {
    Wanted wanted = gradients_wanted(model, batch, keep);
    VlTensor media;
    if ((batch->visuals > 0 && !model->config.has_vision) || (batch->sounds > 0 && !model->config.has_audio)) {
        return vl_error(VL_INVALID, "the batch holds %lld visuals and %lld sounds, but the model has no %s tower",
                        (long long)batch->visuals, (long long)batch->sounds,
                        model->config.has_vision ? "audio" : "vision");
    }
    if (batch->visuals > 0) VL_TRY(see(model, batch, wanted, forward));
    if (batch->sounds > 0) VL_TRY(hear(model, batch, wanted, forward));
    VL_TRY(join_media(model->context, forward->visual_tokens, forward->audio_tokens, &media));
    VL_TRY_CONTEXT(
        vl_decoder_forward(model->context, &model->decoder, batch, media, cache, wanted.any, &forward->hidden),
        "language model");
    charge(model, VL_GROUP_LLM);
    return VL_OK;
}

static VlStatus forward_pass(VlVlm *model, const VlBatch *batch, VlKvCache *cache, bool keep, VlVlmForward *forward) {
    model->activations = vl_arena_mark(&model->context->activations);
    model->scratch = vl_arena_mark(&model->context->scratch);
    model->flops = (VlPartFlops){0};
    model->charged = model->context->flops;
    *forward = (VlVlmForward){0};
    if (batch->tokens == 0) return VL_OK;
    VlStatus status = run_forward(model, batch, cache, keep, forward);
    if (status == VL_OK) return VL_OK;
    vl_vlm_release(model);
    return vl_error_frame(status, __func__, __FILE__, __LINE__);
}

VlStatus vl_vlm_forward(VlVlm *model, const VlBatch *batch, bool keep, VlVlmForward *forward) {
    return forward_pass(model, batch, NULL, keep, forward);
}

VlStatus vl_vlm_forward_cached(VlVlm *model, const VlBatch *batch, VlKvCache *cache, VlVlmForward *forward) {
    return forward_pass(model, batch, cache, false, forward);
}

void vl_vlm_release(VlVlm *model) {
    vl_arena_release(&model->context->activations, model->activations);
    vl_arena_release(&model->context->scratch, model->scratch);
}

// index, targets [labels] on scratch: the labelled positions and what they predict.
static VlStatus upload_labels(VlVlm *model, const VlBatch *batch, VlTensor *index, VlTensor *targets) {
    VlContext *context = model->context;
    int64_t labels = batch->labels, found = 0;
    VL_TRY(vl_arena_push(&context->scratch, index, VL_I64, labels));
    VL_TRY(vl_arena_push(&context->scratch, targets, VL_I64, labels));
    if (context->planning) return VL_OK;
    VL_TRY(vl_reserve(&model->labelled, &model->labelled_capacity, 2 * labels, sizeof *model->labelled));
    for (int64_t t = 0; t < batch->tokens; t++) {
        if (batch->targets[t] == VL_IGNORE) continue;
        VL_ASSERT(found < labels);
        model->labelled[labels + found] = batch->targets[t];
        model->labelled[found++] = t;
    }
    VL_ASSERT(found == labels);
    VL_TRY(vl_copy_from_host(context, *index, model->labelled));
    VL_TRY(vl_copy_from_host(context, *targets, model->labelled + labels));
    return VL_OK;
}

// The head on the labelled rows of `hidden`: losses[labels], and dhidden[T,H] (empty: not wanted).
static VlStatus head(VlVlm *model, const VlBatch *batch, VlTensor hidden, VlTensor dhidden, bool backward, float scale,
                     VlTensor losses) {
    VlContext *context = model->context;
    VlArena *scratch = &context->scratch;
    VlParam *weight = model->decoder.lm_head;
    int64_t mark = vl_arena_mark(scratch), width = hidden.dim[1];
    VlTensor index, targets, rows, drows = VL_EMPTY;
    VL_TRY(upload_labels(model, batch, &index, &targets));
    VL_TRY(vl_arena_push(scratch, &rows, hidden.dtype, batch->labels, width));
    VL_TRY(vl_gather_rows_forward(context, rows, hidden, index));
    if (!vl_is_empty(dhidden)) VL_TRY(vl_arena_push(scratch, &drows, hidden.dtype, batch->labels, width));
    VL_TRY(vl_linear_cross_entropy(context, losses, drows, backward ? weight->gradient : VL_EMPTY, rows, weight->value,
                                   targets, scale));
    if (!vl_is_empty(dhidden)) VL_TRY(vl_gather_rows_backward(context, dhidden, drows, index));
    vl_arena_release(scratch, mark);
    return VL_OK;
}

// A part's features' gradient on scratch, for the tower below it.
static VlStatus push_gradient(VlContext *context, VlTensor features, VlTensor *dfeatures) {
    VL_TRY(vl_arena_push_make(&context->scratch, dfeatures, features.dtype, features.dims, features.dim));
    return VL_OK;
}

// Audio projector and tower. `dtokens` is read if their gradients are wanted.
static VlStatus hear_backward(VlVlm *model, const VlBatch *batch, VlVlmForward *forward, Wanted wanted,
                              VlTensor dtokens, const VlGradientHook *hook) {
    VlContext *context = model->context;
    VlTensor dfeatures = VL_EMPTY;
    int64_t llm_row = model->decoder.embed_tokens->index;
    if (wanted.audio_tower) VL_TRY(push_gradient(context, forward->audio_features, &dfeatures));
    if (wanted.sound) {
        VL_TRY_CONTEXT(vl_audio_projector_backward(context, &model->audio_projector, dfeatures, dtokens),
                       "audio projector, backward");
    }
    charge(model, VL_GROUP_AUDIO_PROJECTOR);
    VL_TRY(vl_gradient_announce(hook, model->projector_row, llm_row - model->projector_row));
    if (wanted.audio_tower) {
        VL_TRY_CONTEXT(vl_beats_backward(context, &model->beats, batch->sounds, batch->sound_rows, dfeatures),
                       "audio tower, backward");
    }
    charge(model, VL_GROUP_AUDIO_TOWER);
    VL_TRY(vl_gradient_announce(hook, model->audio_row, model->projector_row - model->audio_row));
    return VL_OK;
}

// Connector and vision tower, in the same way.
static VlStatus see_backward(VlVlm *model, VlVlmForward *forward, Wanted wanted, VlTensor dtokens,
                             const VlGradientHook *hook) {
    VlContext *context = model->context;
    VlTensor dfeatures = VL_EMPTY;
    if (wanted.vision_tower) VL_TRY(push_gradient(context, forward->vision_features, &dfeatures));
    if (wanted.visual) {
        VL_TRY_CONTEXT(vl_connector_backward(context, &model->connector, dfeatures, dtokens), "connector, backward");
    }
    charge(model, VL_GROUP_CONNECTOR);
    VL_TRY(vl_gradient_announce(hook, model->connector_row, model->audio_row - model->connector_row));
    if (wanted.vision_tower) VL_TRY_CONTEXT(vl_vit_backward(context, &model->vit, dfeatures), "vision tower, backward");
    charge(model, VL_GROUP_VISION_TOWER);
    VL_TRY(vl_gradient_announce(hook, 0, model->connector_row));
    return VL_OK;
}

static VlStatus run_backward(VlVlm *model, const VlBatch *batch, VlVlmForward *forward, Wanted wanted, VlTensor dhidden,
                             const VlGradientHook *hook) {
    VlContext *context = model->context;
    VlTensor dmedia = VL_EMPTY, dvisual = VL_EMPTY, dsound = VL_EMPTY;
    if (wanted.visual || wanted.sound) {
        int64_t visual = batch->visual_tokens, sound = batch->sound_tokens;
        VL_TRY(vl_arena_push(&context->scratch, &dmedia, dhidden.dtype, visual + sound, dhidden.dim[1]));
        dvisual = vl_rows(dmedia, 0, visual);
        dsound = vl_rows(dmedia, visual, sound);
    }
    VL_TRY_CONTEXT(vl_decoder_backward(context, &model->decoder, dhidden, dmedia, hook), "language model");
    charge(model, VL_GROUP_LLM);
    VL_TRY(hear_backward(model, batch, forward, wanted, dsound, hook));
    return see_backward(model, forward, wanted, dvisual, hook);
}

VlStatus vl_vlm_device_loss(VlVlm *model, const VlBatch *batch, VlVlmForward *forward, bool backward, float scale,
                            const VlGradientHook *hook, VlTensor losses) {
    VlContext *context = model->context;
    VlArena *scratch = &context->scratch;
    Wanted wanted = gradients_wanted(model, batch, backward);
    VlTensor hidden = forward->hidden, dhidden = VL_EMPTY;
    int64_t mark = vl_arena_mark(scratch);
    if (wanted.any) VL_TRY(vl_arena_push(scratch, &dhidden, hidden.dtype, hidden.dim[0], hidden.dim[1]));
    model->charged = context->flops;
    if (batch->labels > 0) VL_TRY(head(model, batch, hidden, dhidden, backward, scale, losses));
    charge(model, VL_GROUP_LLM);
    if (backward) VL_TRY(run_backward(model, batch, forward, wanted, dhidden, hook));
    vl_arena_release(scratch, mark);
    return VL_OK;
}

VlStatus vl_vlm_loss(VlVlm *model, const VlBatch *batch, VlVlmForward *forward, bool backward, float scale,
                     const VlGradientHook *hook, float *losses) {
    VlContext *context = model->context;
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor device_losses;
    VL_TRY(vl_arena_push(&context->scratch, &device_losses, VL_F32, batch->labels));
    VL_TRY(vl_vlm_device_loss(model, batch, forward, backward, scale, hook, device_losses));
    if (!context->planning) VL_TRY(vl_copy_to_host(context, losses, device_losses));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_vlm_logits(VlVlm *model, const VlVlmForward *forward, int64_t first, int64_t count, float *logits) {
    VlContext *context = model->context;
    int64_t mark = vl_arena_mark(&context->scratch), vocabulary = model->config.decoder.vocabulary;
    for (int64_t done = 0; done < count; done += LOGIT_ROWS) {
        int64_t rows = count - done < LOGIT_ROWS ? count - done : LOGIT_ROWS;
        VlTensor block;
        VL_TRY(vl_arena_push(&context->scratch, &block, VL_F32, rows, vocabulary));
        VL_TRY(vl_decoder_logits(context, &model->decoder, block, vl_rows(forward->hidden, first + done, rows)));
        if (!context->planning) VL_TRY(vl_copy_to_host(context, logits + done * vocabulary, block));
        vl_arena_release(&context->scratch, mark);
    }
    return VL_OK;
}

VlStatus vl_vlm_plan(VlVlm *model, const VlBatch *batch, bool backward) {
    VL_ASSERT(model->context->planning);
    VlVlmForward forward;
    model->context->flops = (VlFlops){0};
    vl_roofline_clear(&model->context->roofline);
    VL_TRY(vl_vlm_forward(model, batch, backward, &forward));
    VlStatus status = vl_vlm_loss(model, batch, &forward, backward, 1, NULL, NULL);
    if (status == VL_OK && !backward) {
        status = vl_vlm_logits(model, &forward, 0, batch->tokens < LOGIT_ROWS ? batch->tokens : LOGIT_ROWS, NULL);
    }
    vl_vlm_release(model);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

static VlStatus bind_at_least(VlContext *context, VlArena *arena, int64_t size) {
    if (context->planning || arena->size >= size) return VL_OK;
    VL_ASSERT(arena->used == 0);
    vl_arena_unbind(context, arena);
    return vl_arena_bind(context, arena, arena->name, size);
}

static VlStatus make_planned(VlVlm *model) {
    VL_TRY(vl_context_create_plan(&model->plan, model->context->device, model->context->threads));
    VL_TRY(vl_vlm_create(&model->planned, model->plan, &model->config, model->trainable));
    return vl_params_bind(model->plan, &model->planned->params, model->params.dtype);
}

VlStatus vl_vlm_reserve(VlVlm *model, int64_t activations, int64_t scratch) {
    VL_TRY(bind_at_least(model->context, &model->context->activations, activations));
    return bind_at_least(model->context, &model->context->scratch, scratch);
}

VlStatus vl_vlm_prepare(VlVlm *model, const VlBatch *batch, bool backward) {
    if (!model->planned) {
        VlStatus status = make_planned(model);
        if (status != VL_OK) {
            vl_vlm_free(model->planned);
            vl_context_free(model->plan);
            model->planned = NULL;
            model->plan = NULL;
            return vl_error_frame(status, __func__, __FILE__, __LINE__);
        }
    }
    VL_TRY(vl_vlm_plan(model->planned, batch, false));
    if (backward) VL_TRY(vl_vlm_plan(model->planned, batch, true));
    return vl_vlm_reserve(model, model->plan->activations.peak, model->plan->scratch.peak);
}
