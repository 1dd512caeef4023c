// What a folder holds of the model that its configuration describes: complete, parts missing, other extents, tensors
// left over; for folders, runs and checkpoints; hashes of tensors.
#include <unistd.h>

#include "tests/train/runs.h"
#include "train/inventory.h"

#define CASE VL_SOURCE_DIR "/tests/golden/model/qwen2_siglip_v35/model"

// A folder with the golden case's weights and tower, and its config.json with one key changed.
static void make_folder(const char *folder, const char *key, const char *value) {
    static const char *const links[] = {"model.safetensors", "siglip-tiny-patch14"};
    char path[VL_PATH_MAX], target[VL_PATH_MAX];
    json_t *config;
    assert_ok(vl_make_folders(folder));
    for (int i = 0; i < 2; i++) {
        join(path, folder, links[i]);
        join(target, CASE, links[i]);
        unlink(path);
        assert_int_equal(symlink(target, path), 0);
    }
    assert_ok(vl_json_load(CASE "/config.json", 1 << 20, &config));
    json_object_set_new(config, key, json_loads(value, JSON_DECODE_ANY, NULL));
    join(path, folder, "config.json");
    assert_ok(vl_json_save(path, config, 0));
    json_decref(config);
}

static int64_t count_kind(const VlInventory *inventory, VlIssueKind kind, const char *part) {
    int64_t count = 0;
    for (int64_t i = 0; i < inventory->issues; i++) {
        count += inventory->issue[i].kind == kind && strstr(inventory->issue[i].name, part) != NULL;
    }
    return count;
}

static void complete(void **state) {
    (void)state;
    VlInventory inventory;
    assert_ok(vl_inventory_take(&inventory, CASE));
    assert_int_equal(inventory.issues, 0);
    assert_int_equal(inventory.wanted[VL_GROUP_LLM], 2 * 12 + 3);
    assert_int_equal(inventory.wanted[VL_GROUP_VISION_TOWER], 3 + 2 * 16);
    for (int g = 0; g < VL_GROUP_COUNT; g++) {
        assert_int_equal(inventory.stored[g], inventory.wanted[g]);
        assert_true(vl_inventory_group_is_usable(&inventory, (VlGroup)g, 0));
    }
    vl_inventory_free(&inventory);
}

static void other_configuration(void **state) {
    const char *folder = *state;
    static const struct {
        const char *key, *value, *part;
        int64_t missing, other, left_over;
        bool llm, connector;
    } cases[] = {
        {"num_hidden_layers", "3", "model.layers.2.", 12, 0, 0, false, true},
        {"num_hidden_layers", "1", "model.layers.1.", 0, 0, 12, true, true},
        {"intermediate_size", "45", ".mlp.", 0, 6, 0, false, true},
        {"mm_projector_type", "\"mlp2x_gelu\"", "mm_projector.readout", 0, 0, 4, true, true},
        {"mm_projector_type", "\"mlp2x_gelu\"", "model.mm_projector.0", 2, 0, 0, true, true},
        {"tie_word_embeddings", "true", "lm_head", 0, 0, 0, true, true},
        {"model_type", "\"videollama2_mistral\"", "_proj.bias", 0, 0, 6, true, true},
        {"vocab_size", "161", ".weight", 0, 2, 0, false, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        VlInventory inventory;
        make_folder(folder, cases[i].key, cases[i].value);
        assert_ok(vl_inventory_take(&inventory, folder));
        assert_int_equal(count_kind(&inventory, VL_ISSUE_MISSING, cases[i].part), cases[i].missing);
        assert_int_equal(count_kind(&inventory, VL_ISSUE_SHAPE, cases[i].part), cases[i].other);
        assert_int_equal(count_kind(&inventory, VL_ISSUE_LEFT_OVER, cases[i].part), cases[i].left_over);
        assert_int_equal(vl_inventory_group_is_usable(&inventory, VL_GROUP_LLM, 0), cases[i].llm);
        assert_int_equal(vl_inventory_group_is_usable(&inventory, VL_GROUP_CONNECTOR, 0), cases[i].connector);
        assert_int_equal(inventory.skipped, strcmp(cases[i].key, "tie_word_embeddings") == 0);
        vl_inventory_free(&inventory);
    }
}

// A folder without weights is one to train from scratch; a tower without weights beside a language model is not.
static void nothing_stored(void **state) {
    const char *folder = *state;
    char path[VL_PATH_MAX];
    VlInventory inventory;
    make_folder(folder, "num_frames", "4");
    join(path, folder, "model.safetensors");
    unlink(path);
    assert_ok(vl_inventory_take(&inventory, folder));
    assert_int_equal(inventory.stored[VL_GROUP_LLM], 0);
    assert_int_equal(inventory.elements[VL_GROUP_LLM] > 0, 1);
    for (int g = 0; g < VL_GROUP_COUNT; g++) assert_true(vl_inventory_group_is_usable(&inventory, (VlGroup)g, 0));
    inventory.stored[VL_GROUP_LLM] = inventory.wanted[VL_GROUP_LLM];
    assert_false(vl_inventory_group_is_usable(&inventory, VL_GROUP_VISION_TOWER, 0));
    assert_true(vl_inventory_group_is_usable(&inventory, VL_GROUP_CONNECTOR, 0));
    vl_inventory_free(&inventory);
}

static void stages(void **state) {
    (void)state;
    VlGroups trained;
    assert_ok(vl_inventory_stage("pretrain", &trained));
    assert_int_equal(trained, VL_GROUP_BIT(VL_GROUP_CONNECTOR));
    assert_ok(vl_inventory_stage("finetune", &trained));
    assert_int_equal(trained, VL_GROUP_BIT(VL_GROUP_CONNECTOR) | VL_GROUP_BIT(VL_GROUP_LLM));
    assert_error(vl_inventory_stage("fine", &trained), VL_USAGE, "pretrain finetune");
}

// A run that trained the connector alone stands upon the folder that it was trained from.
static void run(void **state) {
    const char *folder = *state;
    char output[VL_PATH_MAX];
    VlComm *comm;
    VlInventory inventory;
    join(output, folder, "run");
    pack_stage(folder, "pretrain");
    assert_ok(vl_comm_open(&comm, 0));
    assert_ok(train(comm, folder, "pretrain", output, "train.steps=1"));
    vl_comm_close(comm);
    assert_ok(vl_inventory_take(&inventory, output));
    assert_int_equal(inventory.issues, 0);
    for (int g = 0; g < VL_GROUP_COUNT; g++) assert_int_equal(inventory.stored[g], inventory.wanted[g]);
    assert_true(inventory.wanted[VL_GROUP_CONNECTOR] > 100);
    vl_inventory_free(&inventory);
}

// The hash is that of the pieces' hashes, whatever the tensor's length.
static void hashes(void **state) {
    const char *folder = *state;
    enum { MOST = 700001 };
    static const int64_t counts[] = {1, 262144, 262145, MOST};
    char path[VL_PATH_MAX], hex[VL_HASH_TEXT], expected[VL_HASH_TEXT];
    float *values;
    VlHash pieces[3];
    assert_ok(VL_NEW(&values, MOST));
    for (int64_t i = 0; i < MOST; i++) values[i] = (float)i * 0.5F;
    join(path, folder, "x.safetensors");
    for (int i = 0; i < 4; i++) {
        VlWeights weights;
        VlTensor tensor = vl_tensor(values, VL_F32, counts[i]);
        const char *name = "x";
        assert_ok(vl_safetensors_save(path, 1, &name, &tensor));
        assert_ok(vl_weights_open(&weights, path));
        assert_ok(vl_inventory_hash(&weights, &weights.entries[0], hex));
        vl_hash_pieces_of(values, 4 * counts[i], pieces);
        vl_hash_tensor(pieces, vl_hash_pieces(4 * counts[i]), expected);
        assert_string_equal(hex, expected);
        vl_weights_close(&weights);
    }
    vl_free(values);
}

int main(void) {
    vl_log_configure(VL_LOG_WARNING, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(complete),
        cmocka_unit_test(stages),
        cmocka_unit_test_setup_teardown(other_configuration, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(nothing_stored, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(run, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(hashes, make_scratch, remove_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
