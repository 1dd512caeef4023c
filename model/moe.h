// A sparse mixture of experts in the place of a block's MLP: a router gives every token to `experts_per_token` of
// `experts` SwiGLU networks, whose outputs are added by the router's weights. No expert has a capacity, no token is
// dropped. Jiang et al., "Mixtral of Experts", 2024.
#ifndef VL_MODEL_MOE_H
#define VL_MODEL_MOE_H

#include "model/config.h"
#include "model/linear.h"
#include "model/norm.h"

// The same matrix of every expert: rows of the registry that are joined, so that they are one tensor [experts, N, K].
typedef struct VlExperts {
    VlParam *first;
    int64_t count;
} VlExperts;

typedef struct VlMoe {
    int64_t experts, experts_per_token, intermediate;
    VlLinear router;
    VlExperts gate, up, down;
    // What the last forward pass left. T tokens, S experts per token, R = T * S slots in the order of their
    // experts.
    struct {
        VlTensor weights, chosen;          // [T,S] f32, i64
        VlTensor offsets, tokens, places;  // i64 (vl_group_slots)
        VlTensor gate, up;                 // [R,F]
        VlTensor output;                   // [R,H] of the experts
    } saved;
} VlMoe;

// Registers PREFIX.gate and PREFIX.experts.E.{w1,w3,w2}: the router, and the experts' gate, up and down.
VlStatus vl_moe_plan(VlParams *params, VlMoe *moe, const char *prefix, const VlDecoderConfig *config);
// y[T,H] += experts(x[T,H]); with `keep` what backward needs is pushed onto context->activations.
VlStatus vl_moe_forward(VlContext *context, VlMoe *moe, VlTensor y, VlTensor x, bool keep);
// Of y + experts(norm(y)), where `norm` left `statistics`: d[T,H] holds the gradient of the sum and receives that of y;
// adds the gradients of trained parameters. Overwrites what forward saved.
VlStatus vl_moe_backward(VlContext *context, VlMoe *moe, VlTensor d, VlTensor y, const VlNorm *norm,
                         const VlNormSaved *statistics);

#endif
