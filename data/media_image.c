#ifdef VL_HAVE_MEDIA

#include <libavcodec/avcodec.h>
#include <libavutil/imgutils.h>
#include <libavutil/intreadwrite.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "data/media.h"
#include "data/media_decoder.h"
#include "data/media_ffmpeg.h"
#include "data/media_jpeg.h"
#include "data/media_webp.h"

enum {
    MAX_FILE_BYTES = 450 << 20,
    MEMORY_LIMIT = 1000 << 20  // of a decode as a whole: the file, the decoder's picture and ours
};

typedef enum Container { JPEG, GIF, WEBP, TIFF, ONE_PACKET } Container;

typedef struct Signature {
    const char *bytes;
    int64_t length, offset;
    Container container;
    enum AVCodecID codec;
} Signature;

// What a picture file begins with.
static const Signature signatures[] = {
    {"\xff\xd8\xff", 3, 0, JPEG, AV_CODEC_ID_NONE}, {"\x89PNG\r\n\x1a\n", 8, 0, ONE_PACKET, AV_CODEC_ID_PNG},
    {"GIF8", 4, 0, GIF, AV_CODEC_ID_GIF},           {"WEBP", 4, 8, WEBP, AV_CODEC_ID_WEBP},
    {"BM", 2, 0, ONE_PACKET, AV_CODEC_ID_BMP},      {"II*\0", 4, 0, TIFF, AV_CODEC_ID_TIFF},
    {"MM\0*", 4, 0, TIFF, AV_CODEC_ID_TIFF},        {"P1", 2, 0, ONE_PACKET, AV_CODEC_ID_PBM},
    {"P4", 2, 0, ONE_PACKET, AV_CODEC_ID_PBM},      {"P2", 2, 0, ONE_PACKET, AV_CODEC_ID_PGM},
    {"P5", 2, 0, ONE_PACKET, AV_CODEC_ID_PGM},      {"P3", 2, 0, ONE_PACKET, AV_CODEC_ID_PPM},
    {"P6", 2, 0, ONE_PACKET, AV_CODEC_ID_PPM},
};

static const Signature *recognise(const char *data, int64_t size) {
    for (size_t i = 0; i < sizeof signatures / sizeof signatures[0]; i++) {
        const Signature *s = &signatures[i];
        if (size >= s->offset + s->length && !memcmp(data + s->offset, s->bytes, (size_t)s->length)) return s;
    }
    return NULL;
}

// How the levels of a pixel format stand in memory; formats that are not here go through swscale.
typedef struct Layout {
    enum AVPixelFormat format;
    int step, red, green, blue;  // bytes from pixel to pixel, and offsets of the channels' (upper) bytes
} Layout;

static const Layout layouts[] = {
    {AV_PIX_FMT_RGB24, 3, 0, 1, 2},    {AV_PIX_FMT_BGR24, 3, 2, 1, 0},    {AV_PIX_FMT_RGBA, 4, 0, 1, 2},
    {AV_PIX_FMT_BGRA, 4, 2, 1, 0},     {AV_PIX_FMT_ARGB, 4, 1, 2, 3},     {AV_PIX_FMT_ABGR, 4, 3, 2, 1},
    {AV_PIX_FMT_BGR0, 4, 2, 1, 0},     {AV_PIX_FMT_RGB0, 4, 0, 1, 2},     {AV_PIX_FMT_GRAY8, 1, 0, 0, 0},
    {AV_PIX_FMT_YA8, 2, 0, 0, 0},      {AV_PIX_FMT_RGB48BE, 6, 0, 2, 4},  {AV_PIX_FMT_RGB48LE, 6, 1, 3, 5},
    {AV_PIX_FMT_RGBA64BE, 8, 0, 2, 4}, {AV_PIX_FMT_RGBA64LE, 8, 1, 3, 5}, {AV_PIX_FMT_YA16BE, 4, 0, 0, 0},
};

static void copy_layout(const Layout *layout, const AVFrame *frame, VlImage *image) {
    for (int64_t y = 0; y < image->height; y++) {
        const uint8_t *from = frame->data[0] + y * frame->linesize[0];
        uint8_t *to = image->pixels + y * image->width * 3;
        for (int64_t x = 0; x < image->width; x++, from += layout->step, to += 3) {
            to[0] = from[layout->red];
            to[1] = from[layout->green];
            to[2] = from[layout->blue];
        }
    }
}

static void copy_palette(const AVFrame *frame, VlImage *image) {
    const uint32_t *palette = (const uint32_t *)(const void *)frame->data[1];
    for (int64_t y = 0; y < image->height; y++) {
        const uint8_t *from = frame->data[0] + y * frame->linesize[0];
        uint8_t *to = image->pixels + y * image->width * 3;
        for (int64_t x = 0; x < image->width; x++, to += 3) {
            uint32_t colour = palette[from[x]];
            to[0] = (uint8_t)(colour >> 16);
            to[1] = (uint8_t)(colour >> 8);
            to[2] = (uint8_t)colour;
        }
    }
}

// Pillow takes 16-bit gray for wide integers, of which RGB keeps what fits: levels over 255 are white.
static void copy_wide_gray(const AVFrame *frame, VlImage *image) {
    int low = frame->format == AV_PIX_FMT_GRAY16BE ? 1 : 0;
    for (int64_t y = 0; y < image->height; y++) {
        const uint8_t *from = frame->data[0] + y * frame->linesize[0];
        uint8_t *to = image->pixels + y * image->width * 3;
        for (int64_t x = 0; x < image->width; x++, from += 2, to += 3) {
            to[0] = to[1] = to[2] = from[1 - low] ? 255 : from[low];
        }
    }
}

// 5 bits a channel (green 6 in RGB565), each stretched to 8 as Pillow does it.
static void copy_packed(const AVFrame *frame, VlImage *image) {
    int green = frame->format == AV_PIX_FMT_RGB565LE ? 63 : 31, shift = green == 63 ? 11 : 10;
    for (int64_t y = 0; y < image->height; y++) {
        const uint8_t *from = frame->data[0] + y * frame->linesize[0];
        uint8_t *to = image->pixels + y * image->width * 3;
        for (int64_t x = 0; x < image->width; x++, from += 2, to += 3) {
            int value = AV_RL16(from);
            to[0] = (uint8_t)((value >> shift & 31) * 255 / 31);
            to[1] = (uint8_t)((value >> 5 & green) * 255 / green);
            to[2] = (uint8_t)((value & 31) * 255 / 31);
        }
    }
}

static void copy_bits(const AVFrame *frame, VlImage *image) {
    uint8_t set = frame->format == AV_PIX_FMT_MONOBLACK ? 255 : 0;
    for (int64_t y = 0; y < image->height; y++) {
        const uint8_t *from = frame->data[0] + y * frame->linesize[0];
        uint8_t *to = image->pixels + y * image->width * 3;
        for (int64_t x = 0; x < image->width; x++, to += 3) {
            bool bit = from[x / 8] >> (7 - x % 8) & 1;
            to[0] = to[1] = to[2] = bit ? set : (uint8_t)(255 - set);
        }
    }
}

static uint8_t clip_level(int value) { return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value); }

// WebP's own conversion: limited range, BT.601, in 14-bit integers (as libwebp does it).
static void webp_pixel(uint8_t *rgb, int y, int u, int v) {
    int luma = y * 19077 >> 8;
    rgb[0] = clip_level((luma + (v * 26149 >> 8) - 14234) >> 6);
    rgb[1] = clip_level((luma - (u * 6419 >> 8) - (v * 13320 >> 8) + 8708) >> 6);
    rgb[2] = clip_level((luma + (u * 33050 >> 8) - 17685) >> 6);
}

// One chroma level at full resolution, by libwebp's smooth upsampling: nine parts of the nearest, three of its
// neighbours beside and above or below, one of the diagonal one; two diagonal averages are rounded on the way.
static int webp_chroma(const uint8_t *plane, int stride, int64_t x, int64_t y, int64_t width, int64_t height) {
    int64_t columns = (width + 1) / 2, rows = (height + 1) / 2, cx = x / 2, cy = y / 2;
    int64_t nx = x % 2 ? cx + 1 : cx - 1, ny = y % 2 ? cy + 1 : cy - 1;
    if (ny < 0 || ny >= rows) ny = cy;
    int a = plane[cy * stride + cx], c = plane[ny * stride + cx];
    if (nx < 0 || nx >= columns) return (3 * a + c + 2) >> 2;
    int b = plane[cy * stride + nx], d = plane[ny * stride + nx];
    int diagonal = (a + b + c + d + 8 + 2 * (b + c)) >> 3;
    return (diagonal + a) >> 1;
}

static void copy_webp(const AVFrame *frame, VlImage *image) {
    for (int64_t y = 0; y < image->height; y++) {
        for (int64_t x = 0; x < image->width; x++) {
            int u = webp_chroma(frame->data[1], frame->linesize[1], x, y, image->width, image->height);
            int v = webp_chroma(frame->data[2], frame->linesize[2], x, y, image->width, image->height);
            webp_pixel(image->pixels + (y * image->width + x) * 3, frame->data[0][y * frame->linesize[0] + x], u, v);
        }
    }
}

static VlStatus copy_scaled(const char *path, const AVFrame *frame, VlImage *image) {
    struct SwsContext *scaler =
        sws_getContext(frame->width, frame->height, frame->format, frame->width, frame->height, AV_PIX_FMT_RGB24,
                       SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT, NULL, NULL, NULL);
    if (!scaler) {
        return vl_error(VL_UNSUPPORTED, "%s: its pixel format %s cannot be converted to RGB", path,
                        av_get_pix_fmt_name(frame->format));
    }
    sws_scale(scaler, (const uint8_t *const *)frame->data, frame->linesize, 0, frame->height,
              (uint8_t *const[]){image->pixels}, (int[]){3 * frame->width});
    sws_freeContext(scaler);
    return VL_OK;
}

static VlStatus rgb_from_frame(const char *path, const AVFrame *frame, bool webp, VlImage *image) {
    VL_TRY(vl_image_allocate(image, frame->height, frame->width));
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        if (layouts[i].format == frame->format) {
            copy_layout(&layouts[i], frame, image);
            return VL_OK;
        }
    }
    switch (frame->format) {
    case AV_PIX_FMT_PAL8: copy_palette(frame, image); return VL_OK;
    case AV_PIX_FMT_GRAY16BE:
    case AV_PIX_FMT_GRAY16LE: copy_wide_gray(frame, image); return VL_OK;
    case AV_PIX_FMT_RGB555LE:
    case AV_PIX_FMT_RGB565LE: copy_packed(frame, image); return VL_OK;
    case AV_PIX_FMT_MONOBLACK:
    case AV_PIX_FMT_MONOWHITE: copy_bits(frame, image); return VL_OK;
    case AV_PIX_FMT_YUV420P:
    case AV_PIX_FMT_YUVA420P:
        if (webp) {
            copy_webp(frame, image);
            return VL_OK;
        }
        break;
    default: break;
    }
    return copy_scaled(path, frame, image);
}

// Decodes the packet with a fresh decoder, which is closed before the picture is converted: it keeps memory.
static int decode_packet(const AVCodec *codec, const AVPacket *packet, int64_t max_pixels, AVFrame *frame,
                         bool *oversized) {
    AVCodecContext *decoder = avcodec_alloc_context3(codec);
    if (!decoder) return AVERROR(ENOMEM);
    decoder->thread_count = 1;
    decoder->max_pixels = max_pixels + VL_ALIGNMENT_PIXELS;
    if (codec->id == AV_CODEC_ID_PNG) decoder->err_recognition = AV_EF_CRCCHECK | AV_EF_EXPLODE;
    int code = avcodec_open2(decoder, codec, NULL);
    if (code >= 0) code = avcodec_send_packet(decoder, packet);
    if (code >= 0) code = avcodec_send_packet(decoder, NULL);
    if (code >= 0) code = avcodec_receive_frame(decoder, frame);
    if (code == AVERROR_EOF || code == AVERROR(EAGAIN)) code = AVERROR_INVALIDDATA;
    *oversized = (int64_t)decoder->width * decoder->height > max_pixels;
    avcodec_free_context(&decoder);
    return code;
}

// The largest picture that fits into the memory limit beside the file, with the bytes a pixel takes while decoding.
static int64_t most_pixels(const VlMediaOptions *options, int64_t file_bytes, int64_t pixel_bytes) {
    int64_t most = ((int64_t)MEMORY_LIMIT - file_bytes) / pixel_bytes;
    return most < options->max_pixels ? most : options->max_pixels;
}

// PNG's header tells how many bytes a decoded pixel takes; others are taken for RGBA.
static int64_t decoded_pixel_bytes(enum AVCodecID codec, const uint8_t *data, int64_t size) {
    static const int png_channels[8] = {1, 0, 3, 1, 2, 0, 4, 0};
    if (codec == AV_CODEC_ID_PNG && size > 25) {
        int channels = png_channels[data[25] & 7], bytes = data[24] == 16 ? 2 : 1;
        return channels > 0 ? (int64_t)channels * bytes : 4;
    }
    return codec == AV_CODEC_ID_BMP || codec == AV_CODEC_ID_PPM ? 3 : codec == AV_CODEC_ID_PGM ? 1 : 4;
}

// PNG's header tells the size before anything is decoded; the other decoders refuse by themselves.
static bool announces_more(enum AVCodecID codec, const uint8_t *data, int64_t size, int64_t limit) {
    if (codec != AV_CODEC_ID_PNG || size < 24) return false;
    return (int64_t)AV_RB32(data + 16) * AV_RB32(data + 20) > limit;
}

static VlStatus decode_file(const char *path, const Signature *signature, const char *data, int64_t size,
                            const VlMediaOptions *options, VlImage *image) {
    vl_ffmpeg_silence();
    const AVCodec *codec = avcodec_find_decoder(signature->codec);
    if (!codec) return vl_error(VL_UNSUPPORTED, "%s: FFmpeg has no decoder for this kind of picture", path);
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    int64_t pixel_bytes = 3 + decoded_pixel_bytes(signature->codec, (const uint8_t *)data, size);
    int64_t limit = most_pixels(options, 2 * size, pixel_bytes);
    bool oversized = announces_more(signature->codec, (const uint8_t *)data, size, limit);
    int code = oversized ? AVERROR_INVALIDDATA : packet && frame ? av_new_packet(packet, (int)size) : AVERROR(ENOMEM);
    if (code >= 0) {
        memcpy(packet->data, data, (size_t)size);
        packet->flags = AV_PKT_FLAG_KEY;
        code = decode_packet(codec, packet, limit, frame, &oversized);
    }
    av_packet_free(&packet);
    VlStatus status;
    if (oversized) {
        status = vl_error(VL_INVALID, "%s: a picture over the limit of %lld pixels", path, (long long)limit);
    } else if (code >= 0 && !(frame->decode_error_flags || (frame->flags & AV_FRAME_FLAG_CORRUPT))) {
        status = rgb_from_frame(path, frame, signature->codec == AV_CODEC_ID_WEBP, image);
    } else {
        status = vl_ffmpeg_error(code < 0 ? code : AVERROR_INVALIDDATA, "%s: truncated or damaged %s picture", path,
                                 codec->name);
    }
    av_frame_free(&frame);
    return status;
}

static VlStatus keep_frame(void *user, int64_t position, double seconds, const VlImage *frame) {
    VlImage *image = user;
    (void)position, (void)seconds;
    VL_TRY(vl_image_allocate(image, frame->height, frame->width));
    memcpy(image->pixels, frame->pixels, (size_t)(frame->height * frame->width * 3));
    return VL_OK;
}

static VlStatus read_gif(const char *path, const VlMediaOptions *options, VlImage *image) {
    VlVideo *video = NULL;
    VL_TRY(vl_video_open(&video, path, options));
    VlStatus status = vl_video_read(video, &(int64_t){0}, 1, keep_frame, image);
    vl_video_close(video);
    return status;
}

// An animated file counts as its first picture, on the file's canvas.
static VlStatus read_webp(const char *path, const Signature *signature, const char *data, int64_t size,
                          const VlMediaOptions *options, VlImage *image) {
    VlWebpFirst first;
    VlImage picture = {0};
    int64_t limit = most_pixels(options, 2 * size, 3 + 4 + 3);
    VlStatus status = vl_webp_first(&first, path, (const uint8_t *)data, size);
    if (!status && !first.file) return decode_file(path, signature, data, size, options, image);
    if (!status && first.canvas_width * first.canvas_height > limit) {
        status = vl_error(VL_INVALID, "%s: a picture over the limit of %lld pixels", path, (long long)limit);
    }
    if (!status) status = decode_file(path, signature, (const char *)first.file, first.size, options, &picture);
    if (!status && (picture.width != first.width || picture.height != first.height)) {
        status = vl_error(VL_FORMAT, "%s: damaged WebP: its first picture has another size than it announces", path);
    }
    if (!status) status = vl_image_allocate(image, first.canvas_height, first.canvas_width);
    for (int64_t y = 0; !status && y < picture.height; y++) {
        memcpy(image->pixels + ((first.top + y) * image->width + first.left) * 3,
               picture.pixels + y * picture.width * 3, (size_t)(3 * picture.width));
    }
    vl_image_free(&picture);
    vl_free(first.file);
    return status;
}

// The value of a tag in the first directory of a TIFF file (a short or the first of several); 0: it is not there.
static int tiff_tag(const uint8_t *data, int64_t size, int tag) {
    enum { HEADER = 8, ENTRY = 12 };
    bool little = data[0] == 'I';
    if (size < HEADER) return 0;
    int64_t at = little ? AV_RL32(data + 4) : AV_RB32(data + 4);
    if (at + 2 > size) return 0;
    int entries = little ? AV_RL16(data + at) : AV_RB16(data + at);
    for (at += 2; entries-- > 0 && at + ENTRY <= size; at += ENTRY) {
        int found = little ? AV_RL16(data + at) : AV_RB16(data + at);
        if (found == tag) return little ? AV_RL16(data + at + 8) : AV_RB16(data + at + 8);
    }
    return 0;
}

// FFmpeg takes the colours of JPEG inside TIFF for others than they are.
static VlStatus read_tiff(const char *path, const Signature *signature, const char *data, int64_t size,
                          const VlMediaOptions *options, VlImage *image) {
    enum { COMPRESSION = 259, OLD_JPEG = 6, NEW_JPEG = 7 };
    int compression = tiff_tag((const uint8_t *)data, size, COMPRESSION);
    if (compression == OLD_JPEG || compression == NEW_JPEG) {
        return vl_error(VL_UNSUPPORTED, "%s: a TIFF file that holds a JPEG: store it as JPEG or PNG", path);
    }
    return decode_file(path, signature, data, size, options, image);
}

VlStatus vl_image_read(const char *path, const VlMediaOptions *options, VlImage *image) {
    char *data = NULL;
    int64_t size = 0;
    *image = (VlImage){0};
    VL_TRY(vl_media_check_file(path));
    VL_TRY(vl_read_file(path, MAX_FILE_BYTES, &data, &size));
    const Signature *signature = recognise(data, size);
    VlStatus status;
    if (!signature) {
        status = vl_error(VL_FORMAT, "%s: no picture: its content is no JPEG, PNG, WebP, GIF, BMP, TIFF or PNM", path);
    } else if (signature->container == JPEG) {
        status = vl_jpeg_decode(path, (const uint8_t *)data, size, options, image);
    } else if (signature->container == GIF) {
        status = read_gif(path, options, image);
    } else if (signature->container == WEBP) {
        status = read_webp(path, signature, data, size, options, image);
    } else if (signature->container == TIFF) {
        status = read_tiff(path, signature, data, size, options, image);
    } else {
        status = decode_file(path, signature, data, size, options, image);
    }
    vl_free(data);
    if (status != VL_OK) vl_image_free(image);
    return status;
}

#endif
