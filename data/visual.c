#include "data/visual.h"

#include <math.h>
#include <stddef.h>

#include "base/memory.h"
#include "data/clip.h"

static VlStatus read_picture(const VlVisualOptions *options, const char *path, VlPreprocessor *preprocessor,
                             int64_t *frames, uint8_t **levels, VlFrameTime **times) {
    VlImage image;
    uint8_t *made = NULL;
    VL_TRY(vl_image_read(path, &options->media, &image));
    VlStatus status = VL_NEW(&made, options->config.height * options->config.width * 3);
    if (!status) status = vl_preprocess_levels(preprocessor, &image, made);
    vl_image_free(&image);
    if (!status && times) status = VL_NEW(times, 1);
    if (status) {
        vl_free(made);
        return status;
    }
    *frames = 1;
    *levels = made;
    return VL_OK;
}

static VlStatus read_video(const VlVisualOptions *options, const char *path, VlPreprocessor *preprocessor,
                           int64_t *frames, uint8_t **levels, VlFrameTime **times) {
    VlClip clip;
    VlClipRequest request = {
        .protocol = options->protocol, .num_frames = options->num_frames, .start = NAN, .end = NAN};
    VlStatus status = vl_clip_read(&clip, path, &request, preprocessor, &options->media, NULL, NULL);
    if (!status && times) status = VL_NEW(times, clip.frames);
    for (int64_t i = 0; !status && times && i < clip.frames; i++) {
        (*times)[i] = (VlFrameTime){.index = clip.indices[i], .seconds = clip.seconds[i]};
    }
    if (!status) {
        *frames = clip.frames;
        *levels = clip.levels;
        clip.levels = NULL;
    }
    vl_clip_clear(&clip);
    return status;
}

VlStatus vl_visual_read(const VlVisualOptions *options, const char *path, VlModal modal, int64_t *frames,
                        uint8_t **levels, VlFrameTime **times) {
    VlPreprocessor *preprocessor;
    VL_ASSERT(modal == VL_MODAL_IMAGE || modal == VL_MODAL_VIDEO);
    VL_TRY(vl_preprocessor_create(&preprocessor, &options->config, options->aspect));
    VlStatus status =
        (modal == VL_MODAL_IMAGE ? read_picture : read_video)(options, path, preprocessor, frames, levels, times);
    vl_preprocessor_free(preprocessor);
    return status;
}
