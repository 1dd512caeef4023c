// A picture or a video from its file to what shards hold: sampled frames, resized and cropped, 8 bits a channel.
#ifndef VL_DATA_VISUAL_H
#define VL_DATA_VISUAL_H

#include "data/media.h"
#include "data/preprocess.h"
#include "data/protocol.h"
#include "data/sample.h"

typedef struct VlVisualOptions {
    VlPreprocessConfig config;
    VlAspect aspect;
    VlProtocol protocol;  // whose frame sampling is followed
    int64_t num_frames;   // of a video, sampled uniformly
    VlMediaOptions media;
} VlVisualOptions;

// *levels = u8 [frames, config.height, config.width, 3] before normalisation, the caller's (vl_free). A picture
// (VL_MODAL_IMAGE) gives one frame; a video (VL_MODAL_VIDEO: a file, a GIF or a folder) the frames of data/clip.h:
// num_frames of them, or fewer where the protocol has it so. *times (unless NULL; the caller's) = [frames]. Errors:
// those of data/media.h, data/clip.h and data/preprocess.h, naming the file.
VlStatus vl_visual_read(const VlVisualOptions *options, const char *path, VlModal modal, int64_t *frames,
                        uint8_t **levels, VlFrameTime **times);

#endif
