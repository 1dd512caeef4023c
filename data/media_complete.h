// Whether a video file is all there, as far as its container tells: FFmpeg's demuxers take the end of a cut file for
// the end of the video.
#ifndef VL_DATA_MEDIA_COMPLETE_H
#define VL_DATA_MEDIA_COMPLETE_H

#include "base/files.h"

// Recognises the container by its first bytes and refuses (VL_FORMAT) a file that is shorter than its headers say or
// whose last unit is cut, and an Ogg, Matroska or Flash file whose units do not follow one another. Containers that are
// not known here pass. `deadline` as in data/media_decoder.h.
VlStatus vl_media_check_complete(const char *path, double deadline);

// The part for Ogg.
VlStatus vl_ogg_check_complete(const VlReader *file, double deadline);

#endif
