#ifdef VL_HAVE_MEDIA

#include "data/media_gif.h"

#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "data/media_decoder.h"

// Blocks, extensions and LZW: GIF89a specification. What is drawn where pictures are transparent, smaller than the
// canvas or disposed of follows Pillow 10's GifImagePlugin, RGB values being what is compared.

enum {
    MAX_FILE_BYTES = 450 << 20,
    PALETTE = 256,
    CODE_BITS_MOST = 12,
    CODES = 1 << CODE_BITS_MOST,
    BACKGROUND = 2,  // disposal method; those below leave the picture, those above restore what it has covered
    NONE = -1,
};

typedef struct GifFrame {
    int64_t left, top, width, height;
    int64_t data;       // offset of the code size, behind which the LZW blocks follow
    int64_t palette;    // offset of its own palette; NONE: the global one
    int palette_count;  // colours of it
    int transparent;    // index; NONE
    int disposal;
    bool interlaced;
    double seconds;
} GifFrame;

typedef struct Palette {
    int count;  // colours that the file gives; the others are black
    uint8_t colour[PALETTE][3];
} Palette;

struct VlGif {
    const uint8_t *bytes;
    int64_t size, max_pixels;
    double deadline;
    char *path;
    Palette palette;  // global
    int background;
    GifFrame *frame;
    int64_t frames, frame_capacity;
    VlImage canvas, before;  // `before`: what a picture to be disposed of has covered
    uint8_t *indices;        // of one picture
    int64_t drawn;           // the frame on the canvas; -1: none
};

static VlStatus damaged(const VlGif *gif, const char *what) {
    return vl_error(VL_FORMAT, "%s: damaged GIF: %s", gif->path, what);
}

static VlStatus truncated(const VlGif *gif) {
    return vl_error(VL_FORMAT, "%s: truncated GIF, after %lld frames", gif->path, (long long)gif->frames);
}

// ---- Blocks ----------------------------------------------------------------

static int64_t u16(const uint8_t *at) { return at[0] | at[1] << 8; }

static VlStatus skip_blocks(const VlGif *gif, int64_t *at) {
    for (;;) {
        if (*at >= gif->size) return truncated(gif);
        int64_t length = gif->bytes[*at];
        *at += 1 + length;
        if (!length) return VL_OK;
    }
}

static VlStatus skip_palette(const VlGif *gif, int flags, int64_t *at, int64_t *palette, int *count) {
    *palette = NONE;
    *count = 0;
    if (!(flags & 0x80)) return VL_OK;
    *count = 2 << (flags & 7);
    *palette = *at;
    *at += 3 * *count;
    return *at <= gif->size ? VL_OK : truncated(gif);
}

// The graphic control extension in front of a picture. Disposal 0 keeps what an earlier one has set, as in Pillow.
static void read_control(const uint8_t *block, GifFrame *next, double *delay) {
    int flags = block[1], disposal = flags >> 2 & 7;
    int64_t hundredths = u16(block + 2);
    if (flags & 1) next->transparent = block[4];
    if (disposal) next->disposal = disposal;
    *delay = (double)(hundredths < 2 ? 10 : hundredths) / 100.0;  // as FFmpeg and browsers do
}

static VlStatus add_frame(VlGif *gif, const GifFrame *frame) {
    bool first = gif->frames == 0;
    int64_t right = frame->left + frame->width, bottom = frame->top + frame->height;
    if (frame->width < 1 || frame->height < 1) return damaged(gif, "a picture without pixels");
    if (first && right > gif->canvas.width) gif->canvas.width = right;
    if (first && bottom > gif->canvas.height) gif->canvas.height = bottom;
    VL_TRY(vl_reserve(&gif->frame, &gif->frame_capacity, gif->frames + 1, sizeof *gif->frame));
    gif->frame[gif->frames++] = *frame;
    return VL_OK;
}

static VlStatus read_descriptor(VlGif *gif, int64_t *at, GifFrame *frame) {
    if (*at + 9 > gif->size) return truncated(gif);
    const uint8_t *data = gif->bytes + *at;
    *at += 9;
    frame->left = u16(data);
    frame->top = u16(data + 2);
    frame->width = u16(data + 4);
    frame->height = u16(data + 6);
    frame->interlaced = data[8] & 0x40;
    VL_TRY(skip_palette(gif, data[8], at, &frame->palette, &frame->palette_count));
    frame->data = (*at)++;
    VL_TRY(skip_blocks(gif, at));
    return add_frame(gif, frame);
}

static VlStatus walk(VlGif *gif, int64_t at) {
    double seconds = 0.0, delay = 0.1;
    GifFrame next = {.transparent = NONE};
    for (;;) {
        VL_TRY(vl_media_check_deadline(gif->path, gif->deadline));
        if (at >= gif->size) return truncated(gif);
        int kind = gif->bytes[at++];
        if (kind == ';') return gif->frames ? VL_OK : damaged(gif, "it holds no picture");
        if (kind == '!') {
            bool control = at + 6 <= gif->size && gif->bytes[at] == 0xf9 && gif->bytes[at + 1] >= 4;
            if (control) read_control(gif->bytes + at + 1, &next, &delay);
            at++;
            VL_TRY(skip_blocks(gif, &at));
        } else if (kind == ',') {
            next.seconds = seconds;
            VL_TRY(read_descriptor(gif, &at, &next));
            seconds += delay;
            delay = 0.1;
            next = (GifFrame){.transparent = NONE, .disposal = next.disposal};
        } else if (kind != 0) {  // some programs write a block's final zero twice
            return damaged(gif, "no block where one should begin");
        }
    }
}

static void read_palette(const VlGif *gif, int64_t offset, int count, Palette *palette) {
    *palette = (Palette){.count = count};
    if (count) memcpy(palette->colour, gif->bytes + offset, (size_t)(3 * count));
}

static void gray_palette(Palette *palette) {
    palette->count = PALETTE;
    for (int i = 0; i < PALETTE; i++) memset(palette->colour[i], i, 3);
}

static VlStatus open_gif(VlGif *gif) {
    enum { SCREEN = 13 };
    int64_t at = SCREEN, palette, pixels;
    int count;
    if (gif->size < SCREEN) return truncated(gif);
    if (memcmp(gif->bytes, "GIF8", 4) != 0) return damaged(gif, "it does not begin as one");
    gif->canvas.width = u16(gif->bytes + 6);
    gif->canvas.height = u16(gif->bytes + 8);
    VL_TRY(skip_palette(gif, gif->bytes[10], &at, &palette, &count));
    read_palette(gif, palette, count, &gif->palette);
    if (palette == NONE) gray_palette(&gif->palette);
    if (palette != NONE) gif->background = gif->bytes[11];
    VL_TRY(walk(gif, at));
    int64_t height = gif->canvas.height, width = gif->canvas.width;
    gif->canvas = (VlImage){0};
    pixels = height * width;
    if (pixels > gif->max_pixels) {
        return vl_error(VL_INVALID, "%s: a GIF of %lld x %lld pixels is over the limit of %lld pixels", gif->path,
                        (long long)width, (long long)height, (long long)gif->max_pixels);
    }
    VL_TRY(vl_image_allocate(&gif->canvas, height, width));
    return VL_NEW(&gif->indices, pixels);
}

bool vl_gif_recognise(const char *path) {
    VlReader file;
    char head[4] = {0};
    if (vl_reader_open(&file, path)) return false;
    VlStatus status = file.size >= 4 ? vl_reader_read(&file, 0, head, 4) : VL_FORMAT;
    vl_reader_close(&file);
    return !status && !memcmp(head, "GIF8", 4);
}

VlStatus vl_gif_open(VlGif **out, const char *path, int64_t max_pixels, double deadline) {
    VlGif *gif;
    char *data = NULL;
    *out = NULL;
    VL_TRY(VL_NEW(&gif, 1));
    gif->max_pixels = max_pixels;
    gif->deadline = deadline;
    gif->drawn = -1;
    VlStatus status;
    VL_TRY_GOTO(status, vl_duplicate_string(&gif->path, path), failed);
    VL_TRY_GOTO(status, vl_read_file(path, MAX_FILE_BYTES, &data, &gif->size), failed);
    gif->bytes = (const uint8_t *)data;
    VL_TRY_GOTO(status, open_gif(gif), failed);
    *out = gif;
    return VL_OK;
failed:
    vl_gif_close(gif);
    return status;
}

void vl_gif_close(VlGif *gif) {
    if (!gif) return;
    vl_image_free(&gif->canvas);
    vl_image_free(&gif->before);
    vl_free(gif->indices);
    vl_free(gif->frame);
    vl_free(gif->path);
    vl_free((void *)(uintptr_t)gif->bytes);
    vl_free(gif);
}

int64_t vl_gif_frames(const VlGif *gif) { return gif->frames; }

void vl_gif_size(const VlGif *gif, int64_t *height, int64_t *width) {
    *height = gif->canvas.height;
    *width = gif->canvas.width;
}

double vl_gif_seconds(const VlGif *gif, int64_t frame) { return gif->frame[frame].seconds; }

// ---- LZW -------------------------------------------------------------------

// Codes out of the blocks behind `at`.
typedef struct CodeReader {
    const VlGif *gif;
    int64_t at, block;  // bytes left of the block
    uint32_t bits;
    int count;  // of the bits
} CodeReader;

// False at the end of the blocks.
static bool read_code(CodeReader *reader, int width, int *code) {
    while (reader->count < width) {
        if (!reader->block) {
            reader->block = reader->gif->bytes[reader->at];
            if (!reader->block) return false;
            reader->at++;
        }
        reader->bits |= (uint32_t)reader->gif->bytes[reader->at++] << reader->count;
        reader->block--;
        reader->count += 8;
    }
    *code = (int)(reader->bits & ((1u << width) - 1));
    reader->bits >>= width;
    reader->count -= width;
    return true;
}

typedef struct Dictionary {
    int16_t prefix[CODES];
    uint8_t last[CODES], first[CODES];
    int16_t length[CODES];
} Dictionary;

// Writes the code's string, as much of it as there is room for.
static void write_string(const Dictionary *dictionary, int code, uint8_t *out, int64_t room) {
    int64_t length = dictionary->length[code], kept = length < room ? length : room;
    for (int64_t i = length - 1; i >= 0; i--, code = dictionary->prefix[code]) {
        if (i < kept) out[i] = dictionary->last[code];
    }
}

// The picture's indices in the order of the file.
static VlStatus decode_indices(const VlGif *gif, const GifFrame *frame, uint8_t *out) {
    int least = gif->bytes[frame->data];
    if (least < 1 || least > 8) return damaged(gif, "codes of an impossible size");
    int clear = 1 << least, next = clear + 2, width = least + 1, previous = NONE, code;
    int64_t done = 0, pixels = frame->width * frame->height;
    CodeReader reader = {.gif = gif, .at = frame->data + 1};
    Dictionary dictionary;
    for (int i = 0; i < clear; i++) {
        dictionary.prefix[i] = NONE;
        dictionary.first[i] = dictionary.last[i] = (uint8_t)i;
        dictionary.length[i] = 1;
    }
    while (done < pixels) {
        if (!read_code(&reader, width, &code) || code == clear + 1) return damaged(gif, "a picture ends too early");
        if (code == clear) {
            next = clear + 2;
            width = least + 1;
            previous = NONE;
            continue;
        }
        bool known = code < clear || (code >= clear + 2 && code < next);
        if (!known && (code != next || previous == NONE || next == CODES)) return damaged(gif, "an undefined code");
        if (previous != NONE && next < CODES) {
            dictionary.prefix[next] = (int16_t)previous;
            dictionary.first[next] = dictionary.first[previous];
            dictionary.last[next] = dictionary.first[known ? code : previous];
            dictionary.length[next] = (int16_t)(dictionary.length[previous] + 1);
            next++;
            if (next == 1 << width && width < CODE_BITS_MOST) width++;
        }
        write_string(&dictionary, code, out + done, pixels - done);
        done += dictionary.length[code];
        previous = code;
    }
    return VL_OK;
}

// ---- Drawing ---------------------------------------------------------------

static void frame_palette(const VlGif *gif, const GifFrame *frame, Palette *palette) {
    if (frame->palette == NONE) {
        *palette = gif->palette;
    } else {
        read_palette(gif, frame->palette, frame->palette_count, palette);
    }
}

// The row of the picture that stands in the file at place `row`: every eighth, then those between, and so on.
static int64_t interlaced_row(int64_t row, int64_t height) {
    static const int first[] = {0, 4, 2, 1}, step[] = {8, 8, 4, 2};
    for (int pass = 0; pass < 4; pass++) {
        int64_t rows = height > first[pass] ? (height - first[pass] + step[pass] - 1) / step[pass] : 0;
        if (row < rows) return first[pass] + row * step[pass];
        row -= rows;
    }
    return 0;
}

static void fill(VlImage *canvas, const GifFrame *area, const uint8_t *colour) {
    for (int64_t y = area->top; y < area->top + area->height; y++) {
        uint8_t *to = canvas->pixels + (y * canvas->width + area->left) * 3;
        for (int64_t x = 0; x < area->width; x++, to += 3) memcpy(to, colour, 3);
    }
}

static void copy_area(const VlImage *from, VlImage *to, const GifFrame *area) {
    for (int64_t y = area->top; y < area->top + area->height; y++) {
        int64_t offset = (y * to->width + area->left) * 3;
        memcpy(to->pixels + offset, from->pixels + offset, (size_t)(3 * area->width));
    }
}

// What Pillow puts in the picture's place before the next one is drawn.
static VlStatus dispose(VlGif *gif, int64_t number) {
    const GifFrame *frame = &gif->frame[number];
    Palette palette;
    if (frame->disposal < BACKGROUND) return VL_OK;
    int index = frame->transparent != NONE ? frame->transparent : gif->background;
    frame_palette(gif, frame, &palette);
    if (index >= palette.count && number > 0) index = 0;
    if (frame->disposal == BACKGROUND) {
        fill(&gif->canvas, frame, palette.colour[index]);
    } else if (number > 0) {
        copy_area(&gif->before, &gif->canvas, frame);
    } else if (frame->transparent != NONE) {
        fill(&gif->canvas, frame, palette.colour[frame->transparent]);
    }
    return VL_OK;
}

// Keeps what the picture is going to cover, if it is to be restored.
static VlStatus keep_covered(VlGif *gif, const GifFrame *frame) {
    if (frame->disposal <= BACKGROUND) return VL_OK;
    if (!gif->before.pixels) VL_TRY(vl_image_allocate(&gif->before, gif->canvas.height, gif->canvas.width));
    copy_area(&gif->canvas, &gif->before, frame);
    return VL_OK;
}

// The first picture covers the canvas, its transparent pixels too; those of later ones leave what is there.
static VlStatus draw(VlGif *gif, int64_t number) {
    const GifFrame *frame = &gif->frame[number];
    Palette palette;
    int64_t right = frame->left + frame->width, bottom = frame->top + frame->height;
    VL_TRY(vl_media_check_deadline(gif->path, gif->deadline));
    if (right > gif->canvas.width || bottom > gif->canvas.height) {
        return vl_error(VL_UNSUPPORTED, "%s: picture %lld of the GIF lies outside its canvas of %lld x %lld pixels",
                        gif->path, (long long)number, (long long)gif->canvas.width, (long long)gif->canvas.height);
    }
    VL_TRY(decode_indices(gif, frame, gif->indices));
    frame_palette(gif, frame, &palette);
    if (number == 0) {
        GifFrame whole = {.width = gif->canvas.width, .height = gif->canvas.height};
        fill(&gif->canvas, &whole, palette.colour[frame->transparent != NONE ? frame->transparent : 0]);
    } else {
        VL_TRY(dispose(gif, number - 1));
        VL_TRY(keep_covered(gif, frame));
    }
    for (int64_t row = 0; row < frame->height; row++) {
        int64_t y = frame->top + (frame->interlaced ? interlaced_row(row, frame->height) : row);
        const uint8_t *from = gif->indices + row * frame->width;
        uint8_t *to = gif->canvas.pixels + (y * gif->canvas.width + frame->left) * 3;
        for (int64_t x = 0; x < frame->width; x++, to += 3) {
            if (number == 0 || from[x] != frame->transparent) memcpy(to, palette.colour[from[x]], 3);
        }
    }
    return VL_OK;
}

VlStatus vl_gif_read(VlGif *gif, int64_t number, const VlImage **image) {
    VL_ASSERT(number >= 0 && number < gif->frames);
    if (number < gif->drawn) gif->drawn = -1;
    while (gif->drawn < number) {
        VL_TRY(draw(gif, gif->drawn + 1));
        gif->drawn++;
    }
    *image = &gif->canvas;
    return VL_OK;
}

#endif
