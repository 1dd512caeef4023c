// Which frames of a video the model sees: the samplers of the reference, index for index.
#ifndef VL_DATA_FRAMES_H
#define VL_DATA_FRAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "data/protocol.h"

typedef enum VlFrameKind {
    VL_FRAMES_UNIFORM,  // num_frames segments of equal length, the middle of each
    VL_FRAMES_FPS,      // one frame a second
    VL_FRAMES_MVBENCH,  // the sampler of the 2024-06 MVBench evaluation
} VlFrameKind;

enum {
    VL_MAX_FRAMES = 32,     // the reference never looks at more frames of one video
    VL_BLACK_FRAME = -1,    // as an index: a frame of zeros that is appended
    VL_MAX_SAMPLED = 65536  // limit of num_frames
};

typedef struct VlFrameRequest {
    VlProtocol protocol;
    VlFrameKind kind;
    int64_t count;       // frames that the video has
    double fps;          // its frames per second; needed for bounds and one frame a second
    double start, end;   // bounds in seconds; NAN where none is given
    int64_t num_frames;  // wanted frames; 0 = one frame a second (not in the MVBench sampler)
    bool collapse;       // the source is a GIF: its reader asks for each frame whether its index is wanted, so that
                         // repeats collapse
} VlFrameRequest;

// The indices in [0, count) that the reference takes, ascending (a range that runs backwards in the MVBench sampler:
// descending), repeats included; then VL_BLACK_FRAME for the frames that it appends where fewer than num_frames are
// left. *indices is the caller's (vl_free). Bounds: given both, a negative one is 0, a wrong order is swapped, an empty
// range becomes one second. The protocol 2024-06 has none, except in its MVBench sampler, where they are taken as they
// are. Errors: VL_INVALID where the reference fails: an empty range, fewer than one frame a second, no frames wanted;
// and for bounds that the protocol would ignore.
VlStatus vl_frames_sample(const VlFrameRequest *request, int64_t **indices, int64_t *sampled);

// "uniform", "fps" or "mvbench". Errors: VL_USAGE.
VlStatus vl_frame_kind_parse(VlFrameKind *kind, const char *name);

#endif
