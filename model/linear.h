// A linear layer: a weight [output, input] and perhaps a bias. 1x1 convolutions on channels-last rows, patch
// convolutions on gathered columns and Conv3d with kernel = stride are the same layer with more extents in the stored
// weight.
#ifndef VL_MODEL_LINEAR_H
#define VL_MODEL_LINEAR_H

#include "model/params.h"

typedef struct VlLinear {
    VlParam *weight;  // extents as stored; used as [output, input]
    VlParam *bias;    // NULL: none
    int64_t output, input;
} VlLinear;

// PyTorch's default initialisation of Linear and Conv layers, weight and bias alike: uniform in +-1/sqrt(fan in).
VlInit vl_linear_default_init(int64_t input);

// Registers PREFIX.weight [output, input] and, with `bias`, PREFIX.bias [output]; both from `init`, except that the
// bias is zero when `init` is normal.
VlStatus vl_linear_layer_plan(VlParams *params, VlLinear *layer, const char *prefix, VlGroup group, VlInit init,
                              int64_t output, int64_t input, bool bias);
// The same for a convolution's weight: extents[0] is the output, the product of the others the input.
VlStatus vl_linear_layer_plan_convolution(VlParams *params, VlLinear *layer, const char *prefix, VlGroup group,
                                          VlInit init, int32_t dims, const int64_t *extents, bool bias);

// y (+)= x w^T + b over the rows of x, whose elements are a multiple of `input`; leading extents are free.
VlStatus vl_linear_layer_forward(VlContext *context, const VlLinear *layer, VlTensor y, VlTensor x, VlMode mode);
// dx (+)= dy w; adds the gradients of weight and bias where they are trained. dx empty: not wanted.
VlStatus vl_linear_layer_backward(VlContext *context, const VlLinear *layer, VlTensor dx, VlTensor dy, VlTensor x,
                                  VlMode mode);

// x as [rows, columns].
VlTensor vl_as_rows(VlTensor x, int64_t columns);

#endif
