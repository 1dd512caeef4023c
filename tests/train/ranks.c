// One rank of the training runs that test_ranks.c starts under mpirun: the golden curve on several ranks, micro-batches
// cut in another way, and runs that go on with another number of ranks. A failed check ends all ranks.
//
// train_rank FOLDER MODE: the ranks share FOLDER. MODE "leave" keeps a run there for another number of ranks to
// continue, which "go_on" does; "hear" and "hear_again" are the golden curves of the stages with sound; "experts" are
// runs of a mixture of experts; "on_gpus" is the beginning of a curve on GPUs, "curve_on_gpus" all of it.
#include "tests/train/experts_model.h"
#include "tests/train/golden_curve.h"

static VlComm *ranks, *alone;  // all of them; this one as a run of its own
static const char *folder;
static bool leader;

// The path of a run on this number of ranks.
static void shared_path(char out[VL_PATH_MAX], const char *name) {
    char numbered[128];
    snprintf(numbered, sizeof numbered, "ranks-%lld-%s", (long long)vl_comm_size(ranks), name);
    join(out, folder, numbered);
}

static void wait_for_all(void) { assert_ok(vl_comm_barrier(ranks)); }

static void run_on_ranks(const char *stage, const char *run, const char *extra) {
    assert_ok(train(ranks, folder, stage, run, extra));
    wait_for_all();
}

static void expect_near(const char *what, const char *a, const char *b, int64_t begin, double limit) {
    if (!leader) return;
    Curve x, y;
    read_curve(a, &x);
    read_curve(b, &y);
    assert_int_equal(x.steps, y.steps);
    double distance = loss_distance(&x, &y, begin, x.steps);
    if (!(distance <= limit)) fail_msg("%s: %.2g away, limit %.2g", what, distance, limit);
    printf("%s: losses within %.1e\n", what, distance);
}

static void golden_curve(const char *stage) {
    char run[VL_PATH_MAX], single[VL_PATH_MAX], name[64];
    snprintf(name, sizeof name, "%s-1", stage);
    shared_path(run, stage);
    shared_path(single, name);
    run_on_ranks(stage, run, "train.seed=42");
    if (leader) {
        char checkpoint[VL_PATH_MAX];  // a file and a table of each rank, the manifest, the configuration
        checkpoint_path(checkpoint, run, golden_run(stage)->steps);
        assert_int_equal(count_names(checkpoint), 2 * vl_comm_size(ranks) + 2);
        assert_ok(train(alone, folder, stage, single));
        check_curve(run, stage);
        check_weights(run, stage);
    }
    wait_for_all();
    expect_near(stage, run, single, 0, 2e-5);
}

static void golden_curves(void) {
    golden_curve("pretrain");
    golden_curve("finetune");
}

static void small_micro_batches(void) {
    char run[VL_PATH_MAX], whole[VL_PATH_MAX];
    shared_path(run, "parts");
    shared_path(whole, "finetune");
    run_on_ranks("finetune", run, "train.micro_tokens=2");
    if (leader) check_curve(run, "finetune");
    expect_near("one sample a micro-batch", run, whole, 0, 2e-5);
}

// From a run's first checkpoint on as many ranks: the same bits.
static void continue_on_the_same(const char *stage) {
    char run[VL_PATH_MAX], again[VL_PATH_MAX], name[64];
    snprintf(name, sizeof name, "%s-again", stage);
    shared_path(run, stage);
    shared_path(again, name);
    if (leader) copy_run_at(run, golden_run(stage)->every, again);
    wait_for_all();
    run_on_ranks(stage, again, "train.seed=42");
    if (!leader) return;
    Curve whole, resumed;
    read_curve(run, &whole);
    read_curve(again, &resumed);
    assert_true(same_bits(&whole, &resumed));
    assert_true(same_weights(run, again));
}

// One rank -> these, and these -> one rank.
static void continue_on_others(void) {
    char single[VL_PATH_MAX], run[VL_PATH_MAX], up[VL_PATH_MAX], down[VL_PATH_MAX];
    shared_path(single, "finetune-1");
    shared_path(run, "finetune");
    shared_path(up, "up");
    shared_path(down, "down");
    if (leader) copy_run_at(single, 10, up);
    wait_for_all();
    run_on_ranks("finetune", up, "train.seed=42");
    if (leader) {
        copy_run_at(run, 10, down);
        assert_ok(train(alone, folder, "finetune", down));
    }
    wait_for_all();
    expect_near("1 rank -> these", up, single, 10, 1e-5);
    expect_near("these -> 1 rank", down, run, 10, 1e-5);
}

static void continue_what_others_left(void) {
    char left[VL_PATH_MAX], run[VL_PATH_MAX];
    join(left, folder, "left");
    shared_path(run, "from-left");
    if (leader) copy_run_at(left, 10, run);
    wait_for_all();
    run_on_ranks("finetune", run, "train.seed=42");
    expect_near("another number of ranks -> these", run, left, 10, 1e-5);
}

static void all(void **state) {
    (void)state;
    golden_curves();
    small_micro_batches();
    continue_on_the_same("finetune");
    continue_on_others();
}

static void leave(void **state) {
    char run[VL_PATH_MAX];
    (void)state;
    golden_curves();
    continue_on_the_same("finetune");
    join(run, folder, "left");
    run_on_ranks("finetune", run, "train.seed=42");
}

static const char *const hearing[] = {"audio_pretrain", "audio_finetune", "joint"};

static void hear(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        char run[VL_PATH_MAX];
        shared_path(run, hearing[i]);
        run_on_ranks(hearing[i], run, "train.seed=42");
        if (leader) {
            check_curve(run, hearing[i]);
            check_weights(run, hearing[i]);
        }
        continue_on_the_same(hearing[i]);
    }
}

// The curve that two ranks left, on these.
static void hear_again(void **state) {
    char run[VL_PATH_MAX], left[VL_PATH_MAX], name[64];
    (void)state;
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "ranks-2-%s", hearing[i]);
        join(left, folder, name);
        shared_path(run, hearing[i]);
        run_on_ranks(hearing[i], run, "train.seed=42");
        if (leader) check_curve(run, hearing[i]);
        expect_near(hearing[i], run, left, 0, 2e-5);
    }
}

// A mixture of experts gives the curve of one rank, also when it goes on from these.
static void experts(void **state) {
    char run[VL_PATH_MAX], single[VL_PATH_MAX], down[VL_PATH_MAX], model[VL_PATH_MAX], upon[VL_PATH_MAX + 16];
    (void)state;
    shared_path(model, "experts-model");
    shared_path(run, "experts");
    shared_path(single, "experts-1");
    shared_path(down, "experts-down");
    snprintf(upon, sizeof upon, "model.path=%s", model);
    if (leader) make_experts_model(model);
    wait_for_all();
    run_on_ranks("finetune", run, upon);
    if (leader) {
        copy_run_at(run, 10, down);
        assert_ok(train(alone, folder, "finetune", single, upon));
        assert_ok(train(alone, folder, "finetune", down, upon));
    }
    wait_for_all();
    expect_near("experts", run, single, 0, 2e-5);
    expect_near("experts, these -> 1 rank", down, run, 10, 1e-5);
}

static void go_on(void **state) {
    (void)state;
    continue_what_others_left();
}

// The steps that a curve begins with, on GPUs and, over MPI, without them.
static void on_gpus(void **state) {
    char run[VL_PATH_MAX], host[VL_PATH_MAX];
    (void)state;
    shared_path(run, "gpus");
    shared_path(host, "host");
    vl_log_configure(VL_LOG_INFO, leader ? 0 : 1);
    assert_ok(train(ranks, folder, "finetune", run, "train.steps=4"));
    assert_ok(train(ranks, folder, "finetune", host, "train.steps=4", "device=cpu"));
    wait_for_all();
    expect_near("on GPUs and without", run, host, 0, 1e-6);
}

static void curve_on_gpus(void **state) {
    char run[VL_PATH_MAX];
    (void)state;
    shared_path(run, "finetune");
    run_on_ranks("finetune", run, "train.seed=42");
    if (!leader) return;
    check_curve(run, "finetune");
    check_weights(run, "finetune");
}

int main(int argc, char **argv) {
    if (argc < 3 || vl_comm_open(&ranks, 120) != VL_OK) return 2;
    folder = argv[1];
    leader = vl_comm_rank(ranks) == 0;
    vl_log_configure(VL_LOG_WARNING, (int)vl_comm_rank(ranks));
    // A communicator of one rank is what opens outside of a launcher.
    static const char *const launcher[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "MPI_LOCALNRANKS",
                                           "VL2_MPI"};
    for (size_t i = 0; i < sizeof launcher / sizeof *launcher; i++) unsetenv(launcher[i]);
    if (vl_comm_open(&alone, 0) != VL_OK || vl_comm_size(alone) != 1) return 2;
    const struct CMUnitTest modes[] = {cmocka_unit_test(all),        cmocka_unit_test(leave),
                                       cmocka_unit_test(go_on),      cmocka_unit_test(hear),
                                       cmocka_unit_test(hear_again), cmocka_unit_test(experts),
                                       cmocka_unit_test(on_gpus),    cmocka_unit_test(curve_on_gpus)};
    cmocka_set_test_filter(argv[2]);
    int failed = cmocka_run_group_tests(modes, NULL, NULL);
    if (failed) vl_comm_abort(ranks, 1);
    vl_comm_close(alone);
    vl_comm_close(ranks);
    if (!failed) printf("rank done\n");
    return failed;
}
