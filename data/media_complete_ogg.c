#ifdef VL_HAVE_MEDIA

#include <libavutil/crc.h>
#include <libavutil/intreadwrite.h>
#include <string.h>

#include "base/memory.h"
#include "data/media_complete.h"
#include "data/media_decoder.h"

enum { PAGE_HEADER = 27, PAGE_MOST = PAGE_HEADER + 255 + 255 * 255, STREAMS_MOST = 64, FLAG_FIRST = 2, FLAG_LAST = 4 };

// A logical stream of the file, known by its serial number.
typedef struct OggStream {
    uint32_t serial, next;  // page's number
    bool ended;
} OggStream;

typedef struct OggWalk {
    const char *path;
    OggStream stream[STREAMS_MOST];
    int streams;
} OggWalk;

static VlStatus damaged(const OggWalk *walk, int64_t at, const char *what) {
    return vl_error(VL_FORMAT, "%s: damaged: %s at byte %lld", walk->path, what, (long long)at);
}

static VlStatus note_page(OggWalk *walk, int64_t at, const uint8_t *page) {
    uint32_t serial = AV_RL32(page + 14), number = AV_RL32(page + 18);
    OggStream *stream = NULL;
    for (int i = 0; i < walk->streams; i++) {
        if (walk->stream[i].serial == serial) stream = &walk->stream[i];
    }
    if (!stream) {
        if (walk->streams == STREAMS_MOST) return damaged(walk, at, "one stream too many");
        stream = &walk->stream[walk->streams++];
        *stream = (OggStream){.serial = serial, .next = number};
    }
    if (page[5] & FLAG_FIRST) *stream = (OggStream){.serial = serial, .next = number};
    if (stream->next != number) return damaged(walk, at, "pages are missing before the page");
    stream->next = number + 1;
    stream->ended = page[5] & FLAG_LAST;
    return VL_OK;
}

// Reads and checks the page at `*at` and goes behind it.
static VlStatus read_page(OggWalk *walk, const VlReader *file, uint8_t *page, int64_t *at) {
    int64_t rest = file->size - *at, length = PAGE_HEADER;
    if (rest < PAGE_HEADER) return vl_error(VL_FORMAT, "%s: truncated: its last page is incomplete", walk->path);
    VL_TRY(vl_reader_read(file, *at, page, rest < PAGE_MOST ? rest : PAGE_MOST));
    if (memcmp(page, "OggS", 4) != 0) return damaged(walk, *at, "no page where one should begin,");
    length += page[26];
    for (int i = 0; length <= rest && i < page[26]; i++) length += page[PAGE_HEADER + i];
    if (length > rest) return vl_error(VL_FORMAT, "%s: truncated: its last page is incomplete", walk->path);
    uint32_t crc = AV_RL32(page + 22);
    memset(page + 22, 0, 4);
    // FFmpeg keeps this checksum with its bytes the other way round.
    if (av_bswap32(av_crc(av_crc_get_table(AV_CRC_32_IEEE), 0, page, (size_t)length)) != crc) {
        return damaged(walk, *at, "a page whose checksum does not match");
    }
    VL_TRY(note_page(walk, *at, page));
    *at += length;
    return VL_OK;
}

static bool all_ended(const OggWalk *walk) {
    for (int i = 0; i < walk->streams; i++) {
        if (!walk->stream[i].ended) return false;
    }
    return walk->streams > 0;
}

VlStatus vl_ogg_check_complete(const VlReader *file, double deadline) {
    OggWalk walk = {.path = file->path};
    uint8_t *page;
    VL_TRY(VL_NEW(&page, PAGE_MOST));
    VlStatus status = VL_OK;
    for (int64_t at = 0; !status && at < file->size;) {
        status = vl_media_check_deadline(walk.path, deadline);
        if (!status) status = read_page(&walk, file, page, &at);
    }
    vl_free(page);
    VL_TRY(status);
    if (all_ended(&walk)) return VL_OK;
    return vl_error(VL_FORMAT, "%s: truncated: a stream has no last page", walk.path);
}

#endif
