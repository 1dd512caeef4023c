// Training on several GPUs, on stand-ins for CUDA and NCCL: the curve is the one over MPI, whether the ranks have GPUs
// of their own or share one.
//
// test_gpus [NAME]: only the tests of that name.
#include "tests/stand_ins.h"
#include "tests/train/call_ranks.h"
#include "tests/train/runs.h"

#ifndef VL_NCCL_FOLDER

int main(void) {
    printf("skipped: this build has no MPI\n");
    return TEST_SKIPPED;
}

#else

static Process process;
static const char *const counts[] = {"1", "2", "4"};

// `way`: what is said of how gradients are summed.
static void ranks(void **state, const char *count, const char *mode, const char *way) {
    call_ranks(&process, 1800, count, VL_RANK_PROGRAM, *state, mode);
    if (!strstr(process.err, way)) fail_msg("%s ranks: '%s' was not said: %s", count, way, process.err);
}

static void through_nccl(void **state) {
    for (int i = 0; i < 3; i++) {
        use_stand_ins("4", i == 1 ? "lazy" : "eager", VL_NCCL_FOLDER);
        ranks(state, counts[i], "on_gpus", i ? "gradients are summed by NCCL 2." : "");
    }
}

static void through_host_memory(void **state) {
    use_stand_ins("1", "lazy", VL_NCCL_FOLDER);
    ranks(state, "2", "on_gpus", "gradients are summed by host memory and MPI, as ranks share a GPU");
}

static void whole_curves(void **state) {
    for (int i = 0; i < 3; i++) {
        use_stand_ins("4", "eager", VL_NCCL_FOLDER);
        ranks(state, counts[i], "curve_on_gpus", "");
    }
}

static int set_up(void **state) {
    if (make_scratch(state)) return -1;
    setenv("VL_TEST_DEVICE", "cuda", 1);
    pack_stage(*state, "finetune");
    return 0;
}

int main(int argc, char **argv) {
    cmocka_set_test_filter(argc > 1 ? argv[1] : "through_*");
    if (!process_exists("mpirun")) {
        printf("skipped: mpirun is missing\n");
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(through_nccl), cmocka_unit_test(through_host_memory),
                                       cmocka_unit_test(whole_curves)};
    return cmocka_run_group_tests(tests, set_up, remove_scratch);
}

#endif
