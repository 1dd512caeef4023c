#include "data/image.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

enum { WEIGHT_BITS = 22, CHANNELS = 3 };

// The inner loops exist in a plain and an AVX2 version, chosen when the program starts; integers, so both agree.
#if defined(__x86_64__) && defined(__gnu_linux__)
#define VECTORISED __attribute__((target_clones("avx2", "default")))
#else
#define VECTORISED
#endif

// For each of `count` outputs of one direction: the inputs [begin, begin + taps) it takes and their weights.
typedef struct Axis {
    int64_t count, stride;  // weights of output i start at i * stride
    int64_t *begin, *taps;
    int32_t *weights;
} Axis;

struct VlResize {
    VlResizeShape shape;
    Axis across, down;
    int64_t first_row, rows;  // the rows of the source that the window needs
    uint8_t *line;            // one row of the canvas
    uint8_t *narrow;          // [rows, width, 3] after the horizontal pass
    uint8_t *fill_row;        // [width, 3]
    int32_t *sums;            // [width, 3]
};

VlStatus vl_image_allocate(VlImage *image, int64_t height, int64_t width) {
    int64_t pixels;
    *image = (VlImage){.height = height, .width = width};
    if (height < 1 || width < 1 || !vl_multiply(height, width, &pixels)) {
        return vl_error(VL_INVALID, "a picture of %lld x %lld pixels is not possible", (long long)width,
                        (long long)height);
    }
    return vl_allocate(&image->pixels, pixels, CHANNELS);
}

void vl_image_free(VlImage *image) {
    vl_free(image->pixels);
    *image = (VlImage){0};
}

static double cubic_kernel(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

// Outputs [first, first + count) of `in` pixels resized to `out`.
static VlStatus plan_axis(Axis *axis, int64_t in, int64_t out, int64_t first, int64_t count) {
    double scale = (double)in / (double)out, stretch = fmax(scale, 1.0), support = 2.0 * stretch;
    double *exact = NULL;
    VlStatus status;
    axis->count = count;
    axis->stride = 2 * (int64_t)ceil(support) + 1;
    VL_TRY_GOTO(status, VL_NEW(&axis->begin, count), done);
    VL_TRY_GOTO(status, VL_NEW(&axis->taps, count), done);
    int64_t weights;
    if (!vl_multiply(count, axis->stride, &weights)) {
        status = vl_error(VL_INVALID, "cannot resize %lld pixels to %lld", (long long)in, (long long)out);
        goto done;
    }
    VL_TRY_GOTO(status, VL_NEW(&axis->weights, weights), done);
    VL_TRY_GOTO(status, VL_NEW(&exact, axis->stride), done);
    for (int64_t i = 0; i < count; i++) {
        double centre = ((double)(first + i) + 0.5) * scale, sum = 0.0;
        int64_t begin = (int64_t)fmax(centre - support + 0.5, 0.0);
        int64_t end = (int64_t)(centre + support + 0.5);
        if (end > in) end = in;
        for (int64_t t = 0; t < end - begin; t++) {
            exact[t] = cubic_kernel(((double)(begin + t) - centre + 0.5) * (1.0 / stretch));
            sum += exact[t];
        }
        for (int64_t t = 0; t < end - begin; t++) {
            double weight = (sum != 0.0 ? exact[t] / sum : exact[t]) * (double)(1 << WEIGHT_BITS);
            axis->weights[i * axis->stride + t] = (int32_t)(weight < 0.0 ? weight - 0.5 : weight + 0.5);
        }
        axis->begin[i] = begin;
        axis->taps[i] = end - begin;
    }
done:
    vl_free(exact);
    return status;
}

static void free_axis(Axis *axis) {
    vl_free(axis->begin);
    vl_free(axis->taps);
    vl_free(axis->weights);
}

static bool is_possible(const VlResizeShape *s) {
    return s->source_height > 0 && s->source_width > 0 && s->canvas_height >= s->source_height &&
           s->canvas_width >= s->source_width && s->height > 0 && s->width > 0 && s->top >= 0 && s->left >= 0 &&
           s->top <= s->resized_height - s->height && s->left <= s->resized_width - s->width;
}

VlStatus vl_resize_create(VlResize **resize, const VlResizeShape *shape) {
    *resize = NULL;
    if (!is_possible(shape)) {
        return vl_error(VL_INVALID, "cannot resize %lld x %lld pixels to %lld x %lld and take %lld x %lld of it",
                        (long long)shape->source_width, (long long)shape->source_height,
                        (long long)shape->resized_width, (long long)shape->resized_height, (long long)shape->width,
                        (long long)shape->height);
    }
    VlResize *made = NULL;
    VL_TRY(VL_NEW(&made, 1));
    made->shape = *shape;
    VlStatus status;
    VL_TRY_GOTO(status, plan_axis(&made->across, shape->canvas_width, shape->resized_width, shape->left, shape->width),
                failed);
    VL_TRY_GOTO(status, plan_axis(&made->down, shape->canvas_height, shape->resized_height, shape->top, shape->height),
                failed);
    int64_t above = (shape->canvas_height - shape->source_height) / 2, last = shape->height - 1;
    int64_t first = made->down.begin[0] - above, end = made->down.begin[last] + made->down.taps[last] - above;
    if (first < 0) first = 0;
    if (end > shape->source_height) end = shape->source_height;
    made->first_row = first;
    made->rows = end > first ? end - first : 0;
    int64_t narrow;
    if (!vl_multiply(made->rows, CHANNELS * shape->width, &narrow)) {
        status = vl_error(VL_INVALID, "a picture of %lld rows cannot be resized", (long long)made->rows);
        goto failed;
    }
    // One byte over: the horizontal pass reads pixels four bytes at a time.
    VL_TRY_GOTO(status, VL_NEW(&made->line, CHANNELS * shape->canvas_width + 1), failed);
    VL_TRY_GOTO(status, VL_NEW(&made->narrow, narrow), failed);
    VL_TRY_GOTO(status, VL_NEW(&made->fill_row, CHANNELS * shape->width), failed);
    VL_TRY_GOTO(status, VL_NEW(&made->sums, CHANNELS * shape->width), failed);
    for (int64_t x = 0; x < shape->canvas_width; x++) memcpy(made->line + CHANNELS * x, shape->fill, CHANNELS);
    for (int64_t x = 0; x < shape->width; x++) memcpy(made->fill_row + CHANNELS * x, shape->fill, CHANNELS);
    *resize = made;
    return VL_OK;
failed:
    vl_resize_free(made);
    return status;
}

void vl_resize_free(VlResize *resize) {
    if (!resize) return;
    free_axis(&resize->across);
    free_axis(&resize->down);
    vl_free(resize->line);
    vl_free(resize->narrow);
    vl_free(resize->fill_row);
    vl_free(resize->sums);
    vl_free(resize);
}

static inline uint8_t round_to_level(int32_t sum) {
    int32_t level = sum >> WEIGHT_BITS;  // the half was added before
    return (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
}

// A pixel as a vector of three levels and one byte that does not matter.
typedef int32_t Sums __attribute__((vector_size(16)));
typedef uint8_t Levels __attribute__((vector_size(4)));

VECTORISED static void resize_line(const Axis *axis, const uint8_t *line, uint8_t *out) {
    const int32_t half = 1 << (WEIGHT_BITS - 1);
    for (int64_t i = 0; i < axis->count; i++) {
        const uint8_t *pixel = line + CHANNELS * axis->begin[i];
        const int32_t *weights = axis->weights + i * axis->stride;
        Sums sum = {half, half, half, 0};
        for (int64_t t = 0; t < axis->taps[i]; t++) {
            Levels levels;
            memcpy(&levels, pixel + CHANNELS * t, sizeof levels);
            sum += weights[t] * __builtin_convertvector(levels, Sums);
        }
        for (int c = 0; c < CHANNELS; c++) out[CHANNELS * i + c] = round_to_level(sum[c]);
    }
}

VECTORISED static void add_row(int32_t *restrict sums, const uint8_t *restrict row, int32_t weight, int64_t count) {
    for (int64_t i = 0; i < count; i++) sums[i] += weight * (int32_t)row[i];
}

VECTORISED static void round_row(uint8_t *restrict out, const int32_t *restrict sums, int64_t count) {
    for (int64_t i = 0; i < count; i++) out[i] = round_to_level(sums[i]);
}

void vl_resize_apply(VlResize *resize, const uint8_t *pixels, uint8_t *window) {
    const VlResizeShape *shape = &resize->shape;
    int64_t source_bytes = CHANNELS * shape->source_width, window_bytes = CHANNELS * shape->width;
    int64_t before = (shape->canvas_width - shape->source_width) / 2;
    int64_t above = (shape->canvas_height - shape->source_height) / 2 + resize->first_row;
    for (int64_t y = 0; y < resize->rows; y++) {
        memcpy(resize->line + CHANNELS * before, pixels + (resize->first_row + y) * source_bytes, (size_t)source_bytes);
        resize_line(&resize->across, resize->line, resize->narrow + y * window_bytes);
    }
    for (int64_t y = 0; y < shape->height; y++) {
        for (int64_t i = 0; i < window_bytes; i++) resize->sums[i] = 1 << (WEIGHT_BITS - 1);
        for (int64_t t = 0; t < resize->down.taps[y]; t++) {
            int64_t row = resize->down.begin[y] + t - above;
            bool inside = row >= 0 && row < resize->rows;
            add_row(resize->sums, inside ? resize->narrow + row * window_bytes : resize->fill_row,
                    resize->down.weights[y * resize->down.stride + t], window_bytes);
        }
        round_row(window + y * window_bytes, resize->sums, window_bytes);
    }
}
