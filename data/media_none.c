// The media functions of a build without the media libraries: each says what is missing.
#ifndef VL_HAVE_MEDIA

#include <stddef.h>

#include "data/media.h"
#include "data/media_audio.h"
#include "data/media_write.h"

static VlStatus refuse(const char *path) {
    return vl_error(VL_UNSUPPORTED,
                    "%s: this program was built without the media libraries: install libavformat-dev libavcodec-dev "
                    "libavfilter-dev libswscale-dev libswresample-dev libjpeg-dev and build again with -DVL_MEDIA=ON",
                    path);
}

VlStatus vl_media_write_video(const char *path, int64_t frames, int64_t height, int64_t width, const uint8_t *rgb,
                              double fps, const float *sound, int64_t sound_samples, int64_t sound_rate) {
    (void)frames, (void)height, (void)width, (void)rgb, (void)fps, (void)sound, (void)sound_samples, (void)sound_rate;
    return refuse(path);
}

VlStatus vl_media_write_sound(const char *path, const float *sound, int64_t samples, int64_t rate) {
    (void)sound, (void)samples, (void)rate;
    return refuse(path);
}

VlStatus vl_media_write_png(const char *path, int64_t height, int64_t width, const uint8_t *rgb) {
    (void)height, (void)width, (void)rgb;
    return refuse(path);
}

VlMediaOptions vl_media_defaults(void) { return (VlMediaOptions){0}; }

VlStatus vl_image_read(const char *path, const VlMediaOptions *options, VlImage *image) {
    (void)options;
    *image = (VlImage){0};
    return refuse(path);
}

VlStatus vl_video_open(VlVideo **video, const char *path, const VlMediaOptions *options) {
    (void)options;
    *video = NULL;
    return refuse(path);
}

const VlVideoInfo *vl_video_info(const VlVideo *video) {
    (void)video;
    return NULL;
}

void vl_video_close(VlVideo *video) { (void)video; }

VlStatus vl_video_read(VlVideo *video, const int64_t *indices, int64_t count, VlFrameSink sink, void *user) {
    (void)video, (void)indices, (void)count, (void)sink, (void)user;
    return refuse("video");
}

VlStatus vl_sound_read_file(const char *path, const VlMediaOptions *options, const VlSoundWindow *window,
                            double **samples, int64_t *rate) {
    (void)options, (void)window;
    *samples = NULL;
    *rate = 0;
    return refuse(path);
}

VlStatus vl_sound_read_track(const char *path, const VlMediaOptions *options, int16_t **samples, int64_t *count) {
    (void)options;
    *samples = NULL;
    *count = 0;
    return refuse(path);
}

#endif
