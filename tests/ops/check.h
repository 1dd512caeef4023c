// What the tests of the operations share: seeded tensors, device memory, errors against f64 references, finite
// differences.
//
// Conventions
//   - A reference is f64 on host arrays, written from the formula in ops_list.h.
//   - Inputs are rounded to the type that the operation reads before the reference sees them: the reference has no
//   excuse.
//   - Outputs that are written start as NaN, outputs that are added to start as random numbers.
//   - Upstream gradients are random. Every OP row NAME has a test function named test_NAME_gradient; it compares the
//     operation's gradients with the reference's and the reference's with central differences (check_differences).
//   - The guard is on (VL2_GUARD=1); device memory ends at a page that is not accessible.
//   - bf16: check_bf16 against a naive computation that rounds every intermediate tensor to bf16.
#ifndef VL_TESTS_OPS_CHECK_H
#define VL_TESTS_OPS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/dtype.h"
#include "base/random.h"
#include "ops/ops.h"

typedef struct Check {
    VlContext *context;  // scratch bound
    uint64_t seed;       // printed by every failure
    VlRandom random;
    int64_t host_count, host_capacity, device_count, device_capacity;
    void **host, **device;  // freed by check_end
} Check;

// On the CPU, or on CUDA where the environment says VL_TEST_DEVICE=cuda.
void check_begin(Check *check, uint64_t seed, int64_t threads);
void check_end(Check *check);

// Fails the test with the error's text and the seed.
void check_ok(const Check *check, VlStatus status);
// Fails unless the status is `want` and the text holds `part`.
void check_refused(VlStatus status, VlStatus want, const char *part);

// Host arrays; they live until check_end.
double *check_zeros(Check *check, int64_t count);
double *check_copy(Check *check, const double *values, int64_t count);
double *check_random(Check *check, int64_t count, double scale,
                     VlDtype dtype);                                        // normal * scale, rounded to f32 or bf16
int64_t *check_random_indices(Check *check, int64_t count, int64_t bound);  // uniform in [0, bound)
double check_rounded(double value, VlDtype dtype);                          // to f32, bf16 or (as is) f64
void check_round(double *values, int64_t count, VlDtype dtype);

// Device tensors; they live until check_end.
VlTensor check_device_make(Check *check, VlDtype dtype, int32_t dims, const int64_t *dim);
#define check_device(check, dtype, ...)                                                                \
    check_device_make((check), (dtype), (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), \
                      (int64_t[]){__VA_ARGS__})
// Floating: filled with NaN. Give to an operation that writes.
#define check_output(check, dtype, ...) check_filled((check), check_device((check), (dtype), __VA_ARGS__))
VlTensor check_filled(Check *check, VlTensor tensor);
// Filled with the values.
#define check_upload(check, values, dtype, ...) \
    check_load((check), check_device((check), (dtype), __VA_ARGS__), (values))
VlTensor check_load(Check *check, VlTensor tensor, const double *values);
VlTensor check_upload_i64(Check *check, const int64_t *values, int64_t count);
double *check_download(Check *check, VlTensor tensor);

// ||got - want|| / ||want||; ||got|| where want is zero. NaN stays NaN.
double check_error(const double *got, const double *want, int64_t count);
// Fails unless the error is at most `tolerance` (f32: 1e-5).
void check_close(const Check *check, const char *name, const double *got, const double *want, int64_t count,
                 double tolerance);
// Downloads first.
void check_tensor(Check *check, const char *name, VlTensor got, const double *want, double tolerance);
// An index tensor (i64).
void check_index_tensor(Check *check, const char *name, VlTensor got, const int64_t *want);
// bf16: the error is at most twice that of `naive`, both against the f64 `want`.
void check_bf16(Check *check, const char *name, VlTensor got, const double *naive, const double *want);
void check_same_bits(Check *check, const char *name, VlTensor a, Check *other, VlTensor b);

// Central differences of loss() by every element of input (at most `most` of them, spread evenly), in f64, against
// `gradient`: norm-relative error at most 1e-6. loss reads `input` through `problem`.
typedef double CheckLoss(void *problem);
void check_differences(const Check *check, const char *name, double *input, int64_t count, int64_t most,
                       CheckLoss *loss, void *problem, const double *gradient);
double check_dot(const double *a, const double *b, int64_t count);

#endif
