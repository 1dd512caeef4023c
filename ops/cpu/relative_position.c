// relative_bias and relative_gate: what biased_attention adds to its scores.
#include <math.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"
#include "ops/scratch_sound.h"

// ---- Bias ------------------------------------------------------------------

// The table's row for key - query = distance, in f32 as the reference computes it.
static int64_t find_bucket(int64_t distance, int64_t buckets, int64_t max_distance) {
    int64_t half = buckets / 2, exact = half / 2, start = distance > 0 ? half : 0;
    int64_t size = distance < 0 ? -distance : distance;
    if (size < exact) return start + size;
    float ratio = logf((float)size / (float)exact) / (float)log((double)max_distance / (double)exact);
    int64_t far = exact + (int64_t)(ratio * (float)(half - exact));
    return start + vl_minimum(far, half - 1);
}

VlStatus vl_cpu_relative_bias_forward(VlContext *context, VlTensor bias, VlTensor table, int64_t max_distance) {
    (void)context;
    int64_t heads = bias.dim[0], columns = bias.dim[1];
    for (int64_t column = 0; column < columns; column++) {
        int64_t bucket = find_bucket(columns / 2 - column, table.dim[0], max_distance);
        for (int64_t head = 0; head < heads; head++) {
            float buffer;
            ((float *)bias.data)[head * columns + column] = *vl_block_read(table, bucket * heads + head, 1, &buffer);
        }
    }
    return VL_OK;
}

VlStatus vl_cpu_relative_bias_backward(VlContext *context, VlTensor dtable, VlTensor dbias, int64_t max_distance) {
    (void)context;
    int64_t heads = dbias.dim[0], columns = dbias.dim[1];
    for (int64_t column = 0; column < columns; column++) {
        int64_t bucket = find_bucket(columns / 2 - column, dtable.dim[0], max_distance);
        for (int64_t head = 0; head < heads; head++) {
            ((float *)dtable.data)[bucket * heads + head] += ((const float *)dbias.data)[head * columns + column];
        }
    }
    return VL_OK;
}

// ---- Gate ------------------------------------------------------------------

enum { MOST_HEAD = VL_BLOCK };

// The sums of the first and of the last half of the rows of w, and of bias: the projection is summed over them.
typedef struct Halves {
    float w[2][MOST_HEAD], bias[2];
    int64_t rows, size;  // of a half; of a head
} Halves;

static void sum_halves(Halves *halves, VlTensor w, VlTensor bias) {
    float buffer[MOST_HEAD];
    *halves = (Halves){.rows = w.dim[0] / 2, .size = w.dim[1]};
    for (int64_t row = 0; row < w.dim[0]; row++) {
        float *to = halves->w[row / halves->rows];
        vl_block_sum(to, to, vl_block_read(w, row * halves->size, halves->size, buffer), halves->size);
        halves->bias[row / halves->rows] += *vl_block_read(bias, row, 1, buffer);
    }
}

VL_VECTORISED static float dot(const float *a, const float *b, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

// The two sigmoids of head `row` of q, seen as [T*H,D].
static void find_sigmoids(float sigmoids[2], const Halves *halves, VlTensor q, int64_t row) {
    float buffer[MOST_HEAD];
    const float *head = vl_block_read(q, row * halves->size, halves->size, buffer);
    for (int half = 0; half < 2; half++) {
        sigmoids[half] = vl_sigmoid(dot(head, halves->w[half], halves->size) + halves->bias[half]);
    }
}

VlStatus vl_cpu_relative_gate_forward(VlContext *context, VlTensor gate, VlTensor q, VlTensor w, VlTensor bias,
                                      VlTensor scale) {
    Halves halves;
    int64_t heads = gate.dim[1], rows = gate.dim[0] * heads;
    sum_halves(&halves, w, bias);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(q)))
    for (int64_t row = 0; row < rows; row++) {
        float s[2], buffer;
        find_sigmoids(s, &halves, q, row);
        ((float *)gate.data)[row] = s[0] * (s[1] * *vl_block_read(scale, row % heads, 1, &buffer) - 1.0f) + 2.0f;
    }
    return VL_OK;
}

VL_VECTORISED static void combine(float *dx, const float *a, float a_factor, const float *b, float b_factor,
                                  int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) dx[i] = a_factor * a[i] + b_factor * b[i];
}

// dq of every row; slopes[T*H,3] = the gradients of the two sums, and what the row gives to dscale.
static void gate_rows(VlContext *context, float *slopes, VlTensor dq, VlTensor dgate, VlTensor q, VlTensor scale,
                      const Halves *halves, VlMode mode) {
    int64_t heads = dgate.dim[1], rows = dgate.dim[0] * heads, size = halves->size;
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(q)))
    for (int64_t row = 0; row < rows; row++) {
        float s[2], buffer[MOST_HEAD], *slope = slopes + row * 3;
        float factor = *vl_block_read(scale, row % heads, 1, buffer), d = ((const float *)dgate.data)[row];
        find_sigmoids(s, halves, q, row);
        slope[0] = d * (s[1] * factor - 1.0f) * s[0] * (1.0f - s[0]);
        slope[1] = d * s[0] * factor * s[1] * (1.0f - s[1]);
        slope[2] = d * s[0] * s[1];
        if (vl_is_empty(dq)) continue;
        float *to = vl_block_target(dq, row * size, mode, buffer);
        combine(to, halves->w[0], slope[0], halves->w[1], slope[1], size);
        vl_block_write(dq, row * size, size, mode, to);
    }
}

// Sums over all rows, in f64 in their order; each row of a half of w has the same gradient.
static void add_weight_gradients(VlTensor dw, VlTensor dbias, const float *slopes, VlTensor q, const Halves *halves) {
    int64_t size = halves->size, rows = vl_elements(q) / size;
    for (int half = 0; half < 2; half++) {
        double sum[MOST_HEAD] = {0}, bias = 0;
        float buffer[MOST_HEAD];
        for (int64_t row = 0; row < rows; row++) {
            const float *head = vl_block_read(q, row * size, size, buffer);
            double slope = (double)slopes[row * 3 + half];
            for (int64_t i = 0; i < size; i++) sum[i] += slope * (double)head[i];
            bias += slope;
        }
        for (int64_t row = half * halves->rows; row < (half + 1) * halves->rows; row++) {
            for (int64_t i = 0; i < size && !vl_is_empty(dw); i++) ((float *)dw.data)[row * size + i] += (float)sum[i];
            if (!vl_is_empty(dbias)) ((float *)dbias.data)[row] += (float)bias;
        }
    }
}

static void add_scale_gradient(VlTensor dscale, const float *slopes, int64_t rows) {
    int64_t heads = vl_elements(dscale);
    for (int64_t head = 0; head < heads; head++) {
        double sum = 0;
        for (int64_t row = head; row < rows; row += heads) sum += (double)slopes[row * 3 + 2];
        ((float *)dscale.data)[head] += (float)sum;
    }
}

VlStatus vl_cpu_relative_gate_backward(VlContext *context, VlTensor dq, VlTensor dw, VlTensor dbias, VlTensor dscale,
                                       VlTensor dgate, VlTensor q, VlTensor w, VlTensor bias, VlTensor scale,
                                       VlMode mode) {
    Halves halves;
    int64_t mark = vl_arena_mark(&context->scratch);
    VlRelativeGate scratch;
    VL_TRY(vl_scratch_relative_gate(context, &scratch, dgate, w));
    float *slopes = scratch.slopes.data;
    sum_halves(&halves, w, bias);
    gate_rows(context, slopes, dq, dgate, q, scale, &halves, mode);
    if (!vl_is_empty(dw) || !vl_is_empty(dbias)) add_weight_gradients(dw, dbias, slopes, q, &halves);
    if (!vl_is_empty(dscale)) add_scale_gradient(dscale, slopes, vl_elements(dgate));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}
