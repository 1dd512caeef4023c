// What a run meets that it should not: shards with a flipped byte, data and models that changed since, values that are
// not finite.
#include <fcntl.h>
#include <unistd.h>

#include "base/safetensors.h"
#include "tests/train/golden_curve.h"
#include "train/tensor_hash.h"

static VlComm *comm;

#define train_error(state, output, code, part, ...) \
    assert_error(train(comm, *(state), "finetune", output, __VA_ARGS__), code, part)

// ---- Bad samples. A second source of four texts, whose one chunk is damaged, lies between the samples of the first.

static const char extra[] =
    "[{\"id\": \"x0\", \"conversations\": [{\"from\": \"human\", \"value\": \"one?\"}, {\"from\": \"gpt\", \"value\": "
    "\"two\"}]},"
    " {\"id\": \"x1\", \"conversations\": [{\"from\": \"human\", \"value\": \"two?\"}, {\"from\": \"gpt\", \"value\": "
    "\"three\"}]},"
    " {\"id\": \"x2\", \"conversations\": [{\"from\": \"human\", \"value\": \"three?\"}, {\"from\": \"gpt\", "
    "\"value\": "
    "\"four\"}]},"
    " {\"id\": \"x3\", \"conversations\": [{\"from\": \"human\", \"value\": \"four?\"}, {\"from\": \"gpt\", \"value\": "
    "\"five\"}]}]";

// FOLDER/two.yaml: the golden finetune run with the second source.
static void write_two_sources(const char *folder) {
    char path[VL_PATH_MAX], text[16384];
    join(path, folder, "extra.json");
    put_file(path, extra, (int64_t)strlen(extra));
    join(path, folder, "two.yaml");
    snprintf(text, sizeof text,
             "include: finetune.yaml\n"
             "data:\n"
             "  sources:\n"
             "    - {annotations: %s/data/finetune.json, media: %s/data, shards: %.2000s/finetune-shards}\n"
             "    - {annotations: %.2000s/extra.json, shards: %.2000s/extra-shards}\n"
             "train: {global_batch: 20}\n",
             GOLDEN, GOLDEN, folder, folder, folder);
    put_file(path, text, (int64_t)strlen(text));
}

// The first zstd frame of a file.
static int64_t first_frame(const char *path) {
    char *data;
    int64_t size, at;
    assert_ok(vl_read_file(path, 1 << 28, &data, &size));
    for (at = 0; at + 4 < size && memcmp(data + at, "\x28\xb5\x2f\xfd", 4) != 0; at++) continue;
    vl_free(data);
    assert_true(at + 64 < size);
    return at;
}

static void damage_extra(void **state) {
    char path[VL_PATH_MAX];
    VlConfig config;
    write_two_sources(*state);
    assert_ok(load_config(&config, *state, "two", "", (const char *const[]){NULL}));
    assert_ok(vl_pack_sources(&config));
    vl_config_free(&config);
    join(path, *state, "extra-shards/shard-00000.h5");
    flip_byte(path, first_frame(path) + 40);
}

static int64_t count_quarantined(const char *run, int64_t *steps) {
    char path[VL_PATH_MAX];
    VlJsonStream *stream;
    json_t *line;
    int64_t offset, size, count = 0;
    join(path, run, "quarantine.jsonl");
    assert_ok(vl_json_stream_open(&stream, path));
    for (;; count++) {
        assert_ok(vl_json_stream_next(stream, &line, &offset, &size));
        if (!line) break;
        assert_int_equal((int64_t)member(line, "source"), 1);
        assert_true(member(line, "index") >= 0 && member(line, "index") < 4);
        *steps = (int64_t)member(line, "step");
        assert_int_equal(*steps, 1 + (int64_t)member(line, "position") / 20);
        assert_non_null(strstr(json_string_value(json_object_get(line, "reason")), "extra-shards/shard-00000.h5"));
        json_decref(line);
    }
    vl_json_stream_close(stream);
    return count;
}

// Four of twenty slots are empty: the loss is that over the labels that are there, which is the golden curve.
static void bad_samples_leave_their_slots_empty(void **state) {
    const char *run = scratch(state, "bad");
    VlCheckpointInfo info;
    char newest[VL_PATH_MAX], again[VL_PATH_MAX];
    int64_t steps = 0;
    assert_ok(train(comm, *state, "two", run, "limits.bad_samples=120"));
    check_curve(run, "finetune");
    check_weights(run, "finetune");
    assert_int_equal(count_quarantined(run, &steps), 4 * 30);
    assert_int_equal(steps, 30);
    assert_ok(vl_checkpoint_newest(run, -1, newest));
    assert_ok(vl_checkpoint_info(newest, &info));
    assert_int_equal(info.progress.bad_samples, 120);
    // The count goes on after a stop, and what is written again is not written twice.
    join(again, *state, "bad-again");
    copy_run_at(run, 10, again);
    join(newest, again, "quarantine.jsonl");
    char quarantine[VL_PATH_MAX];
    join(quarantine, run, "quarantine.jsonl");
    copy_file(quarantine, newest);
    assert_ok(train(comm, *state, "two", again, "limits.bad_samples=120"));
    assert_int_equal(count_quarantined(again, &steps), 4 * 30);
    assert_true(same_weights(run, again));
}

static void too_many_bad_samples_end_the_run(void **state) {
    const char *run = scratch(state, "too-many");
    int64_t steps = 0;
    assert_error(train(comm, *state, "two", run, "limits.bad_samples=119"), VL_FORMAT, "120 samples could not be read");
    assert_int_equal(count_quarantined(run, &steps), 120);
    run = scratch(state, "none-allowed");
    assert_error(train(comm, *state, "two", run, "limits.bad_samples=0"), VL_FORMAT, "limits.bad_samples");
    assert_int_equal(count_quarantined(run, &steps), 4);
    run = scratch(state, "in-a-row");
    assert_error(train(comm, *state, "two", run, "limits.bad_in_a_row=0"), VL_FORMAT, "1 in a row");
}

// ---- What changed since the checkpoint

static void a_changed_run_is_refused(void **state) {
    char run[VL_PATH_MAX], other[VL_PATH_MAX], path[VL_PATH_MAX + 16];
    join(run, *state, "original");
    char configuration[VL_PATH_MAX], before[33], after[33];
    assert_ok(train(comm, *state, "finetune", run, "checkpoint.every=20"));
    join(configuration, run, "config.resolved.yaml");
    assert_ok(vl_hash_file(configuration, before));
    train_error(state, run, VL_INVALID, "train.seed 42", "train.seed=7");
    assert_ok(vl_hash_file(configuration, after));
    assert_string_equal(before, after);
    train_error(state, run, VL_INVALID, "40", "train.steps=40");
    train_error(state, run, VL_INVALID, "take the same values", "train.global_batch=8");
    train_error(state, run, VL_INVALID, "trained 'connector,llm', this configuration 'llm'", "train.trainable=llm");
    assert_error(train(comm, *state, "two", run, "train.global_batch=16"), VL_INVALID, "made on other data");
    join(other, *state, "other-model");
    copy_tree(GOLDEN "/model_vl", other);
    snprintf(path, sizeof path, "model.path=%s", other);
    train_error(state, run, VL_INVALID, "started from " GOLDEN "/model_vl", path);
}

// The weights under the same path are others.
static void a_changed_base_is_refused(void **state) {
    char run[VL_PATH_MAX], model[VL_PATH_MAX], path[VL_PATH_MAX + 16], weights[VL_PATH_MAX];
    int64_t size;
    join(run, *state, "upon-copy");
    join(model, *state, "copied-model");
    copy_tree(GOLDEN "/model_vl", model);
    snprintf(path, sizeof path, "model.path=%s", model);
    assert_ok(train(comm, *state, "finetune", run, path, "train.steps=2"));
    assert_ok(train(comm, *state, "finetune", run, path, "train.steps=2"));
    join(weights, model, "clip-tiny/model.safetensors");
    assert_ok(vl_file_size(weights, &size));
    flip_byte(weights, size - 3);
    train_error(state, run, VL_INVALID, "has changed since", path, "train.steps=2");
    // The next stage, which starts from that run, needs the same frozen parts.
    char next[VL_PATH_MAX], upon[VL_PATH_MAX + 16];
    join(next, *state, "next-stage");
    snprintf(upon, sizeof upon, "model.path=%s", run);
    train_error(state, next, VL_FORMAT, "has changed since", upon, "train.steps=2");
    flip_byte(weights, size - 3);
    assert_ok(train(comm, *state, "finetune", next, upon, "train.steps=2"));
}

// ---- Values that are not finite

static void break_weight(const char *model) {
    char path[VL_PATH_MAX];
    VlSafetensors set;
    const float nan = NAN;
    char *data;
    int64_t size;
    join(path, model, "model.safetensors");
    assert_ok(vl_safetensors_open(&set, path));
    const VlSafetensorsEntry *entry = vl_safetensors_find(&set, "model.norm.weight");
    assert_non_null(entry);
    assert_int_equal(entry->tensor.dtype, VL_F32);
    assert_ok(vl_read_file(path, 1 << 28, &data, &size));
    memcpy(data + entry->offset, &nan, sizeof nan);
    vl_safetensors_close(&set);
    put_file(path, data, size);
    vl_free(data);
}

static void not_finite(void **state) {
    char model[VL_PATH_MAX], run[VL_PATH_MAX], path[VL_PATH_MAX + 16], newest[VL_PATH_MAX];
    VlCheckpointInfo info;
    join(model, *state, "nan-model");
    join(run, *state, "nan-run");
    copy_tree(GOLDEN "/model_vl", model);
    break_weight(model);
    snprintf(path, sizeof path, "model.path=%s", model);
    // The samples are named in a warning before the error.
    const char *log = scratch(state, "nan.log");
    char *warning;
    int64_t bytes;
    int kept = dup(STDERR_FILENO), file = open(log, O_WRONLY | O_CREAT, 0600);
    assert_true(kept >= 0 && file >= 0 && dup2(file, STDERR_FILENO) >= 0);
    vl_log_configure(VL_LOG_WARNING, 0);
    VlStatus status = train(comm, *state, "finetune", run, path, "train.steps=3");
    vl_log_configure(VL_LOG_ERROR, 0);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    close(file);
    assert_int_equal(status, VL_INVALID);
    assert_non_null(strstr(vl_error_text(), "step 1: loss nan, gradient norm nan"));
    assert_ok(vl_read_file(log, 1 << 20, &warning, &bytes));
    assert_non_null(strstr(warning, "f0"));
    assert_non_null(strstr(warning, "f7"));
    vl_free(warning);
    assert_ok(vl_checkpoint_newest(run, -1, newest));
    assert_string_equal(newest, "");
    assert_ok(train(comm, *state, "finetune", run, path, "train.steps=3", "train.nonfinite=skip"));
    assert_ok(vl_checkpoint_newest(run, -1, newest));
    assert_ok(vl_checkpoint_info(newest, &info));
    assert_int_equal(info.progress.skipped, 3);
    assert_int_equal(info.progress.step, 3);
    assert_true(same_weights(run, model));
    // The record stays JSON: what is not finite is null.
    char *text;
    int64_t size;
    json_t *line;
    join(newest, run, "metrics.jsonl");
    assert_ok(vl_read_file(newest, 1 << 20, &text, &size));
    assert_ok(vl_json_parse(text, strcspn(text, "\n"), "metrics", &line));
    assert_true(json_is_null(json_object_get(line, "loss")));
    json_decref(line);
    vl_free(text);
}

static void nothing_to_train(void **state) {
    const char *run = scratch(state, "nothing");
    train_error(state, run, VL_USAGE, "nothing would train", "train.trainable=[]");
    assert_error(train(comm, *state, "finetune", ""), VL_USAGE, "output is missing");
    train_error(state, run, VL_USAGE, "model.path is missing", "model.path=");
    train_error(state, run, VL_IO, "cannot find /no/such/model", "model.path=/no/such/model");
    train_error(state, run, VL_INVALID, "is no model", "model.path=/tmp");
    train_error(state, run, VL_INVALID, "frames", "data.frames=8");
    train_error(state, run, VL_INVALID, "pack the source again", "data.aspect=none");
}

static int set_up(void **state) {
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_ERROR, 0);
    assert_ok(vl_comm_open(&comm, 0));
    pack_stage(*state, "finetune");
    damage_extra(state);
    return 0;
}

static int tear_down(void **state) {
    vl_comm_close(comm);
    return remove_scratch(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_samples_leave_their_slots_empty),
        cmocka_unit_test(too_many_bad_samples_end_the_run),
        cmocka_unit_test(a_changed_run_is_refused),
        cmocka_unit_test(a_changed_base_is_refused),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(nothing_to_train),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
