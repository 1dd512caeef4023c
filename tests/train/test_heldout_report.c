// The held-out results of several runs side by side: the last evaluation counts, groups are summed, single senses are
// shown where they belong to the same step.
#include "tests/train/runs.h"
#include "train/heldout_report.h"

static void put_results(const char *folder, const char *name, const char *text, char run[VL_PATH_MAX]) {
    char path[VL_PATH_MAX];
    join(run, folder, name);
    assert_ok(vl_make_folders(run));
    join(path, run, "heldout.jsonl");
    put_file(path, text, (int64_t)strlen(text));
}

#define KIND(name, asked, right, chance) \
    "\"" name "\": {\"asked\": " #asked ", \"right\": " #right ", \"accuracy\": 0, \"chance\": " #chance "}"
#define LINE(step, control, ...) \
    "{\"step\": " #step ", \"control\": \"" control "\", \"loss\": 1, \"kinds\": {" __VA_ARGS__ "}}\n"

static void runs_stand_side_by_side(void **state) {
    char first[VL_PATH_MAX], second[VL_PATH_MAX], *text;
    put_results(*state, "pretrain",
                LINE(1, "none", KIND("image-a", 10, 9, 0.5) ", " KIND("av-a", 4, 4, 0.25))  // of an earlier step
                LINE(1, "video-only", KIND("image-a", 10, 9, 0.5) ", " KIND("av-a", 4, 4, 0.25))
                    LINE(2, "none", KIND("image-a", 10, 1, 0.5) ", " KIND("av-a", 4, 0, 0.25)),
                first);
    put_results(
        *state, "joint",
        LINE(7, "none", KIND("image-a", 10, 5, 0.5) ", " KIND("image-b", 30, 25, 0.1) ", " KIND("av-a", 4, 3, 0.25))
            LINE(7, "shuffled", KIND("image-a", 10, 0, 0.5))
                LINE(7, "audio-only",
                     KIND("image-a", 10, 0, 0.5) ", " KIND("image-b", 30, 4, 0.1) ", " KIND("av-a", 4, 1, 0.25)),
        second);
    const char *const runs[] = {first, second};
    assert_ok(vl_heldout_report(2, runs, &text));
    assert_string_equal(text,
                        "held-out questions                 image          av\n"
                        "asked                                 40           4\n"
                        "chance                            20.0 %      25.0 %\n"
                        "after pretrain                    10.0 %       0.0 %\n"
                        "after joint                       75.0 %      75.0 %\n"
                        "  audio-only                      10.0 %      25.0 %\n");
    free(text);
}

static void wrong_runs_are_named(void **state) {
    char run[VL_PATH_MAX], *text;
    const char *const runs[] = {run};
    put_results(*state, "empty", "", run);
    assert_int_equal(vl_heldout_report(1, runs, &text), VL_INVALID);
    assert_non_null(strstr(vl_error_text(), "empty/heldout.jsonl"));
    put_results(*state, "other", "{\"loss\": 1}\n", run);
    assert_int_equal(vl_heldout_report(1, runs, &text), VL_FORMAT);
    put_results(*state, "kinds", "{\"step\": 1, \"control\": \"none\", \"kinds\": 3}\n", run);
    assert_int_equal(vl_heldout_report(1, runs, &text), VL_FORMAT);
    join(run, *state, "nowhere");
    assert_int_equal(vl_heldout_report(1, runs, &text), VL_IO);
    assert_null(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_stand_side_by_side),
        cmocka_unit_test(wrong_runs_are_named),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
