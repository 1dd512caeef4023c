// What the files that call FFmpeg share. Only included where the build has the media libraries.
#ifndef VL_DATA_MEDIA_FFMPEG_H
#define VL_DATA_MEDIA_FFMPEG_H

#include <stdint.h>

#include "base/status.h"

// FFmpeg's own messages go nowhere: failures are worded by the caller. To be called before any other FFmpeg call.
void vl_ffmpeg_silence(void);

// Sets the error "what: FFmpeg's text for `code`" and returns the status that suits the code: VL_OUT_OF_MEMORY,
// VL_IO for the system's refusals, VL_FORMAT for the rest.
VlStatus vl_ffmpeg_error(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
