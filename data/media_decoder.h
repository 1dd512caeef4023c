// One video or sound stream being decoded by FFmpeg, frame after frame: the part of the readers that talks to the
// libraries.
#ifndef VL_DATA_MEDIA_DECODER_H
#define VL_DATA_MEDIA_DECODER_H

#include <libavcodec/avcodec.h>
#include <libavfilter/avfilter.h>
#include <libavformat/avformat.h>
#include <stdbool.h>

#include "data/media.h"

// FFmpeg counts rows that are rounded up to its alignment: its own limit gets this much more than ours.
enum { VL_ALIGNMENT_PIXELS = 64 * 65536 };

typedef struct VlDecoder {
    const char *path;  // the opener's
    enum AVMediaType type;
    VlMediaOptions options;
    double deadline;  // on the monotonic clock, in seconds; 0: none
    AVFormatContext *format;
    AVStream *stream;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame;  // what vl_decoder_next decoded
    bool draining;
    int64_t lost;         // packets after the first frame that could not be decoded
    bool damaged;         // a packet or frame since the last intact key frame could not be decoded completely
    int64_t packets;      // packets of the stream read since the opening or the last seek
    int64_t first_pts;    // presentation time of the first of them
    int64_t packets_end;  // the latest end of one of them
    int64_t last_bytes;   // of the last of them, and how it begins
    uint8_t last_head[8];
    int64_t frames;         // frames decoded since then
    int64_t height, width;  // of the converted picture; 0 until the first conversion
    AVFilterGraph *graph;
    AVFilterContext *source, *sink;
    int graph_format, graph_height, graph_width;  // what the graph was built for
} VlDecoder;

// The deadline of work that starts now.
double vl_media_deadline(const VlMediaOptions *options);
bool vl_media_is_late(double deadline);
// VL_INVALID once the deadline has passed.
VlStatus vl_media_check_deadline(const char *path, double deadline);
// Refuses what is no readable, regular, non-empty file.
VlStatus vl_media_check_file(const char *path);

// Opens a file and the decoder of its best video stream. A decoder that could not be opened needs no closing.
VlStatus vl_decoder_open(VlDecoder *decoder, const char *path, const VlMediaOptions *options, double deadline);
// The same for the sound track that the ffmpeg program would take. decoder->stream is NULL, and nothing but closing is
// allowed, where the file has no sound or none that this FFmpeg decodes. `sound_file`: Opus through libopus where
// FFmpeg has it, and PCM as PCM, as libsndfile reads files; else as the ffmpeg program does.
VlStatus vl_decoder_open_sound(VlDecoder *decoder, const char *path, const VlMediaOptions *options, double deadline,
                               bool sound_file);
void vl_decoder_close(VlDecoder *decoder);

// The next packet of the stream in decoder->packet (the next call releases it), without decoding it; *end after the
// last.
VlStatus vl_decoder_read_packet(VlDecoder *decoder, bool *end);
// The next frame in presentation order in decoder->frame; *end after the last.
VlStatus vl_decoder_next(VlDecoder *decoder, bool *end);
// Goes to the key packet at or before a time in the stream's units. False: the container cannot; open it anew.
bool vl_decoder_seek(VlDecoder *decoder, int64_t time);
// The sides of the current frame as shown.
void vl_decoder_shown_size(const VlDecoder *decoder, int64_t *height, int64_t *width);
// The current frame as RGB; `image` has the size of the first frame that was converted, to which others are scaled.
VlStatus vl_decoder_convert(VlDecoder *decoder, VlImage *image);

#endif
