#include <pthread.h>

#include "tests/base/support.h"

static void texts_are_one_clean_line(void **state) {
    (void)state;
    assert_int_equal(vl_error(VL_IO, "cannot read '%s': %d", "a\nb\033[31m\r\x7f", 7), VL_IO);
    assert_string_equal(vl_error_text(), "cannot read 'a b [31m  ': 7");
    vl_error_clear();
    assert_string_equal(vl_error_text(), "");
}

static void a_text_may_be_built_from_the_one_before(void **state) {
    (void)state;
    vl_error(VL_IO, "inner");
    vl_error(VL_FORMAT, "outer (%s)", vl_error_text());
    assert_string_equal(vl_error_text(), "outer (inner)");
}

static void long_texts_are_cut(void **state) {
    (void)state;
    char big[3000];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = '\0';
    vl_error(VL_IO, "%s", big);
    assert_int_equal(strlen(vl_error_text()), 1023);
    vl_error_context(VL_IO, "%s", big);
    assert_int_equal(strlen(vl_error_text()), 1023);
    assert_memory_equal(vl_error_text() + 511, ": x", 3);
}

static VlStatus innermost(void) { return vl_error(VL_FORMAT, "bad value 3"); }
static VlStatus middle(void) {
    VL_TRY_CONTEXT(innermost(), "file %s", "a.json");
    return VL_OK;
}
static VlStatus outermost(int *cleaned) {
    VlStatus status;
    VL_TRY_GOTO(status, middle(), done);
    *cleaned = 100;
done:
    ++*cleaned;
    return status;
}

static void frames_and_contexts_are_kept_on_the_way_up(void **state) {
    (void)state;
    int cleaned = 0;
    assert_int_equal(outermost(&cleaned), VL_FORMAT);
    assert_int_equal(cleaned, 1);
    assert_string_equal(vl_error_text(), "file a.json: bad value 3");
    const char *first = strstr(vl_error_frames(), "  middle ("), *second = strstr(vl_error_frames(), "  outermost (");
    assert_non_null(first);
    assert_non_null(second);
    assert_true(first < second);
    vl_error(VL_IO, "a new one");
    assert_string_equal(vl_error_frames(), "");
}

static void frames_without_end_are_cut(void **state) {
    (void)state;
    vl_error(VL_IO, "deep");
    for (int i = 0; i < 1000; i++) vl_error_frame(VL_IO, "function", "file.c", i);
    assert_int_equal(strlen(vl_error_frames()), 2047);
    assert_memory_equal(vl_error_frames(), "  function (file.c:0)\n  function (file.c:1)\n", 44);
}

static void *fail_elsewhere(void *argument) {
    VlError *error = argument;
    *error = vl_error_take(vl_error(VL_COMMUNICATION, "rank 3 is gone"));
    return vl_error_text()[0] ? argument : NULL;
}

static void errors_travel_between_threads(void **state) {
    (void)state;
    VlError error;
    pthread_t thread;
    void *left;
    vl_error(VL_IO, "mine");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, &error), 0);
    assert_int_equal(pthread_join(thread, &left), 0);
    assert_null(left);
    assert_string_equal(vl_error_text(), "mine");
    assert_int_equal(vl_error_raise(&error), VL_COMMUNICATION);
    assert_string_equal(vl_error_text(), "rank 3 is gone");
}

static void the_nearest_word_is_near_or_none(void **state) {
    (void)state;
    static const char *const words[] = {"train", "pack", "eval", "generate"};
    assert_string_equal(vl_nearest_word("trian", words, 4), "train");
    assert_string_equal(vl_nearest_word("generat", words, 4), "generate");
    assert_string_equal(vl_nearest_word("pack", words, 4), "pack");
    assert_null(vl_nearest_word("zzzzzz", words, 4));
    assert_null(vl_nearest_word("", words, 4));
    assert_null(vl_nearest_word("x", words, 0));
    char giant[200];
    memset(giant, 'q', sizeof giant);
    giant[sizeof giant - 1] = '\0';
    assert_null(vl_nearest_word(giant, words, 4));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_one_clean_line),
        cmocka_unit_test(a_text_may_be_built_from_the_one_before),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(frames_and_contexts_are_kept_on_the_way_up),
        cmocka_unit_test(frames_without_end_are_cut),
        cmocka_unit_test(errors_travel_between_threads),
        cmocka_unit_test(the_nearest_word_is_near_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
