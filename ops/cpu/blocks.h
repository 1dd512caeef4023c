// Blocks of elements as f32, whatever the type of the tensor. An f32 tensor is used where it lies; a bf16 tensor goes
// through a buffer of the caller that stays in the first-level cache. So a kernel is written once, over f32.
//
//   float buffers[2][VL_BLOCK];
//   float *to = vl_block_target(y, start, VL_WRITE, buffers[0]);
//   kernel(to, vl_block_read(x, start, count, buffers[1]), count);
//   vl_block_write(y, start, count, VL_WRITE, to);
#ifndef VL_OPS_CPU_BLOCKS_H
#define VL_OPS_CPU_BLOCKS_H

#include "ops/ops.h"

enum { VL_BLOCK = 1024 };  // elements in a block: half a dozen buffers of them fit in the cache

static inline int64_t vl_minimum(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t vl_divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Threads for a loop over `elements`: few elements are not worth waking a thread for.
static inline int vl_threads_for(const VlContext *context, int64_t elements) {
    return (int)vl_minimum(context->threads, 1 + elements / 8192);
}

void vl_block_widen(float *to, const VlBf16 *from, int64_t count);

// Elements [start, start + count) of an f32 or bf16 tensor.
static inline const float *vl_block_read(VlTensor x, int64_t start, int64_t count, float *buffer) {
    if (x.dtype == VL_F32) return (const float *)x.data + start;
    vl_block_widen(buffer, (const VlBf16 *)x.data + start, count);
    return buffer;
}

// Where to compute elements from `start` on: in place if y is f32 and written, else in the buffer. Of an empty view:
// the buffer.
static inline float *vl_block_target(VlTensor y, int64_t start, VlMode mode, float *buffer) {
    return !vl_is_empty(y) && y.dtype == VL_F32 && mode == VL_WRITE ? (float *)y.data + start : buffer;
}

void vl_block_convert(VlTensor y, int64_t start, int64_t count, VlMode mode, const float *values);

// Converts and writes, or adds, what was computed in a block's target. An empty view is not wanted: nothing is done.
static inline void vl_block_write(VlTensor y, int64_t start, int64_t count, VlMode mode, const float *values) {
    if (!vl_is_empty(y) && (y.dtype != VL_F32 || mode != VL_WRITE)) vl_block_convert(y, start, count, mode, values);
}

// y = a + b and y = x / divisor within a block; y may be any of the inputs.
void vl_block_sum(float *y, const float *a, const float *b, int64_t count);
void vl_block_divide(float *y, const float *x, float divisor, int64_t count);

// The columns that one thread sums over all rows: a multiple of a cache line of f32, at most a block.
static inline int64_t vl_column_block(const VlContext *context, int64_t columns) {
    int64_t share = (vl_divide_up(columns, context->threads) + 15) / 16 * 16;
    return share > VL_BLOCK ? VL_BLOCK : share > 16 ? share : 16;
}

// db[N] f32 += column sums of dy[M,N]: one after the other down the rows, in f64.
void vl_add_column_sums(VlContext *context, VlTensor db, VlTensor dy);

#endif
