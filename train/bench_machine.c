#include "train/bench_machine.h"

#include <omp.h>

#include "base/clock.h"
#include "base/dtype.h"
#include "base/memory.h"
#include "base/random.h"
#include "train/gpu.h"

// x, w and y of a product, one behind the other.
typedef struct Matrices {
    VlTensor x, w, y;
} Matrices;

static Matrices matrices_at(char *memory, VlDtype dtype, int64_t size) {
    int64_t bytes = size * size * vl_dtype_size(dtype);
    return (Matrices){vl_tensor(memory, dtype, size, size),
                      vl_tensor(memory ? memory + bytes : NULL, dtype, size, size),
                      vl_tensor(memory ? memory + 2 * bytes : NULL, dtype, size, size)};
}

// Numbers as they come in training: a GPU multiplies zeros with less power, hence faster.
static VlStatus fill(VlContext *context, VlTensor matrix) {
    enum { PATTERN = 1 << 16 };
    int64_t count = vl_elements(matrix);
    VlTensor flat = vl_reshape(matrix, count);
    VlRandom random = vl_random(1, 0);
    float *values = NULL;
    void *converted = NULL;
    VlStatus status;
    VL_TRY_GOTO(status, VL_NEW(&values, PATTERN), done);
    VL_TRY_GOTO(status, vl_allocate(&converted, PATTERN, vl_dtype_size(matrix.dtype)), done);
    for (int64_t i = 0; i < PATTERN; i++) values[i] = (float)vl_random_normal(&random);
    vl_convert(converted, matrix.dtype, values, VL_F32, PATTERN);
    for (int64_t begin = 0; begin < count; begin += PATTERN) {
        int64_t length = count - begin < PATTERN ? count - begin : PATTERN;
        VL_TRY_GOTO(status, vl_copy_from_host(context, vl_rows(flat, begin, length), converted), done);
    }
done:
    vl_free(values);
    vl_free(converted);
    return status;
}

// What the product needs of the scratch arena.
static VlStatus bind_scratch(VlContext *context, VlDtype dtype, int64_t size) {
    VlContext *plan;
    Matrices planned = matrices_at(NULL, dtype, size);
    VL_TRY(vl_context_create_plan(&plan, context->device, context->threads));
    VlStatus status = vl_linear_forward(plan, planned.y, planned.x, planned.w, VL_EMPTY, VL_WRITE);
    int64_t needed = plan->scratch.peak;
    vl_context_free(plan);
    VL_TRY(status);
    if (context->scratch.size >= needed) return VL_OK;
    vl_arena_unbind(context, &context->scratch);
    return vl_arena_bind(context, &context->scratch, context->scratch.name, needed);
}

static VlStatus time_gemm(VlContext *context, Matrices of, int64_t size, double seconds, double *best) {
    int64_t products = context->device == VL_DEVICE_CPU ? 1 : 10;  // between two looks at the clock
    VL_TRY(fill(context, of.x));
    VL_TRY(fill(context, of.w));
    VL_TRY(vl_device_wait(context));
    double begin = vl_seconds();
    for (int64_t turn = 0; turn < 3 || vl_seconds() - begin < seconds; turn++) {
        double start = vl_seconds();
        for (int64_t i = 0; i < products; i++) {
            VL_TRY(vl_linear_forward(context, of.y, of.x, of.w, VL_EMPTY, VL_WRITE));
        }
        VL_TRY(vl_device_wait(context));
        double flops = 2.0 * (double)size * (double)size * (double)size * (double)products;
        double rate = flops / (vl_seconds() - start);
        if (rate > *best) *best = rate;
    }
    return VL_OK;
}

VlStatus vl_measure_gemm_peak(VlContext *context, VlDtype dtype, int64_t size, double seconds,
                              double *flops_per_second) {
    void *memory;
    VlFlops flops = context->flops;
    *flops_per_second = 0;
    VL_TRY(bind_scratch(context, dtype, size));
    VL_TRY(vl_device_allocate(context, 3 * size * size * vl_dtype_size(dtype), &memory));
    VlStatus status = time_gemm(context, matrices_at(memory, dtype, size), size, seconds, flops_per_second);
    vl_device_free(context, memory);
    context->flops = flops;
    return status;
}

// The best of the turns so far.
static void keep_best(double *best, double bytes, double begin, double end) {
    if (bytes / (end - begin) > *best) *best = bytes / (end - begin);
}

static VlStatus time_host(VlContext *context, double seconds, double *copy, double *triad) {
    enum { ELEMENTS = 1 << 25 };  // 128 MiB each
    const double bytes = (double)ELEMENTS * sizeof(float);
    float *a = NULL, *b = NULL, *c = NULL;
    VlStatus status = VL_NEW(&a, ELEMENTS);
    if (status == VL_OK) status = VL_NEW(&b, ELEMENTS);
    if (status == VL_OK) status = VL_NEW(&c, ELEMENTS);
    double begin = vl_seconds();
    for (int64_t turn = 0; status == VL_OK && (turn < 3 || vl_seconds() - begin < seconds); turn++) {
        double start = vl_seconds();
#pragma omp parallel for num_threads((int)context->threads) schedule(static)
        for (int64_t i = 0; i < ELEMENTS; i++) a[i] = b[i];
        double middle = vl_seconds();
#pragma omp parallel for num_threads((int)context->threads) schedule(static)
        for (int64_t i = 0; i < ELEMENTS; i++) a[i] = b[i] + 3.0f * c[i];
        keep_best(copy, 2 * bytes, start, middle);
        keep_best(triad, 3 * bytes, middle, vl_seconds());
    }
    vl_free(a);
    vl_free(b);
    vl_free(c);
    return status;
}

static VlStatus time_device(VlContext *context, char *memory, int64_t elements, double seconds, double *copy,
                            double *triad) {
    enum { TURNS = 10 };  // between two looks at the clock
    int64_t bytes = elements * (int64_t)sizeof(float);
    VlTensor a = vl_tensor(memory, VL_F32, elements), b = vl_tensor(memory + bytes, VL_F32, elements);
    VlTensor c = vl_tensor(memory + 2 * bytes, VL_F32, elements);
    VL_TRY(vl_device_wait(context));
    double begin = vl_seconds();
    for (int64_t turn = 0; turn < 3 || vl_seconds() - begin < seconds; turn++) {
        double start = vl_seconds();
        for (int64_t i = 0; i < TURNS; i++) VL_TRY(vl_cast(context, a, b));
        VL_TRY(vl_device_wait(context));
        double middle = vl_seconds();
        for (int64_t i = 0; i < TURNS; i++) VL_TRY(vl_add_tensors(context, a, c, 3, b));
        VL_TRY(vl_device_wait(context));
        keep_best(copy, 2.0 * TURNS * (double)bytes, start, middle);
        keep_best(triad, 3.0 * TURNS * (double)bytes, middle, vl_seconds());
    }
    return VL_OK;
}

VlStatus vl_measure_bandwidth(VlContext *context, double seconds, double *copy, double *triad) {
    const int64_t elements = (int64_t)1 << 28;  // 1 GiB each
    void *memory;
    *copy = *triad = 0;
    if (context->device == VL_DEVICE_CPU) return time_host(context, seconds, copy, triad);
    VL_TRY(vl_device_allocate(context, 3 * elements * (int64_t)sizeof(float), &memory));
    VlStatus status = time_device(context, memory, elements, seconds, copy, triad);
    vl_device_free(context, memory);
    return status;
}

VlStatus vl_peak_flops(VlContext *context, VlDtype dtype, double *flops_per_second) {
    enum { SMALL = 256, LARGE = 4096 };
    const double long_enough = 1e-3;  // seconds of a product, for one that fills the device
    const VlGpu *gpu = context->device == VL_DEVICE_CUDA && dtype == VL_BF16 ? vl_gpu_of_model(context->model) : NULL;
    if (gpu) {
        *flops_per_second = gpu->bf16;
        return VL_OK;
    }
    if (context->device == VL_DEVICE_CPU) return vl_measure_gemm_peak(context, dtype, 1024, 0.3, flops_per_second);
    for (int64_t size = SMALL; size <= LARGE; size *= 2) {
        double flops = 2.0 * (double)size * (double)size * (double)size;
        VL_TRY(vl_measure_gemm_peak(context, dtype, size, 0.05, flops_per_second));
        if (flops / *flops_per_second > long_enough) break;
    }
    return VL_OK;
}
