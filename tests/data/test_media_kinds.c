// Videos and pictures of many kinds: damage that FFmpeg passes over in silence is noticed, and what pictures show is
// what Pillow shows.
#include <math.h>

#include "base/random.h"
#include "media_fixture.h"

#define KINDS GOLDEN "/media/"

static const char *const videos[] = {"mpeg2.ts", "mpeg1.mpg", "theora.ogv", "wmv2.wmv",    "msmpeg4.asf",
                                     "flv1.flv", "live.mkv",  "mpeg4.mkv",  "msmpeg4.avi", "raw.h264"};

enum { VIDEOS = sizeof videos / sizeof *videos, FRAMES = 12 };

static void load(const char *name, char **data, int64_t *size) {
    char path[VL_PATH_MAX];
    must(vl_path_join(path, KINDS, name));
    must(vl_read_file(path, 1 << 24, data, size));
}

static VlStatus ignore_frame(void *user, int64_t position, double seconds, const VlImage *frame) {
    (void)user, (void)position, (void)seconds, (void)frame;
    return VL_OK;
}

static VlStatus read_frames(const char *path, int64_t *count) {
    VlVideo *video;
    VlMediaOptions options = vl_media_defaults();
    options.max_seconds = 0;
    VL_TRY(vl_video_open(&video, path, &options));
    VlStatus status = VL_OK;
    *count = vl_video_info(video)->count;
    for (int64_t i = 0; i < *count && !status; i++) status = vl_video_read(video, &i, 1, ignore_frame, NULL);
    vl_video_close(video);
    return status;
}

static void expect_damage(const char *path, const char *name, int64_t at) {
    int64_t count = 0;
    VlStatus status = read_frames(path, &count);
    if (status != VL_FORMAT) fail_msg("%s, byte %d: status %d, %d frames", name, (int)at, (int)status, (int)count);
    const char *text = vl_error_text();
    if (!strstr(text, path) || strchr(text, '\n')) fail_msg("%s: the error is '%s'", name, text);
}

static void whole_files(void **state) {
    (void)state;
    for (int i = 0; i < VIDEOS; i++) {
        char path[VL_PATH_MAX];
        int64_t count = 0;
        must(vl_path_join(path, KINDS, videos[i]));
        must(read_frames(path, &count));
        assert_int_equal(count, FRAMES);
    }
}

// Anywhere but in the last bytes of a stream without a container, or in the index behind an AVI file's frames.
static void cut_files(void **state) {
    (void)state;
    char folder[64], path[VL_PATH_MAX];
    make_folder(folder);
    for (int i = 0; i < VIDEOS; i++) {
        char *data;
        int64_t size;
        load(videos[i], &data, &size);
        int64_t longest = strstr(videos[i], ".avi") || strstr(videos[i], ".h264") ? size * 9 / 10 : size - 1;
        for (int64_t cut = longest; cut > size / 4; cut -= size / 9) {
            put_file(folder, videos[i], data, cut, path);
            expect_damage(path, videos[i], cut);
        }
        vl_free(data);
    }
    must(vl_remove_tree(folder));
}

// Containers with checksums or counters notice every changed byte of their content.
static void changed_bytes(void **state) {
    (void)state;
    static const char *const checked[] = {"theora.ogv", "mpeg4.mkv"};
    char folder[64], path[VL_PATH_MAX];
    make_folder(folder);
    for (size_t i = 0; i < sizeof checked / sizeof *checked; i++) {
        char *data;
        int64_t size;
        VlRandom random = vl_random(7, (uint64_t)i);
        load(checked[i], &data, &size);
        for (int k = 0; k < 40; k++) {
            int64_t at = size / 4 + (int64_t)vl_random_below(&random, (uint64_t)size / 2);
            data[at] ^= (char)(1 << k % 8);
            put_file(folder, checked[i], data, size, path);
            expect_damage(path, checked[i], at);
            data[at] ^= (char)(1 << k % 8);
        }
        vl_free(data);
    }
    must(vl_remove_tree(folder));
}

// Bytes lost or overwritten inside of a file: an error, never fewer frames.
static void holes(void **state) {
    (void)state;
    enum { HOLE = 300 };
    static const char *const kinds[] = {"theora.ogv", "flv1.flv", "mpeg4.mkv", "live.mkv", "msmpeg4.avi"};
    char folder[64], path[VL_PATH_MAX];
    make_folder(folder);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char *data;
        int64_t size;
        load(kinds[i], &data, &size);
        for (int64_t at = size / 2; at + HOLE < size * 9 / 10; at += size / 11) {
            char *holed;
            must(VL_NEW(&holed, size));
            memcpy(holed, data, (size_t)at);
            memcpy(holed + at, data + at + HOLE, (size_t)(size - at - HOLE));
            put_file(folder, kinds[i], holed, size - HOLE, path);
            expect_damage(path, kinds[i], at);
            vl_free(holed);
        }
        vl_free(data);
    }
    must(vl_remove_tree(folder));
}

typedef struct Expected {
    const char *name;
    const uint8_t *pixels;
    VlTensor shape;
} Expected;

static VlStatus compare_frame(void *user, int64_t position, double seconds, const VlImage *frame) {
    const Expected *expected = user;
    (void)position, (void)seconds;
    assert_int_equal(frame->height, expected->shape.dim[0]);
    assert_int_equal(frame->width, expected->shape.dim[1]);
    for (int64_t i = 0; i < 3 * frame->height * frame->width; i++) {
        if (frame->pixels[i] != expected->pixels[i]) {
            fail_msg("%s: byte %d is %d, not %d", expected->name, (int)i, frame->pixels[i], expected->pixels[i]);
        }
    }
    return VL_OK;
}

// "FILE.N": the picture FILE, and of GIFs its picture N.
static void compare(const VlSafetensors *set, const VlSafetensorsEntry *entry) {
    char path[VL_PATH_MAX], name[128];
    uint8_t *pixels;
    VlMediaOptions options = vl_media_defaults();
    snprintf(name, sizeof name, "%s", entry->name);
    char *dot = strrchr(name, '.');
    int64_t number = atoi(dot + 1);
    *dot = 0;
    must(vl_path_join(path, KINDS, name));
    must(VL_NEW(&pixels, vl_elements(entry->tensor)));
    must(vl_safetensors_read(set, entry, pixels));
    Expected expected = {.name = entry->name, .pixels = pixels, .shape = entry->tensor};
    if (number == 0) {
        VlImage image;
        must(vl_image_read(path, &options, &image));
        must(compare_frame(&expected, 0, 0.0, &image));
        vl_image_free(&image);
    }
    if (strstr(name, ".gif")) {
        VlVideo *video;
        must(vl_video_open(&video, path, &options));
        assert_int_equal(vl_video_info(video)->kind, VL_VIDEO_GIF);
        assert_true(number < vl_video_info(video)->count);
        must(vl_video_read(video, &number, 1, compare_frame, &expected));
        vl_video_close(video);
    }
    vl_free(pixels);
}

static void pictures_as_pillow(void **state) {
    (void)state;
    VlSafetensors set;
    must(vl_safetensors_open(&set, KINDS "expected.safetensors"));
    for (int64_t i = 0; i < set.count; i++) compare(&set, &set.entries[i]);
    assert_int_equal(set.count, 36);
    vl_safetensors_close(&set);
}

static VlStatus note_seconds(void *user, int64_t position, double seconds, const VlImage *frame) {
    (void)frame;
    ((double *)user)[position] = seconds;
    return VL_OK;
}

// Delays are hundredths of a second; below two of them a picture stays for ten.
static void gif_times(void **state) {
    (void)state;
    VlVideo *video;
    double seconds[3];
    VlMediaOptions options = vl_media_defaults();
    must(vl_video_open(&video, KINDS "transparent.gif", &options));
    assert_true(vl_video_info(video)->fps == 25.0);
    must(vl_video_read(video, (int64_t[]){0, 1, 2}, 3, note_seconds, seconds));
    for (int i = 0; i < 3; i++) assert_true(fabs(seconds[i] - 0.07 * i) < 1e-12);
    vl_video_close(video);
}

// Every byte of a GIF changed, every length cut: an answer or an error, and no picture of a cut file.
static void hostile_gifs(void **state) {
    (void)state;
    char folder[64], path[VL_PATH_MAX], *data;
    int64_t size, count;
    make_folder(folder);
    load("restore.gif", &data, &size);
    for (int64_t i = 0; i < size; i++) {
        put_file(folder, "cut.gif", data, i, path);
        if (i >= 4) expect_damage(path, "cut.gif", i);
        data[i] ^= (char)0xff;
        put_file(folder, "changed.gif", data, size, path);
        if (read_frames(path, &count) && !strstr(vl_error_text(), path)) fail_msg("%s", vl_error_text());
        data[i] ^= (char)0xff;
    }
    vl_free(data);
    must(vl_remove_tree(folder));
}

static void refused_kinds(void **state) {
    (void)state;
    VlVideo *video;
    VlImage image;
    char folder[64], path[VL_PATH_MAX], *data;
    int64_t size;
    VlMediaOptions options = vl_media_defaults();
    assert_int_equal(vl_video_open(&video, KINDS "animated.webp", &options), VL_UNSUPPORTED);
    assert_non_null(strstr(vl_error_text(), "WebP"));
    assert_int_equal(vl_image_read(KINDS "jpeg.tiff", &options, &image), VL_UNSUPPORTED);
    make_folder(folder);
    load("animated.webp", &data, &size);
    for (int64_t cut = 13; cut < size; cut += 97) {
        put_file(folder, "cut.webp", data, cut, path);
        assert_int_equal(vl_image_read(path, &options, &image), VL_FORMAT);
    }
    vl_free(data);
    must(vl_remove_tree(folder));
}

int main(void) {
    if (media_is_missing()) return 77;
    const struct CMUnitTest tests[] = {cmocka_unit_test(whole_files),        cmocka_unit_test(cut_files),
                                       cmocka_unit_test(changed_bytes),      cmocka_unit_test(holes),
                                       cmocka_unit_test(pictures_as_pillow), cmocka_unit_test(gif_times),
                                       cmocka_unit_test(hostile_gifs),       cmocka_unit_test(refused_kinds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
