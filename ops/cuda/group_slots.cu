#include "ops/cuda/indices.cuh"
#include "ops/cuda/numeric.cuh"
#include "ops/cuda/reduce.cuh"

enum { THREADS = 512, WARPS = THREADS / WARP };

// Block e goes through all slots twice: it finds where expert e's rows begin, then places its slots in their order. The
// block behind those of the experts finds the end of all.
static __global__ void __launch_bounds__(THREADS)
    group_kernel(int64_t *offsets, int64_t *tokens, int64_t *places, const int64_t *experts, int64_t slots,
                 int64_t chosen, int64_t count, VlCudaFault *fault) {
    VL_SHARED(int, counts, 2 * WARPS);
    int64_t expert = blockIdx.x, begin = 0;
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    for (int64_t r = threadIdx.x; r < slots; r += THREADS) {
        if (expert == count) index_fits(fault, r, experts[r], count);
        begin += experts[r] >= 0 && experts[r] < expert;
    }
    begin = block_sum(begin);
    if (threadIdx.x == 0) offsets[expert] = begin;
    if (expert == count) return;
    for (int64_t first = 0, turn = 0; first < slots; first += THREADS, turn ^= 1) {
        int64_t r = first + threadIdx.x;
        bool mine = r < slots && experts[r] == expert;
        unsigned lanes = __ballot_sync(0xffffffffu, mine);
        if (lane == 0) counts[turn * WARPS + warp] = __popc(lanes);
        __syncthreads();  // one a turn: the next turn's counts are elsewhere
        int64_t place = begin + __popc(lanes & ((1u << lane) - 1));
        for (int w = 0; w < WARPS; w++) {
            int others = counts[turn * WARPS + w];
            if (w < warp) place += others;
            begin += others;
        }
        if (!mine) continue;
        places[r] = place;
        tokens[place] = r / chosen;
    }
}

VlStatus vl_cuda_group_slots(VlContext *context, VlTensor offsets, VlTensor tokens, VlTensor places, VlTensor experts) {
    VlCudaState *state = vl_cuda_state(context);
    const VlTensor written[] = {offsets, tokens, places};
    for (int i = 0; i < 3; i++) vl_cuda_indices_forget(state->indices, written[i].data, vl_bytes(written[i]));
    return launch(context, group_kernel, dim3((unsigned)offsets.dim[0]), dim3(THREADS), 0, data_of<int64_t>(offsets),
                  data_of<int64_t>(tokens), data_of<int64_t>(places), data_of<int64_t>(experts), tokens.dim[0],
                  experts.dim[1], offsets.dim[0] - 1, state->fault);
}
