#include "tests/base/support.h"

// AddressSanitizer asks for this: giant requests return NULL, as everywhere, instead of ending the program.
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }

static void allocations_are_zeroed_and_checked(void **state) {
    (void)state;
    int64_t *numbers = NULL;
    assert_ok(VL_NEW(&numbers, 1000));
    for (int64_t i = 0; i < 1000; i++) assert_int_equal(numbers[i], 0);
    vl_free(numbers);
    assert_ok(VL_NEW(&numbers, 0));
    assert_non_null(numbers);
    vl_free(numbers);
    numbers = NULL;
    assert_error(VL_NEW(&numbers, -1), VL_INVALID, "-1 elements of 8 bytes");
    assert_error(VL_NEW(&numbers, INT64_MAX / 4), VL_INVALID, "no valid size");
    assert_error(vl_allocate(&numbers, INT64_MAX, 1), VL_OUT_OF_MEMORY, "9223372036854775807 bytes");
    assert_null(numbers);
}

static void arrays_grow_with_zeroed_room(void **state) {
    (void)state;
    int32_t *array = NULL;
    int64_t capacity = 0;
    for (size_t size = 32; size <= 8192; size *= 2) {  // so that the heap has no zeros to offer by chance
        char *dirt = malloc(size);
        assert_non_null(dirt);
        memset(dirt, 0xa5, size);
        free(dirt);
    }
    for (int32_t i = 0; i < 1000; i++) {
        assert_ok(vl_reserve(&array, &capacity, i + 1, sizeof *array));
        assert_true(capacity > i);
        for (int64_t j = i; j < capacity; j++) assert_int_equal(array[j], 0);
        array[i] = i;
    }
    for (int32_t i = 0; i < 1000; i++) assert_int_equal(array[i], i);
    assert_int_equal(capacity, 1024);
    int32_t *before = array;
    assert_ok(vl_reserve(&array, &capacity, 1024, sizeof *array));
    assert_ptr_equal(array, before);
    assert_error(vl_reserve(&array, &capacity, INT64_MAX, sizeof *array), VL_INVALID, "2^63");
    assert_error(vl_reserve(&array, &capacity, INT64_MAX / 2, sizeof *array), VL_OUT_OF_MEMORY, "4 bytes");
    assert_ptr_equal(array, before);
    assert_int_equal(capacity, 1024);
    vl_free(array);
}

static void strings_are_copied(void **state) {
    (void)state;
    char *copy;
    assert_ok(vl_duplicate_string(&copy, "word"));
    assert_string_equal(copy, "word");
    vl_free(copy);
    assert_ok(vl_duplicate_bytes(&copy, "word", 2));
    assert_string_equal(copy, "wo");
    vl_free(copy);
    assert_ok(vl_duplicate_bytes(&copy, "", 0));
    assert_string_equal(copy, "");
    vl_free(copy);
}

static void the_nth_call_fails_once(void **state) {
    (void)state;
    char *memory[4] = {0};
    vl_fault_arm(2);
    assert_ok(VL_NEW(&memory[0], 1));
    assert_ok(VL_NEW(&memory[1], 1));
    assert_error(VL_NEW(&memory[2], 1), VL_OUT_OF_MEMORY, "1 bytes");
    assert_null(memory[2]);
    assert_ok(VL_NEW(&memory[3], 1));
    for (int i = 0; i < 4; i++) vl_free(memory[i]);
    int64_t capacity = 0;
    vl_fault_arm(0);
    assert_error(vl_reserve(&memory[2], &capacity, 1, 1), VL_OUT_OF_MEMORY, "8 elements");
    vl_fault_arm(0);
    vl_fault_arm(-1);
    assert_false(vl_fault_hit());
}

static void sizes_are_checked(void **state) {
    (void)state;
    int64_t out = 0;
    assert_true(vl_multiply(1LL << 31, 1LL << 31, &out));
    assert_true(out == 1LL << 62);
    assert_false(vl_multiply(1LL << 32, 1LL << 31, &out));
    assert_false(vl_multiply(-1, 1, &out));
    assert_false(vl_multiply(1, -1, &out));
    assert_true(vl_multiply(0, INT64_MAX, &out));
    assert_true(out == 0);
    assert_true(vl_add(INT64_MAX - 1, 1, &out));
    assert_true(out == INT64_MAX);
    assert_false(vl_add(INT64_MAX, 1, &out));
    assert_false(vl_add(-1, 2, &out));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_zeroed_and_checked),
        cmocka_unit_test(arrays_grow_with_zeroed_room),
        cmocka_unit_test(strings_are_copied),
        cmocka_unit_test(the_nth_call_fails_once),
        cmocka_unit_test(sizes_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
