#include "train/bench_machine.h"

#include <omp.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"

static VlStatus time_gemm(VlContext *context, char *memory, VlDtype dtype, int64_t size, double seconds, double *best) {
    int64_t bytes = size * size * vl_dtype_size(dtype);
    VlTensor y = vl_tensor(memory, dtype, size, size), x = vl_tensor(memory + bytes, dtype, size, size);
    VlTensor w = vl_tensor(memory + 2 * bytes, dtype, size, size);
    double begin = vl_seconds();
    for (int64_t turn = 0; turn < 3 || vl_seconds() - begin < seconds; turn++) {
        double start = vl_seconds();
        VL_TRY(vl_linear_forward(context, y, x, w, VL_EMPTY, VL_WRITE));
        double rate = 2.0 * (double)size * (double)size * (double)size / (vl_seconds() - start);
        if (rate > *best) *best = rate;
    }
    return VL_OK;
}

VlStatus vl_measure_gemm_peak(VlContext *context, VlDtype dtype, int64_t size, double seconds,
                              double *flops_per_second) {
    void *memory;
    VlFlops flops = context->flops;
    *flops_per_second = 0;
    VL_TRY(vl_device_allocate(context, 3 * size * size * vl_dtype_size(dtype), &memory));
    VlStatus status = time_gemm(context, memory, dtype, size, seconds, flops_per_second);
    vl_device_free(context, memory);
    context->flops = flops;
    return status;
}

VlStatus vl_measure_bandwidth(VlContext *context, double seconds, double *copy, double *triad) {
    enum { ELEMENTS = 1 << 25 };  // 128 MiB each
    float *a = NULL, *b = NULL, *c = NULL;
    VlStatus status = VL_NEW(&a, ELEMENTS);
    if (status == VL_OK) status = VL_NEW(&b, ELEMENTS);
    if (status == VL_OK) status = VL_NEW(&c, ELEMENTS);
    *copy = *triad = 0;
    double begin = vl_seconds();
    for (int64_t turn = 0; status == VL_OK && (turn < 3 || vl_seconds() - begin < seconds); turn++) {
        double start = vl_seconds();
#pragma omp parallel for num_threads((int)context->threads) schedule(static)
        for (int64_t i = 0; i < ELEMENTS; i++) a[i] = b[i];
        double middle = vl_seconds();
#pragma omp parallel for num_threads((int)context->threads) schedule(static)
        for (int64_t i = 0; i < ELEMENTS; i++) a[i] = b[i] + 3.0f * c[i];
        double end = vl_seconds(), bytes = (double)ELEMENTS * sizeof(float);
        if (2 * bytes / (middle - start) > *copy) *copy = 2 * bytes / (middle - start);
        if (3 * bytes / (end - middle) > *triad) *triad = 3 * bytes / (end - middle);
    }
    vl_free(a);
    vl_free(b);
    vl_free(c);
    return status;
}
