#include <math.h>

#include "base/crc32c.h"
#include "data/shard_format.h"
#include "tests/data/packing.h"

enum { SAMPLES = 23 };

// Reads everything and compares it with what was made; the first status that is not VL_OK otherwise.
static VlStatus read_back(const char *path, int64_t first, int64_t count) {
    VlShard *shard;
    VlShardScratch scratch = {0};
    VL_TRY(vl_shard_open(&shard, path));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < count && !status; i++) {
        char wanted[1024];
        VlShardRecord record;
        status = vl_shard_read(shard, i, &scratch, true, &record);
        if (status) break;
        made_text(first + i, wanted);
        assert_string_equal(record.text, wanted);
        assert_int_equal(record.length, strlen(wanted));
        assert_int_equal(vl_shard_row(shard, i)->modality, made_modal(first + i));
        assert_int_equal(vl_shard_row(shard, i)->number, first + i);
        assert_int_equal(vl_shard_frames(shard, i), made_frames(first + i));
        assert_int_equal(vl_shard_rows(shard, i), made_rows(first + i));
        assert_int_equal(record.pixels == NULL, made_frames(first + i) == 0);
        assert_int_equal(record.fbank == NULL, made_rows(first + i) == 0);
        for (int64_t k = 0; k < made_frames(first + i) * SIDE * SIDE * 3; k++) {
            if (record.pixels[k] != made_pixel(first + i, k)) fail_msg("sample %d, byte %d", (int)i, (int)k);
        }
        for (int64_t k = 0; k < made_rows(first + i) * VL_FBANK_BINS; k++) {
            float made = made_value(first + i, k);
            if (memcmp(&record.fbank[k], &made, sizeof made) != 0) fail_msg("sample %d, value %d", (int)i, (int)k);
        }
        vl_shard_record_free(&record);
        VlFrameTime *times;
        status = vl_shard_read_times(shard, i, &scratch, &times);
        for (int64_t k = 0; !status && k < made_frames(first + i); k++) {
            VlFrameTime made = made_time(first + i, k);
            assert_int_equal(times[k].index, made.index);
            assert_true(times[k].seconds == made.seconds);
        }
        assert_int_equal(!status && times != NULL, !status && made_frames(first + i) > 0);
        vl_free(times);
    }
    vl_shard_scratch_free(&scratch);
    vl_shard_close(shard);
    return status;
}

static void test_crc32c(void **state) {
    (void)state;
    uint8_t data[100];
    for (int i = 0; i < 100; i++) data[i] = (uint8_t)(i * 73 + 5);
    assert_int_equal(vl_crc32c(0, "123456789", 9), 0xE3069283u);
    assert_int_equal(vl_crc32c_portable(0, "123456789", 9), 0xE3069283u);
    for (int64_t size = 0; size <= 100; size++) {
        uint32_t whole = vl_crc32c(0, data, size);
        assert_int_equal(whole, vl_crc32c_portable(0, data, size));
        assert_int_equal(whole, vl_crc32c(vl_crc32c(0, data, size / 3), data + size / 3, size - size / 3));
    }
}

static void test_round_trip(void **state) {
    (void)state;
    char *folder = make_folder();
    const char *path = in_folder(folder, "a.h5");
    VlShard *shard;
    make_shard(path, 5, SAMPLES, 2);
    assert_ok(read_back(path, 5, SAMPLES));
    assert_ok(vl_shard_open(&shard, path));
    const VlShardHeader *header = vl_shard_header(shard);
    assert_int_equal(header->samples, SAMPLES);
    assert_true(header->bytes > 4 * header->chunk_bytes);  // records cross chunks
    assert_int_equal(header->height, SIDE);
    assert_int_equal(header->num_frames, FRAMES);
    assert_string_equal(header->preprocessing, PREPROCESSING);
    assert_string_equal(header->sound, SOUND_PREPROCESSING);
    assert_true(vl_shard_has_frames(shard) && vl_shard_has_sound(shard));
    assert_true(vl_shard_stored(shard) > 0 && vl_shard_stored(shard) < header->bytes);
    vl_shard_close(shard);
    remove_folder(folder);
}

static void test_same_bytes_with_any_threads(void **state) {
    (void)state;
    char *folder = make_folder();
    make_shard(in_folder(folder, "one.h5"), 0, SAMPLES, 1);
    make_shard(in_folder(folder, "four.h5"), 0, SAMPLES, 4);
    assert_same_file(in_folder(folder, "one.h5"), in_folder(folder, "four.h5"));
    remove_folder(folder);
}

static void test_shared_media(void **state) {
    (void)state;
    char *folder = make_folder();
    const char *path = in_folder(folder, "a.h5");
    VlPool *pool;
    VlShardWriter *writer;
    VlShard *shard;
    VlShardScratch scratch = {0};
    VlShardHeader header = made_header();
    uint8_t frame[SIDE * SIDE * 3];
    int32_t row;
    VlFrameTime time = {.index = 5, .seconds = 0.2};
    VlShardMedium medium = {.frames = 1, .pixels = frame, .times = &time};
    memset(frame, 77, sizeof frame);
    assert_ok(vl_pool_open(&pool, 1));
    assert_ok(vl_shard_writer_open(&writer, path, &header, pool));
    assert_ok(vl_shard_writer_media(writer, &medium, &row));
    for (int64_t i = 0; i < 2; i++) {
        VlShardSample sample = {
            .id = "x", .text = "{}", .length = 2, .number = i, .media = row, .modality = VL_MODAL_IMAGE};
        assert_ok(vl_shard_writer_sample(writer, &sample));
    }
    medium.frames = FRAMES + 1;
    assert_status(vl_shard_writer_media(writer, &medium, &row), VL_INVALID);
    assert_ok(vl_shard_writer_commit(writer));
    assert_ok(vl_shard_open(&shard, path));
    assert_int_equal(vl_shard_header(shard)->bytes, sizeof frame + sizeof time + 4);
    for (int64_t i = 0; i < 2; i++) {
        VlShardRecord record;
        assert_ok(vl_shard_read(shard, i, &scratch, true, &record));
        assert_memory_equal(record.pixels, frame, sizeof frame);
        assert_null(record.fbank);
        vl_shard_record_free(&record);
    }
    vl_shard_scratch_free(&scratch);
    vl_shard_close(shard);
    vl_pool_close(pool);
    remove_folder(folder);
}

// A shard of sounds alone needs no pictures' size, one whose header names no sound takes none, and neither takes values
// that no filter bank has.
static void test_sounds_alone(void **state) {
    (void)state;
    char *folder = make_folder();
    const char *path = in_folder(folder, "a.h5");
    VlPool *pool;
    VlShardWriter *writer;
    VlShard *shard;
    VlShardScratch scratch = {0};
    VlShardRecord record;
    VlFrameTime *times, time = {0};
    static float fbank[2998 * VL_FBANK_BINS];
    static const float odd[] = {0.0F, -0.0F, 1e-40F, -3.4e38F, 0.1F, -15.942385F};
    uint8_t frame[SIDE * SIDE * 3] = {0};
    VlShardHeader header = made_header(), deaf = made_header();
    VlShardMedium medium = {.rows = 2998, .fbank = fbank}, picture = {.frames = 1, .pixels = frame, .times = &time};
    int32_t row;
    header.height = header.width = header.chunk_bytes = 0;
    deaf.sound[0] = '\0';
    for (int64_t i = 0; i < 2998 * VL_FBANK_BINS; i++) fbank[i] = i < 6 ? odd[i] : made_value(3, i);
    assert_ok(vl_pool_open(&pool, 1));
    assert_ok(vl_shard_writer_open(&writer, path, &header, pool));
    assert_status(vl_shard_writer_media(writer, &picture, &row), VL_INVALID);
    medium.rows = VL_SHARD_ROWS_LIMIT + 1;
    assert_status(vl_shard_writer_media(writer, &medium, &row), VL_INVALID);
    medium.rows = 0;
    assert_status(vl_shard_writer_media(writer, &medium, &row), VL_INVALID);
    medium.rows = 2998;
    fbank[129] = NAN;
    assert_status(vl_shard_writer_media(writer, &medium, &row), VL_INVALID);
    assert_error_names("row 1");
    fbank[129] = 0;
    assert_ok(vl_shard_writer_media(writer, &medium, &row));
    VlShardSample sample = {.id = "x", .text = "{}", .length = 2, .media = row, .modality = VL_MODAL_AUDIO};
    assert_ok(vl_shard_writer_sample(writer, &sample));
    assert_ok(vl_shard_writer_commit(writer));
    assert_ok(vl_shard_open(&shard, path));
    assert_false(vl_shard_has_frames(shard));
    assert_int_equal(vl_shard_header(shard)->bytes, 2998 * VL_FBANK_BINS * 4 + 2);
    assert_ok(vl_shard_read(shard, 0, &scratch, true, &record));
    assert_null(record.pixels);
    assert_memory_equal(record.fbank, fbank, sizeof fbank);
    vl_shard_record_free(&record);
    assert_ok(vl_shard_read_times(shard, 0, &scratch, &times));
    assert_null(times);
    vl_shard_close(shard);
    // A sample that says it is a picture, of a record that is a sound.
    assert_ok(vl_shard_writer_open(&writer, path, &header, pool));
    assert_ok(vl_shard_writer_media(writer, &medium, &row));
    sample.modality = VL_MODAL_IMAGE;
    assert_ok(vl_shard_writer_sample(writer, &sample));
    assert_ok(vl_shard_writer_commit(writer));
    assert_status(vl_shard_open(&shard, path), VL_FORMAT);
    assert_error_names("index");
    assert_ok(vl_shard_writer_open(&writer, path, &deaf, pool));
    assert_status(vl_shard_writer_media(writer, &medium, &row), VL_INVALID);
    vl_shard_writer_abandon(writer);
    vl_shard_scratch_free(&scratch);
    vl_pool_close(pool);
    remove_folder(folder);
}

// Shards of the format before sounds are refused by their version, as those of a later one.
static void test_other_versions(void **state) {
    (void)state;
    char *folder = make_folder();
    const char *path = in_folder(folder, "a.h5");
    int64_t size, trailer = (int64_t)sizeof(VlShardTrailer), earlier = trailer - VL_SOUND_PREPROCESSING_MAX;
    VlShard *shard;
    make_shard(path, 0, SAMPLES, 1);
    char *data = read_all(path, &size);
    char *at = data + size - trailer;
    data[size - trailer + 8] = VL_SHARD_VERSION + 1;
    assert_ok(vl_write_file(path, data, size));
    assert_status(vl_shard_open(&shard, path), VL_UNSUPPORTED);
    assert_error_names("version 4, this program reads version 3: pack it again");
    at[8] = 2;
    assert_ok(vl_write_file(path, data, size - trailer + earlier));
    assert_status(vl_shard_open(&shard, path), VL_UNSUPPORTED);
    assert_error_names("version 2, this program reads version 3: pack it again");
    vl_free(data);
    remove_folder(folder);
}

// A flipped byte is found, or it lies where no sample's content depends on it.
static void test_flipped_bytes(void **state) {
    (void)state;
    char *folder = make_folder();
    const char *path = in_folder(folder, "a.h5");
    int64_t size, found = 0, tried = 0;
    VlShard *shard;
    make_shard(path, 0, SAMPLES, 1);
    vl_free(read_all(path, &size));
    assert_ok(vl_shard_open(&shard, path));
    // What reading depends on: records, tables, trailer. The rest is HDF5's, for other programs.
    int64_t chunks = (vl_shard_header(shard)->bytes + 1023) / 1024;
    int64_t needed = vl_shard_stored(shard) + chunks * (int64_t)sizeof(VlShardChunk) +
                     SAMPLES * (int64_t)sizeof(VlShardRow) +
                     vl_shard_header(shard)->media * (int64_t)sizeof(VlShardMedia) + (int64_t)sizeof(VlShardTrailer);
    vl_shard_close(shard);
    for (int64_t offset = 0; offset < size; offset++) {
        int bits = 1 << (offset % 8);
        flip(path, offset, bits);
        VlStatus status = read_back(path, 0, SAMPLES);
        if (status) {
            found++;
            assert_true(status == VL_FORMAT || status == VL_UNSUPPORTED);
            assert_error_names(path);
        }
        tried++;
        flip(path, offset, bits);
    }
    assert_ok(read_back(path, 0, SAMPLES));
    // A few bits of a zstd frame's headers mean nothing; what is read back was compared above.
    if (!(found >= needed - 3 * chunks && found <= needed)) {
        fail_msg("%d of %d flips were found, but %d bytes are needed", (int)found, (int)tried, (int)needed);
    }
    remove_folder(folder);
}

static void test_flip_names_the_sample(void **state) {
    (void)state;
    char *folder = make_folder();
    const char *path = in_folder(folder, "a.h5");
    int64_t size;
    VlShardRecord record;
    VlShard *shard;
    VlShardScratch scratch = {0};
    make_shard(path, 0, SAMPLES, 1);
    char *data = read_all(path, &size);
    // The first chunk is a zstd frame; its middle belongs to one of the first samples.
    char *frame = memmem(data, (size_t)size, "\x28\xb5\x2f\xfd", 4);
    assert_non_null(frame);
    flip(path, frame - data + 100, 0xff);
    assert_ok(vl_shard_open(&shard, path));
    int64_t bad = 0, good = 0;
    for (int64_t i = 0; i < SAMPLES; i++) {
        VlStatus status = vl_shard_read(shard, i, &scratch, true, &record);
        if (!status) {
            good++;
            vl_shard_record_free(&record);
            continue;
        }
        bad++;
        assert_null(record.text);
        char wanted[64];
        snprintf(wanted, sizeof wanted, "sample %d (annotation %d)", (int)i, (int)i);
        assert_int_equal(status, VL_FORMAT);
        assert_error_names(path);
        assert_error_names(wanted);
    }
    assert_true(bad >= 1 && good >= SAMPLES / 2);
    vl_free(data);
    vl_shard_scratch_free(&scratch);
    vl_shard_close(shard);
    remove_folder(folder);
}

static void test_truncated(void **state) {
    (void)state;
    char *folder = make_folder();
    const char *path = in_folder(folder, "a.h5"), *cut = in_folder(folder, "cut.h5");
    int64_t size;
    VlShard *shard;
    make_shard(path, 0, SAMPLES, 1);
    char *data = read_all(path, &size);
    for (int64_t kept = 0; kept < size; kept += 1 + size / 40) {
        assert_ok(vl_write_file(cut, data, kept));
        assert_status(vl_shard_open(&shard, cut), VL_FORMAT);
        assert_error_names(cut);
    }
    assert_status(vl_shard_open(&shard, in_folder(folder, "missing.h5")), VL_IO);
    vl_free(data);
    remove_folder(folder);
}

static void test_abandon_leaves_nothing(void **state) {
    (void)state;
    char *folder = make_folder(), **names;
    VlPool *pool;
    VlShardWriter *writer;
    VlShardHeader header = made_header();
    int64_t count;
    assert_ok(vl_pool_open(&pool, 2));
    assert_ok(vl_shard_writer_open(&writer, in_folder(folder, "a.h5"), &header, pool));
    for (int64_t n = 0; n < SAMPLES; n++) add_made_sample(writer, n);
    vl_shard_writer_abandon(writer);
    assert_ok(vl_list_folder(folder, &names, &count));
    assert_int_equal(count, 0);
    vl_free_names(names, count);
    assert_status(vl_shard_writer_open(&writer, in_folder(folder, "no/a.h5"), &header, pool), VL_IO);
    header.height = 0;
    assert_status(vl_shard_writer_open(&writer, in_folder(folder, "a.h5"), &header, pool), VL_INVALID);
    vl_pool_close(pool);
    remove_folder(folder);
}

static VlStatus write_and_read(const char *path, VlPool *pool) {
    VlShardWriter *writer;
    VlShardHeader header = made_header();
    uint8_t pixels[FRAMES * SIDE * SIDE * 3] = {0};
    float fbank[ROWS * VL_FBANK_BINS] = {0};
    VlFrameTime times[FRAMES] = {{0}};
    VlShardMedium medium = {.frames = FRAMES, .pixels = pixels, .times = times, .rows = ROWS, .fbank = fbank};
    int32_t row;
    VL_TRY(vl_shard_writer_open(&writer, path, &header, pool));
    VlStatus status = vl_shard_writer_media(writer, &medium, &row);
    VlShardSample sample = {.id = "x", .text = "{}", .length = 2, .media = row, .modality = VL_MODAL_VIDEO};
    for (int i = 0; i < 20 && !status; i++) status = vl_shard_writer_sample(writer, &sample);
    if (status) {
        vl_shard_writer_abandon(writer);
        return status;
    }
    VL_TRY(vl_shard_writer_commit(writer));
    VlShard *shard;
    VlShardScratch scratch = {0};
    VlShardRecord record;
    VL_TRY(vl_shard_open(&shard, path));
    status = vl_shard_read(shard, 0, &scratch, true, &record);
    vl_shard_record_free(&record);
    vl_shard_scratch_free(&scratch);
    vl_shard_close(shard);
    return status;
}

static void test_every_failure(void **state) {
    (void)state;
    char *folder = make_folder();
    const char *path = in_folder(folder, "a.h5"), *temporary = in_folder(folder, "a.h5.tmp");
    VlPool *pool;
    assert_ok(vl_pool_open(&pool, 1));
    int64_t n = 0;
    for (;; n++) {
        assert_true(n < 1000);
        unlink(path);
        vl_fault_arm(n);
        VlStatus status = write_and_read(path, pool);
        vl_fault_arm(-1);
        if (!status) break;
        assert_true(status == VL_OUT_OF_MEMORY || status == VL_IO || status == VL_FORMAT);
        assert_true(strlen(vl_error_text()) > 10);
        assert_false(vl_path_exists(temporary));
    }
    assert_true(n > 20);
    vl_pool_close(pool);
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_same_bytes_with_any_threads),
        cmocka_unit_test(test_shared_media),
        cmocka_unit_test(test_sounds_alone),
        cmocka_unit_test(test_other_versions),
        cmocka_unit_test(test_flipped_bytes),
        cmocka_unit_test(test_flip_names_the_sample),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_abandon_leaves_nothing),
        cmocka_unit_test(test_every_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
