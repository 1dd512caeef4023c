// Media out, for the made world: RGB frames with optional sound as MP4 (H.264, AAC), pictures as PNG, sounds as FLAC.
// Single-threaded encoders with fixed settings and no dates or versions in the container, so that the same input gives
// the same file. Files appear complete or not at all; when all are written, vl_sync_file_system makes them safe.
#ifndef VL_DATA_MEDIA_WRITE_H
#define VL_DATA_MEDIA_WRITE_H

#include <stdint.h>

#include "base/status.h"

// Writes `frames` frames of u8 [frames, height, width, 3] at `fps` frames a second. H.264 in 4:2:0 with B-frames and a
// key frame every 12 frames (near-lossless, not lossless). Height and width are even. `sound`: `sound_samples` mono
// samples in [-1, 1] at `sound_rate` Hz, or NULL. The caller keeps all buffers.
// Errors: VL_INVALID (sizes, rates), VL_UNSUPPORTED (a build without the media libraries, or FFmpeg without libx264 or
// its AAC encoder), VL_IO.
VlStatus vl_media_write_video(const char *path, int64_t frames, int64_t height, int64_t width, const uint8_t *rgb,
                              double fps, const float *sound, int64_t sound_samples, int64_t sound_rate);

// Writes `samples` mono samples in [-1, 1] at `rate` Hz as 16-bit numbers, without further loss. Errors: as above.
VlStatus vl_media_write_sound(const char *path, const float *sound, int64_t samples, int64_t rate);

// Writes one picture, u8 [height, width, 3], without loss.
VlStatus vl_media_write_png(const char *path, int64_t height, int64_t width, const uint8_t *rgb);

#endif
