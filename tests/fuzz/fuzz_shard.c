// The checksums of trailer and tables are made true before the reader sees them: no mutation would pass them else.
#include <string.h>

#include "base/memory.h"
#include "data/shard_format.h"
#include "tests/fuzz/fuzz.h"

// Rows [address, address + count * size) of the input, in fresh memory for their alignment; NULL when they lie outside.
static void *rows_of(const uint8_t *data, size_t size, int64_t address, int64_t count, int64_t row) {
    int64_t bytes;
    char *rows;
    if (!vl_multiply(count, row, &bytes) || address < 0 || bytes > (int64_t)size || address > (int64_t)size - bytes) {
        return NULL;
    }
    if (vl_allocate(&rows, bytes, 1)) abort();
    memcpy(rows, data + address, (size_t)bytes);
    return rows;
}

static void make_true(uint8_t *data, size_t size) {
    VlShardTrailer trailer;
    VlShardHeader *header = &trailer.header;
    if (size < sizeof trailer) return;
    memcpy(&trailer, data + size - sizeof trailer, sizeof trailer);
    if (header->chunk_bytes > 0 && header->bytes >= 0 && header->bytes <= INT64_MAX - header->chunk_bytes) {
        int64_t chunk_count = vl_shard_chunks(header), row = (int64_t)sizeof(VlShardRow);
        VlShardRow *rows = rows_of(data, size, trailer.index_address, header->samples, row);
        VlShardMedia *media = rows_of(data, size, trailer.media_address, header->media, (int64_t)sizeof(VlShardMedia));
        VlShardChunk *chunks = rows_of(data, size, trailer.chunks_address, chunk_count, (int64_t)sizeof(VlShardChunk));
        if (rows && media && chunks) trailer.table_crc32c = vl_shard_table_checksum(header, rows, media, chunks);
        vl_free(rows);
        vl_free(media);
        vl_free(chunks);
    }
    trailer.version = VL_SHARD_VERSION;  // so that the corpus outlives it
    trailer.crc32c = vl_shard_trailer_checksum(&trailer);
    memcpy(data + size - sizeof trailer, &trailer, sizeof trailer);
}

static void use(const VlShard *shard) {
    const VlShardHeader *header = vl_shard_header(shard);
    VlShardScratch scratch = {0};
    for (int64_t i = 0; i < header->samples && i < 16; i++) {
        VlShardRecord record;
        int64_t frame = header->height * header->width * 3;
        bool small = (frame == 0 || vl_shard_frames(shard, i) <= (1 << 22) / frame) && vl_shard_rows(shard, i) <= 8192;
        if (vl_shard_row(shard, i)->length > 1 << 22 || header->chunk_bytes > 1 << 20) continue;  // valid, but slow
        if (vl_shard_read(shard, i, &scratch, small, &record)) continue;
        if (record.text[record.length] != 0) abort();
        if (record.fbank && vl_shard_rows(shard, i) == 0) abort();
        vl_shard_record_free(&record);
        VlFrameTime *times;
        if (small && !vl_shard_read_times(shard, i, &scratch, &times)) vl_free(times);
    }
    (void)vl_shard_stored(shard);
    vl_shard_scratch_free(&scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    VlShard *shard;
    uint8_t *copy = malloc(size + 1);
    if (!copy) abort();
    memcpy(copy, data, size);
    make_true(copy, size);
    if (!vl_shard_open(&shard, fuzz_file(0, copy, size))) {
        use(shard);
        vl_shard_close(shard);
    }
    free(copy);
    return 0;
}
