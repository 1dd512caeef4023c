#include "ops/cuda/indices.cuh"
#include "ops/cuda/numeric.cuh"
#include "ops/cuda/reduce.cuh"

enum { THREADS = 256, TOKENS = THREADS / WARP };  // a warp has a token

// An expert, and what it is compared by: its logit; one that is no number comes first, so that it reaches the weights,
// and with them the loss.
struct Candidate {
    float rank;
    int64_t expert;
};

static __device__ __forceinline__ bool goes_before(Candidate a, Candidate b) {
    return a.rank > b.rank || (a.rank == b.rank && a.expert < b.expert);
}

static __device__ __forceinline__ Candidate first_of_warp(Candidate mine) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        Candidate other = {__shfl_xor_sync(0xffffffffu, mine.rank, offset),
                           __shfl_xor_sync(0xffffffffu, mine.expert, offset)};
        if (goes_before(other, mine)) mine = other;
    }
    return mine;
}

template <class T>
static __global__ void choose_kernel(float *weights, int64_t *experts, const T *logits, int64_t tokens, int64_t all,
                                     int64_t chosen) {
    int64_t token = grid_index() / WARP;
    int lane = (int)threadIdx.x % WARP;
    if (token >= tokens) return;
    logits += token * all;
    weights += token * chosen;
    experts += token * chosen;
    Candidate last = {INFINITY, -1};
    float largest = 0, sum = 0;
    for (int64_t s = 0; s < chosen; s++) {
        Candidate next = {-INFINITY, all};
        for (int64_t e = lane; e < all; e += WARP) {
            float logit = to_float(logits[e]);
            Candidate candidate = {logit == logit ? logit : INFINITY, e};
            if (goes_before(last, candidate) && goes_before(candidate, next)) next = candidate;
        }
        last = first_of_warp(next);
        float logit = to_float(logits[last.expert]);
        if (s == 0) largest = logit;
        float power = expf(logit - largest);
        sum += power;
        if (lane > 0) continue;
        experts[s] = last.expert;
        weights[s] = power;
    }
    for (int64_t s = 0; lane == 0 && s < chosen; s++) weights[s] /= sum;
}

VlStatus vl_cuda_route_forward(VlContext *context, VlTensor weights, VlTensor experts, VlTensor logits) {
    int64_t tokens = logits.dim[0];
    vl_cuda_indices_forget(vl_cuda_state(context)->indices, experts.data, vl_bytes(experts));
    return with_type(logits.dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, choose_kernel<T>, dim3((unsigned)((tokens + TOKENS - 1) / TOKENS)), dim3(THREADS), 0,
                      data_of<float>(weights), data_of<int64_t>(experts), data_of<T>(logits), tokens, logits.dim[1],
                      weights.dim[1]);
    });
}

template <class T>
static __global__ void gradient_kernel(T *dlogits, const float *dweights, const float *weights, const int64_t *experts,
                                       int64_t tokens, int64_t all, int64_t chosen, VlCudaFault *fault) {
    int64_t token = grid_index() / WARP, first = token * chosen;
    if (token >= tokens) return;
    float mean = 0;
    for (int64_t s = first; s < first + chosen; s++) {
        index_fits(fault, s, experts[s], all);
        mean += weights[s] * dweights[s];
    }
    for (int64_t e = (int)threadIdx.x % WARP; e < all; e += WARP) {
        float gradient = 0;
        for (int64_t s = first; s < first + chosen; s++) {
            if (experts[s] == e) gradient = weights[s] * (dweights[s] - mean);
        }
        dlogits[token * all + e] = from_float<T>(gradient);
    }
}

VlStatus vl_cuda_route_backward(VlContext *context, VlTensor dlogits, VlTensor dweights, VlTensor weights,
                                VlTensor experts) {
    int64_t tokens = weights.dim[0];
    if (vl_is_empty(dlogits)) return VL_OK;
    return with_type(dlogits.dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, gradient_kernel<T>, dim3((unsigned)((tokens + TOKENS - 1) / TOKENS)), dim3(THREADS), 0,
                      data_of<T>(dlogits), data_of<float>(dweights), data_of<float>(weights), data_of<int64_t>(experts),
                      tokens, dlogits.dim[1], weights.dim[1], vl_cuda_state(context)->fault);
    });
}
