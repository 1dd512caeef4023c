// RegStage: a sequence of RegNet bottleneck blocks (bottleneck ratio 1, depthwise 3x3, squeeze-and-excitation) with
// LayerNorm over channels. Radosavovic et al., "Designing network design spaces", 2020; Hu et al.,
// "Squeeze-and-excitation networks", 2018. Channels last: [N,h,w,C].
#ifndef VL_MODEL_REGSTAGE_H
#define VL_MODEL_REGSTAGE_H

#include "model/linear.h"
#include "model/norm.h"
#include "model/params.h"

enum { VL_REGSTAGE_MAX = 4 };

typedef struct VlRegBlock {
    VlLinear conv1, conv3, downsample;  // downsample.weight NULL: the shortcut is the identity
    VlNorm norm1, norm2, norm3, norm_downsample;
    VlParam *depthwise;  // [C,1,3,3]
    VlLinear se1, se2;
    int64_t input, output;
    struct {
        VlTensor x;                         // the block's input
        VlTensor a1, a2, a3, a_downsample;  // outputs of the convolutions, before their norms
        VlNormSaved norm1, norm2, norm3, norm_downsample;
        VlTensor pooled, squeezed, gate;  // [N,C], [N,C_se] before SiLU, [N,C] before the sigmoid
    } saved;                              // what the last forward pass with keep left
} VlRegBlock;

typedef struct VlRegStage {
    int64_t depth;
    VlRegBlock blocks[VL_REGSTAGE_MAX];
} VlRegStage;

// Registers PREFIX.b1 ... PREFIX.bDEPTH; block 1 takes `input` channels, all give `output`.
VlStatus vl_regstage_plan(VlParams *params, VlRegStage *stage, const char *prefix, VlGroup group, int64_t depth,
                          int64_t input, int64_t output);
// *y [N,h,w,output] from x[N,h,w,input], pushed onto activations with `keep`, else onto scratch (the caller releases
// it). depth 0: *y is x.
VlStatus vl_regstage_forward(VlContext *context, VlRegStage *stage, VlTensor *y, VlTensor x, bool keep);
// Gradients of the parameters, and dx[N,h,w,input] (empty: not wanted). dy is overwritten. depth 0: an error of the
// caller.
VlStatus vl_regstage_backward(VlContext *context, VlRegStage *stage, VlTensor dx, VlTensor dy);

#endif
