// A sound from its file to the filter banks that the audio tower sees, by the rules of the reference's audio branch
// (process_audio_file, process_audio_from_video).
#ifndef VL_DATA_AUDIO_H
#define VL_DATA_AUDIO_H

#include <stdbool.h>

#include "data/fbank.h"
#include "data/media_audio.h"

enum {
    VL_AUDIO_SECONDS = 30,                                // what a sample sees of its sound
    VL_AUDIO_SAMPLES = VL_AUDIO_SECONDS * VL_FBANK_RATE,  // at 16 kHz
    VL_AUDIO_FRAMES = 2998,                               // vl_fbank_frames(VL_AUDIO_SAMPLES)
};

typedef enum VlAudioSource {
    VL_AUDIO_FILE,   // a sound file: channel 0, a window of 30 s, Fourier's resampling
    VL_AUDIO_VIDEO,  // the sound track of a video: 8 clips of 2 s, joined
} VlAudioSource;

typedef struct VlAudioOptions {
    VlAudioSource source;
    int64_t window_start;  // of a file, and its draw: as in VlSoundWindow
    double window_draw;
    bool clips_to_the_end;  // of a video: the clips' distance is (duration - 2 s) / 7, so that the last one ends with
                            // the sound, as in later versions of pytorchvideo; the reference divides by 8
    VlMediaOptions media;
} VlAudioOptions;

// *samples = f64 [VL_AUDIO_SAMPLES] in [-1, 1] at 16 kHz, padded with zeros, the caller's (vl_free). *silent: the video
// has no sound track (or none that FFmpeg has a decoder for), and the samples are zeros.
// Errors: those of data/media_audio.h and data/resample.h.
VlStatus vl_audio_read(const char *path, const VlAudioOptions *options, double **samples, bool *silent);

// The same as filter banks, before the reference's rounding to bfloat16 and before normalisation: values = f32
// [VL_AUDIO_FRAMES, VL_FBANK_BINS], the caller's buffer.
VlStatus vl_audio_read_fbank(const VlFbank *fbank, const char *path, const VlAudioOptions *options, float *values,
                             bool *silent);

// First sample of each of the 8 clips of a track of `count` samples at 16 kHz: i (duration - 2 s) / 8, or / 7, cut to
// whole samples in exact arithmetic of the f64 duration; 0 for all where the track is shorter than 2 s.
enum { VL_AUDIO_CLIPS = 8, VL_AUDIO_CLIP_SAMPLES = 2 * VL_FBANK_RATE };
void vl_audio_clip_starts(int64_t count, bool clips_to_the_end, int64_t starts[VL_AUDIO_CLIPS]);

#endif
