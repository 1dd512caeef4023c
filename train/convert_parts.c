// One model from parts: a plain language model, a vision tower, a connector, an audio tower and its projector.
#include <string.h>

#include "base/memory.h"
#include "model/audio_file.h"
#include "train/convert_source.h"

#define TOWER "model.vision_tower.vision_tower."
#define CONFIG "config.json"

static VlStatus set(json_t *config, const char *key, json_t *value) {
    return value && json_object_set_new(config, key, value) == 0
               ? VL_OK
               : vl_error(VL_OUT_OF_MEMORY, "out of memory for config.json");
}

// Tensors under the first of `prefixes` that any tensor of the set has, as `to`.
static VlStatus add_named(VlConvertSource *source, const char *path, const char *const *prefixes, const char *to,
                          const char *what, const VlWeights **out) {
    VlWeights *weights;
    VL_TRY(vl_convert_source_open_set(source, path, &weights));
    *out = weights;
    for (; *prefixes; prefixes++) {
        for (int64_t i = 0; i < weights->count; i++) {
            if (strncmp(weights->entries[i].name, *prefixes, strlen(*prefixes)) == 0)
                return vl_convert_source_add(source, weights, NULL, *prefixes, to);
        }
    }
    return vl_error(VL_FORMAT, "%s holds no %s (%s...); it holds %s, ...", path, what, prefixes[-1],
                    weights->count > 0 ? weights->entries[0].name : "nothing");
}

// ---- The language model -----------------------------------------------------------

static VlStatus add_llm(VlConvertSource *source, const char *folder, json_t **config) {
    static const struct {
        const char *plain, *type, *architecture;
    } kinds[] = {{"mistral", "videollama2_mistral", "Videollama2MistralForCausalLM"},
                 {"mixtral", "videollama2_mixtral", "Videollama2MixtralForCausalLM"},
                 {"qwen2", "videollama2_qwen2", "Videollama2Qwen2ForCausalLM"}};
    char path[VL_PATH_MAX];
    const char *type = NULL;
    VL_TRY(vl_convert_source_add_files(source, folder, ""));
    VL_TRY(vl_weights_locate(path, folder));
    if (!*path) return vl_error(VL_IO, "%s holds no weights: --llm needs a language model's folder", folder);
    VlWeights *weights;
    VL_TRY(vl_convert_source_open_set(source, path, &weights));
    VL_TRY(vl_convert_source_add(source, weights, NULL, "", ""));
    VL_TRY(vl_convert_source_load_document(source, CONFIG, config));
    VL_TRY(vl_json_get_string(*config, folder, "model_type", true, &type));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].plain) != 0) continue;
        VL_TRY(set(*config, "model_type", json_string(kinds[i].type)));
        return set(*config, "architectures", json_pack("[s]", kinds[i].architecture));
    }
    return vl_error(VL_UNSUPPORTED, "%s: model_type is '%.60s'; --llm takes mistral, mixtral and qwen2", folder, type);
}

// ---- The vision tower ------------------------------------------------------------

typedef struct Tower {
    bool siglip;
    int64_t hidden;
} Tower;

static VlStatus read_tower(const json_t *config, const char *path, Tower *tower) {
    const json_t *inner = json_object_get(config, "vision_config");
    const char *type = NULL;
    VL_TRY(vl_json_get_string(config, path, "model_type", true, &type));
    tower->siglip = strncmp(type, "siglip", 6) == 0;
    if (!tower->siglip && strncmp(type, "clip", 4) != 0)
        return vl_error(VL_UNSUPPORTED, "%s: model_type is '%.60s'; --vision takes CLIP and SigLIP", path, type);
    tower->hidden = tower->siglip ? 1152 : 768;
    return vl_json_get_int(inner ? inner : config, path, "hidden_size", !inner, &tower->hidden);
}

// The name of the tower's folder inside the model folder: its own, which has to tell the family, for the official code
// goes by it.
static VlStatus name_tower(const char *folder, bool siglip, char name[VL_PATH_MAX]) {
    char path[VL_PATH_MAX];
    VL_TRY(vl_path_join(path, "", folder));
    for (size_t length = strlen(path); length > 1 && path[length - 1] == '/';) path[--length] = '\0';
    const char *own = vl_path_last(path);
    bool told = siglip ? strstr(own, "siglip") != NULL : strstr(own, "clip") != NULL;
    return vl_path_join(name, "", told ? own : siglip ? "siglip-tower" : "clip-tower");
}

static VlStatus add_vision(VlConvertSource *source, const VlConvertOptions *options, json_t *config) {
    static const char *const prefixes[] = {"vision_model.", NULL};
    static const char *const files[] = {CONFIG, "preprocessor_config.json"};
    char path[VL_PATH_MAX], weights[VL_PATH_MAX], name[VL_PATH_MAX];
    const VlWeights *opened;
    Tower tower;
    json_t *own;
    VL_TRY(vl_path_join(path, options->vision, CONFIG));
    VL_TRY(vl_json_load(path, 1 << 20, &own));
    VlStatus status = read_tower(own, path, &tower);
    json_decref(own);
    VL_TRY(status);
    VL_TRY(vl_weights_locate(weights, options->vision));
    if (!*weights) return vl_error(VL_IO, "%s holds no weights: --vision needs a tower's folder", options->vision);
    VL_TRY(add_named(source, weights, prefixes, TOWER "vision_model.", "vision tower", &opened));
    VL_TRY(name_tower(options->vision, tower.siglip, name));
    for (size_t i = 0; i < 2; i++) VL_TRY(vl_convert_source_add_file(source, options->vision, files[i], name));
    const char *type = tower.siglip ? "stc_connector_v35" : "stc_connector";
    int64_t frames = options->frames > 0 ? options->frames : tower.siglip ? 16 : 8;
    VL_TRY(set(config, "mm_vision_tower", json_string(name)));
    VL_TRY(set(config, "mm_hidden_size", json_integer((json_int_t)tower.hidden)));
    VL_TRY(set(config, "mm_projector_type", json_string(options->connector_type ? options->connector_type : type)));
    VL_TRY(set(config, "mm_vision_select_layer", json_integer(-2)));
    VL_TRY(set(config, "mm_vision_select_feature", json_string("patch")));
    VL_TRY(set(config, "image_aspect_ratio", json_string("pad")));
    VL_TRY(set(config, "num_frames", json_integer((json_int_t)frames)));
    return set(config, "use_mm_proj", json_true());
}

static VlStatus add_connector(VlConvertSource *source, const char *path) {
    static const char *const prefixes[] = {"model.mm_projector.", "mm_projector.", NULL};
    const VlWeights *opened;
    return add_named(source, path, prefixes, "model.mm_projector.", "connector", &opened);
}

// ---- The audio parts ----------------------------------------------------------------

VlStatus vl_convert_source_add_audio_file(VlConvertSource *source, const char *path) {
    VlWeights *weights;
    const char *prefix;
    VL_TRY(vl_convert_source_open_set(source, path, &weights));
    VL_TRY(vl_audio_file_prefix(weights, path, &prefix));
    return vl_convert_source_add(source, weights, NULL, prefix, VL_AUDIO_TOWER_PREFIX);
}

static VlStatus add_audio(VlConvertSource *source, const char *path, json_t *config) {
    int64_t hidden = 0, width = 768;
    json_t *own;
    VL_TRY(vl_convert_source_add_audio_file(source, path));
    VL_TRY(vl_audio_file_config(path, &own));
    if (own) {
        VlStatus status = vl_json_get_int(own, path, "encoder_embed_dim", false, &width);
        if (status == VL_OK && json_object_set(config, "mm_audio_config", own) != 0)
            status = vl_error(VL_OUT_OF_MEMORY, "out of memory for config.json");
        json_decref(own);
        VL_TRY(status);
    } else {
        json_object_del(config, "mm_audio_config");
    }
    VL_TRY(vl_json_get_int(config, CONFIG, "hidden_size", true, &hidden));
    VL_TRY(set(config, "mm_audio_tower", json_string(vl_path_last(path))));
    VL_TRY(set(config, "mm_projector_a_type", json_string("mlp2x_gelu")));
    VL_TRY(set(config, "mm_hidden_size_a", json_integer((json_int_t)width)));
    VL_TRY(set(config, "hidden_size_a", json_integer((json_int_t)hidden)));
    return set(config, "use_mm_proj", json_true());
}

static VlStatus add_audio_projector(VlConvertSource *source, const char *path) {
    static const char *const prefixes[] = {"model.mm_projector_a.", "mm_projector_a.", NULL};
    const VlWeights *opened;
    return add_named(source, path, prefixes, "model.mm_projector_a.", "audio projector", &opened);
}

// ---- All of them -----------------------------------------------------------------

static VlStatus add_audio_parts(VlConvertSource *source, const VlConvertOptions *options, json_t *config) {
    if (options->audio) VL_TRY(add_audio(source, options->audio, config));
    if (options->audio_projector) VL_TRY(add_audio_projector(source, options->audio_projector));
    return vl_convert_source_set_document(source, CONFIG, config);
}

VlStatus vl_convert_source_add_audio(VlConvertSource *source, const VlConvertOptions *options) {
    json_t *config;
    VL_TRY(vl_convert_source_load_document(source, CONFIG, &config));
    VlStatus status = add_audio_parts(source, options, config);
    json_decref(config);
    return status;
}

static VlStatus compose(VlConvertSource *source, const VlConvertOptions *options, json_t **config) {
    VL_TRY(add_llm(source, options->llm, config));
    if (options->vision) VL_TRY(add_vision(source, options, *config));
    if (options->connector) VL_TRY(add_connector(source, options->connector));
    return add_audio_parts(source, options, *config);
}

VlStatus vl_convert_source_compose(VlConvertSource *source, const VlConvertOptions *options) {
    json_t *config = NULL;
    if (!options->llm) return vl_error(VL_USAGE, "parts need a language model to stand upon: --llm DIR");
    VlStatus status = compose(source, options, &config);
    json_decref(config);
    return status;
}
