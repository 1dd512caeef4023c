#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/crc32c.h"
#include "base/files.h"
#include "base/memory.h"
#include "data/shard_format.h"
#include "data/shard_hdf5.h"

// Level 3 against 1: measured on decoded frames, about 2 % smaller at 0.7 of the speed; 1 keeps packing bound by
// decoding.
enum { LEVEL = 1, CHUNK_LEAST = 128 << 10, CHUNK_MOST = 1 << 20 };

// One chunk on its way: filled by the writer, compressed by the pool, written by the writer.
typedef struct Slot {
    VlTask task;
    ZSTD_CCtx *context;
    uint8_t *raw, *stored;
    int64_t chunk_bytes, stored_capacity, stored_bytes;
} Slot;

struct VlShardWriter {
    char path[VL_PATH_MAX], temporary[VL_PATH_MAX];
    VlShardHeader header;
    VlPool *pool;
    hid_t file, bytes;
    Slot *slot;  // a ring: chunk c is in slot c % slots
    int64_t slots;
    int64_t filled, written;  // chunks handed to the pool, chunks in the file
    int64_t pending;          // bytes in the chunk that is being filled
    VlShardTrailer trailer;   // filled by the commit
    VlShardRow *rows;
    VlShardMedia *media;
    char *ids;  // [samples][VL_SHARD_ID_MAX + 1]
    int64_t row_capacity, media_capacity, id_capacity;
};

static VlStatus hdf5_error(const VlShardWriter *writer, const char *what) {
    char reason[256];
    return vl_error(VL_IO, "shard %s: cannot %s: %s", writer->path, what, vl_shard_hdf5_reason(reason, sizeof reason));
}

static VlStatus compress_chunk(void *argument) {
    Slot *slot = argument;
    size_t size = ZSTD_compressCCtx(slot->context, slot->stored, (size_t)slot->stored_capacity, slot->raw,
                                    (size_t)slot->chunk_bytes, LEVEL);
    if (ZSTD_isError(size)) return vl_error(VL_OUT_OF_MEMORY, "zstd: %s", ZSTD_getErrorName(size));
    slot->stored_bytes = (int64_t)size;
    return VL_OK;
}

// The least power of two that holds one sample's frames, within limits: a reader decompresses little that it does not
// need.
static int64_t choose_chunk_bytes(const VlShardHeader *header) {
    int64_t frames = header->num_frames * header->height * header->width * 3, chunk = CHUNK_LEAST;
    while (chunk < frames && chunk < CHUNK_MOST) chunk *= 2;
    return chunk;
}

static VlStatus make_slots(VlShardWriter *writer) {
    int64_t chunk_bytes = writer->header.chunk_bytes;
    writer->slots = 2 * vl_pool_threads(writer->pool);
    VL_TRY(VL_NEW(&writer->slot, writer->slots));
    for (int64_t i = 0; i < writer->slots; i++) {
        Slot *slot = &writer->slot[i];
        slot->task = (VlTask){.run = compress_chunk, .argument = slot};
        slot->chunk_bytes = chunk_bytes;
        slot->stored_capacity = (int64_t)ZSTD_compressBound((size_t)chunk_bytes);
        VL_TRY(VL_NEW(&slot->raw, chunk_bytes));
        VL_TRY(VL_NEW(&slot->stored, slot->stored_capacity));
        slot->context = ZSTD_createCCtx();
        if (!slot->context) return vl_error(VL_OUT_OF_MEMORY, "out of memory for zstd's context");
    }
    return VL_OK;
}

static hid_t create_bytes(hid_t file, int64_t chunk_bytes) {
    hsize_t none = 0, unlimited = H5S_UNLIMITED, chunk = (hsize_t)chunk_bytes;
    unsigned level = LEVEL;
    hid_t space = H5Screate_simple(1, &none, &unlimited), properties = H5Pcreate(H5P_DATASET_CREATE), dataset = -1;
    if (space >= 0 && properties >= 0 && H5Pset_chunk(properties, 1, &chunk) >= 0 &&
        H5Pset_obj_track_times(properties, false) >= 0 && H5Pset_fill_time(properties, H5D_FILL_TIME_NEVER) >= 0 &&
        H5Pset_filter(properties, VL_SHARD_ZSTD_FILTER, H5Z_FLAG_MANDATORY, 1, &level) >= 0) {
        dataset = H5Dcreate2(file, "bytes", H5T_STD_U8LE, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    }
    if (properties >= 0) H5Pclose(properties);
    if (space >= 0) H5Sclose(space);
    return dataset;
}

// Times are left out of the file, so that the same samples give the same bytes.
static hid_t create_file(const char *path) {
    hid_t properties = H5Pcreate(H5P_FILE_CREATE), file = -1;
    if (properties >= 0 && H5Pset_obj_track_times(properties, false) >= 0) {
        file = H5Fcreate(path, H5F_ACC_TRUNC, properties, H5P_DEFAULT);
    }
    if (properties >= 0) H5Pclose(properties);
    return file;
}

VlStatus vl_shard_writer_open(VlShardWriter **out, const char *path, const VlShardHeader *header, VlPool *pool) {
    VlShardWriter *writer;
    VlStatus status;
    int64_t frame;
    bool pictures = header->height != 0 || header->width != 0;
    if ((pictures && (header->height < 1 || header->width < 1)) || header->num_frames < 1 ||
        !vl_multiply(header->height, header->width, &frame) || !vl_multiply(frame, 3 * header->num_frames, &frame) ||
        frame > INT32_MAX) {
        return vl_error(VL_INVALID, "shard %s: %lld frames of %lld x %lld are no valid size", path,
                        (long long)header->num_frames, (long long)header->height, (long long)header->width);
    }
    VL_TRY(VL_NEW(&writer, 1));
    writer->file = writer->bytes = -1;
    writer->header = *header;
    writer->header.bytes = writer->header.samples = writer->header.media = 0;
    if (!header->chunk_bytes) writer->header.chunk_bytes = choose_chunk_bytes(header);
    writer->pool = pool;
    VL_TRY_GOTO(status, vl_path_join(writer->path, NULL, path), failed);
    if (snprintf(writer->temporary, sizeof writer->temporary, "%s.tmp", path) >= VL_PATH_MAX) {
        VL_TRY_GOTO(status, vl_error(VL_INVALID, "the path '%.60s...' is too long", path), failed);
    }
    VL_TRY_GOTO(status, make_slots(writer), failed);
    VL_TRY_GOTO(status, vl_shard_hdf5_start(), failed);
    writer->file = vl_fault_hit() ? -1 : create_file(writer->temporary);
    if (writer->file < 0) VL_TRY_GOTO(status, hdf5_error(writer, "create the file"), failed);
    writer->bytes = create_bytes(writer->file, writer->header.chunk_bytes);
    if (writer->bytes < 0) VL_TRY_GOTO(status, hdf5_error(writer, "create the dataset 'bytes'"), failed);
    *out = writer;
    return VL_OK;
failed:
    vl_shard_writer_abandon(writer);
    return status;
}

// Waits for the oldest chunk that is with the pool and puts it into the file.
static VlStatus write_oldest(VlShardWriter *writer) {
    Slot *slot = &writer->slot[writer->written % writer->slots];
    hsize_t offset = (hsize_t)(writer->written * writer->header.chunk_bytes);
    hsize_t extent = offset + (hsize_t)writer->header.chunk_bytes;
    VL_TRY_CONTEXT(vl_pool_wait(writer->pool, &slot->task), "shard %s", writer->path);
    // The extent only grows, to its final value with the last chunk: HDF5 rewrites chunks when a dataset shrinks.
    if (extent > (hsize_t)writer->header.bytes) extent = (hsize_t)writer->header.bytes;
    if (H5Dset_extent(writer->bytes, &extent) < 0) return hdf5_error(writer, "extend the dataset 'bytes'");
    if (vl_fault_hit() ||
        H5Dwrite_chunk(writer->bytes, H5P_DEFAULT, 0, &offset, (size_t)slot->stored_bytes, slot->stored) < 0) {
        return hdf5_error(writer, "write (is the disk full?)");
    }
    writer->written++;
    return VL_OK;
}

static void submit_chunk(VlShardWriter *writer) {
    Slot *slot = &writer->slot[writer->filled++ % writer->slots];
    writer->pending = 0;
    vl_pool_submit(writer->pool, &slot->task, true);
}

static VlStatus append(VlShardWriter *writer, const void *data, int64_t size) {
    const uint8_t *from = data;
    while (size > 0) {
        if (writer->filled - writer->written == writer->slots) VL_TRY(write_oldest(writer));
        Slot *slot = &writer->slot[writer->filled % writer->slots];
        int64_t space = writer->header.chunk_bytes - writer->pending, part = size < space ? size : space;
        memcpy(slot->raw + writer->pending, from, (size_t)part);
        from += part;
        size -= part;
        writer->pending += part;
        writer->header.bytes += part;
        if (writer->pending == writer->header.chunk_bytes) submit_chunk(writer);
    }
    return VL_OK;
}

static VlStatus append_frames(VlShardWriter *writer, const VlShardMedium *medium, uint32_t *crc) {
    int64_t length = medium->frames * vl_shard_frame_bytes(&writer->header);
    int64_t times_bytes = medium->frames * (int64_t)sizeof *medium->times;
    const uint8_t *pixels = medium->pixels;
    uint8_t *differences;
    VL_TRY(VL_NEW(&differences, length));
    memcpy(differences, pixels, 3);
    for (int64_t i = 3; i < length; i++) differences[i] = (uint8_t)(pixels[i] - pixels[i - 3]);
    *crc = vl_crc32c(*crc, differences, length);
    *crc = vl_crc32c(*crc, medium->times, times_bytes);
    VlStatus status = append(writer, differences, length);
    vl_free(differences);
    return status ? status : append(writer, medium->times, times_bytes);
}

static VlStatus append_bank(VlShardWriter *writer, const VlShardMedium *medium, uint32_t *crc) {
    int64_t length = vl_shard_sound_bytes(medium->rows), count = medium->rows * VL_FBANK_BINS;
    uint8_t *planes;
    VL_TRY(VL_NEW(&planes, length));
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, medium->fbank + i, sizeof bits);
        for (int64_t b = 0; b < 4; b++) planes[b * count + i] = (uint8_t)(bits >> 8 * b);
    }
    *crc = vl_crc32c(*crc, planes, length);
    VlStatus status = append(writer, planes, length);
    vl_free(planes);
    return status;
}

static VlStatus check_medium(const VlShardWriter *writer, const VlShardMedium *medium) {
    const VlShardHeader *header = &writer->header;
    int64_t frames = header->height ? header->num_frames : 0, rows = header->sound[0] ? VL_SHARD_ROWS_LIMIT : 0;
    if (medium->frames < 0 || medium->frames > frames || medium->rows < 0 || medium->rows > rows ||
        medium->frames + medium->rows == 0) {
        return vl_error(VL_INVALID,
                        "shard %s: a medium of %lld frames and %lld rows; up to %lld and %lld are possible, and both "
                        "cannot be 0",
                        writer->path, (long long)medium->frames, (long long)medium->rows, (long long)frames,
                        (long long)rows);
    }
    for (int64_t i = 0; i < medium->rows * VL_FBANK_BINS; i++) {
        if (isfinite(medium->fbank[i])) continue;
        return vl_error(VL_INVALID, "shard %s: row %lld of a filter bank holds a value that is not finite",
                        writer->path, (long long)(i / VL_FBANK_BINS));
    }
    return VL_OK;
}

VlStatus vl_shard_writer_media(VlShardWriter *writer, const VlShardMedium *medium, int32_t *row) {
    VlShardHeader *header = &writer->header;
    VL_TRY(check_medium(writer, medium));
    VL_TRY(vl_reserve(&writer->media, &writer->media_capacity, header->media + 1, (int64_t)sizeof *writer->media));
    VlShardMedia *media = &writer->media[header->media];
    *media = (VlShardMedia){.offset = header->bytes,
                            .length = vl_shard_media_bytes(header, medium->frames, medium->rows),
                            .frames = (int32_t)medium->frames,
                            .rows = medium->rows};
    if (medium->frames) VL_TRY(append_frames(writer, medium, &media->crc32c));
    if (medium->rows) VL_TRY(append_bank(writer, medium, &media->crc32c));
    *row = (int32_t)header->media++;
    return VL_OK;
}

// Copies an id, cut to whole characters.
static void copy_id(char out[VL_SHARD_ID_MAX + 1], const char *id) {
    size_t length = strlen(id);
    if (length > VL_SHARD_ID_MAX) {
        length = VL_SHARD_ID_MAX;
        while (length > 0 && ((unsigned char)id[length] & 0xc0) == 0x80) length--;
    }
    memset(out, 0, VL_SHARD_ID_MAX + 1);
    memcpy(out, id, length);
}

VlStatus vl_shard_writer_sample(VlShardWriter *writer, const VlShardSample *sample) {
    VlShardHeader *header = &writer->header;
    if (sample->length < 1 || sample->length > VL_SHARD_TEXT_LIMIT || sample->tokens < 0 ||
        sample->tokens > INT32_MAX) {
        return vl_error(VL_INVALID, "shard %s: a text record of %lld bytes and %lld tokens; 1 to %d bytes are possible",
                        writer->path, (long long)sample->length, (long long)sample->tokens, VL_SHARD_TEXT_LIMIT);
    }
    VL_ASSERT(sample->media >= -1 && sample->media < header->media);
    VL_TRY(vl_reserve(&writer->rows, &writer->row_capacity, header->samples + 1, (int64_t)sizeof *writer->rows));
    VL_TRY(vl_reserve(&writer->ids, &writer->id_capacity, header->samples + 1, VL_SHARD_ID_MAX + 1));
    VlShardRow row = {.offset = header->bytes,
                      .length = sample->length,
                      .number = sample->number,
                      .crc32c = vl_crc32c(0, sample->text, sample->length),
                      .media = sample->media,
                      .modality = (int32_t)sample->modality,
                      .tokens = (int32_t)sample->tokens};
    VL_TRY(append(writer, sample->text, sample->length));
    copy_id(writer->ids + header->samples * (VL_SHARD_ID_MAX + 1), sample->id);
    writer->rows[header->samples++] = row;
    return VL_OK;
}

int64_t vl_shard_writer_bytes(const VlShardWriter *writer) { return writer->header.bytes; }

int64_t vl_shard_writer_samples(const VlShardWriter *writer) { return writer->header.samples; }

// ---- Commit ----------------------------------------------------------------

// Takes over `type`, which may be negative. *address = where the rows lie in the file; unchanged when there are none.
static VlStatus write_table(VlShardWriter *writer, const char *name, hid_t type, int64_t count, const void *rows,
                            int64_t *address) {
    hsize_t extent = (hsize_t)count;
    hid_t space = H5Screate_simple(1, &extent, NULL), properties = H5Pcreate(H5P_DATASET_CREATE), dataset = -1;
    bool done = false;
    if (type >= 0 && space >= 0 && properties >= 0 && H5Pset_obj_track_times(properties, false) >= 0) {
        dataset = H5Dcreate2(writer->file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    }
    if (dataset >= 0) done = !count || H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows) >= 0;
    if (done && count) {
        haddr_t offset = H5Dget_offset(dataset);
        done = offset != HADDR_UNDEF;
        *address = (int64_t)offset;
    }
    VlStatus status = done ? VL_OK : hdf5_error(writer, "write its tables (is the disk full?)");
    if (dataset >= 0) H5Dclose(dataset);
    if (properties >= 0) H5Pclose(properties);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    return status;
}

static hid_t string_type(size_t size) {
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && H5Tset_size(type, size) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0 &&
        H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0) {
        return type;
    }
    if (type >= 0) H5Tclose(type);
    return -1;
}

// Takes over `type`, which may be negative.
static VlStatus write_attribute(VlShardWriter *writer, const char *name, hid_t type, const void *value) {
    hid_t space = H5Screate(H5S_SCALAR), attribute = -1;
    bool done = false;
    if (type >= 0 && space >= 0) attribute = H5Acreate2(writer->file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute >= 0) done = H5Awrite(attribute, type, value) >= 0;
    VlStatus status = done ? VL_OK : hdf5_error(writer, "write its attributes (is the disk full?)");
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    return status;
}

static VlStatus write_integer(VlShardWriter *writer, const char *name, int64_t value) {
    return write_attribute(writer, name, H5Tcopy(H5T_STD_I64LE), &value);
}

static VlStatus write_attributes(VlShardWriter *writer) {
    const VlShardHeader *header = &writer->header;
    VL_TRY(write_attribute(writer, "format", string_type(strlen(VL_SHARD_MAGIC)), VL_SHARD_MAGIC));
    VL_TRY(write_integer(writer, "format_version", VL_SHARD_VERSION));
    VL_TRY(write_attribute(writer, "preprocessing", string_type(VL_PREPROCESSING_MAX), header->preprocessing));
    VL_TRY(write_attribute(writer, "sound", string_type(VL_SOUND_PREPROCESSING_MAX), header->sound));
    VL_TRY(write_integer(writer, "height", header->height));
    VL_TRY(write_integer(writer, "width", header->width));
    VL_TRY(write_integer(writer, "num_frames", header->num_frames));
    VL_TRY(write_integer(writer, "chunk_bytes", header->chunk_bytes));
    VL_TRY(write_integer(writer, "bytes", header->bytes));
    VL_TRY(write_integer(writer, "samples", header->samples));
    VL_TRY(write_integer(writer, "media", header->media));
    VL_TRY(write_integer(writer, "crc32c", writer->trailer.table_crc32c));
    return write_integer(writer, "complete", 1);
}

// The ids as strings of the longest one's size.
static VlStatus write_ids(VlShardWriter *writer) {
    int64_t count = writer->header.samples, longest = 1, address;
    for (int64_t i = 0; i < count; i++) {
        int64_t length = (int64_t)strlen(writer->ids + i * (VL_SHARD_ID_MAX + 1));
        if (length > longest) longest = length;
    }
    for (int64_t i = 0; i < count; i++) {
        memmove(writer->ids + i * longest, writer->ids + i * (VL_SHARD_ID_MAX + 1), (size_t)longest);
    }
    return write_table(writer, "ids", string_type((size_t)longest), count, writer->ids, &address);
}

static VlStatus write_tables(VlShardWriter *writer) {
    const VlShardHeader *header = &writer->header;
    int64_t count = vl_shard_chunks(header);
    VlShardChunk *chunks;
    VlStatus status = VL_OK;
    VL_TRY(VL_NEW(&chunks, count));
    for (int64_t i = 0; i < count; i++) {
        hsize_t offset = (hsize_t)(i * header->chunk_bytes), stored = 0;
        unsigned mask = 0;
        haddr_t address = HADDR_UNDEF;
        if (H5Dget_chunk_info_by_coord(writer->bytes, &offset, &mask, &address, &stored) < 0 ||
            address == HADDR_UNDEF) {
            VL_TRY_GOTO(status, hdf5_error(writer, "find its own chunks"), done);
        }
        chunks[i] = (VlShardChunk){(int64_t)address, (int64_t)stored};
    }
    VlShardTrailer *trailer = &writer->trailer;
    *trailer = (VlShardTrailer){.version = VL_SHARD_VERSION, .header = *header};
    memcpy(trailer->magic, VL_SHARD_MAGIC, sizeof trailer->magic);
    trailer->table_crc32c = vl_shard_table_checksum(header, writer->rows, writer->media, chunks);
    VL_TRY_GOTO(
        status,
        write_table(writer, "index", vl_shard_row_type(), header->samples, writer->rows, &trailer->index_address),
        done);
    VL_TRY_GOTO(
        status,
        write_table(writer, "media", vl_shard_media_type(), header->media, writer->media, &trailer->media_address),
        done);
    VL_TRY_GOTO(status, write_table(writer, "chunks", vl_shard_chunk_type(), count, chunks, &trailer->chunks_address),
                done);
    VL_TRY_GOTO(status, write_ids(writer), done);
    VL_TRY_GOTO(status, write_attributes(writer), done);
    trailer->crc32c = vl_shard_trailer_checksum(trailer);
done:
    vl_free(chunks);
    return status;
}

// Appends the trailer to the file that HDF5 has closed. HDF5 leaves bytes behind its own end alone.
static VlStatus seal_file(const VlShardWriter *writer) {
    int descriptor = vl_fault_hit() ? -1 : open(writer->temporary, O_WRONLY | O_APPEND | O_CLOEXEC);
    bool done = descriptor >= 0 &&
                write(descriptor, &writer->trailer, sizeof writer->trailer) == (ssize_t)sizeof writer->trailer &&
                fsync(descriptor) == 0;
    int problem = errno;
    if (descriptor >= 0) close(descriptor);
    if (done) return VL_OK;
    return vl_error(VL_IO, "shard %s: cannot write it to disk: %s", writer->path, strerror(problem));
}

static VlStatus finish_file(VlShardWriter *writer) {
    char folder[VL_PATH_MAX];
    if (writer->pending) {
        Slot *slot = &writer->slot[writer->filled % writer->slots];
        memset(slot->raw + writer->pending, 0, (size_t)(writer->header.chunk_bytes - writer->pending));
        submit_chunk(writer);
    }
    while (writer->written < writer->filled) VL_TRY(write_oldest(writer));
    VL_TRY(write_tables(writer));
    hid_t bytes = writer->bytes, file = writer->file;
    writer->bytes = writer->file = -1;
    bool closed = H5Dclose(bytes) >= 0;
    if (H5Fclose(file) < 0 || !closed) return hdf5_error(writer, "finish (is the disk full?)");
    VL_TRY(seal_file(writer));
    if (vl_fault_hit() || rename(writer->temporary, writer->path)) {
        return vl_error(VL_IO, "cannot rename '%s' to '%s': %s", writer->temporary, writer->path, strerror(errno));
    }
    VL_TRY(vl_path_folder(folder, writer->path));
    return vl_sync_folder(folder);
}

VlStatus vl_shard_writer_commit(VlShardWriter *writer) {
    VlStatus status = finish_file(writer);
    vl_shard_writer_abandon(writer);
    return status;
}

void vl_shard_writer_abandon(VlShardWriter *writer) {
    if (!writer) return;
    for (int64_t i = 0; writer->slot && i < writer->slots; i++) {
        Slot *slot = &writer->slot[i];
        if (slot->task.submitted) {
            VlError kept = vl_error_take(VL_OK);  // the error that led here stays the thread's
            vl_pool_wait(writer->pool, &slot->task);
            vl_error_raise(&kept);
        }
        ZSTD_freeCCtx(slot->context);
        vl_free(slot->raw);
        vl_free(slot->stored);
    }
    if (writer->bytes >= 0) H5Dclose(writer->bytes);
    if (writer->file >= 0) H5Fclose(writer->file);
    if (writer->temporary[0]) unlink(writer->temporary);
    vl_free(writer->slot);
    vl_free(writer->rows);
    vl_free(writer->media);
    vl_free(writer->ids);
    vl_free(writer);
}
