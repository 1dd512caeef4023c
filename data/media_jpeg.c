#ifdef VL_HAVE_MEDIA

#include "data/media_jpeg.h"

// clang-format off
#include <setjmp.h>
#include <stdio.h>
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include "base/memory.h"
#include "data/media_decoder.h"

enum { MEMORY_LIMIT = 1000 << 20 };  // of a decode as a whole: the picture, and what the library keeps (progressive)

// libjpeg reports failures through a function that must not return.
typedef struct JpegErrors {
    struct jpeg_error_mgr manager;  // first, so that the library's pointer to it is a pointer to this
    jmp_buf failed;
    char reason[JMSG_LENGTH_MAX];
    struct jpeg_progress_mgr progress;
    double deadline;
} JpegErrors;

static void fail(j_common_ptr codec) {
    JpegErrors *errors = (JpegErrors *)codec->err;
    errors->manager.format_message(codec, errors->reason);
    longjmp(errors->failed, 1);
}

// Warnings of lost picture data are failures; others (stray bytes, odd markers) do no harm.
static void judge_warning(j_common_ptr codec, int level) {
    if (level >= 0) return;
    switch (codec->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC: fail(codec); break;
    default: break;
    }
}

// A file of a few bytes can hold any number of passes over a large picture.
static void watch_time(j_common_ptr codec) {
    JpegErrors *errors = (JpegErrors *)codec->err;
    if (!vl_media_is_late(errors->deadline)) return;
    snprintf(errors->reason, sizeof errors->reason, "decoding takes longer than the limit allows");
    longjmp(errors->failed, 1);
}

// 8-bit a * b / 255, rounded.
static uint8_t multiply_levels(int a, int b) {
    int product = a * b + 128;
    return (uint8_t)(((product >> 8) + product) >> 8);
}

// Adobe's CMYK is stored inverted: the stored levels are 255 - C and so on.
static void rgb_from_cmyk(uint8_t *rgb, const uint8_t *cmyk, int64_t pixels) {
    for (int64_t i = 0; i < pixels; i++) {
        int black = cmyk[4 * i + 3];
        for (int c = 0; c < 3; c++) {
            int level = black - multiply_levels(255 - cmyk[4 * i + c], black);
            rgb[3 * i + c] = (uint8_t)(level < 0 ? 0 : level);
        }
    }
}

static VlStatus check_header(const char *path, const struct jpeg_decompress_struct *codec,
                             const VlMediaOptions *options) {
    if (!(codec->num_components == 1 || codec->num_components == 3 || codec->num_components == 4)) {
        return vl_error(VL_UNSUPPORTED, "%s: a JPEG of %d components", path, codec->num_components);
    }
    if ((int64_t)codec->image_width * codec->image_height > options->max_pixels) {
        return vl_error(VL_INVALID, "%s: a picture of %u x %u pixels is over the limit of %lld pixels", path,
                        codec->image_width, codec->image_height, (long long)options->max_pixels);
    }
    return VL_OK;
}

static void read_rows(struct jpeg_decompress_struct *codec, VlImage *image, uint8_t *row) {
    while (codec->output_scanline < codec->output_height) {
        uint8_t *pixels = image->pixels + (int64_t)codec->output_scanline * image->width * 3;
        JSAMPROW target = row ? row : pixels;
        jpeg_read_scanlines(codec, &target, 1);
        if (row) rgb_from_cmyk(pixels, row, image->width);
    }
    jpeg_finish_decompress(codec);
}

static VlStatus decode(const char *path, struct jpeg_decompress_struct *codec, const VlMediaOptions *options,
                       VlImage *image, uint8_t **row) {
    VL_TRY(check_header(path, codec, options));
    int64_t width = codec->image_width, height = codec->image_height;
    bool cmyk = codec->num_components == 4;
    codec->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    codec->mem->max_memory_to_use = (long)(MEMORY_LIMIT - 3 * width * height);
    if (cmyk) VL_TRY(VL_NEW(row, 4 * width));
    jpeg_start_decompress(codec);
    VL_TRY(vl_image_allocate(image, height, width));
    read_rows(codec, image, *row);
    return VL_OK;
}

VlStatus vl_jpeg_decode(const char *path, const uint8_t *data, int64_t size, const VlMediaOptions *options,
                        VlImage *image) {
    struct jpeg_decompress_struct codec = {0};
    JpegErrors errors = {0};
    uint8_t *volatile row = NULL;  // its value is needed after a jump
    VlStatus status;
    codec.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = fail;
    errors.manager.emit_message = judge_warning;
    *image = (VlImage){0};
    if (setjmp(errors.failed)) {
        status = vl_error(VL_FORMAT, "%s: truncated or damaged JPEG: %s", path, errors.reason);
    } else {
        jpeg_create_decompress(&codec);
        errors.deadline = vl_media_deadline(options);
        errors.progress.progress_monitor = watch_time;
        codec.progress = &errors.progress;
        jpeg_mem_src(&codec, data, (unsigned long)size);
        jpeg_read_header(&codec, TRUE);
        status = decode(path, &codec, options, image, (uint8_t **)&row);
    }
    jpeg_destroy_decompress(&codec);
    vl_free(row);
    if (status != VL_OK) vl_image_free(image);
    return status;
}

#endif
