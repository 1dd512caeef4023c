#include <math.h>
#include <unistd.h>

#include "base/random.h"
#include "data/frames.h"
#include "data/media_write.h"
#include "media_fixture.h"

enum { THUMB = 16 };

// What is checked of the frames at their own size.
typedef struct Seen {
    int64_t count;
    double mean[VL_MAX_FRAMES][3];
    uint8_t thumb[VL_MAX_FRAMES][THUMB][THUMB][3];
} Seen;

// The first pixel whose middle lies behind the border in front of box t: a box has whole pixels only.
static int64_t border(int64_t t, int64_t side) { return (2 * t * side + THUMB) / (2 * THUMB); }

static double box_mean(const VlImage *image, int64_t ty, int64_t tx, int c) {
    double sum = 0.0;
    int64_t bottom = border(ty + 1, image->height), right = border(tx + 1, image->width), pixels = 0;
    for (int64_t y = border(ty, image->height); y < bottom; y++) {
        for (int64_t x = border(tx, image->width); x < right; x++, pixels++) {
            sum += image->pixels[(y * image->width + x) * 3 + c];
        }
    }
    return sum / (double)pixels;
}

static VlStatus look(void *user, int64_t position, double seconds, const VlImage *frame) {
    Seen *seen = user;
    (void)seconds;
    for (int c = 0; c < 3; c++) {
        double sum = 0.0;
        for (int64_t i = 0; i < frame->height * frame->width; i++) sum += frame->pixels[3 * i + c];
        seen->mean[position][c] = sum / (double)(frame->height * frame->width);
        for (int64_t i = 0; i < THUMB * THUMB; i++) {
            seen->thumb[position][i / THUMB][i % THUMB][c] = (uint8_t)lrint(box_mean(frame, i / THUMB, i % THUMB, c));
        }
    }
    seen->count++;
    return VL_OK;
}

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void check_frames(const json_t *one, const VlClip *clip, const Seen *seen, const VlSafetensors *expected) {
    int64_t number_of_case = json_integer_value(json_object_get(one, "i"));
    const json_t *indices = json_object_get(one, "indices"), *pts = json_object_get(one, "pts");
    assert_int_equal(clip->frames, json_array_size(indices));
    assert_int_equal(seen->count, clip->frames);
    VlTensor shape;
    uint8_t *thumbs = load_tensor(expected, "thumb", number_of_case, &shape);
    int64_t worst = 0, total = 0, elements = vl_elements(shape);
    assert_int_equal(elements, clip->frames * THUMB * THUMB * 3);
    for (int64_t i = 0; i < elements; i++) {
        int64_t difference = llabs((long long)((const uint8_t *)seen->thumb)[i] - thumbs[i]);
        total += difference;
        if (difference > worst) worst = difference;
    }
    if (!(worst <= 3 && (double)total <= 0.5 * (double)elements)) fail_msg("thumbnails differ by %d", (int)worst);
    vl_free(thumbs);
    for (int64_t t = 0; t < clip->frames; t++) {
        const json_t *mean = json_array_get(json_object_get(one, "mean"), (size_t)t);
        assert_int_equal(clip->indices[t], json_integer_value(json_array_get(indices, (size_t)t)));
        if (json_is_array(pts)) {
            double error = fabs(clip->seconds[t] - json_number_value(json_array_get(pts, (size_t)t)));
            if (!(error <= 1e-5)) fail_msg("frame %d comes %g s off", (int)t, error);
        }
        for (size_t c = 0; c < 3; c++) {
            double error = fabs(seen->mean[t][c] - json_number_value(json_array_get(mean, c)));
            if (!(error <= 0.01)) fail_msg("frame %d: its mean is %g off", (int)t, error);
        }
    }
}

static void check_pixel_values(int64_t number_of_case, const VlClip *clip, const VlPreprocessConfig *config,
                               const VlSafetensors *expected) {
    char name[64];
    snprintf(name, sizeof name, "pixel_values.%lld", (long long)number_of_case);
    const VlSafetensorsEntry *entry = vl_safetensors_find(expected, name);
    assert_non_null(entry);
    int64_t elements = clip->frames * 3 * config->height * config->width;
    assert_int_equal(vl_elements(entry->tensor), elements);
    float *exact, *values;
    must(VL_NEW(&exact, elements));
    must(VL_NEW(&values, elements));
    must(vl_safetensors_read_as(expected, entry, VL_F32, exact));
    vl_preprocess_normalize(config, clip->levels, clip->frames, values);
    for (int64_t i = 0; i < elements; i++) {  // stored as f16
        if (!(fabsf(values[i] - exact[i]) <= 0.0011f)) fail_msg("value %d: %g, not %g", (int)i, values[i], exact[i]);
    }
    vl_free(exact);
    vl_free(values);
}

static void golden_case(const json_t *one, const VlSafetensors *expected, const VlPreprocessConfig *config) {
    char path[VL_PATH_MAX];
    VlMediaOptions options = vl_media_defaults();
    VlPreprocessor *preprocessor;
    VlClip clip;
    Seen seen = {0};
    VlClipRequest request = {.protocol = VL_PROTOCOL_MAIN,
                             .num_frames = json_integer_value(json_object_get(one, "num_frames")),
                             .start = number(one, "s"),
                             .end = number(one, "e")};
    must(vl_path_join(path, MEDIA, json_string_value(json_object_get(one, "file"))));
    must(vl_preprocessor_create(&preprocessor, config, VL_ASPECT_NONE));
    must(vl_clip_read(&clip, path, &request, preprocessor, &options, look, &seen));
    assert_int_equal(clip.info.count, json_integer_value(json_object_get(one, "n")));
    assert_int_equal(clip.info.height, json_integer_value(json_object_get(one, "height")));
    assert_int_equal(clip.info.width, json_integer_value(json_object_get(one, "width")));
    if (!(fabs(clip.info.fps - number(one, "fps")) <= 1e-9)) fail_msg("%s: %g fps", path, clip.info.fps);
    check_frames(one, &clip, &seen, expected);
    check_pixel_values(json_integer_value(json_object_get(one, "i")), &clip, config, expected);
    vl_clip_clear(&clip);
    vl_preprocessor_free(preprocessor);
}

static void golden_cases(void **state) {
    (void)state;
    json_t *cases = load_json(GOLDEN "/video/cases.json");
    VlSafetensors expected;
    VlPreprocessConfig config;
    must(vl_preprocess_load(&config, GOLDEN "/image/models/clip56"));
    must(vl_safetensors_open(&expected, GOLDEN "/video/expected.safetensors"));
    for (size_t i = 0; i < json_array_size(cases); i++) golden_case(json_array_get(cases, i), &expected, &config);
    assert_int_equal(json_array_size(cases), 6);
    vl_safetensors_close(&expected);
    json_decref(cases);
}

static VlStatus hash_frame(void *user, int64_t position, double seconds, const VlImage *frame) {
    uint64_t *hashes = user, hash = 1469598103934665603u + (uint64_t)llrint(seconds * 1000.0);
    for (int64_t i = 0; i < frame->height * frame->width * 3; i++) {
        hash = (hash ^ frame->pixels[i]) * UINT64_C(1099511628211);
    }
    hashes[position] = hash;
    return VL_OK;
}

// Frames reached by seeking, and by any number of threads, are those of reading from the start.
static void seeking_changes_nothing(void **state) {
    (void)state;
    static const char *const files[] = {"bikes.mp4", "carphone_vfr.mp4", "vtest_6s.avi", "carphone.gif"};
    for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
        char path[VL_PATH_MAX];
        uint64_t *all, some;
        int64_t *indices;
        VlVideo *video;
        VlMediaOptions options = vl_media_defaults();
        must(vl_path_join(path, MEDIA, files[f]));
        must(vl_video_open(&video, path, &options));
        int64_t count = vl_video_info(video)->count;
        must(VL_NEW(&all, count));
        must(VL_NEW(&indices, count));
        for (int64_t i = 0; i < count; i++) indices[i] = i;
        must(vl_video_read(video, indices, count, hash_frame, all));
        for (int64_t i = count - 1; i >= 0; i -= 1 + count / 7) {
            must(vl_video_read(video, &i, 1, hash_frame, &some));
            if (some != all[i]) fail_msg("%s: frame %d differs after seeking", files[f], (int)i);
        }
        vl_video_close(video);
        options.threads = 2;
        must(vl_video_open(&video, path, &options));
        int64_t last = count - 1;
        must(vl_video_read(video, &last, 1, hash_frame, &some));
        assert_int_equal(some, all[last]);
        assert_int_equal(vl_video_read(video, &count, 1, hash_frame, &some), VL_INVALID);
        vl_video_close(video);
        vl_free(all);
        vl_free(indices);
    }
}

static VlStatus keep_frame(void *user, int64_t position, double seconds, const VlImage *frame) {
    VlImage *frames = user;
    (void)seconds;
    must(vl_image_allocate(&frames[position], frame->height, frame->width));
    memcpy(frames[position].pixels, frame->pixels, (size_t)(3 * frame->height * frame->width));
    return VL_OK;
}

// What was written comes back: a picture bit for bit, a video nearly, the same bytes each time.
static void written_media_come_back(void **state) {
    (void)state;
    enum { FRAMES = 20, HEIGHT = 48, WIDTH = 64, SIZE = HEIGHT * WIDTH * 3 };
    char folder[64], path[VL_PATH_MAX], again[VL_PATH_MAX];
    VlMediaOptions options = vl_media_defaults();
    uint8_t *rgb;
    float *sound;
    make_folder(folder);
    must(VL_NEW(&rgb, FRAMES * SIZE));
    must(VL_NEW(&sound, 16000));
    for (int64_t i = 0; i < FRAMES * SIZE; i++) {
        int64_t t = i / SIZE, y = i % SIZE / (3 * WIDTH), x = i / 3 % WIDTH;
        rgb[i] = (uint8_t)(i % 3 == 0 ? 4 * x : i % 3 == 1 ? 5 * y : 10 * t);
    }
    for (int i = 0; i < 16000; i++) sound[i] = 0.5f * sinf(0.2f * (float)i);
    must(vl_path_join(path, folder, "a.png"));
    must(vl_media_write_png(path, HEIGHT, WIDTH, rgb));
    VlImage image, frames[2] = {{0}, {0}};
    must(vl_image_read(path, &options, &image));
    assert_int_equal(image.height, HEIGHT);
    assert_int_equal(image.width, WIDTH);
    assert_memory_equal(image.pixels, rgb, SIZE);
    vl_image_free(&image);
    must(vl_path_join(path, folder, "a.mp4"));
    must(vl_path_join(again, folder, "b.mp4"));
    must(vl_media_write_video(path, FRAMES, HEIGHT, WIDTH, rgb, 8.0, sound, 16000, 16000));
    must(vl_media_write_video(again, FRAMES, HEIGHT, WIDTH, rgb, 8.0, sound, 16000, 16000));
    char *first, *second;
    int64_t first_size, second_size;
    must(vl_read_file(path, 1 << 24, &first, &first_size));
    must(vl_read_file(again, 1 << 24, &second, &second_size));
    assert_int_equal(first_size, second_size);
    assert_memory_equal(first, second, (size_t)first_size);
    VlVideo *video;
    must(vl_video_open(&video, path, &options));
    assert_int_equal(vl_video_info(video)->count, FRAMES);
    assert_true(vl_video_info(video)->fps == 8.0);
    must(vl_video_read(video, (int64_t[]){3, 19}, 2, keep_frame, frames));
    double error = 0.0;
    for (int64_t i = 0; i < SIZE; i++) {
        error += abs(frames[0].pixels[i] - rgb[3 * SIZE + i]) + abs(frames[1].pixels[i] - rgb[19 * SIZE + i]);
    }
    if (!(error / (2.0 * SIZE) < 4.0)) fail_msg("the written video is %g levels off", error / (2.0 * SIZE));
    vl_video_close(video);
    assert_int_equal(vl_media_write_video(path, 1, 47, 64, rgb, 8.0, NULL, 0, 0), VL_INVALID);
    assert_int_equal(vl_media_write_video("/nowhere/a.mp4", 1, 48, 64, rgb, 8.0, NULL, 0, 0), VL_IO);
    vl_image_free(&frames[0]);
    vl_image_free(&frames[1]);
    vl_free(first);
    vl_free(second);
    vl_free(rgb);
    vl_free(sound);
    must(vl_remove_tree(folder));
}

// The error is one line that names the file.
static void expect_refused(VlStatus status, const char *path) {
    const char *text = vl_error_text();
    if (status == VL_OK) fail_msg("%s was read", path);
    if (!strstr(text, path) || strchr(text, '\n')) fail_msg("%s: the error is '%s'", path, text);
}

static void expect_no_image(const char *path) {
    VlImage image = {0};
    VlMediaOptions options = vl_media_defaults();
    expect_refused(vl_image_read(path, &options, &image), path);
    assert_null(image.pixels);
}

static VlStatus read_all(const char *path) {
    VlVideo *video;
    VlMediaOptions options = vl_media_defaults();
    uint64_t hash[8];
    int64_t indices[8];
    VL_TRY(vl_video_open(&video, path, &options));
    for (int i = 0; i < 8; i++) indices[i] = (vl_video_info(video)->count - 1) * i / 7;
    VlStatus status = vl_video_read(video, indices, 8, hash_frame, hash);
    vl_video_close(video);
    return status;
}

static void hostile_files(void **state) {
    (void)state;
    static const char *const names[] = {"a.jpg", "a.png", "a.gif", "a.webp", "a.mp4", "a.avi", "a.webm", "a.ts"};
    char folder[64], path[VL_PATH_MAX];
    uint8_t noise[20000];
    VlRandom random = vl_random(1, 2);
    make_folder(folder);
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)vl_random_below(&random, 256);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int64_t sizes[] = {0, 1, 100, sizeof noise};
        for (int k = 0; k < 4; k++) {
            put_file(folder, names[i], noise, sizes[k], path);
            expect_no_image(path);
            expect_refused(read_all(path), path);
        }
        put_file(folder, names[i], "plain text, no picture", 22, path);
        expect_no_image(path);
        expect_refused(read_all(path), path);
        must(vl_remove_tree(path));
        expect_no_image(path);
        expect_refused(read_all(path), path);
    }
    put_file(folder, "notes.txt", "no picture", 10, path);
    expect_no_image(folder);
    expect_refused(read_all(folder), folder);  // a folder without pictures
    must(vl_remove_tree(folder));
}

static void truncated_files(void **state) {
    (void)state;
    static const char *const names[] = {"home.jpg",     "left02.jpg", "imageTextN.png", "mask.png",
                                        "carphone.gif", "bikes.mp4",  "vtest_6s.avi",   "carphone_vfr.mp4"};
    char folder[64], path[VL_PATH_MAX];
    make_folder(folder);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *data;
        int64_t size;
        must(vl_path_join(path, MEDIA, names[i]));
        must(vl_read_file(path, 1 << 24, &data, &size));
        for (int percent = 5; percent < 100; percent += 30) {
            put_file(folder, names[i], data, size * percent / 100, path);
            if (i < 4) expect_no_image(path);
            if (i >= 4) expect_refused(read_all(path), path);
        }
        vl_free(data);
    }
    must(vl_remove_tree(folder));
}

static void put_u32(char *at, uint32_t value) {
    for (int i = 0; i < 4; i++) at[i] = (char)(value >> (24 - 8 * i));
}

// CRC-32 of a PNG chunk, so that only the announced size is wrong.
static uint32_t png_crc(const char *data, int64_t size) {
    uint32_t crc = 0xffffffff;
    for (int64_t i = 0; i < size; i++) {
        crc ^= (uint8_t)data[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void lying_headers(void **state) {
    (void)state;
    char folder[64], path[VL_PATH_MAX], *png, *jpeg;
    int64_t png_size, jpeg_size;
    static const uint32_t sides[][2] = {
        {60000, 60000}, {12001, 12000}, {12000, 12000}, {0, 7}, {0x7fffffff, 0x7fffffff}};
    make_folder(folder);
    must(vl_read_file(MEDIA "/mask.png", 1 << 24, &png, &png_size));
    must(vl_read_file(MEDIA "/home.jpg", 1 << 24, &jpeg, &jpeg_size));
    char *frame = memmem(jpeg, (size_t)jpeg_size, "\xff\xc0", 2);
    assert_non_null(frame);
    for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
        put_u32(png + 16, sides[i][0]);
        put_u32(png + 20, sides[i][1]);
        put_u32(png + 29, png_crc(png + 12, 17));
        put_file(folder, "lie.png", png, png_size, path);
        expect_no_image(path);
        put_u32(frame + 5, sides[i][0] << 16 | (sides[i][1] & 0xffff));
        put_file(folder, "lie.jpg", jpeg, jpeg_size, path);
        expect_no_image(path);
    }
    vl_free(png);
    vl_free(jpeg);
    must(vl_remove_tree(folder));
}

static void folders_of_frames(void **state) {
    (void)state;
    char folder[64], path[VL_PATH_MAX];
    uint8_t levels[3 * 6 * 4];
    make_folder(folder);
    for (int i = 0; i < 4; i++) {
        static const char *const names[] = {"b.png", "a.png", "c.PNG", "readme.txt"};
        memset(levels, 50 + i, sizeof levels);
        must(vl_path_join(path, folder, names[i]));
        must(vl_media_write_png(path, 6, 4, levels));
    }
    VlVideo *video;
    VlImage frames[3] = {{0}};
    VlMediaOptions options = vl_media_defaults();
    must(vl_video_open(&video, folder, &options));
    const VlVideoInfo *info = vl_video_info(video);
    assert_int_equal(info->kind, VL_VIDEO_FOLDER);
    assert_int_equal(info->count, 3);
    assert_true(info->fps == 3.0 && info->height == 6 && info->width == 4);
    must(vl_video_read(video, (int64_t[]){0, 1, 2}, 3, keep_frame, frames));
    assert_int_equal(frames[0].pixels[0], 51);
    assert_int_equal(frames[1].pixels[0], 50);
    assert_int_equal(frames[2].pixels[0], 52);
    for (int i = 0; i < 3; i++) vl_image_free(&frames[i]);
    vl_video_close(video);
    must(vl_remove_tree(folder));
}

static void limits(void **state) {
    (void)state;
    VlImage image;
    VlVideo *video;
    VlMediaOptions options = vl_media_defaults();
    options.max_pixels = options.max_frame_pixels = 1000;
    assert_int_equal(vl_image_read(MEDIA "/home.jpg", &options, &image), VL_INVALID);
    assert_int_equal(vl_image_read(MEDIA "/mask.png", &options, &image), VL_INVALID);
    assert_int_equal(vl_video_open(&video, MEDIA "/bikes.mp4", &options), VL_INVALID);
    options = vl_media_defaults();
    options.max_seconds = 1e-6;
    assert_int_equal(vl_video_open(&video, MEDIA "/bikes.mp4", &options), VL_INVALID);
    assert_non_null(strstr(vl_error_text(), "longer than the limit"));
}

int main(void) {
    if (media_is_missing()) return 77;
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden_cases),      cmocka_unit_test(seeking_changes_nothing),
                                       cmocka_unit_test(hostile_files),     cmocka_unit_test(written_media_come_back),
                                       cmocka_unit_test(truncated_files),   cmocka_unit_test(lying_headers),
                                       cmocka_unit_test(folders_of_frames), cmocka_unit_test(limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
