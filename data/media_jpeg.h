// JPEG through libjpeg-turbo with its defaults (accurate integer IDCT, smooth chroma upsampling), as Pillow reads it.
#ifndef VL_DATA_MEDIA_JPEG_H
#define VL_DATA_MEDIA_JPEG_H

#include "data/media.h"

// Decodes a JPEG in memory; `path` is for error texts. Errors as vl_image_read.
VlStatus vl_jpeg_decode(const char *path, const uint8_t *data, int64_t size, const VlMediaOptions *options,
                        VlImage *image);

#endif
