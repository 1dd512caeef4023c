#include "data/media_write.h"

#ifdef VL_HAVE_MEDIA

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "data/media_ffmpeg.h"

enum { KEY_FRAME_EVERY = 12, MAX_SIDE = 16384, SOUND_BIT_RATE = 96000 };

// One encoder with its stream in the container. `next` counts frames or samples handed in, `done` says the encoder
// was flushed.
typedef struct Track {
    AVCodecContext *encoder;
    AVStream *stream;
    AVFrame *frame;
    int64_t next;
    bool done;
} Track;

typedef struct Writer {
    const char *path;
    AVFormatContext *container;  // muxes into memory: `container->pb` is a growing buffer
    AVPacket *packet;
    struct SwsContext *scaler;
    Track video, sound;
} Writer;

static VlStatus check_picture(const char *path, int64_t height, int64_t width) {
    if (height < 1 || width < 1 || height > MAX_SIDE || width > MAX_SIDE) {
        return vl_error(VL_INVALID, "%s: cannot write a picture of %lld x %lld pixels: sides are 1 to %d", path,
                        (long long)width, (long long)height, MAX_SIDE);
    }
    return VL_OK;
}

static void close_track(Track *track) {
    avcodec_free_context(&track->encoder);
    av_frame_free(&track->frame);
}

static void close_writer(Writer *writer) {
    close_track(&writer->video);
    close_track(&writer->sound);
    av_packet_free(&writer->packet);
    sws_freeContext(writer->scaler);
    if (writer->container && writer->container->pb) {
        uint8_t *unused = NULL;
        avio_close_dyn_buf(writer->container->pb, &unused);
        av_free(unused);
    }
    avformat_free_context(writer->container);
}

// Opens an encoder whose settings are in track->encoder, and gives its stream in the container the same.
static VlStatus open_track(Writer *writer, Track *track, const AVCodec *codec, AVDictionary **options) {
    track->encoder->thread_count = 1;
    track->encoder->flags |= AV_CODEC_FLAG_BITEXACT | AV_CODEC_FLAG_GLOBAL_HEADER;
    int code = avcodec_open2(track->encoder, codec, options);
    av_dict_free(options);
    if (code < 0) return vl_ffmpeg_error(code, "%s: cannot open the encoder %s", writer->path, codec->name);
    track->stream = avformat_new_stream(writer->container, NULL);
    track->frame = av_frame_alloc();
    if (!track->stream || !track->frame) return vl_ffmpeg_error(AVERROR(ENOMEM), "%s", writer->path);
    track->stream->time_base = track->encoder->time_base;
    code = avcodec_parameters_from_context(track->stream->codecpar, track->encoder);
    if (code < 0) return vl_ffmpeg_error(code, "%s: %s", writer->path, codec->name);
    return VL_OK;
}

static VlStatus open_video(Writer *writer, int64_t height, int64_t width, double fps) {
    const AVCodec *codec = avcodec_find_encoder_by_name("libx264");
    if (!codec) {
        return vl_error(VL_UNSUPPORTED, "%s: FFmpeg has no encoder libx264: install an FFmpeg built with it",
                        writer->path);
    }
    AVCodecContext *encoder = writer->video.encoder = avcodec_alloc_context3(codec);
    if (!encoder) return vl_ffmpeg_error(AVERROR(ENOMEM), "%s", writer->path);
    encoder->width = (int)width;
    encoder->height = (int)height;
    encoder->pix_fmt = AV_PIX_FMT_YUV420P;
    encoder->framerate = av_d2q(fps, 100000);
    encoder->time_base = av_inv_q(encoder->framerate);
    encoder->gop_size = KEY_FRAME_EVERY;
    encoder->max_b_frames = 2;
    encoder->sample_aspect_ratio = (AVRational){1, 1};
    AVDictionary *options = NULL;
    av_dict_set(&options, "preset", "veryfast", 0);
    av_dict_set(&options, "crf", "14", 0);
    av_dict_set(&options, "mbtree", "0", 0);  // on small pictures its results vary from call to call
    VL_TRY(open_track(writer, &writer->video, codec, &options));
    writer->video.stream->avg_frame_rate = encoder->framerate;
    AVFrame *frame = writer->video.frame;
    frame->format = encoder->pix_fmt;
    frame->width = encoder->width;
    frame->height = encoder->height;
    int code = av_frame_get_buffer(frame, 0);
    if (code < 0) return vl_ffmpeg_error(code, "%s", writer->path);
    writer->scaler = sws_getContext(frame->width, frame->height, AV_PIX_FMT_RGB24, frame->width, frame->height,
                                    encoder->pix_fmt, SWS_BICUBIC | SWS_ACCURATE_RND | SWS_BITEXACT, NULL, NULL, NULL);
    if (!writer->scaler) return vl_error(VL_UNSUPPORTED, "%s: cannot convert RGB to 4:2:0", writer->path);
    return VL_OK;
}

static VlStatus open_sound(Writer *writer, enum AVCodecID id, enum AVSampleFormat format, int64_t rate) {
    const AVCodec *codec = avcodec_find_encoder(id);
    if (!codec) {
        return vl_error(VL_UNSUPPORTED, "%s: FFmpeg has no encoder for %s", writer->path, avcodec_get_name(id));
    }
    AVCodecContext *encoder = writer->sound.encoder = avcodec_alloc_context3(codec);
    if (!encoder) return vl_ffmpeg_error(AVERROR(ENOMEM), "%s", writer->path);
    encoder->sample_rate = (int)rate;
    encoder->sample_fmt = format;
    encoder->bit_rate = SOUND_BIT_RATE;
    encoder->time_base = (AVRational){1, (int)rate};
    av_channel_layout_default(&encoder->ch_layout, 1);
    AVDictionary *options = NULL;
    // Of AAC a third of the default's time; the bit rate leaves room for it.
    if (id == AV_CODEC_ID_AAC) av_dict_set(&options, "aac_coder", "fast", 0);
    return open_track(writer, &writer->sound, codec, &options);
}

// Hands a frame (NULL: flush) to the encoder and what comes out to the container.
static VlStatus encode(Writer *writer, Track *track, const AVFrame *frame) {
    int code = avcodec_send_frame(track->encoder, frame);
    while (code >= 0) {
        code = avcodec_receive_packet(track->encoder, writer->packet);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return VL_OK;
        if (code < 0) break;
        av_packet_rescale_ts(writer->packet, track->encoder->time_base, track->stream->time_base);
        writer->packet->stream_index = track->stream->index;
        code = av_interleaved_write_frame(writer->container, writer->packet);
    }
    return vl_ffmpeg_error(code, "%s: cannot encode", writer->path);
}

static VlStatus write_frame(Writer *writer, const uint8_t *rgb, int64_t frames) {
    Track *track = &writer->video;
    AVFrame *frame = track->frame;
    if (track->next == frames) {
        track->done = true;
        return encode(writer, track, NULL);
    }
    int code = av_frame_make_writable(frame);
    if (code < 0) return vl_ffmpeg_error(code, "%s", writer->path);
    const uint8_t *rows[1] = {rgb + track->next * frame->height * frame->width * 3};
    sws_scale(writer->scaler, rows, (int[]){3 * frame->width}, 0, frame->height, frame->data, frame->linesize);
    frame->pts = track->next++;
    return encode(writer, track, frame);
}

// As 16-bit numbers, or as they are.
static void put_samples(AVFrame *frame, const float *sound) {
    if (frame->format != AV_SAMPLE_FMT_S16) {
        memcpy(frame->data[0], sound, (size_t)frame->nb_samples * sizeof *sound);
        return;
    }
    int16_t *out = (int16_t *)frame->data[0];
    for (int i = 0; i < frame->nb_samples; i++) out[i] = (int16_t)lrintf(fminf(fmaxf(sound[i], -1), 1) * INT16_MAX);
}

static VlStatus write_sound(Writer *writer, const float *sound, int64_t samples) {
    Track *track = &writer->sound;
    AVFrame *frame = track->frame;
    if (track->next == samples) {
        track->done = true;
        return encode(writer, track, NULL);
    }
    int64_t left = samples - track->next, most = track->encoder->frame_size;
    av_frame_unref(frame);
    frame->nb_samples = (int)(left < most ? left : most);
    frame->format = track->encoder->sample_fmt;
    frame->sample_rate = track->encoder->sample_rate;
    frame->pts = track->next;
    int code = av_channel_layout_copy(&frame->ch_layout, &track->encoder->ch_layout);
    if (code >= 0) code = av_frame_get_buffer(frame, 0);
    if (code < 0) return vl_ffmpeg_error(code, "%s", writer->path);
    put_samples(frame, sound + track->next);
    track->next += frame->nb_samples;
    return encode(writer, track, frame);
}

static bool sound_is_next(const Writer *writer) {
    const Track *video = &writer->video, *sound = &writer->sound;
    if (!sound->encoder || sound->done) return false;
    return video->done ||
           av_compare_ts(sound->next, sound->encoder->time_base, video->next, video->encoder->time_base) < 0;
}

static VlStatus open_container(Writer *writer, const char *format) {
    int code = avformat_alloc_output_context2(&writer->container, NULL, format, NULL);
    if (code >= 0) code = avio_open_dyn_buf(&writer->container->pb);
    if (code < 0) return vl_ffmpeg_error(code, "%s: cannot start a file of the format %s", writer->path, format);
    writer->container->flags |= AVFMT_FLAG_BITEXACT;
    writer->packet = av_packet_alloc();
    return writer->packet ? VL_OK : vl_ffmpeg_error(AVERROR(ENOMEM), "%s", writer->path);
}

static VlStatus save_container(Writer *writer) {
    int code = av_write_trailer(writer->container);
    uint8_t *data = NULL;
    int size = avio_close_dyn_buf(writer->container->pb, &data);
    writer->container->pb = NULL;
    VlStatus status = VL_OK;
    if (code < 0) status = vl_ffmpeg_error(code, "%s: cannot finish the file", writer->path);
    if (status == VL_OK) status = vl_write_file_unsynced(writer->path, data, size);
    av_free(data);
    return status;
}

static VlStatus check_sound(const char *path, int64_t samples, int64_t rate) {
    if (samples < 1 || rate < 8000 || rate > 96000) {
        return vl_error(VL_INVALID, "%s: cannot write %lld samples of sound at %lld Hz", path, (long long)samples,
                        (long long)rate);
    }
    return VL_OK;
}

static VlStatus write_header(Writer *writer) {
    int code = avformat_write_header(writer->container, NULL);
    return code < 0 ? vl_ffmpeg_error(code, "%s: cannot start the file", writer->path) : VL_OK;
}

VlStatus vl_media_write_video(const char *path, int64_t frames, int64_t height, int64_t width, const uint8_t *rgb,
                              double fps, const float *sound, int64_t sound_samples, int64_t sound_rate) {
    VL_TRY(check_picture(path, height, width));
    if (height % 2 || width % 2 || frames < 1 || !(fps >= 0.01 && fps <= 1000)) {
        return vl_error(
            VL_INVALID,
            "%s: cannot write %lld frames of %lld x %lld at %g fps: even sides, at least one frame and 0.01 "
            "to 1000 fps are possible",
            path, (long long)frames, (long long)width, (long long)height, fps);
    }
    if (sound) VL_TRY(check_sound(path, sound_samples, sound_rate));
    vl_ffmpeg_silence();
    Writer writer = {.path = path};
    VlStatus status;
    VL_TRY_GOTO(status, open_container(&writer, "mp4"), done);
    VL_TRY_GOTO(status, open_video(&writer, height, width, fps), done);
    if (sound) VL_TRY_GOTO(status, open_sound(&writer, AV_CODEC_ID_AAC, AV_SAMPLE_FMT_FLTP, sound_rate), done);
    VL_TRY_GOTO(status, write_header(&writer), done);
    while (!writer.video.done || (sound && !writer.sound.done)) {
        if (sound_is_next(&writer)) {
            VL_TRY_GOTO(status, write_sound(&writer, sound, sound_samples), done);
        } else {
            VL_TRY_GOTO(status, write_frame(&writer, rgb, frames), done);
        }
    }
    VL_TRY_GOTO(status, save_container(&writer), done);
done:
    close_writer(&writer);
    return status;
}

VlStatus vl_media_write_sound(const char *path, const float *sound, int64_t samples, int64_t rate) {
    VL_TRY(check_sound(path, samples, rate));
    vl_ffmpeg_silence();
    Writer writer = {.path = path};
    VlStatus status;
    VL_TRY_GOTO(status, open_container(&writer, "flac"), done);
    VL_TRY_GOTO(status, open_sound(&writer, AV_CODEC_ID_FLAC, AV_SAMPLE_FMT_S16, rate), done);
    VL_TRY_GOTO(status, write_header(&writer), done);
    while (!writer.sound.done) VL_TRY_GOTO(status, write_sound(&writer, sound, samples), done);
    VL_TRY_GOTO(status, save_container(&writer), done);
done:
    close_writer(&writer);
    return status;
}

static VlStatus encode_png(AVCodecContext *encoder, AVFrame *frame, AVPacket *packet, const char *path,
                           const uint8_t *rgb) {
    int code = avcodec_open2(encoder, encoder->codec, NULL);
    frame->format = encoder->pix_fmt;
    frame->width = encoder->width;
    frame->height = encoder->height;
    if (code >= 0) code = av_frame_get_buffer(frame, 0);
    if (code >= 0) {
        const int row = 3 * frame->width;
        av_image_copy_plane(frame->data[0], frame->linesize[0], rgb, row, row, frame->height);
        code = avcodec_send_frame(encoder, frame);
    }
    if (code >= 0) code = avcodec_receive_packet(encoder, packet);
    if (code < 0) return vl_ffmpeg_error(code, "%s: cannot encode a PNG file", path);
    return vl_write_file_unsynced(path, packet->data, packet->size);
}

VlStatus vl_media_write_png(const char *path, int64_t height, int64_t width, const uint8_t *rgb) {
    VL_TRY(check_picture(path, height, width));
    vl_ffmpeg_silence();
    const AVCodec *codec = avcodec_find_encoder(AV_CODEC_ID_PNG);
    if (!codec) return vl_error(VL_UNSUPPORTED, "%s: FFmpeg has no PNG encoder", path);
    AVCodecContext *encoder = avcodec_alloc_context3(codec);
    AVFrame *frame = av_frame_alloc();
    AVPacket *packet = av_packet_alloc();
    VlStatus status;
    if (encoder && frame && packet) {
        encoder->width = (int)width;
        encoder->height = (int)height;
        encoder->pix_fmt = AV_PIX_FMT_RGB24;
        encoder->time_base = (AVRational){1, 1};
        encoder->thread_count = 1;
        encoder->flags |= AV_CODEC_FLAG_BITEXACT;
        status = encode_png(encoder, frame, packet, path, rgb);
    } else {
        status = vl_ffmpeg_error(AVERROR(ENOMEM), "%s", path);
    }
    av_packet_free(&packet);
    av_frame_free(&frame);
    avcodec_free_context(&encoder);
    return status;
}

#endif
