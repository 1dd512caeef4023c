// Sound in: of sound files (WAV, FLAC, MP3, Ogg with Vorbis or Opus, M4A, ..) at their own rate, and of videos as 16
// kHz mono, as the reference's two readers see it. Files are recognised by their content. A bad file ends in an error
// of one line that names it; the media libraries print nothing. A build without the media libraries has these functions
// too: they give VL_UNSUPPORTED and name the packages.
#ifndef VL_DATA_MEDIA_AUDIO_H
#define VL_DATA_MEDIA_AUDIO_H

#include <stdbool.h>
#include <stdint.h>

#include "data/media.h"

enum {
    VL_SOUND_HIGHEST_RATE = 384000,  // samples per second of a sound file
    VL_SOUND_TRACK_RATE = 16000,     // samples per second that a video's sound is brought to
    VL_SOUND_TRACK_HOURS = 4,        // of the longest sound track that is read
    VL_SOUND_WINDOW_AT_RANDOM = INT64_MIN,
};

typedef struct VlSoundWindow {
    int64_t seconds;  // length
    int64_t start;    // first sample, at the file's own rate; behind the last possible one: that one
    double draw;      // for start == VL_SOUND_WINDOW_AT_RANDOM: in [0, 1), which of the possible starts it is
} VlSoundWindow;

// Channel 0 of a sound file in [-1, 1], as libsndfile scales it: *samples = f64 [seconds * rate], padded with zeros,
// the caller's (vl_free). *rate is the file's own. No more than the window is ever in memory. Errors: VL_IO, VL_FORMAT
// (truncated, damaged, without sound), VL_INVALID (over a limit), VL_UNSUPPORTED.
VlStatus vl_sound_read_file(const char *path, const VlMediaOptions *options, const VlSoundWindow *window,
                            double **samples, int64_t *rate);

// The whole sound track of a video (or of a sound file), brought to one channel, 16 kHz and 16 bits by libswresample
// with its defaults: *samples = s16 [*count], the caller's (vl_free). Where the video has no sound track, or none that
// FFmpeg has a decoder for (a GIF or a folder of pictures never has one), *samples is NULL and *count 0. Errors: as
// above; VL_INVALID for a track of more than 4 hours.
VlStatus vl_sound_read_track(const char *path, const VlMediaOptions *options, int16_t **samples, int64_t *count);

#endif
