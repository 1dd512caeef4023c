// config.json: what is read, and what is refused by name.
#include <unistd.h>

#include "base/json.h"
#include "model/generation_config.h"
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
        {"qwen2_siglip_v35", VL_CONNECTOR_STC, 4, 0, 4, 8, 16, 2},
        {"mixtral_clip_stc", VL_CONNECTOR_STC, 4, 1, 4, 12, 4, 2},
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
    assert_int_equal(config.stops, 1);
    assert_int_equal(config.stop[0], 2);
    assert_false(config.decoder.qkv_bias);
    assert_int_equal(config.decoder.experts, 0);
    assert_true(config.vision.class_token && config.vision.pre_norm && !config.vision.patch_bias);
    assert_int_equal(config.vision.activation, VL_QUICK_GELU);
    assert_string_equal(config.model_type, "videollama2_mistral");
    assert_string_equal(config.vision_folder, golden_path("mistral_clip_stc", "model/clip-vit-tiny-patch14"));
    assert_ok(vl_model_config_load(&config, golden_path("qwen2_siglip_v35", "model")));
    assert_true(config.decoder.qkv_bias && !config.decoder.tied && config.decoder.eps == 1e-4F);
    assert_int_equal(config.decoder.window, 0);
    assert_true(!config.vision.class_token && !config.vision.pre_norm && config.vision.patch_bias);
    assert_int_equal(config.vision.activation, VL_GELU_TANH);
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
        {"hidden_activation", "\"gelu\"", VL_UNSUPPORTED, "hidden_activation"},
        {"sliding_window", "4096", VL_OK, NULL},
        {"sliding_window", "0", VL_INVALID, "sliding_window is 0"},
        {"sliding_window", "\"4096\"", VL_FORMAT, "sliding_window"},
        {"rope_scaling", "{\"type\":\"linear\",\"factor\":2}", VL_UNSUPPORTED, "rope_scaling scales"},
        {"rope_scaling", "{\"type\":\"default\"}", VL_OK, NULL},
        {"rope_scaling", "{\"rope_type\":\"dynamic\",\"factor\":4}", VL_UNSUPPORTED, "rope_scaling scales"},
        {"rope_scaling", "2", VL_UNSUPPORTED, "rope_scaling scales positions or is no object"},
        {"rope_scaling", "null", VL_OK, NULL},
        {"attention_bias", "true", VL_UNSUPPORTED, "attention_bias is true"},
        {"attention_bias", "false", VL_OK, NULL},
        {"mlp_bias", "true", VL_UNSUPPORTED, "mlp_bias"},
        {"attention_dropout", "0.1", VL_UNSUPPORTED, "attention_dropout is 0.1"},
        {"attention_dropout", "0", VL_OK, NULL},
        {"quantization_config", "{\"bits\":4}", VL_UNSUPPORTED, "quantization_config"},
        {"model_type", "\"videollama2_qwen2\"", VL_OK, NULL},
        {"model_type", "\"qwen2\"", VL_OK, NULL},
        {"model_type", "\"videollama2\"", VL_OK, NULL},
        {"model_type", "\"videollama2_llama\"", VL_UNSUPPORTED, "videollama2_llama"},
        {"model_type", "\"videollama2_mixtral\"", VL_OK, NULL},
        {"model_type", "\"mixtral\"", VL_OK, NULL},
        {"model_type", "\"mistral\"", VL_OK, NULL},
        {"model_type", NULL, VL_FORMAT, "model_type"},
        {"mm_audio_tower", "\"beats.pt\"", VL_OK, NULL},
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
        {"num_key_value_heads", NULL, VL_FORMAT, "num_key_value_heads"},
        {"initializer_range", "-1", VL_INVALID, "initializer_range"},
        {"tie_word_embeddings", "1", VL_FORMAT, "tie_word_embeddings"},
        {"vocab_size", "0", VL_INVALID, "vocab_size"},
        {"eos_token_id", "160", VL_INVALID, "eos_token_id is 160"},
        {"eos_token_id", "[1,-2]", VL_INVALID, "eos_token_id is -2"},
        {"eos_token_id", "[1,2.5]", VL_FORMAT, "eos_token_id is neither an id nor a list"},
        {"eos_token_id", "\"2\"", VL_FORMAT, "eos_token_id is neither an id nor a list"},
        {"eos_token_id", "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", VL_UNSUPPORTED, "eos_token_id lists 17 ids"},
        {"num_local_experts", "8", VL_UNSUPPORTED, "num_local_experts"},
        {"num_experts_per_tok", "2", VL_UNSUPPORTED, "num_experts_per_tok"},
        {"qkv_bias", "true", VL_UNSUPPORTED, "qkv_bias is true"},
        {"qkv_bias", "false", VL_OK, NULL},
        {"rope_parameters", "{\"rope_type\":\"default\",\"rope_theta\":500.0}", VL_OK, NULL},
        {"rope_parameters", "{\"rope_type\":\"default\",\"factor\":2}", VL_UNSUPPORTED, "rope_parameters scales"},
        {"rope_parameters", "{\"rope_theta\":1}", VL_INVALID, "rope_theta is 1"},
        {"partial_rotary_factor", "0.5", VL_UNSUPPORTED, "partial_rotary_factor is 0.5"},
        {"rope_interleaved", "true", VL_UNSUPPORTED, "rope_interleaved"},
        {"lm_head_bias", "true", VL_UNSUPPORTED, "lm_head_bias"},
        {"hidden_dropout", "0.1", VL_UNSUPPORTED, "hidden_dropout"},
        {"resid_pdrop", "0.1", VL_UNSUPPORTED, "resid_pdrop"},
        {"embd_pdrop", "0.1", VL_UNSUPPORTED, "embd_pdrop"},
        {"embedding_dropout", "0.1", VL_UNSUPPORTED, "embedding_dropout"},
        {"pruned_heads", "{\"0\":[1]}", VL_UNSUPPORTED, "pruned_heads"},
        {"pruned_heads", "{}", VL_OK, NULL},
        {"layer_types", "[\"full_attention\",\"full_attention\"]", VL_OK, NULL},
        {"layer_types", "[\"full_attention\",\"sliding_attention\"]", VL_UNSUPPORTED, "layer_types"},
        {"layer_types", "3", VL_UNSUPPORTED, "layer_types"},
        {"no_rope_layers", "[1]", VL_UNSUPPORTED, "no_rope_layers"},
        {"attention_chunk_size", "64", VL_UNSUPPORTED, "attention_chunk_size"},
        {"attn_logit_softcapping", "50", VL_UNSUPPORTED, "attn_logit_softcapping"},
        {"final_logit_softcapping", "30", VL_UNSUPPORTED, "final_logit_softcapping"},
        {"query_pre_attn_scalar", "256", VL_UNSUPPORTED, "query_pre_attn_scalar"},
        {"use_qk_norm", "true", VL_UNSUPPORTED, "use_qk_norm"},
        {"embedding_multiplier", "12", VL_UNSUPPORTED, "embedding_multiplier"},
        {"residual_multiplier", "0.2", VL_UNSUPPORTED, "residual_multiplier"},
        {"attention_multiplier", "0.1", VL_UNSUPPORTED, "attention_multiplier"},
        {"logits_scaling", "8", VL_UNSUPPORTED, "logits_scaling"},
        {"logit_scale", "0.1", VL_UNSUPPORTED, "logit_scale"},
        {"num_experts", "8", VL_UNSUPPORTED, "num_experts"},
        {"mm_use_im_patch_token", "true", VL_UNSUPPORTED, "mm_use_im_patch_token"},
        {"torch_dtype", "\"float16\"", VL_OK, NULL},
        {"max_position_embeddings", "8", VL_OK, NULL},
        {"pretraining_tp", "2", VL_OK, NULL},
        {"use_cache", "false", VL_OK, NULL},
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
        {"dropout", "0.1", VL_UNSUPPORTED, "dropout is 0.1"},
        {"pruned_heads", "{\"0\":[1]}", VL_UNSUPPORTED, "pruned_heads"},
        {"hidden_size", "25", VL_INVALID, "hidden_size 25 is no multiple"},
        {"num_hidden_layers", "1", VL_INVALID, "mm_vision_select_layer is -2"},
        {"projection_dim", "77", VL_OK, NULL},
        {"tie_word_embeddings", "false", VL_OK, NULL},
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
    assert_ok(load_changed(folder, false, "eos_token_id", NULL, &config));  // the class's own
    assert_int_equal(config.stops, 1);
    assert_int_equal(config.stop[0], 2);
    assert_ok(load_changed(folder, false, "eos_token_id", "null", &config));
    assert_int_equal(config.stops, 0);
    assert_ok(load_changed(folder, false, "eos_token_id", "[7, 3]", &config));
    assert_int_equal(config.stops, 2);
    assert_true(config.stop[0] == 7 && config.stop[1] == 3);
    assert_ok(load_changed(folder, false, "rope_parameters", "{\"rope_theta\":500}", &config));
    assert_true(config.decoder.rope_theta == 500);
    assert_ok(load_changed(folder, false, "num_key_value_heads", "null", &config));
    assert_int_equal(config.decoder.kv_heads, config.decoder.heads);
    assert_ok(load_changed(folder, false, "mm_vision_tower", "null", &config));
    assert_false(config.has_vision);
    assert_int_equal(vl_model_visual_tokens(&config, 8), 0);
    assert_ok(load_changed(folder, true, "hidden_act", NULL, &config));
    assert_int_equal(config.vision.activation, VL_QUICK_GELU);
}

// sliding_window: what an absent key stands for, when it counts, and the length that is refused then.
static void windows(void **state) {
    const Folder *folder = *state;
    static const struct {
        const char *type, *window, *use, *layers;
        int64_t expected;
    } cases[] = {
        {"\"mistral\"", "null", NULL, NULL, 0},     {"\"mistral\"", NULL, NULL, NULL, 4096},
        {"\"mistral\"", "100", "false", NULL, 100}, {"\"qwen2\"", "100", NULL, NULL, 0},
        {"\"qwen2\"", "100", "false", NULL, 0},     {"\"qwen2\"", "100", "true", NULL, 100},
        {"\"qwen2\"", NULL, "true", NULL, 4096},    {"\"qwen2\"", "100", "true", "0", 0},
        {"\"qwen2\"", "null", "true", NULL, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        VlModelConfig config;
        json_t *document[] = {changed(folder->model, "model_type", cases[i].type), NULL, NULL, NULL};
        document[1] = changed(document[0], "sliding_window", cases[i].window);
        document[2] = changed(document[1], "use_sliding_window", cases[i].use);
        document[3] = changed(document[2], "max_window_layers", cases[i].layers);
        assert_ok(load(folder, document[3], folder->tower, &config));
        assert_int_equal(config.decoder.window, cases[i].expected);
        if (cases[i].expected > 0) {
            assert_ok(vl_model_config_check_length(&config, cases[i].expected));
            assert_error(vl_model_config_check_length(&config, cases[i].expected + 1), VL_UNSUPPORTED,
                         "sliding_window");
        } else {
            assert_ok(vl_model_config_check_length(&config, 1 << 30));
        }
        for (int k = 0; k < 4; k++) json_decref(document[k]);
    }
}

// The mixture of experts: numbers, those of the class in the place of absent ones, and what is refused.
static void expert_keys(void **state) {
    const Folder *folder = *state;
    static const Change changes[] = {
        {"num_local_experts", "0", VL_INVALID, "num_local_experts is 0"},
        {"num_local_experts", "100000", VL_INVALID, "num_local_experts is 100000; possible are 1 to 1024"},
        {"num_local_experts", "\"8\"", VL_FORMAT, "num_local_experts"},
        {"num_experts_per_tok", "0", VL_INVALID, "num_experts_per_tok is 0"},
        {"num_experts_per_tok", "9", VL_INVALID, "num_experts_per_tok is 9; possible are 1 to 8"},
        {"num_experts_per_tok", "8", VL_OK, NULL},
        {"num_local_experts", "1", VL_INVALID, "num_experts_per_tok is 2 where it is absent, num_local_experts 1"},
        {"output_router_logits", "true", VL_UNSUPPORTED, "output_router_logits is true; this version knows only false"},
        {"output_router_logits", "false", VL_OK, NULL},
        {"router_jitter_noise", "0.01", VL_UNSUPPORTED, "router_jitter_noise is 0.01; this version knows only 0.0"},
        {"router_jitter_noise", "0", VL_OK, NULL},
        {"router_aux_loss_coef", "0.02", VL_OK, NULL},
        {"num_experts", "8", VL_UNSUPPORTED, "num_experts"},
    };
    Folder mixtral = *folder;
    VlModelConfig config;
    mixtral.model = changed(folder->model, "model_type", "\"videollama2_mixtral\"");
    for (int i = 0; i < 3; i++) {
        static const char *const absent[] = {"rope_theta", "rms_norm_eps", "sliding_window"};
        json_object_del(mixtral.model, absent[i]);
    }
    try_changes(&mixtral, false, changes, sizeof changes / sizeof *changes);
    assert_ok(load(&mixtral, mixtral.model, folder->tower, &config));
    assert_true(config.decoder.rope_theta == 1e6 && config.decoder.eps == 1e-5F && !config.decoder.qkv_bias);
    assert_int_equal(config.decoder.window, 0);
    assert_int_equal(config.decoder.experts, 8);
    assert_int_equal(config.decoder.experts_per_token, 2);
    assert_ok(load_changed(&mixtral, false, "sliding_window", "100", &config));
    assert_int_equal(config.decoder.window, 100);
    assert_ok(vl_model_config_load(&config, golden_path("mixtral_clip_stc", "model")));
    assert_int_equal(config.decoder.experts, 4);
    assert_int_equal(config.decoder.experts_per_token, 2);
    assert_int_equal(config.decoder.intermediate, 24);
    json_decref(mixtral.model);
}

// generation_config.json, and config.json in its place.
static void generation(void **state) {
    const Folder *folder = *state;
    VlModelConfig config;
    VlGenerationConfig found;
    char path[VL_PATH_MAX];
    json_t *document = changed(folder->model, "repetition_penalty", "1.5");
    assert_ok(load(folder, document, folder->tower, &config));
    json_decref(document);
    assert_ok(vl_generation_config_load(&found, &config));
    assert_true(found.stops == 1 && found.stop[0] == 2 && found.repetition_penalty == 1.5 && found.top_k == 0);
    static const struct {
        const char *text;
        VlStatus status;
        const char *part;
    } cases[] = {
        {"{\"eos_token_id\":[5,9],\"repetition_penalty\":1.05,\"top_k\":20,\"top_p\":0.8,\"do_sample\":true,"
         "\"temperature\":0.7,\"pad_token_id\":3,\"num_beams\":1,\"max_length\":20}",
         VL_OK, NULL},
        {"[]", VL_FORMAT, "not a JSON object"},
        {"{\"eos_token_id\":160}", VL_INVALID, "eos_token_id is 160"},
        {"{\"repetition_penalty\":0}", VL_INVALID, "repetition_penalty is 0"},
        {"{\"top_k\":-1}", VL_INVALID, "top_k is -1"},
        {"{\"num_beams\":4}", VL_UNSUPPORTED, "num_beams is 4"},
        {"{\"no_repeat_ngram_size\":3}", VL_UNSUPPORTED, "no_repeat_ngram_size"},
        {"{\"penalty_alpha\":0.6}", VL_UNSUPPORTED, "penalty_alpha"},
        {"{\"min_length\":1}", VL_UNSUPPORTED, "min_length"},
        {"{\"min_new_tokens\":1}", VL_UNSUPPORTED, "min_new_tokens"},
        {"{\"stop_strings\":[\"x\"]}", VL_UNSUPPORTED, "stop_strings"},
        {"{\"min_p\":0.1}", VL_UNSUPPORTED, "min_p"},
        {"{\"typical_p\":0.9}", VL_UNSUPPORTED, "typical_p"},
        {"{\"epsilon_cutoff\":0.1}", VL_UNSUPPORTED, "epsilon_cutoff"},
        {"{\"eta_cutoff\":0.1}", VL_UNSUPPORTED, "eta_cutoff"},
        {"{\"encoder_repetition_penalty\":2}", VL_UNSUPPORTED, "encoder_repetition_penalty"},
        {"{\"encoder_no_repeat_ngram_size\":2}", VL_UNSUPPORTED, "encoder_no_repeat_ngram_size"},
        {"{\"bad_words_ids\":[[1]]}", VL_UNSUPPORTED, "bad_words_ids"},
        {"{\"force_words_ids\":[[1]]}", VL_UNSUPPORTED, "force_words_ids"},
        {"{\"constraints\":[1]}", VL_UNSUPPORTED, "constraints"},
        {"{\"forced_bos_token_id\":1}", VL_UNSUPPORTED, "forced_bos_token_id"},
        {"{\"forced_eos_token_id\":1}", VL_UNSUPPORTED, "forced_eos_token_id"},
        {"{\"forced_decoder_ids\":[[1,2]]}", VL_UNSUPPORTED, "forced_decoder_ids"},
        {"{\"remove_invalid_values\":true}", VL_UNSUPPORTED, "remove_invalid_values"},
        {"{\"exponential_decay_length_penalty\":[1,2]}", VL_UNSUPPORTED, "exponential_decay_length_penalty"},
        {"{\"suppress_tokens\":[1]}", VL_UNSUPPORTED, "suppress_tokens"},
        {"{\"begin_suppress_tokens\":[1]}", VL_UNSUPPORTED, "begin_suppress_tokens"},
        {"{\"sequence_bias\":{}}", VL_UNSUPPORTED, "sequence_bias"},
        {"{\"token_healing\":true}", VL_UNSUPPORTED, "token_healing"},
        {"{\"guidance_scale\":2}", VL_UNSUPPORTED, "guidance_scale"},
        {"{\"watermarking_config\":{}}", VL_UNSUPPORTED, "watermarking_config"},
    };
    snprintf(path, sizeof path, "%s/generation_config.json", folder->path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vl_error_clear();
        assert_ok(vl_write_file(path, cases[i].text, (int64_t)strlen(cases[i].text)));
        VlStatus status = vl_generation_config_load(&found, &config);
        if (status != cases[i].status || (status && !strstr(vl_error_text(), cases[i].part))) {
            fail_msg("%s: status %d '%s'", cases[i].text, (int)status, vl_error_text());
        }
        if (status) continue;
        assert_true(found.stops == 2 && found.stop[0] == 5 && found.stop[1] == 9 && found.top_k == 20);
        assert_true(found.repetition_penalty == 1.05);
    }
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
    // An inner object without a type has that of the whole.
    json_t *untyped = changed(folder->tower, "model_type", NULL);
    json_object_set(full, "vision_config", untyped);
    assert_ok(load(folder, folder->model, full, &config));
    assert_true(config.vision.class_token);
    json_object_set_new(full, "model_type", json_string("siglip"));
    assert_ok(load(folder, folder->model, full, &config));
    assert_false(config.vision.class_token);
    json_object_set_new(full, "model_type", json_string("other"));
    assert_error(load(folder, folder->model, full, &config), VL_FORMAT, "model_type");
    json_decref(untyped);
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

// The audio tower's keys, in the golden case's config.json; those with a dot are members of mm_audio_config.
static void audio_keys(void **state) {
    static const Change changes[] = {
        {"mm_audio_tower", NULL, VL_OK, NULL},
        {"mm_audio_config", NULL, VL_INVALID, "mm_hidden_size_a 48 and hidden_size_a 48"},
        {"mm_audio_config", "[]", VL_FORMAT, "mm_audio_config is not an object"},
        {"mm_projector_a_type", "\"linear\"", VL_UNSUPPORTED, "mm_projector_a_type is 'linear'"},
        {"mm_hidden_size_a", "47", VL_INVALID, "mm_hidden_size_a 47"},
        {"hidden_size_a", "49", VL_INVALID, "hidden_size_a 49"},
        {".deep_norm", "false", VL_UNSUPPORTED, "deep_norm is false"},
        {".gru_rel_pos", "false", VL_UNSUPPORTED, "gru_rel_pos"},
        {".layer_norm_first", "true", VL_UNSUPPORTED, "layer_norm_first"},
        {".activation_fn", "\"relu\"", VL_UNSUPPORTED, "activation_fn"},
        {".dropout", "0.1", VL_UNSUPPORTED, "dropout is 0.1"},
        {".encoder_layer", "3", VL_UNSUPPORTED, "nearest: encoder_layers"},
        {".encoder_attention_heads", "5", VL_INVALID, "encoder_embed_dim 48 is no multiple"},
        {".conv_pos_groups", "7", VL_INVALID, "conv_pos_groups 7"},
        {".num_buckets", "30", VL_INVALID, "num_buckets 30 must be a multiple of 4"},
        {".max_distance", "8", VL_INVALID, "max_distance 8"},
        {".layer_wise_gradient_decay_ratio", "0", VL_INVALID, "layer_wise_gradient_decay_ratio 0"},
        {".encoder_layerdrop", "1", VL_INVALID, "encoder_layerdrop 1"},
        {".conv_pos", "0", VL_INVALID, "conv_pos is 0"},
    };
    const Folder *folder = *state;
    VlModelConfig config;
    json_t *model;
    assert_ok(vl_json_load(golden_path("audio_qwen2", "model/config.json"), 1 << 20, &model));
    assert_ok(load(folder, model, folder->tower, &config));
    assert_true(config.has_audio && !config.has_vision);
    assert_int_equal(config.audio.embedding, 40);
    assert_int_equal(config.audio.layers, 3);
    assert_int_equal(config.audio.predictor_classes, 7);
    assert_true(config.audio.gradient_decay == 0.6F);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        bool inner = *changes[i].key == '.';
        json_t *own = json_object_get(model, "mm_audio_config");
        json_t *copy = changed(inner ? own : model, changes[i].key + inner, changes[i].value);
        if (inner) {
            json_t *whole = json_deep_copy(model);
            json_object_set_new(whole, "mm_audio_config", copy);
            copy = whole;
        }
        VlStatus status = load(folder, copy, folder->tower, &config);
        if (status != changes[i].status || (changes[i].part && !strstr(vl_error_text(), changes[i].part))) {
            fail_msg("%s: status %d, '%s'", changes[i].key, (int)status, vl_error_text());
        }
        json_decref(copy);
    }
    json_decref(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_cases),
        cmocka_unit_test_setup_teardown(model_keys, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(tower_keys, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(audio_keys, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(expert_keys, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(values, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(windows, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(generation, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(hub_towers, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(full_clip, open_folder, close_folder),
        cmocka_unit_test_setup_teardown(broken_files, open_folder, close_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
