// tokenizer.json: normalizer, pre_tokenizer, post_processor and decoder. What is not known is refused by name.
#include "base/json.h"
#include "base/memory.h"
#include "data/tokenizer_parts.h"

static VlStatus unsupported(const char *name, const char *part, const char *what) {
    return vl_error(VL_UNSUPPORTED, "%s: the %s %.80s is not supported", name, part, what);
}

static VlStatus add_step(VlTextSteps *steps, const VlTextStep *step, const char *part, const char *name) {
    if (steps->count == VL_TOKENIZER_STEPS_LIMIT) {
        return vl_error(VL_UNSUPPORTED, "%s: the %s has more than %d components", name, part, VL_TOKENIZER_STEPS_LIMIT);
    }
    VlTextStep *added = &steps->steps[steps->count];
    *added = (VlTextStep){.kind = step->kind, .start = step->start, .stop = step->stop};
    steps->count++;
    if (step->text) VL_TRY(vl_duplicate_string(&added->text, step->text));
    if (step->pattern) VL_TRY(vl_duplicate_string(&added->pattern, step->pattern));
    return VL_OK;
}

// Calls `load` for a component, or for each one of a Sequence under `key`.
typedef VlStatus (*VlLoadComponent)(VlTokenizer *tokenizer, const json_t *component, const char *type,
                                    const char *name);

static VlStatus load_part(VlTokenizer *tokenizer, const json_t *component, const char *key, VlLoadComponent load,
                          const char *name) {
    if (!component || json_is_null(component)) return VL_OK;
    const char *type = "";
    VL_TRY(vl_json_get_string(component, name, "type", true, &type));
    if (strcmp(type, "Sequence")) return load(tokenizer, component, type, name);
    const json_t *list = json_object_get(component, key);
    if (!json_is_array(list)) return vl_error(VL_FORMAT, "%s: a Sequence needs the list \"%s\"", name, key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        VL_TRY(vl_json_get_string(json_array_get(list, i), name, "type", true, &type));
        if (!strcmp(type, "Sequence")) return unsupported(name, key, "Sequence within a Sequence");
        VL_TRY(load(tokenizer, json_array_get(list, i), type, name));
    }
    return VL_OK;
}

static VlStatus load_replace(VlTextSteps *steps, const json_t *component, const char *part, const char *name) {
    VlTextStep step = {.kind = VL_STEP_REPLACE};
    const char *content = "", *pattern = NULL;
    VL_TRY(vl_json_get_string(component, name, "content", true, &content));
    const json_t *wrapped = json_object_get(component, "pattern");
    if (json_is_object(wrapped)) VL_TRY(vl_json_get_string(wrapped, name, "String", false, &pattern));
    if (!pattern || !*pattern) return unsupported(name, part, "Replace of anything but a string");
    step.text = (char *)content;
    step.pattern = (char *)pattern;
    return add_step(steps, &step, part, name);
}

// ---- Normaliser ------------------------------------------------------------

static VlStatus load_normalizer(VlTokenizer *tokenizer, const json_t *component, const char *type, const char *name) {
    VlTextSteps *steps = &tokenizer->normalizer;
    if (!strcmp(type, "NFC")) return add_step(steps, &(VlTextStep){.kind = VL_STEP_NFC}, "normalizer", name);
    if (!strcmp(type, "Replace")) return load_replace(steps, component, "normalizer", name);
    if (strcmp(type, "Prepend")) return unsupported(name, "normalizer", type);
    const char *text = "";
    VL_TRY(vl_json_get_string(component, name, "prepend", true, &text));
    return add_step(steps, &(VlTextStep){.kind = VL_STEP_PREPEND, .text = (char *)text}, "normalizer", name);
}

// ---- Pre-tokeniser ---------------------------------------------------------

static VlStatus load_split(VlPretokenizer *pretokenizer, const json_t *component, const char *name) {
    const char *behavior = "", *expression = NULL;
    bool invert = false;
    if (pretokenizer->pattern || pretokenizer->byte_level) {
        return unsupported(name, "pre_tokenizer", "Split behind another component");
    }
    VL_TRY(vl_json_get_string(component, name, "behavior", true, &behavior));
    VL_TRY(vl_json_get_bool(component, name, "invert", false, &invert));
    if (strcmp(behavior, "Isolated")) return unsupported(name, "behavior of the pre_tokenizer Split", behavior);
    if (invert) return unsupported(name, "pre_tokenizer", "Split with invert");
    const json_t *pattern = json_object_get(component, "pattern");
    if (json_is_object(pattern)) VL_TRY(vl_json_get_string(pattern, name, "Regex", false, &expression));
    if (!expression) return unsupported(name, "pre_tokenizer", "Split without a regular expression");
    return vl_pretokenizer_compile(pretokenizer, expression, name);
}

static VlStatus load_pretokenizer(VlTokenizer *tokenizer, const json_t *component, const char *type, const char *name) {
    VlPretokenizer *pretokenizer = &tokenizer->pretokenizer;
    if (!strcmp(type, "Split")) return load_split(pretokenizer, component, name);
    if (strcmp(type, "ByteLevel")) return unsupported(name, "pre_tokenizer", type);
    bool prefix_space = true, use_regex = true;
    VL_TRY(vl_json_get_bool(component, name, "add_prefix_space", false, &prefix_space));
    VL_TRY(vl_json_get_bool(component, name, "use_regex", false, &use_regex));
    if (prefix_space) return unsupported(name, "pre_tokenizer", "ByteLevel with add_prefix_space");
    if (use_regex) return unsupported(name, "pre_tokenizer", "ByteLevel with use_regex");
    if (pretokenizer->byte_level) return unsupported(name, "pre_tokenizer", "second ByteLevel");
    pretokenizer->byte_level = true;
    return VL_OK;
}

// ---- Post-processor --------------------------------------------------------

static VlStatus add_special_ids(const json_t *component, const char *id, VlTokenIds *out, const char *name) {
    const json_t *ids = json_object_get(json_object_get(json_object_get(component, "special_tokens"), id), "ids");
    if (!json_is_array(ids)) {
        return vl_error(VL_FORMAT, "%s: the post_processor names \"%.80s\", but not its ids", name, id);
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *value = json_array_get(ids, i);
        int64_t token = json_is_integer(value) ? json_integer_value(value) : -1;
        if (token < 0 || token >= VL_TOKEN_ID_LIMIT) {
            return vl_error(VL_FORMAT, "%s: the post_processor has no valid id for \"%.80s\"", name, id);
        }
        VL_TRY(vl_token_ids_append(out, token));
    }
    return VL_OK;
}

static VlStatus load_postprocessor(VlTokenizer *tokenizer, const json_t *component, const char *type,
                                   const char *name) {
    if (!strcmp(type, "ByteLevel")) return VL_OK;  // it moves offsets, not ids
    if (strcmp(type, "TemplateProcessing")) return unsupported(name, "post_processor", type);
    const json_t *items = json_object_get(component, "single");
    if (!json_is_array(items)) return vl_error(VL_FORMAT, "%s: the post_processor's \"single\" must be a list", name);
    int64_t sequences = 0;
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *special = json_object_get(json_array_get(items, i), "SpecialToken");
        const json_t *sequence = json_object_get(json_array_get(items, i), "Sequence");
        const char *id = "";
        VL_TRY(vl_json_get_string(special ? special : sequence, name, "id", true, &id));
        if (special) {
            VL_TRY(add_special_ids(component, id, sequences ? &tokenizer->suffix : &tokenizer->prefix, name));
        } else if (strcmp(id, "A")) {
            return unsupported(name, "sequence of the post_processor", id);
        } else {
            sequences++;
        }
    }
    if (sequences != 1) return unsupported(name, "post_processor", "TemplateProcessing with other than one sequence");
    return VL_OK;
}

// ---- Decoder ---------------------------------------------------------------

static VlStatus load_strip(VlTextSteps *steps, const json_t *component, const char *name) {
    VlTextStep step = {.kind = VL_STEP_STRIP};
    const char *content = "";
    VL_TRY(vl_json_get_string(component, name, "content", true, &content));
    VL_TRY(vl_json_get_int(component, name, "start", true, &step.start));
    VL_TRY(vl_json_get_int(component, name, "stop", true, &step.stop));
    int32_t character;
    VlSpan text = vl_span_string(content);
    if (text.length == 0 || vl_utf8_decode(text, 0, &character) != text.length || step.start < 0 || step.stop < 0) {
        return vl_error(VL_FORMAT, "%s: the decoder Strip needs one character and counts of at least 0", name);
    }
    step.text = (char *)content;
    return add_step(steps, &step, "decoder", name);
}

// These two read tokens one by one.
static VlStatus check_tokens_come(const VlTextSteps *steps, const char *type, const char *name) {
    for (int64_t i = 0; i < steps->count; i++) {
        if (!vl_step_joins(steps->steps[i].kind)) continue;
        return vl_error(VL_UNSUPPORTED, "%s: the decoder %s behind one that joins the tokens is not supported", name,
                        type);
    }
    return VL_OK;
}

static VlStatus load_decoder(VlTokenizer *tokenizer, const json_t *component, const char *type, const char *name) {
    VlTextSteps *steps = &tokenizer->decoder;
    if (!strcmp(type, "Replace")) return load_replace(steps, component, "decoder", name);
    if (!strcmp(type, "Strip")) return load_strip(steps, component, name);
    static const struct {
        const char *type;
        VlTextStepKind kind;
    } plain[] = {{"ByteLevel", VL_STEP_BYTE_LEVEL}, {"ByteFallback", VL_STEP_BYTE_FALLBACK}, {"Fuse", VL_STEP_FUSE}};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (strcmp(type, plain[i].type)) continue;
        if (plain[i].kind != VL_STEP_FUSE) VL_TRY(check_tokens_come(steps, type, name));
        return add_step(steps, &(VlTextStep){.kind = plain[i].kind}, "decoder", name);
    }
    return unsupported(name, "decoder", type);
}

VlStatus vl_tokenizer_load_components(VlTokenizer *tokenizer, const json_t *document, const char *name) {
    VL_TRY(load_part(tokenizer, json_object_get(document, "normalizer"), "normalizers", load_normalizer, name));
    VL_TRY(load_part(tokenizer, json_object_get(document, "pre_tokenizer"), "pretokenizers", load_pretokenizer, name));
    VL_TRY(load_part(tokenizer, json_object_get(document, "post_processor"), "processors", load_postprocessor, name));
    VL_TRY(load_part(tokenizer, json_object_get(document, "decoder"), "decoders", load_decoder, name));
    if (tokenizer->decoder.count == 0) return unsupported(name, "decoder", "null");
    return VL_OK;
}
