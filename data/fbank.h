// Log mel filter banks of 16 kHz sound, as torchaudio.compliance.kaldi.fbank(num_mel_bins=128, frame_length=25,
// frame_shift=10, dither 0) computes them.
#ifndef VL_DATA_FBANK_H
#define VL_DATA_FBANK_H

#include <stdint.h>

#include "base/sound.h"
#include "base/status.h"

enum {
    VL_FBANK_RATE = 16000,  // samples per second
    VL_FBANK_WINDOW = 400,  // samples of a frame
    VL_FBANK_SHIFT = 160,   // samples from one frame to the next
};

typedef struct VlFbank VlFbank;

// Window, roots and filters; read only afterwards, so threads may share it.
VlStatus vl_fbank_create(VlFbank **fbank);
void vl_fbank_free(VlFbank *fbank);

// Frames that lie wholly inside `samples` samples: 1 + (samples - 400) / 160, or 0.
int64_t vl_fbank_frames(int64_t samples);

// out = f32 [vl_fbank_frames(samples), 128] of the samples times `scale`. Per frame, in f64: the mean is taken away,
// each sample loses 0.97 of the one before (the first of itself), times Hann's window to the power of 0.85, power
// spectrum of 512 points, triangles that are linear in mel, logarithm of at least 2^-23.
void vl_fbank_run(const VlFbank *fbank, const double *samples, int64_t count, double scale, float *out);

#endif
