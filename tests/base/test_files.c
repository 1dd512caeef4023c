#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/base/support.h"

static void paths_are_joined_and_cut(void **state) {
    (void)state;
    static const char *const joins[][3] = {{"a", "b", "a/b"},  {"a/", "b", "a/b"}, {"", "b", "b"},
                                           {NULL, "b", "b"},   {"/", "b", "/b"},   {"a", "/b/c", "/b/c"},
                                           {"a/b", "", "a/b/"}};
    static const char *const folders[][2] = {{"a", "."},    {"a/b", "a"}, {"/a", "/"},  {"/", "/"},    {"a/b/", "a"},
                                             {"a//b", "a"}, {"", "."},    {"./a", "."}, {"/a/b", "/a"}};
    char out[VL_PATH_MAX], giant[5000];
    for (size_t i = 0; i < sizeof joins / sizeof *joins; i++) {
        assert_ok(vl_path_join(out, joins[i][0], joins[i][1]));
        assert_string_equal(out, joins[i][2]);
    }
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        assert_ok(vl_path_folder(out, folders[i][0]));
        assert_string_equal(out, folders[i][1]);
    }
    memset(giant, 'x', sizeof giant);
    giant[sizeof giant - 1] = '\0';
    VlReader reader;
    VlWriter writer;
    assert_error(vl_path_join(out, NULL, giant), VL_INVALID, "4999 bytes");
    assert_error(vl_path_join(out, "a", giant), VL_INVALID, "longer than 4095");
    assert_error(vl_reader_open(&reader, giant), VL_INVALID, "4999 bytes");
    assert_error(vl_make_folders(giant), VL_INVALID, "4999 bytes");
    giant[4090] = '\0';
    assert_error(vl_writer_open(&writer, giant), VL_INVALID, "too long");
}

static void folders_come_and_go(void **state) {
    char **names;
    int64_t count;
    const char *deep = scratch(state, "tree/a/b//c");
    assert_ok(vl_make_folders(deep));
    assert_ok(vl_make_folders(deep));
    assert_true(vl_path_is_folder(deep));
    assert_ok(vl_write_file(scratch(state, "tree/file"), "x", 1));
    assert_ok(vl_write_file(scratch(state, "tree/a/b/file"), "x", 1));
    assert_ok(vl_write_file(scratch(state, "outside"), "kept", 4));
    assert_ok(vl_make_folders(scratch(state, "other")));
    assert_ok(vl_write_file(scratch(state, "other/file"), "kept", 4));
    assert_int_equal(symlink(scratch(state, "outside"), scratch(state, "tree/link")), 0);
    assert_int_equal(symlink(scratch(state, "other"), scratch(state, "tree/a/link")), 0);
    assert_ok(vl_list_folder(scratch(state, "tree"), &names, &count));
    assert_int_equal(count, 3);
    assert_string_equal(names[0], "a");
    assert_string_equal(names[1], "file");
    assert_string_equal(names[2], "link");
    vl_free_names(names, count);
    assert_error(vl_make_folders(scratch(state, "tree/file")), VL_IO, "is no folder");
    assert_error(vl_make_folders(scratch(state, "tree/file/below")), VL_IO, "tree/file");
    assert_error(vl_make_folders(""), VL_INVALID, "empty name");
    assert_error(vl_list_folder(scratch(state, "none"), &names, &count), VL_IO, "No such file");
    assert_error(vl_list_folder(scratch(state, "tree/file"), &names, &count), VL_IO, "Not a directory");
    assert_ok(vl_sync_folder(scratch(state, "tree")));
    assert_error(vl_sync_folder(scratch(state, "tree/file")), VL_IO, "Not a directory");
    assert_ok(vl_sync_file_system(scratch(state, "tree")));
    assert_error(vl_sync_file_system(scratch(state, "tree/file")), VL_IO, "Not a directory");
    assert_ok(vl_remove_tree(scratch(state, "tree")));
    assert_false(vl_path_exists(scratch(state, "tree")));
    assert_true(vl_path_exists(scratch(state, "outside")));  // links are removed, not followed
    assert_true(vl_path_exists(scratch(state, "other/file")));
    assert_ok(vl_remove_tree(scratch(state, "tree")));
    assert_ok(vl_remove_tree(scratch(state, "other")));
    assert_ok(vl_remove_tree(scratch(state, "outside")));
    assert_int_equal(count_names(*state), 0);
}

static void files_are_read_whole(void **state) {
    char *data = NULL;
    int64_t size = -1;
    const char *path = scratch(state, "whole");
    assert_ok(vl_write_file(path, "hello\0world", 11));
    assert_ok(vl_file_size(path, &size));
    assert_int_equal(size, 11);
    assert_ok(vl_read_file(path, 11, &data, &size));
    assert_int_equal(size, 11);
    assert_memory_equal(data, "hello\0world", 12);
    vl_free(data);
    assert_error(vl_read_file(path, 10, &data, &size), VL_FORMAT, "larger than the 10 bytes");
    assert_ok(vl_write_file(path, "", 0));
    assert_ok(vl_read_file(path, 0, &data, &size));
    assert_int_equal(size, 0);
    assert_string_equal(data, "");
    vl_free(data);
    assert_error(vl_read_file(scratch(state, "none"), 10, &data, &size), VL_IO, "none': No such file");
    assert_ok(vl_read_file("/proc/self/status", 1 << 20, &data, &size));  // claims to have 0 bytes
    assert_true(size > 100);
    assert_memory_equal(data, "Name:", 5);
    vl_free(data);
    assert_error(vl_read_file("/proc/self/status", 20, &data, &size), VL_FORMAT, "larger than the 20 bytes");
}

static void only_regular_files_are_read(void **state) {
    VlReader reader;
    int64_t size;
    assert_int_equal(mkfifo(scratch(state, "pipe"), 0600), 0);
    assert_error(vl_reader_open(&reader, *state), VL_IO, "a folder");
    assert_error(vl_reader_open(&reader, scratch(state, "pipe")), VL_IO, "a pipe");
    assert_error(vl_reader_open(&reader, "/dev/zero"), VL_IO, "a device");
    assert_error(vl_file_size(scratch(state, "pipe"), &size), VL_IO, "no regular file");
    assert_error(vl_write_file(scratch(state, "pipe"), "x", 1), VL_IO, "no regular file");
    assert_error(vl_write_file(*state, "x", 1), VL_IO, "no regular file");
    assert_ok(vl_remove_tree(scratch(state, "pipe")));
    reader = (VlReader){0};
    vl_reader_close(&reader);  // never opened: must leave descriptor 0 alone
    assert_true(fcntl(0, F_GETFD) >= 0);
}

static void ranges_are_checked(void **state) {
    VlReader reader;
    char data[8] = "";
    const char *path = scratch(state, "range");
    assert_ok(vl_write_file(path, "0123456789", 10));
    assert_ok(vl_reader_open(&reader, path));
    assert_int_equal(reader.size, 10);
    assert_ok(vl_reader_read(&reader, 3, data, 4));
    assert_memory_equal(data, "3456", 5);
    assert_ok(vl_reader_read(&reader, 10, data, 0));
    assert_error(vl_reader_read(&reader, 8, data, 3), VL_FORMAT, "truncated: it ends at byte 10");
    assert_error(vl_reader_read(&reader, 1000, data, 1), VL_FORMAT, "truncated");
    assert_error(vl_reader_read(&reader, -1, data, 3), VL_INVALID, "offset -1");
    assert_error(vl_reader_read(&reader, 1, data, -3), VL_INVALID, "-3 bytes");
    assert_error(vl_reader_read(&reader, INT64_MAX, data, 3), VL_INVALID, "no valid range");
    vl_reader_close(&reader);
    vl_reader_close(&reader);
}

static void files_appear_complete_or_not_at_all(void **state) {
    VlWriter writer;
    char *data;
    int64_t size;
    const char *path = scratch(state, "new");
    assert_int_equal(count_names(*state), 1);  // what the test before left
    assert_ok(vl_writer_open(&writer, path));
    assert_ok(vl_writer_write(&writer, "abc", 3));
    assert_false(vl_path_exists(path));
    assert_int_equal(count_names(*state), 2);
    vl_writer_abandon(&writer);
    vl_writer_abandon(&writer);
    assert_int_equal(count_names(*state), 1);
    assert_ok(vl_writer_open(&writer, path));
    assert_ok(vl_writer_write(&writer, "abc", 3));
    assert_ok(vl_writer_write(&writer, "def", 3));
    assert_error(vl_writer_write(&writer, "x", -1), VL_INVALID, "-1 bytes");
    assert_int_equal(writer.offset, 6);
    assert_ok(vl_writer_commit(&writer));
    vl_writer_abandon(&writer);
    assert_ok(vl_read_file(path, 100, &data, &size));
    assert_string_equal(data, "abcdef");
    vl_free(data);
    assert_int_equal(count_names(*state), 2);
    assert_error(vl_write_file(scratch(state, "none/file"), "x", 1), VL_IO, "No such file");
}

// A limit on file sizes stands for a full disk: write(2) stops half-way and then fails.
static void a_full_disk_is_told(void **state) {
    struct rlimit old, small = {.rlim_cur = 100000};
    char *data;
    assert_ok(VL_NEW(&data, 200000));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    int64_t before = count_names(*state);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    VlStatus status = vl_write_file(scratch(state, "full"), data, 200000);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, VL_IO);
    assert_non_null(strstr(vl_error_text(), "full': File too large"));
    assert_int_equal(count_names(*state), before);
    vl_free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_joined_and_cut),
        cmocka_unit_test(folders_come_and_go),
        cmocka_unit_test(files_are_read_whole),
        cmocka_unit_test_setup_teardown(only_regular_files_are_read, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(ranges_are_checked, make_scratch, remove_scratch),
        cmocka_unit_test(files_appear_complete_or_not_at_all),
        cmocka_unit_test(a_full_disk_is_told),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
