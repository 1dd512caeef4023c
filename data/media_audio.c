#ifdef VL_HAVE_MEDIA

#include "data/media_audio.h"

#include <libavfilter/buffersink.h>
#include <libavfilter/buffersrc.h>
#include <libavutil/channel_layout.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "data/media_chunks.h"
#include "data/media_complete.h"
#include "data/media_decoder.h"
#include "data/media_ffmpeg.h"
#include "data/media_gif.h"

// More than encoders put in front of the sound and behind it.
enum { DELAY_SAMPLES = 8192 };

// ---- Is it all there? ------------------------------------------------------

static bool container_is(const VlDecoder *decoder, const char *name) {
    return !strcmp(decoder->format->iformat->name, name);
}

static bool is_pcm(const VlDecoder *decoder) { return av_get_exact_bits_per_sample(decoder->codec->codec_id) >= 8; }

// Length that the header states, in units of the stream's time; 0: it states none.
static int64_t promised_length(const VlDecoder *decoder) {
    bool stated = decoder->format->duration_estimation_method == AVFMT_DURATION_FROM_STREAM;
    return stated && decoder->stream->duration > 0 ? decoder->stream->duration : 0;
}

static VlStatus check_opened(const VlDecoder *decoder) {
    VL_TRY(vl_media_check_complete(decoder->path, decoder->deadline));
    return vl_chunks_check_complete(decoder->path);
}

// Bytes of the MPEG layer III or ADTS frame that begins so; 0 where its header does not say.
static int64_t frame_bytes(const VlDecoder *decoder, const uint8_t *head) {
    static const int rates[2][16] = {{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160},
                                     {0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320}};
    if (container_is(decoder, "aac")) return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5;
    bool third_layer = head[0] == 0xff && (head[1] & 0xe6) == 0xe2, first_version = head[1] & 8;
    if (!container_is(decoder, "mp3") || !third_layer || decoder->codec->sample_rate < 1) return 0;
    int64_t kilobits = rates[first_version][head[2] >> 4];
    return (first_version ? 144000 : 72000) * kilobits / decoder->codec->sample_rate + (head[2] >> 1 & 1);
}

// After the last packet: a header that promises more is the sign of a cut file. Encoders' delays are not counted alike
// everywhere, which the slack allows for.
static VlStatus check_length(const VlDecoder *decoder) {
    static const char *const trusted[] = {"flac", "mp3", "aiff", "w64", "au", "caf", "mov,mp4,m4a,3gp,3g2,mj2"};
    const AVStream *stream = decoder->stream;
    if (decoder->packets > 0 && frame_bytes(decoder, decoder->last_head) > decoder->last_bytes) {
        return vl_error(VL_FORMAT, "%s: truncated: its last frame is incomplete", decoder->path);
    }
    int64_t promised = promised_length(decoder), found = decoder->packets_end;
    if (decoder->packets > 0 && stream->start_time != AV_NOPTS_VALUE) found -= stream->start_time;
    bool exact = is_pcm(decoder) || container_is(decoder, "flac");
    int64_t slack =
        exact ? 0 : av_rescale_q(DELAY_SAMPLES, (AVRational){1, decoder->codec->sample_rate}, stream->time_base);
    for (size_t i = 0; i < sizeof trusted / sizeof *trusted; i++) {
        if (!container_is(decoder, trusted[i]) || promised <= found + slack) continue;
        return vl_error(VL_FORMAT, "%s: truncated: its header promises %.3f s of sound, it holds %.3f s", decoder->path,
                        (double)promised * av_q2d(stream->time_base), (double)found * av_q2d(stream->time_base));
    }
    return VL_OK;
}

static VlStatus check_decoded(const VlDecoder *decoder) {
    if (decoder->lost > 0) {
        return vl_error(VL_FORMAT, "%s: damaged: %lld packets of its sound cannot be decoded", decoder->path,
                        (long long)decoder->lost);
    }
    if (decoder->packets > 0 && decoder->frames == 0) {
        return vl_error(VL_FORMAT, "%s: none of its sound can be decoded", decoder->path);
    }
    return VL_OK;
}

// ---- A window of a file ----------------------------------------------------

// The samples read last, sample number i at i modulo `length`.
typedef struct Ring {
    double *samples;
    int64_t length, next;  // the number that the next sample gets
} Ring;

#define COPY_CHANNEL(type, expression)                 \
    do {                                               \
        const type *in = (const type *)frame->data[0]; \
        for (int64_t i = 0; i < count; i++) {          \
            const type x = in[(from + i) * step];      \
            out[i] = (expression);                     \
        }                                              \
    } while (0)

// Samples from, from + 1, .. of a frame's first channel; false for a sample format without a rule.
static bool copy_channel(const AVFrame *frame, int64_t from, int64_t count, double *out) {
    int64_t step = av_sample_fmt_is_planar(frame->format) ? 1 : frame->ch_layout.nb_channels;
    switch (av_get_packed_sample_fmt(frame->format)) {
    case AV_SAMPLE_FMT_U8: COPY_CHANNEL(uint8_t, ((double)x - 128) / 128); return true;
    case AV_SAMPLE_FMT_S16: COPY_CHANNEL(int16_t, (double)x / 32768); return true;
    case AV_SAMPLE_FMT_S32: COPY_CHANNEL(int32_t, (double)x / 0x1p31); return true;
    case AV_SAMPLE_FMT_S64: COPY_CHANNEL(int64_t, (double)x / 0x1p63); return true;
    case AV_SAMPLE_FMT_FLT: COPY_CHANNEL(float, (double)x); return true;
    case AV_SAMPLE_FMT_DBL: COPY_CHANNEL(double, x); return true;
    default: return false;
    }
}

// Adds a frame's samples up to number `end`.
static VlStatus fill_ring(Ring *ring, const VlDecoder *decoder, int64_t end) {
    const AVFrame *frame = decoder->frame;
    int64_t count = frame->nb_samples;
    if (count > end - ring->next) count = end - ring->next;
    for (int64_t done = 0, part; done < count; done += part, ring->next += part) {
        int64_t place = ring->next % ring->length;
        part = count - done < ring->length - place ? count - done : ring->length - place;
        if (!copy_channel(frame, done, part, ring->samples + place)) {
            return vl_error(VL_UNSUPPORTED, "%s: its sound has an unknown sample format", decoder->path);
        }
    }
    return VL_OK;
}

static void reverse(double *samples, int64_t count) {
    for (int64_t i = 0; i < count / 2; i++) {
        double sample = samples[i];
        samples[i] = samples[count - 1 - i];
        samples[count - 1 - i] = sample;
    }
}

// Files of floating-point samples can hold anything: what is no number, or so large that its power is none, ends here.
static VlStatus check_samples(const Ring *ring, const char *path) {
    for (int64_t i = 0; i < ring->length; i++) {
        if (fabs(ring->samples[i]) < 1e100) continue;
        return vl_error(VL_FORMAT, "%s: damaged: it holds samples that are no finite numbers", path);
    }
    return VL_OK;
}

// The first sample that the window may begin with, by what is known before anything is decoded.
static int64_t choose_start(const VlDecoder *decoder, const VlSoundWindow *window, int64_t rate) {
    if (window->start != VL_SOUND_WINDOW_AT_RANDOM) return window->start;
    int64_t length = decoder->stream->duration;
    AVRational samples = {1, (int)rate};
    length = length > 0 ? av_rescale_q(length, decoder->stream->time_base, samples)
                        : av_rescale_q(decoder->format->duration, AV_TIME_BASE_Q, samples);
    int64_t last = length - window->seconds * rate;
    return last > 0 ? (int64_t)(window->draw * (double)(last + 1)) : 0;
}

// Where packets carry exact sample numbers, starts behind what is not needed. The frame in the decoder is then the
// first.
static VlStatus skip_ahead(VlDecoder *decoder, int64_t start, const VlMediaOptions *options, Ring *ring) {
    bool end, exact = (is_pcm(decoder) && container_is(decoder, "wav")) || container_is(decoder, "flac");
    int64_t last = promised_length(decoder) - ring->length, target = start < last ? start : last;
    AVRational unit = decoder->stream->time_base;
    const char *path = decoder->path;
    double deadline = decoder->deadline;
    if (!exact || unit.num != 1 || unit.den != decoder->frame->sample_rate || target < ring->length) return VL_OK;
    if (vl_decoder_seek(decoder, target)) {
        VL_TRY(vl_decoder_next(decoder, &end));
        int64_t number = decoder->frame->pts;
        if (!end && number != AV_NOPTS_VALUE && number >= 0 && number <= target) {
            ring->next = number;
            return VL_OK;
        }
    }
    vl_decoder_close(decoder);
    VL_TRY(vl_decoder_open_sound(decoder, path, options, deadline, true));
    return vl_decoder_next(decoder, &end);
}

// The decoder holds the first frame.
static VlStatus read_window(VlDecoder *decoder, const VlSoundWindow *window, const VlMediaOptions *options,
                            Ring *ring) {
    int rate = decoder->frame->sample_rate;
    int64_t start = choose_start(decoder, window, rate), stop;
    bool end = false;
    if (!vl_add(start, ring->length, &stop)) stop = INT64_MAX;
    VL_TRY(skip_ahead(decoder, start, options, ring));
    while (!end && ring->next < stop) {
        if (decoder->frame->sample_rate != rate) {
            return vl_error(VL_UNSUPPORTED, "%s: its sampling rate changes from %d to %d Hz", decoder->path, rate,
                            decoder->frame->sample_rate);
        }
        VL_TRY(fill_ring(ring, decoder, stop));
        if (ring->next < stop) VL_TRY(vl_decoder_next(decoder, &end));
    }
    while (!end && !container_is(decoder, "wav")) VL_TRY(vl_decoder_read_packet(decoder, &end));
    VL_TRY(check_decoded(decoder));
    if (end) VL_TRY(check_length(decoder));
    VL_TRY(check_samples(ring, decoder->path));
    if (ring->next <= ring->length) return VL_OK;
    int64_t turn = ring->next % ring->length;
    reverse(ring->samples, turn);
    reverse(ring->samples + turn, ring->length - turn);
    reverse(ring->samples, ring->length);
    return VL_OK;
}

static VlStatus read_file(VlDecoder *decoder, const VlMediaOptions *options, const VlSoundWindow *window, Ring *ring,
                          int64_t *rate) {
    bool end;
    if (!decoder->stream) return vl_error(VL_FORMAT, "%s: holds no sound that FFmpeg can decode", decoder->path);
    VL_TRY(check_opened(decoder));
    VL_TRY(vl_decoder_next(decoder, &end));
    *rate = end ? decoder->codec->sample_rate : decoder->frame->sample_rate;
    if (*rate < 1 || *rate > VL_SOUND_HIGHEST_RATE) {
        return vl_error(VL_INVALID, "%s: its rate of %lld samples per second is outside 1 to %d", decoder->path,
                        (long long)*rate, VL_SOUND_HIGHEST_RATE);
    }
    ring->length = window->seconds * *rate;
    VL_TRY(VL_NEW(&ring->samples, ring->length));
    if (!end) return read_window(decoder, window, options, ring);
    VL_TRY(check_decoded(decoder));
    return check_length(decoder);
}

VlStatus vl_sound_read_file(const char *path, const VlMediaOptions *options, const VlSoundWindow *window,
                            double **samples, int64_t *rate) {
    VlDecoder decoder;
    Ring ring = {0};
    *samples = NULL;
    *rate = 0;
    if (window->seconds < 1 || (window->start < 0 && window->start != VL_SOUND_WINDOW_AT_RANDOM)) {
        return vl_error(VL_INVALID, "%s: a window of %lld s from sample %lld on", path, (long long)window->seconds,
                        (long long)window->start);
    }
    VL_TRY(vl_decoder_open_sound(&decoder, path, options, vl_media_deadline(options), true));
    VlStatus status = read_file(&decoder, options, window, &ring, rate);
    vl_decoder_close(&decoder);
    if (status == VL_OK) {
        *samples = ring.samples;
    } else {
        vl_free(ring.samples);
    }
    return status;
}

// ---- A whole track ---------------------------------------------------------

typedef struct Track {
    VlDecoder decoder;
    AVFilterGraph *graph;
    AVFilterContext *source, *sink;
    AVFrame *converted;
    int format, rate;  // what the graph was built for
    AVChannelLayout layout;
    int16_t *samples;
    int64_t count, capacity;
} Track;

static VlStatus collect(Track *track) {
    enum { MOST_SAMPLES = VL_SOUND_TRACK_HOURS * 3600 * VL_SOUND_TRACK_RATE };
    for (;;) {
        AVFrame *frame = track->converted;
        int code = av_buffersink_get_frame(track->sink, frame);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return VL_OK;
        if (code < 0) return vl_ffmpeg_error(code, "%s: cannot convert its sound", track->decoder.path);
        if (track->count + frame->nb_samples > MOST_SAMPLES) {
            return vl_error(VL_INVALID, "%s: its sound lasts longer than %d hours", track->decoder.path,
                            VL_SOUND_TRACK_HOURS);
        }
        VL_TRY(vl_reserve(&track->samples, &track->capacity, track->count + frame->nb_samples, sizeof(int16_t)));
        memcpy(track->samples + track->count, frame->data[0], (size_t)frame->nb_samples * sizeof(int16_t));
        track->count += frame->nb_samples;
        av_frame_unref(frame);
    }
}

// A NULL frame ends the stream.
static VlStatus convert(Track *track, AVFrame *frame) {
    int code = av_buffersrc_add_frame_flags(track->source, frame, AV_BUFFERSRC_FLAG_KEEP_REF);
    if (code < 0) return vl_ffmpeg_error(code, "%s: cannot convert its sound", track->decoder.path);
    return collect(track);
}

static VlStatus build_graph(Track *track, const AVFrame *frame) {
    char source[256], layout[128];
    avfilter_graph_free(&track->graph);
    track->graph = avfilter_graph_alloc();
    AVFilterInOut *outputs = avfilter_inout_alloc(), *inputs = avfilter_inout_alloc();
    int code = track->graph && outputs && inputs ? 0 : AVERROR(ENOMEM);
    if (code >= 0) code = av_channel_layout_describe(&frame->ch_layout, layout, sizeof layout);
    if (code >= 0) {
        track->graph->nb_threads = 1;
        snprintf(source, sizeof source, "time_base=1/%d:sample_rate=%d:sample_fmt=%s:channel_layout=%s",
                 frame->sample_rate, frame->sample_rate, av_get_sample_fmt_name(frame->format), layout);
        code = avfilter_graph_create_filter(&track->source, avfilter_get_by_name("abuffer"), "in", source, NULL,
                                            track->graph);
    }
    if (code >= 0) {
        code = avfilter_graph_create_filter(&track->sink, avfilter_get_by_name("abuffersink"), "out", NULL, NULL,
                                            track->graph);
    }
    if (code >= 0) {
        *outputs = (AVFilterInOut){.name = av_strdup("in"), .filter_ctx = track->source};
        *inputs = (AVFilterInOut){.name = av_strdup("out"), .filter_ctx = track->sink};
        code = avfilter_graph_parse_ptr(track->graph, "aformat=s16:16000:mono", &inputs, &outputs, NULL);
    }
    if (code >= 0) code = avfilter_graph_config(track->graph, NULL);
    avfilter_inout_free(&outputs);
    avfilter_inout_free(&inputs);
    if (code >= 0) code = av_channel_layout_copy(&track->layout, &frame->ch_layout);
    if (code < 0) return vl_ffmpeg_error(code, "%s: cannot convert its sound", track->decoder.path);
    track->format = frame->format;
    track->rate = frame->sample_rate;
    return VL_OK;
}

static VlStatus add_frame(Track *track, AVFrame *frame) {
    if (frame->ch_layout.order == AV_CHANNEL_ORDER_UNSPEC) {
        av_channel_layout_default(&frame->ch_layout, frame->ch_layout.nb_channels);
    }
    if (!track->graph || frame->format != track->format || frame->sample_rate != track->rate ||
        av_channel_layout_compare(&frame->ch_layout, &track->layout) != 0) {
        if (track->graph) VL_TRY(convert(track, NULL));
        VL_TRY(build_graph(track, frame));
    }
    return convert(track, frame);
}

static VlStatus read_track(Track *track, const char *path, const VlMediaOptions *options) {
    VL_TRY(vl_decoder_open_sound(&track->decoder, path, options, vl_media_deadline(options), false));
    if (!track->decoder.stream) return VL_OK;
    VL_TRY(check_opened(&track->decoder));
    track->converted = av_frame_alloc();
    if (!track->converted) return vl_ffmpeg_error(AVERROR(ENOMEM), "%s", path);
    for (;;) {
        bool end;
        VL_TRY(vl_decoder_next(&track->decoder, &end));
        if (end) break;
        VL_TRY(add_frame(track, track->decoder.frame));
    }
    if (track->graph) VL_TRY(convert(track, NULL));
    VL_TRY(check_decoded(&track->decoder));
    return check_length(&track->decoder);
}

VlStatus vl_sound_read_track(const char *path, const VlMediaOptions *options, int16_t **samples, int64_t *count) {
    Track track = {0};
    *samples = NULL;
    *count = 0;
    if (vl_path_is_folder(path) || vl_gif_recognise(path)) return VL_OK;
    VlStatus status = read_track(&track, path, options);
    vl_decoder_close(&track.decoder);
    avfilter_graph_free(&track.graph);
    av_frame_free(&track.converted);
    av_channel_layout_uninit(&track.layout);
    if (status == VL_OK) {
        *samples = track.samples;
        *count = track.count;
    } else {
        vl_free(track.samples);
    }
    return status;
}

#endif
