#include "tests/ops/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

void check_begin(Check *check, uint64_t seed, int64_t threads) {
    *check = (Check){.seed = seed, .random = vl_random(seed, 0)};
    setenv("VL2_GUARD", "1", 1);
    const char *device = getenv("VL_TEST_DEVICE");
    bool cuda = device && strcmp(device, "cuda") == 0;
    check_ok(check, vl_context_create(&check->context, cuda ? VL_DEVICE_CUDA : VL_DEVICE_CPU, threads));
    check_ok(check, vl_arena_bind(check->context, &check->context->scratch, "scratch", 1LL << 30));
}

void check_end(Check *check) {
    for (int64_t i = 0; i < check->host_count; i++) vl_free(check->host[i]);
    for (int64_t i = 0; i < check->device_count; i++) vl_device_free(check->context, check->device[i]);
    vl_free(check->host);
    vl_free(check->device);
    assert_int_equal(check->context->scratch.used, 0);
    vl_context_free(check->context);
    *check = (Check){0};
}

void check_ok(const Check *check, VlStatus status) {
    if (status != VL_OK) {
        fail_msg("seed %llu: %s\n%s", (unsigned long long)check->seed, vl_error_text(), vl_error_frames());
    }
}

void check_refused(VlStatus status, VlStatus want, const char *part) {
    if (status != want || !strstr(vl_error_text(), part)) {
        fail_msg("status %d with '%s', but %d with '%s' was expected", (int)status, vl_error_text(), (int)want, part);
    }
}

static void *host_memory(Check *check, int64_t count, int64_t size) {
    void *memory;
    check_ok(check, vl_reserve(&check->host, &check->host_capacity, check->host_count + 1, sizeof(void *)));
    check_ok(check, vl_allocate(&memory, count, size));
    check->host[check->host_count++] = memory;
    return memory;
}

double *check_zeros(Check *check, int64_t count) { return host_memory(check, count, sizeof(double)); }

double *check_copy(Check *check, const double *values, int64_t count) {
    double *copy = check_zeros(check, count);
    memcpy(copy, values, (size_t)count * sizeof *copy);
    return copy;
}

double *check_random(Check *check, int64_t count, double scale, VlDtype dtype) {
    double *values = check_zeros(check, count);
    for (int64_t i = 0; i < count; i++) values[i] = vl_random_normal(&check->random) * scale;
    check_round(values, count, dtype);
    return values;
}

int64_t *check_random_indices(Check *check, int64_t count, int64_t bound) {
    int64_t *values = host_memory(check, count, sizeof *values);
    for (int64_t i = 0; i < count; i++) values[i] = vl_random_below(&check->random, bound);
    return values;
}

double check_rounded(double value, VlDtype dtype) {
    switch (dtype) {
    case VL_F32: return (double)(float)value;
    case VL_BF16: return (double)vl_f32_from_bf16(vl_bf16_from_f32((float)value));
    default: return value;
    }
}

void check_round(double *values, int64_t count, VlDtype dtype) {
    for (int64_t i = 0; i < count; i++) values[i] = check_rounded(values[i], dtype);
}

VlTensor check_device_make(Check *check, VlDtype dtype, int32_t dims, const int64_t *dim) {
    VlTensor tensor = vl_tensor_make(NULL, dtype, dims, dim);
    check_ok(check, vl_reserve(&check->device, &check->device_capacity, check->device_count + 1, sizeof(void *)));
    check_ok(check, vl_device_allocate(check->context, vl_bytes(tensor), &tensor.data));
    check->device[check->device_count++] = tensor.data;
    return tensor;
}

static void *staging(const Check *check, VlTensor tensor) {
    void *memory;
    check_ok(check, vl_allocate(&memory, vl_bytes(tensor), 1));
    return memory;
}

static VlTensor copy_and_free(const Check *check, VlTensor tensor, void *memory) {
    check_ok(check, vl_copy_from_host(check->context, tensor, memory));
    vl_free(memory);
    return tensor;
}

VlTensor check_filled(Check *check, VlTensor tensor) {
    void *memory = staging(check, tensor);
    memset(memory, 0xff, (size_t)vl_bytes(tensor));
    return copy_and_free(check, tensor, memory);
}

VlTensor check_load(Check *check, VlTensor tensor, const double *values) {
    void *memory = staging(check, tensor);
    vl_convert(memory, tensor.dtype, values, VL_F64, vl_elements(tensor));
    return copy_and_free(check, tensor, memory);
}

VlTensor check_upload_i64(Check *check, const int64_t *values, int64_t count) {
    VlTensor tensor = check_device(check, VL_I64, count);
    check_ok(check, vl_copy_from_host(check->context, tensor, values));
    return tensor;
}

// The tensor's bits; the caller frees them.
static void *read_bits(const Check *check, VlTensor tensor) {
    void *memory = staging(check, tensor);
    check_ok(check, vl_copy_to_host(check->context, memory, tensor));
    return memory;
}

double *check_download(Check *check, VlTensor tensor) {
    double *values = check_zeros(check, vl_elements(tensor));
    void *memory = read_bits(check, tensor);
    vl_convert(values, VL_F64, memory, tensor.dtype, vl_elements(tensor));
    vl_free(memory);
    return values;
}

double check_error(const double *got, const double *want, int64_t count) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

void check_close(const Check *check, const char *name, const double *got, const double *want, int64_t count,
                 double tolerance) {
    double error = check_error(got, want, count);
    if (!(error <= tolerance)) {
        fail_msg("seed %llu: %s: error %.3g, at most %.3g", (unsigned long long)check->seed, name, error, tolerance);
    }
}

void check_tensor(Check *check, const char *name, VlTensor got, const double *want, double tolerance) {
    check_close(check, name, check_download(check, got), want, vl_elements(got), tolerance);
}

void check_index_tensor(Check *check, const char *name, VlTensor got, const int64_t *want) {
    const int64_t *values = read_bits(check, got);
    for (int64_t i = 0; i < vl_elements(got); i++) {
        if (values[i] == want[i]) continue;
        fail_msg("seed %llu: %s[%lld] is %lld, not %lld", (unsigned long long)check->seed, name, (long long)i,
                 (long long)values[i], (long long)want[i]);
    }
}

void check_bf16(Check *check, const char *name, VlTensor got, const double *naive, const double *want) {
    int64_t count = vl_elements(got);
    double error = check_error(check_download(check, got), want, count), bound = check_error(naive, want, count);
    if (!(error <= 2 * bound)) {
        fail_msg("seed %llu: %s in bf16: error %.3g, naive bf16 %.3g", (unsigned long long)check->seed, name, error,
                 bound);
    }
}

void check_same_bits(Check *check, const char *name, VlTensor a, Check *other, VlTensor b) {
    assert_true(vl_same_shape(a, b) && a.dtype == b.dtype);
    void *bits = read_bits(check, a), *other_bits = read_bits(other, b);
    bool same = memcmp(bits, other_bits, (size_t)vl_bytes(a)) == 0;
    vl_free(bits);
    vl_free(other_bits);
    if (!same) fail_msg("seed %llu: %s: not the same bits", (unsigned long long)check->seed, name);
}

double check_dot(const double *a, const double *b, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

void check_differences(const Check *check, const char *name, double *input, int64_t count, int64_t most,
                       CheckLoss *loss, void *problem, const double *gradient) {
    enum { LIMIT = 4096 };
    static const double step = 1e-5, tolerance = 1e-6;
    int64_t samples = count < most ? count : most;
    assert_in_range(samples, 0, LIMIT);
    double got[LIMIT], want[LIMIT];
    for (int64_t s = 0; s < samples; s++) {
        int64_t i = s * count / samples;
        double kept = input[i];
        input[i] = kept + step;
        double above = loss(problem);
        input[i] = kept - step;
        double below = loss(problem);
        input[i] = kept;
        got[s] = gradient[i];
        want[s] = (above - below) / (2 * step);
    }
    double error = check_error(got, want, samples);
    if (!(error <= tolerance)) {
        fail_msg("seed %llu: %s: the reference differs from central differences by %.3g, at most %.3g",
                 (unsigned long long)check->seed, name, error, tolerance);
    }
}
