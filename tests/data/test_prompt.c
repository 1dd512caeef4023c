#include "data/prompt.h"

#include "data/template.h"
#include "text_fixture.h"

// Model folders are kept from case to case: one per tokenizer and template.
typedef struct Model {
    char name[64];
    VlTokenizer *tokenizer;
    VlPromptFamily family;
} Model;

enum { MODELS = 16 };
static const char cases_path[] = GOLDEN "/prompt/cases.jsonl.zst";

static json_t *read_templates(void) {
    json_error_t problem;
    json_t *templates = json_load_file(GOLDEN "/tokenizer/chat_templates.json", 0, &problem);
    assert_non_null(templates);
    return templates;
}

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static void load_model(Model *model, const char *tokenizer, const char *chat_template, const char *model_type) {
    char folder[VL_PATH_MAX], config[128];
    make_folder(folder);
    put_tokenizer(folder, tokenizer, chat_template);
    snprintf(config, sizeof config, "{\"model_type\":\"%s\"}", model_type);
    put_file(folder, "config.json", config, (int64_t)strlen(config));
    must(vl_tokenizer_load(&model->tokenizer, folder));
    must(vl_prompt_family_load(&model->family, folder));
    must(vl_remove_tree(folder));
}

static Model *find_model(Model *models, const json_t *one, const json_t *templates) {
    char name[64];
    snprintf(name, sizeof name, "%s %s %s", text_of(one, "tokenizer"), text_of(one, "template"),
             text_of(one, "model_type"));
    int i = 0;
    while (models[i].name[0] && strcmp(models[i].name, name)) i++;
    assert_true(i + 1 < MODELS);
    if (!models[i].name[0]) {
        strcpy(models[i].name, name);
        load_model(&models[i], text_of(one, "tokenizer"), text_of(templates, text_of(one, "template")),
                   text_of(one, "model_type"));
    }
    return &models[i];
}

static VlStatus make(const VlTokenizer *tokenizer, VlPromptRules rules, const json_t *sample, VlPrompt *prompt) {
    VlConversation conversation = {0};
    VlStatus status = vl_conversation_from_json(&conversation, sample, "sample");
    if (!status) status = vl_prompt_make(tokenizer, &rules, &conversation, prompt);
    vl_conversation_free(&conversation);
    return status;
}

static void test_golden(void **state) {
    (void)state;
    Model models[MODELS] = {0};
    json_t *templates = read_templates(), *cases = read_cases(cases_path);
    assert_int_equal(json_array_size(cases), 37);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i);
        const Model *model = find_model(models, one, templates);
        VlPromptRules rules = {.family = model->family};
        VlPrompt prompt = {0};
        must(vl_protocol_parse(&rules.protocol, text_of(one, "protocol")));
        must(vl_prompt_mode_parse(&rules.mode, text_of(one, "mode")));
        VlStatus status = make(model->tokenizer, rules, json_object_get(one, "sample"), &prompt);
        if (json_object_get(one, "error")) {
            assert_int_equal(status, VL_INVALID);
        } else {
            must(status);
            if (!same_ids(json_object_get(one, "input_ids"), &prompt.input_ids)) fail_msg("ids of case %zu differ", i);
            if (!same_ids(json_object_get(one, "labels"), &prompt.labels)) fail_msg("labels of case %zu differ", i);
        }
        vl_prompt_free(&prompt);
    }
    for (int i = 0; i < MODELS; i++) vl_tokenizer_free(models[i].tokenizer);
    json_decref(cases);
    json_decref(templates);
}

// ---- Templates -------------------------------------------------------------

static void expect_render(VlTemplate shape, const char *roles, bool generation_prompt, const char *expected) {
    VlConversation conversation = {0};
    VlText text = {0};
    for (const char *role = roles; *role; role++) {
        VlRole kind = *role == 's' ? VL_ROLE_SYSTEM : *role == 'u' ? VL_ROLE_USER : VL_ROLE_ASSISTANT;
        char content[] = " ? ";
        content[1] = *role;
        must(vl_conversation_append(&conversation, kind, vl_span_string(content)));
    }
    VlStatus status =
        vl_template_render(shape, conversation.turns, conversation.count, generation_prompt, "<s>", "</s>", &text);
    if (expected) {
        must(status);
        assert_string_equal(text.data, expected);
    } else if (status != VL_INVALID) {
        fail_msg("roles %s: status %d instead of a refusal", roles, (int)status);
    }
    vl_text_free(&text);
    vl_conversation_free(&conversation);
}

static void test_templates(void **state) {
    (void)state;
    json_t *templates = read_templates();
    const char *name;
    json_t *text;
    assert_int_equal(json_object_size(templates), 5);
    json_object_foreach(templates, name, text) {
        VlTemplate shape;
        must(vl_template_recognize(&shape, json_string_value(text)));
        assert_string_equal(vl_template_name(shape), name);
    }
    VlTemplate shape;
    assert_int_equal(vl_template_recognize(&shape, "{{ bos_token }}"), VL_UNSUPPORTED);
    assert_non_null(strstr(vl_error_text(), "hash"));
    json_object_foreach(templates, name, text) assert_non_null(strstr(vl_error_text(), name));
    assert_non_null(strstr(vl_error_text(), "take the tokenizer_config.json of the model's release"));
    json_decref(templates);
    // One character more is another template.
    assert_int_equal(vl_template_recognize(&shape, "{{ bos_token }} "), VL_UNSUPPORTED);
    assert_int_equal(vl_template_recognize(&shape, NULL), VL_UNSUPPORTED);

    expect_render(VL_TEMPLATE_MISTRAL_SYSTEM, "suau", true, "<s> [INST]  s \n\n u  [/INST]  a </s> [INST]  u  [/INST]");
    expect_render(VL_TEMPLATE_MISTRAL_SYSTEM, "s", false, "<s>");
    expect_render(VL_TEMPLATE_MISTRAL_2023, "ua", false, "<s>[INST]  u  [/INST] a </s>");
    expect_render(VL_TEMPLATE_MISTRAL_STRIP, "suau", false, "<s>[INST] s\n\n u [/INST] a </s>[INST] u [/INST]");
    expect_render(VL_TEMPLATE_MISTRAL_STRIP, "us", false, "<s>[INST] u [/INST]");
    expect_render(VL_TEMPLATE_CHATML_QWEN2, "ua", true,
                  "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n u <|im_end|>\n"
                  "<|im_start|>assistant\n a <|im_end|>\n<|im_start|>assistant\n");
    expect_render(VL_TEMPLATE_CHATML_QWEN2, "su", false,
                  "<|im_start|>system\n s <|im_end|>\n<|im_start|>user\n u <|im_end|>\n");
    expect_render(VL_TEMPLATE_CHATML_PLAIN, "aa", false,
                  "<|im_start|>assistant\n a <|im_end|>\n<|im_start|>assistant\n a <|im_end|>\n");
    for (int i = VL_TEMPLATE_MISTRAL_SYSTEM; i <= VL_TEMPLATE_MISTRAL_STRIP; i++) {
        expect_render((VlTemplate)i, "a", false, NULL);
        expect_render((VlTemplate)i, "uu", false, NULL);
        expect_render((VlTemplate)i, "uaa", false, NULL);
        expect_render((VlTemplate)i, "", false, NULL);
    }
    expect_render(VL_TEMPLATE_MISTRAL_2023, "su", false, NULL);
    expect_render(VL_TEMPLATE_MISTRAL_2023, "us", false, NULL);
    expect_render(VL_TEMPLATE_MISTRAL_SYSTEM, "us", false, NULL);
    expect_render(VL_TEMPLATE_CHATML_PLAIN, "", false, NULL);
}

// ---- Conversations ---------------------------------------------------------

static json_t *parse(const char *text) {
    json_error_t problem;
    json_t *sample = json_loads(text, JSON_DECODE_ANY, &problem);
    if (!sample) fail_msg("%s: %s", text, problem.text);
    return sample;
}

static VlStatus from_text(VlConversation *conversation, const char *text) {
    json_t *sample = parse(text);
    VlStatus status = vl_conversation_from_json(conversation, sample, "sample");
    json_decref(sample);
    return status;
}

#define TURNS "\"conversations\":[{\"from\":\"human\",\"value\":\"<image>\\nQ\"},{\"from\":\"gpt\",\"value\":\"A\"}]"

static void expect_modal(const char *text, VlModal modal, bool with_audio, const char *media) {
    VlConversation conversation = {0};
    must(from_text(&conversation, text));
    assert_int_equal(conversation.modal, modal);
    assert_int_equal(conversation.with_audio, with_audio);
    assert_string_equal(conversation.media ? conversation.media : "none", media);
    assert_int_equal(conversation.count, 2);
    assert_int_equal(conversation.turns[1].role, VL_ROLE_ASSISTANT);
    assert_string_equal(conversation.turns[1].text.data, "A");
    vl_conversation_free(&conversation);
}

static void test_conversation(void **state) {
    (void)state;
    expect_modal("{" TURNS "}", VL_MODAL_TEXT, false, "none");
    expect_modal("{\"image\":\"a.png\"," TURNS "}", VL_MODAL_IMAGE, false, "a.png");
    expect_modal("{\"video\":\"a.mp4\",\"va\":true," TURNS "}", VL_MODAL_VIDEO, true, "a.mp4");
    expect_modal("{\"audio\":\"a.wav\",\"va\":false,\"id\":3," TURNS "}", VL_MODAL_AUDIO, false, "a.wav");
    expect_modal("{\"video\":\"a.JPG\"," TURNS "}", VL_MODAL_IMAGE, false, "a.JPG");
    expect_modal("{\"modal\":\"video\"," TURNS "}", VL_MODAL_VIDEO, false, "none");
    static const char *const bad[] = {"[]",
                                      "7",
                                      "{}",
                                      "{\"conversations\":[]}",
                                      "{\"conversations\":{}}",
                                      "{\"conversations\":[1]}",
                                      "{\"conversations\":[{\"from\":\"human\"}]}",
                                      "{\"conversations\":[{\"value\":\"x\"}]}",
                                      "{\"conversations\":[{\"from\":\"user\",\"value\":\"x\"}]}",
                                      "{\"conversations\":[{\"from\":\"gpt\",\"value\":null}]}",
                                      "{\"conversations\":[{\"from\":1,\"value\":\"x\"}]}",
                                      "{\"image\":\"a\",\"video\":\"b\"," TURNS "}",
                                      "{\"image\":[\"a\"]," TURNS "}",
                                      "{\"image\":\"a\",\"va\":true," TURNS "}",
                                      "{\"video\":\"a\",\"va\":1," TURNS "}",
                                      "{\"modal\":\"smell\"," TURNS "}",
                                      "{\"modal\":\"text\",\"image\":\"a\"," TURNS "}",
                                      "{\"instruct\":5}",
                                      "{\"instruct\":\"x\"," TURNS "}",
                                      "{\"messages\":[]}",
                                      "{\"messages\":[{\"role\":\"human\",\"content\":\"x\"}]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        VlConversation conversation = {0};
        VlStatus status = from_text(&conversation, bad[i]);
        if (status != VL_FORMAT) fail_msg("%s: status %d", bad[i], (int)status);
        vl_conversation_free(&conversation);
    }
}

static void expect_tags(VlModal modal, VlProtocol protocol, const char *before, const char *after) {
    VlConversation conversation = {.modal = modal};
    must(vl_conversation_append(&conversation, VL_ROLE_USER, vl_span_string(before)));
    must(vl_conversation_place_tags(&conversation, protocol));
    assert_string_equal(conversation.turns[0].text.data, after);
    vl_conversation_free(&conversation);
}

static void test_tags(void **state) {
    (void)state;
    expect_tags(VL_MODAL_VIDEO, VL_PROTOCOL_MAIN, "  <video>  Is there <video> a cat?  ", "<video>\nIs there  a cat?");
    expect_tags(VL_MODAL_VIDEO, VL_PROTOCOL_MAIN, " no tag ", " no tag ");
    expect_tags(VL_MODAL_IMAGE, VL_PROTOCOL_AV, "<image>", "<image>");
    expect_tags(VL_MODAL_IMAGE, VL_PROTOCOL_AV, "a<image>\n", "<image>\na");
    expect_tags(VL_MODAL_IMAGE, VL_PROTOCOL_AV, "a <video> <image>\xe2\x80\x83\x1f", "<image>\na <video>");
    expect_tags(VL_MODAL_IMAGE, VL_PROTOCOL_2024_06, "a <video> b <image>", "<video>\n<image>\na  b");
    expect_tags(VL_MODAL_TEXT, VL_PROTOCOL_2024_06, " a <image>", " a <image>");
}

// ---- Refusals --------------------------------------------------------------

static void test_refusals(void **state) {
    (void)state;
    Model mistral = {0}, qwen = {0};
    json_t *templates = read_templates();
    load_model(&mistral, "mistral", text_of(templates, "mistral-2023"), "videollama2_mistral");
    load_model(&qwen, "tiny-bpe512", text_of(templates, "chatml-qwen2"), "videollama2_qwen2");
    static const struct {
        bool mistral;
        VlProtocol protocol;
        VlPromptMode mode;
        const char *says, *sample;
    } cases[] = {
        {true, VL_PROTOCOL_MAIN, VL_PROMPT_INFER, "system", "{\"modal\":\"video\",\"instruct\":\"Q\"}"},
        {true, VL_PROTOCOL_MAIN, VL_PROMPT_INFER, "instruct", "{" TURNS "}"},
        {true, VL_PROTOCOL_MAIN, VL_PROMPT_TRAIN_SFT, "conversations", "{\"instruct\":\"Q\"}"},
        {false, VL_PROTOCOL_MAIN, VL_PROMPT_INFER, "vl2-av", "{\"modal\":\"audio\",\"instruct\":\"Q\"}"},
        {false, VL_PROTOCOL_2024_06, VL_PROMPT_INFER, "video", "{\"modal\":\"image\",\"instruct\":\"Q\"}"},
        {false, VL_PROTOCOL_AV, VL_PROMPT_TRAIN_PLAIN, "medium", "{" TURNS "}"},
        {false, VL_PROTOCOL_AV, VL_PROMPT_TRAIN_PLAIN, "<video>", "{\"modal\":\"video\"," TURNS "}"},
        {false, VL_PROTOCOL_MAIN, VL_PROMPT_TRAIN_SFT, "no turns",
         "{\"conversations\":[{\"from\":\"gpt\",\"value\":\"x\"}]}"},
        {false, VL_PROTOCOL_2024_06, VL_PROMPT_TRAIN_SFT, "alternate",
         "{\"conversations\":[{\"from\":\"human\",\"value\":\"x\"},{\"from\":\"human\",\"value\":\"x\"}]}"},
        {true, VL_PROTOCOL_2024_06, VL_PROMPT_TRAIN_SFT, "empty",
         "{\"conversations\":[{\"from\":\"human\",\"value\":\"\"},{\"from\":\"gpt\",\"value\":\"x\"}]}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const Model *model = cases[i].mistral ? &mistral : &qwen;
        VlPromptRules rules = {.protocol = cases[i].protocol, .mode = cases[i].mode, .family = model->family};
        VlPrompt prompt = {0};
        json_t *sample = parse(cases[i].sample);
        VlStatus status = make(model->tokenizer, rules, sample, &prompt);
        if (status != VL_INVALID || !strstr(vl_error_text(), cases[i].says)) {
            fail_msg("%s: status %d, \"%s\"", cases[i].sample, (int)status, vl_error_text());
        }
        vl_prompt_free(&prompt);
        json_decref(sample);
    }
    VlPromptMode mode;
    VlProtocol protocol;
    assert_int_equal(vl_prompt_mode_parse(&mode, "train-sftt"), VL_USAGE);
    assert_non_null(strstr(vl_error_text(), "train-sft"));
    assert_int_equal(vl_protocol_parse(&protocol, "vl2"), VL_USAGE);
    json_decref(templates);
    vl_tokenizer_free(mistral.tokenizer);
    vl_tokenizer_free(qwen.tokenizer);
}

// What the packer relies on: one modality id, labels on the answer's text and end token only.
static void test_labels(void **state) {
    (void)state;
    Model qwen = {0};
    json_t *templates = read_templates(), *sample = parse("{\"image\":\"a.png\"," TURNS "}");
    load_model(&qwen, "tiny-bpe512", text_of(templates, "chatml-plain"), "videollama2_qwen2");
    VlPrompt prompt = {0};
    VlPromptRules rules = {.protocol = VL_PROTOCOL_AV, .mode = VL_PROMPT_TRAIN_SFT};
    must(make(qwen.tokenizer, rules, sample, &prompt));
    assert_int_equal(prompt.media, 1);
    assert_false(prompt.mismatch);
    assert_int_equal(prompt.labels.count, prompt.input_ids.count);
    int64_t labelled = 0;
    for (int64_t i = 0; i < prompt.labels.count; i++) labelled += prompt.labels.ids[i] != VL_LABEL_IGNORE;
    assert_int_equal(labelled, 3);  // "A", "<|im_end|>", line break
    assert_int_equal(prompt.labels.ids[prompt.labels.count - 3], vl_tokenizer_find(qwen.tokenizer, "A"));
    assert_int_equal(prompt.labels.ids[prompt.labels.count - 2], 511);
    vl_prompt_free(&prompt);
    json_decref(sample);
    json_decref(templates);
    vl_tokenizer_free(qwen.tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden), cmocka_unit_test(test_templates), cmocka_unit_test(test_conversation),
        cmocka_unit_test(test_tags),   cmocka_unit_test(test_refusals),  cmocka_unit_test(test_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
