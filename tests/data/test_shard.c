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
        char *text, wanted[1024];
        uint8_t *pixels;
        int64_t length;
        status = vl_shard_read(shard, i, &scratch, &text, &length, &pixels);
        if (status) break;
        made_text(first + i, wanted);
        assert_string_equal(text, wanted);
        assert_int_equal(length, strlen(wanted));
        assert_int_equal(vl_shard_row(shard, i)->modality, made_modal(first + i));
        assert_int_equal(vl_shard_row(shard, i)->number, first + i);
        assert_int_equal(vl_shard_frames(shard, i), made_frames(first + i));
        assert_int_equal(pixels == NULL, made_frames(first + i) == 0);
        for (int64_t k = 0; k < made_frames(first + i) * SIDE * SIDE * 3; k++) {
            if (pixels[k] != made_pixel(first + i, k)) fail_msg("sample %d, byte %d", (int)i, (int)k);
        }
        vl_free(text);
        vl_free(pixels);
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
    char *folder = make_folder(), *text;
    const char *path = in_folder(folder, "a.h5");
    VlPool *pool;
    VlShardWriter *writer;
    VlShard *shard;
    VlShardScratch scratch = {0};
    VlShardHeader header = made_header();
    uint8_t frame[SIDE * SIDE * 3], *pixels;
    int64_t length;
    int32_t row;
    VlFrameTime time = {.index = 5, .seconds = 0.2};
    memset(frame, 77, sizeof frame);
    assert_ok(vl_pool_open(&pool, 1));
    assert_ok(vl_shard_writer_open(&writer, path, &header, pool));
    assert_ok(vl_shard_writer_media(writer, 1, frame, &time, &row));
    for (int64_t i = 0; i < 2; i++) {
        VlShardSample sample = {
            .id = "x", .text = "{}", .length = 2, .number = i, .media = row, .modality = VL_MODAL_IMAGE};
        assert_ok(vl_shard_writer_sample(writer, &sample));
    }
    assert_status(vl_shard_writer_media(writer, FRAMES + 1, frame, &time, &row), VL_INVALID);
    assert_ok(vl_shard_writer_commit(writer));
    assert_ok(vl_shard_open(&shard, path));
    assert_int_equal(vl_shard_header(shard)->bytes, sizeof frame + sizeof time + 4);
    for (int64_t i = 0; i < 2; i++) {
        assert_ok(vl_shard_read(shard, i, &scratch, &text, &length, &pixels));
        assert_memory_equal(pixels, frame, sizeof frame);
        vl_free(text);
        vl_free(pixels);
    }
    vl_shard_scratch_free(&scratch);
    vl_shard_close(shard);
    vl_pool_close(pool);
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
    // The last chunk ends in padding, which nothing is read from.
    if (!(found >= needed - 16 && found <= needed)) {
        fail_msg("%d of %d flips were found, but %d bytes are needed", (int)found, (int)tried, (int)needed);
    }
    remove_folder(folder);
}

static void test_flip_names_the_sample(void **state) {
    (void)state;
    char *folder = make_folder(), *text;
    const char *path = in_folder(folder, "a.h5");
    int64_t size, length;
    uint8_t *pixels;
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
        VlStatus status = vl_shard_read(shard, i, &scratch, &text, &length, &pixels);
        if (!status) {
            good++;
            vl_free(text);
            vl_free(pixels);
            continue;
        }
        bad++;
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
    VlFrameTime times[FRAMES] = {{0}};
    int32_t row;
    VL_TRY(vl_shard_writer_open(&writer, path, &header, pool));
    VlStatus status = vl_shard_writer_media(writer, FRAMES, pixels, times, &row);
    VlShardSample sample = {.id = "x", .text = "{}", .length = 2, .media = row, .modality = VL_MODAL_VIDEO};
    for (int i = 0; i < 20 && !status; i++) status = vl_shard_writer_sample(writer, &sample);
    if (status) {
        vl_shard_writer_abandon(writer);
        return status;
    }
    VL_TRY(vl_shard_writer_commit(writer));
    VlShard *shard;
    VlShardScratch scratch = {0};
    char *text;
    uint8_t *frames;
    int64_t length;
    VL_TRY(vl_shard_open(&shard, path));
    status = vl_shard_read(shard, 0, &scratch, &text, &length, &frames);
    if (!status) {
        vl_free(text);
        vl_free(frames);
    }
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
        cmocka_unit_test(test_flipped_bytes),
        cmocka_unit_test(test_flip_names_the_sample),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_abandon_leaves_nothing),
        cmocka_unit_test(test_every_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
