#ifdef VL_HAVE_MEDIA

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/files.h"
#include "base/memory.h"
#include "data/media.h"
#include "data/media_complete.h"
#include "data/media_decoder.h"
#include "data/media_gif.h"
#include "data/media_webp.h"

static const double GIF_FPS = 25.0, FOLDER_FPS = 3.0;

// A packet in decoding order, and a frame in presentation order.
typedef struct PacketPlace {
    int64_t pts, dts;
    bool key;
} PacketPlace;

typedef struct FramePlace {
    int64_t pts, packet;
} FramePlace;

struct VlVideo {
    VlVideoInfo info;
    VlMediaOptions options;
    double deadline;
    char *path;
    char **names;  // of a folder: info.count pictures
    VlGif *gif;
    VlDecoder decoder;
    VlImage frame;
    double seconds;  // of `frame`
    bool indexed;    // the container's packets say which frames there are; else frames are known by their number
    int64_t packets, packet_capacity, frames, frame_capacity;
    PacketPlace *packet;
    FramePlace *place;
    int64_t start_packet;  // the packet that decoding began with; -1: not known
    int64_t shown;         // index of the frame in `frame`; -1: none
};

VlMediaOptions vl_media_defaults(void) {
    return (VlMediaOptions){
        .max_pixels = 12000 * 12000, .max_frame_pixels = 8192 * 4608, .max_seconds = 9.0, .threads = 1};
}

const VlVideoInfo *vl_video_info(const VlVideo *video) { return &video->info; }

static VlStatus reopen(VlVideo *video) {
    int64_t height = video->decoder.height, width = video->decoder.width;
    vl_decoder_close(&video->decoder);
    VL_TRY(vl_decoder_open(&video->decoder, video->path, &video->options, video->deadline));
    video->decoder.height = height;
    video->decoder.width = width;
    video->start_packet = 0;
    video->shown = -1;
    return VL_OK;
}

static VlStatus note_packet(VlVideo *video) {
    const AVPacket *packet = video->decoder.packet;
    VL_TRY(vl_reserve(&video->packet, &video->packet_capacity, video->packets + 1, sizeof *video->packet));
    video->packet[video->packets] =
        (PacketPlace){.pts = packet->pts, .dts = packet->dts, .key = (packet->flags & AV_PKT_FLAG_KEY) != 0};
    bool plain = packet->pts != AV_NOPTS_VALUE && packet->size > 0 && !(packet->flags & AV_PKT_FLAG_CORRUPT);
    if (!plain) video->indexed = false;
    if (!(packet->flags & AV_PKT_FLAG_DISCARD)) {
        VL_TRY(vl_reserve(&video->place, &video->frame_capacity, video->frames + 1, sizeof *video->place));
        video->place[video->frames++] = (FramePlace){.pts = packet->pts, .packet = video->packets};
    }
    video->packets++;
    return VL_OK;
}

static int compare_places(const void *a, const void *b) {
    const FramePlace *x = a, *y = b;
    return (x->pts > y->pts) - (x->pts < y->pts);
}

// In these containers one packet is one frame; VP8 alone hides frames in packets of their own.
static bool has_trusted_packets(const VlDecoder *decoder) {
    static const char *const trusted[] = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"};
    if (decoder->stream->codecpar->codec_id == AV_CODEC_ID_VP8) return false;
    for (size_t i = 0; i < sizeof trusted / sizeof trusted[0]; i++) {
        if (!strcmp(decoder->format->iformat->name, trusted[i])) return true;
    }
    return false;
}

// Reads all packets. A header that promises more than the file holds is the sign of a cut file.
static VlStatus index_packets(VlVideo *video) {
    VlDecoder *decoder = &video->decoder;
    bool cut = false;
    video->indexed = has_trusted_packets(decoder);
    for (bool end;;) {
        VL_TRY(vl_decoder_read_packet(decoder, &end));
        if (end) break;
        VL_TRY(note_packet(video));
        cut = (decoder->packet->flags & AV_PKT_FLAG_CORRUPT) != 0;
    }
    if (cut) return vl_error(VL_FORMAT, "%s: truncated: its last frame is incomplete", video->path);
    int64_t promised = decoder->stream->nb_frames;
    if (promised > video->packets) {
        return vl_error(VL_FORMAT, "%s: truncated: its header promises %lld frames, it holds %lld", video->path,
                        (long long)promised, (long long)video->packets);
    }
    if (video->packets == 0) return vl_error(VL_FORMAT, "%s: holds no frames", video->path);
    qsort(video->place, (size_t)video->frames, sizeof *video->place, compare_places);
    for (int64_t i = 1; i < video->frames; i++) {
        if (video->place[i].pts == video->place[i - 1].pts) video->indexed = false;
    }
    if (video->frames == 0) video->indexed = false;
    return VL_OK;
}

// Decodes the first frame, which gives the picture's size. False in video->indexed when it is not the one that the
// packets promise (a stream that was cut begins with frames that nothing can decode).
static VlStatus decode_head(VlVideo *video) {
    bool end;
    VL_TRY(reopen(video));
    VL_TRY(vl_decoder_next(&video->decoder, &end));
    if (end) return vl_error(VL_FORMAT, "%s: none of its frames can be decoded", video->path);
    vl_decoder_shown_size(&video->decoder, &video->info.height, &video->info.width);
    video->decoder.height = video->info.height;
    video->decoder.width = video->info.width;
    if (video->indexed && video->decoder.frame->pts != video->place[0].pts) video->indexed = false;
    return vl_image_allocate(&video->frame, video->info.height, video->info.width);
}

static VlStatus count_frames(VlVideo *video) {
    VlDecoder *decoder = &video->decoder;  // the first frame is decoded
    for (bool end = false; !end;) VL_TRY(vl_decoder_next(decoder, &end));
    if (decoder->lost > 0) {
        return vl_error(VL_FORMAT, "%s: damaged: %lld packets cannot be decoded, which leaves %lld frames", video->path,
                        (long long)decoder->lost, (long long)decoder->frames);
    }
    if (decoder->damaged) {
        return vl_error(VL_FORMAT, "%s: truncated or damaged: its last frames cannot be decoded completely",
                        video->path);
    }
    video->frames = decoder->frames;
    video->start_packet = -1;
    return VL_OK;
}

static double average_fps(const VlVideo *video) {
    const AVStream *stream = video->decoder.stream;
    AVRational rate = stream->avg_frame_rate.num > 0 && stream->avg_frame_rate.den > 0 ? stream->avg_frame_rate
                                                                                       : stream->r_frame_rate;
    return rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0.0;
}

// The reference has no reader for animated WebP files, and FFmpeg has none either.
static VlStatus refuse_webp(const char *path) {
    VlReader file;
    uint8_t head[12] = {0};
    VL_TRY(vl_reader_open(&file, path));
    VlStatus status = file.size >= (int64_t)sizeof head ? vl_reader_read(&file, 0, head, sizeof head) : VL_OK;
    vl_reader_close(&file);
    VL_TRY(status);
    if (!vl_webp_recognise(head, sizeof head)) return VL_OK;
    return vl_error(VL_UNSUPPORTED, "%s: a WebP file cannot be read as a video: convert it to GIF or MP4", path);
}

static VlStatus open_stream(VlVideo *video) {
    VL_TRY(vl_media_check_file(video->path));
    VL_TRY(refuse_webp(video->path));
    VL_TRY(vl_decoder_open(&video->decoder, video->path, &video->options, video->deadline));
    video->info.kind = VL_VIDEO_STREAM;
    video->info.fps = average_fps(video);
    VL_TRY(vl_media_check_complete(video->path, video->deadline));
    VL_TRY(index_packets(video));
    VL_TRY(decode_head(video));
    if (!video->indexed) VL_TRY(count_frames(video));
    video->info.count = video->frames;
    return VL_OK;
}

static VlStatus open_gif(VlVideo *video) {
    VL_TRY(vl_gif_open(&video->gif, video->path, video->options.max_frame_pixels, video->deadline));
    video->info.kind = VL_VIDEO_GIF;
    video->info.fps = GIF_FPS;
    video->info.count = vl_gif_frames(video->gif);
    vl_gif_size(video->gif, &video->info.height, &video->info.width);
    return vl_image_allocate(&video->frame, video->info.height, video->info.width);
}

static VlStatus read_gif(VlVideo *video, int64_t index) {
    const VlImage *shown;
    VL_TRY(vl_gif_read(video->gif, index, &shown));
    memcpy(video->frame.pixels, shown->pixels, (size_t)(shown->height * shown->width * 3));
    video->seconds = vl_gif_seconds(video->gif, index);
    video->shown = index;
    return VL_OK;
}

static bool has_picture_extension(const char *name) {
    static const char *const known[] = {"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pnm"};
    const char *dot = strrchr(name, '.');
    if (name[0] == '.' || !dot) return false;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!strcasecmp(dot + 1, known[i])) return true;
    }
    return false;
}

static VlStatus read_picture(VlVideo *video, int64_t index) {
    char path[VL_PATH_MAX];
    VL_TRY(vl_path_join(path, video->path, video->names[index]));
    vl_image_free(&video->frame);
    VL_TRY(vl_image_read(path, &video->options, &video->frame));
    video->seconds = (double)index / FOLDER_FPS;
    video->shown = index;
    return VL_OK;
}

static VlStatus open_folder(VlVideo *video) {
    char **names = NULL;
    int64_t count = 0;
    VL_TRY(vl_list_folder(video->path, &names, &count));
    VlStatus status = VL_NEW(&video->names, count);
    for (int64_t i = 0; status == VL_OK && i < count; i++) {
        if (!has_picture_extension(names[i])) continue;
        status = vl_duplicate_string(&video->names[video->info.count], names[i]);
        if (status == VL_OK) video->info.count++;
    }
    vl_free_names(names, count);
    VL_TRY(status);
    if (video->info.count == 0) return vl_error(VL_FORMAT, "%s: a folder without pictures", video->path);
    video->info.kind = VL_VIDEO_FOLDER;
    video->info.fps = FOLDER_FPS;
    VL_TRY(read_picture(video, 0));
    video->info.height = video->frame.height;
    video->info.width = video->frame.width;
    return VL_OK;
}

VlStatus vl_video_open(VlVideo **video, const char *path, const VlMediaOptions *options) {
    *video = NULL;
    VlVideo *made = NULL;
    VL_TRY(VL_NEW(&made, 1));
    made->options = *options;
    made->deadline = vl_media_deadline(options);
    made->shown = -1;
    VlStatus status;
    VL_TRY_GOTO(status, vl_duplicate_string(&made->path, path), failed);
    bool folder = vl_path_is_folder(path), gif = !folder && vl_gif_recognise(path);
    VL_TRY_GOTO(status, (folder ? open_folder : gif ? open_gif : open_stream)(made), failed);
    *video = made;
    return VL_OK;
failed:
    vl_video_close(made);
    return status;
}

void vl_video_close(VlVideo *video) {
    if (!video) return;
    vl_decoder_close(&video->decoder);
    vl_gif_close(video->gif);
    vl_image_free(&video->frame);
    if (video->names) vl_free_names(video->names, video->info.count);
    vl_free(video->packet);
    vl_free(video->place);
    vl_free(video->path);
    vl_free(video);
}

// The last key packet from which the frame can be decoded: not after it, neither in decoding nor in presentation order.
static int64_t key_packet_for(const VlVideo *video, const FramePlace *place) {
    int64_t packet = place->packet;
    while (packet > 0 && !(video->packet[packet].key && video->packet[packet].pts <= place->pts)) packet--;
    return packet;
}

static int64_t packet_with_pts(const VlVideo *video, int64_t pts) {
    FramePlace wanted = {.pts = pts};
    const FramePlace *found =
        bsearch(&wanted, video->place, (size_t)video->frames, sizeof *video->place, compare_places);
    return found ? found->packet : -1;
}

// Decodes up to the frame with a presentation time; *found is false when the stream passes it or ends.
static VlStatus decode_until(VlVideo *video, int64_t pts, bool *found) {
    VlDecoder *decoder = &video->decoder;
    *found = false;
    for (bool end;;) {
        VL_TRY(vl_decoder_next(decoder, &end));
        if (end || decoder->frame->pts > pts) return VL_OK;
        if (decoder->frame->pts == pts) {
            *found = !decoder->damaged;
            return VL_OK;
        }
    }
}

static VlStatus fetch_indexed(VlVideo *video, int64_t index) {
    const FramePlace *place = &video->place[index];
    VlDecoder *decoder = &video->decoder;
    int64_t key = key_packet_for(video, place);
    bool ahead = video->shown >= 0 && video->shown < index && video->start_packet >= 0 &&
                 key < video->start_packet + decoder->packets;
    bool found = false, sought = false;
    if (!ahead) {
        bool by_pts = strcmp(decoder->format->iformat->name, "avi") != 0;
        int64_t time = by_pts ? video->packet[key].pts : video->packet[key].dts;
        sought = key > 0 && time != AV_NOPTS_VALUE && vl_decoder_seek(decoder, time);
        if (!sought) VL_TRY(reopen(video));
    }
    VL_TRY(decode_until(video, place->pts, &found));
    if (sought) {
        video->start_packet = packet_with_pts(video, decoder->first_pts);
        found = found && video->start_packet >= 0 && video->start_packet <= key;
    }
    if (!found && sought) {
        VL_TRY(reopen(video));
        VL_TRY(decode_until(video, place->pts, &found));
    }
    if (!found) {
        video->shown = -1;
        return vl_error(VL_FORMAT, "%s: frame %lld of %lld is damaged or missing", video->path, (long long)index,
                        (long long)video->frames);
    }
    return VL_OK;
}

static VlStatus fetch_counted(VlVideo *video, int64_t index) {
    VlDecoder *decoder = &video->decoder;
    bool end = false;
    if (video->start_packet != 0 || decoder->frames > index) VL_TRY(reopen(video));
    while (!end && decoder->frames <= index) VL_TRY(vl_decoder_next(decoder, &end));
    if (end || decoder->damaged) {
        video->start_packet = -1;
        return vl_error(VL_FORMAT, "%s: frame %lld of %lld is damaged or missing", video->path, (long long)index,
                        (long long)video->frames);
    }
    return VL_OK;
}

static VlStatus fetch(VlVideo *video, int64_t index) {
    if (video->shown == index) return VL_OK;
    if (video->info.kind == VL_VIDEO_FOLDER) return read_picture(video, index);
    if (video->info.kind == VL_VIDEO_GIF) return read_gif(video, index);
    VL_TRY((video->indexed ? fetch_indexed : fetch_counted)(video, index));
    const AVStream *stream = video->decoder.stream;
    int64_t pts = video->decoder.frame->best_effort_timestamp;
    int64_t start = stream->start_time != AV_NOPTS_VALUE ? stream->start_time : 0;
    video->seconds = pts != AV_NOPTS_VALUE ? (double)(pts - start) * av_q2d(stream->time_base)
                     : video->info.fps > 0 ? (double)index / video->info.fps
                                           : 0.0;
    VL_TRY(vl_decoder_convert(&video->decoder, &video->frame));
    video->shown = index;
    return VL_OK;
}

VlStatus vl_video_read(VlVideo *video, const int64_t *indices, int64_t count, VlFrameSink sink, void *user) {
    for (int64_t i = 0; i < count; i++) {
        if (indices[i] < 0 || indices[i] >= video->info.count || (i > 0 && indices[i] < indices[i - 1])) {
            return vl_error(VL_INVALID, "%s: frame %lld cannot be read: frames are 0 to %lld, in ascending order",
                            video->path, (long long)indices[i], (long long)(video->info.count - 1));
        }
        VL_TRY(fetch(video, indices[i]));
        VL_TRY(sink(user, i, video->seconds, &video->frame));
    }
    return VL_OK;
}

#endif
