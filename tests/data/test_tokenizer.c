#include "data/tokenizer.h"

#include <pthread.h>
#include <time.h>

#include "data/text.h"
#include "text_fixture.h"

static VlTokenizer *load_golden(const char *name) {
    char folder[VL_PATH_MAX];
    VlTokenizer *tokenizer = NULL;
    make_folder(folder);
    put_tokenizer(folder, name, NULL);
    must(vl_tokenizer_load(&tokenizer, folder));
    must(vl_remove_tree(folder));
    return tokenizer;
}

static void check_encode(const VlTokenizer *tokenizer, const json_t *one, bool special, const char *key) {
    const json_t *text = json_object_get(one, "text");
    VlTokenIds ids = {0};
    must(vl_tokenizer_encode(tokenizer, json_string_value(text), (int64_t)json_string_length(text), special, &ids));
    if (!same_ids(json_object_get(one, key), &ids)) fail_msg("%s of '%s' differ", key, json_string_value(text));
    vl_token_ids_free(&ids);
}

static void check_decode(const VlTokenizer *tokenizer, const json_t *one, bool skip_special, const char *key) {
    const json_t *list = json_object_get(one, "ids"), *expected = json_object_get(one, key);
    VlTokenIds ids = {0};
    char *text;
    int64_t length;
    for (size_t i = 0; i < json_array_size(list); i++) {
        must(vl_token_ids_append(&ids, json_integer_value(json_array_get(list, i))));
    }
    must(vl_tokenizer_decode(tokenizer, ids.ids, ids.count, skip_special, &text, &length));
    assert_int_equal(length, json_string_length(expected));
    assert_memory_equal(text, json_string_value(expected), (size_t)length);
    vl_free(text);
    vl_token_ids_free(&ids);
}

static void check_golden(const char *name) {
    char path[VL_PATH_MAX];
    snprintf(path, sizeof path, "%s/tokenizer/cases_%s.jsonl.zst", GOLDEN, name);
    VlTokenizer *tokenizer = load_golden(name);
    json_t *cases = read_cases(path);
    assert_int_equal(json_array_size(cases), 300);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i);
        check_encode(tokenizer, one, false, "ids");
        check_encode(tokenizer, one, true, "ids_special");
        check_decode(tokenizer, one, true, "decoded");
        check_decode(tokenizer, one, false, "decoded_all");
    }
    json_decref(cases);
    vl_tokenizer_free(tokenizer);
}

// Random strings over all planes: marks in any order, also those that are newer than the reference's tables, emoji,
// digits, white space of every kind, texts of added tokens.
static void check_random_strings(const char *name) {
    char path[VL_PATH_MAX];
    int64_t strings = 0;
    snprintf(path, sizeof path, "%s/tokenizer/random_%s.jsonl.zst", GOLDEN, name);
    VlTokenizer *tokenizer = load_golden(name);
    json_t *cases = read_cases(path);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        if (!json_object_get(json_array_get(cases, i), "text")) continue;
        check_encode(tokenizer, json_array_get(cases, i), false, "text_ids");
        strings++;
    }
    assert_true(strings >= 300);
    json_decref(cases);
    vl_tokenizer_free(tokenizer);
}

static void test_random_strings(void **state) {
    (void)state;
    check_random_strings("mistral");
    check_random_strings("qwen2");
    check_random_strings("tiny-bpe512");
}

static void test_golden_mistral(void **state) { (void)state, check_golden("mistral"); }
static void test_golden_qwen2(void **state) { (void)state, check_golden("qwen2"); }
static void test_golden_tiny(void **state) { (void)state, check_golden("tiny-bpe512"); }

static void test_accessors(void **state) {
    (void)state;
    VlTokenizer *mistral = load_golden("mistral"), *tiny = load_golden("tiny-bpe512");
    int64_t length = 0;
    assert_int_equal(vl_tokenizer_count(mistral), 32000);
    assert_int_equal(vl_tokenizer_bos(mistral), 1);
    assert_int_equal(vl_tokenizer_eos(mistral), 2);
    assert_int_equal(vl_tokenizer_unk(mistral), 0);
    assert_int_equal(vl_tokenizer_pad(mistral), -1);
    assert_int_equal(vl_tokenizer_bos(tiny), -1);
    assert_int_equal(vl_tokenizer_eos(tiny), 511);
    assert_int_equal(vl_tokenizer_pad(tiny), 509);
    assert_int_equal(vl_tokenizer_find(tiny, "<|im_start|>"), 510);
    assert_int_equal(vl_tokenizer_find(tiny, "<|im_star|>"), -1);
    assert_int_equal(vl_tokenizer_find(mistral, "</s>"), 2);
    const char *token = vl_tokenizer_token(tiny, 511, &length);
    assert_int_equal(length, 10);
    assert_memory_equal(token, "<|im_end|>", 10);
    assert_null(vl_tokenizer_token(tiny, 512, &length));
    assert_null(vl_tokenizer_token(tiny, -200, &length));
    assert_true(vl_tokenizer_is_special(tiny, 511));
    assert_false(vl_tokenizer_is_special(tiny, 0));
    assert_non_null(vl_tokenizer_chat_template(tiny));
    vl_tokenizer_free(mistral);
    vl_tokenizer_free(tiny);
}

static void expect_text(const VlTokenizer *tokenizer, const int64_t *ids, int64_t count, const char *expected) {
    char *text;
    int64_t length;
    must(vl_tokenizer_decode(tokenizer, ids, count, false, &text, &length));
    assert_string_equal(text, expected);
    assert_int_equal(length, strlen(expected));
    vl_free(text);
}

// Half characters: the byte-level decoder replaces each ill-formed part once, byte fallback each byte of the run.
static void test_decode_broken_characters(void **state) {
    (void)state;
    VlTokenizer *mistral = load_golden("mistral"), *tiny = load_golden("tiny-bpe512");
    int64_t f0 = vl_tokenizer_find(mistral, "<0xF0>"), c9 = vl_tokenizer_find(mistral, "<0x9F>");
    int64_t a = vl_tokenizer_find(mistral, "a"), c3 = vl_tokenizer_find(mistral, "<0xC3>");
    int64_t a9 = vl_tokenizer_find(mistral, "<0xA9>");
    expect_text(mistral, (int64_t[]){f0, c9, a}, 3,
                "\xef\xbf\xbd\xef\xbf\xbd"
                "a");
    expect_text(mistral, (int64_t[]){a, c3, a9}, 3, "a\xc3\xa9");
    expect_text(mistral, (int64_t[]){c3, a9, c3}, 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    expect_text(mistral, (int64_t[]){a, 4000000, a}, 3, "aa");
    int64_t half[] = {vl_tokenizer_find(tiny, "\xc3\xb0"), vl_tokenizer_find(tiny, "\xc4\xa1"),
                      vl_tokenizer_find(tiny, "a")};
    assert_true(half[0] >= 0 && half[1] >= 0 && half[2] >= 0);
    expect_text(tiny, (int64_t[]){half[0], half[0], half[2]}, 3,
                "\xef\xbf\xbd\xef\xbf\xbd"
                "a");
    expect_text(tiny, NULL, 0, "");
    char *text;
    int64_t length;
    assert_int_equal(vl_tokenizer_decode(tiny, (int64_t[]){-200}, 1, false, &text, &length), VL_INVALID);
    vl_tokenizer_free(mistral);
    vl_tokenizer_free(tiny);
}

static void test_bad_text(void **state) {
    (void)state;
    VlTokenizer *tiny = load_golden("tiny-bpe512");
    VlTokenIds ids = {0};
    must(vl_token_ids_append(&ids, 7));
    const char *const bad[] = {"a\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "ab\xe2\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(vl_tokenizer_encode(tiny, bad[i], (int64_t)strlen(bad[i]), false, &ids), VL_INVALID);
        assert_int_equal(ids.count, 1);
    }
    must(vl_tokenizer_encode(tiny, "", 0, true, &ids));
    assert_int_equal(ids.count, 1);
    vl_token_ids_free(&ids);
    vl_tokenizer_free(tiny);
}

// ---- Small made-up tokenizers ----------------------------------------------

#define MODEL_HEAD "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,"
#define VOCAB "\"vocab\":{\"<unk>\":0,\"a\":1,\"b\":2,\"_\":3,\"ab\":4,\"aba\":5,\"abab\":6,\"bb\":7},"
#define MERGES "\"merges\":[\"a b\",\"ab a\",\"ab ab\",[\"b\",\"b\"]]}"
#define MODEL MODEL_HEAD VOCAB MERGES
#define DECODER "\"decoder\":{\"type\":\"Fuse\"},"
#define ADDED(id, content, rest) "{\"id\":" id ",\"content\":\"" content "\"," rest "}"

static VlStatus load_text_as(VlTokenizer **tokenizer, const char *json, const char *config) {
    char folder[VL_PATH_MAX];
    make_folder(folder);
    put_file(folder, "tokenizer.json", json, (int64_t)strlen(json));
    put_file(folder, "tokenizer_config.json", config, (int64_t)strlen(config));
    VlStatus status = vl_tokenizer_load(tokenizer, folder);
    must(vl_remove_tree(folder));
    return status;
}

static VlStatus load_text(VlTokenizer **tokenizer, const char *json) {
    return load_text_as(tokenizer, json, "{\"clean_up_tokenization_spaces\":false}");
}

static void expect_ids(const VlTokenizer *tokenizer, const char *text, bool special, const char *expected) {
    VlTokenIds ids = {0};
    char found[256] = "";
    must(vl_tokenizer_encode(tokenizer, text, (int64_t)strlen(text), special, &ids));
    for (int64_t i = 0; i < ids.count; i++) {
        snprintf(found + strlen(found), sizeof found - strlen(found), i ? " %lld" : "%lld", (long long)ids.ids[i]);
    }
    if (strcmp(found, expected)) fail_msg("'%s': %s, but %s was expected", text, found, expected);
    vl_token_ids_free(&ids);
}

// The expected ids are those of the reference's library for the same file.
static void test_added_tokens(void **state) {
    (void)state;
    VlTokenizer *tokenizer = NULL;
    must(load_text(
        &tokenizer,
        "{\"added_tokens\":[" ADDED("8", "[L]", "\"lstrip\":true,\"special\":true") "," ADDED(
            "9", "[R]",
            "\"rstrip\":true,\"normalized\":false") "," ADDED("10", "ba",
                                                              "\"single_word\":true,\"normalized\":"
                                                              "false") "," ADDED("11", "b b",
                                                                                 "\"normalized\":"
                                                                                 "true") "," ADDED("1"
                                                                                                   "2",
                                                                                                   "["
                                                                                                   "L"
                                                                                                   "]"
                                                                                                   "["
                                                                                                   "R"
                                                                                                   "]",
                                                                                                   "\"normalized\":"
                                                                                                   "false") "],"
                                                                                                            "\"normaliz"
                                                                                                            "er\":{"
                                                                                                            "\"type\":"
                                                                                                            "\"Replace"
                                                                                                            "\","
                                                                                                            "\"pattern"
                                                                                                            "\":{"
                                                                                                            "\"String\""
                                                                                                            ":\" "
                                                                                                            "\"},"
                                                                                                            "\"content"
                                                                                                            "\":\"_\"},"
                                                                                                            "\"post_"
                                                                                                            "processor"
                                                                                                            "\":{"
                                                                                                            "\"type\":"
                                                                                                            "\"Template"
                                                                                                            "Processing"
                                                                                                            "\","
                                                                                                            "\"single\""
                                                                                                            ":[{"
                                                                                                            "\"SpecialT"
                                                                                                            "oken\":{"
                                                                                                            "\"id\":"
                                                                                                            "\"a\"}},"
                                                                                                            "{\"Sequenc"
                                                                                                            "e\":{"
                                                                                                            "\"id\":"
                                                                                                            "\"A\"}},{"
                                                                                                            "\"SpecialT"
                                                                                                            "oken\":{"
                                                                                                            "\"id\":"
                                                                                                            "\"b\"}}],"
                                                                                                            "\"special_"
                                                                                                            "tokens\":{"
                                                                                                            "\"a\":{"
                                                                                                            "\"ids\":["
                                                                                                            "1]},\"b\":"
                                                                                                            "{\"ids\":["
                                                                                                            "2,2]}}},"
                                                                                                            "\"decoder"
                                                                                                            "\":{"
                                                                                                            "\"type\":"
                                                                                                            "\"Sequence"
                                                                                                            "\","
                                                                                                            "\"decoders"
                                                                                                            "\":[{"
                                                                                                            "\"type\":"
                                                                                                            "\"Replace"
                                                                                                            "\","
                                                                                                            "\"pattern"
                                                                                                            "\":{"
                                                                                                            "\"String\""
                                                                                                            ":\"_\"},"
                                                                                                            "\"content"
                                                                                                            "\":\" "
                                                                                                            "\"},{"
                                                                                                            "\"type\":"
                                                                                                            "\"Strip\","
                                                                                                            "\"content"
                                                                                                            "\":\" "
                                                                                                            "\","
                                                                                                            "\"start\":"
                                                                                                            "1,"
                                                                                                            "\"stop\":"
                                                                                                            "0},{"
                                                                                                            "\"type\":"
                                                                                                            "\"Fuse\"}]"
                                                                                                            "}," MODEL
                                                                                                            "}"));
    expect_ids(tokenizer, "ab  [L]  ab", false, "4 8 3 3 4");
    expect_ids(tokenizer, "ab [R]  ab", false, "4 3 9 4");
    expect_ids(tokenizer, "ba", true, "1 10 2 2");
    expect_ids(tokenizer, "abba", false, "4 2 1");
    expect_ids(tokenizer, "a ba b", false, "1 3 10 3 2");
    expect_ids(tokenizer, "ba-ba", false, "10 0 10");
    expect_ids(tokenizer, "ababa", false, "4 5");
    expect_ids(tokenizer, "abab", false, "6");
    expect_ids(tokenizer, "xyzaxy", false, "0 1 0");
    expect_ids(tokenizer, "a b b a", false, "1 3 11 3 1");
    expect_ids(tokenizer, "[L][R]a", false, "12 1");
    expect_ids(tokenizer, "[R] [L]", false, "9 8");
    expect_ids(tokenizer,
               "\xc3\xa9"
               "ba",
               false, "0 2 1");
    expect_ids(tokenizer, "aabab", false, "1 6");
    expect_text(tokenizer, (int64_t[]){3, 1, 3, 3, 9, 8, 4, 0}, 8, "a[R][L]ab<unk>");
    char *text;
    int64_t length;
    must(vl_tokenizer_decode(tokenizer, (int64_t[]){3, 1, 3, 3, 9, 8, 4, 0}, 8, true, &text, &length));
    assert_string_equal(text, "a[R]ab<unk>");
    vl_free(text);
    vl_tokenizer_free(tokenizer);
}

static void test_config(void **state) {
    (void)state;
    VlTokenizer *tokenizer = NULL;
    // A named token that tokenizer.json does not list as added is searched for and special; class rules add it in
    // front.
    must(load_text_as(&tokenizer, "{" DECODER MODEL "}",
                      "{\"tokenizer_class\":\"LlamaTokenizer\",\"bos_token\":{\"content\":\"bb\"},\"eos_token\":null,"
                      "\"model_max_length\":1000000000000000019884624838656}"));
    assert_int_equal(vl_tokenizer_bos(tokenizer), 7);
    assert_int_equal(vl_tokenizer_eos(tokenizer), -1);
    assert_int_equal(vl_tokenizer_unk(tokenizer), 0);
    assert_true(vl_tokenizer_is_special(tokenizer, 7));
    expect_ids(tokenizer, "abba", true, "7 1 7 1");
    vl_tokenizer_free(tokenizer);
    must(load_text_as(&tokenizer, "{\"added_tokens\":[" ADDED("9", " .", "\"special\":false") "]," DECODER MODEL "}",
                      "{}"));
    expect_text(tokenizer, (int64_t[]){1, 9, 2}, 3, "a.b");
    vl_tokenizer_free(tokenizer);
    assert_int_equal(load_text_as(&tokenizer, "{" DECODER MODEL "}", "{\"eos_token\":\"</s>\"}"), VL_FORMAT);
    assert_non_null(strstr(vl_error_text(), "</s>"));
    assert_int_equal(load_text_as(&tokenizer, "{" DECODER MODEL "}", "{\"tokenizer_class\":\"BertTokenizer\"}"),
                     VL_UNSUPPORTED);
    assert_int_equal(load_text_as(&tokenizer, "{" DECODER MODEL "}", "[1,"), VL_FORMAT);
}

static void test_hostile_files(void **state) {
    (void)state;
    static const struct {
        VlStatus status;
        const char *says, *json;
    } files[] = {
        {VL_FORMAT, "", ""},
        {VL_FORMAT, "object", "[]"},
        {VL_FORMAT, "", "{\"model\":"},
        {VL_FORMAT, "object", "{}"},
        {VL_FORMAT, "object", "{\"model\":7}"},
        {VL_UNSUPPORTED, "WordPiece", "{\"model\":{\"type\":\"WordPiece\"}}"},
        {VL_UNSUPPORTED, "surprise", "{\"surprise\":1," DECODER MODEL "}"},
        {VL_UNSUPPORTED, "surprise", "{\"model\":{\"type\":\"BPE\",\"surprise\":1,\"vocab\":{},\"merges\":[]}}"},
        {VL_UNSUPPORTED, "dropout", "{\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{},\"merges\":[]}}"},
        {VL_UNSUPPORTED, "##",
         "{\"model\":{\"type\":\"BPE\",\"continuing_subword_prefix\":\"##\",\"vocab\":{},\"merges\":[]}}"},
        {VL_FORMAT, "vocab", "{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}"},
        {VL_FORMAT, "merges", "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":{}}}"},
        {VL_FORMAT, "no integer", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"1\"},\"merges\":[]}}"},
        {VL_FORMAT, "-1", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}"},
        {VL_FORMAT, "2000000000", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2000000000},\"merges\":[]}}"},
        {VL_FORMAT, "", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999999999999},\"merges\":[]}}"},
        {VL_FORMAT, "same id", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}"},
        {VL_FORMAT, "", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"a\":2},\"merges\":[]}}"},
        {VL_FORMAT, "left part", "{" DECODER MODEL_HEAD VOCAB "\"merges\":[\"c b\"]}}"},
        {VL_FORMAT, "right part", "{" DECODER MODEL_HEAD VOCAB "\"merges\":[\"a c\"]}}"},
        {VL_FORMAT, "result", "{" DECODER MODEL_HEAD VOCAB "\"merges\":[\"b a\"]}}"},
        {VL_FORMAT, "no pair", "{" DECODER MODEL_HEAD VOCAB "\"merges\":[\"ab\"]}}"},
        {VL_FORMAT, "no pair", "{" DECODER MODEL_HEAD VOCAB "\"merges\":[\"a b a\"]}}"},
        {VL_FORMAT, "no pair", "{" DECODER MODEL_HEAD VOCAB "\"merges\":[[\"a\"]]}}"},
        {VL_FORMAT, "no pair", "{" DECODER MODEL_HEAD VOCAB "\"merges\":[3]}}"},
        {VL_FORMAT, "unk_token",
         "{\"model\":{\"type\":\"BPE\",\"unk_token\":\"u\",\"vocab\":{\"a\":1},\"merges\":[]}}"},
        {VL_FORMAT, "<0x00>",
         "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":1},\"merges\":[]}}"},
        {VL_FORMAT, "fuse_unk", "{\"model\":{\"type\":\"BPE\",\"fuse_unk\":1,\"vocab\":{\"a\":1},\"merges\":[]}}"},
        {VL_FORMAT, "list", "{\"added_tokens\":{}," DECODER MODEL "}"},
        {VL_FORMAT, "content", "{\"added_tokens\":[{\"id\":9}]," DECODER MODEL "}"},
        {VL_FORMAT, "same id", "{\"added_tokens\":[" ADDED("1", "x", "\"special\":true") "]," DECODER MODEL "}"},
        {VL_FORMAT, "has the id 9", "{\"added_tokens\":[" ADDED("9", "a", "\"special\":true") "]," DECODER MODEL "}"},
        {VL_FORMAT, "0 bytes", "{\"added_tokens\":[" ADDED("9", "", "\"special\":true") "]," DECODER MODEL "}"},
        {VL_FORMAT, "twice",
         "{\"added_tokens\":[" ADDED("9", "x", "\"special\":true") "," ADDED(
             "9", "x", "\"special\":true") "]," DECODER MODEL "}"},
        {VL_UNSUPPORTED, "colour", "{\"added_tokens\":[" ADDED("9", "x", "\"colour\":1") "]," DECODER MODEL "}"},
        {VL_UNSUPPORTED, "null", "{" MODEL "}"},
        {VL_UNSUPPORTED, "Lowercase", "{\"normalizer\":{\"type\":\"Lowercase\"}," DECODER MODEL "}"},
        {VL_UNSUPPORTED, "Replace",
         "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"\"}," DECODER MODEL "}"},
        {VL_FORMAT, "type", "{\"normalizer\":{}," DECODER MODEL "}"},
        {VL_FORMAT, "normalizers", "{\"normalizer\":{\"type\":\"Sequence\"}," DECODER MODEL "}"},
        {VL_UNSUPPORTED, "Metaspace", "{\"pre_tokenizer\":{\"type\":\"Metaspace\"}," DECODER MODEL "}"},
        {VL_UNSUPPORTED, "use_regex",
         "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}," DECODER MODEL "}"},
        {VL_UNSUPPORTED, "Removed",
         "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Removed\",\"pattern\":{\"Regex\":\"a\"}}," DECODER MODEL
         "}"},
        {VL_FORMAT, "expression",
         "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"(\"}}," DECODER
             MODEL "}"},
        {VL_UNSUPPORTED, "escape \\h",
         "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"\\\\h\"}}," DECODER
             MODEL "}"},
        {VL_UNSUPPORTED, "RobertaProcessing",
         "{\"post_processor\":{\"type\":\"RobertaProcessing\"}," DECODER MODEL "}"},
        {VL_FORMAT, "ids",
         "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"a\"}}]}," DECODER
             MODEL "}"},
        {VL_UNSUPPORTED, "WordPiece", "{\"decoder\":{\"type\":\"WordPiece\"}," MODEL "}"},
        {VL_UNSUPPORTED, "ByteFallback behind one that joins",
         "{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}]}," MODEL
         "}"},
        {VL_FORMAT, "Strip", "{\"decoder\":{\"type\":\"Strip\",\"content\":\"\",\"start\":0,\"stop\":0}," MODEL "}"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        VlTokenizer *tokenizer = NULL;
        VlStatus status = load_text(&tokenizer, files[i].json);
        if (status != files[i].status || !strstr(vl_error_text(), files[i].says)) {
            fail_msg("%s: status %d, \"%s\"", files[i].json, (int)status, status ? vl_error_text() : "");
        }
        assert_null(tokenizer);
    }
    VlTokenizer *tokenizer = NULL;
    must(load_text(&tokenizer, "{" DECODER MODEL "}"));  // what the broken ones were made from
    vl_tokenizer_free(tokenizer);
    assert_int_equal(vl_tokenizer_load(&tokenizer, "/nonexistent"), VL_IO);
}

// A pattern that backtracks without end is stopped, and one that matches nothing does not loop.
static void test_hostile_pattern(void **state) {
    (void)state;
    VlTokenizer *tokenizer = NULL;
    VlTokenIds ids = {0};
    char text[64];
    memset(text, 'a', sizeof text);
    must(load_text(&tokenizer,
                   "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"(a+)+[bc]"
                   "\"}}," DECODER MODEL "}"));
    assert_int_equal(vl_tokenizer_encode(tokenizer, text, sizeof text, false, &ids), VL_INVALID);
    vl_tokenizer_free(tokenizer);
    must(load_text(
        &tokenizer,
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"c*\"}}," DECODER
            MODEL "}"));
    assert_int_equal(vl_tokenizer_encode(tokenizer, text, sizeof text, false, &ids), VL_FORMAT);
    vl_tokenizer_free(tokenizer);
    must(load_text(&tokenizer,
                   "{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}"));
    assert_int_equal(vl_tokenizer_encode(tokenizer, "ac", 2, false, &ids), VL_INVALID);
    assert_non_null(strstr(vl_error_text(), "U+0063"));
    vl_tokenizer_free(tokenizer);
    vl_token_ids_free(&ids);
}

// ---- Length ----------------------------------------------------------------

// Sanitizers slow the program down several times.
#ifdef __SANITIZE_ADDRESS__
static const double limit = 20;
#else
static const double limit = 2;
#endif

// Seconds of this process, so that other work on the machine does not count.
static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

// A megabyte of `unit` repeated takes less than two seconds and comes back unchanged.
static void check_long(const VlTokenizer *tokenizer, const char *unit) {
    VlText text = {0};
    VlTokenIds ids = {0};
    char *back;
    int64_t length;
    while (text.length < 1 << 20) must(vl_text_append_string(&text, unit));
    double start = now();
    must(vl_tokenizer_encode(tokenizer, text.data, text.length, false, &ids));
    double seconds = now() - start;
    if (!(seconds < limit)) fail_msg("a megabyte of '%s' took %.1f s", unit, seconds);
    must(vl_tokenizer_decode(tokenizer, ids.ids, ids.count, false, &back, &length));
    assert_int_equal(length, text.length);
    assert_memory_equal(back, text.data, (size_t)length);
    vl_free(back);
    vl_text_free(&text);
    vl_token_ids_free(&ids);
}

static void test_long_texts(void **state) {
    (void)state;
    static const char *const units[] = {"a",   "thequickbrownfox", " ",           "\n", " \n", "0",
                                        "</s", "<|im_end|>",       "\xe4\xb8\x96"};
    VlTokenizer *tokenizers[] = {load_golden("mistral"), load_golden("tiny-bpe512")};
    for (int t = 0; t < 2; t++) {
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) check_long(tokenizers[t], units[i]);
        vl_tokenizer_free(tokenizers[t]);
    }
}

// Half a million combining marks in the wrong order: sorting them must not be quadratic.
static void test_long_run_of_marks(void **state) {
    (void)state;
    VlTokenizer *tiny = load_golden("tiny-bpe512");
    VlText text = {0}, sorted = {0};
    VlTokenIds ids = {0}, expected = {0};
    enum { PAIRS = 1 << 17 };
    must(vl_text_append_string(&text, "x"));
    must(vl_text_append_string(&sorted, "x"));
    for (int i = 0; i < PAIRS; i++)
        must(vl_text_append_string(&text, "\xcc\x95\xcc\xa1"));  // U+0315 (232), U+0321 (202)
    for (int i = 0; i < PAIRS; i++) must(vl_text_append_string(&sorted, "\xcc\xa1"));
    for (int i = 0; i < PAIRS; i++) must(vl_text_append_string(&sorted, "\xcc\x95"));
    double start = now();
    must(vl_tokenizer_encode(tiny, text.data, text.length, false, &ids));
    assert_true(now() - start < limit);
    must(vl_tokenizer_encode(tiny, sorted.data, sorted.length, false, &expected));
    assert_int_equal(ids.count, expected.count);
    assert_memory_equal(ids.ids, expected.ids, (size_t)ids.count * sizeof *ids.ids);
    vl_text_free(&text);
    vl_text_free(&sorted);
    vl_token_ids_free(&ids);
    vl_token_ids_free(&expected);
    vl_tokenizer_free(tiny);
}

// ---- Threads and faults ----------------------------------------------------

typedef struct Worker {
    const VlTokenizer *tokenizer;
    const json_t *cases;
    int64_t wrong;
} Worker;

static void *encode_cases(void *argument) {
    Worker *worker = argument;
    for (size_t i = 0; i < json_array_size(worker->cases); i++) {
        const json_t *one = json_array_get(worker->cases, i), *text = json_object_get(one, "text");
        VlTokenIds ids = {0};
        VlStatus status = vl_tokenizer_encode(worker->tokenizer, json_string_value(text),
                                              (int64_t)json_string_length(text), true, &ids);
        worker->wrong += status || !same_ids(json_object_get(one, "ids_special"), &ids);
        vl_token_ids_free(&ids);
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    VlTokenizer *tiny = load_golden("tiny-bpe512");
    json_t *cases = read_cases(GOLDEN "/tokenizer/cases_tiny-bpe512.jsonl.zst");
    pthread_t threads[4];
    Worker workers[4];
    for (int i = 0; i < 4; i++) {
        workers[i] = (Worker){.tokenizer = tiny, .cases = cases};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_cases, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].wrong, 0);
    }
    json_decref(cases);
    vl_tokenizer_free(tiny);
}

// The n-th allocation or read fails, for every n: a clean error, and at last success.
static void test_faults(void **state) {
    (void)state;
    VlTokenizer *tiny = NULL;
    char folder[VL_PATH_MAX];
    make_folder(folder);
    const char *json = "{\"added_tokens\":[" ADDED("9", "x", "\"special\":true") "]," DECODER MODEL "}";
    put_file(folder, "tokenizer.json", json, (int64_t)strlen(json));
    put_file(folder, "tokenizer_config.json", "{\"eos_token\":\"x\"}", 17);
    int64_t failures = 0;
    for (;; failures++) {
        VlTokenIds ids = {0};
        char *text = NULL;
        int64_t length = 0;
        vl_fault_arm(failures);
        VlStatus status = vl_tokenizer_load(&tiny, folder);
        if (!status) {
            status = vl_tokenizer_encode(tiny, "abax abq", 8, true, &ids);
            if (!status) status = vl_tokenizer_decode(tiny, ids.ids, ids.count, true, &text, &length);
            vl_tokenizer_free(tiny);
        }
        bool left = !vl_fault_hit();
        vl_fault_arm(-1);
        vl_free(text);
        vl_token_ids_free(&ids);
        if (!status) break;
        assert_true(left);
        assert_true(vl_error_text()[0] != 0);
        assert_true(failures < 1000);
    }
    assert_true(failures > 15);
    must(vl_remove_tree(folder));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_strings),
        cmocka_unit_test(test_golden_mistral),
        cmocka_unit_test(test_golden_qwen2),
        cmocka_unit_test(test_golden_tiny),
        cmocka_unit_test(test_accessors),
        cmocka_unit_test(test_decode_broken_characters),
        cmocka_unit_test(test_bad_text),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_hostile_files),
        cmocka_unit_test(test_hostile_pattern),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_long_run_of_marks),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
