#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

enum { TAPS = 9, CHANNELS = 256 };  // three image rows of so many channels fit in the second-level cache

// The 3x3 neighbourhood of a pixel in a slice of the channels, as f32. It slides along a row of the image: a step reads
// one new column of three pixels. Outside of the image it is zero.
typedef struct Window {
    VlTensor image;
    int64_t n, row, channel, count;
    const float *tap[TAPS];        // row by row
    float buffer[3][3][CHANNELS];  // [column % 3][row]
} Window;

static const float zeros[CHANNELS];

static void window_read_column(Window *window, int64_t column) {
    int64_t height = window->image.dim[1], width = window->image.dim[2], channels = window->image.dim[3];
    for (int64_t i = 0; i < 3; i++) {
        int64_t row = window->row + i - 1;
        bool inside = row >= 0 && row < height && column < width;
        int64_t start = ((window->n * height + row) * width + column) * channels + window->channel;
        window->tap[3 * i + 2] =
            inside ? vl_block_read(window->image, start, window->count, window->buffer[column % 3][i]) : zeros;
    }
}

// To the pixel before the first of a row of the image.
static void window_start(Window *window, int64_t n, int64_t row) {
    window->n = n;
    window->row = row;
    for (int64_t k = 0; k < TAPS; k++) window->tap[k] = zeros;
    window_read_column(window, 0);
}

// To the next pixel, whose right neighbour is in `column`.
static void window_step(Window *window, int64_t column) {
    for (int64_t i = 0; i < TAPS; i += 3) {
        window->tap[i] = window->tap[i + 1];
        window->tap[i + 1] = window->tap[i + 2];
    }
    window_read_column(window, column);
}

VL_VECTORISED static void convolve(float *y, const float *const *tap, const float (*w)[CHANNELS], int64_t count) {
    const float *x0 = tap[0], *x1 = tap[1], *x2 = tap[2], *x3 = tap[3], *x4 = tap[4], *x5 = tap[5], *x6 = tap[6],
                *x7 = tap[7], *x8 = tap[8];
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        y[i] = x0[i] * w[0][i] + x1[i] * w[1][i] + x2[i] * w[2][i] + x3[i] * w[3][i] + x4[i] * w[4][i] +
               x5[i] * w[5][i] + x6[i] * w[6][i] + x7[i] * w[7][i] + x8[i] * w[8][i];
    }
}

// y = the convolution of x with w, or with w turned by 180 degrees, in channels [c, c + count) of image n.
static void convolve_slice(VlTensor y, VlTensor x, VlTensor w, bool turned, int64_t n, int64_t c, int64_t count) {
    float weight[TAPS][CHANNELS], buffer[CHANNELS], taps[TAPS * CHANNELS];
    const float *from = vl_block_read(w, c * TAPS, count * TAPS, taps);
    for (int64_t i = 0; i < count; i++) {
        for (int64_t k = 0; k < TAPS; k++) weight[turned ? TAPS - 1 - k : k][i] = from[i * TAPS + k];
    }
    int64_t height = x.dim[1], width = x.dim[2], channels = x.dim[3];
    Window window = {.image = x, .channel = c, .count = count};
    for (int64_t row = 0; row < height; row++) {
        window_start(&window, n, row);
        for (int64_t column = 0; column < width; column++) {
            window_step(&window, column + 1);
            int64_t start = ((n * height + row) * width + column) * channels + c;
            float *to = vl_block_target(y, start, VL_WRITE, buffer);
            convolve(to, window.tap, (const float(*)[CHANNELS])weight, count);
            vl_block_write(y, start, count, VL_WRITE, to);
        }
    }
}

static void convolve_all(VlContext *context, VlTensor y, VlTensor x, VlTensor w, bool turned) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(vl_threads_for(context, vl_elements(x)))
    for (int64_t n = 0; n < x.dim[0]; n++) {
        for (int64_t c = 0; c < x.dim[3]; c += CHANNELS) {
            convolve_slice(y, x, w, turned, n, c, vl_minimum(CHANNELS, x.dim[3] - c));
        }
    }
}

VlStatus vl_cpu_depthwise3x3_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w) {
    convolve_all(context, y, x, w, false);
    return VL_OK;
}

VL_VECTORISED static void add_tap_products(float (*sum)[CHANNELS], const float *dy, const float *const *tap,
                                           int64_t count) {
    for (int64_t k = 0; k < TAPS; k++) {
        float *to = sum[k];
        const float *x = tap[k];
#pragma omp simd
        for (int64_t i = 0; i < count; i++) to[i] += dy[i] * x[i];
    }
}

// dw += the sum over all pixels of dy * x at the tap. A row of an image is summed first, to lose fewer digits.
static void weight_gradient(VlTensor dw, VlTensor dy, VlTensor x, int64_t c, int64_t count) {
    float sum[TAPS][CHANNELS] = {{0}}, row_sum[TAPS][CHANNELS], buffer[CHANNELS];
    int64_t height = x.dim[1], width = x.dim[2], channels = x.dim[3];
    Window window = {.image = x, .channel = c, .count = count};
    for (int64_t line = 0; line < x.dim[0] * height; line++) {
        memset(row_sum, 0, sizeof row_sum);
        window_start(&window, line / height, line % height);
        for (int64_t column = 0; column < width; column++) {
            window_step(&window, column + 1);
            int64_t start = (line * width + column) * channels + c;
            add_tap_products(row_sum, vl_block_read(dy, start, count, buffer), window.tap, count);
        }
        for (int64_t k = 0; k < TAPS; k++) {
            for (int64_t i = 0; i < count; i++) sum[k][i] += row_sum[k][i];
        }
    }
    float *to = (float *)dw.data + c * TAPS;
    for (int64_t i = 0; i < count; i++) {
        for (int64_t k = 0; k < TAPS; k++) to[i * TAPS + k] += sum[k][i];
    }
}

VlStatus vl_cpu_depthwise3x3_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor dy, VlTensor x,
                                      VlTensor w) {
    if (!vl_is_empty(dx)) convolve_all(context, dx, dy, w, true);
    if (!vl_is_empty(dw)) {
        int64_t channels = x.dim[3], width = vl_minimum(CHANNELS, vl_column_block(context, channels));
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(x)))
        for (int64_t c = 0; c < channels; c += width) {
            weight_gradient(dw, dy, x, c, vl_minimum(width, channels - c));
        }
    }
    return VL_OK;
}
