// The RIFF frame of WebP files, and the first picture of animated ones, which FFmpeg does not read.
#ifndef VL_DATA_MEDIA_WEBP_H
#define VL_DATA_MEDIA_WEBP_H

#include <stdbool.h>

#include "base/status.h"

typedef struct VlWebpFirst {
    uint8_t *file;  // a still WebP file of `size` bytes, owned (vl_free); NULL: the file is one already
    int64_t size;
    int64_t left, top, width, height;     // of the picture on the canvas
    int64_t canvas_width, canvas_height;  // what no picture covers is transparent black
} VlWebpFirst;

bool vl_webp_recognise(const uint8_t *data, int64_t size);

// Walks the chunks of a WebP file. VL_FORMAT: truncated or damaged.
// Format: RFC 9649, sections 2.3 to 2.7.
VlStatus vl_webp_first(VlWebpFirst *first, const char *path, const uint8_t *data, int64_t size);

#endif
