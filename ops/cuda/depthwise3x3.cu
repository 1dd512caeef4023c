#include "ops/cuda/rows.cuh"

extern "C" {
#include "ops/scratch_spatial.h"
}

// A thread has N channels and slides along a row of the image: 4 of them, as three by three weights of each must
// fit in registers.
enum { TAPS = 9, QUAD = 4, SUM_THREADS = 256 };

struct Image {
    int64_t lines, height, width, channels;  // lines: rows of all images
};

static Image describe(VlTensor x) { return {x.dim[0] * x.dim[1], x.dim[1], x.dim[2], x.dim[3]}; }

// As with_groups, for quads.
template <class Function>
static VlStatus with_quads(VlTensor a, VlTensor b, int64_t channels, Function function) {
    uintptr_t size = (uintptr_t)(QUAD * vl_dtype_size(a.dtype));
    bool fit = channels % QUAD == 0 && (uintptr_t)a.data % size == 0 && (uintptr_t)b.data % size == 0;
    return with_type(a.dtype,
                     [&](auto type) { return with_groups_of<QUAD>(fit, [&](auto n) { return function(type, n); }); });
}

// Three neighbours down a column of the image, the middle one in `line`; zero outside of the image.
template <class T, int N>
static __device__ __forceinline__ void load_column(Floats<N> (&pixels)[3], const T *x, const Image &image, int64_t line,
                                                   int64_t row, int64_t column, int64_t c) {
    for (int i = 0; i < 3; i++) {
        bool inside = row + i - 1 >= 0 && row + i - 1 < image.height;
        pixels[i] = {};
        if (inside) pixels[i] = load_floats<N>(x + ((line + i - 1) * image.width + column) * image.channels + c);
    }
}

// sum += the products of a column of pixels with a column of the weights.
template <int N>
static __device__ __forceinline__ void convolve(Floats<N> &sum, const Floats<N> (&pixels)[3],
                                                const Floats<N> (&weights)[TAPS], int column) {
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < N; k++) sum.at[k] += pixels[i].at[k] * weights[3 * i + column].at[k];
    }
}

// y = the convolution of x with w, or with w turned by 180 degrees. A column of pixels goes to three sums: those of the
// pixel before it, of its own and of the next.
template <class T, int N, bool TURNED>
static __global__ void convolve_kernel(T *y, const T *x, const T *w, Image image) {
    int64_t line = grid_row();
    if (line >= image.lines || image.width == 0) return;
    for (int64_t c = first_column<N>(); c < image.channels; c += column_step<N>()) {
        Floats<N> weights[TAPS], before = {}, here = {};
        for (int tap = 0; tap < TAPS; tap++) {
            for (int k = 0; k < N; k++) {
                weights[TURNED ? TAPS - 1 - tap : tap].at[k] = to_float(w[(c + k) * TAPS + tap]);
            }
        }
        T *to = y + line * image.width * image.channels + c;
        for (int64_t column = 0; column < image.width; column++) {
            Floats<N> pixels[3], next = {};
            load_column(pixels, x, image, line, line % image.height, column, c);
            convolve(before, pixels, weights, 2);
            convolve(here, pixels, weights, 1);
            convolve(next, pixels, weights, 0);
            if (column > 0) store_floats(to + (column - 1) * image.channels, before);
            before = here;
            here = next;
        }
        store_floats(to + (image.width - 1) * image.channels, before);
    }
}

template <bool TURNED>
static VlStatus convolve_all(VlContext *context, VlTensor y, VlTensor x, VlTensor w) {
    Image image = describe(x);
    return with_quads(y, x, image.channels, [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(image.lines, image.channels, n);
        return launch(context, convolve_kernel<T, n, TURNED>, grid.grid, grid.block, 0, data_of<T>(y), data_of<T>(x),
                      data_of<T>(w), image);
    });
}

VlStatus vl_cuda_depthwise3x3_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w) {
    return convolve_all<false>(context, y, x, w);
}

// sums += the products of dy with the nine neighbours in x, along one line. A column of pixels of x meets three
// gradients: that of the pixel after it (whose first column of taps it is), of its own and of the one before.
template <class T, int N>
static __device__ __forceinline__ void add_line(Floats<N> (&sums)[TAPS], const T *dy, const T *x, const Image &image,
                                                int64_t line, int64_t c) {
    const T *from = dy + line * image.width * image.channels + c;
    Floats<N> gradients[3] = {};  // after, own, before
    gradients[0] = load_floats<N>(from);
    for (int64_t column = 0; column < image.width; column++) {
        Floats<N> pixels[3];
        load_column(pixels, x, image, line, line % image.height, column, c);
        gradients[2] = gradients[1];
        gradients[1] = gradients[0];
        gradients[0] = {};
        if (column + 1 < image.width) gradients[0] = load_floats<N>(from + (column + 1) * image.channels);
        for (int tap = 0; tap < TAPS; tap++) {
            for (int k = 0; k < N; k++) sums[tap].at[k] += gradients[tap % 3].at[k] * pixels[tap / 3].at[k];
        }
    }
}

// parts[part, tap, channel]: the sums over `length` lines.
template <class T, int N>
static __global__ void parts_kernel(float *parts, const T *dy, const T *x, Image image, int64_t count, int64_t length) {
    int64_t part = grid_row(), end = (part + 1) * length;
    if (part >= count) return;
    if (end > image.lines) end = image.lines;
    for (int64_t c = first_column<N>(); c < image.channels; c += column_step<N>()) {
        Floats<N> sums[TAPS] = {};
        for (int64_t line = part * length; line < end; line++) add_line(sums, dy, x, image, line, c);
        for (int tap = 0; tap < TAPS; tap++) store_floats(parts + (part * TAPS + tap) * image.channels + c, sums[tap]);
    }
}

static __global__ void sum_kernel(float *dw, const float *parts, int64_t count, int64_t channels) {
    int64_t at = grid_index();
    if (at >= TAPS * channels) return;
    double sum = 0;
    for (int64_t part = 0; part < count; part++) sum += (double)parts[part * TAPS * channels + at];
    dw[at % channels * TAPS + at / channels] += (float)sum;
}

static VlStatus add_weight_gradient(VlContext *context, VlTensor dw, VlTensor dy, VlTensor x) {
    Image image = describe(x);
    if (vl_elements(x) == 0) return VL_OK;
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor parts;
    VL_TRY(vl_scratch_depthwise3x3(context, &parts, x));
    int64_t count = parts.dim[0], length = (image.lines + count - 1) / count;
    VlStatus status = with_quads(dy, x, image.channels, [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(count, image.channels, n);
        return launch(context, parts_kernel<T, n>, grid.grid, grid.block, 0, data_of<float>(parts), data_of<T>(dy),
                      data_of<T>(x), image, count, length);
    });
    if (status == VL_OK) {
        status = launch(context, sum_kernel, blocks_for(TAPS * image.channels, SUM_THREADS, INT32_MAX),
                        dim3(SUM_THREADS), 0, data_of<float>(dw), data_of<float>(parts), count, image.channels);
    }
    vl_arena_release(&context->scratch, mark);
    return status;
}

VlStatus vl_cuda_depthwise3x3_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor dy, VlTensor x,
                                       VlTensor w) {
    if (!vl_is_empty(dx)) VL_TRY(convolve_all<true>(context, dx, dy, w));
    if (!vl_is_empty(dw)) VL_TRY(add_weight_gradient(context, dw, dy, x));
    return VL_OK;
}
