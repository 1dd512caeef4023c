// patches against its definition.
#include "tests/ops/output.h"

// shape: images, channels, height, width, patch.
static Output run(Check *check, const int64_t shape[5], VlDtype dtype, double **pixels) {
    int64_t patch = shape[4], rows = shape[0] * (shape[2] / patch) * (shape[3] / patch);
    *pixels = check_random(check, shape[0] * shape[1] * shape[2] * shape[3], 1.0, VL_F32);
    VlTensor from = check_upload(check, *pixels, VL_F32, shape[0], shape[1], shape[2], shape[3]);
    Output columns = output_make(check, vl_tensor(NULL, dtype, rows, shape[1] * patch * patch), VL_WRITE);
    check_ok(check, vl_patches(check->context, columns.tensor, from, patch));
    return columns;
}

// Element (channel, i, j) of the patch at (down, across) is the pixel there: equal, after rounding to the type.
static void verify(const int64_t shape[5], VlDtype dtype) {
    Check check;
    check_begin(&check, 28, 2);
    double *pixels;
    int64_t channels = shape[1], height = shape[2], width = shape[3], patch = shape[4];
    double *got = check_download(&check, run(&check, shape, dtype, &pixels).tensor);
    for (int64_t n = 0; n < shape[0]; n++) {
        for (int64_t down = 0; down < height / patch; down++) {
            for (int64_t across = 0; across < width / patch; across++) {
                for (int64_t k = 0; k < channels * patch * patch; k++) {
                    int64_t row = (n * channels + k / (patch * patch)) * height + down * patch + k / patch % patch;
                    double pixel = pixels[row * width + across * patch + k % patch];
                    if (!(*got++ == check_rounded(pixel, dtype))) {
                        fail_msg("image %d, patch (%d, %d), element %d", (int)n, (int)down, (int)across, (int)k);
                    }
                }
            }
        }
    }
    check_end(&check);
}

static void test_patches(void **state) {
    (void)state;
    static const int64_t shapes[][5] = {{1, 3, 1, 1, 1}, {2, 3, 4, 6, 2}, {2, 3, 7, 11, 3},  {1, 3, 20, 17, 7},
                                        {3, 3, 2, 5, 3}, {0, 3, 4, 4, 2}, {2, 1, 35, 17, 4}, {1, 5, 6, 7, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
}

static void test_threads(void **state) {
    (void)state;
    Check one, two;
    double *pixels;
    static const int64_t shape[5] = {3, 3, 71, 65, 5};
    check_begin(&one, 29, 1);
    check_begin(&two, 29, 2);
    Output a = run(&one, shape, VL_BF16, &pixels), b = run(&two, shape, VL_BF16, &pixels);
    outputs_same(&one, &a, &two, &b, 1);
    check_end(&one);
    check_end(&two);
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 30, 1);
    VlContext *context = check.context;
    VlTensor pixels = check_device(&check, VL_F32, 2, 3, 6, 9), columns = check_device(&check, VL_F32, 12, 27);
    VlTensor grey = check_device(&check, VL_F32, 2, 1, 6, 9), half = check_device(&check, VL_BF16, 2, 3, 6, 9);
    VlTensor integers = check_device(&check, VL_I64, 12, 27);
    check_ok(&check, vl_patches(context, columns, pixels, 3));
    check_refused(vl_patches(context, columns, grey, 3), VL_INVALID,
                  "patches: columns is [12,27] f32, it must be [12,9] f32");
    check_refused(vl_patches(context, columns, half, 3), VL_INVALID, "pixels is [2,3,6,9] bf16");
    check_refused(vl_patches(context, columns, pixels, 2), VL_INVALID,
                  "columns is [12,27] f32, it must be [24,12] f32");
    check_refused(vl_patches(context, integers, pixels, 3), VL_INVALID, "columns is [12,27] i64");
    check_refused(vl_patches(context, columns, pixels, 0), VL_INVALID, "patch is 0");
    check_refused(vl_patches(context, columns, pixels, INT64_MAX), VL_INVALID, "patch is 9223372036854775807");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patches),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
