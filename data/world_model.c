// The model folder of the made world: small enough to train from nothing on two cores.
#include "base/files.h"
#include "base/json.h"
#include "data/world_parts.h"

enum { UNKNOWN, BEGIN, END, ASK, REPLY, SPECIALS, VOCABULARY_MULTIPLE = 64 };
static const char *const specials[SPECIALS] = {"<unk>", "<s>", "</s>", "[INST]", "[/INST]"};

// The template "mistral-system" of data/template.h, which is told by its exact text.
static const char chat_template[] =
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {%- set system_message = messages[0]['content'] %}\n"
    "    {%- set loop_messages = messages[1:] %}\n"
    "{%- else %}\n"
    "    {%- set loop_messages = messages %}\n"
    "{%- endif %}\n"
    "\n"
    "{{- bos_token }}\n"
    "{%- for message in loop_messages %}\n"
    "    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n"
    "        {{- raise_exception('After the optional system message, conversation roles must alternate "
    "user/assistant/user/assistant/...') }}\n"
    "    {%- endif %}\n"
    "    {%- if message['role'] == 'user' %}\n"
    "        {%- if loop.first and system_message is defined %}\n"
    "            {{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}\n"
    "        {%- else %}\n"
    "            {{- ' [INST] ' + message['content'] + ' [/INST]' }}\n"
    "        {%- endif %}\n"
    "    {%- elif message['role'] == 'assistant' %}\n"
    "        {{- ' ' + message['content'] + eos_token}}\n"
    "    {%- else %}\n"
    "        {{- raise_exception('Only user and assistant roles are supported, with the exception of an initial "
    "optional system message!') }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n";

// Letters with the space before them, numbers, other characters, white space: nothing is left over.
static const char pattern[] = " ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+";

static VlStatus save(const char *folder, const char *name, json_t *document) {
    char path[VL_PATH_MAX];
    if (!document) return vl_error(VL_OUT_OF_MEMORY, "out of memory for %s", name);
    VlStatus status = vl_path_join(path, folder, name);
    if (status == VL_OK) status = vl_json_save(path, document, JSON_INDENT(1));
    json_decref(document);
    return status;
}

// ---- Tokenizer -------------------------------------------------------------

// The marks of a turn take the space before them, so that an answer and the next question join without a token of
// white space.
static json_t *added_tokens(void) {
    json_t *list = json_array();
    for (int i = 0; i < SPECIALS; i++) {
        json_t *entry = json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", i, "content", specials[i], "single_word",
                                  0, "lstrip", i == ASK || i == REPLY, "rstrip", 0, "normalized", 0, "special", 1);
        json_array_append_new(list, entry);
    }
    return list;
}

static json_t *make_tokenizer(const VlWorldVocabulary *vocabulary) {
    json_t *tokens = json_deep_copy(vocabulary->tokens);
    for (int i = 0; i < SPECIALS; i++) json_object_set_new(tokens, specials[i], json_integer(i));
    json_t *split = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", pattern, "behavior",
                              "Isolated", "invert", 0);
    json_t *bytes = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
                              "use_regex", 0);
    json_t *decoder = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1,
                                "use_regex", 1);
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:O}", "type", "BPE", "dropout",
                              "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                              "byte_fallback", 0, "ignore_merges", 0, "vocab", tokens, "merges", vocabulary->merges);
    return json_pack("{s:s, s:n, s:n, s:o, s:n, s:{s:s, s:[o, o]}, s:n, s:o, s:o}", "version", "1.0", "truncation",
                     "padding", "added_tokens", added_tokens(), "normalizer", "pre_tokenizer", "type", "Sequence",
                     "pretokenizers", split, bytes, "post_processor", "decoder", decoder, "model", model);
}

static json_t *make_tokenizer_config(void) {
    return json_pack("{s:s, s:i, s:b, s:b, s:s, s:s, s:s, s:s}", "tokenizer_class", "PreTrainedTokenizerFast",
                     "model_max_length", 2048, "clean_up_tokenization_spaces", 0, "add_prefix_space", 0, "bos_token",
                     specials[BEGIN], "eos_token", specials[END], "unk_token", specials[UNKNOWN], "chat_template",
                     chat_template);
}

// ---- Configuration ---------------------------------------------------------

enum { AUDIO_WIDTH = 96, DECODER_WIDTH = 128 };

// As layers are few, none is dropped, and their gradients do not decay.
static json_t *make_audio_config(void) {
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b}", "input_patch_size", 16,
                     "embed_dim", 64, "encoder_layers", 3, "encoder_embed_dim", AUDIO_WIDTH, "encoder_ffn_embed_dim",
                     288, "encoder_attention_heads", 3, "conv_pos", 32, "conv_pos_groups", 8, "num_buckets", 64,
                     "max_distance", 128, "layer_wise_gradient_decay_ratio", 1.0, "encoder_layerdrop", 0.0,
                     "finetuned_model", 0);
}

static json_t *make_config(int64_t vocabulary) {
    return json_pack(
        "{s:s, s:[s], s:i, s:i, s:i, s:i, s:i, s:I, s:s, s:f, s:f, s:f, s:b, s:i, s:i, s:i, s:s, s:i, s:s, s:i, s:s, "
        "s:i, s:s, s:s, s:o, s:s, s:i, s:i, s:n}",
        "model_type", "videollama2_mistral", "architectures", "Videollama2MistralForCausalLM", "hidden_size",
        DECODER_WIDTH, "intermediate_size", 384, "num_hidden_layers", 4, "num_attention_heads", 4,
        "num_key_value_heads", 4, "vocab_size", (json_int_t)vocabulary, "hidden_act", "silu", "rms_norm_eps", 1e-5,
        "rope_theta", 10000.0, "initializer_range", 0.05, "tie_word_embeddings", 0, "max_position_embeddings", 2048,
        "bos_token_id", BEGIN, "eos_token_id", END, "mm_vision_tower", "tower", "mm_hidden_size", 96,
        "mm_projector_type", "stc_connector_v35", "mm_vision_select_layer", -2, "mm_vision_select_feature", "patch",
        "num_frames", 8, "image_aspect_ratio", "pad", "mm_audio_tower", "beats", "mm_audio_config", make_audio_config(),
        "mm_projector_a_type", "mlp2x_gelu", "mm_hidden_size_a", AUDIO_WIDTH, "hidden_size_a", DECODER_WIDTH,
        "sliding_window");
}

enum { TOWER_IMAGE = 48 };

static json_t *make_tower_config(void) {
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f}", "model_type", "clip_vision_model",
                     "hidden_size", 96, "intermediate_size", 288, "num_hidden_layers", 4, "num_attention_heads", 3,
                     "num_channels", 3, "image_size", TOWER_IMAGE, "patch_size", 8, "hidden_act", "quick_gelu",
                     "layer_norm_eps", 1e-5);
}

static json_t *make_preprocessor_config(void) {
    return json_pack("{s:s, s:b, s:{s:i}, s:i, s:b, s:{s:i, s:i}, s:b, s:f, s:b, s:[f,f,f], s:[f,f,f]}",
                     "image_processor_type", "CLIPImageProcessor", "do_resize", 1, "size", "shortest_edge", TOWER_IMAGE,
                     "resample", 3, "do_center_crop", 1, "crop_size", "height", TOWER_IMAGE, "width", TOWER_IMAGE,
                     "do_rescale", 1, "rescale_factor", 1.0 / 255.0, "do_normalize", 1, "image_mean", 0.48145466,
                     0.4578275, 0.40821073, "image_std", 0.26862954, 0.26130258, 0.27577711);
}

VlStatus vl_world_model_save(const char *folder, json_t *const *annotations, int64_t count, int64_t *vocabulary) {
    char tower[VL_PATH_MAX];
    VlWorldVocabulary words;
    VL_TRY(vl_path_join(tower, folder, "tower"));
    VL_TRY(vl_make_folders(tower));
    VL_TRY(vl_world_vocabulary_make(&words, SPECIALS, annotations, count));
    int64_t tokens = SPECIALS + (int64_t)json_object_size(words.tokens);
    *vocabulary = (tokens + VOCABULARY_MULTIPLE - 1) / VOCABULARY_MULTIPLE * VOCABULARY_MULTIPLE;
    VlStatus status = save(folder, "tokenizer.json", make_tokenizer(&words));
    vl_world_vocabulary_free(&words);
    VL_TRY(status);
    VL_TRY(save(folder, "tokenizer_config.json", make_tokenizer_config()));
    VL_TRY(save(folder, "config.json", make_config(*vocabulary)));
    VL_TRY(save(tower, "config.json", make_tower_config()));
    return save(tower, "preprocessor_config.json", make_preprocessor_config());
}
