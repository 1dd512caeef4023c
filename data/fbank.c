#include "data/fbank.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/memory.h"
#include "data/fft_lanes.h"

enum {
    POINTS = 512,
    HALF = POINTS / 2,
    WINDOW = VL_FBANK_WINDOW,
    SHIFT = VL_FBANK_SHIFT,
    BINS = VL_FBANK_BINS,
    WIDEST = 16
};

static const double PREEMPHASIS = 0.97, LOW_HZ = 20, HIGH_HZ = 8000, LEAST_ENERGY = 0x1p-23;

typedef struct Filter {
    int64_t first, count;  // bins of the spectrum
    double weight[WIDEST];
} Filter;

struct VlFbank {
    VlFftLanes fft;  // of 256 complex values: a frame's even and odd samples
    double window[WINDOW], roots[HALF][2];
    Filter filter[BINS];
};

#if defined(__x86_64__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

int64_t vl_fbank_frames(int64_t samples) { return samples < WINDOW ? 0 : 1 + (samples - WINDOW) / SHIFT; }

// The reference computes the triangles in f32, which shifts their weights by up to 1e-4: so do these.
static void fill_filter(Filter *filter, int64_t number) {
    double low = 1127.0 * log(1.0 + LOW_HZ / 700.0), high = 1127.0 * log(1.0 + HIGH_HZ / 700.0);
    float step = (float)((high - low) / (BINS + 1));
    float left = (float)low + (float)number * step;
    float middle = (float)low + ((float)number + 1.0f) * step;
    float right = (float)low + ((float)number + 2.0f) * step;
    for (int64_t k = 0; k < HALF; k++) {
        float mel = 1127.0f * logf(1.0f + (float)VL_FBANK_RATE / POINTS * (float)k / 700.0f);
        float up = (mel - left) / (middle - left), down = (right - mel) / (right - middle);
        float weight = up < down ? up : down;
        if (!(weight > 0)) continue;
        if (filter->count == 0) filter->first = k;
        filter->count = k + 1 - filter->first;
        VL_ASSERT(filter->count <= WIDEST);
        filter->weight[k - filter->first] = weight;
    }
}

VlStatus vl_fbank_create(VlFbank **fbank) {
    *fbank = NULL;
    VlFbank *made = NULL;
    VL_TRY(VL_NEW(&made, 1));
    VlStatus status;
    VL_TRY_GOTO(status, vl_fft_lanes_create(&made->fft, HALF), failed);
    for (int64_t i = 0; i < WINDOW; i++) {
        made->window[i] = pow(0.5 - 0.5 * cos(2 * M_PI * (double)i / (WINDOW - 1)), 0.85);
    }
    for (int64_t k = 0; k < HALF; k++) {
        made->roots[k][0] = cos(2 * M_PI * (double)k / POINTS);
        made->roots[k][1] = -sin(2 * M_PI * (double)k / POINTS);
    }
    for (int64_t i = 0; i < BINS; i++) fill_filter(&made->filter[i], i);
    *fbank = made;
    return VL_OK;
failed:
    vl_fbank_free(made);
    return status;
}

void vl_fbank_free(VlFbank *fbank) {
    if (!fbank) return;
    vl_fft_lanes_clear(&fbank->fft);
    vl_free(fbank);
}

static double mean_of(const double *samples) {
    VlLanes sum = {0};
    for (int64_t i = 0; i < WINDOW; i += VL_FFT_LANES) sum += *(const VlLanes *)(samples + i);
    double total = 0;
    for (int l = 0; l < VL_FFT_LANES; l++) total += sum[l];
    return total / WINDOW;
}

// Eight frames, side by side: x[i] gets their samples 2 i and 2 i + 1, ready for the transform.
VECTORISED static void shape_frames(const VlFbank *fbank, const double *const f[VL_FFT_LANES], double scale,
                                    VlLanesComplex *x) {
    VlLanes mean, before;
    for (int l = 0; l < VL_FFT_LANES; l++) {
        mean[l] = mean_of(f[l]);
        before[l] = f[l][0] - mean[l];
    }
    for (int64_t i = 0; i < WINDOW; i += 2) {
        VlLanes even = {f[0][i], f[1][i], f[2][i], f[3][i], f[4][i], f[5][i], f[6][i], f[7][i]};
        const int64_t j = i + 1;
        VlLanes odd = {f[0][j], f[1][j], f[2][j], f[3][j], f[4][j], f[5][j], f[6][j], f[7][j]};
        even -= mean;
        odd -= mean;
        x[i / 2].re = (even - PREEMPHASIS * before) * (fbank->window[i] * scale);
        x[i / 2].im = (odd - PREEMPHASIS * even) * (fbank->window[j] * scale);
        before = odd;
    }
    for (int64_t i = WINDOW / 2; i < HALF; i++) x[i] = (VlLanesComplex){{0}, {0}};
}

typedef int64_t Bits __attribute__((vector_size(VL_FFT_LANES * sizeof(int64_t)), aligned(8), may_alias));

// ln x of normal numbers above 0, within 1e-12: x = m 2^e with m between the roots of 1/2 and 2, and ln m as twice the
// series of the inverse hyperbolic tangent of (m - 1) / (m + 1).
static inline __attribute__((always_inline)) void take_logarithm(VlLanes *x) {
    const double shift = 0x1.8p52;  // adding it to a small whole number leaves that number in the low bits
    Bits bits = *(const Bits *)x, exponent = (bits - 0x3fe6a09e667f3bcd) >> 52;
    Bits mantissa_bits = bits - (exponent << 52), shifted = exponent + 0x4338000000000000;
    VlLanes m = *(const VlLanes *)&mantissa_bits, e = *(const VlLanes *)&shifted - shift;
    VlLanes t = (m - 1) / (m + 1), u = t * t;
    VlLanes sum = u * (1.0 / 13) + 1.0 / 11;
    sum = sum * u + 1.0 / 9;
    sum = sum * u + 1.0 / 7;
    sum = sum * u + 1.0 / 5;
    sum = sum * u + 1.0 / 3;
    *x = e * M_LN2 + 2 * t + 2 * t * u * sum;
}

// From the transform z of even + i odd samples: bin k = (z[k] + conj z[-k]) / 2 + w^k (z[k] - conj z[-k]) / 2i.
VECTORISED static void find_levels(const VlFbank *fbank, const VlLanesComplex *z, VlLanes *level) {
    VlLanes power[HALF], least = LEAST_ENERGY + (VlLanes){0};
    for (int64_t k = 0; k < HALF; k++) {
        const VlLanesComplex *a = &z[k], *b = &z[(HALF - k) % HALF];
        double c = fbank->roots[k][0], s = fbank->roots[k][1];
        VlLanes even_re = a->re + b->re, even_im = a->im - b->im, odd_re = a->im + b->im, odd_im = b->re - a->re;
        VlLanes re = even_re + c * odd_re - s * odd_im, im = even_im + c * odd_im + s * odd_re;
        power[k] = 0.25 * (re * re + im * im);
    }
    for (int64_t i = 0; i < BINS; i++) {
        const Filter *filter = &fbank->filter[i];
        VlLanes sum = {0};
        for (int64_t k = 0; k < filter->count; k++) sum += filter->weight[k] * power[filter->first + k];
        Bits enough = sum > least;
        Bits chosen = (*(const Bits *)&sum & enough) | (*(const Bits *)&least & ~enough);
        level[i] = *(const VlLanes *)&chosen;
        take_logarithm(&level[i]);
    }
}

static bool is_silent(const double *samples, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        if (samples[i] != 0) return false;
    }
    return true;
}

void vl_fbank_run(const VlFbank *fbank, const double *samples, int64_t count, double scale, float *out) {
    VlLanesComplex x[HALF], work[HALF];
    VlLanes level[BINS];
    const double *frame[VL_FFT_LANES];
    const double floor_level = log(LEAST_ENERGY);
    int64_t frames = vl_fbank_frames(count);
    for (int64_t begin = 0; begin < frames; begin += VL_FFT_LANES) {
        int64_t lanes = frames - begin < VL_FFT_LANES ? frames - begin : VL_FFT_LANES;
        float *row = out + begin * BINS;
        if (is_silent(samples + begin * SHIFT, (lanes - 1) * SHIFT + WINDOW)) {
            for (int64_t i = 0; i < lanes * BINS; i++) row[i] = (float)floor_level;
            continue;
        }
        for (int64_t l = 0; l < VL_FFT_LANES; l++) {
            frame[l] = samples + (begin + (l < lanes ? l : lanes - 1)) * SHIFT;
        }
        shape_frames(fbank, frame, scale, x);
        find_levels(fbank, vl_fft_lanes_run(&fbank->fft, x, work), level);
        for (int64_t i = 0; i < BINS; i++) {
            for (int64_t l = 0; l < lanes; l++) row[l * BINS + i] = (float)level[i][l];
        }
    }
}
