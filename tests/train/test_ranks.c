// Training under mpirun: the same curve on any number of ranks, and a rank that dies.
#include "tests/train/call_ranks.h"
#include "tests/train/runs.h"

static Process process;

static void two_ranks(void **state) { call_ranks(&process, 600, "2", VL_RANK_PROGRAM, *state, "all"); }

static void four_ranks_then_three(void **state) {
    call_ranks(&process, 600, "4", VL_RANK_PROGRAM, *state, "leave");
    call_ranks(&process, 600, "3", VL_RANK_PROGRAM, *state, "go_on");
}

static void two_ranks_then_four_hear(void **state) {
    call_ranks(&process, 600, "2", VL_RANK_PROGRAM, *state, "hear");
    call_ranks(&process, 600, "4", VL_RANK_PROGRAM, *state, "hear_again");
}

static void two_and_four_ranks_with_experts(void **state) {
    call_ranks(&process, 600, "2", VL_RANK_PROGRAM, *state, "experts");
    call_ranks(&process, 600, "4", VL_RANK_PROGRAM, *state, "experts");
}

// The child that a process has started last: of mpirun's, the last rank.
static int last_child(int parent) {
    char **names, path[VL_PATH_MAX], name[64];
    int64_t count;
    int last = -1;
    assert_ok(vl_list_folder("/proc", &names, &count));
    for (int64_t i = 0; i < count; i++) {
        int number = atoi(names[i]), above = 0;
        snprintf(path, sizeof path, "/proc/%d/stat", number);
        FILE *file = number > last ? fopen(path, "r") : NULL;
        if (!file) continue;
        if (fscanf(file, "%*d %63s %*c %d", name, &above) == 2 && above == parent) last = number;
        fclose(file);
    }
    vl_free_names(names, count);
    return last;
}

// Starts vl2 on two ranks, and gives rank 1's process when steps have been done.
static int start_two_ranks(void **state, const char *name, char run[VL_PATH_MAX]) {
    char config[VL_PATH_MAX], output[VL_PATH_MAX + 16], metrics[VL_PATH_MAX];
    join(run, *state, name);
    join(metrics, run, "metrics.jsonl");
    join(config, *state, "finetune.yaml");
    snprintf(output, sizeof output, "output=%s", run);
    const char *const argv[] = {"mpirun",
                                "-n",
                                "2",
                                "--oversubscribe",
                                "--mca",
                                "mpi_yield_when_idle",
                                "1",
                                VL2_PROGRAM,
                                "train",
                                config,
                                "train.steps=5000",
                                "checkpoint.every=5",
                                output,
                                NULL};
    process_start(&process, argv, 0);
    for (int i = 0; i < 2000 && !vl_path_exists(metrics); i++) process_sleep(0.02);
    process_sleep(0.5);
    int rank = last_child(process.pid);
    assert_true(rank > 1);
    return rank;
}

// kill -9 of one rank: the job ends within seconds, with a code other than 0.
static void a_killed_rank(void **state) {
    char run[VL_PATH_MAX];
    int rank = start_two_ranks(state, "killed-rank", run);
    assert_int_equal(kill(rank, SIGKILL), 0);
    double begin = process_clock();
    int code = process_finish(&process, 120);
    if (code <= 0) fail_msg("exit code %d: %s", code, process.err);
    assert_true(process_clock() - begin < 20);
}

// A signal to one rank ends all of them, with a checkpoint of the step that was done.
static void a_signal_to_one_rank(void **state) {
    char run[VL_PATH_MAX], newest[VL_PATH_MAX];
    int rank = start_two_ranks(state, "one-signal", run);
    assert_int_equal(kill(rank, SIGINT), 0);
    int code = process_finish(&process, 120);
    if (code != 130) fail_msg("exit code %d: %s", code, process.err);
    assert_non_null(strstr(process.err, "interrupted; a checkpoint of step"));
    assert_ok(vl_checkpoint_newest(run, -1, newest));
    char metrics[VL_PATH_MAX], *text;
    int64_t size;
    join(metrics, run, "metrics.jsonl");
    assert_ok(vl_read_file(metrics, 1 << 24, &text, &size));
    assert_int_equal(vl_checkpoint_step(newest), count_lines(text));
    vl_free(text);
}

static int set_up(void **state) {
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_WARNING, 0);
    static const char *const stages[] = {"pretrain", "finetune", "audio_pretrain", "audio_finetune", "joint"};
    for (int i = 0; i < 5; i++) pack_stage(*state, stages[i]);
    return 0;
}

// test_ranks [NAME]: only the tests of that name.
int main(int argc, char **argv) {
    if (argc > 1) cmocka_set_test_filter(argv[1]);

    if (!process_exists("mpirun")) {
        printf("skipped: mpirun is missing\n");
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ranks),
        cmocka_unit_test(four_ranks_then_three),
        cmocka_unit_test(two_ranks_then_four_hear),
        cmocka_unit_test(two_and_four_ranks_with_experts),
        cmocka_unit_test(a_killed_rank),
        cmocka_unit_test(a_signal_to_one_rank),
    };
    return cmocka_run_group_tests(tests, set_up, remove_scratch);
}
