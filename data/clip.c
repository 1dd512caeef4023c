#include "data/clip.h"

#include <string.h>

#include "base/memory.h"
#include "data/frames.h"

static const double GIF_FPS_2024_06 = 10.0;

VlStatus vl_clip_plan(const VlVideoInfo *info, const VlClipRequest *request, int64_t **indices, int64_t *frames) {
    bool gif = info->kind == VL_VIDEO_GIF;
    VlFrameRequest sampling = {.protocol = request->protocol,
                               .kind = VL_FRAMES_UNIFORM,
                               .count = info->count,
                               .fps = gif && request->protocol == VL_PROTOCOL_2024_06 ? GIF_FPS_2024_06 : info->fps,
                               .start = request->start,
                               .end = request->end,
                               .num_frames = request->num_frames,
                               .collapse = gif};
    return vl_frames_sample(&sampling, indices, frames);
}

// Where the frames go that the reader hands over.
typedef struct Collector {
    VlClip *clip;
    VlPreprocessor *preprocessor;
    int64_t frame_bytes;
    VlFrameSink full;
    void *user;
    int64_t height, width;  // of the last frame
} Collector;

static VlStatus collect(void *user, int64_t position, double seconds, const VlImage *frame) {
    Collector *collector = user;
    VlClip *clip = collector->clip;
    uint8_t *levels = clip->levels + position * collector->frame_bytes;
    clip->seconds[position] = seconds;
    collector->height = frame->height;
    collector->width = frame->width;
    if (position > 0 && clip->indices[position] == clip->indices[position - 1]) {
        memcpy(levels, levels - collector->frame_bytes, (size_t)collector->frame_bytes);
    } else {
        VL_TRY(vl_preprocess_levels(collector->preprocessor, frame, levels));
    }
    return collector->full ? collector->full(collector->user, position, seconds, frame) : VL_OK;
}

// Appended frames. The reference builds them with the sides exchanged, which shows in the bands of a padded square.
static VlStatus append_black(Collector *collector, int64_t first) {
    VlClip *clip = collector->clip;
    VlImage shown = {0}, turned = {0};
    VlStatus status;
    VL_TRY_GOTO(status, vl_image_allocate(&shown, collector->height, collector->width), done);
    VL_TRY_GOTO(status, vl_image_allocate(&turned, collector->width, collector->height), done);
    for (int64_t i = first; i < clip->frames; i++) {
        uint8_t *levels = clip->levels + i * collector->frame_bytes;
        clip->seconds[i] = -1.0;
        VL_TRY_GOTO(status, vl_preprocess_levels(collector->preprocessor, &turned, levels), done);
        if (collector->full) VL_TRY_GOTO(status, collector->full(collector->user, i, -1.0, &shown), done);
    }
done:
    vl_image_free(&shown);
    vl_image_free(&turned);
    return status;
}

static VlStatus fill(VlClip *clip, VlVideo *video, const VlClipRequest *request, Collector *collector) {
    const VlPreprocessConfig *config = vl_preprocessor_config(collector->preprocessor);
    clip->info = *vl_video_info(video);
    VL_TRY(vl_clip_plan(&clip->info, request, &clip->indices, &clip->frames));
    collector->frame_bytes = config->height * config->width * 3;
    VL_TRY(VL_NEW(&clip->seconds, clip->frames));
    VL_TRY(vl_allocate(&clip->levels, clip->frames, collector->frame_bytes));
    int64_t real = clip->frames;
    while (real > 0 && clip->indices[real - 1] == VL_BLACK_FRAME) real--;
    VL_TRY(vl_video_read(video, clip->indices, real, collect, collector));
    return real < clip->frames ? append_black(collector, real) : VL_OK;
}

VlStatus vl_clip_read(VlClip *clip, const char *path, const VlClipRequest *request, VlPreprocessor *preprocessor,
                      const VlMediaOptions *options, VlFrameSink full, void *user) {
    VlVideo *video = NULL;
    *clip = (VlClip){0};
    VL_TRY(vl_video_open(&video, path, options));
    Collector collector = {.clip = clip, .preprocessor = preprocessor, .full = full, .user = user};
    VlStatus status = fill(clip, video, request, &collector);
    vl_video_close(video);
    if (status == VL_INVALID && !strstr(vl_error_text(), path)) return vl_error_context(status, "%s", path);
    return status;
}

void vl_clip_clear(VlClip *clip) {
    vl_free(clip->indices);
    vl_free(clip->seconds);
    vl_free(clip->levels);
    *clip = (VlClip){0};
}
