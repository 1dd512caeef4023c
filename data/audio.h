// A sound from its file to the filter banks that the audio tower sees, by the rules of the reference's audio branch
// (process_audio_file, process_audio_from_video).
#ifndef VL_DATA_AUDIO_H
#define VL_DATA_AUDIO_H

#include <stdbool.h>

#include "data/fbank.h"
#include "data/media_audio.h"

enum {
    VL_AUDIO_SECONDS = 30,                                // what a sample of the reference hears of its sound
    VL_AUDIO_SAMPLES = VL_AUDIO_SECONDS * VL_FBANK_RATE,  // at 16 kHz
    VL_AUDIO_FRAMES = 2998,                               // vl_fbank_frames(VL_AUDIO_SAMPLES)
    VL_AUDIO_CLIPS = 8,                                   // of a video's sound
    VL_AUDIO_CLIP_SAMPLES = 2 * VL_FBANK_RATE,
};

typedef enum VlAudioSource {
    VL_AUDIO_FILE,   // a sound file: channel 0, a window of 30 s, Fourier's resampling
    VL_AUDIO_VIDEO,  // the sound track of a video: 8 clips of 2 s, joined; as many as fit where `seconds` is below 16
} VlAudioSource;

typedef struct VlAudioOptions {
    VlAudioSource source;
    int64_t window_start;  // of a file, and its draw: as in VlSoundWindow
    double window_draw;
    bool clips_to_the_end;  // of a video: the clips' distance is (duration - 2 s) / 7, so that the last one ends with
                            // the sound, as in later versions of pytorchvideo; the reference divides by 8
    double seconds;  // in [1, 30], what is heard of the sound: it is cut or padded to that; 0: 30, the reference's
    bool bf16;       // filter banks are rounded to bfloat16, as the reference does before its audio tower
    VlMediaOptions media;
} VlAudioOptions;

// Samples at 16 kHz that `seconds` are, and rows of their filter bank: 480,000 and 2998 for 0 and for 30.
int64_t vl_audio_samples(double seconds);
int64_t vl_audio_rows(double seconds);

// Which window of a long file is taken when its options say VL_SOUND_WINDOW_AT_RANDOM: a draw in [0, 1) that depends on
// the name alone, so that every pack takes the same one.
double vl_audio_draw(const char *name);

// *samples = f64 [vl_audio_samples(options->seconds)] in [-1, 1] at 16 kHz, padded with zeros, the caller's (vl_free).
// *silent: the video has no sound track (or none that FFmpeg has a decoder for), and the samples are zeros.
// Errors: VL_INVALID for other seconds; those of data/media_audio.h and data/resample.h.
VlStatus vl_audio_read(const char *path, const VlAudioOptions *options, double **samples, bool *silent);

// The same as a filter bank before normalisation: values = f32 [vl_audio_rows(options->seconds), VL_FBANK_BINS], the
// caller's buffer.
VlStatus vl_audio_read_fbank(const VlFbank *fbank, const char *path, const VlAudioOptions *options, float *values,
                             bool *silent);

// First sample of each of `clips` clips (8 in the reference) of a track of `count` samples at 16 kHz: i (duration - 2
// s) / clips, or / (clips - 1) with clips_to_the_end, cut to whole samples in exact arithmetic of the f64 duration; 0
// for all where the track is shorter than 2 s.
void vl_audio_clip_starts(int64_t count, int64_t clips, bool clips_to_the_end, int64_t starts[VL_AUDIO_CLIPS]);

#endif
