#include "data/image.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

enum { WEIGHT_BITS = 22, CHANNELS = 3, GROUP = 4 };

// The inner loops exist in a plain and an AVX2 version, chosen when the program starts; integers, so both agree.
#if defined(__x86_64__) && defined(__gnu_linux__)
#define VECTORISED __attribute__((target_clones("avx2", "default")))
#else
#define VECTORISED
#endif

// For each of `count` outputs of one direction: the inputs [begin, begin + taps) of the source that it takes, their
// weights, and the sum of the weights that fall on the canvas around the source.
typedef struct Axis {
    int64_t count, stride;  // weights of output i start at i * stride
    int64_t *begin, *taps;
    int32_t *weights, *outside;
} Axis;

// A pixel's levels or sums, and a fourth that does not matter.
typedef int32_t Pixel __attribute__((vector_size(16)));
typedef uint8_t Bytes __attribute__((vector_size(16)));

struct VlResize {
    VlResizeShape shape;
    Axis across, down;
    int64_t first_row, rows;  // the rows of the source that the window needs
    uint8_t *row;             // one row of the source, with room behind it
    Pixel *line;              // the same, widened
    uint8_t *narrow;          // [rows, width, 3] after the horizontal pass
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

// One output's weights on the canvas, normalised and rounded; *begin and *count say where they stand.
static void canvas_weights(double centre, double support, int64_t canvas, double *exact, int32_t *weights,
                           int64_t *begin, int64_t *count) {
    double stretch = support / 2.0, sum = 0.0;
    int64_t end = (int64_t)(centre + support + 0.5);
    *begin = (int64_t)fmax(centre - support + 0.5, 0.0);
    if (end > canvas) end = canvas;
    *count = end - *begin;
    for (int64_t t = 0; t < *count; t++) {
        exact[t] = cubic_kernel(((double)(*begin + t) - centre + 0.5) * (1.0 / stretch));
        sum += exact[t];
    }
    for (int64_t t = 0; t < *count; t++) {
        double weight = (sum != 0.0 ? exact[t] / sum : exact[t]) * (double)(1 << WEIGHT_BITS);
        weights[t] = (int32_t)(weight < 0.0 ? weight - 0.5 : weight + 0.5);
    }
}

// Outputs [first, first + count) of a canvas resized to `out`, in whose middle the source stands.
static VlStatus plan_axis(Axis *axis, int64_t source, int64_t canvas, int64_t out, int64_t first, int64_t count) {
    double scale = (double)canvas / (double)out, support = 2.0 * fmax(scale, 1.0);
    int64_t before = (canvas - source) / 2, stride = 2 * (int64_t)ceil(support) + 1, total;
    double *exact = NULL;
    int32_t *all = NULL;
    VlStatus status;
    axis->count = count;
    axis->stride = stride < source ? stride : source;
    if (!vl_multiply(count, axis->stride, &total)) {
        return vl_error(VL_INVALID, "cannot resize %lld pixels to %lld", (long long)canvas, (long long)out);
    }
    VL_TRY_GOTO(status, VL_NEW(&axis->begin, count), done);
    VL_TRY_GOTO(status, VL_NEW(&axis->taps, count), done);
    VL_TRY_GOTO(status, VL_NEW(&axis->outside, count), done);
    VL_TRY_GOTO(status, VL_NEW(&axis->weights, total), done);
    VL_TRY_GOTO(status, VL_NEW(&exact, stride), done);
    VL_TRY_GOTO(status, VL_NEW(&all, stride), done);
    for (int64_t i = 0; i < count; i++) {
        int64_t begin, taps, inside = 0;
        canvas_weights(((double)(first + i) + 0.5) * scale, support, canvas, exact, all, &begin, &taps);
        for (int64_t t = 0; t < taps; t++) {
            int64_t at = begin + t - before;
            if (at < 0 || at >= source) {
                axis->outside[i] += all[t];
            } else {
                if (inside == 0) axis->begin[i] = at;
                axis->weights[i * axis->stride + inside++] = all[t];
            }
        }
        axis->taps[i] = inside;
    }
done:
    vl_free(exact);
    vl_free(all);
    return status;
}

static void free_axis(Axis *axis) {
    vl_free(axis->begin);
    vl_free(axis->taps);
    vl_free(axis->weights);
    vl_free(axis->outside);
}

static bool is_possible(const VlResizeShape *s) {
    return s->source_height > 0 && s->source_width > 0 && s->canvas_height >= s->source_height &&
           s->canvas_width >= s->source_width && s->height > 0 && s->width > 0 && s->top >= 0 && s->left >= 0 &&
           s->top <= s->resized_height - s->height && s->left <= s->resized_width - s->width;
}

// The rows of the source that any output takes.
static void find_rows(VlResize *resize) {
    const Axis *down = &resize->down;
    int64_t first = resize->shape.source_height, end = 0;
    for (int64_t i = 0; i < down->count; i++) {
        if (down->taps[i] == 0) continue;
        if (down->begin[i] < first) first = down->begin[i];
        if (down->begin[i] + down->taps[i] > end) end = down->begin[i] + down->taps[i];
    }
    resize->first_row = first < end ? first : 0;
    resize->rows = first < end ? end - first : 0;
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
    VL_TRY_GOTO(status,
                plan_axis(&made->across, shape->source_width, shape->canvas_width, shape->resized_width, shape->left,
                          shape->width),
                failed);
    VL_TRY_GOTO(status,
                plan_axis(&made->down, shape->source_height, shape->canvas_height, shape->resized_height, shape->top,
                          shape->height),
                failed);
    find_rows(made);
    int64_t narrow;
    if (!vl_multiply(made->rows, CHANNELS * shape->width, &narrow)) {
        status = vl_error(VL_INVALID, "a picture of %lld rows cannot be resized", (long long)made->rows);
        goto failed;
    }
    VL_TRY_GOTO(status, VL_NEW(&made->row, CHANNELS * shape->source_width + (int64_t)sizeof(Bytes)), failed);
    VL_TRY_GOTO(status, VL_NEW(&made->line, shape->source_width + GROUP), failed);
    VL_TRY_GOTO(status, VL_NEW(&made->narrow, narrow), failed);
    VL_TRY_GOTO(status, VL_NEW(&made->sums, CHANNELS * shape->width), failed);
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
    vl_free(resize->row);
    vl_free(resize->line);
    vl_free(resize->narrow);
    vl_free(resize->sums);
    vl_free(resize);
}

static inline uint8_t round_to_level(int32_t sum) {
    int32_t level = sum >> WEIGHT_BITS;  // the half was added before
    return (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
}

static const int32_t HALF = 1 << (WEIGHT_BITS - 1);

// Sixteen bytes hold four pixels and more; each becomes a vector of its own. Rows have room for a last, partial group.
VECTORISED static void widen_line(const uint8_t *row, Pixel *line, int64_t width) {
    const Bytes first = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2};
    for (int64_t x = 0; x < width; x += GROUP) {
        Bytes bytes;
        memcpy(&bytes, row + CHANNELS * x, sizeof bytes);
        for (int k = 0; k < GROUP; k++) {
            line[x + k] = (Pixel)__builtin_shuffle(bytes, first + (uint8_t)(CHANNELS * k)) & 255;
        }
    }
}

VECTORISED static void resize_line(const Axis *axis, const uint8_t *fill, const Pixel *line, uint8_t *out) {
    const Pixel around = {fill[0], fill[1], fill[2], 0};
    for (int64_t i = 0; i < axis->count; i++) {
        const Pixel *pixels = line + axis->begin[i];
        const int32_t *weights = axis->weights + i * axis->stride;
        const int64_t taps = axis->taps[i];
        Pixel sum = HALF + axis->outside[i] * around;
        for (int64_t t = 0; t < taps; t++) sum += weights[t] * pixels[t];
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
    const Axis *down = &resize->down;
    int64_t source_bytes = CHANNELS * shape->source_width, window_bytes = CHANNELS * shape->width;
    for (int64_t y = 0; y < resize->rows; y++) {
        memcpy(resize->row, pixels + (resize->first_row + y) * source_bytes, (size_t)source_bytes);
        widen_line(resize->row, resize->line, shape->source_width);
        resize_line(&resize->across, shape->fill, resize->line, resize->narrow + y * window_bytes);
    }
    for (int64_t y = 0; y < shape->height; y++) {
        for (int64_t i = 0; i < window_bytes; i++) {
            resize->sums[i] = HALF + down->outside[y] * (int32_t)shape->fill[i % CHANNELS];
        }
        const uint8_t *rows = resize->narrow + (down->begin[y] - resize->first_row) * window_bytes;
        for (int64_t t = 0; t < down->taps[y]; t++) {
            add_row(resize->sums, rows + t * window_bytes, down->weights[y * down->stride + t], window_bytes);
        }
        round_row(window + y * window_bytes, resize->sums, window_bytes);
    }
}
