// Training under mpirun: the same curve on any number of ranks, and a rank that dies.
#include "tests/process.h"
#include "tests/train/runs.h"

static Process process;

static void ranks(void **state, const char *count, const char *mode, int expected) {
    int code = process_call(&process, 300, "mpirun", "-n", count, "--oversubscribe", "--mca", "mpi_yield_when_idle",
                            "1", VL_RANK_PROGRAM, *state, mode);
    int done = 0;
    for (const char *at = process.out; (at = strstr(at, "rank done")); at++) done++;
    if (code != 0 || done != expected) {
        fail_msg("%s ranks: exit code %d, %d done: %s%s", count, code, done, process.out, process.err);
    }
    for (char *rest = process.out, *line; (line = strsep(&rest, "\n"));) {
        if (strstr(line, "within")) print_message("%s ranks: %s\n", count, line);
    }
}

static void two_ranks(void **state) { ranks(state, "2", "all", 2); }

static void four_ranks_then_three(void **state) {
    ranks(state, "4", "leave", 4);
    ranks(state, "3", "continue", 3);
}

// kill -9 of one rank: the job ends within seconds, with a code other than 0, and continues afterwards.
static void a_killed_rank(void **state) {
    static Process killer;
    char config[VL_PATH_MAX], output[VL_PATH_MAX + 16], metrics[VL_PATH_MAX], run[VL_PATH_MAX], victim[64];
    join(run, *state, "killed-rank");
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
    // Of the launcher's children the last one started is rank 1.
    snprintf(victim, sizeof victim, "pgrep -P %d vl2 | tail -n 1", (int)process.pid);
    assert_int_equal(process_call(&killer, 10, "sh", "-c", victim), 0);
    int rank = atoi(killer.out);
    assert_true(rank > 1);
    assert_int_equal(kill(rank, SIGKILL), 0);
    double begin = process_clock();
    int code = process_finish(&process, 120);
    if (code <= 0) fail_msg("exit code %d: %s", code, process.err);
    assert_true(process_clock() - begin < 20);
}

static int set_up(void **state) {
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_WARNING, 0);
    pack_stage(*state, "pretrain");
    pack_stage(*state, "finetune");
    return 0;
}

int main(void) {
    if (!process_exists("mpirun")) {
        printf("skipped: mpirun is missing\n");
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ranks),
        cmocka_unit_test(four_ranks_then_three),
        cmocka_unit_test(a_killed_rank),
    };
    return cmocka_run_group_tests(tests, set_up, remove_scratch);
}
