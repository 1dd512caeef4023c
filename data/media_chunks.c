#include "data/media_chunks.h"

#include <stddef.h>
#include <string.h>

#include "base/files.h"

enum { HEAD_BYTES = 40 };

// Chunks begin with a name of `name_bytes` and a length of `length_bytes`, in this order.
typedef struct Layout {
    const char *mark, *second_mark;  // at bytes 0 and 8; NULL: anything
    int64_t first;                   // byte at which the chunks begin
    int name_bytes, length_bytes;
    bool big_endian, counts_header;
    int64_t alignment;
    const char *media;  // beginnings of the names of chunks that hold the media and what belongs to it
} Layout;

static const Layout layouts[] = {
    {"RIFF", "WAVE", 12, 4, 4, false, false, 2, "data"},
    {"RF64", "WAVE", 12, 4, 4, false, false, 2, "data"},
    {"RIFF", "AVI ", 12, 4, 4, false, false, 2, "LIST idx1 RIFF"},
    {"riff", NULL, 40, 16, 8, false, true, 8, "data"},
    {"caff", NULL, 8, 4, 8, true, false, 1, "data"},
};

static uint64_t number(const uint8_t *bytes, int count, bool big_endian) {
    uint64_t value = 0;
    for (int i = 0; i < count; i++) value = value << 8 | bytes[big_endian ? i : count - 1 - i];
    return value;
}

// Lengths that say "not known when this was written": 0, the largest one, and SoX's.
static bool is_open(const Layout *layout, uint64_t length) {
    if (length == 0 || length == UINT64_MAX || (layout->length_bytes == 4 && length == UINT32_MAX)) return true;
    return layout->length_bytes == 4 && length <= 0x7ffff000 && length > 0x7ffff000 - 4096;
}

static VlStatus refuse(const VlReader *file, int64_t at, uint64_t length) {
    return vl_error(VL_FORMAT, "%s: truncated: the part of %llu bytes that begins at byte %lld is not all there",
                    file->path, (unsigned long long)length, (long long)at);
}

static VlStatus walk(const VlReader *file, const Layout *layout) {
    int64_t header = layout->name_bytes + layout->length_bytes;
    bool found = false, several = strlen(layout->media) > 4;
    for (int64_t at = layout->first; at + header <= file->size;) {
        uint8_t head[HEAD_BYTES];
        VL_TRY(vl_reader_read(file, at, head, header));
        uint64_t length = number(head + layout->name_bytes, layout->length_bytes, layout->big_endian);
        char name[5] = {0};
        memcpy(name, head, 4);
        bool media = strlen(name) == 4 && strstr(layout->media, name);
        if (media && is_open(layout, length)) return VL_OK;
        if (layout->counts_header) length = length >= (uint64_t)header ? length - (uint64_t)header : 0;
        int64_t left = file->size - at - header;
        if (length > (uint64_t)left) return media || !found ? refuse(file, at, length) : VL_OK;
        if (media && !several) return VL_OK;
        found = found || media;
        at += header + (int64_t)length;
        at += (layout->alignment - at % layout->alignment) % layout->alignment;
    }
    return found ? VL_OK : vl_error(VL_FORMAT, "%s: truncated: the part with the media itself is missing", file->path);
}

static VlStatus walk_boxes(const VlReader *file) {
    int64_t at = 0;
    while (at + 8 <= file->size) {
        uint8_t head[16] = {0};
        int64_t left = file->size - at;
        VL_TRY(vl_reader_read(file, at, head, left < 16 ? left : 16));
        uint64_t length = number(head, 4, true);
        if (length == 1) length = number(head + 8, 8, true);
        if (length == 0) return VL_OK;  // to the end of the file
        if (length < 8) return VL_OK;   // what follows the last box
        if (length > (uint64_t)left) return refuse(file, at, length);
        at += (int64_t)length;
    }
    return VL_OK;
}

static VlStatus check(const VlReader *file) {
    uint8_t head[12];
    if (file->size < (int64_t)sizeof head) return VL_OK;
    VL_TRY(vl_reader_read(file, 0, head, sizeof head));
    if (!memcmp(head + 4, "ftyp", 4)) return walk_boxes(file);
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        const char *second = layouts[i].second_mark;
        if (memcmp(head, layouts[i].mark, 4) || (second && memcmp(head + 8, second, 4))) continue;
        return walk(file, &layouts[i]);
    }
    return VL_OK;
}

VlStatus vl_chunks_check_complete(const char *path) {
    VlReader file;
    VL_TRY(vl_reader_open(&file, path));
    VlStatus status = check(&file);
    vl_reader_close(&file);
    return status;
}
