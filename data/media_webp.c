#include "data/media_webp.h"

#include <string.h>

#include "base/memory.h"

enum { RIFF_HEADER = 12, CHUNK_HEADER = 8, CANVAS_CHUNK = 10, FRAME_HEADER = 16, ANIMATED = 0x02, ALPHA = 0x10 };

typedef struct Chunk {
    const uint8_t *name, *content;
    int64_t size, next;  // of the content; offset of the chunk behind it
} Chunk;

static int64_t u24(const uint8_t *at) { return at[0] | at[1] << 8 | (int64_t)at[2] << 16; }

static int64_t u32(const uint8_t *at) { return u24(at) | (int64_t)at[3] << 24; }

static void put(uint8_t *at, int bytes, int64_t value) {
    for (int i = 0; i < bytes; i++) at[i] = (uint8_t)(value >> (8 * i));
}

static VlStatus truncated(const char *path) { return vl_error(VL_FORMAT, "%s: truncated or damaged WebP", path); }

static VlStatus read_chunk(const char *path, const uint8_t *data, int64_t end, int64_t at, Chunk *chunk) {
    if (at + CHUNK_HEADER > end) return truncated(path);
    chunk->name = data + at;
    chunk->size = u32(data + at + 4);
    chunk->content = data + at + CHUNK_HEADER;
    if (chunk->size > end - at - CHUNK_HEADER) return truncated(path);
    chunk->next = at + CHUNK_HEADER + chunk->size + (chunk->size & 1);
    return VL_OK;
}

bool vl_webp_recognise(const uint8_t *data, int64_t size) {
    return size >= RIFF_HEADER && !memcmp(data, "RIFF", 4) && !memcmp(data + 8, "WEBP", 4);
}

// A still file around the frame's own chunks; one with an alpha channel has to say so in front.
static VlStatus wrap(VlWebpFirst *first, const Chunk *frame) {
    const uint8_t *chunks = frame->content + FRAME_HEADER;
    int64_t bytes = frame->size - FRAME_HEADER, at = RIFF_HEADER;
    bool alpha = bytes >= 4 && !memcmp(chunks, "ALPH", 4);
    first->size = RIFF_HEADER + (alpha ? CHUNK_HEADER + CANVAS_CHUNK : 0) + bytes;
    VL_TRY(VL_NEW(&first->file, first->size));
    memcpy(first->file, "RIFF", 4);
    put(first->file + 4, 4, first->size - CHUNK_HEADER);
    memcpy(first->file + 8, "WEBP", 4);
    if (alpha) {
        uint8_t *canvas = first->file + at + CHUNK_HEADER;
        memcpy(first->file + at, "VP8X", 4);
        put(first->file + at + 4, 4, CANVAS_CHUNK);
        canvas[0] = ALPHA;
        put(canvas + 4, 3, first->width - 1);
        put(canvas + 7, 3, first->height - 1);
        at += CHUNK_HEADER + CANVAS_CHUNK;
    }
    memcpy(first->file + at, chunks, (size_t)bytes);
    return VL_OK;
}

static VlStatus take_frame(VlWebpFirst *first, const char *path, const Chunk *frame) {
    if (frame->size < FRAME_HEADER) return truncated(path);
    first->left = 2 * u24(frame->content);
    first->top = 2 * u24(frame->content + 3);
    first->width = 1 + u24(frame->content + 6);
    first->height = 1 + u24(frame->content + 9);
    if (first->left + first->width > first->canvas_width || first->top + first->height > first->canvas_height) {
        return vl_error(VL_FORMAT, "%s: damaged WebP: a picture outside of its canvas", path);
    }
    return wrap(first, frame);
}

VlStatus vl_webp_first(VlWebpFirst *first, const char *path, const uint8_t *data, int64_t size) {
    *first = (VlWebpFirst){0};
    if (!vl_webp_recognise(data, size) || u32(data + 4) > size - CHUNK_HEADER) return truncated(path);
    int64_t end = CHUNK_HEADER + u32(data + 4);
    Chunk chunk = {0};
    bool animated = false;
    for (int64_t at = RIFF_HEADER; at < end; at = chunk.next) {
        VL_TRY(read_chunk(path, data, end, at, &chunk));
        if (!memcmp(chunk.name, "VP8X", 4) && chunk.size >= CANVAS_CHUNK) {
            animated = chunk.content[0] & ANIMATED;
            first->canvas_width = 1 + u24(chunk.content + 4);
            first->canvas_height = 1 + u24(chunk.content + 7);
        }
        if (animated && !first->file && !memcmp(chunk.name, "ANMF", 4)) VL_TRY(take_frame(first, path, &chunk));
    }
    return animated && !first->file ? vl_error(VL_FORMAT, "%s: an animated WebP without pictures", path) : VL_OK;
}
