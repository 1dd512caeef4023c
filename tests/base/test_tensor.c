#include "base/tensor.h"
#include "tests/base/support.h"

static void views_know_their_size(void **state) {
    (void)state;
    VlTensor tensor = vl_tensor(NULL, VL_BF16, 2, 3, 4);
    assert_int_equal(tensor.dims, 3);
    assert_int_equal(vl_elements(tensor), 24);
    assert_int_equal(vl_bytes(tensor), 48);
    assert_int_equal(vl_elements(VL_EMPTY), 0);
    assert_int_equal(vl_elements(vl_tensor(NULL, VL_F32, 5, 0)), 0);
    assert_true(vl_is_empty(VL_EMPTY));
    assert_false(vl_is_empty(vl_tensor(NULL, VL_F32, 0)));
    assert_true(vl_same_shape(tensor, vl_tensor(NULL, VL_F32, 2, 3, 4)));
    assert_false(vl_same_shape(tensor, vl_tensor(NULL, VL_F32, 2, 3, 5)));
    assert_false(vl_same_shape(tensor, vl_tensor(NULL, VL_F32, 2, 12)));
}

static void views_share_memory(void **state) {
    (void)state;
    int32_t values[24];
    VlTensor tensor = vl_tensor(values, VL_I32, 2, 3, 4);
    VlTensor shaped = vl_reshape(tensor, 6, 4), part = vl_rows(shaped, 2, 3);
    assert_ptr_equal(shaped.data, values);
    assert_ptr_equal(part.data, values + 8);
    assert_int_equal(part.dim[0], 3);
    assert_int_equal(part.dim[1], 4);
    assert_int_equal(vl_rows(shaped, 6, 0).dim[0], 0);
    assert_null(vl_rows(vl_tensor(NULL, VL_I32, 6, 4), 2, 3).data);  // shapes without memory stay without
}

static void shapes_are_described(void **state) {
    (void)state;
    assert_string_equal(vl_describe(vl_tensor(NULL, VL_BF16, 8, 64, 4096)), "[8,64,4096] bf16");
    assert_string_equal(vl_describe(VL_EMPTY), "[] f32");
    const int64_t giant = INT64_MAX;
    assert_string_equal(vl_describe(vl_tensor(NULL, VL_BF16, giant, giant, giant, giant, giant)),
                        "[9223372036854775807,9223372036854775807,9223372036854775807,9223372036854775807,"
                        "9223372036854775807] bf16");
    const char *first = vl_describe(vl_tensor(NULL, VL_F32, 1));
    for (int i = 2; i < 9; i++) vl_describe(vl_tensor(NULL, VL_F32, i));
    assert_string_equal(first, "[1] f32");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(views_know_their_size),
        cmocka_unit_test(views_share_memory),
        cmocka_unit_test(shapes_are_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
