#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

VL_VECTORISED static void forward(float *y, const float *gate, const float *up, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] = gate[i] * vl_sigmoid(gate[i]) * up[i];
}

VlStatus vl_cpu_swiglu_forward(VlContext *context, VlTensor y, VlTensor gate, VlTensor up) {
    int64_t elements = vl_elements(y);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, elements))
    for (int64_t start = 0; start < elements; start += VL_BLOCK) {
        float buffers[3][VL_BLOCK];
        int64_t count = vl_minimum(VL_BLOCK, elements - start);
        float *to = vl_block_target(y, start, VL_WRITE, buffers[0]);
        forward(to, vl_block_read(gate, start, count, buffers[1]), vl_block_read(up, start, count, buffers[2]), count);
        vl_block_write(y, start, count, VL_WRITE, to);
    }
    return VL_OK;
}

// All inputs of an element are read before its gradients are written, which may take the place of gate and up.
VL_VECTORISED static void backward(float *dgate, float *dup, const float *dy, const float *gate, const float *up,
                                   int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        float g = gate[i], u = up[i], d = dy[i], s = vl_sigmoid(g);
        dgate[i] = d * u * s * (1.0f + g * (1.0f - s));
        dup[i] = d * g * s;
    }
}

VlStatus vl_cpu_swiglu_backward(VlContext *context, VlTensor dgate, VlTensor dup, VlTensor dy, VlTensor gate,
                                VlTensor up) {
    int64_t elements = vl_elements(dy);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, elements))
    for (int64_t start = 0; start < elements; start += VL_BLOCK) {
        float buffers[5][VL_BLOCK];
        int64_t count = vl_minimum(VL_BLOCK, elements - start);
        float *to_gate = vl_block_target(dgate, start, VL_WRITE, buffers[0]);
        float *to_up = vl_block_target(dup, start, VL_WRITE, buffers[1]);
        backward(to_gate, to_up, vl_block_read(dy, start, count, buffers[2]),
                 vl_block_read(gate, start, count, buffers[3]), vl_block_read(up, start, count, buffers[4]), count);
        vl_block_write(dgate, start, count, VL_WRITE, to_gate);
        vl_block_write(dup, start, count, VL_WRITE, to_up);
    }
    return VL_OK;
}
