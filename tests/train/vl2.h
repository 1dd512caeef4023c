// The program vl2 as a child process that trains.
#ifndef VL_TESTS_TRAIN_VL2_H
#define VL_TESTS_TRAIN_VL2_H

#include "tests/process.h"
#include "tests/train/runs.h"

enum { MOST_WORDS = 24 };

// vl2 train FOLDER/STAGE.yaml output=RUN and what `words` holds up to a NULL.
static inline void start_training(Process *process, const char *folder, const char *stage, const char *run,
                                  int64_t file_limit, const char *const *words) {
    char config[VL_PATH_MAX], name[64], output[VL_PATH_MAX + 16];
    const char *argv[MOST_WORDS] = {VL2_PROGRAM, "train", config, output};
    snprintf(name, sizeof name, "%s.yaml", stage);
    join(config, folder, name);
    snprintf(output, sizeof output, "output=%s", run);
    for (int i = 4; *words && i < MOST_WORDS - 1; i++) argv[i] = *words++;
    process_start(process, argv, file_limit);
}
#define start_vl2_train(process, folder, stage, run, ...) \
    start_training((process), (folder), (stage), (run), 0, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

// Waits until the run has recorded `steps` steps.
static inline void wait_for_step(const char *run, int64_t steps) {
    char path[VL_PATH_MAX], *text;
    int64_t size;
    join(path, run, "metrics.jsonl");
    for (double begin = process_clock(); process_clock() - begin < 60; process_sleep(0.002)) {
        if (!vl_path_exists(path) || vl_read_file(path, 1 << 24, &text, &size) != VL_OK) continue;
        int lines = count_lines(text);
        vl_free(text);
        if (lines >= steps) return;
    }
    fail_msg("%s: no step %lld within a minute", run, (long long)steps);
}

// The child failed with `code` and one line that holds `part`; lines of the log may stand before it.
static inline void expect_failure(const Process *process, int found, int code, const char *part) {
    if (found != code) fail_msg("exit code %d, not %d: %s", found, code, process->err);
    const char *error = strstr(process->err, "vl2: error: ");
    if (!error) fail_msg("no error is told: %s", process->err);
    assert_int_equal(count_lines(error), 1);
    if (!strstr(error, part)) fail_msg("'%s' lacks '%s'", error, part);
}

#endif
