#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

static float logit_at(VlTensor logits, int64_t at) {
    return logits.dtype == VL_F32 ? ((const float *)logits.data)[at]
                                  : vl_f32_from_bf16(((const VlBf16 *)logits.data)[at]);
}

// What is compared: a logit that is no number comes first, so that it reaches the weights, and with them the loss.
static float rank_of(VlTensor logits, int64_t at) {
    float logit = logit_at(logits, at);
    return logit == logit ? logit : __builtin_inff();
}

// The first expert behind expert `last` (-1: of all) in the order of falling logits, of equals the lower index first.
static int64_t next_expert(VlTensor logits, int64_t row, int64_t last) {
    int64_t first = row * logits.dim[1], best = -1;
    float limit = last < 0 ? 0 : rank_of(logits, first + last), most = 0;
    for (int64_t e = 0; e < logits.dim[1]; e++) {
        float rank = rank_of(logits, first + e);
        bool behind = last < 0 || rank < limit || (rank == limit && e > last);
        if (!behind || (best >= 0 && rank <= most)) continue;
        best = e;
        most = rank;
    }
    return best;
}

VlStatus vl_cpu_route_forward(VlContext *context, VlTensor weights, VlTensor experts, VlTensor logits) {
    int64_t all = logits.dim[1], chosen = weights.dim[1];
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(logits)))
    for (int64_t t = 0; t < logits.dim[0]; t++) {
        float *weight = (float *)weights.data + t * chosen, sum = 0;
        int64_t *expert = (int64_t *)experts.data + t * chosen;
        for (int64_t s = 0; s < chosen; s++) {
            expert[s] = next_expert(logits, t, s ? expert[s - 1] : -1);
            weight[s] = vl_exp(logit_at(logits, t * all + expert[s]) - logit_at(logits, t * all + expert[0]));
            sum += weight[s];
        }
        for (int64_t s = 0; s < chosen; s++) weight[s] /= sum;
    }
    return VL_OK;
}

VlStatus vl_cpu_route_backward(VlContext *context, VlTensor dlogits, VlTensor dweights, VlTensor weights,
                               VlTensor experts) {
    if (vl_is_empty(dlogits)) return VL_OK;
    int64_t all = dlogits.dim[1], chosen = weights.dim[1], size = vl_dtype_size(dlogits.dtype);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(dlogits)))
    for (int64_t t = 0; t < dlogits.dim[0]; t++) {
        const float *weight = (const float *)weights.data + t * chosen, *dweight = (float *)dweights.data + t * chosen;
        const int64_t *expert = (const int64_t *)experts.data + t * chosen;
        float mean = 0;
        for (int64_t s = 0; s < chosen; s++) mean += weight[s] * dweight[s];
        memset((char *)dlogits.data + t * all * size, 0, (size_t)(all * size));
        for (int64_t s = 0; s < chosen; s++) {
            float gradient = weight[s] * (dweight[s] - mean);
            vl_convert((char *)dlogits.data + (t * all + expert[s]) * size, dlogits.dtype, &gradient, VL_F32, 1);
        }
    }
    return VL_OK;
}
