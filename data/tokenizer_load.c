// tokenizer.json: the file as a whole, the model's vocabulary and merges, and the added tokens.
#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "data/tokenizer_parts.h"

enum { FILE_LIMIT = 256 << 20 };

static VlStatus refuse_unknown_keys(const json_t *object, const char *const *known, const char *name) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        bool found = false;
        for (int64_t i = 0; known[i] && !found; i++) found = !strcmp(known[i], key);
        if (!found) return vl_error(VL_UNSUPPORTED, "%s: the key \"%.80s\" is not known", name, key);
    }
    return VL_OK;
}

static VlStatus load_vocabulary(VlVocabulary *vocabulary, const json_t *model, const char *name) {
    json_t *vocab = json_object_get(model, "vocab"), *value;
    if (!json_is_object(vocab))
        return vl_error(VL_FORMAT, "%s: the model's \"vocab\" must be an object of tokens and ids", name);
    const char *key;
    json_object_foreach(vocab, key, value) {
        if (!json_is_integer(value))
            return vl_error(VL_FORMAT, "%s: the id of token \"%.80s\" is no integer", name, key);
        VL_TRY(vl_vocabulary_add(vocabulary, vl_span_string(key), json_integer_value(value), VL_TOKEN_MODEL, name));
    }
    return VL_OK;
}

// A merge is "left right", or in newer files ["left", "right"].
static VlStatus split_merge(const json_t *merge, int64_t rank, VlSpan *left, VlSpan *right, const char *name) {
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *space = strchr(text, ' ');
        if (space && !strchr(space + 1, ' ')) {
            *left = vl_span(text, space - text);
            *right = vl_span_string(space + 1);
            return VL_OK;
        }
    } else if (json_array_size(merge) == 2 && json_is_string(json_array_get(merge, 0)) &&
               json_is_string(json_array_get(merge, 1))) {
        *left = vl_span_string(json_string_value(json_array_get(merge, 0)));
        *right = vl_span_string(json_string_value(json_array_get(merge, 1)));
        return VL_OK;
    }
    return vl_error(VL_FORMAT, "%s: merge number %lld is no pair of tokens", name, (long long)rank);
}

static VlStatus load_merges(VlTokenizer *tokenizer, const json_t *model, const char *name) {
    const json_t *merges = json_object_get(model, "merges");
    if (!json_is_array(merges)) return vl_error(VL_FORMAT, "%s: the model's \"merges\" must be a list", name);
    int64_t count = (int64_t)json_array_size(merges);
    if (count > INT32_MAX) return vl_error(VL_FORMAT, "%s: %lld merges are too many", name, (long long)count);
    VL_TRY(vl_merges_create(&tokenizer->bpe.merges, count));
    VlText joined = {0};
    VlStatus status = VL_OK;
    for (int64_t rank = 0; rank < count; rank++) {
        VlSpan left, right;
        VL_TRY_GOTO(status, split_merge(json_array_get(merges, (size_t)rank), rank, &left, &right, name), done);
        joined.length = 0;
        VL_TRY_GOTO(status, vl_text_append(&joined, left), done);
        VL_TRY_GOTO(status, vl_text_append(&joined, right), done);
        int32_t left_id = vl_vocabulary_find_model(&tokenizer->vocabulary, left);
        int32_t right_id = vl_vocabulary_find_model(&tokenizer->vocabulary, right);
        int32_t id = vl_vocabulary_find_model(&tokenizer->vocabulary, vl_text_span(&joined));
        if (left_id < 0 || right_id < 0 || id < 0) {
            const char *missing = left_id < 0 ? "its left part" : right_id < 0 ? "its right part" : "its result";
            status = vl_error(VL_FORMAT, "%s: merge number %lld gives \"%.80s\", but %s is not in the vocabulary", name,
                              (long long)rank, joined.data, missing);
            goto done;
        }
        vl_merges_set(&tokenizer->bpe.merges, left_id, right_id, (int32_t)rank, id);
    }
done:
    vl_text_free(&joined);
    return status;
}

static VlStatus refuse_affix(const json_t *model, const char *key, const char *name) {
    const char *affix = "";
    VL_TRY(vl_json_get_string(model, name, key, false, &affix));
    if (*affix) return vl_error(VL_UNSUPPORTED, "%s: the model's %s \"%.80s\" is not supported", name, key, affix);
    return VL_OK;
}

static VlStatus load_byte_fallback(VlTokenizer *tokenizer, const char *name) {
    for (int byte = 0; byte < 256; byte++) {
        char text[] = "<0x00>";
        text[3] = "0123456789ABCDEF"[byte >> 4];
        text[4] = "0123456789ABCDEF"[byte & 15];
        int32_t id = vl_vocabulary_find_model(&tokenizer->vocabulary, vl_span_string(text));
        if (id < 0) return vl_error(VL_FORMAT, "%s: byte_fallback is on, but the token %s is missing", name, text);
        tokenizer->bpe.byte_ids[byte] = id;
    }
    tokenizer->bpe.has_byte_fallback = true;
    return VL_OK;
}

static VlStatus load_model(VlTokenizer *tokenizer, const json_t *document, const char *name) {
    static const char *const known[] = {"type",
                                        "dropout",
                                        "unk_token",
                                        "continuing_subword_prefix",
                                        "end_of_word_suffix",
                                        "fuse_unk",
                                        "byte_fallback",
                                        "ignore_merges",
                                        "vocab",
                                        "merges",
                                        NULL};
    const json_t *model = json_object_get(document, "model");
    const char *type = "", *unknown = NULL;
    double dropout = 0;
    bool byte_fallback = false;
    VlBpe *bpe = &tokenizer->bpe;
    VL_TRY_CONTEXT(vl_json_get_string(model, name, "type", true, &type), "the model of the tokenizer");
    if (strcmp(type, "BPE"))
        return vl_error(VL_UNSUPPORTED, "%s: models of type \"%.80s\" are not supported, only BPE", name, type);
    VL_TRY(refuse_unknown_keys(model, known, name));
    VL_TRY(vl_json_get_double(model, name, "dropout", false, &dropout));
    if (dropout != 0) return vl_error(VL_UNSUPPORTED, "%s: the model's dropout %g is not supported", name, dropout);
    VL_TRY(refuse_affix(model, "continuing_subword_prefix", name));
    VL_TRY(refuse_affix(model, "end_of_word_suffix", name));
    VL_TRY(vl_json_get_bool(model, name, "fuse_unk", false, &bpe->fuse_unknown));
    VL_TRY(vl_json_get_bool(model, name, "byte_fallback", false, &byte_fallback));
    VL_TRY(vl_json_get_bool(model, name, "ignore_merges", false, &bpe->ignore_merges));
    VL_TRY(vl_json_get_string(model, name, "unk_token", false, &unknown));
    VL_TRY(load_vocabulary(&tokenizer->vocabulary, model, name));
    VL_TRY(load_merges(tokenizer, model, name));
    bpe->unknown = unknown ? vl_vocabulary_find_model(&tokenizer->vocabulary, vl_span_string(unknown)) : -1;
    if (unknown && bpe->unknown < 0) {
        return vl_error(VL_FORMAT, "%s: the model's unk_token \"%.80s\" is not in the vocabulary", name, unknown);
    }
    return byte_fallback ? load_byte_fallback(tokenizer, name) : VL_OK;
}

VlStatus vl_tokenizer_add_token(VlTokenizer *tokenizer, VlSpan text, int64_t id, bool special, bool normalized,
                                const VlAddedToken *flags, const char *name) {
    VlVocabulary *vocabulary = &tokenizer->vocabulary;
    if (text.length < 1 || text.length > VL_TOKEN_BYTES_LIMIT) {
        return vl_error(VL_FORMAT, "%s: the added token with id %lld has %lld bytes, not 1 to %d", name, (long long)id,
                        (long long)text.length, VL_TOKEN_BYTES_LIMIT);
    }
    uint32_t marks = VL_TOKEN_ADDED | (special ? VL_TOKEN_SPECIAL : 0);
    int32_t present = vl_vocabulary_find(vocabulary, text);
    if (present >= 0 && present != id) {
        return vl_error(VL_FORMAT, "%s: the added token \"%.80s\" has the id %lld, but in the vocabulary it has %d",
                        name, text.data, (long long)id, present);
    }
    if (present >= 0 && (vocabulary->tokens[present].flags & VL_TOKEN_ADDED)) {
        return vl_error(VL_FORMAT, "%s: the token \"%.80s\" is added twice", name, text.data);
    }
    if (present >= 0) {
        vocabulary->tokens[present].flags |= marks;
    } else {
        VL_TRY(vl_vocabulary_add(vocabulary, text, id, marks, name));
    }
    VlAddedToken token = *flags;
    token.id = (int32_t)id;
    if (!normalized) return vl_added_set_add(&tokenizer->added, text, &token);
    VlText searched = {0}, spare = {0};
    VlStatus status;
    VL_TRY_GOTO(status, vl_text_append(&searched, text), done);
    VL_TRY_GOTO(status, vl_normalize(&tokenizer->normalizer, &searched, &spare), done);
    if (searched.length > 0) status = vl_added_set_add(&tokenizer->added_normalized, vl_text_span(&searched), &token);
done:
    vl_text_free(&searched);
    vl_text_free(&spare);
    return status;
}

static VlStatus load_added_tokens(VlTokenizer *tokenizer, const json_t *document, const char *name) {
    const json_t *list = json_object_get(document, "added_tokens");
    if (!list || json_is_null(list)) return VL_OK;
    if (!json_is_array(list)) return vl_error(VL_FORMAT, "%s: \"added_tokens\" must be a list", name);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        static const char *const known[] = {"id",     "content",    "single_word", "lstrip",
                                            "rstrip", "normalized", "special",     NULL};
        VlAddedToken flags = {0};
        const char *content = "";
        int64_t id = -1;
        bool special = false, normalized = true;
        VL_TRY(vl_json_get_int(entry, name, "id", true, &id));
        VL_TRY(vl_json_get_string(entry, name, "content", true, &content));
        VL_TRY(vl_json_get_bool(entry, name, "special", false, &special));
        normalized = !special;
        VL_TRY(vl_json_get_bool(entry, name, "normalized", false, &normalized));
        VL_TRY(vl_json_get_bool(entry, name, "single_word", false, &flags.single_word));
        VL_TRY(vl_json_get_bool(entry, name, "lstrip", false, &flags.strip_left));
        VL_TRY(vl_json_get_bool(entry, name, "rstrip", false, &flags.strip_right));
        VL_TRY(refuse_unknown_keys(entry, known, name));
        VL_TRY(vl_tokenizer_add_token(tokenizer, vl_span_string(content), id, special, normalized, &flags, name));
    }
    return VL_OK;
}

static VlStatus load_json(VlTokenizer *tokenizer, const char *path) {
    static const char *const known[] = {"version",       "truncation",     "padding", "added_tokens", "normalizer",
                                        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    json_t *document = NULL;
    VL_TRY(vl_json_load(path, FILE_LIMIT, &document));
    VlStatus status = VL_OK;
    if (!json_is_object(document)) {
        status = vl_error(VL_FORMAT, "%s: an object was expected", path);
        goto done;
    }
    VL_TRY_GOTO(status, refuse_unknown_keys(document, known, path), done);
    VL_TRY_GOTO(status, load_model(tokenizer, document, path), done);
    VL_TRY_GOTO(status, vl_tokenizer_load_components(tokenizer, document, path), done);
    VL_TRY_GOTO(status, load_added_tokens(tokenizer, document, path), done);
done:
    json_decref(document);
    return status;
}

VlStatus vl_tokenizer_load(VlTokenizer **tokenizer, const char *folder) {
    char path[VL_PATH_MAX];
    VlTokenizer *loaded;
    VL_TRY(VL_NEW(&loaded, 1));
    loaded->bpe.unknown = loaded->bos = loaded->eos = loaded->pad = loaded->unk = -1;
    VlStatus status;
    VL_TRY_GOTO(status, vl_path_join(path, folder, "tokenizer.json"), failed);
    VL_TRY_GOTO(status, load_json(loaded, path), failed);
    VL_TRY_GOTO(status, vl_path_join(path, folder, "tokenizer_config.json"), failed);
    VL_TRY_GOTO(status, vl_tokenizer_load_config(loaded, path), failed);
    vl_added_set_sort(&loaded->added);
    vl_added_set_sort(&loaded->added_normalized);
    *tokenizer = loaded;
    return VL_OK;
failed:
    vl_tokenizer_free(loaded);
    return status;
}
