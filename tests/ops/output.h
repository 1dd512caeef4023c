// An output of the operation under test: what it held before, and the comparison with what it should hold.
#ifndef VL_TESTS_OPS_OUTPUT_H
#define VL_TESTS_OPS_OUTPUT_H

#include "tests/ops/check.h"

typedef struct Output {
    VlTensor tensor;
    double *start;  // zeros when it is written
} Output;

// Memory for vl_tensor(NULL, dtype, extents...): NaN when the operation writes it, random numbers when it adds to it.
static inline Output output_make(Check *check, VlTensor shape, VlMode mode) {
    int64_t count = vl_elements(shape);
    Output output = {.tensor = check_device_make(check, shape.dtype, shape.dims, shape.dim)};
    if (mode == VL_ADD) {
        output.start = check_random(check, count, 1.0, shape.dtype);
        check_load(check, output.tensor, output.start);
    } else {
        output.start = check_zeros(check, count);
        check_filled(check, output.tensor);
    }
    return output;
}

// f32: within 1e-5 of `want`, also where the inputs are bf16; bf16: at most twice as far from it as the naive bf16
// computation. Both are without `start`.
static inline void output_check(Check *check, const char *name, Output output, const double *want,
                                const double *naive) {
    int64_t count = vl_elements(output.tensor);
    double *total = check_zeros(check, count), *total_naive = check_zeros(check, count);
    for (int64_t i = 0; i < count; i++) {
        total[i] = output.start[i] + want[i];
        total_naive[i] = check_rounded(output.start[i] + naive[i], output.tensor.dtype);
    }
    if (output.tensor.dtype == VL_BF16) {
        check_bf16(check, name, output.tensor, total_naive, total);
    } else {
        check_tensor(check, name, output.tensor, total, 1e-5);
    }
}

// The outputs of two runs of the same problem are the same bits.
static inline void outputs_same(Check *check, const Output *outputs, Check *other, const Output *others, int count) {
    for (int i = 0; i < count; i++) check_same_bits(check, "an output", outputs[i].tensor, other, others[i].tensor);
}

#endif
