// What the tests of this room share: a scratch folder and checks of error texts.
#ifndef VL_TESTS_BASE_SUPPORT_H
#define VL_TESTS_BASE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/status.h"

#define assert_ok(expression)                                                 \
    do {                                                                      \
        VlStatus assert_status_ = (expression);                               \
        if (assert_status_) fail_msg("%s: %s", #expression, vl_error_text()); \
    } while (0)

// The call fails with `code`, and its text holds `part`.
#define assert_error(expression, code, part)                                                                         \
    do {                                                                                                             \
        vl_error_clear();                                                                                            \
        VlStatus assert_status_ = (expression);                                                                      \
        if (assert_status_ != (code) || !strstr(vl_error_text(), (part))) {                                          \
            fail_msg("%s: status %d with '%s', not %d with '%s'", #expression, (int)assert_status_, vl_error_text(), \
                     (int)(code), (part));                                                                           \
        }                                                                                                            \
    } while (0)

// Set-up and tear-down of a group: *state is the path of a fresh folder, removed afterwards.
static inline int make_scratch(void **state) {
    char *path = strdup("/tmp/vl_test_XXXXXX");
    *state = path;
    return path && mkdtemp(path) ? 0 : -1;
}

static inline int remove_scratch(void **state) {
    VlStatus status = vl_remove_tree(*state);
    free(*state);
    return status ? -1 : 0;
}

// The path of `name` in the scratch folder; valid until the fourth call after this one.
static inline const char *scratch(void **state, const char *name) {
    static char paths[4][VL_PATH_MAX];
    static int turn;
    char *path = paths[turn++ & 3];
    assert_ok(vl_path_join(path, *state, name));
    return path;
}

// Like vl_write_file, but without waiting for the disk: for tests that write thousands of files. Each is a fresh file:
// some file systems flush one that is cut to nothing and written again.
static inline void put_file(const char *path, const void *data, int64_t size) {
    unlink(path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, (size_t)size, file), size);
    assert_int_equal(fclose(file), 0);
}

static inline int64_t count_names(const char *folder) {
    char **names;
    int64_t count;
    assert_ok(vl_list_folder(folder, &names, &count));
    vl_free_names(names, count);
    return count;
}

#endif
