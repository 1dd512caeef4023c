#include "ops/cuda/groups.cuh"
#include "ops/cuda/reduce.cuh"

extern "C" {
#include "ops/scratch_norm.h"
}

enum { THREADS = 256, BATCH = 4 };

// Each block has a stretch of `length` elements, a multiple of 4.
template <int N>
static __global__ void parts_kernel(double *parts, const float *x, int64_t count, int64_t length) {
    int64_t begin = blockIdx.x * length, end = begin + length < count ? begin + length : count;
    double sums[BATCH] = {};
    for (int64_t start = begin + (int64_t)threadIdx.x * 4; start < end; start += BATCH * 4 * THREADS) {
        Floats<4> values[BATCH] = {};
        for (int b = 0; b < BATCH; b++) {
            int64_t i = start + b * 4 * THREADS;
            if (N == 4 && i + 4 <= end) {
                values[b] = load_floats<4>(x + i);
            } else {
                for (int k = 0; k < 4; k++) values[b].at[k] = i + k < end ? x[i + k] : 0.0f;
            }
        }
        for (int b = 0; b < BATCH; b++) {
            for (int k = 0; k < 4; k++) sums[b] += (double)values[b].at[k] * (double)values[b].at[k];
        }
    }
    double total = block_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

static __global__ void total_kernel(double *sum, const double *parts, int64_t count) {
    double total = 0;
    for (int64_t i = threadIdx.x; i < count; i += THREADS) total += parts[i];
    total = block_sum(total);
    if (threadIdx.x == 0) *sum = total;
}

static VlStatus square_sum(VlContext *context, VlTensor sum, VlTensor x) {
    int64_t count = vl_elements(x);
    VlTensor parts;
    VL_TRY(vl_scratch_square_sum(context, &parts, count));
    int64_t blocks = parts.dim[0], length = blocks ? ((count + blocks - 1) / blocks + 3) / 4 * 4 : 0;
    VL_TRY(with_groups_of<4>(aligned(x), [&](auto n) {
        return launch(context, parts_kernel<n>, dim3((unsigned)blocks), dim3(THREADS), 0, data_of<double>(parts),
                      data_of<float>(x), count, length);
    }));
    return launch(context, total_kernel, dim3(1), dim3(THREADS), 0, data_of<double>(sum), data_of<double>(parts),
                  blocks);
}

VlStatus vl_cuda_square_sum(VlContext *context, VlTensor sum, VlTensor x) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlStatus status = square_sum(context, sum, x);
    vl_arena_release(&context->scratch, mark);
    return status;
}
