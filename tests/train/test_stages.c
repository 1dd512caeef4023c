// The recipe's stages one upon the other; what a stage needs and does not find; the audio tower in a file of its own;
// layer drop.
#include "base/safetensors.h"
#include "base/weights.h"
#include "tests/train/runs.h"
#include "train/convert.h"
#include "train/inventory.h"

#define AV GOLDEN "/model_av"
#define TOWER "model.audio_tower."

static VlComm *comm;

// ---- Models: the golden one with parts taken away

// The tensors of the golden model, but for those whose names begin with `gone`.
static void write_weights(const char *folder, const char *gone) {
    VlSafetensors set;
    VlTensor *tensors;
    const char **names;
    char path[VL_PATH_MAX];
    int64_t count = 0;
    assert_ok(vl_safetensors_open(&set, AV "/model.safetensors"));
    assert_ok(VL_NEW(&tensors, set.count));
    assert_ok(VL_NEW(&names, set.count));
    for (int64_t i = 0; i < set.count; i++) {
        if (*gone && strncmp(set.entries[i].name, gone, strlen(gone)) == 0) continue;
        tensors[count] = set.entries[i].tensor;
        assert_ok(vl_allocate(&tensors[count].data, vl_bytes(tensors[count]), 1));
        assert_ok(vl_safetensors_read(&set, &set.entries[i], tensors[count].data));
        names[count++] = set.entries[i].name;
    }
    join(path, folder, "model.safetensors");
    assert_ok(vl_safetensors_save(path, count, names, tensors));
    for (int64_t i = 0; i < count; i++) vl_free(tensors[i].data);
    vl_free(tensors);
    vl_free(names);
    vl_safetensors_close(&set);
}

// FOLDER/NAME; `keys` of config.json (a list with a NULL at its end) and tensors taken away; the tower's own file stays
// with `file`.
static const char *make_model(void **state, const char *name, const char *gone, const char *const *keys, bool file) {
    const char *folder = scratch(state, name);
    char path[VL_PATH_MAX];
    json_t *config;
    copy_tree(AV, folder);
    write_weights(folder, gone);
    join(path, folder, "beats_tiny.pt");
    if (!file) assert_ok(vl_remove_tree(path));
    join(path, folder, "config.json");
    assert_ok(vl_json_load(path, 1 << 20, &config));
    for (; *keys; keys++) json_object_del(config, *keys);
    assert_ok(vl_json_save(path, config, 0));
    json_decref(config);
    return folder;
}
#define without(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static const char *upon(const char *model) {
    static char words[4][VL_PATH_MAX + 16];
    static int turn;
    char *word = words[turn++ & 3];
    snprintf(word, sizeof words[0], "model.path=%s", model);
    return word;
}

// ---- A chain of all five

static const char *const chain[] = {"pretrain", "finetune", "audio_pretrain", "audio_finetune", "joint"};

static void write_chain(const char *folder) {
    for (int i = 0; i < 5; i++) {
        char path[VL_PATH_MAX], name[64], text[8192];
        VlConfig config;
        snprintf(name, sizeof name, "chain_%s.yaml", chain[i]);
        join(path, folder, name);
        snprintf(text, sizeof text,
                 "stage: %s\n"
                 "model: {path: %s}\n"
                 "data: {sources: [{annotations: %s/data/%s.json, media: %s/data, shards: %.3000s/chain-%s}], "
                 "sound_seconds: 2}\n"
                 "train: {steps: 4, global_batch: 4, dtype: f32}\n"
                 "optim: {lr: 1.0e-3}\n"
                 "checkpoint: {every: 2, keep: 100}\n"
                 "threads: 1\n",
                 golden_run(chain[i])->stage, AV, GOLDEN, chain[i], GOLDEN, folder, chain[i]);
        put_file(path, text, (int64_t)strlen(text));
        name[strlen(name) - 5] = '\0';
        assert_ok(load_config(&config, folder, name, "", (const char *const[]){NULL}));
        assert_ok(vl_pack_sources(&config));
        vl_config_free(&config);
    }
}

// Each group differs in the later model if it trained, and has the same bits if it did not.
static void check_groups(const char *before, const char *after, VlGroups trained) {
    Weights a, b;
    bool moved[VL_GROUP_COUNT] = {false};
    open_weights(&a, before);
    open_weights(&b, after);
    const VlParams *params = vl_vlm_params(a.model);
    for (int64_t i = 0; i < params->count; i++) {
        const VlParam *row = params->rows[i];
        if (row->unused) continue;
        float *x = weight_values(&a, row), *y = weight_values(&b, vl_vlm_params(b.model)->rows[i]);
        moved[row->group] |= memcmp(x, y, (size_t)vl_elements(row->shape) * sizeof *x) != 0;
        vl_free(x);
        vl_free(y);
    }
    for (int g = 0; g < VL_GROUP_COUNT; g++) {
        if (moved[g] != !!(trained & VL_GROUP_BIT(g))) fail_msg("%s: %s", after, vl_group_name((VlGroup)g));
    }
    close_weights(&a);
    close_weights(&b);
}

static void five_stages(void **state) {
    char before[VL_PATH_MAX] = AV, run[VL_PATH_MAX], exported[VL_PATH_MAX], name[64];
    VlConvertReport report;
    for (int i = 0; i < 5; i++) {
        VlGroups trained;
        snprintf(name, sizeof name, "chain_%s", chain[i]);
        join(run, *state, name);
        assert_ok(train(comm, *state, name, run, upon(before)));
        assert_ok(vl_inventory_stage(golden_run(chain[i])->stage, &trained));
        check_groups(before, run, trained);
        memcpy(before, run, sizeof before);
    }
    join(exported, *state, "exported");
    assert_ok(vl_convert_model(&(VlConvertOptions){.from = run, .to = exported, .shard_bytes = 1 << 30, .verify = true},
                               &report, NULL, NULL));
    assert_true(report.compared);
    assert_true(same_weights(run, exported));
    // What the run's data were is known to those who ask the model.
    VlModelSource source;
    assert_ok(vl_model_source_open(&source, run, 0));
    assert_int_equal(source.checkpoints, 5);
    assert_true(source.sound_seconds == 2);
    assert_string_equal(source.fbank_dtype, "f32");
}

// ---- What is missing is said before anything is loaded

static void refused(void **state, const char *stage, const char *model, VlStatus code, const char *first,
                    const char *second) {
    char run[VL_PATH_MAX], name[64];
    join(run, *state, "refused");
    snprintf(name, sizeof name, "chain_%s", stage);
    VlStatus status = train(comm, *state, name, run, upon(model), "train.steps=1");
    if (status != code || !strstr(vl_error_text(), first) || !strstr(vl_error_text(), second))
        fail_msg("%s upon %s: %d, %s", stage, model, (int)status, status ? vl_error_text() : "");
    assert_false(vl_path_exists(run));
}

static void missing_parts(void **state) {
    static const char *const hearing[] = {"audio_pretrain", "audio_finetune", "joint"};
    const char *model = make_model(state, "deaf", TOWER, without("mm_audio_tower", "mm_audio_config"), false);
    for (int i = 0; i < 3; i++) {
        refused(state, hearing[i], model, VL_INVALID, "needs an audio tower", "names none (mm_audio_tower)");
        refused(state, hearing[i], model, VL_INVALID, golden_run(hearing[i])->stage, "--from DIR --audio FILE");
    }
    model = make_model(state, "blind", "model.mm_projector.", without("mm_vision_tower"), true);
    refused(state, "joint", model, VL_INVALID, "needs a vision tower", "(mm_vision_tower)");
    model = make_model(state, "no-tower", TOWER, without(NULL), false);
    for (int i = 0; i < 3; i++) {
        refused(state, hearing[i], model, VL_FORMAT, TOWER "patch_embedding.weight", "--from DIR --audio FILE");
    }
    model = make_model(state, "one-less", TOWER "encoder.layers.1.fc2.bias", without(NULL), true);
    refused(state, "audio_pretrain", model, VL_FORMAT, TOWER "encoder.layers.1.fc2.bias is missing",
            "others are there");
    model = make_model(state, "no-connector", "model.mm_projector.", without(NULL), true);
    refused(state, "joint", model, VL_INVALID, "model.mm_projector.", "train stage pretrain before it");
}

// The projector is what audio-pretrain makes; the stages behind it need it, and find it in that run.
static void missing_projector(void **state) {
    char pretrained[VL_PATH_MAX], run[VL_PATH_MAX];
    const char *model = make_model(state, "no-projector", "model.mm_projector_a.", without(NULL), true);
    refused(state, "audio_finetune", model, VL_INVALID, "model.mm_projector_a.0.weight", "audio-pretrain before it");
    refused(state, "joint", model, VL_INVALID, "model.mm_projector_a.0.weight", "--audio-projector FILE");
    join(pretrained, *state, "projector-run");
    assert_ok(train(comm, *state, "chain_audio_pretrain", pretrained, upon(model), "train.steps=1"));
    join(run, *state, "joint-upon-projector");
    assert_ok(train(comm, *state, "chain_joint", run, upon(pretrained), "train.steps=1"));
    VlInventory inventory;
    assert_ok(vl_inventory_take(&inventory, model));
    assert_false(vl_inventory_group_is_usable(&inventory, VL_GROUP_AUDIO_PROJECTOR, ~(VlGroups)0));
    assert_true(vl_inventory_group_is_usable(&inventory, VL_GROUP_AUDIO_PROJECTOR, 0));
    vl_inventory_free(&inventory);
}

// ---- BEATs as it was published

// The tower's values in a model are those of the file.
static void check_file_values(const char *model) {
    Weights weights;
    VlWeights file;
    int64_t count = 0;
    assert_ok(vl_weights_open(&file, AV "/beats_tiny.pt"));
    open_weights(&weights, model);
    const VlParams *params = vl_vlm_params(weights.model);
    for (int64_t i = 0; i < params->count; i++) {
        const VlParam *row = params->rows[i];
        char name[512];
        if (row->group != VL_GROUP_AUDIO_TOWER) continue;
        snprintf(name, sizeof name, "model.%s", row->name + strlen(TOWER));
        const VlWeightsEntry *entry = vl_weights_find(&file, name);
        if (!entry) fail_msg("%s is not in the file", name);
        float *found = weight_values(&weights, row), *expected;
        assert_ok(VL_NEW(&expected, vl_elements(row->shape)));
        assert_ok(vl_weights_read_as(&file, entry, VL_F32, expected));
        assert_memory_equal(found, expected, (size_t)vl_elements(row->shape) * sizeof *found);
        vl_free(found);
        vl_free(expected);
        count++;
    }
    assert_int_equal(count, 52);
    close_weights(&weights);
    vl_weights_close(&file);
}

// The published file beside the model, its own numbers in it; and the same file put into a model that cannot hear.
static void published_tower(void **state) {
    char beside[VL_PATH_MAX], deaf[VL_PATH_MAX], inside[VL_PATH_MAX], path[VL_PATH_MAX], run[VL_PATH_MAX];
    const char *const keys[] = {"mm_audio_tower",   "mm_audio_config", "mm_projector_a_type",
                                "mm_hidden_size_a", "hidden_size_a",   NULL};
    VlConvertReport report;
    VlInventory inventory;
    strcpy(beside, make_model(state, "beside", TOWER, without("mm_audio_config"), true));
    check_file_values(beside);
    assert_ok(vl_inventory_take(&inventory, beside));
    assert_int_equal(inventory.issues, 0);
    assert_int_equal(inventory.stored[VL_GROUP_AUDIO_TOWER], inventory.wanted[VL_GROUP_AUDIO_TOWER]);
    vl_inventory_free(&inventory);

    strcpy(deaf, make_model(state, "seeing", TOWER, keys, false));
    join(path, deaf, "model.safetensors");
    assert_ok(vl_remove_tree(path));
    write_weights(deaf, "model.audio_tower.");
    join(inside, *state, "inside");
    VlConvertOptions options = {
        .from = deaf, .to = inside, .audio = AV "/beats_tiny.pt", .shard_bytes = 1 << 30, .verify = true};
    assert_ok(vl_convert_model(&options, &report, NULL, NULL));
    assert_true(report.written && report.compared);
    check_file_values(inside);
    assert_true(same_weights(beside, inside));

    // A folder that comes from the one with the file beside it holds the tower and its numbers.
    join(inside, *state, "carried");
    options = (VlConvertOptions){
        .from = beside, .to = inside, .format = VL_CONVERT_HF, .shard_bytes = 1 << 30, .verify = true};
    assert_ok(vl_convert_model(&options, &report, NULL, NULL));
    assert_true(same_weights(beside, inside));

    // It is part of what a run was trained upon.
    join(run, *state, "upon-file");
    assert_ok(train(comm, *state, "chain_audio_pretrain", run, upon(beside), "train.steps=1"));
    join(path, beside, "beats_tiny.pt");
    flip_byte(path, 100000);
    assert_error(train(comm, *state, "chain_audio_pretrain", run, upon(beside), "train.steps=1"), VL_INVALID,
                 "has changed since");
}

// ---- Layer drop

static void layer_drop(void **state) {
    const char *run = scratch(state, "dropped"), *again = scratch(state, "dropped-again");
    Curve whole, resumed, full;
    assert_ok(train(comm, *state, "chain_joint", run, "train.steps=12", "train.layer_drop=0.5"));
    copy_run_at(run, 4, again);
    assert_ok(train(comm, *state, "chain_joint", again, "train.steps=12", "train.layer_drop=0.5"));
    read_curve(run, &whole);
    read_curve(again, &resumed);
    assert_true(same_bits(&whole, &resumed));
    assert_true(same_weights(run, again));
    again = scratch(state, "full");
    assert_ok(train(comm, *state, "chain_joint", again, "train.steps=12", "train.layer_drop=0"));
    read_curve(again, &full);
    assert_false(same_bits(&whole, &full));
    for (int64_t i = 0; i < whole.steps; i++) assert_true(isfinite(whole.loss[i]) && whole.norm[i] > 0);
}

static int set_up(void **state) {
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_ERROR, 0);
    assert_ok(vl_comm_open(&comm, 0));
    write_chain(*state);
    return 0;
}

static int tear_down(void **state) {
    vl_comm_close(comm);
    return remove_scratch(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_stages),     cmocka_unit_test(missing_parts), cmocka_unit_test(missing_projector),
        cmocka_unit_test(published_tower), cmocka_unit_test(layer_drop),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
