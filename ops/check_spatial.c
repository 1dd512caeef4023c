// Checks of the rows over images: sigmoid_gate, mean_rows, depthwise3x3, patches, unfold3d, average_pool3d,
// vit_embedding.
#include "base/memory.h"
#include "ops/backend.h"
#include "ops/check.h"
#include "ops/scratch_spatial.h"

VlStatus vl_check_sigmoid_gate_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor gate) {
    VL_TRY(vl_check_floating(context, "x", x, 3));
    VL_TRY(vl_check_like(context, "y", y, "x", x));
    VL_TRY(vl_check_apart("y", y, "x", x));
    VL_TRY(vl_check_tensor(context, "gate", gate, x.dtype, x.dim[0], x.dim[2]));
    return VL_OK;
}

VlStatus vl_check_sigmoid_gate_backward(VlContext *context, VlTensor dx, VlTensor dgate, VlTensor dy, VlTensor x,
                                        VlTensor gate) {
    VL_TRY(vl_check_floating(context, "dy", dy, 3));
    if (!vl_is_empty(dx)) VL_TRY(vl_check_like(context, "dx", dx, "dy", dy));
    if (!vl_is_empty(dgate)) VL_TRY(vl_check_tensor(context, "dgate", dgate, dy.dtype, dy.dim[0], dy.dim[2]));
    VL_TRY(vl_check_like(context, "x", x, "dy", dy));
    VL_TRY(vl_check_apart("dx", dx, "dy", dy));
    VL_TRY(vl_check_apart("dx", dx, "x", x));
    VL_TRY(vl_check_tensor(context, "gate", gate, dy.dtype, dy.dim[0], dy.dim[2]));
    return VL_OK;
}

// No rows have no mean.
static VlStatus check_mean(const VlContext *context, const char *y_name, VlTensor y, const char *x_name, VlTensor x) {
    VL_TRY(vl_check_floating(context, x_name, x, 3));
    if (x.dim[1] < 1) {
        return vl_error(VL_INVALID, "%s is %s, it must have at least one row to take a mean of", x_name,
                        vl_describe(x));
    }
    VL_TRY(vl_check_tensor(context, y_name, y, x.dtype, x.dim[0], x.dim[2]));
    return VL_OK;
}

VlStatus vl_check_mean_rows_forward(VlContext *context, VlTensor y, VlTensor x) {
    VL_TRY(check_mean(context, "y", y, "x", x));
    return VL_OK;
}

VlStatus vl_check_mean_rows_backward(VlContext *context, VlTensor dx, VlTensor dy, VlMode mode) {
    (void)mode;
    VL_TRY(vl_check_floating(context, "dy", dy, 2));
    if (!vl_is_empty(dx)) VL_TRY(check_mean(context, "dy", dy, "dx", dx));
    return VL_OK;
}

// As many sums as keep a large GPU busy with few channels, too.
VlStatus vl_scratch_depthwise3x3(VlContext *context, VlTensor *parts, VlTensor x) {
    enum { MOST_SUMS = 64, TAPS = 9 };
    int64_t lines = x.dim[0] * x.dim[1];
    *parts = VL_EMPTY;
    if (context->device != VL_DEVICE_CUDA) return VL_OK;
    VL_TRY(vl_arena_push(&context->scratch, parts, VL_F32, lines < MOST_SUMS ? lines : MOST_SUMS, TAPS, x.dim[3]));
    return VL_OK;
}

VlStatus vl_check_depthwise3x3_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w) {
    VL_TRY(vl_check_floating(context, "x", x, 4));
    VL_TRY(vl_check_like(context, "y", y, "x", x));
    VL_TRY(vl_check_apart("y", y, "x", x));
    VL_TRY(vl_check_tensor(context, "w", w, x.dtype, x.dim[3], 3, 3));
    return VL_OK;
}

VlStatus vl_check_depthwise3x3_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor dy, VlTensor x,
                                        VlTensor w) {
    VL_TRY(vl_check_floating(context, "dy", dy, 4));
    if (!vl_is_empty(dx)) VL_TRY(vl_check_like(context, "dx", dx, "dy", dy));
    if (!vl_is_empty(dw)) VL_TRY(vl_check_tensor(context, "dw", dw, VL_F32, dy.dim[3], 3, 3));
    VL_TRY(vl_check_like(context, "x", x, "dy", dy));
    VL_TRY(vl_check_apart("dx", dx, "dy", dy));
    VL_TRY(vl_check_apart("dx", dx, "x", x));
    VL_TRY(vl_check_tensor(context, "w", w, dy.dtype, dy.dim[3], 3, 3));
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor parts;
    VlStatus status = vl_is_empty(dw) ? VL_OK : vl_scratch_depthwise3x3(context, &parts, x);
    vl_arena_release(&context->scratch, mark);
    return status;
}

VlStatus vl_check_patches(VlContext *context, VlTensor columns, VlTensor pixels, int64_t patch) {
    VL_TRY(vl_check_tensor(context, "pixels", pixels, VL_F32, VL_ANY, VL_ANY, VL_ANY, VL_ANY));
    VL_TRY(vl_check_floating(context, "columns", columns, 2));
    if (patch < 1 || patch > INT32_MAX) {
        return vl_error(VL_INVALID, "patch is %lld, it must be at least 1", (long long)patch);
    }
    int64_t rows = pixels.dim[0] * (pixels.dim[2] / patch) * (pixels.dim[3] / patch);
    VL_TRY(vl_check_tensor(context, "columns", columns, columns.dtype, rows, pixels.dim[1] * patch * patch));
    return VL_OK;
}

typedef struct Blocks {
    int64_t kernel[3], padding;
} Blocks;

// out[N,t',h',w'] of x[N,T,H,W,C] and the elements of a block.
static VlStatus block_grid(const Blocks *blocks, const char *x_name, VlTensor x, int64_t out[4], int64_t *block) {
    static const char *const names[3] = {"kt", "kh", "kw"};
    out[0] = x.dim[0];
    *block = 1;
    if (blocks->padding < 0 || blocks->padding > INT32_MAX) {
        return vl_error(VL_INVALID, "padding is %lld, it must be at least 0", (long long)blocks->padding);
    }
    for (int i = 0; i < 3; i++) {
        int64_t extent = x.dim[i + 1] + 2 * blocks->padding;
        if (blocks->kernel[i] < 1 || !vl_multiply(*block, blocks->kernel[i], block)) {
            return vl_error(VL_INVALID, "%s is %lld, it must be at least 1", names[i], (long long)blocks->kernel[i]);
        }
        if (blocks->kernel[i] > extent) {
            return vl_error(VL_INVALID, "%s is %lld, but %s %s with padding %lld has only %lld there", names[i],
                            (long long)blocks->kernel[i], x_name, vl_describe(x), (long long)blocks->padding,
                            (long long)extent);
        }
        out[i + 1] = extent / blocks->kernel[i];
    }
    return VL_OK;
}

static VlStatus check_unfold(const VlContext *context, const char *columns_name, VlTensor columns, const char *x_name,
                             VlTensor x, Blocks blocks) {
    int64_t out[4], block, width;
    VL_TRY(vl_check_floating(context, x_name, x, 5));
    VL_TRY(block_grid(&blocks, x_name, x, out, &block));
    if (!vl_multiply(x.dim[4], block, &width)) {
        return vl_error(VL_INVALID, "blocks of %lld of %s %s have no valid size", (long long)block, x_name,
                        vl_describe(x));
    }
    VL_TRY(vl_check_tensor(context, columns_name, columns, x.dtype, out[0] * out[1] * out[2] * out[3], width));
    return VL_OK;
}

VlStatus vl_check_unfold3d_forward(VlContext *context, VlTensor columns, VlTensor x, int64_t kt, int64_t kh, int64_t kw,
                                   int64_t padding) {
    VL_TRY(check_unfold(context, "columns", columns, "x", x, (Blocks){{kt, kh, kw}, padding}));
    return VL_OK;
}

VlStatus vl_check_unfold3d_backward(VlContext *context, VlTensor dx, VlTensor dcolumns, int64_t kt, int64_t kh,
                                    int64_t kw, int64_t padding) {
    VL_TRY(vl_check_floating(context, "dcolumns", dcolumns, 2));
    if (!vl_is_empty(dx)) {
        VL_TRY(check_unfold(context, "dcolumns", dcolumns, "dx", dx, (Blocks){{kt, kh, kw}, padding}));
    }
    return VL_OK;
}

static VlStatus check_pool(const VlContext *context, const char *y_name, VlTensor y, const char *x_name, VlTensor x,
                           Blocks blocks) {
    int64_t out[4], block;
    VL_TRY(vl_check_floating(context, x_name, x, 5));
    VL_TRY(block_grid(&blocks, x_name, x, out, &block));
    VL_TRY(vl_check_tensor(context, y_name, y, x.dtype, out[0], out[1], out[2], out[3], x.dim[4]));
    return VL_OK;
}

VlStatus vl_check_average_pool3d_forward(VlContext *context, VlTensor y, VlTensor x, int64_t kt, int64_t kh,
                                         int64_t kw) {
    VL_TRY(check_pool(context, "y", y, "x", x, (Blocks){{kt, kh, kw}, 0}));
    return VL_OK;
}

VlStatus vl_check_average_pool3d_backward(VlContext *context, VlTensor dx, VlTensor dy, int64_t kt, int64_t kh,
                                          int64_t kw) {
    VL_TRY(vl_check_floating(context, "dy", dy, 5));
    if (!vl_is_empty(dx)) VL_TRY(check_pool(context, "dy", dy, "dx", dx, (Blocks){{kt, kh, kw}, 0}));
    return VL_OK;
}

VlStatus vl_check_vit_embedding_forward(VlContext *context, VlTensor y, VlTensor patches, VlTensor class_token,
                                        VlTensor position) {
    VL_TRY(vl_check_floating(context, "patches", patches, 3));
    int64_t rows = patches.dim[1] + !vl_is_empty(class_token), columns = patches.dim[2];
    VL_TRY(vl_check_tensor(context, "y", y, patches.dtype, patches.dim[0], rows, columns));
    if (!vl_is_empty(class_token)) {
        VL_TRY(vl_check_tensor(context, "class_token", class_token, patches.dtype, columns));
    }
    VL_TRY(vl_check_tensor(context, "position", position, patches.dtype, rows, columns));
    return VL_OK;
}

// dclass_token is empty when it is not wanted, too: then the rows of dpatches tell whether there is a class token.
VlStatus vl_check_vit_embedding_backward(VlContext *context, VlTensor dpatches, VlTensor dclass_token,
                                         VlTensor dposition, VlTensor dy) {
    VL_TRY(vl_check_floating(context, "dy", dy, 3));
    int64_t rows = dy.dim[1], columns = dy.dim[2];
    if (!vl_is_empty(dclass_token)) {
        if (rows < 1) return vl_error(VL_INVALID, "dy is %s, it must have a row of the class token", vl_describe(dy));
        VL_TRY(vl_check_tensor(context, "dclass_token", dclass_token, VL_F32, columns));
    }
    if (!vl_is_empty(dpatches)) {
        bool without = rows < 1 || (vl_is_empty(dclass_token) && dpatches.dims == 3 && dpatches.dim[1] == rows);
        VL_TRY(vl_check_tensor(context, "dpatches", dpatches, dy.dtype, dy.dim[0], without ? rows : rows - 1, columns));
    }
    if (!vl_is_empty(dposition)) VL_TRY(vl_check_tensor(context, "dposition", dposition, VL_F32, rows, columns));
    return VL_OK;
}
