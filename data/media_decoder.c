#ifdef VL_HAVE_MEDIA

#include "data/media_decoder.h"

#include <errno.h>
#include <libavfilter/buffersink.h>
#include <libavfilter/buffersrc.h>
#include <libavutil/display.h>
#include <libavutil/imgutils.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/files.h"
#include "base/memory.h"
#include "data/media_ffmpeg.h"

// Containers that hold videos or sounds. Playlists, which name other files, pictures and texts are left out on purpose.
static const char *const CONTAINERS =
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,m4v,h264,hevc,ivf,rm,dv,mjpeg,mxf,"
    "nut,wtv,yuv4mpegpipe,obu,av1,vc1,swf,wav,w64,flac,mp3,aac,aiff,au,caf,amr,ac3,eac3";

enum { FRAME_THREADS_UP_TO_PIXELS = 3840 * 2160 };

double vl_media_deadline(const VlMediaOptions *options) {
    return options->max_seconds > 0 ? vl_seconds() + options->max_seconds : 0.0;
}

bool vl_media_is_late(double deadline) { return deadline > 0 && vl_seconds() > deadline; }

VlStatus vl_media_check_deadline(const char *path, double deadline) {
    if (!vl_media_is_late(deadline)) return VL_OK;
    return vl_error(VL_INVALID, "%s: reading takes longer than the limit for one file allows", path);
}

VlStatus vl_media_check_file(const char *path) {
    struct stat info;
    if (stat(path, &info) != 0) return vl_error(VL_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return vl_error(VL_FORMAT, "%s: is no regular file", path);
    if (info.st_size == 0) return vl_error(VL_FORMAT, "%s: the file is empty", path);
    return VL_OK;
}

static int interrupt(void *decoder) { return vl_media_is_late(((const VlDecoder *)decoder)->deadline); }

void vl_decoder_close(VlDecoder *decoder) {
    avfilter_graph_free(&decoder->graph);
    av_frame_free(&decoder->frame);
    av_packet_free(&decoder->packet);
    avcodec_free_context(&decoder->codec);
    avformat_close_input(&decoder->format);
    *decoder = (VlDecoder){0};
}

static const char *medium(const VlDecoder *decoder) { return decoder->type == AVMEDIA_TYPE_AUDIO ? "sound" : "video"; }

static VlStatus open_container(VlDecoder *decoder, bool sound_file) {
    char url[VL_PATH_MAX + 8];
    snprintf(url, sizeof url, "file:%s", decoder->path);  // so that no path is taken for another protocol
    decoder->format = avformat_alloc_context();
    if (!decoder->format) return vl_ffmpeg_error(AVERROR(ENOMEM), "%s", decoder->path);
    decoder->format->interrupt_callback = (AVIOInterruptCB){interrupt, decoder};
    decoder->format->format_whitelist = av_strdup(CONTAINERS);
    decoder->format->protocol_whitelist = av_strdup("file");
    if (sound_file) decoder->format->max_probe_packets = 1;  // no search for other codecs inside of PCM: it is slow
    int code = avformat_open_input(&decoder->format, url, NULL, NULL);
    if (code < 0) {
        VL_TRY(vl_media_check_deadline(decoder->path, decoder->deadline));
        return vl_ffmpeg_error(code, "%s: no %s can be read", decoder->path, medium(decoder));
    }
    return VL_OK;
}

// Fills in what headers leave open, with the limits set in the decoders that this needs.
static VlStatus find_streams(VlDecoder *decoder) {
    unsigned streams = decoder->format->nb_streams;
    AVDictionary **each = NULL;
    VL_TRY(VL_NEW(&each, streams));
    for (unsigned i = 0; i < streams; i++) {
        av_dict_set_int(&each[i], "max_pixels", decoder->options.max_frame_pixels + VL_ALIGNMENT_PIXELS, 0);
        av_dict_set(&each[i], "threads", "1", 0);
    }
    int code = avformat_find_stream_info(decoder->format, streams ? each : NULL);
    for (unsigned i = 0; i < streams; i++) av_dict_free(&each[i]);
    vl_free(each);
    VL_TRY(vl_media_check_deadline(decoder->path, decoder->deadline));
    if (code < 0) return vl_ffmpeg_error(code, "%s: no %s can be read", decoder->path, medium(decoder));
    return VL_OK;
}

// The decoder to use is left in *codec.
static VlStatus choose_picture(VlDecoder *decoder, const AVCodec **codec) {
    int index = av_find_best_stream(decoder->format, AVMEDIA_TYPE_VIDEO, -1, -1, codec, 0);
    if (index == AVERROR_DECODER_NOT_FOUND) {
        return vl_error(VL_UNSUPPORTED, "%s: FFmpeg has no decoder for its video", decoder->path);
    }
    if (index < 0 || (decoder->format->streams[index]->disposition & AV_DISPOSITION_ATTACHED_PIC)) {
        return vl_error(VL_FORMAT, "%s: holds no video", decoder->path);
    }
    decoder->stream = decoder->format->streams[index];
    const AVCodecParameters *parameters = decoder->stream->codecpar;
    if ((int64_t)parameters->width * parameters->height > decoder->options.max_frame_pixels) {
        return vl_error(VL_INVALID, "%s: a frame of %d x %d pixels is over the limit of %lld pixels", decoder->path,
                        parameters->width, parameters->height, (long long)decoder->options.max_frame_pixels);
    }
    return VL_OK;
}

static const AVCodec *preferred_decoder(enum AVCodecID id, bool sound_file) {
    const AVCodec *codec = sound_file && id == AV_CODEC_ID_OPUS ? avcodec_find_decoder_by_name("libopus") : NULL;
    return codec ? codec : avcodec_find_decoder(id);
}

// The sound track that the ffmpeg program takes: one that holds something before others, then a default one, then the
// one with the most channels. decoder->stream stays NULL where there is none that FFmpeg can decode.
static void choose_sound(VlDecoder *decoder, bool sound_file, const AVCodec **codec) {
    int64_t best = -1;
    for (unsigned i = 0; i < decoder->format->nb_streams; i++) {
        AVStream *stream = decoder->format->streams[i];
        if (stream->codecpar->codec_type != AVMEDIA_TYPE_AUDIO) continue;
        const AVCodec *found = preferred_decoder(stream->codecpar->codec_id, sound_file);
        int64_t score = stream->codecpar->ch_layout.nb_channels;
        if (stream->event_flags & AVSTREAM_EVENT_FLAG_NEW_PACKETS) score += 100000000;
        if (stream->disposition & AV_DISPOSITION_DEFAULT) score += 5000000;
        if (!found || score <= best) continue;
        best = score;
        decoder->stream = stream;
        *codec = found;
    }
}

// Decoders are to notice what they can. H.264 and HEVC mark the frames that they repair by themselves, and would refuse
// good frames for messages beside them that are written badly; the others have to be told to give up.
static int error_recognition(enum AVCodecID codec) {
    int notice = AV_EF_CRCCHECK | AV_EF_BITSTREAM | AV_EF_BUFFER;
    return codec == AV_CODEC_ID_H264 || codec == AV_CODEC_ID_HEVC ? notice : notice | AV_EF_EXPLODE;
}

static VlStatus open_codec(VlDecoder *decoder, const AVCodec *codec) {
    for (unsigned i = 0; i < decoder->format->nb_streams; i++) {
        if (decoder->format->streams[i] != decoder->stream) decoder->format->streams[i]->discard = AVDISCARD_ALL;
    }
    const AVCodecParameters *parameters = decoder->stream->codecpar;
    decoder->codec = avcodec_alloc_context3(codec);
    decoder->packet = av_packet_alloc();
    decoder->frame = av_frame_alloc();
    if (!decoder->codec || !decoder->packet || !decoder->frame) {
        return vl_ffmpeg_error(AVERROR(ENOMEM), "%s", decoder->path);
    }
    int code = avcodec_parameters_to_context(decoder->codec, parameters);
    if (code >= 0) {
        decoder->codec->pkt_timebase = decoder->stream->time_base;
        decoder->codec->request_sample_fmt = AV_SAMPLE_FMT_FLT;  // where a decoder has a choice: not rounded to 16 bits
        decoder->codec->max_pixels = decoder->options.max_frame_pixels + VL_ALIGNMENT_PIXELS;
        decoder->codec->thread_count = decoder->options.threads > 1 ? decoder->options.threads : 1;
        bool large = (int64_t)parameters->width * parameters->height > FRAME_THREADS_UP_TO_PIXELS;
        if (large) decoder->codec->thread_type = FF_THREAD_SLICE;  // bounds the memory
        if (decoder->type == AVMEDIA_TYPE_VIDEO) decoder->codec->err_recognition = error_recognition(codec->id);
        code = avcodec_open2(decoder->codec, codec, NULL);
    }
    if (code < 0) return vl_ffmpeg_error(code, "%s: cannot open the decoder %s", decoder->path, codec->name);
    return VL_OK;
}

static VlStatus open_decoder(VlDecoder *decoder, bool sound_file) {
    const char *path = decoder->path;
    const AVCodec *codec = NULL;
    vl_ffmpeg_silence();
    VlStatus status;
    VL_TRY_GOTO(status, vl_media_check_file(path), failed);
    VL_TRY_GOTO(status, open_container(decoder, sound_file), failed);
    VL_TRY_GOTO(status, find_streams(decoder), failed);
    if (decoder->type == AVMEDIA_TYPE_VIDEO) VL_TRY_GOTO(status, choose_picture(decoder, &codec), failed);
    if (decoder->type == AVMEDIA_TYPE_AUDIO) choose_sound(decoder, sound_file, &codec);
    if (decoder->stream) VL_TRY_GOTO(status, open_codec(decoder, codec), failed);
    return VL_OK;
failed:
    vl_decoder_close(decoder);
    return status;
}

VlStatus vl_decoder_open(VlDecoder *decoder, const char *path, const VlMediaOptions *options, double deadline) {
    *decoder = (VlDecoder){.path = path, .type = AVMEDIA_TYPE_VIDEO, .options = *options, .deadline = deadline};
    return open_decoder(decoder, false);
}

VlStatus vl_decoder_open_sound(VlDecoder *decoder, const char *path, const VlMediaOptions *options, double deadline,
                               bool sound_file) {
    *decoder = (VlDecoder){.path = path, .type = AVMEDIA_TYPE_AUDIO, .options = *options, .deadline = deadline};
    return open_decoder(decoder, sound_file);
}

static void note_packet(VlDecoder *decoder) {
    const AVPacket *packet = decoder->packet;
    if (decoder->packets++ == 0) decoder->first_pts = packet->pts;
    decoder->last_bytes = packet->size;
    memset(decoder->last_head, 0, sizeof decoder->last_head);
    for (int i = 0; i < packet->size && i < (int)sizeof decoder->last_head; i++)
        decoder->last_head[i] = packet->data[i];
    if (packet->pts == AV_NOPTS_VALUE) return;
    int64_t end = packet->pts + packet->duration;
    if (decoder->packets == 1 || end > decoder->packets_end) decoder->packets_end = end;
}

VlStatus vl_decoder_read_packet(VlDecoder *decoder, bool *end) {
    *end = false;
    for (;;) {
        av_packet_unref(decoder->packet);
        int code = av_read_frame(decoder->format, decoder->packet);
        VL_TRY(vl_media_check_deadline(decoder->path, decoder->deadline));
        if (code == AVERROR_EOF && decoder->format->pb && decoder->format->pb->error < 0) {
            code = decoder->format->pb->error;
        }
        if (code == AVERROR_EOF) {
            *end = true;
            return VL_OK;
        }
        if (code < 0) {
            return vl_ffmpeg_error(code, "%s: truncated or damaged after %lld frames", decoder->path,
                                   (long long)decoder->packets);
        }
        if (decoder->packet->stream_index == decoder->stream->index) {
            note_packet(decoder);
            return VL_OK;
        }
    }
}

// Only what comes before the first frame may fail without a trace: a stream that was cut begins with packets that
// nothing can decode.
static void note_loss(VlDecoder *decoder) {
    if (decoder->frames == 0) return;
    decoder->damaged = true;
    decoder->lost++;
}

static VlStatus feed(VlDecoder *decoder) {
    bool end;
    VL_TRY(vl_decoder_read_packet(decoder, &end));
    if (!end && (decoder->packet->flags & AV_PKT_FLAG_CORRUPT)) decoder->damaged = decoder->frames > 0;
    int code = avcodec_send_packet(decoder->codec, end ? NULL : decoder->packet);
    decoder->draining = end;
    if (code == AVERROR(ENOMEM)) return vl_ffmpeg_error(code, "%s", decoder->path);
    if (code < 0 && code != AVERROR_EOF) note_loss(decoder);
    return VL_OK;
}

VlStatus vl_decoder_next(VlDecoder *decoder, bool *end) {
    *end = false;
    for (;;) {
        VL_TRY(vl_media_check_deadline(decoder->path, decoder->deadline));
        int code = avcodec_receive_frame(decoder->codec, decoder->frame);
        if (code >= 0) break;
        if (code == AVERROR(ENOMEM)) return vl_ffmpeg_error(code, "%s", decoder->path);
        if (code == AVERROR_EOF || (decoder->draining && code == AVERROR(EAGAIN))) {
            *end = true;
            return VL_OK;
        }
        if (code != AVERROR(EAGAIN)) {
            note_loss(decoder);
            if (decoder->draining) {
                *end = true;
                return VL_OK;
            }
            continue;
        }
        VL_TRY(feed(decoder));
    }
    const AVFrame *frame = decoder->frame;
    bool intact = !frame->decode_error_flags && !(frame->flags & AV_FRAME_FLAG_CORRUPT);
    if (!intact) decoder->damaged = true;
    if (intact && frame->key_frame) decoder->damaged = false;
    decoder->frames++;
    return VL_OK;
}

bool vl_decoder_seek(VlDecoder *decoder, int64_t time) {
    if (av_seek_frame(decoder->format, decoder->stream->index, time, AVSEEK_FLAG_BACKWARD) < 0) return false;
    avcodec_flush_buffers(decoder->codec);
    decoder->draining = decoder->damaged = false;
    decoder->packets = decoder->packets_end = decoder->frames = decoder->lost = 0;
    return true;
}

// Quarter turns clockwise that the container asks for.
static int quarter_turns(const AVStream *stream) {
    const int32_t *matrix = (const int32_t *)av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, NULL);
    if (!matrix) return 0;
    double angle = -av_display_rotation_get(matrix);
    if (!isfinite(angle)) return 0;
    return (int)((lround(angle / 90.0) % 4 + 4) % 4);
}

void vl_decoder_shown_size(const VlDecoder *decoder, int64_t *height, int64_t *width) {
    bool turned = quarter_turns(decoder->stream) % 2 == 1;
    *height = turned ? decoder->frame->width : decoder->frame->height;
    *width = turned ? decoder->frame->height : decoder->frame->width;
}

static VlStatus build_graph(VlDecoder *decoder) {
    static const char *const turns[] = {"", "transpose=clock,", "transpose=clock,transpose=clock,",
                                        "transpose=cclock,"};
    const AVFrame *frame = decoder->frame;
    char source[256], chain[256];
    AVRational unit = decoder->stream->time_base;
    snprintf(source, sizeof source, "video_size=%dx%d:pix_fmt=%d:time_base=%d/%d:pixel_aspect=1/1", frame->width,
             frame->height, frame->format, unit.num, unit.den);
    snprintf(chain, sizeof chain, "%sscale=%lld:%lld:flags=bicubic,format=pix_fmts=rgb24",
             turns[quarter_turns(decoder->stream)], (long long)decoder->width, (long long)decoder->height);
    avfilter_graph_free(&decoder->graph);
    decoder->graph = avfilter_graph_alloc();
    AVFilterInOut *outputs = avfilter_inout_alloc(), *inputs = avfilter_inout_alloc();
    int code = AVERROR(ENOMEM);
    if (decoder->graph && outputs && inputs) {
        decoder->graph->nb_threads = 1;
        code = avfilter_graph_create_filter(&decoder->source, avfilter_get_by_name("buffer"), "in", source, NULL,
                                            decoder->graph);
    }
    if (code >= 0) {
        code = avfilter_graph_create_filter(&decoder->sink, avfilter_get_by_name("buffersink"), "out", NULL, NULL,
                                            decoder->graph);
    }
    if (code >= 0) {
        *outputs = (AVFilterInOut){.name = av_strdup("in"), .filter_ctx = decoder->source};
        *inputs = (AVFilterInOut){.name = av_strdup("out"), .filter_ctx = decoder->sink};
        code = avfilter_graph_parse_ptr(decoder->graph, chain, &inputs, &outputs, NULL);
    }
    if (code >= 0) code = avfilter_graph_config(decoder->graph, NULL);
    avfilter_inout_free(&outputs);
    avfilter_inout_free(&inputs);
    if (code < 0) return vl_ffmpeg_error(code, "%s: cannot convert its frames to RGB", decoder->path);
    decoder->graph_format = frame->format;
    decoder->graph_height = frame->height;
    decoder->graph_width = frame->width;
    return VL_OK;
}

VlStatus vl_decoder_convert(VlDecoder *decoder, VlImage *image) {
    AVFrame *frame = decoder->frame;
    if (!decoder->width) vl_decoder_shown_size(decoder, &decoder->height, &decoder->width);
    if (!decoder->graph || frame->format != decoder->graph_format || frame->height != decoder->graph_height ||
        frame->width != decoder->graph_width) {
        VL_TRY(build_graph(decoder));
    }
    AVFrame *shown = av_frame_alloc();
    int code =
        shown ? av_buffersrc_add_frame_flags(decoder->source, frame, AV_BUFFERSRC_FLAG_KEEP_REF) : AVERROR(ENOMEM);
    if (code >= 0) code = av_buffersink_get_frame(decoder->sink, shown);
    if (code >= 0 && (shown->width != image->width || shown->height != image->height)) code = AVERROR_BUG;
    if (code >= 0) {
        int row = 3 * shown->width;
        av_image_copy_plane(image->pixels, row, shown->data[0], shown->linesize[0], row, shown->height);
    }
    av_frame_free(&shown);
    if (code < 0) return vl_ffmpeg_error(code, "%s: cannot convert its frames to RGB", decoder->path);
    return VL_OK;
}

#endif
