// Tables as annotations: what RFC 4180 allows becomes samples, what it does not is refused with its row.
#include "data/annotations.h"

#include <sys/resource.h>

#include "data/csv.h"
#include "text_fixture.h"

static char folder[VL_PATH_MAX];

static const char *put_table(const char *text, int64_t length) {
    static char path[VL_PATH_MAX];
    put_file(folder, "table.CSV", text, length);
    must(vl_path_join(path, folder, "table.CSV"));
    return path;
}

// The annotations of a table, each as one line of JSON, a problem behind its id.
static VlStatus read_table(const char *text, int64_t length, VlText *out) {
    VlAnnotations *list;
    VlAnnotation one;
    out->length = 0;
    must(vl_text_append_string(out, ""));
    VlStatus status = vl_annotations_open(&list, put_table(text, length));
    if (status) return status;
    while (!(status = vl_annotations_next(list, &one)) && one.object) {
        char row[32];
        snprintf(row, sizeof row, "%lld ", (long long)one.row);
        must(vl_text_append_string(out, row));
        char *dumped = json_dumps(one.object, JSON_COMPACT | JSON_SORT_KEYS);
        must(vl_text_append_string(out, dumped));
        free(dumped);
        if (one.problem) must(vl_text_append_string(out, one.problem));
        must(vl_text_append_string(out, "\n"));
        assert_true(one.offset >= 0 && one.size > 0 && one.offset + one.size <= length);
        json_decref(one.object);
    }
    if (!status) {  // the end stays the end
        must(vl_annotations_next(list, &one));
        assert_null(one.object);
    }
    vl_annotations_close(list);
    return status;
}

static void expect_table(const char *text, const char *expected) {
    VlText out = {0};
    must(read_table(text, (int64_t)strlen(text), &out));
    if (strcmp(out.data, expected)) fail_msg("%s\ngives\n%s\nnot\n%s", text, out.data, expected);
    vl_text_free(&out);
}

#define TURNS(question, answer) \
    "\"conversations\":[{\"from\":\"human\",\"value\":\"" question "\"},{\"from\":\"gpt\",\"value\":\"" answer "\"}]"

static void test_samples(void **state) {
    (void)state;
    expect_table("video,question,answer\na.mp4,What?,That.\n",
                 "2 {" TURNS("<video>\\nWhat?", "That.") ",\"id\":\"row 2\",\"video\":\"a.mp4\"}\n");
    // Byte order mark, CRLF, another order, no line break at the end, the same medium twice.
    expect_table("\xef\xbb\xbf" "answer,video,id\r\nOne.,a.mp4,x\r\nTwo.,a.mp4,y",
                 "2 {" TURNS("<video>", "One.") ",\"id\":\"x\",\"video\":\"a.mp4\"}\n"
                 "3 {" TURNS("<video>", "Two.") ",\"id\":\"y\",\"video\":\"a.mp4\"}\n");
    // Quotes: commas, line breaks, doubled quotes; a cell that is quoted and empty; rows count as in a spreadsheet.
    expect_table("image,video,question,answer,kind\n\"a,b.png\",\"\",\"Is it\n\"\"red\"\"?\",Yes,colour\r\r\n"
                 ",,2+2?,\"4\",\"\"\n",
                 "2 {" TURNS("<image>\\nIs it\\n\\\"red\\\"?", "Yes") ",\"id\":\"row 2\",\"image\":\"a,b.png\""
                 ",\"kind\":\"colour\"}\n"
                 "4 {" TURNS("2+2?", "4") ",\"id\":\"row 4\",\"kind\":\"\"}\n");
    // A tag that stands in the question stays where it is.
    expect_table("image,question,answer\na.png,What is <image>?,A\n",
                 "2 {" TURNS("What is <image>?", "A") ",\"id\":\"row 2\",\"image\":\"a.png\"}\n");
    // Sounds, and videos with and without theirs.
    expect_table("audio,video,sound,question,answer\na.wav,,,What?,That.\n,a.mp4, Yes ,,That.\n,a.mp4,NO,Q,A\n"
                 ",,no,Q,A\n",
                 "2 {\"audio\":\"a.wav\"," TURNS("<audio>\\nWhat?", "That.") ",\"id\":\"row 2\"}\n"
                 "3 {" TURNS("<video>", "That.") ",\"id\":\"row 3\",\"va\":true,\"video\":\"a.mp4\"}\n"
                 "4 {" TURNS("<video>\\nQ", "A") ",\"id\":\"row 4\",\"video\":\"a.mp4\"}\n"
                 "5 {" TURNS("Q", "A") ",\"id\":\"row 5\"}\n");
    expect_table("video,answer\n", "");
    expect_table("video,answer", "");
    expect_table("answer,question\n\n\n\xc3\xa4,\xe6\xbc\xa2\n",
                 "4 {" TURNS("\xe6\xbc\xa2", "\xc3\xa4") ",\"id\":\"row 4\"}\n");
}

static void test_bad_rows(void **state) {
    (void)state;
    expect_table(
        "video,image,question,answer,id\na.mp4,b.png,Q,A,one\na.mp4,,Q, ,two\n,,,A,three\na.mp4,,Yes, or no?,A,x\n"
        "a.mp4,,Q,A\na.mp4,,Q,A,last\n",
        "2 {\"id\":\"one\"}it names more than one of video, image and audio; a sample has one medium\n"
        "3 {\"id\":\"two\"}its answer is empty\n"
        "4 {\"id\":\"three\"}it has neither a medium nor a question\n"
        "5 {\"id\":\"row 5\"}it has 6 cells, and the header has 5; cells that hold commas stand in quotes\n"
        "6 {\"id\":\"row 6\"}it has 4 cells, and the header has 5; cells that hold commas stand in quotes\n"
        "7 {" TURNS("<video>\\nQ", "A") ",\"id\":\"last\",\"video\":\"a.mp4\"}\n");
}

static void test_bad_sounds(void **state) {
    (void)state;
    expect_table(
        "video,image,audio,sound,answer\n,,a.wav,yes,A\n,b.png,,yes,A\na.mp4,,a.wav,,A\na.mp4,,,true,A\n,,,yes,A\n",
        "2 {\"id\":\"row 2\"}its sound is 'yes', but it names no video\n"
        "3 {\"id\":\"row 3\"}its sound is 'yes', but it names no video\n"
        "4 {\"id\":\"row 4\"}it names more than one of video, image and audio; a sample has one medium\n"
        "5 {\"id\":\"row 5\"}its sound is neither 'yes' nor 'no'\n"
        "6 {\"id\":\"row 6\"}it has neither a medium nor a question\n");
}

static void test_damaged_tables(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } tables[] = {
        {"", "it is empty; the first row names the columns"},
        {"\n\n", "it is empty"},
        {"video,question\n", "there is no column 'answer'"},
        {"video,qestion,answer\n", "row 1: the column 'qestion' is unknown; nearest: question"},
        {"video,question,answer,\n", "row 1: the column '' is unknown"},
        {"Video,answer\n", "nearest: video"},
        {"video,answer,video\n", "the column 'video' stands there twice"},
        {"video;question;answer\na;b;c\n", "not separated by commas"},
        {"video,answer\na.mp4,\"b\nc\n\nd", "row 2 (line 2): a cell begins with a quote and has no closing one"},
        {"video,answer\nx,y\n\na.mp4,\"b\" c\n", "row 4 (line 4): text behind a closing quote"},
        {"video,answer\n\"a\n\",y\na.mp4, \"b\"\n", "row 3 (line 4): a quote inside a cell"},
        {"video,answer\na.mp4,caf\xe9\n", "row 2 (line 2): it is not UTF-8; save the table as 'CSV UTF-8'"},
        {"video,answer\na.mp4,\xc3,\xa9\n", "row 2 (line 2): it is not UTF-8"},
        {"\xff\xfev\0i\0", "is UTF-16"},
    };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        VlText out = {0};
        VlStatus status = read_table(tables[i].text, (int64_t)strlen(tables[i].text), &out);
        if (status != VL_FORMAT || !strstr(vl_error_text(), tables[i].says)) {
            fail_msg("'%s': status %d, \"%s\"", tables[i].text, (int)status, status ? vl_error_text() : "");
        }
        vl_text_free(&out);
    }
    VlText out = {0};
    assert_int_equal(read_table("video,answer\na\0b,c\n", 19, &out), VL_FORMAT);
    assert_non_null(strstr(vl_error_text(), "row 2 (line 2): a zero byte"));
    vl_text_free(&out);
    char wide[2100];
    memset(wide, ',', sizeof wide - 1);
    wide[sizeof wide - 1] = 0;
    assert_int_equal(read_table(wide, sizeof wide - 1, &out), VL_FORMAT);
    assert_non_null(strstr(vl_error_text(), "more than 1000 cells"));
    vl_text_free(&out);
    VlAnnotations *list;
    assert_int_equal(vl_annotations_open(&list, "/nonexistent.csv"), VL_IO);
    assert_int_equal(vl_annotations_open(&list, "/nonexistent.json"), VL_IO);
}

// Forty megabytes of rows go by in a few of memory, across the borders of the pieces that are read.
static void test_long_table(void **state) {
    (void)state;
    enum { ROWS = 400000 };
    char path[VL_PATH_MAX];
    must(vl_path_join(path, folder, "long.csv"));
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("video,question,answer\r\n", file);
    for (int i = 0; i < ROWS; i++) {
        fprintf(file, "clips/%07d.mp4,\"Which \"\"%d\"\", and why?\",\"%*s%d\xc3\xa4\"\r\n", i, i, 40 + i % 23, "", i);
    }
    assert_int_equal(fclose(file), 0);
    VlAnnotations *list;
    VlAnnotation one;
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    must(vl_annotations_open(&list, path));
    for (int i = 0; i < ROWS; i++) {
        char answer[128], question[128];
        must(vl_annotations_next(list, &one));
        assert_int_equal(one.row, i + 2);
        const json_t *turns = json_object_get(one.object, "conversations");
        snprintf(question, sizeof question, "<video>\nWhich \"%d\", and why?", i);
        snprintf(answer, sizeof answer, "%*s%d\xc3\xa4", 40 + i % 23, "", i);
        assert_string_equal(json_string_value(json_object_get(json_array_get(turns, 0), "value")), question);
        assert_string_equal(json_string_value(json_object_get(json_array_get(turns, 1), "value")), answer);
        json_decref(one.object);
    }
    must(vl_annotations_next(list, &one));
    assert_null(one.object);
    vl_annotations_close(list);
    getrusage(RUSAGE_SELF, &after);
#ifndef __SANITIZE_ADDRESS__  // which keeps freed memory for a while
    assert_true(after.ru_maxrss - before.ru_maxrss < 4096);
#endif
}

// JSON goes through as it did.
static void test_lists(void **state) {
    (void)state;
    char path[VL_PATH_MAX];
    VlAnnotations *list;
    VlAnnotation one;
    put_file(folder, "list.json", "[{\"id\":1},{\"id\":2}]", 19);
    must(vl_path_join(path, folder, "list.json"));
    must(vl_annotations_open(&list, path));
    for (int64_t id = 1; id <= 2; id++) {
        must(vl_annotations_next(list, &one));
        assert_int_equal(json_integer_value(json_object_get(one.object, "id")), id);
        assert_int_equal(one.row, 0);
        assert_null(one.problem);
        json_decref(one.object);
    }
    must(vl_annotations_next(list, &one));
    assert_null(one.object);
    vl_annotations_close(list);
}

static void test_faults(void **state) {
    (void)state;
    const char *path = put_table("video,question,answer\na.mp4,What?,That.\n", 40);
    int64_t failures = 0;
    for (;; failures++) {
        VlAnnotations *list = NULL;
        VlAnnotation one = {0};
        vl_fault_arm(failures);
        VlStatus status = vl_annotations_open(&list, path);
        if (!status) status = vl_annotations_next(list, &one);
        vl_fault_arm(-1);
        if (!status) json_decref(one.object);
        vl_annotations_close(list);
        if (!status) break;
        assert_true(status == VL_OUT_OF_MEMORY || status == VL_IO);
    }
    assert_true(failures >= 5);
}

static int set_up(void **state) {
    (void)state;
    make_folder(folder);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    must(vl_remove_tree(folder));
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),        cmocka_unit_test(test_bad_rows),   cmocka_unit_test(test_bad_sounds),
        cmocka_unit_test(test_damaged_tables), cmocka_unit_test(test_long_table), cmocka_unit_test(test_lists),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
