#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

enum { CHANNELS = 256 };  // handled at a time: their part of a row of columns stays in the cache

// Both directions only move elements, so they know them by their size.
#define MOVES(type, size)                                                                                 \
    VL_VECTORISED static void spread_##size(type *to, const type *from, int64_t count, int64_t stride) {  \
        for (int64_t i = 0; i < count; i++) to[i * stride] = from[i];                                     \
    }                                                                                                     \
    VL_VECTORISED static void collect_##size(type *to, const type *from, int64_t count, int64_t stride) { \
        for (int64_t i = 0; i < count; i++) to[i] = from[i * stride];                                     \
    }
MOVES(uint16_t, 2)
MOVES(uint32_t, 4)

// to[i * stride] = from[i] of the tensors' elements.
static void spread(VlTensor to, int64_t to_start, VlTensor from, int64_t from_start, int64_t count, int64_t stride) {
    if (to.dtype == VL_F32) {
        spread_4((uint32_t *)to.data + to_start, (const uint32_t *)from.data + from_start, count, stride);
    } else {
        spread_2((uint16_t *)to.data + to_start, (const uint16_t *)from.data + from_start, count, stride);
    }
}

// to[i] = from[i * stride].
static void collect(VlTensor to, int64_t to_start, VlTensor from, int64_t from_start, int64_t count, int64_t stride) {
    if (to.dtype == VL_F32) {
        collect_4((uint32_t *)to.data + to_start, (const uint32_t *)from.data + from_start, count, stride);
    } else {
        collect_2((uint16_t *)to.data + to_start, (const uint16_t *)from.data + from_start, count, stride);
    }
}

typedef struct Unfold {
    VlTensor x, columns;
    int64_t kernel[3], padding;
    int64_t grid[3];  // blocks along t, h, w that have a row of columns
} Unfold;

static Unfold unfold_make(VlTensor x, VlTensor columns, int64_t kt, int64_t kh, int64_t kw, int64_t padding) {
    Unfold unfold = {.x = x, .columns = columns, .kernel = {kt, kh, kw}, .padding = padding};
    for (int i = 0; i < 3; i++) unfold.grid[i] = (x.dim[i + 1] + 2 * padding) / unfold.kernel[i];
    return unfold;
}

// The first element of the pixel at `offset` in block `block` of image n, or -1 outside of the image.
static int64_t pixel_start(const Unfold *unfold, int64_t n, const int64_t block[3], const int64_t offset[3]) {
    int64_t start = n;
    for (int i = 0; i < 3; i++) {
        int64_t at = block[i] * unfold->kernel[i] + offset[i] - unfold->padding;
        if (at < 0 || at >= unfold->x.dim[i + 1]) return -1;
        start = start * unfold->x.dim[i + 1] + at;
    }
    return start * unfold->x.dim[4];
}

// Elements of channels [c, c + count) of one block, between the image and a row of columns; row -1: the block has none.
static void move_block(const Unfold *unfold, int64_t n, const int64_t block[3], int64_t row, int64_t c, int64_t count,
                       bool forward) {
    static const uint32_t zero[CHANNELS];
    const VlTensor zeros = {.data = (void *)(uintptr_t)zero};
    const int64_t *kernel = unfold->kernel;
    int64_t stride = kernel[0] * kernel[1] * kernel[2];
    VlTensor x = unfold->x, columns = unfold->columns;
    for (int64_t k = 0; k < stride; k++) {
        int64_t offset[3] = {k / (kernel[1] * kernel[2]), k / kernel[2] % kernel[1], k % kernel[2]};
        int64_t pixel = pixel_start(unfold, n, block, offset), column = (row * x.dim[4] + c) * stride + k;
        if (forward) {
            spread(columns, column, pixel < 0 ? zeros : x, pixel < 0 ? 0 : pixel + c, count, stride);
        } else if (pixel >= 0 && row >= 0) {
            collect(x, pixel + c, columns, column, count, stride);
        } else if (pixel >= 0) {
            int64_t size = vl_dtype_size(x.dtype);
            memset((char *)x.data + (pixel + c) * size, 0, (size_t)(count * size));
        }
    }
}

// All blocks of a grid [N, blocks...]; a block outside of unfold->grid has pixels, but no row of columns.
static void move_blocks(VlContext *context, const Unfold *unfold, const int64_t blocks[3], bool forward) {
    const int64_t *grid = unfold->grid;
    int64_t channels = unfold->x.dim[4], total = unfold->x.dim[0] * blocks[0] * blocks[1] * blocks[2];
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(unfold->columns)))
    for (int64_t i = 0; i < total; i++) {
        int64_t block[3] = {i / (blocks[1] * blocks[2]) % blocks[0], i / blocks[2] % blocks[1], i % blocks[2]};
        int64_t n = i / (blocks[0] * blocks[1] * blocks[2]);
        bool has_row = block[0] < grid[0] && block[1] < grid[1] && block[2] < grid[2];
        int64_t row = has_row ? ((n * grid[0] + block[0]) * grid[1] + block[1]) * grid[2] + block[2] : -1;
        for (int64_t c = 0; c < channels; c += CHANNELS) {
            move_block(unfold, n, block, row, c, vl_minimum(CHANNELS, channels - c), forward);
        }
    }
}

VlStatus vl_cpu_unfold3d_forward(VlContext *context, VlTensor columns, VlTensor x, int64_t kt, int64_t kh, int64_t kw,
                                 int64_t padding) {
    Unfold unfold = unfold_make(x, columns, kt, kh, kw, padding);
    move_blocks(context, &unfold, unfold.grid, true);
    return VL_OK;
}

// Stride is kernel, so every pixel is in one block; where the block has no row its gradient is zero.
VlStatus vl_cpu_unfold3d_backward(VlContext *context, VlTensor dx, VlTensor dcolumns, int64_t kt, int64_t kh,
                                  int64_t kw, int64_t padding) {
    if (vl_is_empty(dx)) return VL_OK;
    Unfold unfold = unfold_make(dx, dcolumns, kt, kh, kw, padding);
    int64_t blocks[3];
    for (int i = 0; i < 3; i++) blocks[i] = vl_divide_up(dx.dim[i + 1] + padding, unfold.kernel[i]);
    move_blocks(context, &unfold, blocks, false);
    return VL_OK;
}
