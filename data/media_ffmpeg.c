#include "data/media_ffmpeg.h"

#ifdef VL_HAVE_MEDIA

#include <errno.h>
#include <libavutil/error.h>
#include <libavutil/log.h>
#include <stdio.h>

static void drop_message(void *context, int level, const char *format, va_list arguments) {
    (void)context, (void)level, (void)format, (void)arguments;
}

void vl_ffmpeg_silence(void) { av_log_set_callback(drop_message); }

VlStatus vl_ffmpeg_error(int code, const char *format, ...) {
    char what[700], reason[AV_ERROR_MAX_STRING_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    if (av_strerror(code, reason, sizeof reason) < 0) snprintf(reason, sizeof reason, "unknown error %d", code);
    VlStatus status = VL_FORMAT;
    if (code == AVERROR(ENOMEM)) status = VL_OUT_OF_MEMORY;
    if (code == AVERROR(ENOENT) || code == AVERROR(EACCES) || code == AVERROR(EIO) || code == AVERROR(EMFILE)) {
        status = VL_IO;
    }
    return vl_error(status, "%s: %s", what, reason);
}

#endif
