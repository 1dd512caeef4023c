// Discrete Fourier transforms of eight signals side by side, in f64: the kernel under data/fft.h and data/fbank.h.
// Every vector holds the same element of eight signals, so that the transform needs no shuffles and any length
// vectorises.
#ifndef VL_DATA_FFT_LANES_H
#define VL_DATA_FFT_LANES_H

#include <stdint.h>

#include "base/status.h"

enum { VL_FFT_LANES = 8, VL_FFT_LARGEST_RADIX = 31 };

typedef double VlLanes __attribute__((vector_size(VL_FFT_LANES * sizeof(double)), aligned(8), may_alias));

typedef struct VlLanesComplex {
    VlLanes re, im;
} VlLanesComplex;

typedef struct VlFftLanes {
    int64_t points;
    int radices;
    int radix[64];
    double (*roots)[2];  // exp(-2 pi i k / points), real and imaginary part, for k = 0 .. points - 1
} VlFftLanes;

// A transform of `points` >= 1. Errors: VL_INVALID for a prime factor above VL_FFT_LARGEST_RADIX.
VlStatus vl_fft_lanes_create(VlFftLanes *fft, int64_t points);
void vl_fft_lanes_clear(VlFftLanes *fft);

// X[k] = sum over j of x[j] exp(-2 pi i j k / points), in each lane. x and work hold `points` elements each and are
// both overwritten; the return value is the one that holds the result.
VlLanesComplex *vl_fft_lanes_run(const VlFftLanes *fft, VlLanesComplex *x, VlLanesComplex *work);

// How far a prime factorisation into these radices gets: 1 when `points` has no larger prime factor.
int64_t vl_fft_lanes_rest(int64_t points);

#endif
