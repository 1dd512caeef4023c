// An RGB picture of 8 bits a channel, and Pillow's bicubic resampling of it, bit for bit.
#ifndef VL_DATA_IMAGE_H
#define VL_DATA_IMAGE_H

#include <stdint.h>

#include "base/status.h"

typedef struct VlImage {
    int64_t height, width;
    uint8_t *pixels;  // [height, width, 3], owned
} VlImage;

// A black picture; the owner frees it with vl_image_free. Errors: VL_INVALID (sides below 1, overflow),
// VL_OUT_OF_MEMORY.
VlStatus vl_image_allocate(VlImage *image, int64_t height, int64_t width);
void vl_image_free(VlImage *image);

// The geometry of a resize: a source picture stands in the middle of a canvas (offsets (canvas - source) / 2, rounded
// down) whose rest has the colour `fill`; the canvas is resized; of the result the window at (top, left) is wanted.
// Only the window is computed, and the canvas is never built.
typedef struct VlResizeShape {
    int64_t source_height, source_width;
    int64_t canvas_height, canvas_width;  // at least the source's
    int64_t resized_height, resized_width;
    int64_t top, left, height, width;  // the window, inside the resized picture
    uint8_t fill[3];
} VlResizeShape;

// The weights and buffers for one geometry, to be used for any number of pictures of that size, by one thread at a
// time.
typedef struct VlResize VlResize;

// Errors: VL_INVALID (a window outside, sides below 1), VL_OUT_OF_MEMORY.
VlStatus vl_resize_create(VlResize **resize, const VlResizeShape *shape);
// The window as u8 [height, width, 3]. The picture has the size that the geometry names.
// Pillow's resampling (Image.resize, BICUBIC, 8 bits a channel): the cubic kernel with a = -0.5, stretched by the scale
// when shrinking, cut at the border and normalised; weights rounded to 22 fractional bits; the horizontal pass first;
// each pass rounded to 8 bits.
void vl_resize_apply(VlResize *resize, const uint8_t *pixels, uint8_t *window);
void vl_resize_free(VlResize *resize);

#endif
