#include "data/frames.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

static const char *const kind_names[] = {
    [VL_FRAMES_UNIFORM] = "uniform", [VL_FRAMES_FPS] = "fps", [VL_FRAMES_MVBENCH] = "mvbench"};

enum { KINDS = sizeof kind_names / sizeof kind_names[0] };

static const double MVBENCH_END = 100000.0;  // seconds: the end where no bounds are given

VlStatus vl_frame_kind_parse(VlFrameKind *kind, const char *name) {
    for (int i = 0; i < KINDS; i++) {
        if (!strcmp(name, kind_names[i])) {
            *kind = (VlFrameKind)i;
            return VL_OK;
        }
    }
    const char *nearest = vl_nearest_word(name, kind_names, KINDS);
    return vl_error(VL_USAGE, "unknown kind of sampling '%s': did you mean %s?", name,
                    nearest ? nearest : "uniform, fps or mvbench");
}

// The frames [*first, *first + *length) that the bounds select; *length is at least 1.
static VlStatus select_range(const VlFrameRequest *request, int64_t *first, int64_t *length) {
    double start = request->start, end = request->end, last = (double)request->count - 1.0;
    if (!isnan(start) && !isnan(end)) {
        start = fmax(start, 0.0);
        end = fmax(end, 0.0);
        if (start > end) {
            double swapped = start;
            start = end;
            end = swapped;
        } else if (start == end) {
            end = start + 1.0;
        }
    }
    // The whole arithmetic is on whole numbers in doubles: exact, and safe for bounds of any size.
    double from = isnan(start) ? 0.0 : fmax(trunc(start * request->fps) - 1.0, 0.0);
    double to = isnan(end) ? last : fmin(trunc(end * request->fps) - 1.0, last);
    if (!(from <= to)) {
        return vl_error(VL_INVALID,
                        "no frames between %g s and %g s: the video has %lld frames at %g fps, and the range selects "
                        "none of them",
                        request->start, request->end, (long long)request->count, request->fps);
    }
    *first = (int64_t)from;
    *length = (int64_t)(to - from) + 1;
    return VL_OK;
}

static int64_t uniform_main(int64_t length, int64_t num_frames, int64_t i) {
    double segment = ((double)length - 1.0) / (double)num_frames;
    double middle = (segment * (double)i + segment * (double)(i + 1)) / 2.0;
    return (int64_t)rint(middle + 1e-6);
}

static int64_t uniform_2024_06(int64_t length, int64_t num_frames, int64_t i) {
    double segment = ((double)length - 1.0) / (double)num_frames;
    int64_t start = (int64_t)rint(segment * (double)i), end = (int64_t)rint(segment * (double)(i + 1));
    return (start + end) / 2;
}

// What the 2024-06 code takes instead where there would be more than VL_MAX_FRAMES.
static int64_t spread_2024_06(int64_t length, int64_t i) {
    if (i == VL_MAX_FRAMES - 1) return length - 1;
    return (int64_t)floor((double)i * (((double)length - 1.0) / (double)(VL_MAX_FRAMES - 1)));
}

// Each sampler leaves room for max(*sampled, num_frames) indices.
static VlStatus sample_uniform(const VlFrameRequest *request, int64_t first, int64_t length, int64_t **indices,
                               int64_t *sampled) {
    bool old = request->protocol == VL_PROTOCOL_2024_06, spread = old && request->num_frames > VL_MAX_FRAMES;
    VL_TRY(VL_NEW(indices, request->num_frames));
    *sampled = spread ? VL_MAX_FRAMES : request->num_frames;
    for (int64_t i = 0; i < *sampled; i++) {
        int64_t index;
        if (spread) {
            index = spread_2024_06(length, i);
        } else if (old) {
            index = uniform_2024_06(length, request->num_frames, i);
        } else {
            index = uniform_main(length, request->num_frames, i);
        }
        (*indices)[i] = first + index;
    }
    return VL_OK;
}

static VlStatus sample_seconds(const VlFrameRequest *request, int64_t first, int64_t length, int64_t **indices,
                               int64_t *sampled) {
    double segment = fmin(floor(request->fps), (double)length);
    if (!(segment >= 1.0)) {
        return vl_error(VL_INVALID, "one frame a second needs at least 1 fps: the video has %g", request->fps);
    }
    int64_t step = (int64_t)segment, begin = step / 2, found = (length - begin + step - 1) / step;
    bool spread = request->protocol == VL_PROTOCOL_2024_06 && found > VL_MAX_FRAMES;
    *sampled = found < VL_MAX_FRAMES ? found : VL_MAX_FRAMES;
    VL_TRY(VL_NEW(indices, *sampled > request->num_frames ? *sampled : request->num_frames));
    for (int64_t i = 0; i < *sampled; i++) {
        (*indices)[i] = first + (spread ? spread_2024_06(length, i) : begin + i * step);
    }
    return VL_OK;
}

// What the reference does between the indices and the frames: a GIF's repeats collapse; black frames are appended and
// the first VL_MAX_FRAMES kept, both not in the 2024-06 code.
static void finish(const VlFrameRequest *request, int64_t *indices, int64_t *sampled) {
    int64_t kept = 0;
    for (int64_t i = 0; i < *sampled; i++) {
        bool repeated = request->collapse && kept > 0 && indices[i] == indices[kept - 1];
        if (!repeated) indices[kept++] = indices[i];
    }
    if (request->protocol != VL_PROTOCOL_2024_06) {
        while (kept < request->num_frames) indices[kept++] = VL_BLACK_FRAME;
        if (kept > VL_MAX_FRAMES) kept = VL_MAX_FRAMES;
    }
    *sampled = kept;
}

static VlStatus sample_mvbench(const VlFrameRequest *request, int64_t **indices, int64_t *sampled) {
    bool bounded = !isnan(request->start) && !isnan(request->end);
    double last = (double)request->count - 1.0;
    double from = bounded ? fmax(rint(request->start * request->fps), 0.0) : 0.0;
    double to = fmin(rint((bounded ? request->end : MVBENCH_END) * request->fps), last);
    double segment = (to - from) / (double)request->num_frames;
    int64_t *found = NULL;
    VL_TRY(VL_NEW(&found, request->num_frames));
    for (int64_t i = 0; i < request->num_frames; i++) {
        double index = trunc(from + segment / 2.0 + rint(segment * (double)i));
        if (!(index >= 0.0 && index <= last)) {
            vl_free(found);
            return vl_error(VL_INVALID, "no frame %.0f between %g s and %g s: the video has %lld frames at %g fps",
                            index, request->start, request->end, (long long)request->count, request->fps);
        }
        found[i] = (int64_t)index;
    }
    *indices = found;
    *sampled = request->num_frames;
    return VL_OK;
}

VlStatus vl_frames_sample(const VlFrameRequest *request, int64_t **indices, int64_t *sampled) {
    *indices = NULL;
    *sampled = 0;
    bool bounded = !isnan(request->start) || !isnan(request->end);
    bool seconds = request->kind == VL_FRAMES_FPS || (request->kind == VL_FRAMES_UNIFORM && !request->num_frames);
    bool mvbench = request->kind == VL_FRAMES_MVBENCH;
    if (request->count < 1)
        return vl_error(VL_INVALID, "a video of %lld frames has nothing to sample", (long long)request->count);
    if (request->num_frames < (mvbench ? 1 : 0) || request->num_frames > VL_MAX_SAMPLED) {
        return vl_error(VL_INVALID, "cannot sample %lld frames: 1 to %d are possible", (long long)request->num_frames,
                        VL_MAX_SAMPLED);
    }
    if ((bounded || seconds || mvbench) && !(request->fps > 0.0 && isfinite(request->fps))) {
        return vl_error(VL_INVALID, "bounds and one frame a second need the frame rate: %g is none", request->fps);
    }
    if (mvbench) return sample_mvbench(request, indices, sampled);
    if (bounded && request->protocol == VL_PROTOCOL_2024_06) {
        return vl_error(VL_INVALID, "the protocol vl2-2024-06 has no bounds for videos: leave start and end out");
    }
    int64_t first = 0, length = request->count;
    if (bounded) VL_TRY(select_range(request, &first, &length));
    VL_TRY((seconds ? sample_seconds : sample_uniform)(request, first, length, indices, sampled));
    finish(request, *indices, sampled);
    return VL_OK;
}
