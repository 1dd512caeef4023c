// The collectives and buckets on 1 to 4 ranks, and what happens when a rank is silent, gives up, or dies.
#include "tests/process.h"

static Process process;

enum { COLLECTIVE_LIMIT = 120 };  // seconds, in ranks.c: whatever ends earlier was noticed

static int ranks(const char *count, const char *mode, double limit) {
    return process_call(&process, limit, "mpirun", "-n", count, "--oversubscribe", "--mca", "mpi_yield_when_idle", "1",
                        VL_RANKS_PROGRAM, mode, count);
}

static void alone_without_mpirun(void **state) {
    (void)state;
    int code = process_call(&process, 60, VL_RANKS_PROGRAM, "all", "1");
    if (code != 0) fail_msg("exit code %d: %s%s", code, process.out, process.err);
}

static void on_one_to_four_ranks(void **state) {
    (void)state;
    static const char *const counts[] = {"1", "2", "3", "4"};
    for (int i = 0; i < 4; i++) {
        int code = ranks(counts[i], "all", 180);
        if (code != 0) fail_msg("%s ranks: exit code %d: %s%s", counts[i], code, process.out, process.err);
        assert_int_equal(occurrences(process.out, "rank done"), i + 1);
    }
}

static void a_silent_rank_is_noticed(void **state) {
    (void)state;
    int code = ranks("3", "silent", 60);
    if (code != 7) fail_msg("exit code %d: %s%s", code, process.out, process.err);
    assert_int_equal(occurrences(process.out, "the limit held"), 2);
    assert_true(process.seconds < COLLECTIVE_LIMIT);
}

static void abort_ends_all_ranks(void **state) {
    (void)state;
    assert_int_equal(ranks("3", "abort", 60), 5);
    assert_true(process.seconds < COLLECTIVE_LIMIT);
}

static void a_killed_rank_ends_all_ranks(void **state) {
    (void)state;
    int code = ranks("3", "die", 60);
    assert_true(code != 0 && code != -1);
    assert_true(process.seconds < COLLECTIVE_LIMIT);
    assert_int_equal(occurrences(process.out, "rank done"), 0);
}

int main(void) {
    if (!process_exists("mpirun")) {
        printf("skipped: mpirun is missing\n");
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_without_mpirun),         cmocka_unit_test(on_one_to_four_ranks),
        cmocka_unit_test(a_silent_rank_is_noticed),     cmocka_unit_test(abort_ends_all_ranks),
        cmocka_unit_test(a_killed_rank_ends_all_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
