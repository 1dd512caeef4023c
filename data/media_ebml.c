#include "data/media_ebml.h"

#include "base/files.h"

enum { HEAD_BYTES = 4096 };

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

VlStatus vl_ebml_check_complete(const char *path) {
    const uint64_t header_id = 0x1a45dfa3, segment_id = 0x18538067;
    uint8_t head[HEAD_BYTES];
    VlReader reader;
    VL_TRY(vl_reader_open(&reader, path));
    int64_t size = reader.size, end = size < HEAD_BYTES ? size : HEAD_BYTES, at = 0;
    VlStatus status = vl_reader_read(&reader, 0, head, end);
    vl_reader_close(&reader);
    VL_TRY(status);
    uint64_t id, length;
    if (!read_number(head, end, &at, true, &id) || id != header_id) return VL_OK;
    if (!read_number(head, end, &at, false, &length) || length > HEAD_BYTES) return VL_OK;
    at += (int64_t)length;
    if (!read_number(head, end, &at, true, &id) || id != segment_id) return VL_OK;
    if (!read_number(head, end, &at, false, &length) || length == UINT64_MAX) return VL_OK;
    if (length <= (uint64_t)(size - at)) return VL_OK;
    return vl_error(VL_FORMAT, "%s: truncated: its header announces %llu bytes, %lld are there", path,
                    (unsigned long long)length, (long long)(size - at));
}
