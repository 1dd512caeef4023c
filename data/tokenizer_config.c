// tokenizer_config.json: which tokens begin and end a text, the chat template, and tokens that the reference adds at
// load time.
#include <stdlib.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "data/tokenizer_parts.h"

enum { CONFIG_LIMIT = 64 << 20 };

// The reference's tokenizer classes set these where the file is silent.
typedef struct ClassDefaults {
    const char *name, *bos, *eos, *unk, *pad;
    bool rewrites_post_processor;  // by add_bos_token and add_eos_token
} ClassDefaults;

static const ClassDefaults classes[] = {
    {"LlamaTokenizer", "<s>", "</s>", "<unk>", NULL, true},
    {"LlamaTokenizerFast", "<s>", "</s>", "<unk>", NULL, true},
    {"Qwen2Tokenizer", NULL, "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", false},
    {"Qwen2TokenizerFast", NULL, "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", false},
    {"PreTrainedTokenizerFast", NULL, NULL, NULL, NULL, false},
};

// A token stands as its text, or as an object with its "content".
static VlStatus token_text(const json_t *value, const char *key, const char *name, const char **text) {
    if (json_is_object(value)) return vl_json_get_string(value, name, "content", true, text);
    if (!json_is_string(value)) return vl_error(VL_FORMAT, "%s: \"%s\" must be a token's text", name, key);
    *text = json_string_value(value);
    return VL_OK;
}

// A token that the configuration names is searched for in texts even where tokenizer.json does not list it as added.
static VlStatus name_token(VlTokenizer *tokenizer, const char *text, const char *key, const char *name, int32_t *id) {
    *id = vl_vocabulary_find(&tokenizer->vocabulary, vl_span_string(text));
    if (*id < 0)
        return vl_error(VL_FORMAT, "%s: %s is \"%.80s\", which is no token of tokenizer.json", name, key, text);
    if (tokenizer->vocabulary.tokens[*id].flags & VL_TOKEN_ADDED) return VL_OK;
    return vl_tokenizer_add_token(tokenizer, vl_span_string(text), *id, true, false, &(VlAddedToken){0}, name);
}

static VlStatus load_named(VlTokenizer *tokenizer, const json_t *config, const char *key, const char *fallback,
                           const char *name, int32_t *id) {
    const json_t *value = json_object_get(config, key);
    const char *text = fallback;
    if (json_is_null(value)) text = NULL;
    if (value && !json_is_null(value)) VL_TRY(token_text(value, key, name, &text));
    return text ? name_token(tokenizer, text, key, name, id) : VL_OK;
}

static VlStatus load_added(VlTokenizer *tokenizer, const json_t *config, const char *name) {
    const char *key;
    json_t *entry;
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, entry) {
        const char *content = "";
        char *end = NULL;
        int64_t id = strtoll(key, &end, 10);
        if (!*key || *end)
            return vl_error(VL_FORMAT, "%s: added_tokens_decoder has the key \"%.80s\", which is no id", name, key);
        VL_TRY(vl_json_get_string(entry, name, "content", true, &content));
        int32_t present = vl_vocabulary_find(&tokenizer->vocabulary, vl_span_string(content));
        if (present == id && (tokenizer->vocabulary.tokens[present].flags & VL_TOKEN_ADDED)) continue;
        VlAddedToken flags = {0};
        bool special = false, normalized;
        VL_TRY(vl_json_get_bool(entry, name, "special", false, &special));
        normalized = !special;
        VL_TRY(vl_json_get_bool(entry, name, "normalized", false, &normalized));
        VL_TRY(vl_json_get_bool(entry, name, "single_word", false, &flags.single_word));
        VL_TRY(vl_json_get_bool(entry, name, "lstrip", false, &flags.strip_left));
        VL_TRY(vl_json_get_bool(entry, name, "rstrip", false, &flags.strip_right));
        VL_TRY(vl_tokenizer_add_token(tokenizer, vl_span_string(content), id, special, normalized, &flags, name));
    }
    const json_t *additional = json_object_get(config, "additional_special_tokens");
    for (size_t i = 0; i < json_array_size(additional); i++) {
        const char *text = NULL;
        int32_t id;
        VL_TRY(token_text(json_array_get(additional, i), "additional_special_tokens", name, &text));
        VL_TRY(name_token(tokenizer, text, "a token of additional_special_tokens", name, &id));
    }
    return VL_OK;
}

static VlStatus load_post_processor(VlTokenizer *tokenizer, const json_t *config, const char *name) {
    bool add_bos = true, add_eos = false;
    VL_TRY(vl_json_get_bool(config, name, "add_bos_token", false, &add_bos));
    VL_TRY(vl_json_get_bool(config, name, "add_eos_token", false, &add_eos));
    if ((add_bos && tokenizer->bos < 0) || (add_eos && tokenizer->eos < 0)) {
        return vl_error(VL_FORMAT, "%s: add_bos_token or add_eos_token is true, but that token is not named", name);
    }
    tokenizer->prefix.count = tokenizer->suffix.count = 0;
    if (add_bos) VL_TRY(vl_token_ids_append(&tokenizer->prefix, tokenizer->bos));
    if (add_eos) VL_TRY(vl_token_ids_append(&tokenizer->suffix, tokenizer->eos));
    return VL_OK;
}

static VlStatus load_config(VlTokenizer *tokenizer, const json_t *config, const char *name) {
    const char *class_name = "PreTrainedTokenizerFast";
    VL_TRY(vl_json_get_string(config, name, "tokenizer_class", false, &class_name));
    const ClassDefaults *class = NULL;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (!strcmp(classes[i].name, class_name)) class = &classes[i];
    }
    if (!class) return vl_error(VL_UNSUPPORTED, "%s: tokenizer_class \"%.80s\" is not known", name, class_name);
    VL_TRY(load_added(tokenizer, config, name));
    VL_TRY(load_named(tokenizer, config, "bos_token", class->bos, name, &tokenizer->bos));
    VL_TRY(load_named(tokenizer, config, "eos_token", class->eos, name, &tokenizer->eos));
    VL_TRY(load_named(tokenizer, config, "unk_token", class->unk, name, &tokenizer->unk));
    VL_TRY(load_named(tokenizer, config, "pad_token", class->pad, name, &tokenizer->pad));
    if (class->rewrites_post_processor) VL_TRY(load_post_processor(tokenizer, config, name));
    tokenizer->clean_up = true;
    VL_TRY(vl_json_get_bool(config, name, "clean_up_tokenization_spaces", false, &tokenizer->clean_up));
    const json_t *template = json_object_get(config, "chat_template");
    if (!template || json_is_null(template)) return VL_OK;
    if (!json_is_string(template)) {
        return vl_error(VL_UNSUPPORTED, "%s: chat_template must be one text; lists of templates are not supported",
                        name);
    }
    return vl_duplicate_string(&tokenizer->chat_template, json_string_value(template));
}

VlStatus vl_tokenizer_load_config(VlTokenizer *tokenizer, const char *path) {
    char *text;
    int64_t size;
    VL_TRY(vl_read_file(path, CONFIG_LIMIT, &text, &size));
    // Integers as real numbers: model_max_length is often 10^30, which fits no integer. No integer of this file is
    // needed.
    json_error_t problem;
    json_t *config = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &problem);
    vl_free(text);
    if (!config) {
        return vl_error(VL_FORMAT, "%s: line %d, column %d: %s", path, problem.line, problem.column, problem.text);
    }
    VlStatus status = load_config(tokenizer, config, path);
    json_decref(config);
    return status;
}
