// One rank of the runs that test_mixes.c starts under mpirun. mixes FOLDER: FOLDER/mixes.yaml is trained once a mix,
// into the folders that the test reads.
#include "tests/train/mixes.h"

static VlComm *ranks;
static const char *folder;

static void train_mix(int64_t number) {
    Mix mix = draw_mix(number);
    char run[VL_PATH_MAX], words[6][VL_CONFIG_TEXT];
    mix_path(run, folder, vl_comm_size(ranks), number);
    snprintf(words[0], sizeof words[0], "train.seed=%lld", (long long)mix.seed);
    snprintf(words[1], sizeof words[1], "train.global_batch=%lld", (long long)mix.global_batch);
    snprintf(words[2], sizeof words[2], "train.micro_tokens=%lld", (long long)mix.micro_tokens);
    snprintf(words[3], sizeof words[3], "train.layer_drop=%g", mix.layer_drop);
    snprintf(words[4], sizeof words[4], "train.trainable=%s", mix.trainable);
    snprintf(words[5], sizeof words[5], "train.steps=%d", MIX_STEPS);
    assert_ok(train(ranks, folder, "mixes", run, words[0], words[1], words[2], words[3], words[4], words[5]));
    assert_ok(vl_comm_barrier(ranks));
}

static void all(void **state) {
    (void)state;
    for (int64_t i = 0; i < MIX_RUNS; i++) train_mix(i);
}

int main(int argc, char **argv) {
    if (argc != 2 || vl_comm_open(&ranks, 60) != VL_OK) return 2;
    folder = argv[1];
    vl_log_configure(VL_LOG_ERROR, (int)vl_comm_rank(ranks));
    const struct CMUnitTest tests[] = {cmocka_unit_test(all)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed) vl_comm_abort(ranks, 1);
    vl_comm_close(ranks);
    if (!failed) printf("rank done\n");
    return failed;
}
