// What the tests of shards, packing and loading share: temporary folders, and packed folders of made-up samples.
#ifndef TESTS_DATA_PACKING_H
#define TESTS_DATA_PACKING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// cmocka wants the above first.
#include <cmocka.h>

#include "base/files.h"
#include "base/memory.h"
#include "data/fbank.h"
#include "data/pack.h"
#include "data/pack_manifest.h"
#include "data/shard.h"

#define MODEL VL_SOURCE_DIR "/tests/golden/pack/model"
#define PREPROCESSING "made up for a test"
#define SOUND_PREPROCESSING "sounds made up for a test"
// The turns of an annotation.
#define TURNS(tag) \
    "\"conversations\":[{\"from\":\"human\",\"value\":\"" tag "What?\"},{\"from\":\"gpt\",\"value\":\"That.\"}]"

enum { SIDE = 6, FRAMES = 4, ROWS = 3 };  // made-up samples: frames of 6 x 6, at most 4; at most 3 rows of sound

#define assert_status(expression, wanted)                                                                \
    do {                                                                                                 \
        VlStatus status_ = (expression);                                                                 \
        if (status_ != (wanted)) fail_msg("%s gave %d: %s", #expression, (int)status_, vl_error_text()); \
    } while (0)
#define assert_ok(expression) assert_status(expression, VL_OK)
#define assert_error_names(text)                                                                   \
    do {                                                                                           \
        if (!strstr(vl_error_text(), text)) fail_msg("'%s' is not in: %s", text, vl_error_text()); \
    } while (0)

static inline char *make_folder(void) {
    char *folder = strdup("packing-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static inline void remove_folder(char *folder) {
    assert_ok(vl_remove_tree(folder));
    free(folder);
}

// The path lives for 255 further calls.
static inline const char *in_folder(const char *folder, const char *name) {
    static char paths[256][VL_PATH_MAX];
    static int next;
    char *path = paths[next++ % 256];
    assert_ok(vl_path_join(path, folder, name));
    return path;
}

static inline void write_text(const char *path, const char *text) {
    assert_ok(vl_write_file(path, text, (int64_t)strlen(text)));
}

static inline char *read_all(const char *path, int64_t *size) {
    char *data = NULL;
    assert_ok(vl_read_file(path, (int64_t)1 << 30, &data, size));
    return data;
}

static inline void assert_same_file(const char *a, const char *b) {
    int64_t size_a, size_b;
    char *data_a = read_all(a, &size_a), *data_b = read_all(b, &size_b);
    assert_int_equal(size_a, size_b);
    assert_memory_equal(data_a, data_b, (size_t)size_a);
    vl_free(data_a);
    vl_free(data_b);
}

static inline void flip(const char *path, int64_t offset, int bits) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_true(byte != EOF);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    fputc(byte ^ bits, file);
    assert_int_equal(fclose(file), 0);
}

// Sample n of a made-up folder: text, image, video, video, audio, video with its sound by n % 6.
static inline VlModal made_modal(int64_t n) {
    static const VlModal modals[] = {VL_MODAL_TEXT,  VL_MODAL_IMAGE, VL_MODAL_VIDEO,
                                     VL_MODAL_VIDEO, VL_MODAL_AUDIO, VL_MODAL_VIDEO};
    return modals[n % 6];
}
static inline int64_t made_frames(int64_t n) {
    return made_modal(n) == VL_MODAL_IMAGE ? 1 : made_modal(n) == VL_MODAL_VIDEO ? FRAMES - n % 8 / 4 : 0;
}
static inline int64_t made_rows(int64_t n) { return n % 6 < 4 ? 0 : ROWS - n / 6 % ROWS; }

// Values of all sizes and signs, zero among them.
static inline float made_value(int64_t n, int64_t i) { return (float)((n * 31 + i * i * 7) % 257 - 100) / 7.0F; }

// Blotches, with enough noise that compression does not hide a chunk's borders.
static inline uint8_t made_pixel(int64_t n, int64_t i) { return (uint8_t)(n * 37 + i / 3 + (i * i * 7 + n * i) % 11); }

static inline void made_text(int64_t n, char text[1024]) {
    static const char *const tags[] = {"", "<image>\\n", "<video>\\n", "<audio>\\n"};
    static const char *const modals[] = {"text", "image", "video", "audio"};
    char words[512] = "";
    for (int64_t i = 0; i < n % 13 + 1; i++)
        snprintf(words + strlen(words), sizeof words - strlen(words), " word%d", (int)i);
    snprintf(
        text, 1024,
        "{\"id\":\"sample-%d\",\"kind\":\"%s\",\"modal\":\"%s\",%s\"conversations\":[{\"from\":\"human\",\"value\":"
        "\"%sWhat "
        "is it?\"},{\"from\":\"gpt\",\"value\":\"Number %d:%s.\"}]}",
        (int)n, n % 2 ? "odd" : "even", modals[made_modal(n)], made_rows(n) && made_frames(n) ? "\"va\":true," : "",
        tags[made_modal(n)], (int)n, words);
}

static inline VlFrameTime made_time(int64_t n, int64_t i) {
    return (VlFrameTime){.index = 3 * i + n, .seconds = 0.04 * (double)(3 * i + n)};
}

static inline void add_made_sample(VlShardWriter *writer, int64_t n) {
    char text[1024], id[32];
    uint8_t pixels[FRAMES * SIDE * SIDE * 3];
    float fbank[ROWS * VL_FBANK_BINS];
    VlFrameTime times[FRAMES];
    VlShardMedium medium = {
        .frames = made_frames(n), .pixels = pixels, .times = times, .rows = made_rows(n), .fbank = fbank};
    int32_t media = -1;
    for (int64_t i = 0; i < (int64_t)sizeof pixels; i++) pixels[i] = made_pixel(n, i);
    for (int64_t i = 0; i < FRAMES; i++) times[i] = made_time(n, i);
    for (int64_t i = 0; i < ROWS * VL_FBANK_BINS; i++) fbank[i] = made_value(n, i);
    if (medium.frames + medium.rows > 0) assert_ok(vl_shard_writer_media(writer, &medium, &media));
    made_text(n, text);
    snprintf(id, sizeof id, "sample-%d", (int)n);
    VlShardSample sample = {.id = id,
                            .text = text,
                            .length = (int64_t)strlen(text),
                            .number = n,
                            .tokens = 20 + 3 * (n % 13),
                            .media = media,
                            .modality = made_modal(n)};
    assert_ok(vl_shard_writer_sample(writer, &sample));
}

static inline VlShardHeader made_header(void) {
    VlShardHeader header = {.height = SIDE, .width = SIDE, .num_frames = FRAMES, .chunk_bytes = 1024};
    snprintf(header.preprocessing, sizeof header.preprocessing, PREPROCESSING);
    snprintf(header.sound, sizeof header.sound, SOUND_PREPROCESSING);
    return header;
}

// Samples [first, first + count) as one shard.
static inline void make_shard(const char *path, int64_t first, int64_t count, int64_t threads) {
    VlPool *pool;
    VlShardWriter *writer;
    VlShardHeader header = made_header();
    assert_ok(vl_pool_open(&pool, threads));
    assert_ok(vl_shard_writer_open(&writer, path, &header, pool));
    for (int64_t n = first; n < first + count; n++) add_made_sample(writer, n);
    assert_int_equal(vl_shard_writer_samples(writer), count);
    assert_ok(vl_shard_writer_commit(writer));
    vl_pool_close(pool);
}

// A folder as `vl2 pack` leaves it, of made-up samples from number `first` on.
static inline void make_packed(const char *folder, int64_t first, int64_t shards, int64_t per_shard) {
    VlPackManifest manifest = {.complete = true, .report.samples = shards * per_shard};
    assert_ok(vl_make_folders(folder));
    snprintf(manifest.preprocessing, sizeof manifest.preprocessing, PREPROCESSING);
    for (int64_t i = 0; i < shards; i++) {
        VlPackShard shard = {0};
        snprintf(shard.name, sizeof shard.name, "shard-%05d.h5", (int)i);
        make_shard(in_folder(folder, shard.name), first + i * per_shard, per_shard, 1);
        assert_ok(vl_pack_file_checksum(in_folder(folder, shard.name), &shard.file_bytes, &shard.crc32c));
        assert_ok(vl_pack_manifest_add(&manifest, &shard));
    }
    assert_ok(vl_pack_manifest_save(&manifest, folder));
    vl_pack_manifest_free(&manifest);
}

#endif
