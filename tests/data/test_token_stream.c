// Text that comes id by id: every piece is UTF-8 and final, and all of them are the text of all ids at once.
#include "data/token_stream.h"

#include "base/random.h"
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

static void add_piece(VlText *text, VlSpan piece) {
    if (vl_utf8_valid_length(piece) != piece.length) fail_msg("a piece that is no UTF-8 behind '%s'", text->data);
    must(vl_text_append(text, piece));
}

// The text of ids that come one by one, put together from its pieces.
static void stream_text(const VlTokenizer *tokenizer, const VlTokenIds *ids, bool skip_special, VlText *text) {
    VlTokenStream *stream;
    VlSpan piece;
    text->length = 0;
    must(vl_text_append_string(text, ""));
    must(vl_token_stream_open(&stream, tokenizer, skip_special));
    for (int64_t i = 0; i < ids->count; i++) {
        must(vl_token_stream_push(stream, ids->ids[i], &piece));
        add_piece(text, piece);
    }
    must(vl_token_stream_finish(stream, &piece));
    add_piece(text, piece);
    vl_token_stream_close(stream);
}

static void check_case(const VlTokenizer *tokenizer, const json_t *one, const char *key) {
    const json_t *list = json_object_get(one, "ids"), *expected = json_object_get(one, key);
    VlTokenIds ids = {0};
    VlText text = {0};
    for (size_t i = 0; i < json_array_size(list); i++) {
        must(vl_token_ids_append(&ids, json_integer_value(json_array_get(list, i))));
    }
    stream_text(tokenizer, &ids, !strcmp(key, "decoded"), &text);
    if (!vl_span_equal(vl_text_span(&text),
                       vl_span(json_string_value(expected), (int64_t)json_string_length(expected)))) {
        fail_msg("%s: '%s', but '%s' was expected", key, text.data, json_string_value(expected));
    }
    vl_text_free(&text);
    vl_token_ids_free(&ids);
}

// Texts and random lists of ids (half characters, byte tokens, special tokens, ids of no token), by the reference.
static void check_golden(const char *name) {
    static const char *const files[] = {"cases", "random"};
    VlTokenizer *tokenizer = load_golden(name);
    for (int f = 0; f < 2; f++) {
        char path[VL_PATH_MAX];
        snprintf(path, sizeof path, "%s/tokenizer/%s_%s.jsonl.zst", GOLDEN, files[f], name);
        json_t *cases = read_cases(path);
        assert_true(json_array_size(cases) >= 300);
        for (size_t i = 0; i < json_array_size(cases); i++) {
            if (!json_object_get(json_array_get(cases, i), "decoded")) continue;
            check_case(tokenizer, json_array_get(cases, i), "decoded");
            check_case(tokenizer, json_array_get(cases, i), "decoded_all");
        }
        json_decref(cases);
    }
    vl_tokenizer_free(tokenizer);
}

static void test_golden_mistral(void **state) { (void)state, check_golden("mistral"); }
static void test_golden_qwen2(void **state) { (void)state, check_golden("qwen2"); }
static void test_golden_tiny(void **state) { (void)state, check_golden("tiny-bpe512"); }

// Some of the ids favour the places where characters are split: byte tokens, and what begins or ends in half a
// character.
static void random_ids(const VlTokenizer *tokenizer, VlRandom *random, VlTokenIds *ids) {
    int64_t count = vl_tokenizer_count(tokenizer), length = vl_random_below(random, 24);
    ids->count = 0;
    for (int64_t i = 0; i < length; i++) {
        int64_t kind = vl_random_below(random, 4);
        int64_t bound = kind == 0 ? 300 : kind == 1 ? 600 : kind == 2 ? count : count + 50;
        must(vl_token_ids_append(ids, vl_random_below(random, bound < count + 50 ? bound : count)));
    }
}

static void check_random(const char *name) {
    enum { LISTS = 4000 };
    VlTokenizer *tokenizer = load_golden(name);
    VlRandom random = vl_random(11, vl_hash_string(name));
    VlTokenIds ids = {0};
    VlText text = {0};
    for (int i = 0; i < LISTS; i++) {
        char *whole;
        int64_t length;
        random_ids(tokenizer, &random, &ids);
        stream_text(tokenizer, &ids, i % 2, &text);
        must(vl_tokenizer_decode(tokenizer, ids.ids, ids.count, i % 2, &whole, &length));
        if (!vl_span_equal(vl_text_span(&text), vl_span(whole, length))) fail_msg("'%s' and '%s'", text.data, whole);
        vl_free(whole);
    }
    vl_text_free(&text);
    vl_token_ids_free(&ids);
    vl_tokenizer_free(tokenizer);
}

static void test_random_lists(void **state) {
    (void)state;
    check_random("mistral");
    check_random("qwen2");
    check_random("tiny-bpe512");
}

// Expects the pieces of `ids` in order; the last one is what the end brings.
static void expect_pieces(const VlTokenizer *tokenizer, const int64_t *ids, int64_t count, const char *const *pieces) {
    VlTokenStream *stream;
    VlSpan piece;
    must(vl_token_stream_open(&stream, tokenizer, true));
    for (int64_t i = 0; i <= count; i++) {
        must(i < count ? vl_token_stream_push(stream, ids[i], &piece) : vl_token_stream_finish(stream, &piece));
        if (!vl_span_equal(piece, vl_span_string(pieces[i]))) {
            fail_msg("piece %d is '%.*s', not '%s'", (int)i, (int)piece.length, piece.data, pieces[i]);
        }
    }
    vl_token_stream_close(stream);
}

#define REPLACED "\xef\xbf\xbd"

// Nothing is held back longer than it must be.
static void test_pieces_come_early(void **state) {
    (void)state;
    VlTokenizer *mistral = load_golden("mistral"), *tiny = load_golden("tiny-bpe512");
    int64_t hello = vl_tokenizer_find(mistral, "\xe2\x96\x81Hello"), a = vl_tokenizer_find(mistral, "a");
    int64_t c3 = vl_tokenizer_find(mistral, "<0xC3>"), a9 = vl_tokenizer_find(mistral, "<0xA9>");
    assert_true(hello > 0 && a > 0 && c3 > 0 && a9 > 0);
    // The first space is the decoder's to take off; a run of bytes ends with the first token that is none.
    expect_pieces(mistral, (int64_t[]){1, hello, hello, a, c3, a9, a, 2}, 8,
                  (const char *[]){"", "Hello", " Hello", "a", "", "",
                                   "\xc3\xa9"
                                   "a",
                                   "", ""});
    expect_pieces(mistral, (int64_t[]){c3, a9, c3}, 3, (const char *[]){"", "", "", REPLACED REPLACED REPLACED});
    expect_pieces(mistral, (int64_t[]){a, c3, a9}, 3, (const char *[]){"a", "", "", "\xc3\xa9"});
    // Bytes F0 9F 98 80 are one character, C3 one half.
    int64_t f0 = vl_tokenizer_find(tiny, "\xc3\xb0"), x9f = vl_tokenizer_find(tiny, "\xc5\x81");
    int64_t x98 = vl_tokenizer_find(tiny, "\xc4\xba"), x80 = vl_tokenizer_find(tiny, "\xc4\xa2");
    int64_t half = vl_tokenizer_find(tiny, "\xc3\x83"), letter = vl_tokenizer_find(tiny, "a");
    assert_true(f0 >= 0 && x9f >= 0 && x98 >= 0 && x80 >= 0 && half >= 0 && letter >= 0);
    expect_pieces(tiny, (int64_t[]){letter, f0, x9f, x98, x80, letter, half, letter, half}, 9,
                  (const char *[]){"a", "", "", "", "\xf0\x9f\x98\x80", "a", "", REPLACED "a", "", REPLACED});
    expect_pieces(tiny, (int64_t[]){f0, x9f, half, x80, x80}, 5,
                  (const char *[]){"", "", REPLACED, "\xc3\x80", REPLACED, ""});
    vl_tokenizer_free(mistral);
    vl_tokenizer_free(tiny);
}

// ---- Made-up decoders ------------------------------------------------------

#define VOCABULARY                                                       \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"_\":2,\" " \
    "\":3,\"n't\":4,\".\":5,\"ab\":6,\"x\":7},\"merges\":[]}"
#define STRIP(start, stop) "{\"type\":\"Strip\",\"content\":\" \",\"start\":" start ",\"stop\":" stop "}"
#define REPLACE(from, to) "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" from "\"},\"content\":\"" to "\"}"
#define FUSE "{\"type\":\"Fuse\"}"

static VlTokenizer *load_decoder(const char *decoders, bool clean_up) {
    char folder[VL_PATH_MAX], json[1024];
    VlTokenizer *tokenizer = NULL;
    make_folder(folder);
    snprintf(json, sizeof json, "{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[%s]}," VOCABULARY "}", decoders);
    put_file(folder, "tokenizer.json", json, (int64_t)strlen(json));
    const char *config = clean_up ? "{}" : "{\"clean_up_tokenization_spaces\":false}";
    put_file(folder, "tokenizer_config.json", config, (int64_t)strlen(config));
    must(vl_tokenizer_load(&tokenizer, folder));
    must(vl_remove_tree(folder));
    return tokenizer;
}

static void expect_decoder(const char *decoders, bool clean_up, const int64_t *ids, int64_t count,
                           const char *const *pieces) {
    VlTokenizer *tokenizer = load_decoder(decoders, clean_up);
    expect_pieces(tokenizer, ids, count, pieces);
    vl_tokenizer_free(tokenizer);
}

static void test_made_decoders(void **state) {
    (void)state;
    enum { A, B, LINE, SPACE, NOT, DOT, AB, X };
    // Up to two spaces go off the end, of the text and of each token.
    expect_decoder(FUSE "," STRIP("1", "2"), false, (int64_t[]){SPACE, SPACE, A, SPACE, SPACE, SPACE, B, SPACE}, 8,
                   (const char *[]){"", "", " a", "", "", " ", "  b", "", ""});
    expect_decoder(REPLACE("_", "  ") "," STRIP("1", "0") "," FUSE, false, (int64_t[]){LINE, A, LINE}, 3,
                   (const char *[]){" ", "a", " ", ""});
    // What is looked for in the joined text may lie in several tokens; its beginning waits.
    expect_decoder(FUSE "," REPLACE("aab", "x"), false, (int64_t[]){A, A, A, B, A, AB, A, A}, 8,
                   (const char *[]){"", "", "a", "x", "", "x", "", "", "aa"});
    expect_decoder(FUSE "," REPLACE("ab", ""), false, (int64_t[]){A, B, A, X}, 4,
                   (const char *[]){"", "", "", "ax", ""});
    // Clean-up: " ." and " n't" lose their space, wherever the tokens are cut.
    expect_decoder(FUSE, true, (int64_t[]){A, SPACE, DOT, SPACE, NOT, SPACE, B, SPACE}, 8,
                   (const char *[]){"a", "", ".", "", "n't", "", " b", "", " "});
}

static void test_refused(void **state) {
    (void)state;
    VlTokenizer *tokenizer = load_decoder(FUSE, false);
    VlTokenStream *stream;
    VlSpan piece;
    must(vl_token_stream_open(&stream, tokenizer, true));
    must(vl_token_stream_push(stream, 0, &piece));
    assert_int_equal(vl_token_stream_push(stream, -200, &piece), VL_INVALID);
    assert_non_null(strstr(vl_error_text(), "the id -200 at position 1"));
    vl_token_stream_close(stream);
    vl_token_stream_close(NULL);
    vl_tokenizer_free(tokenizer);
}

// The n-th allocation fails, for every n: a clean error, and at last success.
static void test_faults(void **state) {
    (void)state;
    VlTokenizer *tokenizer = load_decoder(REPLACE("_", " ") "," FUSE "," STRIP("1", "1"), true);
    int64_t failures = 0;
    for (;; failures++) {
        VlTokenStream *stream = NULL;
        VlSpan piece;
        vl_fault_arm(failures);
        VlStatus status = vl_token_stream_open(&stream, tokenizer, true);
        for (int64_t id = 0; !status && id < 8; id++) status = vl_token_stream_push(stream, id, &piece);
        if (!status) status = vl_token_stream_finish(stream, &piece);
        vl_fault_arm(-1);
        vl_token_stream_close(stream);
        if (!status) break;
        assert_int_equal(status, VL_OUT_OF_MEMORY);
    }
    assert_true(failures > 3);
    vl_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_mistral),    cmocka_unit_test(test_golden_qwen2),
        cmocka_unit_test(test_golden_tiny),       cmocka_unit_test(test_random_lists),
        cmocka_unit_test(test_pieces_come_early), cmocka_unit_test(test_made_decoders),
        cmocka_unit_test(test_refused),           cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
