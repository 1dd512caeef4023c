// Discrete Fourier transforms of any length, in f64. Lengths whose primes are at most 31 are computed as columns and
// rows of a matrix (one pass each over memory), the others through a convolution (Bluestein).
#ifndef VL_DATA_FFT_H
#define VL_DATA_FFT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct VlComplex {
    double re, im;
} VlComplex;

// exp(-2 pi i k / points) for any k in [0, points], within 3e-16, from tables of about points / 1024 + 1024 entries.
typedef struct VlRoots {
    VlComplex *low, *high;
} VlRoots;
VlStatus vl_roots_create(VlRoots *roots, int64_t points);
void vl_roots_clear(VlRoots *roots);
VlComplex vl_roots_at(const VlRoots *roots, int64_t k);

typedef struct VlFft VlFft;

enum { VL_FFT_MOST_POINTS = 12000000 };

// For transforms of `points` values: 1 to 12 million, or 3 million where a prime above 31 divides it. Memory: 16 bytes
// a point, 120 where a prime above 31 divides it. One thread at a time may use it. Errors: VL_INVALID,
// VL_OUT_OF_MEMORY.
VlStatus vl_fft_create(VlFft **fft, int64_t points);
void vl_fft_free(VlFft *fft);

// out[k] = sum over j of in[j] exp(-2 pi i j k / points); `inverse`: with +2 pi i. Neither divides. The buffers hold
// `points` values each and do not overlap.
void vl_fft_run(VlFft *fft, bool inverse, const VlComplex *in, VlComplex *out);

#endif
