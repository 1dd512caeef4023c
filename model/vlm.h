// The whole model: vision tower -> connector -> spliced into the token stream -> language model -> loss, and back.
#ifndef VL_MODEL_VLM_H
#define VL_MODEL_VLM_H

#include "model/batch.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/params.h"

typedef struct VlVlm VlVlm;

// Builds the model: registers all parameters (tower, connector, language model), marks `trainable` groups. No memory
// for tensors yet. `config` is copied. Errors: VL_INVALID / VL_UNSUPPORTED naming the key that cannot be honoured.
VlStatus vl_vlm_create(VlVlm **model, VlContext *context, const VlModelConfig *config, VlGroups trainable);
void vl_vlm_free(VlVlm *model);
// Which layers of the audio tower the passes from now on leave out (vl_beats_drop_blocks). Plans count all of them.
void vl_vlm_drop_layers(VlVlm *model, double probability, uint64_t seed, int64_t step);
VlContext *vl_vlm_context(VlVlm *model);
VlParams *vl_vlm_params(VlVlm *model);
const VlModelConfig *vl_vlm_config(const VlVlm *model);

// FLOPs of the last forward pass and of what followed upon it, by the part of the model and by what for; the head is
// the language model's.
typedef struct VlPartFlops {
    int64_t of[VL_GROUP_COUNT][VL_PASSES];
} VlPartFlops;
const VlPartFlops *vl_vlm_flops(const VlVlm *model);

// Runs the shapes of `batch` through forward (and backward) on a planning context and leaves the peaks of all calls so
// far in context->activations.peak and context->scratch.peak, the FLOPs of this call in context->flops and its time in
// context->roofline. `batch` needs counts, cu_seqlens, visuals; arrays of values may be NULL. After vl_params_bind.
VlStatus vl_vlm_plan(VlVlm *model, const VlBatch *batch, bool backward);
// Plans `batch` on a planning context that the model keeps, and binds the arenas of the model's context to what it
// needs, unless they are large enough already. Nothing may lie in them.
VlStatus vl_vlm_prepare(VlVlm *model, const VlBatch *batch, bool backward);
// Binds the arenas to at least so many bytes, as a plan of the largest batch has told, so that no later call of
// vl_vlm_prepare takes memory. Nothing may lie in them.
VlStatus vl_vlm_reserve(VlVlm *model, int64_t activations, int64_t scratch);

// Forward pass of a packed micro-batch. The tensors lie in context->activations until vl_vlm_release, which the caller
// owes after each forward pass that succeeded.
typedef struct VlVlmForward {
    VlTensor vision_features;  // [stored frames, P, D], empty without visuals
    VlTensor visual_tokens;    // [all visuals' tokens, H], empty without visuals
    VlTensor audio_features;   // [all sounds' tokens, Da], empty without sounds
    VlTensor audio_tokens;     // [all sounds' tokens, H], empty without sounds
    VlTensor hidden;           // [tokens, H] after the final norm
} VlVlmForward;
// `keep`: save what a backward pass needs.
VlStatus vl_vlm_forward(VlVlm *model, const VlBatch *batch, bool keep, VlVlmForward *forward);
// Forward pass of one sequence, or of its continuation: its first position is cache->length, and the cache grows by its
// tokens.
VlStatus vl_vlm_forward_cached(VlVlm *model, const VlBatch *batch, VlKvCache *cache, VlVlmForward *forward);
// Losses of the labelled positions, in order, to host memory [batch->labels]; with `backward` (keep was true; once per
// forward pass) also adds to the gradients of all trainable parameters the gradient of scale * (sum of losses). `hook`
// may be NULL.
//
// Backward announces gradients even of parts that took no part in this micro-batch, and of frozen ones (their rows are
// unchanged), every row once, from the last to the first, in an order that depends on the model only: so all ranks
// enter the same reductions.
VlStatus vl_vlm_loss(VlVlm *model, const VlBatch *batch, VlVlmForward *forward, bool backward, float scale,
                     const VlGradientHook *hook, float *losses);
// The same with the losses in device memory, [batch->labels] f32: nothing waits for the device.
VlStatus vl_vlm_device_loss(VlVlm *model, const VlBatch *batch, VlVlmForward *forward, bool backward, float scale,
                            const VlGradientHook *hook, VlTensor losses);
// Logits of rows [first, first + count) of `hidden` to host memory [count, vocabulary], f32.
VlStatus vl_vlm_logits(VlVlm *model, const VlVlmForward *forward, int64_t first, int64_t count, float *logits);
void vl_vlm_release(VlVlm *model);

#endif
