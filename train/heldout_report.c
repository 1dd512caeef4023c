#include "train/heldout_report.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "train/heldout.h"

static const VlControl shown[] = {VL_CONTROL_NONE, VL_CONTROL_VIDEO_ONLY, VL_CONTROL_AUDIO_ONLY};
enum { SHOWN = sizeof shown / sizeof *shown, GROUPS = 16, LABEL = 28, COLUMN = 12 };

// The last line of a run's results under each control, NULL where there is none of the last step.
typedef struct Results {
    json_t *line[SHOWN];
} Results;

typedef struct Sum {
    int64_t asked, right;
    double chance;
} Sum;

static void forget(Results *results) {
    for (int i = 0; i < SHOWN; i++) json_decref(results->line[i]);
    *results = (Results){0};
}

static int64_t step_of(const json_t *line) { return json_integer_value(json_object_get(line, "step")); }

static VlStatus keep_line(Results *results, const char *path, json_t *line) {
    const char *control = NULL;
    int64_t step;
    VL_TRY(vl_json_get_string(line, path, "control", true, &control));
    VL_TRY(vl_json_get_int(line, path, "step", true, &step));
    if (!json_is_object(json_object_get(line, "kinds"))) {
        return vl_error(VL_FORMAT, "%s: a line without the results by kind of question", path);
    }
    for (int i = 0; i < SHOWN; i++) {
        if (strcmp(control, vl_control_name(shown[i])) != 0) continue;
        json_decref(results->line[i]);
        results->line[i] = json_incref(line);
    }
    return VL_OK;
}

static VlStatus read_run(Results *results, const char *run) {
    char path[VL_PATH_MAX];
    VlJsonStream *stream;
    VL_TRY(vl_path_join(path, run, "heldout.jsonl"));
    VL_TRY(vl_json_stream_open(&stream, path));
    VlStatus status = VL_OK;
    json_t *line = NULL;
    do {
        int64_t offset, size;
        status = vl_json_stream_next(stream, &line, &offset, &size);
        if (status == VL_OK && line) status = keep_line(results, path, line);
        json_decref(line);
    } while (status == VL_OK && line);
    vl_json_stream_close(stream);
    VL_TRY(status);
    if (!results->line[0]) return vl_error(VL_INVALID, "%s: no held-out samples were evaluated in this run", path);
    for (int i = 1; i < SHOWN; i++) {
        if (!results->line[i] || step_of(results->line[i]) == step_of(results->line[0])) continue;
        json_decref(results->line[i]);
        results->line[i] = NULL;
    }
    return VL_OK;
}

// ---- Groups ----------------------------------------------------------------

static int64_t collect_groups(const json_t *line, const char *groups[GROUPS]) {
    const char *name;
    json_t *kind;
    int64_t count = 0;
    json_object_foreach(json_object_get(line, "kinds"), name, kind) {
        bool known = false;
        for (int64_t i = 0; i < count; i++) known |= vl_heldout_same_group(groups[i], name);
        if (!known && count < GROUPS) groups[count++] = name;
    }
    return count;
}

static Sum sum_group(const json_t *line, const char *group) {
    Sum sum = {0};
    const char *name;
    json_t *kind;
    json_object_foreach(json_object_get(line, "kinds"), name, kind) {
        if (!vl_heldout_same_group(name, group)) continue;
        int64_t asked = json_integer_value(json_object_get(kind, "asked"));
        sum.asked += asked;
        sum.right += json_integer_value(json_object_get(kind, "right"));
        sum.chance += (double)asked * json_number_value(json_object_get(kind, "chance"));
    }
    return sum;
}

// ---- Table -----------------------------------------------------------------

static void print_share(FILE *file, double part, int64_t whole) {
    if (whole > 0) {
        fprintf(file, "%*.1f %%", COLUMN - 2, 100 * part / (double)whole);
    } else {
        fprintf(file, "%*s", COLUMN, "-");
    }
}

static void print_head(FILE *file, const json_t *line, int64_t count, const char *const *groups) {
    fprintf(file, "%-*s", LABEL, "held-out questions");
    for (int64_t g = 0; g < count; g++) {
        int length = (int)strcspn(groups[g], "-");
        fprintf(file, "%*s%.*s", length < COLUMN ? COLUMN - length : 1, "", length, groups[g]);
    }
    fprintf(file, "\n%-*s", LABEL, "asked");
    for (int64_t g = 0; g < count; g++) fprintf(file, "%*" PRId64, COLUMN, sum_group(line, groups[g]).asked);
    fprintf(file, "\n%-*s", LABEL, "chance");
    for (int64_t g = 0; g < count; g++) {
        Sum sum = sum_group(line, groups[g]);
        print_share(file, sum.chance, sum.asked);
    }
    fputc('\n', file);
}

static void print_run(FILE *file, const char *run, const Results *results, int64_t count, const char *const *groups) {
    for (int i = 0; i < SHOWN; i++) {
        if (!results->line[i]) continue;
        char label[LABEL];
        snprintf(label, sizeof label, "%s%.20s", i == 0 ? "after " : "  ", i == 0 ? run : vl_control_name(shown[i]));
        fprintf(file, "%-*s", LABEL, label);
        for (int64_t g = 0; g < count; g++) {
            Sum sum = sum_group(results->line[i], groups[g]);
            print_share(file, (double)sum.right, sum.asked);
        }
        fputc('\n', file);
    }
}

VlStatus vl_heldout_report(int64_t runs, const char *const *run, char **text) {
    Results *results;
    const char *groups[GROUPS];
    size_t size = 0;
    *text = NULL;
    VL_TRY(VL_NEW(&results, runs));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < runs && status == VL_OK; i++) status = read_run(&results[i], run[i]);
    FILE *file = status == VL_OK ? open_memstream(text, &size) : NULL;
    if (file) {
        const json_t *last = results[runs - 1].line[0];
        int64_t count = collect_groups(last, groups);
        print_head(file, last, count, groups);
        for (int64_t i = 0; i < runs; i++) print_run(file, vl_path_last(run[i]), &results[i], count, groups);
    }
    bool whole = file && fclose(file) == 0;
    if (status == VL_OK && !whole) {
        free(*text);
        *text = NULL;
        status = vl_error(VL_OUT_OF_MEMORY, "out of memory for the table of held-out results");
    }
    for (int64_t i = 0; i < runs; i++) forget(&results[i]);
    vl_free(results);
    return status;
}
