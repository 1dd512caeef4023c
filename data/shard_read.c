#include <string.h>
#include <zstd.h>

#include "base/crc32c.h"
#include "base/files.h"
#include "base/memory.h"
#include "data/shard_format.h"

enum { CHUNK_LEAST = 1 << 10, CHUNK_LIMIT = 64 << 20 };

struct VlShard {
    char *path;
    VlShardHeader header;
    uint32_t crc32c;
    VlShardRow *rows;
    VlShardMedia *media;
    VlShardChunk *chunks;
};

// ---- Tables ----------------------------------------------------------------

static VlStatus damaged(const char *path, const char *what) {
    return vl_error(VL_FORMAT, "shard %s: %s: it is damaged or not a shard; pack it again", path, what);
}

static VlStatus check_header(const VlShard *shard, int64_t file_size) {
    const VlShardHeader *header = &shard->header;
    int64_t frames = 0;
    if (!memchr(header->preprocessing, 0, sizeof header->preprocessing) ||
        !memchr(header->sound, 0, sizeof header->sound)) {
        return damaged(shard->path, "the name of its preprocessing has no end");
    }
    bool pictures = header->height != 0 || header->width != 0;
    if (!vl_multiply(header->height, header->width, &frames) || !vl_multiply(frames, header->num_frames, &frames) ||
        !vl_multiply(frames, 3, &frames) || frames < pictures || frames > INT32_MAX) {
        return damaged(shard->path, "its frames have no valid size");
    }
    // The tables are part of the file, so the file's size bounds the memory for them.
    if (header->chunk_bytes < CHUNK_LEAST || header->chunk_bytes > CHUNK_LIMIT || header->bytes < 0 ||
        header->bytes > INT64_MAX - header->chunk_bytes || header->samples < 0 || header->media < 0 ||
        header->media > INT32_MAX || header->samples > file_size / (int64_t)sizeof(VlShardRow) ||
        header->media > file_size / (int64_t)sizeof(VlShardMedia) ||
        vl_shard_chunks(header) > file_size / (int64_t)sizeof(VlShardChunk)) {
        return damaged(shard->path, "its counts are not possible");
    }
    return VL_OK;
}

// [offset, offset + length) lies in [0, limit).
static bool inside(int64_t offset, int64_t length, int64_t limit) {
    return offset >= 0 && length >= 0 && offset <= limit && length <= limit - offset;
}

// Text has no medium, an image and a video have frames, a sound is heard in audio and maybe in a video.
static bool fits_medium(const VlShard *shard, const VlShardRow *row) {
    const VlShardHeader *header = &shard->header;
    bool text = row->modality == VL_MODAL_TEXT, audio = row->modality == VL_MODAL_AUDIO;
    if (text || row->media < 0 || row->media >= header->media) return text && row->media == -1;
    const VlShardMedia *media = &shard->media[row->media];
    return audio == (media->frames == 0) && (row->modality != VL_MODAL_IMAGE || media->rows == 0);
}

static bool is_possible(const VlShardHeader *header, const VlShardMedia *media) {
    return inside(media->offset, media->length, header->bytes) && media->frames >= 0 &&
           media->frames <= (header->height ? header->num_frames : 0) && media->rows >= 0 &&
           media->rows <= (header->sound[0] ? VL_SHARD_ROWS_LIMIT : 0) && media->frames + media->rows > 0 &&
           media->length == vl_shard_media_bytes(header, media->frames, media->rows);
}

static VlStatus check_tables(const VlShard *shard, int64_t file_size) {
    const VlShardHeader *header = &shard->header;
    int64_t chunks = vl_shard_chunks(header);
    uint32_t crc = vl_shard_table_checksum(header, shard->rows, shard->media, shard->chunks);
    if (crc != shard->crc32c) return damaged(shard->path, "the checksum of its tables is wrong");
    for (int64_t i = 0; i < header->samples; i++) {
        const VlShardRow *row = &shard->rows[i];
        if (!inside(row->offset, row->length, header->bytes) || row->length < 1 || row->length > VL_SHARD_TEXT_LIMIT ||
            row->number < 0 || row->tokens < 0 || row->modality < VL_MODAL_TEXT || row->modality > VL_MODAL_AUDIO ||
            !fits_medium(shard, row)) {
            return damaged(shard->path, "its table 'index' holds values that are not possible");
        }
    }
    for (int64_t i = 0; i < header->media; i++) {
        if (!is_possible(header, &shard->media[i])) {
            return damaged(shard->path, "its table 'media' holds values that are not possible");
        }
    }
    for (int64_t i = 0; i < chunks; i++) {
        const VlShardChunk *chunk = &shard->chunks[i];
        if (!inside(chunk->address, chunk->stored, file_size) || chunk->stored < 1 ||
            chunk->stored > (int64_t)ZSTD_compressBound((size_t)header->chunk_bytes)) {
            return damaged(shard->path, "its table 'chunks' points outside of the file; it may be truncated");
        }
    }
    return VL_OK;
}

// Version 2, without sounds, had a shorter trailer, with the magic and the version at its beginning as now.
enum { TRAILER_BYTES_2 = sizeof(VlShardTrailer) - VL_SOUND_PREPROCESSING_MAX };

static VlStatus refuse_version(const char *path, int64_t version) {
    return vl_error(VL_UNSUPPORTED,
                    "shard %s: its format has version %lld, this program reads version %d: pack it again", path,
                    (long long)version, VL_SHARD_VERSION);
}

static VlStatus read_trailer(const VlReader *reader, const char *path, VlShardTrailer *trailer) {
    int64_t size = (int64_t)sizeof *trailer;
    if (reader->size < size) return damaged(path, "it is too short");
    VL_TRY(vl_reader_read(reader, reader->size - size, trailer, size));
    if (memcmp(trailer->magic, VL_SHARD_MAGIC, sizeof trailer->magic) != 0) {
        VlShardTrailer earlier;
        memcpy(&earlier, (const char *)trailer + size - TRAILER_BYTES_2, TRAILER_BYTES_2);
        bool magic = memcmp(earlier.magic, VL_SHARD_MAGIC, sizeof earlier.magic) == 0;
        if (magic && earlier.version == 2) return refuse_version(path, 2);
        return damaged(path, "its trailer is missing; it may be truncated");
    }
    if (trailer->version != VL_SHARD_VERSION) return refuse_version(path, trailer->version);
    if (trailer->crc32c != vl_shard_trailer_checksum(trailer)) {
        return damaged(path, "the checksum of its trailer is wrong");
    }
    return VL_OK;
}

static VlStatus read_table(const VlReader *reader, const char *path, int64_t address, int64_t count, int64_t size,
                           void *out) {
    void *rows;
    if (!inside(address, count * size, reader->size)) return damaged(path, "a table lies outside of the file");
    VL_TRY(vl_allocate(&rows, count, size));
    VlStatus status = vl_reader_read(reader, address, rows, count * size);
    if (status) {
        vl_free(rows);
        return status;
    }
    memcpy(out, &rows, sizeof rows);
    return VL_OK;
}

static VlStatus read_tables(VlShard *shard, const VlReader *reader) {
    VlShardTrailer trailer;
    VlShardHeader *header = &shard->header;
    VL_TRY(read_trailer(reader, shard->path, &trailer));
    *header = trailer.header;
    shard->crc32c = (uint32_t)trailer.table_crc32c;
    VL_TRY(check_header(shard, reader->size));
    VL_TRY(read_table(reader, shard->path, trailer.index_address, header->samples, (int64_t)sizeof *shard->rows,
                      &shard->rows));
    VL_TRY(read_table(reader, shard->path, trailer.media_address, header->media, (int64_t)sizeof *shard->media,
                      &shard->media));
    VL_TRY(read_table(reader, shard->path, trailer.chunks_address, vl_shard_chunks(header),
                      (int64_t)sizeof *shard->chunks, &shard->chunks));
    return check_tables(shard, reader->size);
}

VlStatus vl_shard_open(VlShard **out, const char *path) {
    VlShard *shard;
    VlReader reader;
    VL_TRY(VL_NEW(&shard, 1));
    VlStatus status = vl_duplicate_string(&shard->path, path);
    if (!status) status = vl_reader_open(&reader, path);
    if (!status) {
        status = read_tables(shard, &reader);
        vl_reader_close(&reader);
    }
    if (status) {
        vl_shard_close(shard);
        return status;
    }
    *out = shard;
    return VL_OK;
}

void vl_shard_close(VlShard *shard) {
    if (!shard) return;
    vl_free(shard->path);
    vl_free(shard->rows);
    vl_free(shard->media);
    vl_free(shard->chunks);
    vl_free(shard);
}

const char *vl_shard_path(const VlShard *shard) { return shard->path; }

const VlShardHeader *vl_shard_header(const VlShard *shard) { return &shard->header; }

uint32_t vl_shard_checksum(const VlShard *shard) { return shard->crc32c; }

const VlShardRow *vl_shard_row(const VlShard *shard, int64_t sample) {
    VL_ASSERT(sample >= 0 && sample < shard->header.samples);
    return &shard->rows[sample];
}

int64_t vl_shard_frames(const VlShard *shard, int64_t sample) {
    const VlShardRow *row = vl_shard_row(shard, sample);
    return row->media < 0 ? 0 : shard->media[row->media].frames;
}

int64_t vl_shard_rows(const VlShard *shard, int64_t sample) {
    const VlShardRow *row = vl_shard_row(shard, sample);
    return row->media < 0 ? 0 : shard->media[row->media].rows;
}

bool vl_shard_has_frames(const VlShard *shard) {
    for (int64_t i = 0; i < shard->header.media; i++) {
        if (shard->media[i].frames > 0) return true;
    }
    return false;
}

bool vl_shard_has_sound(const VlShard *shard) {
    for (int64_t i = 0; i < shard->header.media; i++) {
        if (shard->media[i].rows > 0) return true;
    }
    return false;
}

int64_t vl_shard_stored(const VlShard *shard) {
    int64_t stored = 0;
    for (int64_t i = 0; i < vl_shard_chunks(&shard->header); i++) stored += shard->chunks[i].stored;
    return stored;
}

// ---- Records ---------------------------------------------------------------

void vl_shard_scratch_free(VlShardScratch *scratch) {
    ZSTD_freeDCtx(scratch->context);
    vl_free(scratch->stored);
    vl_free(scratch->chunk);
    *scratch = (VlShardScratch){0};
}

// The first `size` bytes of a chunk, and no more of it than zstd's blocks make necessary.
static VlStatus decompress(const VlShard *shard, int64_t index, const VlReader *reader, VlShardScratch *scratch,
                           uint8_t *out, int64_t size) {
    const VlShardChunk *chunk = &shard->chunks[index];
    VL_TRY(vl_reserve(&scratch->stored, &scratch->stored_capacity, chunk->stored, 1));
    VL_TRY(vl_reader_read(reader, chunk->address, scratch->stored, chunk->stored));
    ZSTD_inBuffer input = {scratch->stored, (size_t)chunk->stored, 0};
    ZSTD_outBuffer output = {out, (size_t)size, 0};
    size_t result = ZSTD_DCtx_reset(scratch->context, ZSTD_reset_session_only);
    while (!ZSTD_isError(result) && output.pos < output.size) {
        size_t before = output.pos, consumed = input.pos;
        result = ZSTD_decompressStream(scratch->context, &output, &input);
        if (output.pos == before && input.pos == consumed) break;
    }
    if (!ZSTD_isError(result) && output.pos == output.size) return VL_OK;
    return vl_error(VL_FORMAT, "chunk %lld of its bytes does not decompress (%s); the file is damaged, pack it again",
                    (long long)index, ZSTD_isError(result) ? ZSTD_getErrorName(result) : "it is too short");
}

static VlStatus read_range(const VlShard *shard, const VlReader *reader, VlShardScratch *scratch, int64_t offset,
                           int64_t length, uint8_t *out) {
    int64_t chunk_bytes = shard->header.chunk_bytes;
    while (length > 0) {
        int64_t index = offset / chunk_bytes, begin = offset % chunk_bytes;
        int64_t part = length < chunk_bytes - begin ? length : chunk_bytes - begin;
        if (begin == 0) {
            VL_TRY(decompress(shard, index, reader, scratch, out, part));
        } else {
            VL_TRY(vl_reserve(&scratch->chunk, &scratch->chunk_capacity, chunk_bytes, 1));
            VL_TRY(decompress(shard, index, reader, scratch, scratch->chunk, begin + part));
            memcpy(out, scratch->chunk + begin, (size_t)part);
        }
        offset += part;
        length -= part;
        out += part;
    }
    return VL_OK;
}

static VlStatus wrong_checksum(const char *what) {
    return vl_error(VL_FORMAT, "the checksum of its %s is wrong; the file is damaged, pack it again", what);
}

static VlStatus read_text(const VlShard *shard, const VlShardRow *row, const VlReader *reader, VlShardScratch *scratch,
                          VlShardRecord *record) {
    VL_TRY(vl_allocate(&record->text, row->length + 1, 1));
    VL_TRY(read_range(shard, reader, scratch, row->offset, row->length, (uint8_t *)record->text));
    record->length = row->length;
    return vl_crc32c(0, record->text, row->length) == row->crc32c ? VL_OK : wrong_checksum("text");
}

// From differences to pixels.
static void restore_frames(uint8_t *pixels, int64_t length) {
    uint8_t red = 0, green = 0, blue = 0;
    for (int64_t i = 0; i < length; i += 3) {
        pixels[i] = red = (uint8_t)(red + pixels[i]);
        pixels[i + 1] = green = (uint8_t)(green + pixels[i + 1]);
        pixels[i + 2] = blue = (uint8_t)(blue + pixels[i + 2]);
    }
}

// From byte planes to values.
static void restore_bank(const uint8_t *planes, int64_t count, float *fbank) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)planes[i] | (uint32_t)planes[count + i] << 8 | (uint32_t)planes[2 * count + i] << 16 |
                        (uint32_t)planes[3 * count + i] << 24;
        memcpy(fbank + i, &bits, sizeof bits);
    }
}

// A media record's two halves as they are stored, in memory of their own: `visual` is the frames and behind them their
// times, `planes` the filter bank. NULL for one that is empty.
typedef struct Halves {
    uint8_t *visual, *planes;
} Halves;

static VlStatus read_halves(const VlShard *shard, const VlShardMedia *media, const VlReader *reader,
                            VlShardScratch *scratch, Halves *halves) {
    int64_t visual = vl_shard_visual_bytes(&shard->header, media->frames), sound = vl_shard_sound_bytes(media->rows);
    if (visual) VL_TRY(vl_allocate(&halves->visual, visual, 1));
    if (sound) VL_TRY(vl_allocate(&halves->planes, sound, 1));
    VL_TRY(read_range(shard, reader, scratch, media->offset, visual, halves->visual));
    VL_TRY(read_range(shard, reader, scratch, media->offset + visual, sound, halves->planes));
    uint32_t crc = vl_crc32c(vl_crc32c(0, halves->visual, visual), halves->planes, sound);
    return crc == media->crc32c ? VL_OK : wrong_checksum("medium");
}

static VlStatus read_medium(const VlShard *shard, const VlShardMedia *media, const VlReader *reader,
                            VlShardScratch *scratch, VlShardRecord *record) {
    Halves halves = {0};
    int64_t values = media->rows * VL_FBANK_BINS;
    VlStatus status = read_halves(shard, media, reader, scratch, &halves);
    if (!status && values) status = VL_NEW(&record->fbank, values);
    if (!status) {
        if (values) restore_bank(halves.planes, values, record->fbank);
        restore_frames(halves.visual, media->frames * vl_shard_frame_bytes(&shard->header));
        record->pixels = halves.visual;
        halves.visual = NULL;
    }
    vl_free(halves.visual);
    vl_free(halves.planes);
    return status;
}

static VlStatus read_times(const VlShard *shard, const VlShardMedia *media, const VlReader *reader,
                           VlShardScratch *scratch, VlFrameTime **times) {
    Halves halves = {0};
    VlStatus status = read_halves(shard, media, reader, scratch, &halves);
    if (!status) status = VL_NEW(times, media->frames);
    if (!status) {
        memcpy(*times, halves.visual + media->frames * vl_shard_frame_bytes(&shard->header),
               (size_t)media->frames * sizeof **times);
    }
    vl_free(halves.visual);
    vl_free(halves.planes);
    return status;
}

static VlStatus begin_reading(const VlShard *shard, VlShardScratch *scratch, VlReader *reader) {
    if (!scratch->context) scratch->context = ZSTD_createDCtx();
    if (!scratch->context) return vl_error(VL_OUT_OF_MEMORY, "out of memory for zstd's context");
    return vl_reader_open(reader, shard->path);
}

// Ends a reading: an error names the sample.
static VlStatus end_reading(const VlShard *shard, int64_t sample, VlReader *reader, VlStatus status) {
    vl_reader_close(reader);
    if (!status) return VL_OK;
    return vl_error_context(status, "shard %s, sample %lld (annotation %lld)", shard->path, (long long)sample,
                            (long long)vl_shard_row(shard, sample)->number);
}

void vl_shard_record_free(VlShardRecord *record) {
    vl_free(record->text);
    vl_free(record->pixels);
    vl_free(record->fbank);
    *record = (VlShardRecord){0};
}

VlStatus vl_shard_read(const VlShard *shard, int64_t sample, VlShardScratch *scratch, bool media,
                       VlShardRecord *record) {
    const VlShardRow *row = vl_shard_row(shard, sample);
    VlReader reader;
    *record = (VlShardRecord){0};
    VL_TRY(begin_reading(shard, scratch, &reader));
    VlStatus status = read_text(shard, row, &reader, scratch, record);
    if (!status && media && row->media >= 0) {
        status = read_medium(shard, &shard->media[row->media], &reader, scratch, record);
    }
    if (status) vl_shard_record_free(record);
    return end_reading(shard, sample, &reader, status);
}

VlStatus vl_shard_read_times(const VlShard *shard, int64_t sample, VlShardScratch *scratch, VlFrameTime **times) {
    const VlShardRow *row = vl_shard_row(shard, sample);
    VlReader reader;
    *times = NULL;
    if (vl_shard_frames(shard, sample) == 0) return VL_OK;
    VL_TRY(begin_reading(shard, scratch, &reader));
    VlStatus status = read_times(shard, &shard->media[row->media], &reader, scratch, times);
    return end_reading(shard, sample, &reader, status);
}
