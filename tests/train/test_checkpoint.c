// Checkpoints of a small registry of parameters: every bit comes back, every damage is found, and a save that fails
// leaves what was there.
#include <unistd.h>

#include "base/random.h"
#include "tests/train/runs.h"

enum { ROWS = 5, ELEMENTS = 400 };
static const int64_t extents[ROWS][3] = {{7, 5, 3}, {33, 1, 1}, {1, 1, 1}, {16, 4, 2}, {3, 11, 1}};
static const int32_t dims[ROWS] = {3, 1, 1, 3, 2};
static const char *const names[ROWS] = {"a.weight", "a.bias", "scale", "frozen.weight", "b.weight"};

static VlComm *comm;

typedef struct Setup {
    VlContext *context;
    VlParams params;
    VlOptimizer optimizer;
    VlModelSource base;
    VlProgress progress;
} Setup;

static void set_up(Setup *setup, VlDtype dtype, int rows) {
    *setup = (Setup){.base = {.path = "/models/base", .seed = 9, .hash = "0123456789abcdef0123456789abcdef"},
                     .progress = {.step = 10,
                                  .skipped = 1,
                                  .bad_samples = 2,
                                  .bad_in_a_row = 1,
                                  .global_batch = 16,
                                  .seed = 42,
                                  .steps = 30,
                                  .data_hash = 0xfedcba9876543210u}};
    assert_ok(vl_context_create(&setup->context, VL_DEVICE_CPU, 1));
    for (int i = 0; i < rows; i++) {
        VlGroup group = i == 3 ? VL_GROUP_VISION_TOWER : VL_GROUP_LLM;
        assert_ok(vl_params_add(&setup->params, NULL, names[i], group, (VlInit){VL_INIT_NORMAL, 1.0f}, true, dims[i],
                                extents[i]));
    }
    vl_params_set_trainable(&setup->params, VL_GROUP_BIT(VL_GROUP_LLM));
    assert_ok(vl_params_bind(setup->context, &setup->params, dtype));
    assert_ok(vl_optimizer_create(&setup->optimizer, setup->context, &setup->params,
                                  (VlOptimizerSettings){0.9, 0.999, 1e-8, 0, 1}));
    assert_true(setup->params.trainable_elements <= ELEMENTS);
}

static void tear_down(Setup *setup) {
    vl_optimizer_free(&setup->optimizer);
    vl_params_free(setup->context, &setup->params);
    vl_context_free(setup->context);
}

static void draw(Setup *setup, uint64_t seed) {
    VlTensor moments[] = {setup->optimizer.moment1, setup->optimizer.moment2};
    for (int kind = 0; kind < 3; kind++) {
        float values[ELEMENTS] = {0};
        VlRandom random = vl_random(seed, (uint64_t)kind);
        for (int64_t i = 0; i < setup->params.count; i++) {
            VlParam *row = setup->params.rows[i];
            if (!row->trainable) continue;
            float *of_row = values + row->offset;
            for (int64_t j = 0; j < vl_elements(row->shape); j++) of_row[j] = (float)vl_random_normal(&random);
            if (kind == 0) assert_ok(vl_params_set(setup->context, row, of_row, VL_F32));
        }
        if (kind > 0) assert_ok(vl_copy_from_host(setup->context, moments[kind - 1], values));
    }
    setup->optimizer.steps = 12;
}

static void save(Setup *setup, const char *run, int64_t step, int64_t keep) {
    setup->progress.step = step;
    assert_ok(vl_checkpoint_save(comm, run, &setup->optimizer, &setup->base, "llm", &setup->progress,
                                 "stage: finetune\n", keep));
}

static bool equal(Setup *a, Setup *b) {
    VlTensor x[] = {a->params.flat_value, a->params.flat_remainder, a->optimizer.moment1, a->optimizer.moment2};
    VlTensor y[] = {b->params.flat_value, b->params.flat_remainder, b->optimizer.moment1, b->optimizer.moment2};
    bool same = a->optimizer.steps == b->optimizer.steps;
    for (int kind = 0; kind < 4; kind++) {
        if (vl_is_empty(x[kind])) continue;  // there are no remainders in f32
        float left[ELEMENTS], right[ELEMENTS];
        assert_ok(vl_copy_to_host(a->context, left, x[kind]));
        assert_ok(vl_copy_to_host(b->context, right, y[kind]));
        same &= memcmp(left, right, (size_t)vl_bytes(x[kind])) == 0;
    }
    return same;
}

static void every_bit_comes_back(void **state) {
    for (int i = 0; i < 2; i++) {
        VlDtype dtype = i ? VL_BF16 : VL_F32;
        const char *run = scratch(state, i ? "bf16" : "f32");
        char path[VL_PATH_MAX], newest[VL_PATH_MAX];
        Setup saved, loaded;
        VlCheckpointInfo info;
        set_up(&saved, dtype, ROWS);
        set_up(&loaded, dtype, ROWS);
        draw(&saved, 1);
        draw(&loaded, 2);
        loaded.optimizer.steps = 0;
        assert_false(equal(&saved, &loaded));
        save(&saved, run, 10, 3);
        checkpoint_path(path, run, 10);
        assert_ok(vl_checkpoint_newest(run, -1, newest));
        assert_string_equal(path, newest);
        assert_int_equal(vl_checkpoint_step(newest), 10);
        assert_ok(vl_checkpoint_verify(comm, path));
        assert_ok(vl_checkpoint_load(loaded.context, path, &loaded.params, &loaded.optimizer));
        assert_true(equal(&saved, &loaded));
        assert_ok(vl_checkpoint_info(path, &info));
        assert_memory_equal(&info.progress, &saved.progress, sizeof info.progress);
        assert_string_equal(info.trainable, "llm");
        assert_string_equal(info.base, "/models/base");
        assert_string_equal(info.base_hash, saved.base.hash);
        assert_int_equal(info.seed, 9);
        tear_down(&saved);
        tear_down(&loaded);
    }
}

// Parameters alone, as the next stage takes them: into a model where they are frozen.
static void parameters_alone(void **state) {
    Setup saved, loaded;
    char path[VL_PATH_MAX];
    float left[ELEMENTS], right[ELEMENTS];
    const char *run = scratch(state, "alone");
    set_up(&saved, VL_F32, ROWS);
    draw(&saved, 1);
    save(&saved, run, 3, 1);
    checkpoint_path(path, run, 3);
    set_up(&loaded, VL_F32, ROWS);
    draw(&loaded, 2);
    assert_ok(vl_checkpoint_load(loaded.context, path, &loaded.params, NULL));
    assert_ok(vl_params_get(saved.context, saved.params.rows[4], left));
    assert_ok(vl_params_get(loaded.context, loaded.params.rows[4], right));
    assert_memory_equal(left, right, 33 * sizeof(float));
    assert_false(equal(&saved, &loaded));  // the moments are others
    tear_down(&saved);
    tear_down(&loaded);
}

static void models_that_do_not_fit(void **state) {
    Setup saved, fewer, more;
    char path[VL_PATH_MAX];
    const char *run = scratch(state, "unfit");
    set_up(&saved, VL_F32, ROWS);
    draw(&saved, 1);
    save(&saved, run, 3, 1);
    checkpoint_path(path, run, 3);
    set_up(&fewer, VL_F32, ROWS - 1);
    assert_error(vl_checkpoint_load(fewer.context, path, &fewer.params, &fewer.optimizer), VL_FORMAT,
                 "holds b.weight, which this model does not have");
    set_up(&more, VL_F32, ROWS - 1);
    vl_optimizer_free(&more.optimizer);
    vl_params_free(more.context, &more.params);
    assert_ok(
        vl_params_register(&more.params, NULL, "a.weight", VL_GROUP_LLM, ((VlInit){VL_INIT_ZEROS, 0}), true, 7, 15));
    vl_params_set_trainable(&more.params, VL_GROUP_BIT(VL_GROUP_LLM));
    assert_ok(vl_params_bind(more.context, &more.params, VL_F32));
    assert_error(vl_checkpoint_load(more.context, path, &more.params, NULL), VL_FORMAT, "a.weight is [7,5,3]");
    assert_error(vl_checkpoint_load(more.context, "/no/such", &more.params, NULL), VL_IO, "/no/such/manifest.json");
    vl_params_free(more.context, &more.params);
    vl_context_free(more.context);
    tear_down(&saved);
    tear_down(&fewer);
}

// One bit anywhere in any file.
static void damage_is_found(void **state) {
    Setup setup;
    char path[VL_PATH_MAX], file[VL_PATH_MAX], **files;
    int64_t count, tried = 0;
    VlCheckpointInfo info;
    const char *run = scratch(state, "damage");
    set_up(&setup, VL_F32, ROWS);
    draw(&setup, 1);
    save(&setup, run, 5, 1);
    checkpoint_path(path, run, 5);
    assert_ok(vl_checkpoint_verify(comm, path));
    assert_ok(vl_list_folder(path, &files, &count));
    assert_int_equal(count, 4);
    for (int64_t i = 0; i < count; i++) {
        int64_t size;
        join(file, path, files[i]);
        assert_ok(vl_file_size(file, &size));
        for (int64_t offset = 0; offset<size; offset += size> 4096 ? size / 97 : 1, tried++) {
            flip_byte(file, offset);
            bool found = vl_checkpoint_verify(comm, path) != VL_OK;
            if (strcmp(files[i], "manifest.json") == 0) found &= vl_checkpoint_info(path, &info) != VL_OK;
            if (!found) fail_msg("%s: a flipped bit at %lld goes unnoticed", file, (long long)offset);
            if (!strstr(vl_error_text(), files[i])) fail_msg("'%s' does not name %s", vl_error_text(), files[i]);
            flip_byte(file, offset);
        }
        assert_ok(vl_checkpoint_verify(comm, path));
        char *data;  // the second half missing, then all of it
        assert_ok(vl_read_file(file, 1 << 28, &data, &size));
        put_file(file, data, size / 2);
        if (vl_checkpoint_verify(comm, path) == VL_OK) fail_msg("%s cut short goes unnoticed", file);
        assert_int_equal(unlink(file), 0);
        if (vl_checkpoint_verify(comm, path) == VL_OK) fail_msg("%s is missing and nobody notices", file);
        put_file(file, data, size);
        vl_free(data);
    }
    assert_ok(vl_checkpoint_verify(comm, path));
    print_message("%lld flipped bits\n", (long long)tried);
    vl_free_names(files, count);
    tear_down(&setup);
}

static void the_oldest_are_removed(void **state) {
    Setup setup;
    char path[VL_PATH_MAX], newest[VL_PATH_MAX];
    const char *run = scratch(state, "retention");
    set_up(&setup, VL_F32, ROWS);
    assert_ok(vl_checkpoint_newest(run, -1, newest));
    assert_string_equal(newest, "");
    for (int64_t step = 1; step <= 120; step += 17) save(&setup, run, step, 3);
    join(path, run, "checkpoints");
    assert_int_equal(count_names(path), 3);
    static const int64_t kept[] = {120, 103, 86, -1};
    for (int64_t i = 0, before = -1; i < 4; i++, before = kept[i - 1]) {
        assert_ok(vl_checkpoint_newest(run, before, newest));
        assert_int_equal(newest[0] ? vl_checkpoint_step(newest) : -1, kept[i]);
    }
    save(&setup, run, 120, 3);  // once more under the same name
    assert_ok(vl_checkpoint_newest(run, -1, newest));
    assert_ok(vl_checkpoint_verify(comm, newest));
    // What was not finished is not seen, and is cleared away.
    join(path, run, "checkpoints/step-00000300.tmp");
    assert_ok(vl_make_folders(path));
    assert_ok(vl_checkpoint_newest(run, -1, newest));
    assert_int_equal(vl_checkpoint_step(newest), 120);
    assert_ok(vl_checkpoint_clean(run));
    assert_false(vl_path_exists(path));
    tear_down(&setup);
}

// The n-th allocation, opening, reading or writing fails, for every n: a clean error, and the checkpoint before stays.
static void faults_while_saving_and_loading(void **state) {
    Setup setup;
    char path[VL_PATH_MAX], newest[VL_PATH_MAX], folder[VL_PATH_MAX];
    const char *run = scratch(state, "faults");
    int64_t faults = 0;
    set_up(&setup, VL_F32, ROWS);
    draw(&setup, 1);
    save(&setup, run, 1, 2);
    checkpoint_path(path, run, 1);
    join(folder, run, "checkpoints");
    setup.progress.step = 2;
    for (VlStatus status = VL_IO; status != VL_OK; faults++) {
        vl_fault_arm(faults);
        status = vl_checkpoint_save(comm, run, &setup.optimizer, &setup.base, "llm", &setup.progress, "x: 1\n", 2);
        vl_fault_arm(-1);
        assert_ok(vl_checkpoint_newest(run, -1, newest));
        assert_ok(vl_checkpoint_verify(comm, newest));
        assert_ok(vl_checkpoint_clean(run));
        assert_int_equal(count_names(folder), strcmp(newest, path) == 0 ? 1 : 2);
    }
    assert_true(faults > 20);
    print_message("%lld faults while saving\n", (long long)faults - 1);
    faults = 0;
    for (VlStatus status = VL_IO; status != VL_OK; faults++) {
        Setup loaded;
        set_up(&loaded, VL_F32, ROWS);
        vl_fault_arm(faults);
        status = vl_checkpoint_load(loaded.context, path, &loaded.params, &loaded.optimizer);
        vl_fault_arm(-1);
        assert_true(status != VL_OK || equal(&setup, &loaded));
        tear_down(&loaded);
    }
    assert_true(faults > 10);
    print_message("%lld faults while loading\n", (long long)faults - 1);
    tear_down(&setup);
}

// ---- In a run: the newest checkpoint is damaged

static void fall_back(void **state, const char *name, const char *file) {
    char run[VL_PATH_MAX], path[VL_PATH_MAX], damaged[VL_PATH_MAX];
    Curve whole, found;
    join(run, *state, name);
    copy_tree(scratch(state, "run"), run);
    checkpoint_path(path, run, 30);
    join(damaged, path, file);
    flip_byte(damaged, 100);
    assert_error(train(comm, *state, "pretrain", run), VL_FORMAT, "checkpoint.fallback=true");
    assert_non_null(strstr(vl_error_text(), file));
    assert_ok(train(comm, *state, "pretrain", run, "checkpoint.fallback=true"));
    read_curve(scratch(state, "run"), &whole);
    read_curve(run, &found);
    assert_true(same_bits(&whole, &found));
    assert_ok(vl_checkpoint_verify(comm, path));  // written anew
    assert_true(same_weights(run, scratch(state, "run")));
}

static void runs_fall_back_when_told(void **state) {
    pack_stage(*state, "pretrain");
    assert_ok(train(comm, *state, "pretrain", scratch(state, "run")));
    fall_back(state, "damaged-weights", "rank-00000.h5");
    fall_back(state, "damaged-manifest", "manifest.json");
    fall_back(state, "damaged-configuration", "config.resolved.yaml");
}

static int begin(void **state) {
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_ERROR, 0);
    assert_ok(vl_comm_open(&comm, 0));
    return 0;
}

static int end(void **state) {
    vl_comm_close(comm);
    return remove_scratch(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_comes_back),     cmocka_unit_test(parameters_alone),
        cmocka_unit_test(models_that_do_not_fit),   cmocka_unit_test(damage_is_found),
        cmocka_unit_test(the_oldest_are_removed),   cmocka_unit_test(faults_while_saving_and_loading),
        cmocka_unit_test(runs_fall_back_when_told),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
