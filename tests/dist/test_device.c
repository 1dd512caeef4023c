// The collectives over GPUs on 1 to 4 ranks, on stand-ins for CUDA and NCCL: on GPUs of their own through NCCL, on a
// shared one through host memory; operations that run when they are queued, and as late as can be; and what happens
// when a rank fails.
#include "tests/stand_ins.h"

#ifndef VL_NCCL_FOLDER

int main(void) {
    printf("skipped: this build has no MPI\n");
    return TEST_SKIPPED;
}

#else

static Process process;

static int start(const char *program, const char *mode, const char *ranks, const char *way, const char *text) {
    return process_call(&process, 300, "mpirun", "-n", ranks, "--oversubscribe", "--mca", "mpi_yield_when_idle", "1",
                        program, mode, ranks, way, text);
}

static void expect_done(int code, const char *ranks) {
    if (code != 0) fail_msg("%s ranks: exit code %d: %s%s", ranks, code, process.out, process.err);
    assert_int_equal(occurrences(process.out, "rank done"), atoi(ranks));
}

static const char *const counts[] = {"1", "2", "4"}, *const streams[] = {"eager", "lazy"};

static void on_gpus_of_their_own(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        for (int s = 0; s < 2; s++) {
            use_stand_ins("4", streams[s], VL_NCCL_FOLDER);
            expect_done(start(VL_DEVICE_RANKS_PROGRAM, "all", counts[i], i ? "NCCL 2." : "host memory", ""), counts[i]);
        }
    }
}

static void on_a_shared_gpu(void **state) {
    (void)state;
    for (int i = 1; i < 3; i++) {
        for (int s = 0; s < 2; s++) {
            use_stand_ins("1", streams[s], VL_NCCL_FOLDER);
            const char *way = "host memory and MPI, as ranks share a GPU";
            expect_done(start(VL_DEVICE_RANKS_PROGRAM, "all", counts[i], way, ""), counts[i]);
        }
    }
}

// Two on each of two GPUs, and more than fits into the staging memory at a time.
static void in_several_pieces(void **state) {
    (void)state;
    use_stand_ins("2", "lazy", VL_NCCL_FOLDER);
    expect_done(start(VL_DEVICE_RANKS_PROGRAM, "large", "3", "host memory and MPI, as ranks share", ""), "3");
}

// A file that is no library: the machine may have NCCL of its own.
static void without_the_library(void **state) {
    (void)state;
    char folder[] = "/tmp/vl2-nccl-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/libnccl.so.2", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    use_stand_ins("2", "eager", folder);
    int code = start(VL_DEVICE_RANKS_PROGRAM, "all", "2", "host memory and MPI, as a rank lacks NCCL", "");
    remove(path);
    rmdir(folder);
    expect_done(code, "2");
    assert_non_null(strstr(process.err, "gradients take the slow way: NCCL is missing"));
}

// The buckets, whose gradients are on the device, in the program that tests them on the CPU.
static void sums_of_gradients(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        use_stand_ins(i < 2 ? "4" : "1", streams[i % 2], VL_NCCL_FOLDER);
        expect_done(start(VL_RANKS_PROGRAM, "all", "3", "", ""), "3");
    }
}

static void faults_end_all_ranks(void **state) {
    (void)state;
    static const struct {
        const char *gpus, *mode, *text;
    } faults[] = {
        {"4", "silent", "waited 3 s for its GPU's collectives 0 to 0 (all-reduce of 300)"},
        {"4", "count", "NCCL, all-reduce of"},
        {"4", "kind", "NCCL, "},
        {"4", "send", "NCCL, "},
        {"4", "receive", "NCCL, "},
        {"1", "silent", "waited 3 s"},
        {"1", "send", "rows"},
        {"1", "receive", "rows"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        use_stand_ins(faults[i].gpus, streams[i % 2], VL_NCCL_FOLDER);
        int silent = strcmp(faults[i].mode, "silent") == 0;
        const char *way = faults[i].gpus[0] == '4' ? "NCCL" : "host memory";
        int code = start(VL_DEVICE_RANKS_PROGRAM, faults[i].mode, "3", way, faults[i].text);
        if (code != 7) fail_msg("%s: exit code %d: %s%s", faults[i].mode, code, process.out, process.err);
        assert_int_equal(occurrences(process.out, "noticed: "), silent ? 2 : 3);
        assert_true(process.seconds < 60);
    }
}

static void a_killed_rank_ends_all_ranks(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        use_stand_ins(i ? "1" : "4", "eager", VL_NCCL_FOLDER);
        int code = start(VL_DEVICE_RANKS_PROGRAM, "die", "3", i ? "host memory" : "NCCL", "waited 3 s");
        assert_true(code != 0 && code != -1);
        assert_true(process.seconds < 60);
        assert_int_equal(occurrences(process.out, "rank done"), 0);
    }
}

static void an_error_of_one_rank_ends_all(void **state) {
    (void)state;
    use_stand_ins("4", "eager", VL_NCCL_FOLDER);
    setenv("VL_TEST_NCCL_FAIL", "1:1", 1);
    int code = start(VL_DEVICE_RANKS_PROGRAM, "error", "3", "NCCL", "NCCL, all-reduce of 300: ");
    if (code != 7) fail_msg("exit code %d: %s%s", code, process.out, process.err);
    assert_int_equal(occurrences(process.out, "unhandled system error: as the test wants"), 1);
    assert_int_equal(occurrences(process.out, "remote process exited or there was a network error: rank 1 failed"), 2);
    setenv("VL_TEST_NCCL_FAIL", "1:0", 1);
    code = start(VL_DEVICE_RANKS_PROGRAM, "join", "2", "", "NCCL, joining the GPUs: ");
    if (code != 0) fail_msg("exit code %d: %s%s", code, process.out, process.err);
    assert_int_equal(occurrences(process.out, "noticed: "), 2);
}

static void a_small_gpu_is_refused(void **state) {
    (void)state;
    use_stand_ins("1", "eager", VL_NCCL_FOLDER);
    setenv("VL_TEST_SHARED", "101376", 1);
    int code = start(VL_DEVICE_RANKS_PROGRAM, "all", "1", "host memory", "");
    assert_true(code != 0 && code != -1);
    if (!strstr(process.out, "a block has 101376 bytes of shared memory, kernels take up to 166912")) {
        fail_msg("exit code %d: %s%s", code, process.out, process.err);
    }
}

int main(void) {
    if (!process_exists("mpirun")) {
        printf("skipped: mpirun is missing\n");
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_gpus_of_their_own),
        cmocka_unit_test(on_a_shared_gpu),
        cmocka_unit_test(in_several_pieces),
        cmocka_unit_test(without_the_library),
        cmocka_unit_test(sums_of_gradients),
        cmocka_unit_test(faults_end_all_ranks),
        cmocka_unit_test(a_killed_rank_ends_all_ranks),
        cmocka_unit_test(an_error_of_one_rank_ends_all),
        cmocka_unit_test(a_small_gpu_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
