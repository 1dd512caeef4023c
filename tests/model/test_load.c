// Loading a model folder: what is read, what may be missing, what is an error.
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"
#include "model/load.h"
#include "model/vlm.h"
#include "tests/model/vision_parts.h"

#define TOWER "model.vision_tower.vision_tower."

// A folder with the golden case's configurations, into which the tests write weights.
typedef struct Folder {
    char path[64];
    VlSafetensors golden;
} Folder;

static void copy_file(const Folder *folder, const char *name) {
    char *data, from[VL_PATH_MAX], to[VL_PATH_MAX];
    int64_t size;
    snprintf(from, sizeof from, "%s/%s", golden_path("mistral_clip_stc", "model"), name);
    snprintf(to, sizeof to, "%s/%s", folder->path, name);
    assert_ok(vl_read_file(from, 1 << 20, &data, &size));
    assert_ok(vl_write_file(to, data, size));
    vl_free(data);
}

static int open_folder(void **state) {
    static Folder folder;
    char tower[VL_PATH_MAX];
    strcpy(folder.path, "/tmp/vl_load_XXXXXX");
    if (!mkdtemp(folder.path)) return -1;
    snprintf(tower, sizeof tower, "%s/clip-vit-tiny-patch14", folder.path);
    assert_ok(vl_make_folders(tower));
    copy_file(&folder, "config.json");
    copy_file(&folder, "clip-vit-tiny-patch14/config.json");
    assert_ok(vl_safetensors_open(&folder.golden, golden_path("mistral_clip_stc", "model")));
    *state = &folder;
    return 0;
}

static int close_folder(void **state) {
    Folder *folder = *state;
    vl_safetensors_close(&folder->golden);
    return vl_remove_tree(folder->path) == VL_OK ? 0 : -1;
}

// Which tensors a file gets, and under which name; NULL: not this one.
typedef const char *(*Rename)(const char *name);

static const char *keep_all(const char *name) { return name; }
static const char *keep_none(const char *name) { return name ? NULL : name; }
static const char *without_connector(const char *name) { return strstr(name, "mm_projector") ? NULL : name; }
static const char *without_tower(const char *name) { return strstr(name, "vision_tower") ? NULL : name; }
static const char *without_llm(const char *name) {
    return strstr(name, "vision_tower") || strstr(name, "mm_projector") ? name : NULL;
}
static const char *without_one(const char *name) { return strcmp(name, "model.norm.weight") == 0 ? NULL : name; }
static const char *without_one_block(const char *name) {
    return strcmp(name, "model.mm_projector.s2.b3.se.fc1.bias") == 0 ? NULL : name;
}
static const char *without_unused(const char *name) {
    return strstr(name, "encoder.layers.2.") || strstr(name, "post_layernorm") ? NULL : name;
}
static const char *tower_alone(const char *name) {
    return strncmp(name, TOWER, strlen(TOWER)) == 0 ? name + strlen(TOWER) : NULL;
}
static const char *misnamed(const char *name) {
    return strcmp(name, "model.norm.weight") == 0 ? "model.norm.wait" : name;
}

// One more tensor for a file.
typedef struct Extra {
    const char *name;
    VlTensor tensor;
} Extra;

static void write_weights(const Folder *folder, const char *file, Rename rename_tensor, const Extra *extra) {
    const VlSafetensors *golden = &folder->golden;
    const char *names[512];
    VlTensor tensors[512];
    float *data[512];
    int64_t count = 0;
    for (int64_t i = 0; i < golden->count; i++) {
        const char *name = rename_tensor(golden->entries[i].name);
        if (!name || (extra && strcmp(name, extra->name) == 0)) continue;
        data[count] = read_tensor(golden, golden->entries[i].name, &tensors[count]);
        tensors[count].data = data[count];
        names[count++] = name;
    }
    int64_t owned = count;
    if (extra) names[count] = extra->name, tensors[count++] = extra->tensor;
    char path[VL_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder->path, file);
    assert_ok(vl_safetensors_save(path, count, names, tensors));
    for (int64_t i = 0; i < owned; i++) vl_free(data[i]);
}

typedef struct Loaded {
    VlContext *context;
    VlVlm *model;
    VlLoadReport report;
} Loaded;

static void close_loaded(Loaded *loaded) {
    vl_vlm_free(loaded->model);
    vl_context_free(loaded->context);
}

static VlStatus load_path(Loaded *loaded, const char *path, VlDtype dtype, bool strict) {
    VlModelConfig config;
    *loaded = (Loaded){0};
    VL_TRY(vl_model_config_load(&config, path));
    VL_TRY(vl_context_create(&loaded->context, VL_DEVICE_CPU, 1));
    VL_TRY(vl_vlm_create(&loaded->model, loaded->context, &config, VL_GROUP_BIT(VL_GROUP_LLM)));
    VL_TRY(vl_params_bind(loaded->context, vl_vlm_params(loaded->model), dtype));
    VL_TRY(vl_model_load(loaded->context, vl_vlm_params(loaded->model), &config, 5, strict, &loaded->report));
    return VL_OK;
}

static VlStatus load(Loaded *loaded, const Folder *folder, bool strict) {
    VL_TRY(load_path(loaded, folder->path, VL_F32, strict));
    return VL_OK;
}

// Every parameter holds the file's numbers; those of `group` may be anything.
static void check_values(const Loaded *loaded, const VlSafetensors *golden, int group, bool round_frozen) {
    const VlParams *params = vl_vlm_params(loaded->model);
    for (int64_t i = 0; i < params->count; i++) {
        VlTensor shape;
        if ((int)params->rows[i]->group == group) continue;
        float *wanted = read_tensor(golden, params->rows[i]->name, &shape), *found;
        int64_t count = vl_elements(shape);
        assert_ok(VL_NEW(&found, count));
        assert_ok(vl_params_get(loaded->context, params->rows[i], found));
        for (int64_t k = 0; k < count; k++) {
            float value = wanted[k];
            if (round_frozen && !params->rows[i]->trainable) value = vl_f32_from_bf16(vl_bf16_from_f32(value));
            if (found[k] != value) fail_msg("%s, element %d", params->rows[i]->name, (int)k);
        }
        vl_free(wanted);
        vl_free(found);
    }
}

static void golden_cases(void **state) {
    (void)state;
    static const char *const names[] = {"mistral_clip_stc", "mistral_clip_image", "mistral_text_only", "conn_linear"};
    for (int i = 0; i < 8; i++) {
        Loaded loaded;
        VlSafetensors golden;
        const char *path = golden_path(names[i / 2], "model");
        assert_ok(load_path(&loaded, path, i % 2 ? VL_BF16 : VL_F32, true));
        assert_ok(vl_safetensors_open(&golden, path));
        assert_int_equal(loaded.report.loaded, golden.count);
        assert_int_equal(loaded.report.loaded, vl_vlm_params(loaded.model)->count);
        assert_int_equal(loaded.report.skipped, 0);
        for (int group = 0; group < VL_GROUP_COUNT; group++) assert_int_equal(loaded.report.initialised[group], 0);
        check_values(&loaded, &golden, -1, i % 2);
        vl_safetensors_close(&golden);
        close_loaded(&loaded);
    }
}

static void missing_connector(void **state) {
    const Folder *folder = *state;
    Loaded loaded;
    write_weights(folder, "model.safetensors", without_connector, NULL);
    assert_ok(load(&loaded, folder, true));
    assert_int_equal(loaded.report.initialised[VL_GROUP_CONNECTOR], 113);
    assert_int_equal(loaded.report.initialised[VL_GROUP_LLM], 0);
    check_values(&loaded, &folder->golden, VL_GROUP_CONNECTOR, false);
    float bias[48], sum = 0;
    assert_ok(vl_params_get(loaded.context,
                            vl_params_find(vl_vlm_params(loaded.model), "model.mm_projector.readout.0.bias"), bias));
    for (int i = 0; i < 48; i++) sum += fabsf(bias[i]);
    if (!(sum > 1 && sum < 48 / sqrtf(48))) fail_msg("the connector's bias has a sum of %g", sum);
    close_loaded(&loaded);
}

static void tower_in_its_own_folder(void **state) {
    const Folder *folder = *state;
    Loaded loaded;
    float none[] = {0};
    write_weights(folder, "model.safetensors", without_tower, NULL);
    assert_error(load(&loaded, folder, true), VL_FORMAT, "the vision tower's weights");
    close_loaded(&loaded);
    Extra text = {"text_model.final_layer_norm.bias", vl_tensor(none, VL_F32, 1)};  // of a whole CLIP
    write_weights(folder, "clip-vit-tiny-patch14/model.safetensors", tower_alone, &text);
    assert_ok(load(&loaded, folder, true));
    check_values(&loaded, &folder->golden, -1, false);
    close_loaded(&loaded);
    Extra strange = {"vision_model.strange", vl_tensor(none, VL_F32, 1)};
    write_weights(folder, "clip-vit-tiny-patch14/model.safetensors", tower_alone, &strange);
    assert_error(load(&loaded, folder, true), VL_FORMAT, "vision_model.strange belongs to no part");
    close_loaded(&loaded);
    write_weights(folder, "model.safetensors", keep_all, NULL);  // the tower's folder is not looked at then
    assert_ok(load(&loaded, folder, true));
    close_loaded(&loaded);
}

static void missing_parts(void **state) {
    const Folder *folder = *state;
    Loaded loaded;
    write_weights(folder, "model.safetensors", without_unused, NULL);
    assert_ok(load(&loaded, folder, true));
    assert_int_equal(loaded.report.initialised[VL_GROUP_VISION_TOWER], 0);
    close_loaded(&loaded);
    write_weights(folder, "model.safetensors", without_one_block, NULL);
    assert_error(load(&loaded, folder, true), VL_FORMAT, "model.mm_projector.s2.b3.se.fc1.bias is missing");
    close_loaded(&loaded);
    write_weights(folder, "model.safetensors", without_llm, NULL);
    assert_error(load(&loaded, folder, true), VL_FORMAT, "the language model's weights");
    close_loaded(&loaded);
    write_weights(folder, "model.safetensors", without_one, NULL);
    assert_error(load(&loaded, folder, true), VL_FORMAT, "model.norm.weight is missing");
    close_loaded(&loaded);
    assert_ok(load(&loaded, folder, false));
    assert_int_equal(loaded.report.initialised[VL_GROUP_LLM], 1);
    float norm[48];
    assert_ok(vl_params_get(loaded.context, vl_params_find(vl_vlm_params(loaded.model), "model.norm.weight"), norm));
    assert_true(norm[0] == 1 && norm[47] == 1);
    close_loaded(&loaded);
}

static void from_scratch(void **state) {
    const Folder *folder = *state;
    Loaded first, second;
    assert_ok(load(&first, folder, true));
    assert_ok(load(&second, folder, true));
    assert_int_equal(first.report.loaded, 0);
    assert_int_equal(first.report.initialised[VL_GROUP_CONNECTOR], 113);
    assert_int_equal(first.report.initialised[VL_GROUP_LLM], 21);
    float a[48 * 160], b[48 * 160];
    assert_ok(vl_params_get(first.context, vl_params_find(vl_vlm_params(first.model), "lm_head.weight"), a));
    assert_ok(vl_params_get(second.context, vl_params_find(vl_vlm_params(second.model), "lm_head.weight"), b));
    assert_memory_equal(a, b, sizeof a);
    assert_true(dot(a, a, 48 * 160) > 1);
    close_loaded(&first);
    close_loaded(&second);
    char path[VL_PATH_MAX];
    snprintf(path, sizeof path, "%s/pytorch_model.bin", folder->path);
    assert_ok(vl_write_file(path, "x", 1));
    assert_error(load(&first, folder, true), VL_FORMAT, "pytorch_model.bin");
    close_loaded(&first);
}

static void left_over(void **state) {
    const Folder *folder = *state;
    Loaded loaded;
    float values[4] = {0};
    write_weights(folder, "model.safetensors", misnamed, NULL);
    assert_error(load(&loaded, folder, true), VL_FORMAT, "model.norm.wait belongs to no part");
    close_loaded(&loaded);
    Extra known = {"model.layers.0.self_attn.rotary_emb.inv_freq", vl_tensor(values, VL_F32, 4)};
    write_weights(folder, "model.safetensors", keep_all, &known);
    assert_ok(load(&loaded, folder, true));
    assert_int_equal(loaded.report.skipped, 1);
    close_loaded(&loaded);
    Extra shape = {"model.norm.weight", vl_tensor(values, VL_F32, 2, 2)};
    write_weights(folder, "model.safetensors", keep_all, &shape);
    assert_error(load(&loaded, folder, true), VL_FORMAT,
                 "model.norm.weight is [2,2] f32 in the file, the configuration asks "
                 "for [48] f32");
    close_loaded(&loaded);
    int64_t integers[48] = {0};
    Extra type = {"model.norm.weight", vl_tensor(integers, VL_I64, 48)};
    write_weights(folder, "model.safetensors", keep_all, &type);
    assert_error(load(&loaded, folder, true), VL_UNSUPPORTED, "model.norm.weight is stored as i64");
    close_loaded(&loaded);
    Extra alone = {"strange", vl_tensor(values, VL_F32, 4)};
    write_weights(folder, "model.safetensors", keep_none, &alone);
    assert_error(load(&loaded, folder, false), VL_FORMAT, "tensor strange belongs to no part");
    close_loaded(&loaded);
}

// lm_head.weight of a tied model is no parameter; some checkpoints hold it all the same.
static void tied(void **state) {
    const Folder *folder = *state;
    Loaded loaded;
    json_t *config;
    char path[VL_PATH_MAX];
    snprintf(path, sizeof path, "%s/config.json", folder->path);
    assert_ok(vl_json_load(path, 1 << 20, &config));
    json_object_set_new(config, "tie_word_embeddings", json_true());
    assert_ok(vl_json_save(path, config, 0));
    json_decref(config);
    write_weights(folder, "model.safetensors", keep_all, NULL);
    assert_ok(load(&loaded, folder, true));
    assert_null(vl_params_find(vl_vlm_params(loaded.model), "lm_head.weight"));
    assert_int_equal(loaded.report.skipped, 1);
    close_loaded(&loaded);
}

// Whichever allocation or read fails, the load ends in an error.
static void faults(void **state) {
    (void)state;
    Loaded loaded;
    int failures = 0;
    VlStatus status = VL_INTERNAL;
    for (int64_t n = 0; status != VL_OK; n += 7) {
        vl_fault_arm(n);
        status = load_path(&loaded, golden_path("mistral_text_only", "model"), VL_F32, true);
        vl_fault_arm(-1);
        if (status != VL_OK && !*vl_error_text()) fail_msg("failure %d has no text", (int)n);
        failures += status != VL_OK;
        close_loaded(&loaded);
    }
    assert_true(failures > 20);
}

int main(void) {
    vl_log_configure(VL_LOG_WARNING, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_cases),
        cmocka_unit_test(faults),
        cmocka_unit_test_setup_teardown(missing_connector, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(tower_in_its_own_folder, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(missing_parts, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(from_scratch, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(left_over, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(tied, open_folder, close_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
