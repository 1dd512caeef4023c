#include "model/regstage.h"

#include <stdio.h>

enum { KERNEL = 3 };
static const float norm_eps = 1e-5F;

// A quarter of the channels, to the nearest integer, ties to even.
static int64_t squeeze_channels(int64_t input) {
    int64_t quarter = input / 4, rest = input % 4;
    return quarter + (rest == 3 || (rest == 2 && quarter % 2 == 1));
}

typedef struct Planner {
    VlParams *params;
    const char *prefix;
    VlGroup group;
} Planner;

// PREFIX.NAME.conv.weight [output,input,1,1] without bias, and the LayerNorm PREFIX.NAME.bn.
static VlStatus plan_convolution(const Planner *planner, VlLinear *linear, VlNorm *norm, const char *name,
                                 int64_t output, int64_t input) {
    char path[256];
    snprintf(path, sizeof path, "%s.%s.conv", planner->prefix, name);
    VL_TRY(vl_linear_layer_plan_convolution(planner->params, linear, path, planner->group,
                                            vl_linear_default_init(input), 4, (int64_t[]){output, input, 1, 1}, false));
    snprintf(path, sizeof path, "%s.%s.bn", planner->prefix, name);
    VL_TRY(vl_norm_plan_layernorm(planner->params, norm, path, planner->group, output, norm_eps));
    return VL_OK;
}

static VlStatus plan_depthwise(const Planner *planner, VlRegBlock *block) {
    char path[256];
    snprintf(path, sizeof path, "%s.conv2.conv.weight", planner->prefix);
    VL_TRY(vl_params_register(planner->params, &block->depthwise, path, planner->group,
                              vl_linear_default_init(KERNEL * KERNEL), true, block->output, 1, KERNEL, KERNEL));
    snprintf(path, sizeof path, "%s.conv2.bn", planner->prefix);
    VL_TRY(vl_norm_plan_layernorm(planner->params, &block->norm2, path, planner->group, block->output, norm_eps));
    return VL_OK;
}

static VlStatus plan_squeeze(const Planner *planner, VlRegBlock *block) {
    char path[256];
    int64_t squeezed = squeeze_channels(block->input), channels = block->output;
    snprintf(path, sizeof path, "%s.se.fc1", planner->prefix);
    VL_TRY(vl_linear_layer_plan_convolution(planner->params, &block->se1, path, planner->group,
                                            vl_linear_default_init(channels), 4, (int64_t[]){squeezed, channels, 1, 1},
                                            true));
    snprintf(path, sizeof path, "%s.se.fc2", planner->prefix);
    VL_TRY(vl_linear_layer_plan_convolution(planner->params, &block->se2, path, planner->group,
                                            vl_linear_default_init(squeezed), 4, (int64_t[]){channels, squeezed, 1, 1},
                                            true));
    return VL_OK;
}

static VlStatus plan_block(const Planner *planner, VlRegBlock *block, int64_t input, int64_t output) {
    *block = (VlRegBlock){.input = input, .output = output};
    VL_TRY(plan_convolution(planner, &block->conv1, &block->norm1, "conv1", output, input));
    VL_TRY(plan_depthwise(planner, block));
    VL_TRY(plan_squeeze(planner, block));
    VL_TRY(plan_convolution(planner, &block->conv3, &block->norm3, "conv3", output, output));
    if (input != output) {
        VL_TRY(plan_convolution(planner, &block->downsample, &block->norm_downsample, "downsample", output, input));
    }
    return VL_OK;
}

VlStatus vl_regstage_plan(VlParams *params, VlRegStage *stage, const char *prefix, VlGroup group, int64_t depth,
                          int64_t input, int64_t output) {
    VL_ASSERT(depth >= 0 && depth <= VL_REGSTAGE_MAX);
    *stage = (VlRegStage){.depth = depth};
    for (int64_t i = 0; i < depth; i++) {
        char path[192];
        snprintf(path, sizeof path, "%s.b%d", prefix, (int)i + 1);
        VL_TRY(plan_block(&(Planner){params, path, group}, &stage->blocks[i], i == 0 ? input : output, output));
    }
    return VL_OK;
}

// x[N,h,w,C] as [N,h*w,C].
static VlTensor flat(VlTensor x) { return vl_reshape(x, x.dim[0], x.dim[1] * x.dim[2], x.dim[3]); }

static VlTensor kernel_view(VlTensor tensor) {
    return vl_is_empty(tensor) ? VL_EMPTY : vl_reshape(tensor, tensor.dim[0], KERNEL, KERNEL);
}

static VlStatus push_like(VlArena *arena, VlTensor *made, VlTensor like) {
    VL_TRY(vl_arena_push_make(arena, made, like.dtype, like.dims, like.dim));
    return VL_OK;
}

// The outputs of the convolutions: tensors of their own when they are kept, else one buffer for all.
static VlStatus push_convolutions(VlRegBlock *block, VlTensor y, VlArena *arena, bool keep) {
    VlTensor *outputs[] = {&block->saved.a1, &block->saved.a2, &block->saved.a3, &block->saved.a_downsample};
    int count = block->downsample.weight ? 4 : 3;
    for (int i = 0; i < count; i++) {
        if (i > 0 && !keep) {
            *outputs[i] = *outputs[0];
        } else {
            VL_TRY(push_like(arena, outputs[i], y));
        }
    }
    return VL_OK;
}

// gate [N,C] before the sigmoid, from x[N,h,w,C].
static VlStatus squeeze_forward(VlContext *context, VlRegBlock *block, VlTensor x, VlArena *arena) {
    VlTensor active;
    VL_TRY(vl_arena_push(arena, &block->saved.pooled, x.dtype, x.dim[0], block->output));
    VL_TRY(vl_arena_push(arena, &block->saved.squeezed, x.dtype, x.dim[0], block->se1.output));
    VL_TRY(vl_arena_push(arena, &block->saved.gate, x.dtype, x.dim[0], block->output));
    VL_TRY(vl_arena_push(&context->scratch, &active, x.dtype, x.dim[0], block->se1.output));
    VL_TRY(vl_mean_rows_forward(context, block->saved.pooled, flat(x)));
    VL_TRY(vl_linear_layer_forward(context, &block->se1, block->saved.squeezed, block->saved.pooled, VL_WRITE));
    VL_TRY(vl_activation_forward(context, active, block->saved.squeezed, VL_SILU));
    VL_TRY(vl_linear_layer_forward(context, &block->se2, block->saved.gate, active, VL_WRITE));
    return VL_OK;
}

// y[N,h,w,output] = SiLU(branch + shortcut). y serves as a buffer on the way.
static VlStatus block_forward(VlContext *context, VlRegBlock *block, VlTensor y, VlTensor x, bool keep) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlArena *arena = keep ? &context->activations : &context->scratch;
    VlTensor b;
    block->saved.x = x;
    VL_TRY(push_convolutions(block, y, arena, keep));
    VL_TRY(push_like(&context->scratch, &b, y));
    VL_TRY(vl_linear_layer_forward(context, &block->conv1, block->saved.a1, x, VL_WRITE));
    VL_TRY(vl_norm_forward(context, &block->norm1, b, block->saved.a1, arena, &block->saved.norm1));
    VL_TRY(vl_activation_forward(context, b, b, VL_SILU));
    VL_TRY(vl_depthwise3x3_forward(context, block->saved.a2, b, kernel_view(block->depthwise->value)));
    VL_TRY(vl_norm_forward(context, &block->norm2, b, block->saved.a2, arena, &block->saved.norm2));
    VL_TRY(vl_activation_forward(context, b, b, VL_SILU));
    VL_TRY(squeeze_forward(context, block, b, arena));
    VL_TRY(vl_sigmoid_gate_forward(context, flat(y), flat(b), block->saved.gate));
    VL_TRY(vl_linear_layer_forward(context, &block->conv3, block->saved.a3, y, VL_WRITE));
    VL_TRY(vl_norm_forward(context, &block->norm3, b, block->saved.a3, arena, &block->saved.norm3));
    VlTensor shortcut = x;
    if (block->downsample.weight) {
        VL_TRY(vl_linear_layer_forward(context, &block->downsample, block->saved.a_downsample, x, VL_WRITE));
        VL_TRY(vl_norm_forward(context, &block->norm_downsample, y, block->saved.a_downsample, arena,
                               &block->saved.norm_downsample));
        shortcut = y;
    }
    VL_TRY(vl_add_tensors(context, y, shortcut, 1, b));
    VL_TRY(vl_activation_forward(context, y, y, VL_SILU));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_regstage_forward(VlContext *context, VlRegStage *stage, VlTensor *y, VlTensor x, bool keep) {
    VlArena *arena = keep ? &context->activations : &context->scratch;
    VlTensor buffers[2];
    for (int64_t i = 0; i < stage->depth; i++) {
        VlTensor to;
        if (keep || i < 2) {
            VL_TRY(vl_arena_push(arena, &to, x.dtype, x.dim[0], x.dim[1], x.dim[2], stage->blocks[i].output));
            if (i < 2) buffers[i] = to;
        } else {
            to = buffers[i % 2];
        }
        VL_TRY(block_forward(context, &stage->blocks[i], to, x, keep));
        x = to;
    }
    *y = x;
    return VL_OK;
}

// SiLU(norm(a)) into `active`, and norm(a) into `normal`, again as forward had them.
static VlStatus recompute(VlContext *context, const VlNorm *norm, VlTensor normal, VlTensor active, VlTensor a) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlNormSaved statistics;
    VL_TRY(vl_norm_forward(context, norm, normal, a, &context->scratch, &statistics));
    vl_arena_release(&context->scratch, mark);
    if (!vl_is_empty(active)) VL_TRY(vl_activation_forward(context, active, normal, VL_SILU));
    return VL_OK;
}

// d becomes the gradient of branch + shortcut; `sum` and `other` are buffers.
static VlStatus backward_output(VlContext *context, VlRegBlock *block, VlTensor d, VlTensor sum, VlTensor other) {
    VlTensor shortcut = block->saved.x;
    VL_TRY(recompute(context, &block->norm3, sum, VL_EMPTY, block->saved.a3));
    if (block->downsample.weight) {
        VL_TRY(recompute(context, &block->norm_downsample, other, VL_EMPTY, block->saved.a_downsample));
        shortcut = other;
    }
    VL_TRY(vl_add_tensors(context, sum, sum, 1, shortcut));
    VL_TRY(vl_activation_backward(context, d, d, sum, VL_SILU));
    return VL_OK;
}

// dx[N,h,w,C] += what comes through the mean; dgate[N,C] is the gradient of the gate before the sigmoid.
static VlStatus squeeze_backward(VlContext *context, VlRegBlock *block, VlTensor dx, VlTensor dgate) {
    VlTensor active, dactive, dpooled;
    VL_TRY(push_like(&context->scratch, &active, block->saved.squeezed));
    VL_TRY(push_like(&context->scratch, &dactive, block->saved.squeezed));
    VL_TRY(push_like(&context->scratch, &dpooled, block->saved.pooled));
    VL_TRY(vl_activation_forward(context, active, block->saved.squeezed, VL_SILU));
    VL_TRY(vl_linear_layer_backward(context, &block->se2, dactive, dgate, active, VL_WRITE));
    VL_TRY(vl_activation_backward(context, dactive, dactive, block->saved.squeezed, VL_SILU));
    VL_TRY(vl_linear_layer_backward(context, &block->se1, dpooled, dactive, block->saved.pooled, VL_WRITE));
    VL_TRY(vl_mean_rows_backward(context, flat(dx), dpooled, VL_ADD));
    return VL_OK;
}

// From d, the gradient of branch + shortcut, back through conv3 and the gate: b[1] receives the gradient of a2.
static VlStatus backward_second_part(VlContext *context, VlRegBlock *block, VlTensor d, const VlTensor b[5]) {
    VlTensor dgate;
    VL_TRY(push_like(&context->scratch, &dgate, block->saved.gate));
    VL_TRY(vl_norm_backward(context, &block->norm3, b[0], d, block->saved.a3, &block->saved.norm3, VL_WRITE));
    VL_TRY(recompute(context, &block->norm2, b[1], b[2], block->saved.a2));
    VL_TRY(vl_sigmoid_gate_forward(context, flat(b[3]), flat(b[2]), block->saved.gate));
    VL_TRY(vl_linear_layer_backward(context, &block->conv3, b[4], b[0], b[3], VL_WRITE));
    VL_TRY(vl_sigmoid_gate_backward(context, flat(b[0]), dgate, flat(b[4]), flat(b[2]), block->saved.gate));
    VL_TRY(squeeze_backward(context, block, b[0], dgate));
    VL_TRY(vl_activation_backward(context, b[0], b[0], b[1], VL_SILU));
    VL_TRY(vl_norm_backward(context, &block->norm2, b[1], b[0], block->saved.a2, &block->saved.norm2, VL_WRITE));
    return VL_OK;
}

// From the gradient of a2 in b[1] back to that of a1, which b[1] receives.
static VlStatus backward_first_part(VlContext *context, VlRegBlock *block, const VlTensor b[5]) {
    VL_TRY(recompute(context, &block->norm1, b[0], b[2], block->saved.a1));
    VL_TRY(vl_depthwise3x3_backward(context, b[3], kernel_view(block->depthwise->gradient), b[1], b[2],
                                    kernel_view(block->depthwise->value)));
    VL_TRY(vl_activation_backward(context, b[3], b[3], b[0], VL_SILU));
    VL_TRY(vl_norm_backward(context, &block->norm1, b[1], b[3], block->saved.a1, &block->saved.norm1, VL_WRITE));
    return VL_OK;
}

// dx[N,h,w,input] (empty: not wanted) from d, the gradient of the block's output, which is overwritten.
static VlStatus block_backward(VlContext *context, VlRegBlock *block, VlTensor dx, VlTensor d) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor b[5];
    for (int i = 0; i < 5; i++) VL_TRY(push_like(&context->scratch, &b[i], d));
    VL_TRY(backward_output(context, block, d, b[0], b[1]));
    VL_TRY(backward_second_part(context, block, d, b));
    VL_TRY(backward_first_part(context, block, b));
    VL_TRY(vl_linear_layer_backward(context, &block->conv1, dx, b[1], block->saved.x, VL_WRITE));
    if (block->downsample.weight) {
        VL_TRY(vl_norm_backward(context, &block->norm_downsample, b[0], d, block->saved.a_downsample,
                                &block->saved.norm_downsample, VL_WRITE));
        VL_TRY(vl_linear_layer_backward(context, &block->downsample, dx, b[0], block->saved.x, VL_ADD));
    } else if (!vl_is_empty(dx)) {
        VL_TRY(vl_add_tensors(context, dx, dx, 1, d));
    }
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_regstage_backward(VlContext *context, VlRegStage *stage, VlTensor dx, VlTensor dy) {
    VL_ASSERT(stage->depth > 0);
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor other = VL_EMPTY;
    if (stage->depth > 1) VL_TRY(push_like(&context->scratch, &other, dy));
    for (int64_t i = stage->depth - 1; i >= 0; i--) {
        VL_TRY(block_backward(context, &stage->blocks[i], i == 0 ? dx : other, dy));
        VlTensor done = dy;
        dy = other;
        other = done;
    }
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}
