// The connector from vision features to tokens of the language model: all types of the reference (mm_projector_type).
#ifndef VL_MODEL_CONNECTOR_H
#define VL_MODEL_CONNECTOR_H

#include "model/batch.h"
#include "model/config.h"
#include "model/linear.h"
#include "model/params.h"
#include "model/regstage.h"

typedef struct VlConnector {
    VlConnectorConfig config;
    VlRegStage s1, s2;
    VlLinear sampler;     // Conv3d as a product over gathered blocks; weight NULL: average pooling
    VlLinear readout[2];  // readout[0] alone for `linear`
    int64_t readout_layers;
    int64_t *index;  // host: which stored frame each repeated frame is
    int64_t index_capacity;
    struct {
        int64_t visuals, side;
        const VlVisual *visual;
        VlTensor features;   // [frames,P,D]
        VlTensor per_frame;  // [frames,h,w,H] after s1
        VlTensor sampled;    // [tokens,H] before SiLU
        VlTensor merged;     // [tokens,H or D] what the readout takes
        VlTensor hidden;     // [tokens,H] between the readout's layers, before GELU
    } saved;                 // what the last forward pass with keep left
} VlConnector;

// Registers model.mm_projector.*.
VlStatus vl_connector_plan(VlParams *params, VlConnector *connector, const VlConnectorConfig *config);
void vl_connector_free(VlConnector *connector);

// *tokens [sum of the visuals' tokens, H], in the order of the visuals, from features[frames,P,D]; pushed onto
// context->activations. The frames of the visuals stand one behind the other in their order; `visual` must stay until
// backward. A visual with repeat r stands for a video in which each stored frame comes r times: the work per frame is
// done once. Errors: VL_INVALID for a visual too small to give a token.
VlStatus vl_connector_forward(VlContext *context, VlConnector *connector, VlTensor features, int64_t visuals,
                              const VlVisual *visual, bool keep, VlTensor *tokens);
// Adds the gradients of the connector's trained parameters; writes dfeatures[frames,P,D] (empty: not wanted).
VlStatus vl_connector_backward(VlContext *context, VlConnector *connector, VlTensor dfeatures, VlTensor dtokens);

// Tokens of one visual of `frames` frames (after repetition) of side x side patches; 0 when it is too small.
int64_t vl_connector_tokens(const VlConnectorConfig *config, int64_t frames, int64_t side);

#endif
