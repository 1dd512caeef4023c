// Change of the sampling rate by Fourier's series, as scipy.signal.resample does it.
#ifndef VL_DATA_RESAMPLE_H
#define VL_DATA_RESAMPLE_H

#include <stdint.h>

#include "base/status.h"

// Brings `n` samples to `m` samples over the same time: the spectrum is cut or extended by zeros. The signal counts as
// periodic; there is no filter and no delay. n is even: going up, the bin at its Nyquist frequency is halved; going
// down to an even m, the bin at the new one becomes twice its real part. out [m] is the caller's. Needs up to about 16
// n + 16 m bytes, 130 n or 70 m where a prime above 31 divides n or m. Errors: VL_INVALID, VL_OUT_OF_MEMORY.
VlStatus vl_resample(const double *in, int64_t n, double *out, int64_t m);

#endif
