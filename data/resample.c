#include "data/resample.h"

#include <stddef.h>

#include "base/memory.h"
#include "data/fft.h"

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// A real signal of n samples as n / 2 complex ones has the transform z; bin k, up to n / 2, of the signal's own.
static VlComplex real_bin(const VlComplex *z, int64_t n, const VlRoots *roots, int64_t k) {
    int64_t half = n / 2;
    VlComplex a = z[k % half], b = z[(half - k) % half], w = vl_roots_at(roots, k);
    VlComplex even = {(a.re + b.re) / 2, (a.im - b.im) / 2}, odd = {(a.im + b.im) / 2, (b.re - a.re) / 2};
    return (VlComplex){even.re + w.re * odd.re - w.im * odd.im, even.im + w.re * odd.im + w.im * odd.re};
}

// The first min(n, m) / 2 + 1 bins of the signal, over n, as the m new samples need them.
static VlStatus find_spectrum(const double *in, int64_t n, int64_t m, VlComplex *bins) {
    VlFft *fft = NULL;
    VlComplex *z = NULL;
    VlRoots roots = {0};
    VlStatus status;
    int64_t least = smaller(n, m), last = least / 2;
    VL_TRY_GOTO(status, vl_fft_create(&fft, n / 2), done);
    VL_TRY_GOTO(status, vl_roots_create(&roots, n), done);
    VL_TRY_GOTO(status, VL_NEW(&z, n / 2), done);
    vl_fft_run(fft, false, (const VlComplex *)in, z);
    for (int64_t k = 0; k <= last; k++) {
        VlComplex bin = real_bin(z, n, &roots, k);
        bins[k] = (VlComplex){bin.re / (double)n, bin.im / (double)n};
    }
    if (n < m) bins[last].re *= 0.5;
    if (m < n && m % 2 == 0) bins[last].re *= 2;
    bins[0].im = 0;
    if (least % 2 == 0) bins[last].im = 0;
done:
    vl_roots_clear(&roots);
    vl_free(z);
    vl_fft_free(fft);
    return status;
}

static VlComplex bin_or_zero(const VlComplex *bins, int64_t count, int64_t k) {
    return k < count ? bins[k] : (VlComplex){0};
}

// Puts the bins where a transform of `points` complex values turns them into m samples: m / 2 pairs of samples when m
// is even, else m samples in the real parts.
static void place_bins(const VlComplex *bins, int64_t count, int64_t m, const VlRoots *roots, VlComplex *z) {
    int64_t half = m / 2;
    for (int64_t k = 0; m % 2 == 0 && k < half; k++) {
        VlComplex a = bin_or_zero(bins, count, k), b = bin_or_zero(bins, count, half - k), w = vl_roots_at(roots, k);
        VlComplex odd = {a.re - b.re, a.im + b.im};  // times i / w, which is i times the conjugate of w
        z[k].re = a.re + b.re + w.im * odd.re - w.re * odd.im;
        z[k].im = a.im - b.im + w.re * odd.re + w.im * odd.im;
    }
    for (int64_t k = 0; m % 2 == 1 && k < m; k++) {
        VlComplex bin = bin_or_zero(bins, count, k <= half ? k : m - k);
        z[k] = (VlComplex){bin.re, k <= half ? bin.im : -bin.im};
    }
}

static VlStatus find_samples(const VlComplex *bins, int64_t count, double *out, int64_t m) {
    VlFft *fft = NULL;
    VlComplex *z = NULL, *samples = NULL;
    VlRoots roots = {0};
    VlStatus status;
    int64_t points = m % 2 == 0 ? m / 2 : m;
    VL_TRY_GOTO(status, vl_fft_create(&fft, points), done);
    VL_TRY_GOTO(status, vl_roots_create(&roots, m), done);
    VL_TRY_GOTO(status, VL_NEW(&z, points), done);
    place_bins(bins, count, m, &roots, z);
    if (m % 2 == 0) {
        vl_fft_run(fft, true, z, (VlComplex *)out);
    } else {
        VL_TRY_GOTO(status, VL_NEW(&samples, points), done);
        vl_fft_run(fft, true, z, samples);
        for (int64_t i = 0; i < m; i++) out[i] = samples[i].re;
    }
done:
    vl_roots_clear(&roots);
    vl_free(samples);
    vl_free(z);
    vl_fft_free(fft);
    return status;
}

VlStatus vl_resample(const double *in, int64_t n, double *out, int64_t m) {
    VlComplex *bins = NULL;
    if (n < 2 || n % 2 != 0 || m < 1) {
        return vl_error(VL_INVALID, "cannot bring %lld samples to %lld: the first number must be even, both above 0",
                        (long long)n, (long long)m);
    }
    int64_t count = smaller(n, m) / 2 + 1;
    VL_TRY(VL_NEW(&bins, count));
    VlStatus status = find_spectrum(in, n, m, bins);
    if (status == VL_OK) status = find_samples(bins, count, out, m);
    vl_free(bins);
    return status;
}
