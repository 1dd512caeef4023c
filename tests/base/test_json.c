#include "base/json.h"
#include "base/random.h"
#include "tests/base/support.h"

static VlStatus parse(const char *text) {
    json_t *document = NULL;
    VlStatus status = vl_json_parse(text, (int64_t)strlen(text), "doc", &document);
    json_decref(document);
    return status;
}

static void documents_are_parsed_strictly(void **state) {
    (void)state;
    assert_ok(parse("{\"a\": [1, 2.5, null]} \n"));
    assert_error(parse("{\"a\": 1, \"a\": 2}"), VL_FORMAT, "doc: line 1, column 12: duplicate object key");
    assert_error(parse("{} x"), VL_FORMAT, "end of file expected");
    assert_error(parse("{\"a\":\n 01}"), VL_FORMAT, "doc: line 2");
    assert_error(parse(""), VL_FORMAT, "'[' or '{' expected");
    assert_error(parse("[1"), VL_FORMAT, "']' expected");
    assert_error(parse("[\"\xff\"]"), VL_FORMAT, "unable to decode byte 0xff");
    assert_error(parse("[1e999]"), VL_FORMAT, "overflow");
    assert_error(parse("[99999999999999999999]"), VL_FORMAT, "too big integer");
    assert_error(parse("[NaN]"), VL_FORMAT, "invalid token");
    assert_error(parse("\xef\xbb\xbf{}"), VL_FORMAT, "byte order mark");
    char *bomb;
    assert_ok(VL_NEW(&bomb, 1000001));
    memset(bomb, '[', 1000000);
    assert_error(parse(bomb), VL_FORMAT, "maximum parsing depth");
    vl_free(bomb);
}

static void files_are_loaded_and_saved(void **state) {
    json_t *document, *again;
    const char *path = scratch(state, "a.json");
    assert_ok(vl_json_parse("{\"z\": 1, \"a\": \"\\u00e4\"}", 23, "doc", &document));
    assert_ok(vl_json_save(path, document, JSON_COMPACT));
    assert_ok(vl_json_load(path, 100, &again));
    assert_true(json_equal(document, again));
    json_decref(again);
    json_decref(document);
    assert_error(vl_json_load(path, 5, &again), VL_FORMAT, "larger than the 5 bytes");
    assert_ok(vl_write_file(path, "{\"a\": }", 7));
    assert_error(vl_json_load(path, 100, &again), VL_FORMAT, "a.json: line 1, column 7");
}

static void members_are_checked(void **state) {
    (void)state;
    const char *text = "{\"i\": 7, \"d\": 2.5, \"b\": true, \"s\": \"x\", \"n\": null, \"big\": 9007199254740993}";
    json_t *document;
    int64_t integer = -1;
    double number = -1;
    bool truth = false;
    const char *string = "default";
    assert_ok(vl_json_parse(text, (int64_t)strlen(text), "doc", &document));
    assert_ok(vl_json_get_int(document, "f", "i", true, &integer));
    assert_int_equal(integer, 7);
    assert_ok(vl_json_get_int(document, "f", "big", true, &integer));
    assert_true(integer == 9007199254740993);
    assert_ok(vl_json_get_int(document, "f", "n", false, &integer));
    assert_ok(vl_json_get_int(document, "f", "missing", false, &integer));
    assert_true(integer == 9007199254740993);
    assert_ok(vl_json_get_double(document, "f", "d", true, &number));
    assert_true(number == 2.5);
    assert_ok(vl_json_get_double(document, "f", "i", true, &number));
    assert_true(number == 7);
    assert_ok(vl_json_get_bool(document, "f", "b", true, &truth));
    assert_true(truth);
    assert_ok(vl_json_get_string(document, "f", "missing", false, &string));
    assert_string_equal(string, "default");
    assert_ok(vl_json_get_string(document, "f", "s", true, &string));
    assert_string_equal(string, "x");
    assert_error(vl_json_get_int(document, "f", "d", true, &integer), VL_FORMAT,
                 "f: \"d\" must be an integer, but is a number with a fraction");
    assert_error(vl_json_get_int(document, "f", "s", false, &integer), VL_FORMAT, "but is a string");
    assert_error(vl_json_get_double(document, "f", "b", true, &number), VL_FORMAT, "a number, but is true");
    assert_error(vl_json_get_bool(document, "f", "i", true, &truth), VL_FORMAT, "true or false, but is an integer");
    assert_error(vl_json_get_string(document, "f", "i", true, &string), VL_FORMAT, "a string, but is an integer");
    assert_error(vl_json_get_int(document, "f", "missing", true, &integer), VL_FORMAT, "key \"missing\" is missing");
    assert_error(vl_json_get_int(document, "f", "n", true, &integer), VL_FORMAT, "key \"n\" is missing");
    assert_error(vl_json_get_int(json_object_get(document, "i"), "f", "x", true, &integer), VL_FORMAT,
                 "not an integer");
    assert_error(vl_json_get_int(NULL, "f", "x", true, &integer), VL_FORMAT, "not nothing");
    json_decref(document);
}

// Reads all elements of `text` and checks that the text of each, at its offset, parses to the same value.
static VlStatus read_stream(const char *path, const char *text, int64_t length, int64_t *count) {
    VlJsonStream *stream;
    *count = 0;
    put_file(path, text, length);
    VlStatus status = vl_json_stream_open(&stream, path);
    if (status) return status;
    for (;; ++*count) {
        json_t *element, *list;
        int64_t offset = -1, size = -1;
        char *wrapped;
        status = vl_json_stream_next(stream, &element, &offset, &size);
        if (status || !element) break;
        assert_ok(VL_NEW(&wrapped, size + 3));
        snprintf(wrapped, (size_t)size + 3, "[%.*s]", (int)size, text + offset);
        assert_ok(vl_json_parse(wrapped, size + 2, "piece", &list));
        assert_int_equal(json_array_size(list), 1);
        assert_true(json_equal(json_array_get(list, 0), element));
        json_decref(list);
        json_decref(element);
        vl_free(wrapped);
    }
    if (!status) {  // the end stays the end
        json_t *element;
        int64_t offset, size;
        assert_ok(vl_json_stream_next(stream, &element, &offset, &size));
        assert_null(element);
    }
    vl_json_stream_close(stream);
    return status;
}

static void lists_are_streamed(void **state) {
    static const struct {
        const char *text;
        int64_t count;
    } cases[] = {
        {"[]", 0},
        {" [ ] \n", 0},
        {"", 0},
        {" \n\n", 0},
        {"[1]", 1},
        {"[{\"a\": \"]},[{\\\"\"}, [1, [2, {}]], \"x\\\\\", -1.5e3, true,null , {}]\n", 7},
        {"{\"a\": 1}\n{\"b\": [1, 2]}\n", 2},
        {"{\"a\": 1}\r\n\r\n  {\"b\": \"}\"}  \n 3", 3},
        {"{\"a\": 1}", 1},
        {"12\n\"x\"\n", 2},
    };
    int64_t count;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(read_stream(scratch(state, "list"), cases[i].text, (int64_t)strlen(cases[i].text), &count));
        assert_int_equal(count, cases[i].count);
    }
}

static void damaged_lists_are_refused(void **state) {
    static const struct {
        const char *text, *reason;
    } cases[] = {
        {"[1, 2", "element 3 at byte 5: the array has no closing"},
        {"[1,", "element 2 at byte 3: a value was expected"},
        {"[1, ]", "element 2 at byte 4: a value was expected"},
        {"[, 1]", "element 1 at byte 1: a value was expected"},
        {"[1 2]", "element 1 at byte 1: its text"},
        {"[{} {}]", "element 1 at byte 1: its text"},
        {"[1}", "element 2 at byte 2: a ',' or ']' was expected"},
        {"[\"abc", "a string without end"},
        {"[{\"a\": [1", "it has no end"},
        {"[1] 2", "behind the end of the array"},
        {"[1][2]", "behind the end of the array"},
        {"[{\"a\": 1, \"a\": 2}]", "duplicate object key"},
        {"{\"a\": 1}\n{\"a\": \n", "element 2 at byte 9: its text"},
        {"{\"a\": 1} {\"b\": 2}\n", "element 1 at byte 0: its text"},
        {"{\n\"a\": 1\n}\n", "element 1 at byte 0"},
        {"\xef\xbb\xbf[1]", "byte order mark"},
        {"\xff\xfe[", "byte order mark"},
        {"[1, \xff]", "element 2 at byte 4: its text"},
    };
    int64_t count;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_error(read_stream(scratch(state, "list"), cases[i].text, (int64_t)strlen(cases[i].text), &count),
                     VL_FORMAT, cases[i].reason);
    }
    VlJsonStream *stream;
    assert_error(vl_json_stream_open(&stream, *state), VL_IO, "a folder");
    assert_error(vl_json_stream_open(&stream, scratch(state, "none")), VL_IO, "No such file");
}

static void bombs_are_refused(void **state) {
    enum { SIZE = 65 << 20 };
    char *text;
    int64_t count;
    assert_ok(VL_NEW(&text, SIZE + 1));
    memset(text, '[', SIZE);
    assert_error(read_stream(scratch(state, "list"), text, SIZE, &count), VL_FORMAT, "nested more than 512 deep");
    memset(text, 'x', SIZE);
    memcpy(text, "[\"", 2);
    memcpy(text + SIZE - 2, "\"]", 2);
    assert_error(read_stream(scratch(state, "list"), text, SIZE, &count), VL_FORMAT, "larger than 64 MiB");
    vl_free(text);
}

// Elements of many sizes, so that their ends fall on, before and behind the edges of the buffer.
static void long_lists_are_streamed(void **state) {
    enum { SIZE = 8 << 20 };
    char *text;
    int64_t used = 0, written = 0, count;
    assert_ok(VL_NEW(&text, SIZE));
    text[used++] = '[';
    while (used < SIZE - 400000) {
        int64_t length = written % 97 == 96 ? 65530 + written % 13 : written * 7919 % 1500;
        used += sprintf(text + used, "%s{\"n\": %lld, \"t\": \"", written ? ", " : "", (long long)written);
        memset(text + used, 'a' + (int)(written % 26), (size_t)length);
        used += length;
        used += sprintf(text + used, "\"}");
        written++;
    }
    text[used++] = ']';
    assert_ok(read_stream(scratch(state, "list"), text, used, &count));
    assert_int_equal(count, written);
    vl_free(text);
}

// Random rows of tokens behind a '[': the stream takes exactly those that the parser takes as a whole.
static void the_stream_agrees_with_the_parser(void **state) {
    static const char *const tokens[] = {"[",  "]",    "{",    "}",  ",",  ",", ":",  "\"a\"", "\"b]\"", "1",
                                         "-2", "true", "null", "\"", "\\", " ", "\n", "{}",    "\"a\":1"};
    VlRandom random = vl_random(11, 0);
    int64_t taken = 0;
    for (int round = 0; round < 4000; round++) {
        char text[256] = "[";
        int64_t length = vl_random_below(&random, 10), count;
        for (int64_t i = 0; i < length; i++) {
            strcat(text, tokens[vl_random_below(&random, sizeof tokens / sizeof *tokens)]);
            if (i % 2 && vl_random_below(&random, 2)) strcat(text, ",");
        }
        if (vl_random_below(&random, 8)) strcat(text, "]");
        json_t *whole = NULL;
        VlStatus expected = vl_json_parse(text, (int64_t)strlen(text), "whole", &whole);
        VlStatus status = read_stream(scratch(state, "list"), text, (int64_t)strlen(text), &count);
        if (status != expected) fail_msg("'%s': %d as a whole, %d as a stream", text, (int)expected, (int)status);
        if (!status) assert_int_equal(count, json_array_size(whole));
        taken += status == VL_OK;
        json_decref(whole);
    }
    assert_in_range(taken, 100, 3500);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_are_parsed_strictly), cmocka_unit_test(files_are_loaded_and_saved),
        cmocka_unit_test(members_are_checked),           cmocka_unit_test(lists_are_streamed),
        cmocka_unit_test(damaged_lists_are_refused),     cmocka_unit_test(bombs_are_refused),
        cmocka_unit_test(long_lists_are_streamed),       cmocka_unit_test(the_stream_agrees_with_the_parser),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
