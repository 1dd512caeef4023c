// config.json: what is read, and what is refused by name.
#include <unistd.h>

#include "base/json.h"
#include "tests/model/vision_parts.h"

static void golden_cases(void **state) {
    (void)state;
    static const struct {
        const char *name;
        VlConnectorKind kind;
        int64_t depth, padding, frames, tokens, patches, run;
    } cases[] = {
        {"conn_linear", VL_CONNECTOR_MLP, 1, 0, 4, 4, 4, 2},
        {"conn_mlp2x_gelu", VL_CONNECTOR_MLP, 2, 0, 5, 4, 4, 2},
        {"conn_stp", VL_CONNECTOR_STP, 4, 0, 5, 2, 9, 1},
        {"conn_spatial_conv", VL_CONNECTOR_SPATIAL_CONV, 0, 1, 4, 24, 9, 1},
        {"conn_spatial_pool", VL_CONNECTOR_SPATIAL_POOL, 0, 0, 4, 4, 4, 1},
        {"mistral_clip_stc", VL_CONNECTOR_STC, 4, 1, 4, 12, 9, 2},
        {"mistral_clip_image", VL_CONNECTOR_STC, 4, 1, 8, 20, 4, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        VlModelConfig config;
        assert_ok(vl_model_config_load(&config, golden_path(cases[i].name, "model")));
        assert_true(config.has_vision);
        assert_int_equal(config.connector.kind, cases[i].kind);
        assert_int_equal(config.connector.depth, cases[i].depth);
        assert_int_equal(config.connector.padding, cases[i].padding);
        assert_int_equal(config.num_frames, cases[i].frames);
        assert_int_equal(vl_model_patches(&config), cases[i].patches);
        assert_int_equal(vl_model_visual_tokens(&config, config.num_frames), cases[i].tokens);
        assert_int_equal(config.vision.run_layers, cases[i].run);
    }
    VlModelConfig config;
    assert_ok(vl_model_config_load(&config, golden_path("mistral_clip_stc", "model")));
    assert_true(config.vision.eps == 0.001F && config.decoder.eps == 1e-5F && config.decoder.rope_theta == 1e6);
    assert_int_equal(config.decoder.heads, 6);
    assert_int_equal(config.decoder.kv_heads, 2);
    assert_int_equal(config.decoder.head_size, 8);
    assert_int_equal(config.decoder.vocabulary, 160);
    assert_int_equal(config.bos, 1);
    assert_int_equal(config.eos, 2);
    assert_true(config.vision.class_token && config.vision.pre_norm && !config.vision.patch_bias);
    assert_int_equal(config.vision.activation, VL_QUICK_GELU);
    assert_string_equal(config.model_type, "videollama2_mistral");
    assert_string_equal(config.vision_folder, golden_path("mistral_clip_stc", "model/clip-vit-tiny-patch14"));
}

typedef struct Folder {
    char path[64];
    json_t *model, *tower;
} Folder;

// The golden case's two documents in a folder of their own.
static int open_folder(void **state) {
    static Folder folder;
    strcpy(folder.path, "/tmp/vl_config_XXXXXX");
    if (!mkdtemp(folder.path)) return -1;
    if (vl_json_load(golden_path("mistral_clip_stc", "model/config.json"), 1 << 20, &folder.model)) return -1;
    if (vl_json_load(golden_path("mistral_clip_stc", "model/clip-vit-tiny-patch14/config.json"), 1 << 20,
                     &folder.tower)) {
        return -1;
    }
    *state = &folder;
    return 0;
}

static int close_folder(void **state) {
    Folder *folder = *state;
    json_decref(folder->model);
    json_decref(folder->tower);
    return vl_remove_tree(folder->path) == VL_OK ? 0 : -1;
}

static VlStatus load(const Folder *folder, const json_t *model, const json_t *tower, VlModelConfig *config) {
    char path[VL_PATH_MAX];
    snprintf(path, sizeof path, "%s/clip-vit-tiny-patch14", folder->path);
    VL_TRY(vl_make_folders(path));
    snprintf(path, sizeof path, "%s/clip-vit-tiny-patch14/config.json", folder->path);
    if (tower) VL_TRY(vl_json_save(path, tower, 0));
    if (!tower) VL_TRY(vl_remove_tree(path));
    snprintf(path, sizeof path, "%s/config.json", folder->path);
    VL_TRY(vl_json_save(path, model, 0));
    VL_TRY(vl_model_config_load(config, folder->path));
    return VL_OK;
}

// A document with one key set to a value (JSON text), or removed (NULL).
static json_t *changed(const json_t *document, const char *key, const char *value) {
    json_t *copy = json_deep_copy(document);
    if (value) {
        json_t *parsed = json_loads(value, JSON_DECODE_ANY, NULL);
        assert_non_null(parsed);
        json_object_set_new(copy, key, parsed);
    } else {
        json_object_del(copy, key);
    }
    return copy;
}

static VlStatus load_changed(const Folder *folder, bool tower, const char *key, const char *value,
                             VlModelConfig *config) {
    json_t *copy = changed(tower ? folder->tower : folder->model, key, value);
    VlStatus status = load(folder, tower ? folder->model : copy, tower ? copy : folder->tower, config);
    json_decref(copy);
    return status;
}

typedef struct Change {
    const char *key, *value;
    VlStatus status;
    const char *part;
} Change;

static void try_changes(const Folder *folder, bool tower, const Change *changes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        VlModelConfig config;
        vl_error_clear();
        VlStatus status = load_changed(folder, tower, changes[i].key, changes[i].value, &config);
        if (status != changes[i].status || (status && !strstr(vl_error_text(), changes[i].part))) {
            fail_msg("%s = %s: status %d '%s', not %d '%s'", changes[i].key, changes[i].value, (int)status,
                     vl_error_text(), (int)changes[i].status, changes[i].part ? changes[i].part : "");
        }
        if (status && !strstr(vl_error_text(), folder->path)) fail_msg("no path in '%s'", vl_error_text());
    }
}

static void model_keys(void **state) {
    static const Change changes[] = {
        {"hidden_act", "\"gelu\"", VL_UNSUPPORTED, "hidden_act is \"gelu\""},
        {"sliding_window", "4096", VL_UNSUPPORTED, "sliding_window is 4096"},
        {"sliding_window", NULL, VL_OK, NULL},
        {"rope_scaling", "{\"type\":\"linear\",\"factor\":2}", VL_UNSUPPORTED, "rope_scaling is {"},
        {"rope_scaling", "null", VL_OK, NULL},
        {"attention_bias", "true", VL_UNSUPPORTED, "attention_bias is true"},
        {"attention_bias", "false", VL_OK, NULL},
        {"mlp_bias", "true", VL_UNSUPPORTED, "mlp_bias"},
        {"attention_dropout", "0.1", VL_UNSUPPORTED, "attention_dropout is 0.1"},
        {"attention_dropout", "0", VL_OK, NULL},
        {"quantization_config", "{\"bits\":4}", VL_UNSUPPORTED, "quantization_config"},
        {"model_type", "\"videollama2_qwen2\"", VL_UNSUPPORTED, "videollama2_qwen2"},
        {"model_type", "\"videollama2_mixtral\"", VL_UNSUPPORTED, "videollama2_mixtral"},
        {"model_type", "\"mistral\"", VL_OK, NULL},
        {"model_type", NULL, VL_FORMAT, "model_type"},
        {"mm_audio_tower", "\"beats.pt\"", VL_UNSUPPORTED, "mm_audio_tower"},
        {"mm_projector_a_type", "\"mlp2x_gelu\"", VL_OK, NULL},
        {"mm_vision_select_feature", "\"cls_patch\"", VL_UNSUPPORTED, "mm_vision_select_feature"},
        {"mm_use_im_start_end", "true", VL_UNSUPPORTED, "mm_use_im_start_end"},
        {"mm_resampler_type", "\"x\"", VL_UNSUPPORTED, "mm_resampler_type is unknown"},
        {"mm_projector_typ", "\"linear\"", VL_UNSUPPORTED, "nearest: mm_projector_type"},
        {"anything_else", "{\"a\":[1]}", VL_OK, NULL},
        {"mm_projector_type", "\"mlp3x_gelu\"", VL_UNSUPPORTED, "nearest: mlp2x_gelu"},
        {"mm_projector_type", "\"spatial_conv\"", VL_INVALID, "mm_hidden_size 24 and hidden_size 48"},
        {"mm_projector_type", "7", VL_FORMAT, "mm_projector_type"},
        {"mm_hidden_size", "32", VL_INVALID, "mm_hidden_size is 32"},
        {"mm_hidden_size", NULL, VL_FORMAT, "mm_hidden_size"},
        {"mm_vision_select_layer", "-5", VL_INVALID, "mm_vision_select_layer is -5"},
        {"mm_vision_tower", "\"clip-missing\"", VL_INVALID, "openai/clip-vit-large-patch14-336"},
        {"use_mm_proj", "false", VL_UNSUPPORTED, "use_mm_proj"},
        {"hidden_size", "0", VL_INVALID, "hidden_size is 0"},
        {"hidden_size", "-48", VL_INVALID, "hidden_size is -48"},
        {"hidden_size", "9223372036854775807", VL_INVALID, "hidden_size"},
        {"hidden_size", "\"48\"", VL_FORMAT, "hidden_size"},
        {"hidden_size", "47", VL_INVALID, "hidden_size 47 is no multiple"},
        {"num_key_value_heads", "4", VL_INVALID, "num_key_value_heads 4"},
        {"num_hidden_layers", NULL, VL_FORMAT, "num_hidden_layers"},
        {"head_dim", "5", VL_INVALID, "heads of 5 elements"},
        {"num_frames", "0", VL_INVALID, "num_frames is 0"},
        {"rms_norm_eps", "0", VL_INVALID, "rms_norm_eps"},
        {"rope_theta", "-1", VL_INVALID, "rope_theta"},
        {"bos_token_id", "160", VL_INVALID, "bos_token_id"},
        {"eos_token_id", "[1,2]", VL_UNSUPPORTED, "eos_token_id is a list"},
        {"num_local_experts", "8", VL_UNSUPPORTED, "num_local_experts"},
    };
    try_changes(*state, false, changes, sizeof changes / sizeof *changes);
}

static void tower_keys(void **state) {
    static const Change changes[] = {
        {"model_type", "\"dinov2\"", VL_UNSUPPORTED, "dinov2"},
        {"hidden_act", "\"relu\"", VL_UNSUPPORTED, "hidden_act is 'relu'"},
        {"hidden_act", "\"gelu\"", VL_OK, NULL},
        {"num_channels", "1", VL_UNSUPPORTED, "num_channels is 1"},
        {"attention_dropout", "0.5", VL_UNSUPPORTED, "attention_dropout"},
        {"num_attention_heads", "5", VL_INVALID, "num_attention_heads 5"},
        {"patch_size", "43", VL_INVALID, "patch_size 43"},
        {"image_size", "43", VL_OK, NULL},
        {"image_size", "13.5", VL_FORMAT, "image_size"},
        {"layer_norm_eps", "2", VL_INVALID, "layer_norm_eps"},
        {"projection_dim", "77", VL_OK, NULL},
    };
    try_changes(*state, true, changes, sizeof changes / sizeof *changes);
}

static void values(void **state) {
    const Folder *folder = *state;
    VlModelConfig config;
    assert_ok(load_changed(folder, false, "head_dim", "10", &config));
    assert_int_equal(config.decoder.head_size, 10);
    assert_ok(load_changed(folder, false, "mm_vision_select_layer", "-1", &config));
    assert_int_equal(config.vision.run_layers, 3);
    assert_ok(load_changed(folder, false, "mm_vision_select_layer", "1", &config));
    assert_int_equal(config.vision.run_layers, 1);
    assert_ok(load_changed(folder, false, "tie_word_embeddings", "true", &config));
    assert_true(config.decoder.tied);
    assert_ok(load_changed(folder, false, "num_frames", NULL, &config));
    assert_int_equal(config.num_frames, 8);
    assert_ok(load_changed(folder, false, "eos_token_id", NULL, &config));
    assert_int_equal(config.eos, -1);
    assert_ok(load_changed(folder, false, "mm_vision_tower", "null", &config));
    assert_false(config.has_vision);
    assert_int_equal(vl_model_visual_tokens(&config, 8), 0);
    assert_ok(load_changed(folder, true, "hidden_act", NULL, &config));
    assert_int_equal(config.vision.activation, VL_QUICK_GELU);
}

// Towers known by their hub id, and the token counts of the released models.
static void hub_towers(void **state) {
    const Folder *folder = *state;
    static const struct {
        const char *tower, *type;
        int64_t hidden, frames, patches, tokens, run;
    } cases[] = {
        {"\"openai/clip-vit-large-patch14-336\"", "\"stc_connector\"", 1024, 8, 576, 845, 23},
        {"\"openai/clip-vit-large-patch14-336\"", "\"stc_connector\"", 1024, 16, 576, 1521, 23},
        {"\"openai/clip-vit-large-patch14\"", "\"mlp2x_gelu\"", 1024, 8, 256, 256, 23},
        {"\"google/siglip-so400m-patch14-384\"", "\"stc_connector_v35\"", 1152, 16, 729, 1352, 26},
        {"\"google/siglip-so400m-patch14-384\"", "\"stp_connector\"", 1152, 16, 729, 1352, 26},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *tower = changed(folder->model, "mm_vision_tower", cases[i].tower);
        json_t *typed = changed(tower, "mm_projector_type", cases[i].type);
        json_object_set_new(typed, "mm_hidden_size", json_integer(cases[i].hidden));
        json_object_set_new(typed, "num_frames", json_integer(cases[i].frames));
        VlModelConfig config;
        assert_ok(load(folder, typed, NULL, &config));
        assert_int_equal(vl_model_patches(&config), cases[i].patches);
        assert_int_equal(vl_model_visual_tokens(&config, config.num_frames), cases[i].tokens);
        assert_int_equal(config.vision.run_layers, cases[i].run);
        assert_string_equal(config.vision_folder, "");
        bool siglip = cases[i].hidden == 1152;
        assert_int_equal(config.vision.class_token, !siglip);
        assert_int_equal(config.vision.activation, siglip ? VL_GELU_TANH : VL_QUICK_GELU);
        assert_true(config.vision.eps == (siglip ? 1e-6F : 1e-5F));
        json_decref(tower);
        json_decref(typed);
    }
}

// The config of a full CLIP holds the tower's numbers in vision_config.
static void full_clip(void **state) {
    const Folder *folder = *state;
    json_t *full = json_pack("{s:s, s:i, s:O}", "model_type", "clip", "hidden_size", 7, "vision_config", folder->tower);
    VlModelConfig config;
    assert_ok(load(folder, folder->model, full, &config));
    assert_int_equal(config.vision.hidden, 24);
    assert_int_equal(config.vision.layers, 3);
    json_object_set_new(full, "vision_config", json_string("x"));
    assert_error(load(folder, folder->model, full, &config), VL_FORMAT, "vision_config");
    json_decref(full);
}

static void broken_files(void **state) {
    const Folder *folder = *state;
    VlModelConfig config;
    json_t *list = json_array();
    assert_error(load(folder, list, folder->tower, &config), VL_FORMAT, "not a JSON object");
    assert_error(load(folder, folder->model, list, &config), VL_FORMAT, "not a JSON object");
    json_decref(list);
    assert_error(vl_model_config_load(&config, "/nowhere/at-all"), VL_IO, "/nowhere/at-all");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_cases),
        cmocka_unit_test_setup_teardown(model_keys, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(tower_keys, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(values, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(hub_towers, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(full_clip, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(broken_files, open_folder, close_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
