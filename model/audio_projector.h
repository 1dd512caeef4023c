// The audio projector: linear, GELU, linear, from the audio tower's width to the language model's (mm_projector_a,
// mlp2x_gelu).
#ifndef VL_MODEL_AUDIO_PROJECTOR_H
#define VL_MODEL_AUDIO_PROJECTOR_H

#include "model/linear.h"
#include "model/params.h"

typedef struct VlAudioProjector {
    VlLinear first, second;
    struct {
        VlTensor x, hidden;  // input; before the activation
    } saved;
} VlAudioProjector;

// Registers model.mm_projector_a.{0,2}.
VlStatus vl_audio_projector_plan(VlParams *params, VlAudioProjector *projector, int64_t input, int64_t output);
// *y [T,output] of x[T,input], pushed onto context->activations; with `keep` the backward pass is possible, and x must
// stay.
VlStatus vl_audio_projector_forward(VlContext *context, VlAudioProjector *projector, VlTensor x, bool keep,
                                    VlTensor *y);
// Adds the gradients of weights that are trained. dx empty: not wanted.
VlStatus vl_audio_projector_backward(VlContext *context, VlAudioProjector *projector, VlTensor dx, VlTensor dy);

#endif
