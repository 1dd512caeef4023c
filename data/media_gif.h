// GIF pictures and animations as Pillow shows them: the palette's colours, also under transparency.
#ifndef VL_DATA_MEDIA_GIF_H
#define VL_DATA_MEDIA_GIF_H

#include <stdbool.h>

#include "data/image.h"

typedef struct VlGif VlGif;

bool vl_gif_recognise(const char *path);

// Reads the file and walks all its blocks. Errors: VL_IO, VL_FORMAT (damaged, cut before its trailer, no picture),
// VL_INVALID (over max_pixels).
// `deadline` as in data/media_decoder.h, for the whole life of the reader.
VlStatus vl_gif_open(VlGif **gif, const char *path, int64_t max_pixels, double deadline);
void vl_gif_close(VlGif *gif);

int64_t vl_gif_frames(const VlGif *gif);
void vl_gif_size(const VlGif *gif, int64_t *height, int64_t *width);
// Seconds from the start to the frame, by the delays of those before it.
double vl_gif_seconds(const VlGif *gif, int64_t frame);

// Draws up to the frame, which is then in *image (the reader's own, until the next call). Going back draws from the
// first frame again. VL_FORMAT: a picture on the way is damaged; VL_UNSUPPORTED: one lies outside the first one's
// canvas.
VlStatus vl_gif_read(VlGif *gif, int64_t frame, const VlImage **image);

#endif
