// Whole runs on the device that VL_TEST_DEVICE names: in f32 within the tolerances of the golden curves and weights, in
// bf16 within the band of the CPU's bf16 runs; and the same bits in two runs.
//
//   gpu_curves [STAGE...]       these stages, or all; VL_TEST_ROOT is the folder in which tests/golden lies, and
//                               with VL_TEST_SHARDS the data need no packing, for which a bundle lacks the means
//   gpu_curves --pack FOLDER    packs what VL_TEST_SHARDS then names
#include <unistd.h>

#include "tests/train/golden_curve.h"

static VlComm *comm;
static const char *const all_stages[] = {"pretrain", "finetune", "audio_pretrain", "audio_finetune", "joint"};
static const char *const *stages = all_stages;
static int stage_count = sizeof all_stages / sizeof *all_stages;

static void golden_losses(const char *stage, Curve *curve) {
    json_t *root = load_expected(stage), *steps = json_object_get(root, "steps");
    *curve = (Curve){0};
    for (size_t i = 0; i < json_array_size(steps); i++) add_step(curve, json_array_get(steps, i));
    json_decref(root);
}

// Two runs in `dtype` ("f32"), named DTYPE-STAGE and DTYPE-STAGE-again, with the same bits.
static void train_twice(void **state, const char *stage, const char *dtype, char run[VL_PATH_MAX]) {
    char name[64], again[VL_PATH_MAX], override[32];
    Curve one, two;
    snprintf(override, sizeof override, "train.dtype=%s", dtype);
    snprintf(name, sizeof name, "%s-%s", dtype, stage);
    join(run, *state, name);
    snprintf(again, sizeof again, "%.3000s-again", run);
    assert_ok(train(comm, *state, stage, run, override));
    assert_ok(train(comm, *state, stage, again, override));
    read_curve(run, &one);
    read_curve(again, &two);
    assert_true(same_bits(&one, &two));
    assert_true(same_weights(run, again));
}

static void f32_is_golden(void **state) {
    for (int i = 0; i < stage_count; i++) {
        char run[VL_PATH_MAX];
        train_twice(state, stages[i], "f32", run);
        check_curve(run, stages[i]);
        check_weights(run, stages[i]);
    }
}

// The losses of a run on the CPU at this learning rate.
static void curve_on_cpu(void **state, const char *stage, const char *dtype, const char *rate, Curve *curve) {
    char run[VL_PATH_MAX], type[32], lr[32];
    snprintf(type, sizeof type, "train.dtype=%s", dtype);
    snprintf(lr, sizeof lr, "optim.lr=%s", rate);
    join(run, *state, "cpu");
    assert_ok(vl_remove_tree(run));
    assert_ok(train(comm, *state, stage, run, type, lr, "device=cpu", "threads=0"));
    read_curve(run, curve);
}

// How far bf16 leads from f32 is one draw of many: what is rounded up in one run is rounded down in another that
// differs a little. So the band is that of three runs, at learning rates 2 % apart, each against f32 at its own.
static double band_of_cpu(void **state, const char *stage) {
    static const char *const rates[] = {"0.98e-3", "1.0e-3", "1.02e-3"};
    double most = 0;
    for (int i = 0; i < 3; i++) {
        Curve single, half;
        curve_on_cpu(state, stage, "f32", rates[i], &single);
        curve_on_cpu(state, stage, "bf16", rates[i], &half);
        double far = loss_distance(&half, &single, 0, single.steps);
        print_message("%s in bf16 on the CPU, rate %s: loss within %.1e\n", stage, rates[i], far);
        most = larger(most, far);
    }
    return most;
}

static void bf16_is_within_the_band(void **state) {
    for (int i = 0; i < stage_count; i++) {
        char run[VL_PATH_MAX];
        Curve golden, found;
        train_twice(state, stages[i], "bf16", run);
        golden_losses(stages[i], &golden);
        read_curve(run, &found);
        double far = loss_distance(&found, &golden, 0, golden.steps), most = band_of_cpu(state, stages[i]);
        print_message("%s in bf16: loss within %.1e\n", stages[i], far);
        if (!(far <= 2 * most)) fail_msg("%s in bf16: loss is off by %.2g, the CPU's by %.2g", stages[i], far, most);
    }
}

static int set_up(void **state) {
    const char *shards = getenv("VL_TEST_SHARDS");
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_WARNING, 0);
    assert_ok(vl_comm_open(&comm, 0));
    if (shards) copy_tree(shards, *state);
    for (int i = 0; i < stage_count; i++) {
        if (shards) {
            write_config(*state, stages[i]);
        } else {
            pack_stage(*state, stages[i]);
        }
    }
    return 0;
}

static int tear_down(void **state) {
    vl_comm_close(comm);
    return remove_scratch(state);
}

static const char *packed;
static void pack_all(void **state) {
    (void)state;
    assert_ok(vl_make_folders(packed));
    for (int i = 0; i < stage_count; i++) pack_stage(packed, stages[i]);
}

int main(int argc, char **argv) {
    const char *root = getenv("VL_TEST_ROOT");
    if (root && chdir(root) != 0) {
        perror(root);
        return 1;
    }
    if (argc == 3 && strcmp(argv[1], "--pack") == 0) {
        const struct CMUnitTest packing[] = {cmocka_unit_test(pack_all)};
        packed = argv[2];
        return cmocka_run_group_tests(packing, NULL, NULL);
    }
    if (argc > 1) {
        stages = (const char *const *)argv + 1;
        stage_count = argc - 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_is_golden),
        cmocka_unit_test(bf16_is_within_the_band),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
