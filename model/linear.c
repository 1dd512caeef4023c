#include "model/linear.h"

#include <math.h>
#include <stdio.h>

VlInit vl_linear_default_init(int64_t input) {
    return (VlInit){.kind = VL_INIT_UNIFORM, .scale = (float)(1 / sqrt((double)input))};
}

VlTensor vl_as_rows(VlTensor x, int64_t columns) { return vl_reshape(x, vl_elements(x) / columns, columns); }

VlStatus vl_linear_layer_plan_convolution(VlParams *params, VlLinear *layer, const char *prefix, VlGroup group,
                                          VlInit init, int32_t dims, const int64_t *extents, bool bias) {
    char name[512];
    *layer = (VlLinear){.output = extents[0], .input = 1};
    for (int32_t i = 1; i < dims; i++) layer->input *= extents[i];
    snprintf(name, sizeof name, "%s.weight", prefix);
    VL_TRY(vl_params_add(params, &layer->weight, name, group, init, true, dims, extents));
    if (!bias) return VL_OK;
    snprintf(name, sizeof name, "%s.bias", prefix);
    VlInit bias_init = init.kind == VL_INIT_NORMAL ? (VlInit){.kind = VL_INIT_ZEROS} : init;
    VL_TRY(vl_params_register(params, &layer->bias, name, group, bias_init, false, layer->output));
    return VL_OK;
}

VlStatus vl_linear_layer_plan(VlParams *params, VlLinear *layer, const char *prefix, VlGroup group, VlInit init,
                              int64_t output, int64_t input, bool bias) {
    VL_TRY(vl_linear_layer_plan_convolution(params, layer, prefix, group, init, 2, (int64_t[]){output, input}, bias));
    return VL_OK;
}

static VlTensor weight_view(const VlLinear *layer, VlTensor tensor) {
    return vl_is_empty(tensor) ? VL_EMPTY : vl_reshape(tensor, layer->output, layer->input);
}

VlStatus vl_linear_layer_forward(VlContext *context, const VlLinear *layer, VlTensor y, VlTensor x, VlMode mode) {
    VL_TRY(vl_linear_forward(context, vl_as_rows(y, layer->output), vl_as_rows(x, layer->input),
                             weight_view(layer, layer->weight->value), layer->bias ? layer->bias->value : VL_EMPTY,
                             mode));
    return VL_OK;
}

VlStatus vl_linear_layer_backward(VlContext *context, const VlLinear *layer, VlTensor dx, VlTensor dy, VlTensor x,
                                  VlMode mode) {
    VlTensor dw = weight_view(layer, layer->weight->gradient), db = layer->bias ? layer->bias->gradient : VL_EMPTY;
    if (vl_is_empty(dx) && vl_is_empty(dw) && vl_is_empty(db)) return VL_OK;
    VL_TRY(vl_linear_backward(context, vl_is_empty(dx) ? VL_EMPTY : vl_as_rows(dx, layer->input), dw, db,
                              vl_as_rows(dy, layer->output), vl_as_rows(x, layer->input),
                              weight_view(layer, layer->weight->value), mode));
    return VL_OK;
}
