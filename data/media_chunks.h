// Whether a file that consists of chunks was cut: WAV, AVI (RIFF and RF64), Wave64, CAF and MP4.
#ifndef VL_DATA_MEDIA_CHUNKS_H
#define VL_DATA_MEDIA_CHUNKS_H

#include "base/status.h"

// VL_FORMAT when the chunk that holds the media (of MP4: any outermost box) is longer than what is left of the file. A
// length that a writer left open (a recording into a pipe) passes, as does what is no such file.
VlStatus vl_chunks_check_complete(const char *path);

#endif
