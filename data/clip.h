// The frames of one video as the model sees them: which ones the protocol takes, preprocessed to levels.
#ifndef VL_DATA_CLIP_H
#define VL_DATA_CLIP_H

#include "data/media.h"
#include "data/preprocess.h"
#include "data/protocol.h"

typedef struct VlClipRequest {
    VlProtocol protocol;
    int64_t num_frames;  // 0: one frame a second
    double start, end;   // seconds; NAN where none is given
} VlClipRequest;

typedef struct VlClip {
    VlVideoInfo info;
    int64_t frames;
    int64_t *indices;  // [frames], VL_BLACK_FRAME for an appended frame
    double *seconds;   // [frames] after the start; -1 for an appended frame
    uint8_t *levels;   // [frames, height, width, 3] of the preprocessor, before normalisation
} VlClip;

// The indices of the frames that the protocol takes of a video; the caller frees *indices. Errors: VL_INVALID.
VlStatus vl_clip_plan(const VlVideoInfo *info, const VlClipRequest *request, int64_t **indices, int64_t *frames);

// Reads and preprocesses them, one at a time. `full`, unless NULL, is shown every frame at its own size before
// preprocessing, the appended ones (black, of the size of the last frame) included. The owner clears the clip with
// vl_clip_clear, also after an error. Errors: as vl_video_open, vl_video_read and vl_clip_plan, naming the file.
VlStatus vl_clip_read(VlClip *clip, const char *path, const VlClipRequest *request, VlPreprocessor *preprocessor,
                      const VlMediaOptions *options, VlFrameSink full, void *user);
void vl_clip_clear(VlClip *clip);

#endif
