// Runs that end early: signals, kill -9 at any moment, a full disk, a half-written checkpoint. What goes on afterwards
// is the run that never stopped, to the bit.
#include "base/random.h"
#include "tests/train/vl2.h"

static Process process;
static const char *whole;  // the run that never stopped

static void expect_same_as_whole(const char *run) {
    Curve expected, found;
    read_curve(whole, &expected);
    read_curve(run, &found);
    assert_int_equal(found.steps, 60);
    assert_true(same_bits(&expected, &found));
    assert_true(same_weights(whole, run));
}

static void expect_no_leftovers(const char *run) {
    char path[VL_PATH_MAX], **names;
    int64_t count;
    join(path, run, "checkpoints");
    assert_ok(vl_list_folder(path, &names, &count));
    for (int64_t i = 0; i < count; i++) {
        if (strstr(names[i], "tmp")) fail_msg("%s is left", names[i]);
    }
    vl_free_names(names, count);
}

static void kill_at_random_moments(void **state) {
    const char *run = scratch(state, "killed");
    VlRandom random = vl_random(4, 0);
    int killed = 0, code = -1;
    for (int i = 0; i < 6 && code != 0; i++) {
        start_vl2_train(&process, *state, "finetune", run, "train.steps=60", "checkpoint.every=1", "checkpoint.keep=3");
        // The first kills hit the set-up, the others the steps and their checkpoints, which take most of the time.
        process_sleep(i < 2 ? 0.3 * vl_random_uniform(&random) : 0.4 + 0.8 * vl_random_uniform(&random));
        kill(process.pid, SIGKILL);
        code = process_finish(&process, 60);
        if (code != 0 && code != 128 + SIGKILL) fail_msg("exit code %d: %s", code, process.err);
        killed += code != 0;
    }
    start_vl2_train(&process, *state, "finetune", run, "train.steps=60", "checkpoint.every=10");
    code = process_finish(&process, 60);
    if (code != 0) fail_msg("exit code %d: %s", code, process.err);
    print_message("killed %d times\n", killed);
    assert_true(killed >= 2);
    expect_no_leftovers(run);
    expect_same_as_whole(run);
}

// What a kill leaves while a checkpoint is written: a folder under its temporary name, with files cut short.
static void half_written_checkpoint(void **state) {
    const char *run = scratch(state, "half");
    char path[VL_PATH_MAX];
    copy_run_at(whole, 20, run);
    join(path, run, "checkpoints/step-00000040.tmp");
    assert_ok(vl_make_folders(path));
    join(path, run, "checkpoints/step-00000040.tmp/rank-00000.h5");
    put_file(path, "\x89HDF\r\n", 6);
    start_vl2_train(&process, *state, "finetune", run, "train.steps=60");
    int code = process_finish(&process, 60);
    if (code != 0) fail_msg("exit code %d: %s", code, process.err);
    assert_non_null(strstr(process.err, "step-00000040.tmp"));
    assert_non_null(strstr(process.err, "continuing from"));
    expect_no_leftovers(run);
    expect_same_as_whole(run);
}

static void a_signal_saves_and_ends(void **state) {
    static const int signals[] = {SIGTERM, SIGINT}, codes[] = {143, 130};
    static const char *const names[] = {"terminated", "interrupted"};
    for (int i = 0; i < 2; i++) {
        const char *run = scratch(state, names[i]);
        char newest[VL_PATH_MAX];
        Curve curve;
        start_vl2_train(&process, *state, "finetune", run, "train.steps=60", "checkpoint.every=0",
                        "train.micro_tokens=2");
        wait_for_step(run, 3);
        kill(process.pid, signals[i]);
        int code = process_finish(&process, 60);
        if (code != codes[i]) fail_msg("exit code %d: %s", code, process.err);
        assert_ok(vl_checkpoint_newest(run, -1, newest));
        read_curve(run, &curve);
        assert_int_equal(vl_checkpoint_step(newest), curve.steps);  // no step is lost
        assert_true(curve.steps >= 3 && curve.steps < 60);
        assert_non_null(strstr(process.err, "interrupted; a checkpoint of step"));
        start_vl2_train(&process, *state, "finetune", run, "train.steps=60");
        assert_int_equal(process_finish(&process, 60), 0);
        Curve expected, found;
        read_curve(whole, &expected);
        read_curve(run, &found);
        assert_true(loss_distance(&found, &expected, 0, 60) <= 2e-5);
        print_message("signal %d at step %lld\n", signals[i], (long long)curve.steps);
    }
}

// The disk is full while a checkpoint is written: one line, nothing half-written, and the one before is whole.
static void full_disk(void **state) {
    const char *run = scratch(state, "full");
    char newest[VL_PATH_MAX];
    VlComm *comm;
    copy_run_at(whole, 20, run);
    start_training(&process, *state, "finetune", run, 1 << 20, (const char *const[]){"train.steps=60", NULL});
    expect_failure(&process, process_finish(&process, 60), 1, "step-00000030.tmp/rank-00000.h5");
    expect_no_leftovers(run);
    assert_ok(vl_checkpoint_newest(run, -1, newest));
    assert_int_equal(vl_checkpoint_step(newest), 20);
    assert_ok(vl_comm_open(&comm, 0));
    assert_ok(vl_checkpoint_verify(comm, newest));
    vl_comm_close(comm);
    start_vl2_train(&process, *state, "finetune", run, "train.steps=60");
    assert_int_equal(process_finish(&process, 60), 0);
    expect_same_as_whole(run);
}

static void injected_faults_are_clean_errors(void **state) {
    const char *run = scratch(state, "faults");
    char newest[VL_PATH_MAX], number[32];
    int failed = 0;
    copy_run_at(whole, 20, run);
    for (int n = 5; n < 100000; n = n * 3 + 5) {
        snprintf(number, sizeof number, "%d", n);
        setenv("VL2_FAULT", number, 1);
        start_vl2_train(&process, *state, "finetune", run, "train.steps=60", "checkpoint.every=1000");
        unsetenv("VL2_FAULT");
        int code = process_finish(&process, 60);
        if (code == 0) break;
        expect_failure(&process, code, strstr(process.err, "configuration") ? 2 : 1, "");
        failed++;
        assert_ok(vl_checkpoint_newest(run, -1, newest));
        assert_int_equal(vl_checkpoint_step(newest), 20);
    }
    print_message("%d faults\n", failed);
    assert_true(failed >= 3);
}

static int set_up(void **state) {
    static char path[VL_PATH_MAX];
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_WARNING, 0);
    pack_stage(*state, "finetune");
    join(path, *state, "whole");
    whole = path;
    start_vl2_train(&process, *state, "finetune", whole, "train.steps=60");
    int code = process_finish(&process, 60);
    if (code != 0) fail_msg("exit code %d: %s", code, process.err);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kill_at_random_moments),           cmocka_unit_test(half_written_checkpoint),
        cmocka_unit_test(a_signal_saves_and_ends),          cmocka_unit_test(full_disk),
        cmocka_unit_test(injected_faults_are_clean_errors),
    };
    return cmocka_run_group_tests(tests, set_up, remove_scratch);
}
