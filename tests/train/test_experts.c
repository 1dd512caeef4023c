// A mixture of experts through a run and back: it trains, continues to the bit, and lies in files under the names of
// its experts.
#include "base/weights.h"
#include "tests/train/experts_model.h"
#include "train/convert.h"
#include "train/inventory.h"
#include "train/memory_plan.h"

enum { LAYERS = 3, STEPS = 12 };

static VlComm *comm;
static char model[VL_PATH_MAX], whole[VL_PATH_MAX], exported[VL_PATH_MAX];

static VlStatus run_to(void **state, const char *output, const char *steps, const char *every, const char *dtype) {
    char upon[VL_PATH_MAX + 16];
    snprintf(upon, sizeof upon, "model.path=%s", model);
    return train(comm, *state, "finetune", output, upon, steps, every, dtype);
}

static VlStatus run_whole(void **state, const char *output) {
    return run_to(state, output, "train.steps=12", "checkpoint.every=6", "train.dtype=f32");
}

// Whether the row has the same bits at two steps of the whole run.
static bool stands_still(const Weights *before, const Weights *after, int64_t row) {
    const VlParam *a = vl_vlm_params(before->model)->rows[row], *b = vl_vlm_params(after->model)->rows[row];
    float *x = weight_values(before, a), *y = weight_values(after, b);
    bool same = memcmp(x, y, (size_t)vl_elements(a->shape) * sizeof *x) == 0;
    vl_free(x);
    vl_free(y);
    return same;
}

static void experts_learn(void **state) {
    (void)state;
    Curve curve;
    Weights before, after;
    char path[VL_PATH_MAX];
    int64_t routers = 0, experts = 0;
    read_curve(whole, &curve);
    assert_int_equal(curve.steps, STEPS);
    if (!(curve.loss[STEPS - 1] < 0.95 * curve.loss[0])) fail_msg("%g after %g", curve.loss[STEPS - 1], curve.loss[0]);
    checkpoint_path(path, whole, 6);
    open_weights(&before, path);
    open_weights(&after, whole);
    const VlParams *params = vl_vlm_params(before.model);
    for (int64_t i = 0; i < params->count; i++) {
        const char *name = params->rows[i]->name;
        if (strstr(name, "block_sparse_moe.gate")) routers += !stands_still(&before, &after, i);
        if (strstr(name, "block_sparse_moe.experts")) experts += !stands_still(&before, &after, i);
    }
    assert_int_equal(routers, LAYERS);
    assert_int_equal(experts, LAYERS * EXPERTS * 3);  // of 16 samples a step, each expert takes some token
    close_weights(&before);
    close_weights(&after);
}

static void continues_to_the_bit(void **state) {
    const char *run = scratch(state, "resumed");
    Curve expected, found;
    copy_run_at(whole, 6, run);
    assert_ok(run_whole(state, run));
    read_curve(whole, &expected);
    read_curve(run, &found);
    assert_int_equal(found.steps, STEPS);
    assert_true(same_bits(&expected, &found));
    assert_true(same_weights(whole, run));
}

static void continues_to_the_bit_in_bf16(void **state) {
    const char *run = scratch(state, "bf16.resumed");
    char never[VL_PATH_MAX];
    join(never, *state, "bf16");
    assert_ok(run_to(state, never, "train.steps=4", "checkpoint.every=2", "train.dtype=bf16"));
    copy_run_at(never, 2, run);
    assert_ok(run_to(state, run, "train.steps=4", "checkpoint.every=2", "train.dtype=bf16"));
    assert_true(same_weights(never, run));
}

static void check_shape(const VlWeights *weights, const char *name, int64_t rows, int64_t columns) {
    const VlWeightsEntry *entry = vl_weights_find(weights, name);
    if (!entry) fail_msg("%s is missing", name);
    if (!vl_same_shape(entry->tensor, vl_tensor(NULL, VL_F32, rows, columns)))
        fail_msg("%s is %s", name, vl_describe(entry->tensor));
}

static VlStatus convert(const char *from, const char *to) {
    VlConvertReport report;
    VlConvertOptions options = {.from = from, .to = to, .shard_bytes = 1 << 16, .verify = true};
    return vl_convert_model(&options, &report, NULL, NULL);
}

static void experts_lie_in_files_by_their_names(void **state) {
    char checkpoint[VL_PATH_MAX], back[VL_PATH_MAX];
    VlWeights weights;
    VlInventory inventory;
    join(checkpoint, *state, "checkpoint");
    join(back, *state, "back");
    assert_ok(vl_weights_open(&weights, exported));
    assert_true(weights.files > 1);
    check_shape(&weights, "model.layers.0.block_sparse_moe.gate.weight", EXPERTS, 48);
    check_shape(&weights, "model.layers.2.block_sparse_moe.experts.0.w1.weight", 24, 48);
    check_shape(&weights, "model.layers.1.block_sparse_moe.experts.3.w3.weight", 24, 48);
    check_shape(&weights, "model.layers.1.block_sparse_moe.experts.3.w2.weight", 48, 24);
    vl_weights_close(&weights);
    assert_true(same_weights(whole, exported));
    assert_ok(convert(exported, checkpoint));
    assert_true(same_weights(whole, checkpoint));
    assert_ok(convert(checkpoint, back));
    assert_true(same_weights(whole, back));
    assert_ok(vl_inventory_take(&inventory, exported));
    assert_int_equal(inventory.issues, 0);
    assert_int_equal(inventory.wanted[VL_GROUP_LLM], LAYERS * (6 + 1 + 3 * EXPERTS) + 3);
    assert_int_equal(inventory.stored[VL_GROUP_LLM], inventory.wanted[VL_GROUP_LLM]);
    vl_inventory_free(&inventory);
}

// What is found where the configuration names another number of experts than the files hold.
static void expect_other_number(const char *folder, int experts, VlIssueKind kind, const char *name) {
    char path[VL_PATH_MAX];
    json_t *config;
    VlInventory inventory;
    int64_t routers = 0, others = 0;
    bool named = false;
    join(path, folder, "config.json");
    assert_ok(vl_json_load(path, 1 << 20, &config));
    json_object_set_new(config, "num_local_experts", json_integer(experts));
    assert_ok(vl_json_save(path, config, 0));
    json_decref(config);
    assert_ok(vl_inventory_take(&inventory, folder));
    for (int64_t i = 0; i < inventory.issues; i++) {
        const VlIssue *issue = &inventory.issue[i];
        routers += issue->kind == VL_ISSUE_SHAPE && strstr(issue->name, ".gate.weight") != NULL;
        others += issue->kind == kind;
        named = named || strcmp(issue->name, name) == 0;
    }
    assert_int_equal(routers, LAYERS);
    assert_int_equal(others, LAYERS * 3);
    assert_int_equal(inventory.issues, routers + others);
    if (!named) fail_msg("%s is not among the issues", name);
    vl_inventory_free(&inventory);
}

static void another_number_of_experts_is_noticed(void **state) {
    const char *folder = scratch(state, "other");
    char upon[VL_PATH_MAX + 16];
    copy_tree(exported, folder);
    expect_other_number(folder, EXPERTS + 1, VL_ISSUE_MISSING, "model.layers.1.block_sparse_moe.experts.4.w2.weight");
    expect_other_number(folder, EXPERTS - 1, VL_ISSUE_LEFT_OVER, "model.layers.0.block_sparse_moe.experts.3.w1.weight");
    snprintf(upon, sizeof upon, "model.path=%s", folder);
    assert_error(train(comm, *state, "finetune", scratch(state, "none"), upon), VL_FORMAT, "block_sparse_moe");
}

// Mixtral 8x7B: 46.7 billion parameters of the language model, of which a token is multiplied with 12.9 less its
// embedding.
static void the_large_one_is_planned(void **state) {
    (void)state;
    const int64_t attention = 4096 * (4096 + 1024 + 1024 + 4096), router = 8 * 4096, expert = 3LL * 4096 * 14336;
    const int64_t rest = 2 * 32000 * 4096 + 4096, tokens = 2048;
    VlModelConfig config;
    VlMemoryPlan plan;
    VlPartFlops flops;
    VlPlanOptions options = {.trainable = VL_GROUP_BIT(VL_GROUP_LLM),
                             .dtype = VL_BF16,
                             .micro_tokens = tokens,
                             .max_tokens = tokens,
                             .frames = 8,
                             .threads = 1,
                             .backward = true,
                             .device = VL_DEVICE_CUDA};
    assert_ok(vl_model_config_load(&config, VL_SOURCE_DIR "/tests/gpu/models/8x7b"));
    assert_ok(vl_memory_plan(&config, &options, &plan));
    assert_int_equal(plan.trainable_parameters, 32 * (attention + router + 8 * expert + 2 * 4096) + rest);
    assert_int_equal(plan.trainable_bytes, 2 * plan.trainable_parameters);
    VlSampleShape shape = {.modal = VL_MODAL_TEXT, .tokens = tokens};
    assert_ok(vl_plan_sample_flops(&config, &options, shape, &flops));
    double products = 2.0 * (double)tokens * (32.0 * (double)(attention + router + 2 * expert) + 32000.0 * 4096);
    double scores = 2.0 * (double)tokens * (double)(tokens + 1) * 4096 * 32;
    double forward = (double)flops.of[VL_GROUP_LLM][VL_PASS_FORWARD];
    if (!(fabs(forward / (products + scores) - 1) < 1e-3)) fail_msg("%g, not %g", forward, products + scores);
}

static int set_up(void **state) {
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_WARNING, 0);
    assert_ok(vl_comm_open(&comm, 0));
    pack_stage(*state, "finetune");
    join(model, *state, "model");
    join(whole, *state, "whole");
    join(exported, *state, "exported");
    make_experts_model(model);
    assert_ok(run_whole(state, whole));
    assert_ok(convert(whole, exported));
    return 0;
}

static int tear_down(void **state) {
    vl_comm_close(comm);
    return remove_scratch(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_learn),
        cmocka_unit_test(continues_to_the_bit),
        cmocka_unit_test(continues_to_the_bit_in_bf16),
        cmocka_unit_test(experts_lie_in_files_by_their_names),
        cmocka_unit_test(another_number_of_experts_is_noticed),
        cmocka_unit_test(the_large_one_is_planned),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
