// metrics.jsonl and TensorBoard's event files, read back.
#include "base/crc32c.h"
#include "tests/train/runs.h"
#include "train/metrics.h"

static VlStepMetrics step_metrics(int64_t step) {
    return (VlStepMetrics){.step = step,
                           .loss = 1.0 / (double)step,
                           .grad_norm = 0.1 * (double)step,
                           .lr = 1e-3,
                           .tokens = 100 * step,
                           .label_tokens = 10 * step,
                           .samples = 16,
                           .seconds = 0.25,
                           .tokens_per_s = 400,
                           .mfu = 0.5,
                           .data_wait = 0.01};
}

static void record(const char *run, int64_t first, int64_t last) {
    VlMetrics metrics;
    assert_ok(vl_make_folders(run));
    assert_ok(vl_metrics_open(&metrics, run, first - 1, 100));
    for (int64_t step = first; step <= last; step++) {
        VlStepMetrics values = step_metrics(step);
        assert_ok(vl_metrics_step(&metrics, &values));
    }
    vl_metrics_close(&metrics);
}

// Every line is one object with all keys, steps 1 to `steps` in order.
static void expect_lines(const char *run, int64_t steps) {
    static const char *const keys[] = {"step",    "loss",    "grad_norm",    "lr",  "tokens",   "label_tokens",
                                       "samples", "seconds", "tokens_per_s", "mfu", "data_wait"};
    char path[VL_PATH_MAX], *text;
    int64_t size, step = 0;
    join(path, run, "metrics.jsonl");
    assert_ok(vl_read_file(path, 1 << 20, &text, &size));
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) && *line;) {
        json_t *object;
        assert_ok(vl_json_parse(line, (int64_t)strlen(line), path, &object));
        step++;
        VlStepMetrics expected = step_metrics(step);
        assert_int_equal(json_object_size(object), 11);
        for (int i = 0; i < 11; i++) member(object, keys[i]);
        assert_int_equal(json_integer_value(json_object_get(object, "step")), step);
        assert_int_equal(json_integer_value(json_object_get(object, "tokens")), expected.tokens);
        assert_int_equal(json_integer_value(json_object_get(object, "label_tokens")), expected.label_tokens);
        assert_true(member(object, "loss") == expected.loss);  // 17 digits: the same bits
        assert_true(member(object, "grad_norm") == expected.grad_norm);
        json_decref(object);
    }
    vl_free(text);
    assert_int_equal(step, steps);
}

static void lines_are_objects(void **state) {
    const char *run = scratch(state, "lines");
    record(run, 1, 12);
    expect_lines(run, 12);
}

// A run that goes on from an earlier step: what came after is dropped, also a line that was cut short.
static void a_resumed_run_drops_what_came_later(void **state) {
    const char *run = scratch(state, "resumed");
    char path[VL_PATH_MAX], other[VL_PATH_MAX], *text;
    int64_t size;
    record(run, 1, 12);
    join(other, run, "quarantine.jsonl");
    put_file(other, "{\"step\": 4, \"id\": \"a\"}\n{\"step\": 8, \"id\": \"\\\"step\\\": 1\"}\n{\"step\": 9}\n", 69);
    record(run, 9, 15);
    expect_lines(run, 15);
    assert_ok(vl_read_file(other, 1 << 20, &text, &size));
    assert_string_equal(text, "{\"step\": 4, \"id\": \"a\"}\n{\"step\": 8, \"id\": \"\\\"step\\\": 1\"}\n");
    vl_free(text);
    join(path, run, "metrics.jsonl");
    FILE *file = fopen(path, "ab");
    fputs("{\"step\": 16, \"loss\": 0.", file);
    fclose(file);
    record(run, 16, 16);
    expect_lines(run, 16);
    record(run, 1, 2);  // from the beginning
    expect_lines(run, 2);
    put_file(path, "no line of ours", 15);
    record(run, 1, 1);
    expect_lines(run, 1);
}

static void not_finite_is_null(void **state) {
    const char *run = scratch(state, "null");
    char path[VL_PATH_MAX], *text;
    int64_t size;
    VlMetrics metrics;
    VlStepMetrics values = step_metrics(1);
    values.loss = NAN;
    values.grad_norm = -INFINITY;
    assert_ok(vl_make_folders(run));
    assert_ok(vl_metrics_open(&metrics, run, 0, 1));
    assert_ok(vl_metrics_step(&metrics, &values));
    vl_metrics_close(&metrics);
    join(path, run, "metrics.jsonl");
    assert_ok(vl_read_file(path, 1 << 20, &text, &size));
    json_t *object;
    assert_ok(vl_json_parse(text, size, path, &object));
    assert_true(json_is_null(json_object_get(object, "loss")));
    assert_true(json_is_null(json_object_get(object, "grad_norm")));
    json_decref(object);
    vl_free(text);
}

// ---- TensorBoard: TFRecord framing around Event messages, decoded by hand

typedef struct Cursor {
    const unsigned char *at, *end;
} Cursor;

static uint64_t varint(Cursor *cursor) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(cursor->at < cursor->end && shift < 64);
        value |= (uint64_t)(*cursor->at & 0x7f) << shift;
        if (!(*cursor->at++ & 0x80)) return value;
    }
}

static Cursor block(Cursor *cursor) {
    uint64_t size = varint(cursor);
    assert_true(size <= (uint64_t)(cursor->end - cursor->at));
    Cursor inner = {cursor->at, cursor->at + size};
    cursor->at += size;
    return inner;
}

static void fixed(Cursor *cursor, void *value, size_t size) {
    assert_true((size_t)(cursor->end - cursor->at) >= size);
    memcpy(value, cursor->at, size);
    cursor->at += size;
}

typedef struct Event {
    double wall_time;
    uint64_t step;
    char version[32], tag[256];
    float value;
} Event;

static void read_value(Cursor summary, Event *event) {
    assert_int_equal(varint(&summary), 1 << 3 | 2);  // Summary.value
    Cursor value = block(&summary);
    assert_true(summary.at == summary.end);
    assert_int_equal(varint(&value), 1 << 3 | 2);  // Value.tag
    Cursor tag = block(&value);
    memcpy(event->tag, tag.at, (size_t)(tag.end - tag.at));
    assert_int_equal(varint(&value), 2 << 3 | 5);  // Value.simple_value
    fixed(&value, &event->value, sizeof event->value);
    assert_true(value.at == value.end);
}

static Event read_event(Cursor cursor) {
    Event event = {0};
    while (cursor.at < cursor.end) {
        uint64_t key = varint(&cursor);
        if (key == (1 << 3 | 1)) {
            fixed(&cursor, &event.wall_time, sizeof event.wall_time);
        } else if (key == (2 << 3 | 0)) {
            event.step = varint(&cursor);
        } else if (key == (3 << 3 | 2)) {
            Cursor version = block(&cursor);
            memcpy(event.version, version.at, (size_t)(version.end - version.at));
        } else if (key == (5 << 3 | 2)) {
            read_value(block(&cursor), &event);
        } else {
            fail_msg("an unknown field, key %llu", (unsigned long long)key);
        }
    }
    return event;
}

static void expect_crc(Cursor *cursor, const void *bytes, size_t size) {
    uint32_t stored, crc = vl_crc32c(0, bytes, (int64_t)size);
    fixed(cursor, &stored, sizeof stored);
    assert_int_equal(stored, (uint32_t)((crc >> 15 | crc << 17) + 0xa282ead8u));
}

static int64_t read_events(const char *path, Event *events, int64_t most) {
    char *data;
    int64_t size, count = 0;
    assert_ok(vl_read_file(path, 1 << 24, &data, &size));
    Cursor cursor = {(unsigned char *)data, (unsigned char *)data + size};
    while (cursor.at < cursor.end) {
        uint64_t length;
        fixed(&cursor, &length, sizeof length);
        expect_crc(&cursor, &length, sizeof length);
        assert_true(length <= (uint64_t)(cursor.end - cursor.at) && count < most);
        Cursor event = {cursor.at, cursor.at + length};
        cursor.at += length;
        expect_crc(&cursor, event.at, length);
        events[count++] = read_event(event);
    }
    vl_free(data);
    return count;
}

static void event_files(void **state) {
    const char *run = scratch(state, "events");
    static const char *const tags[] = {"train/loss", "train/grad_norm", "train/lr", "train/tokens_per_s"};
    static Event events[64];
    char folder[VL_PATH_MAX], path[VL_PATH_MAX], **files;
    int64_t count;
    VlMetrics metrics;
    assert_ok(vl_make_folders(run));
    assert_ok(vl_metrics_open(&metrics, run, 0, 5));
    for (int64_t step = 1; step <= 5; step++) {
        VlStepMetrics values = step_metrics(step);
        assert_ok(vl_metrics_step(&metrics, &values));
    }
    assert_ok(vl_metrics_scalar(&metrics, 300, "heldout/none/loss", -2.5));
    vl_metrics_close(&metrics);
    join(folder, run, "tensorboard");
    assert_ok(vl_list_folder(folder, &files, &count));
    assert_int_equal(count, 1);
    assert_int_equal(strncmp(files[0], "events.out.tfevents.", 20), 0);
    join(path, folder, files[0]);
    vl_free_names(files, count);
    assert_int_equal(read_events(path, events, 64), 1 + 5 * 4 + 1);
    assert_string_equal(events[0].version, "brain.Event:2");
    assert_true(events[0].wall_time > 1e9);
    for (int64_t i = 0; i < 20; i++) {
        const Event *event = &events[1 + i];
        VlStepMetrics values = step_metrics(1 + i / 4);
        const double expected[] = {values.loss, values.grad_norm, values.lr, values.tokens_per_s};
        assert_int_equal(event->step, 1 + i / 4);
        assert_string_equal(event->tag, tags[i % 4]);
        assert_true(event->value == (float)expected[i % 4]);
        assert_true(event->wall_time >= events[0].wall_time);
    }
    assert_int_equal(events[21].step, 300);
    assert_string_equal(events[21].tag, "heldout/none/loss");
    assert_true(events[21].value == -2.5f);
}

static void a_name_that_is_too_long_is_cut(void **state) {
    const char *run = scratch(state, "long");
    char tag[1000];
    VlMetrics metrics;
    memset(tag, 't', sizeof tag);
    tag[sizeof tag - 1] = '\0';
    assert_ok(vl_make_folders(run));
    assert_ok(vl_metrics_open(&metrics, run, 0, 5));
    assert_ok(vl_metrics_scalar(&metrics, 1, tag, 1));
    vl_metrics_close(&metrics);
}

static void silent_ranks(void **state) {
    (void)state;
    VlMetrics metrics = {0};  // as on ranks other than 0
    VlStepMetrics values = step_metrics(1);
    assert_ok(vl_metrics_step(&metrics, &values));
    assert_ok(vl_metrics_scalar(&metrics, 1, "a", 1));
    vl_metrics_close(&metrics);
    assert_error(vl_metrics_open(&metrics, "/dev/null", 0, 1), VL_IO, "/dev/null");
}

static int set_up(void **state) {
    vl_log_configure(VL_LOG_WARNING, 0);
    return make_scratch(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_objects),
        cmocka_unit_test(a_resumed_run_drops_what_came_later),
        cmocka_unit_test(not_finite_is_null),
        cmocka_unit_test(event_files),
        cmocka_unit_test(a_name_that_is_too_long_is_cut),
        cmocka_unit_test(silent_ranks),
    };
    return cmocka_run_group_tests(tests, set_up, remove_scratch);
}
