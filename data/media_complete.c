#ifdef VL_HAVE_MEDIA

#include "data/media_complete.h"

#include <libavutil/intreadwrite.h>
#include <string.h>

#include "base/memory.h"
#include "data/media_decoder.h"
#include "data/media_ebml.h"

static VlStatus cut_short(const char *path, const char *unit) {
    return vl_error(VL_FORMAT, "%s: truncated: its last %s is incomplete", path, unit);
}

static VlStatus announced(const char *path, uint64_t bytes, int64_t size) {
    return vl_error(VL_FORMAT, "%s: truncated: its header announces %llu bytes, %lld are there", path,
                    (unsigned long long)bytes, (long long)size);
}

// ---- MPEG transport streams ------------------------------------------------

// Packets of one size, each with the byte 0x47 at the same place; 0: no transport stream.
static int64_t transport_packet_bytes(const uint8_t *head, int64_t length, int64_t *sync) {
    static const struct { int64_t bytes, sync; } kinds[] = {{188, 0}, {192, 4}, {204, 0}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int64_t matches = 0, packets = 0;
        for (int64_t at = kinds[i].sync; at < length; at += kinds[i].bytes, packets++) matches += head[at] == 0x47;
        *sync = kinds[i].sync;
        if (packets >= 3 && matches == packets) return kinds[i].bytes;
    }
    return 0;
}

static VlStatus check_transport(const VlReader *file, const char *path, const uint8_t *head, int64_t length) {
    int64_t sync, packet = transport_packet_bytes(head, length, &sync);
    if (!packet || file->size % packet == 0) return VL_OK;
    uint8_t last[8] = {0};
    int64_t rest = file->size % packet, wanted = rest < 8 ? rest : 8;
    VL_TRY(vl_reader_read(file, file->size - rest, last, wanted));
    return rest <= sync || last[sync] == 0x47 ? cut_short(path, "transport packet") : VL_OK;
}

// ---- MPEG program streams --------------------------------------------------

enum { PROGRAM_TAIL = 256 << 10 };

// Bytes of the unit at `at`, headers included: -1 for what cannot stand there, 0 where the length is not seen whole.
static int64_t program_unit_bytes(const uint8_t *data, int64_t length, int64_t at) {
    if (at + 4 > length) return 0;
    if (data[at] || data[at + 1] || data[at + 2] != 1 || data[at + 3] < 0xb9) return -1;
    if (data[at + 3] == 0xb9) return 4;
    if (data[at + 3] != 0xba) return at + 6 > length ? 0 : 6 + (int64_t)AV_RB16(data + at + 4);
    if (at + 14 > length) return 0;
    return data[at + 4] >> 6 == 1 ? 14 + (data[at + 13] & 7) : 12;
}

// Walks from the first pack header after which all units follow one another to the end. Zero bytes may fill up.
static VlStatus check_program(const VlReader *file, const char *path) {
    uint8_t *tail;
    int64_t length = file->size < PROGRAM_TAIL ? file->size : PROGRAM_TAIL;
    VL_TRY(VL_NEW(&tail, length));
    VlStatus status = vl_reader_read(file, file->size - length, tail, length);
    for (int64_t start = 0; !status && start + 4 <= length; start++) {
        if (tail[start] || tail[start + 1] || tail[start + 2] != 1 || tail[start + 3] != 0xba) continue;
        int64_t at = start, unit = 0;
        while (at < length) {
            unit = program_unit_bytes(tail, length, at);
            if (unit < 0 && !tail[at]) unit = 1;
            if (unit <= 0 || at + unit > length) break;
            at += unit;
        }
        if (unit < 0) continue;
        if (at < length) status = cut_short(path, "packet");
        break;
    }
    vl_free(tail);
    return status;
}

// ---- ASF (WMV) -------------------------------------------------------------

enum { ASF_OBJECT = 24, ASF_PROPERTIES = 92, ASF_HEADER = 30 };

static const uint8_t asf_header_id[] = {0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11,
                                        0xa6, 0xd9, 0x00, 0xaa, 0x00, 0x62, 0xce, 0x6c};
static const uint8_t asf_data_id[] = {0x36, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11,
                                      0xa6, 0xd9, 0x00, 0xaa, 0x00, 0x62, 0xce, 0x6c};
static const uint8_t asf_properties_id[] = {0xa1, 0xdc, 0xab, 0x8c, 0x47, 0xa9, 0xcf, 0x11,
                                            0x8e, 0xe4, 0x00, 0xc0, 0x0c, 0x20, 0x53, 0x65};

// The file's properties hold its size, unless it was broadcast; the data object holds its own.
static VlStatus check_asf(const VlReader *file, const char *path, const uint8_t *head, int64_t length) {
    uint64_t header = AV_RL64(head + 16), size = (uint64_t)file->size;
    if (header > size) return announced(path, header, file->size);
    bool broadcast = false;
    for (int64_t at = ASF_HEADER; at + ASF_PROPERTIES <= length;) {
        uint64_t object = AV_RL64(head + at + 16);
        if (!memcmp(head + at, asf_properties_id, sizeof asf_properties_id)) {
            broadcast = AV_RL32(head + at + 88) & 1;
            uint64_t promised = AV_RL64(head + at + 40);
            if (!broadcast && promised > size) return announced(path, promised, file->size);
        }
        if (object < ASF_OBJECT || object > (uint64_t)length) break;
        at += (int64_t)object;
    }
    uint8_t data[ASF_OBJECT];
    if (broadcast || header + ASF_OBJECT > size) return VL_OK;
    VL_TRY(vl_reader_read(file, (int64_t)header, data, ASF_OBJECT));
    uint64_t promised = AV_RL64(data + 16);
    bool known = !memcmp(data, asf_data_id, sizeof asf_data_id);
    return known && promised > size - header ? announced(path, promised, file->size) : VL_OK;
}

// ---- Flash video -----------------------------------------------------------

enum { FLV_TAG = 11, FLV_AUDIO = 8, FLV_VIDEO = 9, FLV_SCRIPT = 18, FLV_SCRIPT_READ = 4096 };

// The size of the file as the first tag's metadata may hold it; 0: it does not.
static int64_t flv_announced_bytes(const uint8_t *script, int64_t length) {
    static const char key[] = "\0\10filesize";  // the length of the name, and the name; a double follows
    const uint8_t *found = memmem(script, (size_t)length, key, sizeof key - 1);
    if (!found || found + sizeof key - 1 + 9 > script + length || found[sizeof key - 1] != 0) return 0;
    double bytes = av_int2double(AV_RB64(found + sizeof key));
    return bytes > 0 && bytes < 9e15 ? (int64_t)bytes : 0;
}

// Tags follow one another without a gap, each with its size before and after it.
static VlStatus check_flv(const VlReader *file, const char *path, const uint8_t *head, double deadline) {
    int64_t at = (int64_t)AV_RB32(head + 5) + 4;
    uint8_t script[FLV_SCRIPT_READ];
    for (bool first = true; at < file->size; first = false) {
        uint8_t tag[FLV_TAG];
        VL_TRY(vl_media_check_deadline(path, deadline));
        if (at + FLV_TAG > file->size) return cut_short(path, "tag");
        VL_TRY(vl_reader_read(file, at, tag, FLV_TAG));
        int type = tag[0] & 0x1f;
        int64_t bytes = AV_RB24(tag + 1), end = at + FLV_TAG + bytes + 4;
        if (type != FLV_AUDIO && type != FLV_VIDEO && type != FLV_SCRIPT) {
            return vl_error(VL_FORMAT, "%s: damaged: no tag where one should begin, at byte %lld", path, (long long)at);
        }
        if (end > file->size) return cut_short(path, "tag");
        if (first && type == FLV_SCRIPT) {
            int64_t length = bytes < FLV_SCRIPT_READ ? bytes : FLV_SCRIPT_READ;
            VL_TRY(vl_reader_read(file, at + FLV_TAG, script, length));
            int64_t promised = flv_announced_bytes(script, length);
            if (promised > file->size) return announced(path, (uint64_t)promised, file->size);
        }
        at = end;
    }
    return VL_OK;
}

// ---- DV --------------------------------------------------------------------

enum { DV_FRAME_525 = 120000, DV_FRAME_625 = 144000 };  // 4:1:1 and 4:2:0 at 25 Mbit/s; others have multiples

static VlStatus check_dv(const VlReader *file, const char *path, const uint8_t *head) {
    int64_t frame = head[3] & 0x80 ? DV_FRAME_625 : DV_FRAME_525;
    return file->size % frame ? cut_short(path, "frame") : VL_OK;
}

// ---- Which container it is -------------------------------------------------

enum { HEAD_BYTES = 4096 };

static VlStatus check(const VlReader *file, const char *path, double deadline) {
    uint8_t head[HEAD_BYTES] = {0};
    int64_t length = file->size < HEAD_BYTES ? file->size : HEAD_BYTES;
    VL_TRY(vl_reader_read(file, 0, head, length));
    if (!memcmp(head, "\x1a\x45\xdf\xa3", 4)) return vl_ebml_check_complete(file);
    if (!memcmp(head, "OggS", 4)) return vl_ogg_check_complete(file, deadline);
    if (!memcmp(head, "FLV", 3)) return check_flv(file, path, head, deadline);
    if (!memcmp(head, "\0\0\1\xba", 4)) return check_program(file, path);
    if (!memcmp(head, "\x1f\x07\x00", 3)) return check_dv(file, path, head);
    if (!memcmp(head, asf_header_id, sizeof asf_header_id)) return check_asf(file, path, head, length);
    return check_transport(file, path, head, length);
}

VlStatus vl_media_check_complete(const char *path, double deadline) {
    VlReader file;
    VL_TRY(vl_reader_open(&file, path));
    VlStatus status = check(&file, path, deadline);
    vl_reader_close(&file);
    return status;
}

#endif
