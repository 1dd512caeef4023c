// Weight normalisation over the taps of a convolution. Salimans & Kingma, "Weight normalization", 2016.
#include <math.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"

enum { TAPS = 16 };  // handled together: a cache line of v

// A block of taps of v[O,I,K]: 1 / sqrt(sum of the squares of each + 1e-6).
typedef struct Taps {
    int64_t first, count;
    double inverse[TAPS];
    float g[TAPS];
} Taps;

// v[o,i] of the block.
static const float *read_taps(VlTensor v, int64_t pair, const Taps *taps, float *buffer) {
    return vl_block_read(v, pair * v.dim[2] + taps->first, taps->count, buffer);
}

static Taps measure(VlTensor g, VlTensor v, int64_t first) {
    Taps taps = {.first = first, .count = vl_minimum(TAPS, v.dim[2] - first)};
    float buffer[TAPS];
    for (int64_t k = 0; k < TAPS; k++) taps.inverse[k] = 1e-6;
    for (int64_t pair = 0; pair < v.dim[0] * v.dim[1]; pair++) {
        const float *row = read_taps(v, pair, &taps, buffer);
        for (int64_t k = 0; k < taps.count; k++) taps.inverse[k] += (double)row[k] * (double)row[k];
    }
    const float *gains = vl_block_read(g, first, taps.count, buffer);
    for (int64_t k = 0; k < taps.count; k++) {
        taps.inverse[k] = 1.0 / sqrt(taps.inverse[k]);
        taps.g[k] = gains[k];
    }
    return taps;
}

// Where tap k of v's pair (o,i) stands in w[O,K,I].
static int64_t place(VlTensor v, int64_t pair, int64_t k) {
    int64_t o = pair / v.dim[1], i = pair % v.dim[1];
    return (o * v.dim[2] + k) * v.dim[1] + i;
}

VlStatus vl_cpu_weight_norm_forward(VlContext *context, VlTensor w, VlTensor g, VlTensor v) {
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(v)))
    for (int64_t first = 0; first < v.dim[2]; first += TAPS) {
        Taps taps = measure(g, v, first);
        float buffer[TAPS];
        for (int64_t pair = 0; pair < v.dim[0] * v.dim[1]; pair++) {
            const float *row = read_taps(v, pair, &taps, buffer);
            for (int64_t k = 0; k < taps.count; k++) {
                float value = (float)((double)taps.g[k] * taps.inverse[k]) * row[k];
                int64_t at = place(v, pair, first + k);
                if (w.dtype == VL_F32) {
                    ((float *)w.data)[at] = value;
                } else {
                    ((VlBf16 *)w.data)[at] = vl_bf16_from_f32(value);
                }
            }
        }
    }
    return VL_OK;
}

// With n = inverse and s = sum of dw * v over a tap: dg = n s, dv = g n (dw - v n^2 s).
VlStatus vl_cpu_weight_norm_backward(VlContext *context, VlTensor dg, VlTensor dv, VlTensor dw, VlTensor g,
                                     VlTensor v) {
    const float *upstream = dw.data;
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(v)))
    for (int64_t first = 0; first < v.dim[2]; first += TAPS) {
        Taps taps = measure(g, v, first);
        float buffer[TAPS];
        double sum[TAPS] = {0};
        for (int64_t pair = 0; pair < v.dim[0] * v.dim[1]; pair++) {
            const float *row = read_taps(v, pair, &taps, buffer);
            for (int64_t k = 0; k < taps.count; k++) {
                sum[k] += (double)upstream[place(v, pair, first + k)] * (double)row[k];
            }
        }
        for (int64_t k = 0; k < taps.count && !vl_is_empty(dg); k++) {
            ((float *)dg.data)[first + k] += (float)(taps.inverse[k] * sum[k]);
        }
        for (int64_t pair = 0; pair < v.dim[0] * v.dim[1] && !vl_is_empty(dv); pair++) {
            const float *row = read_taps(v, pair, &taps, buffer);
            float *to = (float *)dv.data + pair * v.dim[2] + first;
            for (int64_t k = 0; k < taps.count; k++) {
                double n = taps.inverse[k], along = (double)row[k] * n * n * sum[k];
                to[k] += (float)((double)taps.g[k] * n * ((double)upstream[place(v, pair, first + k)] - along));
            }
        }
    }
    return VL_OK;
}
