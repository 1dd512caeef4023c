// Held-out samples: which answers count as right, per kind of question, with chance and interval; and what is taken
// away by the controls.
#include "tests/train/runs.h"
#include "train/heldout.h"

static VlComm *comm;

// Four questions with answers that the run learns by heart; then the same four with other answers.
static const char *const words[] = {"one", "two", "three", "four"};
static const char *const learnt[] = {"red", "circle", "red", "square"}, *const other[] = {"two", "two", "two", "blue"};

static void write_samples(FILE *file, const char *kind, const char *const *answers, bool pictures, bool last) {
    for (int i = 0; i < 4; i++) {
        fprintf(file,
                "{\"id\": \"%s%d\", \"kind\": \"%s\", %s\"conversations\": [{\"from\": \"human\", \"value\": "
                "\"%s%s?\"}, {\"from\": \"gpt\", \"value\": \"%s\"}]}%s\n",
                kind, i, kind, pictures ? "\"image\": \"media/f0.png\", " : "", pictures ? "<image>\\n" : "", words[i],
                answers[i], last && i == 3 ? "" : ",");
    }
}

static void write_files(const char *folder) {
    char path[VL_PATH_MAX], text[16384];
    join(path, folder, "train.json");
    FILE *file = fopen(path, "w");
    fputs("[", file);
    write_samples(file, "text-known", learnt, false, false);
    write_samples(file, "picture-known", learnt, true, true);
    fputs("]", file);
    assert_int_equal(fclose(file), 0);
    join(path, folder, "heldout.json");
    file = fopen(path, "w");
    fputs("[", file);
    write_samples(file, "text-known", learnt, false, false);
    write_samples(file, "text-other", other, false, false);
    write_samples(file, "picture-known", learnt, true, true);
    fputs("]", file);
    assert_int_equal(fclose(file), 0);
    join(path, folder, "heldout.yaml");
    snprintf(text, sizeof text,
             "model: {path: %s/model_vl}\n"
             "data:\n"
             "  sources: [{annotations: %.2000s/train.json, media: %s/data, shards: %.2000s/shards}]\n"
             "  protocol: vl2-main\n"
             "heldout: {annotations: %.2000s/heldout.json, media: %s/data, every: 40}\n"
             "train: {steps: 80, global_batch: 8, dtype: f32}\n"
             "optim: {lr: 1.0e-2}\n"
             "checkpoint: {every: 40}\n"
             "threads: 1\n",
             GOLDEN, folder, GOLDEN, folder, folder, GOLDEN);
    put_file(path, text, (int64_t)strlen(text));
}

static json_t *read_line(const char *run, int64_t number) {
    char path[VL_PATH_MAX];
    VlJsonStream *stream;
    json_t *line = NULL;
    int64_t offset, size;
    join(path, run, "heldout.jsonl");
    assert_ok(vl_json_stream_open(&stream, path));
    for (int64_t i = 0; i <= number; i++) {
        json_decref(line);
        assert_ok(vl_json_stream_next(stream, &line, &offset, &size));
    }
    vl_json_stream_close(stream);
    return line;
}

static void expect_kind(const json_t *line, const char *kind, double right, double chance, double low, double high) {
    const json_t *result = json_object_get(json_object_get(line, "kinds"), kind);
    if (!result) fail_msg("no kind %s", kind);
    assert_true(member(result, "asked") == 4);
    if (member(result, "right") != right) fail_msg("%s: %g right, not %g", kind, member(result, "right"), right);
    assert_true(member(result, "accuracy") == right / 4);
    assert_true(member(result, "chance") == chance);
    assert_true(fabs(member(result, "low") - low) < 1e-6);
    assert_true(fabs(member(result, "high") - high) < 1e-6);
}

static void answers_are_counted_by_kind(void **state) {
    static const char *const controls[] = {"none", "none", "text-only", "one-frame", "shuffled"};
    const char *run = scratch(state, "run");
    // Wilson's interval of 4 of 4 and of 0 of 4: 4 / (4 + z^2) with z^2 = 3.8414588.
    const double edge = 4 / (4 + 3.841458820694124);
    assert_ok(train(comm, *state, "heldout", run));
    for (int i = 0; i < 5; i++) {
        json_t *line = read_line(run, i);
        assert_non_null(line);
        assert_string_equal(json_string_value(json_object_get(line, "control")), controls[i]);
        assert_true(member(line, "step") == (i == 0 ? 40 : 80));
        assert_true(member(line, "loss") > 0);
        if (i > 0 && i != 2) {  // pictures are untouched by the controls of videos
            expect_kind(line, "text-known", 4, 0.5, edge, 1);
            expect_kind(line, "text-other", 0, 0.75, 0, 1 - edge);
            expect_kind(line, "picture-known", 4, 0.5, edge, 1);
        }
        json_decref(line);
    }
    assert_null(read_line(run, 5));
}

// Evaluated again from the checkpoint, alone and with another cut into micro-batches: the same.
static void another_run_over_them_gives_the_same(void **state) {
    const char *run = scratch(state, "run"), *again = scratch(state, "again");
    copy_run_at(run, 40, again);
    assert_ok(train(comm, *state, "heldout", again, "train.micro_tokens=2"));
    for (int i = 0; i < 4; i++) {
        json_t *line = read_line(again, i), *first = read_line(run, i + 1);
        assert_true(relative(member(line, "loss"), member(first, "loss")) < 1e-4);
        assert_true(json_equal(json_object_get(line, "kinds"), json_object_get(first, "kinds")));
        json_decref(line);
        json_decref(first);
    }
}

static void the_table_names_kinds_and_groups(void **state) {
    VlHeldout heldout = {0};
    static VlHeldoutKind kinds[2];
    char *text;
    (void)state;
    kinds[0] = (VlHeldoutKind){.name = "colour-red", .questions = 4, .chance = 0.25};
    kinds[1] = (VlHeldoutKind){.name = "colour-blue", .questions = 4, .chance = 0.25};
    for (int control = 0; control < VL_CONTROL_COUNT; control++) {
        kinds[0].result[control] = (VlHeldoutResult){.asked = 4, .right = 4, .accuracy = 1, .low = 0.5, .high = 1};
        kinds[1].result[control] = (VlHeldoutResult){.asked = 4, .right = 0, .accuracy = 0, .low = 0, .high = 0.5};
    }
    heldout.kinds = 2;
    heldout.kind = kinds;
    assert_ok(vl_heldout_table(&heldout, &text));
    assert_non_null(strstr(text, "colour-red"));
    assert_non_null(strstr(text, "colour-blue"));
    assert_non_null(strstr(text, "100"));
    assert_non_null(strstr(text, "50"));  // the group of both
    free(text);
}

// The loss of one held-out question under every control, at the end of a run of one step; -1 where it was not asked.
static void losses_of(const char *folder, const char *name, const char *medium, const char *tag, double *losses) {
    char path[VL_PATH_MAX], run[VL_PATH_MAX], text[4096], file[64];
    snprintf(file, sizeof file, "%s.json", name);
    join(path, folder, file);
    snprintf(text, sizeof text,
             "[{\"id\": \"1\", %s\"conversations\": [{\"from\": \"human\", \"value\": \"%sWhat is it?\"}, "
             "{\"from\": \"gpt\", \"value\": \"A tone.\"}]}]",
             medium, tag);
    put_file(path, text, (int64_t)strlen(text));
    snprintf(file, sizeof file, "%s.yaml", name);
    join(path, folder, file);
    snprintf(text, sizeof text,
             "stage: joint\n"
             "model: {path: %s/model_av}\n"
             "data:\n"
             "  sources: [{annotations: %.1000s/%s.json, media: %s/data/media, shards: %.1000s/%s-shards}]\n"
             "  sound_seconds: 1\n"
             "heldout: {annotations: %.1000s/%s.json, media: %s/data/media, every: 0}\n"
             "train: {steps: 1, global_batch: 1, dtype: f32}\n"
             "threads: 1\n",
             GOLDEN, folder, name, GOLDEN, folder, name, folder, name, GOLDEN);
    put_file(path, text, (int64_t)strlen(text));
    VlConfig config;
    assert_ok(load_config(&config, folder, name, "", (const char *const[]){NULL}));
    assert_ok(vl_pack_sources(&config));
    vl_config_free(&config);
    snprintf(file, sizeof file, "%s-run", name);
    join(run, folder, file);
    assert_ok(train(comm, folder, name, run));
    for (int control = 0; control < VL_CONTROL_COUNT; control++) losses[control] = -1;
    json_t *line;
    for (int i = 0; (line = read_line(run, i)); i++) {
        for (int control = 0; control < VL_CONTROL_COUNT; control++) {
            if (!strcmp(json_string_value(json_object_get(line, "control")), vl_control_name((VlControl)control)))
                losses[control] = member(line, "loss");
        }
        json_decref(line);
    }
}

// A learning rate of 0 in the first step: all runs judge by the same weights.
static void sight_is_parted_from_hearing(void **state) {
    double seen[VL_CONTROL_COUNT], heard[VL_CONTROL_COUNT], both[VL_CONTROL_COUNT];
    losses_of(*state, "seen", "\"video\": \"v0.mkv\", ", "<video>\\n", seen);
    losses_of(*state, "heard", "\"audio\": \"a1.wav\", ", "<audio>\\n", heard);
    losses_of(*state, "both", "\"video\": \"v0.mkv\", \"va\": true, ", "<video>\\n", both);
    assert_true(seen[VL_CONTROL_NONE] > 0 && seen[VL_CONTROL_VIDEO_ONLY] == -1 && seen[VL_CONTROL_AUDIO_ONLY] == -1);
    assert_true(heard[VL_CONTROL_AUDIO_ONLY] == heard[VL_CONTROL_NONE]);
    assert_true(heard[VL_CONTROL_VIDEO_ONLY] == heard[VL_CONTROL_TEXT_ONLY]);
    assert_true(heard[VL_CONTROL_TEXT_ONLY] != heard[VL_CONTROL_NONE]);
    assert_true(both[VL_CONTROL_VIDEO_ONLY] == seen[VL_CONTROL_NONE]);
    assert_true(both[VL_CONTROL_TEXT_ONLY] == seen[VL_CONTROL_TEXT_ONLY]);
    assert_true(both[VL_CONTROL_ONE_FRAME] != both[VL_CONTROL_NONE]);
    assert_true(both[VL_CONTROL_AUDIO_ONLY] != both[VL_CONTROL_NONE] &&
                both[VL_CONTROL_AUDIO_ONLY] != both[VL_CONTROL_VIDEO_ONLY] &&
                both[VL_CONTROL_AUDIO_ONLY] != both[VL_CONTROL_TEXT_ONLY]);
}

static int set_up(void **state) {
    VlConfig config;
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_WARNING, 0);
    assert_ok(vl_comm_open(&comm, 0));
    write_files(*state);
    assert_ok(load_config(&config, *state, "heldout", "", (const char *const[]){NULL}));
    assert_ok(vl_pack_sources(&config));
    vl_config_free(&config);
    return 0;
}

static int tear_down(void **state) {
    vl_comm_close(comm);
    return remove_scratch(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_counted_by_kind),
        cmocka_unit_test(another_run_over_them_gives_the_same),
        cmocka_unit_test(the_table_names_kinds_and_groups),
        cmocka_unit_test(sight_is_parted_from_hearing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
