#ifdef VL_HAVE_MEDIA

#include "data/media_ebml.h"

#include <libavutil/crc.h>
#include <libavutil/intreadwrite.h>
#include <string.h>

enum {
    ELEMENT_HEADER = 12,  // bytes at most: four of the id, eight of the length
    CRC_BYTES = 4,
    PIECE = 64 << 10
};

static const uint64_t SEGMENT_ID = 0x18538067, CLUSTER_ID = 0x1f43b675, CRC_ID = 0xbf;

typedef struct Element {
    uint64_t id;
    int64_t begin, end;  // of its content in the file
    bool unbounded;      // its length is not known (a live recording)
} Element;

// A number of 1 to 8 bytes whose first set bit gives its length; false when it does not end before `end`.
static bool read_number(const uint8_t *data, int64_t end, int64_t *at, bool keep_marker, uint64_t *value) {
    if (*at >= end || data[*at] == 0) return false;
    int length = __builtin_clz(data[*at]) - 23;
    if (*at + length > end) return false;
    uint64_t number = keep_marker ? data[*at] : data[*at] & (0xffu >> length);
    for (int i = 1; i < length; i++) number = number << 8 | data[*at + i];
    bool unknown = !keep_marker && number == (UINT64_C(1) << (7 * length)) - 1;
    *value = unknown ? UINT64_MAX : number;
    *at += length;
    return true;
}

static VlStatus truncated(const VlReader *file, uint64_t announced, int64_t begin) {
    return vl_error(VL_FORMAT, "%s: truncated: its header announces %llu bytes, %lld are there", file->path,
                    (unsigned long long)announced, (long long)(file->size - begin));
}

// The element at `at`, which ends before `limit`.
static VlStatus read_element(const VlReader *file, int64_t at, int64_t limit, Element *element) {
    uint8_t data[ELEMENT_HEADER];
    int64_t length = limit - at < ELEMENT_HEADER ? limit - at : ELEMENT_HEADER, used = 0;
    uint64_t bytes;
    VL_TRY(vl_reader_read(file, at, data, length));
    if (!read_number(data, length, &used, true, &element->id) || used > 4 ||
        !read_number(data, length, &used, false, &bytes)) {
        if (limit == file->size && length < ELEMENT_HEADER) {
            return vl_error(VL_FORMAT, "%s: truncated: its last element is incomplete", file->path);
        }
        return vl_error(VL_FORMAT, "%s: damaged: no element where one should begin, at byte %lld", file->path,
                        (long long)at);
    }
    element->begin = at + used;
    element->unbounded = bytes == UINT64_MAX;
    if (!element->unbounded && bytes > (uint64_t)(limit - element->begin)) {
        if (limit == file->size) return truncated(file, bytes, element->begin);
        return vl_error(VL_FORMAT, "%s: damaged: the element at byte %lld is longer than what holds it", file->path,
                        (long long)at);
    }
    element->end = element->unbounded ? limit : element->begin + (int64_t)bytes;
    return VL_OK;
}

// A checksum, where an element has one, comes first and covers what follows in that element.
static VlStatus check_crc(const VlReader *file, const Element *crc, const Element *parent) {
    uint8_t stored[CRC_BYTES], piece[PIECE];
    uint32_t sum = UINT32_MAX;
    VL_TRY(vl_reader_read(file, crc->begin, stored, CRC_BYTES));
    for (int64_t at = crc->end; at < parent->end;) {
        int64_t length = parent->end - at < PIECE ? parent->end - at : PIECE;
        VL_TRY(vl_reader_read(file, at, piece, length));
        sum = av_crc(av_crc_get_table(AV_CRC_32_IEEE_LE), sum, piece, (size_t)length);
        at += length;
    }
    if (~sum == AV_RL32(stored)) return VL_OK;
    return vl_error(VL_FORMAT, "%s: damaged: the checksum of the cluster at byte %lld does not match", file->path,
                    (long long)parent->begin);
}

static VlStatus walk_cluster(const VlReader *file, const Element *cluster) {
    Element block;
    for (int64_t at = cluster->begin; at < cluster->end; at = block.end) {
        VL_TRY(read_element(file, at, cluster->end, &block));
        bool crc = at == cluster->begin && block.id == CRC_ID && block.end - block.begin == CRC_BYTES;
        if (crc) VL_TRY(check_crc(file, &block, cluster));
    }
    return VL_OK;
}

// The content of a cluster whose length is not known is walked as the segment's own: nothing says where it ends.
static VlStatus walk_segment(const VlReader *file, const Element *segment) {
    Element element;
    for (int64_t at = segment->begin; at < segment->end;) {
        VL_TRY(read_element(file, at, segment->end, &element));
        bool cluster = element.id == CLUSTER_ID;
        if (cluster && !element.unbounded) VL_TRY(walk_cluster(file, &element));
        at = cluster && element.unbounded ? element.begin : element.end;
    }
    return VL_OK;
}

VlStatus vl_ebml_check_complete(const VlReader *file) {
    Element header, segment;
    uint8_t first[4];
    if (file->size < ELEMENT_HEADER) return VL_OK;
    VL_TRY(vl_reader_read(file, 0, first, sizeof first));
    if (memcmp(first, "\x1a\x45\xdf\xa3", sizeof first) != 0) return VL_OK;
    VL_TRY(read_element(file, 0, file->size, &header));
    VL_TRY(read_element(file, header.end, file->size, &segment));
    return segment.id == SEGMENT_ID ? walk_segment(file, &segment) : VL_OK;
}

#endif
