#include "data/fft.h"

#include <math.h>
#include <stddef.h>

#include "base/memory.h"
#include "data/fft_lanes.h"

enum { LOW_BITS = 10, LOW_ROOTS = 1 << LOW_BITS };

// points = rows * columns; element j of the input lies in row j / columns. Or, where `inner` is set, Bluestein's form.
struct VlFft {
    int64_t points, rows, columns;
    VlFftLanes down, across;  // of length `rows` and `columns`
    VlRoots roots;
    VlLanesComplex *block, *spare;  // eight columns or rows
    VlComplex *work;                // [points], of Bluestein's form [inner->points]

    VlFft *inner;
    VlComplex *chirp;     // [points]: exp(-pi i j^2 / points)
    VlComplex *response;  // [inner->points]: the transform of its conjugate, wrapped around, over inner->points
    VlComplex *spectrum;  // [inner->points]
};

static VlComplex multiply(VlComplex a, VlComplex b) {
    return (VlComplex){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

static VlComplex root(double turns) { return (VlComplex){cos(2 * M_PI * turns), -sin(2 * M_PI * turns)}; }

VlStatus vl_roots_create(VlRoots *roots, int64_t points) {
    int64_t highs = (points >> LOW_BITS) + 1;
    *roots = (VlRoots){0};
    VL_TRY(VL_NEW(&roots->low, LOW_ROOTS));
    VL_TRY(VL_NEW(&roots->high, highs));
    for (int64_t k = 0; k < LOW_ROOTS; k++) roots->low[k] = root((double)k / (double)points);
    for (int64_t k = 0; k < highs; k++) roots->high[k] = root((double)(k << LOW_BITS) / (double)points);
    return VL_OK;
}

void vl_roots_clear(VlRoots *roots) {
    vl_free(roots->low);
    vl_free(roots->high);
    *roots = (VlRoots){0};
}

VlComplex vl_roots_at(const VlRoots *roots, int64_t k) {
    return multiply(roots->high[k >> LOW_BITS], roots->low[k & (LOW_ROOTS - 1)]);
}

// ---- Rows and columns ------------------------------------------------------

static VlStatus create_matrix(VlFft *fft) {
    int64_t rows = (int64_t)sqrt((double)fft->points);
    while (fft->points % rows != 0) rows--;
    fft->rows = rows;
    fft->columns = fft->points / rows;
    VL_TRY(vl_fft_lanes_create(&fft->down, fft->rows));
    VL_TRY(vl_fft_lanes_create(&fft->across, fft->columns));
    VL_TRY(vl_roots_create(&fft->roots, fft->points));
    VL_TRY(VL_NEW(&fft->block, fft->columns));
    VL_TRY(VL_NEW(&fft->spare, fft->columns));
    return VL_NEW(&fft->work, fft->points);
}

// Transforms `lanes` columns from `column` on, and turns element k of column j by exp(-2 pi i j k / points).
static void run_columns(VlFft *fft, bool inverse, int64_t column, int lanes, const VlComplex *in) {
    VlLanesComplex *block = fft->block;
    for (int64_t j = 0; j < fft->rows; j++) {
        const VlComplex *row = in + j * fft->columns + column;
        for (int l = 0; l < lanes; l++) {
            block[j].re[l] = inverse ? row[l].im : row[l].re;
            block[j].im[l] = inverse ? row[l].re : row[l].im;
        }
    }
    block = vl_fft_lanes_run(&fft->down, block, fft->spare);
    for (int64_t k = 0; k < fft->rows; k++) {
        VlComplex *row = fft->work + k * fft->columns + column;
        for (int l = 0; l < lanes; l++) {
            VlComplex value = {block[k].re[l], block[k].im[l]};
            row[l] = multiply(value, vl_roots_at(&fft->roots, k * (column + l)));
        }
    }
}

// Transforms `lanes` rows from `row` on; element k of row j is number j + rows * k of the result.
static void run_rows(VlFft *fft, bool inverse, int64_t row, int lanes, VlComplex *out) {
    VlLanesComplex *block = fft->block;
    for (int l = 0; l < lanes; l++) {
        const VlComplex *values = fft->work + (row + l) * fft->columns;
        for (int64_t j = 0; j < fft->columns; j++) {
            block[j].re[l] = values[j].re;
            block[j].im[l] = values[j].im;
        }
    }
    block = vl_fft_lanes_run(&fft->across, block, fft->spare);
    for (int64_t k = 0; k < fft->columns; k++) {
        VlComplex *values = out + k * fft->rows + row;
        for (int l = 0; l < lanes; l++) {
            values[l].re = inverse ? block[k].im[l] : block[k].re[l];
            values[l].im = inverse ? block[k].re[l] : block[k].im[l];
        }
    }
}

static int lanes_from(int64_t first, int64_t count) {
    return count - first < VL_FFT_LANES ? (int)(count - first) : VL_FFT_LANES;
}

static void run_matrix(VlFft *fft, bool inverse, const VlComplex *in, VlComplex *out) {
    for (int64_t j = 0; j < fft->columns; j += VL_FFT_LANES) {
        run_columns(fft, inverse, j, lanes_from(j, fft->columns), in);
    }
    for (int64_t k = 0; k < fft->rows; k += VL_FFT_LANES) run_rows(fft, inverse, k, lanes_from(k, fft->rows), out);
}

// ---- Bluestein: j k = (j^2 + k^2 - (k - j)^2) / 2 makes the transform a convolution with a chirp --------------------

static int64_t smooth_length_from(int64_t least) {
    int64_t best = INT64_MAX;
    for (int64_t five = 1; five < 5 * least; five *= 5) {
        for (int64_t three = five; three < 3 * least; three *= 3) {
            int64_t length = three;
            while (length < least) length *= 2;
            if (length < best) best = length;
        }
    }
    return best;
}

static VlStatus create_chirp(VlFft *fft) {
    int64_t n = fft->points, length = smooth_length_from(2 * n - 1);
    VL_TRY(vl_fft_create(&fft->inner, length));
    VL_TRY(VL_NEW(&fft->chirp, n));
    VL_TRY(VL_NEW(&fft->response, length));
    VL_TRY(VL_NEW(&fft->spectrum, length));
    VL_TRY(VL_NEW(&fft->work, length));
    int64_t square = 0;  // j^2 modulo 2 n
    for (int64_t j = 0; j < n; j++) {
        fft->chirp[j] = root((double)square / (double)(2 * n));
        VlComplex opposite = {fft->chirp[j].re / (double)length, -fft->chirp[j].im / (double)length};
        fft->work[j] = opposite;
        if (j > 0) fft->work[length - j] = opposite;
        square = (square + 2 * j + 1) % (2 * n);
    }
    vl_fft_run(fft->inner, false, fft->work, fft->response);
    return VL_OK;
}

static void run_chirp(VlFft *fft, bool inverse, const VlComplex *in, VlComplex *out) {
    for (int64_t j = 0; j < fft->inner->points; j++) {
        VlComplex value = {0};
        if (j < fft->points) value = inverse ? (VlComplex){in[j].im, in[j].re} : in[j];
        fft->work[j] = j < fft->points ? multiply(value, fft->chirp[j]) : value;
    }
    vl_fft_run(fft->inner, false, fft->work, fft->spectrum);
    for (int64_t k = 0; k < fft->inner->points; k++) {
        fft->spectrum[k] = multiply(fft->spectrum[k], fft->response[k]);
    }
    vl_fft_run(fft->inner, true, fft->spectrum, fft->work);
    for (int64_t k = 0; k < fft->points; k++) {
        VlComplex value = multiply(fft->work[k], fft->chirp[k]);
        out[k] = inverse ? (VlComplex){value.im, value.re} : value;
    }
}

// ---- Both ------------------------------------------------------------------

VlStatus vl_fft_create(VlFft **fft, int64_t points) {
    *fft = NULL;
    bool smooth = points > 0 && vl_fft_lanes_rest(points) == 1;
    if (points < 1 || points > (smooth ? VL_FFT_MOST_POINTS : VL_FFT_MOST_POINTS / 4)) {
        return vl_error(
            VL_INVALID,
            "cannot transform %lld points: there must be 1 to %d, or a quarter of it with prime factors above %d",
            (long long)points, VL_FFT_MOST_POINTS, VL_FFT_LARGEST_RADIX);
    }
    VlFft *made = NULL;
    VL_TRY(VL_NEW(&made, 1));
    made->points = points;
    VlStatus status;
    VL_TRY_GOTO(status, (smooth ? create_matrix : create_chirp)(made), failed);
    *fft = made;
    return VL_OK;
failed:
    vl_fft_free(made);
    return status;
}

void vl_fft_free(VlFft *fft) {
    if (!fft) return;
    vl_fft_free(fft->inner);
    vl_fft_lanes_clear(&fft->down);
    vl_fft_lanes_clear(&fft->across);
    vl_roots_clear(&fft->roots);
    vl_free(fft->block);
    vl_free(fft->spare);
    vl_free(fft->work);
    vl_free(fft->chirp);
    vl_free(fft->response);
    vl_free(fft->spectrum);
    vl_free(fft);
}

void vl_fft_run(VlFft *fft, bool inverse, const VlComplex *in, VlComplex *out) {
    (fft->inner ? run_chirp : run_matrix)(fft, inverse, in, out);
}
