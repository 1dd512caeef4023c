// The law of the rooms: which folder may include what, and the plain rules of form. The same function judges the
// source tree and, so that it is known to be able to fail, some files made up here.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/status.h"

enum { COLUMNS = 120, LINES = 700 };

// What a room may include from others: folders (ending in '/') or single headers. Its own folder is always allowed.
static const struct {
    const char *room, *allowed[9];  // up to the first NULL
} rooms[] = {
    {"base/", {NULL}},
    {"ops/", {"base/"}},
    {"dist/", {"base/", "ops/"}},
    {"model/", {"base/", "ops/", "dist/comm.h"}},
    {"optim/", {"base/", "ops/", "dist/", "model/params.h"}},
    {"data/", {"base/"}},
    {"train/", {"base/", "ops/", "dist/", "model/", "optim/", "data/"}},
    {"eval/", {"base/", "ops/", "dist/", "model/", "data/"}},
    {"cli/", {"base/", "ops/", "dist/", "model/", "optim/", "data/", "train/", "eval/"}},
};
enum { ROOMS = sizeof rooms / sizeof *rooms };

// Headers of libraries that have one place. `where`: beginnings of paths; `named`: or words in the file's name.
static const struct {
    const char *header, *where[2], *named[2];
} libraries[] = {
    {"mpi.h", {"dist/"}, {NULL}},
    {"hdf5", {NULL}, {"shard", "checkpoint"}},
    {"H5", {NULL}, {"shard", "checkpoint"}},
    {"libav", {"data/media"}, {NULL}},
    {"libsw", {"data/media"}, {NULL}},
    {"libpostproc", {"data/media"}, {NULL}},
    {"jpeglib.h", {"data/media"}, {NULL}},
    {"turbojpeg.h", {"data/media"}, {NULL}},
    {"oneapi/", {"ops/cpu/"}, {NULL}},
    {"dnnl", {"ops/cpu/"}, {NULL}},
    {"cuda", {"ops/cuda/"}, {"nccl"}},
    {"cublas", {"ops/cuda/"}, {NULL}},
    {"ops/cuda/", {"ops/cuda/"}, {"nccl"}},
    {"nccl.h", {NULL}, {"nccl"}},
    {"zlib.h", {"base/zip"}, {NULL}},
    {"assert.h", {NULL}, {NULL}},
};
enum { LIBRARIES = sizeof libraries / sizeof *libraries };

typedef struct Report {
    char *text;
    int64_t used, capacity, violations, files;
} Report;

static void complain(Report *report, const char *path, int64_t line, const char *what, const char *detail) {
    char text[512];
    int length = snprintf(text, sizeof text, "%s:%lld: %s%s\n", path, (long long)line, what, detail);
    if (length >= (int)sizeof text) length = (int)sizeof text - 1;
    assert_int_equal(vl_reserve(&report->text, &report->capacity, report->used + length + 1, 1), VL_OK);
    memcpy(report->text + report->used, text, (size_t)length + 1);
    report->used += length;
    report->violations++;
}

static bool begins(const char *text, const char *beginning) { return !strncmp(text, beginning, strlen(beginning)); }

static bool project_include_allowed(const char *path, const char *header) {
    for (int i = 0; i < ROOMS; i++) {
        if (!begins(path, rooms[i].room)) continue;
        if (begins(header, rooms[i].room)) return true;
        for (const char *const *allowed = rooms[i].allowed; *allowed; allowed++) {
            bool folder = (*allowed)[strlen(*allowed) - 1] == '/';
            if (folder ? begins(header, *allowed) : !strcmp(header, *allowed)) return true;
        }
    }
    return false;
}

static bool library_include_allowed(const char *path, const char *header) {
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    for (int i = 0; i < LIBRARIES; i++) {
        if (!begins(header, libraries[i].header)) continue;
        for (int j = 0; j < 2; j++) {
            if (libraries[i].where[j] && begins(path, libraries[i].where[j])) return true;
            if (libraries[i].named[j] && strstr(name, libraries[i].named[j])) return true;
        }
        return false;
    }
    return true;
}

static void check_include(const char *path, int64_t number, const char *line, Report *report) {
    char header[256], closing;
    line += strspn(line, " \t");
    if (*line != '#') return;
    line += 1 + strspn(line + 1, " \t");
    if (!begins(line, "include")) return;
    line += 7 + strspn(line + 7, " \t");
    closing = *line == '<' ? '>' : '"';
    if (*line != '<' && *line != '"') {
        complain(report, path, number, "an include must name its file", "");
        return;
    }
    const char *end = strchr(line + 1, closing);
    if (!end || end - line >= (ptrdiff_t)sizeof header) {
        complain(report, path, number, "an include without end", "");
        return;
    }
    snprintf(header, sizeof header, "%.*s", (int)(end - line - 1), line + 1);
    if (begins(path, "tests/")) return;
    if (strstr(header, "..")) {
        complain(report, path, number, "includes are written from the root: ", header);
    } else if (closing == '"' && !project_include_allowed(path, header)) {
        complain(report, path, number, "this room must not include ", header);
    } else if (!library_include_allowed(path, header)) {
        complain(report, path, number, "this library has no place here: ", header);
    }
}

// Judges one file; `path` from the root. `text` ends in a zero byte.
static void check_text(const char *path, const char *text, Report *report) {
    static const char *const notes[] = {
        "TO"
        "DO",
        "FIX"
        "ME"};
    int64_t number = 0;
    for (const char *begin = text; *begin; number++) {
        char line[1024];
        size_t length = strcspn(begin, "\n");
        snprintf(line, sizeof line, "%.*s", (int)(length < sizeof line ? length : sizeof line - 1), begin);
        begin += length + (begin[length] == '\n');
        if (length > COLUMNS) complain(report, path, number + 1, "a line of more than 120 columns", "");
        for (const char *c = line; *c; c++) {
            if ((unsigned char)*c < 0x80 && *c != '\t' && *c != '\r') continue;
            complain(report, path, number + 1, "a tab, a carriage return or a character that is not ASCII", "");
            break;
        }
        for (size_t i = 0; i < sizeof notes / sizeof *notes; i++) {
            if (strstr(line, notes[i])) complain(report, path, number + 1, "unfinished: ", notes[i]);
        }
        check_include(path, number + 1, line, report);
    }
    if (number > LINES) complain(report, path, number, "a file of more than 700 lines", "");
    report->files++;
}

// ---- The rules can fail ----------------------------------------------------

static void expect(const char *path, const char *text, const char *violation) {
    Report report = {0};
    check_text(path, text, &report);
    if (!violation && report.violations) fail_msg("not expected: %s", report.text);
    if (violation && report.violations != 1) fail_msg("%s: %lld violations", path, (long long)report.violations);
    if (violation && !strstr(report.text, violation)) fail_msg("'%s' lacks '%s'", report.text, violation);
    vl_free(report.text);
}

static void false_includes_are_found(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"base/a.c", "ops/ops.h"},        {"ops/a.c", "dist/comm.h"},    {"ops/cpu/a.c", "model/vlm.h"},
        {"dist/a.h", "model/params.h"},   {"model/a.c", "dist/ranks.h"}, {"model/a.c", "optim/adamw.h"},
        {"model/a.c", "data/media.h"},    {"optim/a.c", "model/vlm.h"},  {"data/a.c", "ops/ops.h"},
        {"data/a.c", "model/config.h"},   {"train/a.c", "eval/tasks.h"}, {"train/a.c", "cli/commands.h"},
        {"eval/a.c", "train/loop.h"},     {"eval/a.c", "optim/adamw.h"}, {"base/a.c", "status.h"},
        {"base/a.c", "../base/status.h"}, {"cli/a.c", "tests/check.h"},  {"model/a.c", "dist/comm.h.h"},
    };
    char text[300];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "// first\n  #  include \"%s\"\nint a;\n", cases[i][1]);
        expect(cases[i][0], text, cases[i][1]);
    }
    expect("ops/a.c", "#include \"ops/cuda/device.cuh\"\n", "has no place here: ops/cuda/device.cuh");
    expect("dist/comm.c", "#include \"ops/cuda/device.cuh\"\n", "has no place here: ops/cuda/device.cuh");
    expect("base/a.c", "int a;\n#include \"ops/ops.h\"\n", "base/a.c:2: this room must not include ops/ops.h");
}

static void libraries_out_of_place_are_found(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"model/a.c", "mpi.h"},
        {"train/mpi.c", "mpi.h"},
        {"data/pack.c", "hdf5.h"},
        {"train/loop.c", "hdf5_hl.h"},
        {"data/shards/a.c", "H5public.h"},
        {"data/tokenizer.c", "libavformat/avformat.h"},
        {"cli/media.c", "libswscale/swscale.h"},
        {"data/image.c", "jpeglib.h"},
        {"ops/linear.c", "oneapi/dnnl/dnnl.h"},
        {"model/linear.c", "dnnl.h"},
        {"ops/cpu/a.c", "cuda_runtime.h"},
        {"ops/context.c", "cublasLt.h"},
        {"dist/mpi.c", "nccl.h"},
        {"cli/main.c", "assert.h"},
    };
    char text[300];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "#include <%s>\n", cases[i][1]);
        expect(cases[i][0], text, cases[i][1]);
    }
}

static void false_forms_are_found(void **state) {
    (void)state;
    char wide[COLUMNS + 3], *lengthy;
    memset(wide, 'x', sizeof wide);
    wide[COLUMNS + 1] = '\n';
    wide[COLUMNS + 2] = '\0';
    expect("base/a.c", wide, "base/a.c:1: a line of more than 120 columns");
    expect("base/a.c", wide + 1, NULL);
    expect("base/a.c", "int a;\n// na\xc3\xafve\n", "base/a.c:2: a tab, a carriage return or a character that is not");
    expect("base/a.c", "\tint a;\n", "a tab");
    expect("base/a.c", "int a;\r\n", "a carriage return");
    expect("base/a.c",
           "// TO"
           "DO: later\n",
           "unfinished");
    expect("tests/base/a.c",
           "// TO"
           "DO: later\n",
           "unfinished");
    expect("base/a.c", "#include HEADER\n", "must name its file");
    assert_int_equal(VL_NEW(&lengthy, 2 * LINES + 3), VL_OK);
    for (int i = 0; i <= LINES; i++) memcpy(lengthy + 2 * i, ";\n", 2);
    expect("base/a.c", lengthy, "a file of more than 700 lines");
    lengthy[2 * LINES] = '\0';
    expect("base/a.c", lengthy, NULL);
    vl_free(lengthy);
}

static void good_files_pass(void **state) {
    (void)state;
    expect("base/a.c", "#include \"base/status.h\"\n\n#include <stdio.h>\n", NULL);
    expect("model/a.c", "#include \"dist/comm.h\"\n#include \"ops/ops.h\"\n", NULL);
    expect("optim/a.c", "#include \"model/params.h\"\n#include \"dist/ranks.h\"\n", NULL);
    expect("train/a.c", "#include \"data/loader.h\"\n#include \"optim/adamw.h\"\n", NULL);
    expect("cli/a.c", "#include \"eval/tasks.h\"\n#include \"train/loop.h\"\n", NULL);
    expect("dist/a.c", "#include <mpi.h>\n", NULL);
    expect("data/shard_write.c", "#include <hdf5.h>\n", NULL);
    expect("train/checkpoint.c", "#include <hdf5.h>\n", NULL);
    expect("data/media_video.c", "#include <libavcodec/avcodec.h>\n#include <jpeglib.h>\n", NULL);
    expect("ops/cpu/matmul.c", "#include <oneapi/dnnl/dnnl.h>\n", NULL);
    expect("ops/cuda/matmul.cu", "#include <cuda_runtime.h>\n#include \"ops/cuda/device.cuh\"\n", NULL);
    expect("dist/nccl.cu", "#include <nccl.h>\n#include \"ops/cuda/device.cuh\"\n", NULL);
    expect("tests/base/a.c", "#include \"tests/base/support.h\"\n#include <hdf5.h>\n", NULL);
}

// ---- The source tree -------------------------------------------------------

static bool is_source(const char *name) {
    static const char *const endings[] = {".c", ".h", ".cu", ".cuh", ".cc"};
    const char *ending = strrchr(name, '.');
    for (size_t i = 0; ending && i < sizeof endings / sizeof *endings; i++) {
        if (!strcmp(ending, endings[i])) return true;
    }
    return false;
}

static void walk(const char *folder, Report *report) {
    char full[VL_PATH_MAX], path[VL_PATH_MAX];
    char **names, *text;
    int64_t count, size;
    assert_int_equal(vl_path_join(full, VL_SOURCE_DIR, folder), VL_OK);
    if (!vl_path_is_folder(full)) return;
    assert_int_equal(vl_list_folder(full, &names, &count), VL_OK);
    for (int64_t i = 0; i < count; i++) {
        assert_int_equal(vl_path_join(path, folder, names[i]), VL_OK);
        assert_int_equal(vl_path_join(full, VL_SOURCE_DIR, path), VL_OK);
        if (vl_path_is_folder(full)) {
            walk(path, report);
        } else if (is_source(names[i])) {
            assert_int_equal(vl_read_file(full, 1 << 20, &text, &size), VL_OK);
            if ((int64_t)strlen(text) != size) complain(report, path, 1, "a zero byte", "");
            check_text(path, text, report);
            vl_free(text);
        }
    }
    vl_free_names(names, count);
}

static void the_source_tree_obeys(void **state) {
    (void)state;
    Report report = {0};
    for (int i = 0; i < ROOMS; i++) walk(rooms[i].room, &report);
    walk("tests/", &report);
    for (char *rest = report.text, *line; (line = strsep(&rest, "\n"));) print_error("%s\n", line);
    vl_free(report.text);
    assert_int_equal(report.violations, 0);
    assert_true(report.files >= 30);  // the walk did find the sources
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(false_includes_are_found), cmocka_unit_test(libraries_out_of_place_are_found),
        cmocka_unit_test(false_forms_are_found),    cmocka_unit_test(good_files_pass),
        cmocka_unit_test(the_source_tree_obeys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
