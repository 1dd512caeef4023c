// Media in: pictures, videos, GIFs and folders of frames as RGB of 8 bits a channel, as the reference sees them.
// Files are recognised by their content, not by their name. Whatever a file holds, reading it ends in a result or in an
// error of one line that names the file and the reason; the media libraries print nothing. A build without the media
// libraries has these functions too: they give VL_UNSUPPORTED and name the packages.
#ifndef VL_DATA_MEDIA_H
#define VL_DATA_MEDIA_H

#include <stdint.h>

#include "data/image.h"

typedef struct VlMediaOptions {
    int64_t max_pixels;        // of a picture (width x height)
    int64_t max_frame_pixels;  // of a frame of a video: decoders keep many of them
    double max_seconds;        // of work on one file, from its opening on; 0: no limit
    int threads;               // of the video decoder; results do not depend on it
} VlMediaOptions;

// 12,000 x 12,000 pixels; 8,192 x 4,608 in a video; 9 seconds; 1 thread.
VlMediaOptions vl_media_defaults(void);

// Reads a picture as Pillow's convert("RGB") gives it: alpha is dropped, not blended; palettes give their RGB; CMYK is
// multiplied; 16 bits become 8; an EXIF orientation is not applied. JPEG through libjpeg-turbo; PNG, WebP, GIF (its
// first frame), BMP, TIFF, PNM through FFmpeg. The caller frees *image.
// Errors: VL_IO, VL_FORMAT (truncated, damaged, no picture), VL_INVALID (over a limit), VL_UNSUPPORTED.
VlStatus vl_image_read(const char *path, const VlMediaOptions *options, VlImage *image);

typedef enum VlVideoKind { VL_VIDEO_STREAM, VL_VIDEO_GIF, VL_VIDEO_FOLDER } VlVideoKind;

typedef struct VlVideoInfo {
    VlVideoKind kind;
    int64_t count;          // frames, in presentation order; a folder's pictures in bytewise order of their names
    int64_t height, width;  // of a frame as shown (rotation applied); a folder's first
    double fps;             // the container's average; 25 for a GIF and 3 for a folder, as the reference assumes
} VlVideoInfo;

typedef struct VlVideo VlVideo;

// Opens a video file, a GIF or a folder of pictures (files with a picture's extension; others are left out). The frames
// are counted: where the container's index can be trusted by it, else by decoding all of them.
VlStatus vl_video_open(VlVideo **video, const char *path, const VlMediaOptions *options);
const VlVideoInfo *vl_video_info(const VlVideo *video);
void vl_video_close(VlVideo *video);

// Receives frame number `position` of those asked for, at `seconds` after the start. The picture is the reader's and
// lives until the return. A status other than VL_OK ends the reading and is handed upwards.
typedef VlStatus (*VlFrameSink)(void *user, int64_t position, double seconds, const VlImage *frame);

// Reads the frames `indices` (ascending, repeats allowed, inside [0, count)) one after the other, so that one frame at
// a time is in memory. Conversion to RGB is FFmpeg's bicubic scale filter with the matrix and range of the frame; a
// rotation in the container is applied; the sample aspect ratio is not. A wanted frame that is damaged or missing is an
// error (VL_FORMAT) that names it.
VlStatus vl_video_read(VlVideo *video, const int64_t *indices, int64_t count, VlFrameSink sink, void *user);

#endif
