#include <math.h>

#include "base/random.h"
#include "data/image.h"
#include "media_fixture.h"

// Golden pictures of the reference, whole chain: file, aspect, resize, crop, normalisation. All of them bit for bit.
static void golden_case(const json_t *one, const VlSafetensors *expected) {
    char folder[VL_PATH_MAX], path[VL_PATH_MAX];
    int64_t number = json_integer_value(json_object_get(one, "i"));
    must(vl_path_join(folder, GOLDEN "/image/models", json_string_value(json_object_get(one, "model"))));
    must(vl_path_join(path, MEDIA, json_string_value(json_object_get(one, "file"))));
    VlPreprocessConfig config;
    VlPreprocessor *preprocessor;
    VlAspect aspect;
    VlImage image;
    VlMediaOptions options = vl_media_defaults();
    must(vl_preprocess_load(&config, folder));
    must(vl_aspect_parse(&aspect, json_string_value(json_object_get(one, "aspect"))));
    must(vl_preprocessor_create(&preprocessor, &config, aspect));
    must(vl_image_read(path, &options, &image));
    int64_t pixels = config.height * config.width;
    uint8_t *levels;
    float *values;
    must(VL_NEW(&levels, 3 * pixels));
    must(VL_NEW(&values, 3 * pixels));
    must(vl_preprocess_levels(preprocessor, &image, levels));
    vl_preprocess_normalize(&config, levels, 1, values);
    VlTensor shape;
    float *exact = load_tensor(expected, "pixel_values", number, &shape);
    if (exact) {
        assert_int_equal(vl_elements(shape), 3 * pixels);
        assert_memory_equal(values, exact, (size_t)(3 * pixels) * sizeof *values);
    } else {
        uint8_t *exact_levels = load_tensor(expected, "pixels", number, &shape);  // [3, h, w]
        assert_non_null(exact_levels);
        assert_int_equal(vl_elements(shape), 3 * pixels);
        for (int64_t i = 0; i < 3 * pixels; i++) {
            assert_int_equal(levels[i % pixels * 3 + i / pixels], exact_levels[i]);
        }
        vl_free(exact_levels);
    }
    vl_free(exact);
    vl_free(levels);
    vl_free(values);
    vl_image_free(&image);
    vl_preprocessor_free(preprocessor);
}

static void golden_cases(void **state) {
    (void)state;
    if (media_is_missing()) skip();
    json_t *cases = load_json(GOLDEN "/image/cases.json");
    VlSafetensors expected;
    must(vl_safetensors_open(&expected, GOLDEN "/image/expected.safetensors"));
    for (size_t i = 0; i < json_array_size(cases); i++) golden_case(json_array_get(cases, i), &expected);
    assert_int_equal(json_array_size(cases), 7);
    vl_safetensors_close(&expected);
    json_decref(cases);
}

static void random_image(VlImage *image, int64_t height, int64_t width, VlRandom *random) {
    must(vl_image_allocate(image, height, width));
    for (int64_t i = 0; i < 3 * height * width; i++) image->pixels[i] = (uint8_t)vl_random_below(random, 256);
}

// The canvas and the window are shortcuts: a picture pasted on a real canvas and resized as a whole gives the same.
static void shortcuts_change_nothing(void **state) {
    (void)state;
    VlRandom random = vl_random(20, 7);
    for (int round = 0; round < 60; round++) {
        int64_t height = 1 + vl_random_below(&random, 60), width = 1 + vl_random_below(&random, 60);
        int64_t side = height > width ? height : width, out = 8 + vl_random_below(&random, 40);
        VlResizeShape shape = {.source_height = height,
                               .source_width = width,
                               .canvas_height = side,
                               .canvas_width = side,
                               .resized_height = out + 5,
                               .resized_width = out,
                               .top = 2,
                               .left = 1,
                               .height = out,
                               .width = out - 3,
                               .fill = {122, 116, 104}};
        VlResizeShape whole = shape;
        whole.source_height = whole.source_width = side;
        whole.top = whole.left = 0;
        whole.height = whole.resized_height;
        whole.width = whole.resized_width;
        VlImage image, canvas, window, all;
        random_image(&image, height, width, &random);
        must(vl_image_allocate(&canvas, side, side));
        must(vl_image_allocate(&window, shape.height, shape.width));
        must(vl_image_allocate(&all, whole.height, whole.width));
        for (int64_t i = 0; i < 3 * side * side; i++) canvas.pixels[i] = shape.fill[i % 3];
        for (int64_t y = 0; y < height; y++) {
            memcpy(canvas.pixels + (((side - height) / 2 + y) * side + (side - width) / 2) * 3,
                   image.pixels + y * width * 3, (size_t)(3 * width));
        }
        VlResize *direct, *slow;
        must(vl_resize_create(&direct, &shape));
        must(vl_resize_create(&slow, &whole));
        vl_resize_apply(direct, image.pixels, window.pixels);
        vl_resize_apply(slow, canvas.pixels, all.pixels);
        for (int64_t y = 0; y < shape.height; y++) {
            assert_memory_equal(window.pixels + y * shape.width * 3,
                                all.pixels + ((y + shape.top) * whole.width + shape.left) * 3,
                                (size_t)(3 * shape.width));
        }
        vl_resize_free(direct);
        vl_resize_free(slow);
        vl_image_free(&image);
        vl_image_free(&canvas);
        vl_image_free(&window);
        vl_image_free(&all);
    }
}

static void same_size_is_the_same_picture(void **state) {
    (void)state;
    VlRandom random = vl_random(20, 8);
    VlImage image, copy;
    random_image(&image, 13, 17, &random);
    must(vl_image_allocate(&copy, 13, 17));
    VlResizeShape shape = {.source_height = 13,
                           .source_width = 17,
                           .canvas_height = 13,
                           .canvas_width = 17,
                           .resized_height = 13,
                           .resized_width = 17,
                           .height = 13,
                           .width = 17};
    VlResize *resize;
    must(vl_resize_create(&resize, &shape));
    vl_resize_apply(resize, image.pixels, copy.pixels);
    assert_memory_equal(copy.pixels, image.pixels, 3 * 13 * 17);
    vl_resize_free(resize);
    shape.left = 1;
    assert_int_equal(vl_resize_create(&resize, &shape), VL_INVALID);
    vl_image_free(&image);
    vl_image_free(&copy);
}

// Of a picture twice as wide as high the middle is kept, of one twice as high as wide too.
static void crop_is_in_the_middle(void **state) {
    (void)state;
    VlPreprocessConfig config = {
        .by_shortest_side = true, .resize_height = 8, .resize_width = 8, .height = 8, .width = 8};
    for (int turned = 0; turned < 2; turned++) {
        VlImage image;
        VlPreprocessor *preprocessor;
        uint8_t levels[8 * 8 * 3];
        must(vl_image_allocate(&image, turned ? 16 : 8, turned ? 8 : 16));
        for (int64_t i = 0; i < 16 * 8; i++) {
            int64_t along = turned ? i / 8 : i % 16;
            memset(image.pixels + 3 * i, (int)(10 * along), 3);
        }
        must(vl_preprocessor_create(&preprocessor, &config, VL_ASPECT_NONE));
        must(vl_preprocess_levels(preprocessor, &image, levels));
        for (int i = 0; i < 64; i++) assert_int_equal(levels[3 * i], 10 * (4 + (turned ? i / 8 : i % 8)));
        vl_preprocessor_free(preprocessor);
        vl_image_free(&image);
    }
}

static void put_tower(const char *folder, const char *tower, const char *preprocessor) {
    char path[VL_PATH_MAX], inner[VL_PATH_MAX];
    put_file(folder, "config.json", "{\"mm_vision_tower\":\"tower\"}", 27, path);
    must(vl_path_join(inner, folder, "tower"));
    must(vl_make_folders(inner));
    put_file(inner, "config.json", tower, (int64_t)strlen(tower), path);
    must(vl_path_join(path, inner, "preprocessor_config.json"));
    must(vl_remove_tree(path));
    if (preprocessor) put_file(inner, "preprocessor_config.json", preprocessor, (int64_t)strlen(preprocessor), path);
}

static void configurations(void **state) {
    (void)state;
    char folder[64];
    VlPreprocessConfig config;
    make_folder(folder);
    put_tower(folder, "{\"model_type\":\"clip\",\"vision_config\":{\"image_size\":224}}", NULL);
    must(vl_preprocess_load(&config, folder));
    assert_true(config.by_shortest_side && config.height == 224 && config.mean[0] == 0.48145466);
    put_tower(folder, "{\"model_type\":\"clip_vision_model\",\"image_size\":224}",
              "{\"size\":336,\"crop_size\":336,\"resample\":3,\"do_center_crop\":true}");
    must(vl_preprocess_load(&config, folder));
    assert_true(config.by_shortest_side && config.resize_height == 336 && config.width == 336);
    char text[VL_PREPROCESS_FINGERPRINT];
    vl_preprocess_fingerprint(&config, VL_ASPECT_PAD, text);
    assert_string_equal(text, "bicubic shortest 336x336, crop 336x336, aspect pad 122,116,104");
    put_tower(folder, "{\"model_type\":\"siglip_vision_model\",\"image_size\":384}", NULL);
    must(vl_preprocess_load(&config, folder));
    assert_true(!config.by_shortest_side && config.height == 384 && config.std[2] == 0.5);
    put_tower(folder, "{\"model_type\":\"clip\",\"image_size\":224}", "{\"resample\":2}");
    assert_int_equal(vl_preprocess_load(&config, folder), VL_UNSUPPORTED);
    put_tower(folder, "{\"model_type\":\"clip\",\"image_size\":224}",
              "{\"size\":{\"shortest_edge\":200},\"crop_size\":224}");
    assert_int_equal(vl_preprocess_load(&config, folder), VL_UNSUPPORTED);  // the crop is larger
    put_tower(folder, "{\"model_type\":\"clip\",\"image_size\":-1}", NULL);
    assert_int_equal(vl_preprocess_load(&config, folder), VL_FORMAT);
    put_tower(folder, "{\"model_type\":\"resnet\",\"image_size\":224}", NULL);
    assert_int_equal(vl_preprocess_load(&config, folder), VL_UNSUPPORTED);
    put_tower(folder, "{\"model_type\":\"clip\",\"image_size\":224}", "{\"image_std\":[0,1,1]}");
    assert_int_equal(vl_preprocess_load(&config, folder), VL_FORMAT);
    must(vl_remove_tree(folder));
    assert_int_equal(vl_preprocess_load(&config, folder), VL_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden_cases), cmocka_unit_test(shortcuts_change_nothing),
                                       cmocka_unit_test(same_size_is_the_same_picture),
                                       cmocka_unit_test(crop_is_in_the_middle), cmocka_unit_test(configurations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
