#include "base/yaml.h"
#include "tests/base/support.h"

static VlStatus parse(const char *text) {
    VlYaml *document = NULL;
    VlStatus status = vl_yaml_parse(text, (int64_t)strlen(text), "c.yaml", &document);
    vl_yaml_free(document);
    return status;
}

static void documents_become_trees(void **state) {
    const char *text =
        "stage: finetune  # a comment\n"
        "model: {path: 'models/x', \"n\": 7}\n"
        "list:\n"
        "  - 1.5\n"
        "  - [a, b]\n"
        "  - key: |\n"
        "      two\n"
        "      lines\n"
        "empty:\n";
    VlYaml *document;
    const char *path = scratch(state, "c.yaml");
    assert_ok(vl_write_file(path, text, (int64_t)strlen(text)));
    assert_ok(vl_yaml_load(path, &document));
    assert_int_equal(document->kind, VL_YAML_MAP);
    assert_int_equal(document->count, 4);
    assert_string_equal(document->keys[3], "empty");
    const VlYaml *stage = vl_yaml_find(document, "stage"), *model = vl_yaml_find(document, "model");
    assert_string_equal(stage->scalar, "finetune");
    assert_false(stage->quoted);
    assert_int_equal(stage->line, 1);
    assert_int_equal(model->line, 2);
    assert_string_equal(vl_yaml_find(model, "path")->scalar, "models/x");
    assert_true(vl_yaml_find(model, "path")->quoted);
    assert_string_equal(vl_yaml_find(model, "n")->scalar, "7");
    assert_false(vl_yaml_find(model, "n")->quoted);
    const VlYaml *list = vl_yaml_find(document, "list");
    assert_int_equal(list->kind, VL_YAML_LIST);
    assert_int_equal(list->count, 3);
    assert_string_equal(list->children[0].scalar, "1.5");
    assert_int_equal(list->children[1].count, 2);
    assert_string_equal(list->children[1].children[1].scalar, "b");
    assert_int_equal(list->children[1].line, 5);
    assert_string_equal(vl_yaml_find(&list->children[2], "key")->scalar, "two\nlines\n");
    assert_string_equal(vl_yaml_find(document, "empty")->scalar, "");
    assert_null(vl_yaml_find(document, "none"));
    assert_null(vl_yaml_find(list, "none"));
    vl_yaml_free(document);
    vl_yaml_free(NULL);
    assert_ok(vl_yaml_parse("word", 4, "c.yaml", &document));
    assert_int_equal(document->kind, VL_YAML_SCALAR);
    vl_yaml_free(document);
}

static void what_is_not_supported_is_named(void **state) {
    (void)state;
    static const struct {
        const char *text, *reason;
    } cases[] = {
        {"a: 1\nb: 2\na: 3\n", "c.yaml:3: the key 'a' stands here for the second time; first in line 1"},
        {"x:\n  {a: 1, a: 2}\n", "c.yaml:2: the key 'a'"},
        {"a: &name 1\n", "c.yaml:1: anchors"},
        {"a: &name [1]\n", "c.yaml:1: anchors"},
        {"&name a: 1\n", "c.yaml:1: anchors"},
        {"a: 1\nb: &name {x: 1}\n", "c.yaml:2: anchors"},
        {"a: *name\n", "anchors"},
        {"a: !!str 1\n", "c.yaml:1: tags"},
        {"a: !mine [1]\n", "c.yaml:1: tags"},
        {"a: !mine {x: 1}\n", "c.yaml:1: tags"},
        {"[a]: 1\n", "c.yaml:1: a key must be a plain word"},
        {"? {a: 1}\n: 1\n", "c.yaml:1: a key must be a plain word"},
        {"a: 1\n---\nb: 2\n", "c.yaml:2: a second document"},
        {"", "the file is empty"},
        {"# only a comment\n", "the file is empty"},
        {"a: \"\\0\"\n", "c.yaml:1: a zero byte"},
        {"a: [1, 2\nb: 3\n", "c.yaml:"},
        {"a: 1\n b: 2\n", "c.yaml:2: mapping values are not allowed"},
        {"a:\n\t- 1\n", "c.yaml:2: "},
        {"a: \x01\n", "control characters are not allowed"},
        {"a: \xff\n", "byte 3: "},
        {"a: \"unfinished\n", "c.yaml:"},
        {"} \n", "c.yaml:1: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_error(parse(cases[i].text), VL_FORMAT, cases[i].reason);
    }
}

static void bombs_are_refused(void **state) {
    char *text;
    int64_t size = 1 << 20;
    assert_ok(VL_NEW(&text, size + 2));
    memset(text, '[', 1000);
    assert_error(parse(text), VL_FORMAT, "nested more than 64 deep");
    for (int i = 0; i < 1000; i++) memcpy(text + 4 * i, "{a: ", 4);
    assert_error(parse(text), VL_FORMAT, "nested more than 64 deep");
    // As many keys as a file can hold must not take quadratic time.
    int64_t used = 0;
    for (int64_t i = 0; used < size - 20; i++) used += sprintf(text + used, "%llx:\n", (long long)i);
    assert_ok(parse(text));
    memset(text, '#', (size_t)size + 1);
    assert_error(parse(text), VL_FORMAT, "larger than 1 MiB");
    assert_ok(vl_write_file(scratch(state, "big"), text, size + 1));
    VlYaml *document;
    assert_error(vl_yaml_load(scratch(state, "big"), &document), VL_FORMAT, "larger than the 1048576 bytes");
    assert_error(vl_yaml_load(scratch(state, "none"), &document), VL_IO, "No such file");
    vl_free(text);
}

// Every prefix of a document, and every document with one byte changed, is read or refused.
static void damaged_documents_do_no_harm(void **state) {
    (void)state;
    const char good[] = "a: {b: [1, \"x\\n\", 'y'], c: >\n  folded\n}\nd:\n  - e\n  - f: g\n";
    char text[sizeof good];
    VlYaml *document;
    for (size_t i = 0; i < sizeof good; i++) {
        document = NULL;
        if (vl_yaml_parse(good, (int64_t)i, "c.yaml", &document) == VL_OK) assert_non_null(document);
        vl_yaml_free(document);
        for (int byte = 0; byte < 256 && i < sizeof good - 1; byte++) {
            memcpy(text, good, sizeof good);
            text[i] = (char)byte;
            document = NULL;
            VlStatus status = vl_yaml_parse(text, sizeof good - 1, "c.yaml", &document);
            assert_true(status == VL_OK ? document != NULL : status == VL_FORMAT && vl_error_text()[0]);
            vl_yaml_free(document);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_become_trees),
        cmocka_unit_test(what_is_not_supported_is_named),
        cmocka_unit_test(bombs_are_refused),
        cmocka_unit_test(damaged_documents_do_no_harm),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
