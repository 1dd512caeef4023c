#include "model/audio_projector.h"

VlStatus vl_audio_projector_plan(VlParams *params, VlAudioProjector *projector, int64_t input, int64_t output) {
    VL_TRY(vl_linear_layer_plan(params, &projector->first, "model.mm_projector_a.0", VL_GROUP_AUDIO_PROJECTOR,
                                vl_linear_default_init(input), output, input, true));
    VL_TRY(vl_linear_layer_plan(params, &projector->second, "model.mm_projector_a.2", VL_GROUP_AUDIO_PROJECTOR,
                                vl_linear_default_init(output), output, output, true));
    return VL_OK;
}

VlStatus vl_audio_projector_forward(VlContext *context, VlAudioProjector *projector, VlTensor x, bool keep,
                                    VlTensor *y) {
    int64_t width = projector->first.output, mark = vl_arena_mark(&context->scratch);
    VlTensor hidden, active;
    VL_TRY(vl_arena_push(&context->activations, y, x.dtype, x.dim[0], width));
    VL_TRY(vl_arena_push(keep ? &context->activations : &context->scratch, &hidden, x.dtype, x.dim[0], width));
    VL_TRY(vl_arena_push(&context->scratch, &active, x.dtype, x.dim[0], width));
    VL_TRY(vl_linear_layer_forward(context, &projector->first, hidden, x, VL_WRITE));
    VL_TRY(vl_activation_forward(context, active, hidden, VL_GELU_ERF));
    VL_TRY(vl_linear_layer_forward(context, &projector->second, *y, active, VL_WRITE));
    vl_arena_release(&context->scratch, mark);
    if (keep) projector->saved.x = x, projector->saved.hidden = hidden;
    return VL_OK;
}

VlStatus vl_audio_projector_backward(VlContext *context, VlAudioProjector *projector, VlTensor dx, VlTensor dy) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor hidden = projector->saved.hidden, active, dhidden;
    VL_TRY(vl_arena_push(&context->scratch, &active, dy.dtype, hidden.dim[0], hidden.dim[1]));
    VL_TRY(vl_arena_push(&context->scratch, &dhidden, dy.dtype, hidden.dim[0], hidden.dim[1]));
    VL_TRY(vl_activation_forward(context, active, hidden, VL_GELU_ERF));
    VL_TRY(vl_linear_layer_backward(context, &projector->second, dhidden, dy, active, VL_WRITE));
    VL_TRY(vl_activation_backward(context, dhidden, dhidden, hidden, VL_GELU_ERF));
    VL_TRY(vl_linear_layer_backward(context, &projector->first, dx, dhidden, projector->saved.x, VL_WRITE));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}
