#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

enum { LENGTH = 4096, ROUND = 1024 };  // elements of a block; blocks whose sums are kept at a time

VL_VECTORISED static double sum_of_squares(const float *x, int64_t count) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += (double)x[i] * (double)x[i];
    return sum;
}

VlStatus vl_cpu_square_sum(VlContext *context, VlTensor sum, VlTensor x) {
    const float *values = x.data;
    int64_t elements = vl_elements(x), blocks = vl_divide_up(elements, LENGTH);
    double total = 0, partial[ROUND];
    for (int64_t first = 0; first < blocks; first += ROUND) {
        int64_t count = vl_minimum(ROUND, blocks - first);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, count *LENGTH))
        for (int64_t i = 0; i < count; i++) {
            int64_t start = (first + i) * LENGTH;
            partial[i] = sum_of_squares(values + start, vl_minimum(LENGTH, elements - start));
        }
        for (int64_t i = 0; i < count; i++) total += partial[i];
    }
    *(double *)sum.data = total;
    return VL_OK;
}
