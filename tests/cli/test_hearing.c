// A model that hears, from outside: packed and trained by vl2 on the golden joint samples until it knows them, it
// answers about the files themselves; and what is refused.
#include "tests/process.h"
#include "tests/train/runs.h"

#define AV GOLDEN "/model_av"
#define MEDIA GOLDEN "/data/media"

static Process process;

#define vl2(...) process_call(&process, 120, VL2_PROGRAM, __VA_ARGS__)

static void fails(int code, int expected, const char *part) {
    if (code != expected) fail_msg("exit code %d, not %d: %s", code, expected, process.err);
    if (count_lines(process.err) != 1 || !strstr(process.err, part))
        fail_msg("not one line with '%s': %s", part, process.err);
}

static void answer_is(int code, const char *answer) {
    if (code != 0) fail_msg("exit code %d: %s", code, process.err);
    process.out[strcspn(process.out, "\n")] = '\0';
    assert_string_equal(process.out, answer);
}

// Two seconds of each sound: the run says so, and an answer hears as much of the file as training did.
static int set_up(void **state) {
    char path[VL_PATH_MAX], text[8192];
    if (make_scratch(state)) return -1;
    const char *folder = *state;
    snprintf(text, sizeof text,
             "stage: joint\n"
             "model: {path: " AV
             "}\n"
             "data: {sources: [{annotations: " GOLDEN "/data/joint.json, media: " GOLDEN
             "/data, shards: %.2000s/shards}], "
             "sound_seconds: 2}\n"
             "train: {steps: 120, global_batch: 7, dtype: f32}\n"
             "optim: {lr: 4.0e-3, warmup_ratio: 0.1}\n"
             "checkpoint: {every: 0}\n"
             "threads: 1\n"
             "output: %.2000s/run\n",
             folder, folder);
    join(path, folder, "joint.yaml");
    put_file(path, text, (int64_t)strlen(text));
    if (vl2("pack", path) != 0 || vl2("train", path) != 0) fail_msg("%s", process.err);
    return 0;
}

static void answers_about_files(void **state) {
    const char *run = scratch(state, "run");
    static const struct {
        const char *kind, *file, *sound, *question, *answer;
    } cases[] = {
        {"--video", MEDIA "/v0.mkv", "--sound", "What moves and what is heard?",
         "Slowly three moves up hum large (it's 42% done)."},
        {"--video", MEDIA "/v1.mkv", "--sound", "What moves and what is heard?",
         "Fades quickly of circle beats blue short sound picture two."},
        {"--video", MEDIA "/v2.mkv", NULL, "What moves?", "Three in large blue large in moves!"},
        {"--audio", MEDIA "/a0.wav", NULL, "Which tone?", "Blue large the green of."},
        {"--audio", MEDIA "/a2.wav", NULL, "Which tone?", "Over blue and dark dark three stops."},
        {"--image", MEDIA "/f1.png", NULL, "What is it?", "Moves low red of blue."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        answer_is(vl2("generate", "--model", run, "--prompt", cases[i].question, "--max-new-tokens", "40",
                      cases[i].kind, cases[i].file, cases[i].sound),
                  cases[i].answer);
    }
    answer_is(vl2("generate", "--model", run, "--prompt", "Which tone?", "--max-new-tokens", "40", "--audio",
                  MEDIA "/a0.wav", "--sound-seconds", "2"),
              "Blue large the green of.");
}

static void wrong_calls(void **state) {
    const char *run = scratch(state, "run");
#define ask(...) vl2("generate", "--model", run, "--prompt", "x", __VA_ARGS__)
    fails(ask("--sound"), 2, "--sound is that of a --video");
    fails(ask("--sound", "--audio", MEDIA "/a0.wav"), 2, "--sound is that of a --video");
    fails(ask("--audio", "a", "--video", "b"), 2, "give one of --video, --image and --audio");
    fails(ask("--audio", MEDIA "/a0.wav", "--sound-seconds", "0.5"), 2, "--sound-seconds is 0.5: give 1 to 30");
    fails(ask("--audio", MEDIA "/a0.wav", "--sound-seconds", "31"), 2, "give 1 to 30");
    fails(ask("--audio", "/no/such.wav"), 1, "/no/such.wav");
    fails(ask("--audio", MEDIA "/f0.png"), 1, "f0.png");
    fails(ask("--audio", MEDIA "/a0.wav", "--protocol", "vl2-main"), 1, "vl2-av");
    run = GOLDEN "/model_vl";
    fails(ask("--audio", MEDIA "/a0.wav"), 1, "names no mm_audio_tower");
    fails(ask("--video", MEDIA "/v0.mkv", "--sound"), 1, "names no mm_audio_tower");
#undef ask
    fails(vl2("generate", "--model", AV, "--input", "x.json", "--ids", "--audio", "a.wav"), 2,
          "--input holds the whole");
}

// A video without a sound track is heard as silence, and that is said.
static void silence(void **state) {
    const char *run = scratch(state, "run");
    int code = vl2("generate", "--model", run, "--prompt", "x", "--max-new-tokens", "2", "--sound", "--video",
                   VL_SOURCE_DIR "/tests/golden/media/mpeg4.mkv");
    if (code != 0 || !strstr(process.err, "has no sound: silence is heard")) fail_msg("%d: %s", code, process.err);
}

static void tells_what_a_stage_needs(void **state) {
    const char *run = scratch(state, "run");
    const char *const stages[] = {"audio-pretrain", "audio-finetune", "joint"};
    char ready[64];
    for (int i = 0; i < 3; i++) {
        snprintf(ready, sizeof ready, "stage %s can begin: yes", stages[i]);
        if (vl2("info", run, "--stage", stages[i]) != 0 || !strstr(process.out, ready)) fail_msg("%s", process.out);
        assert_non_null(strstr(process.out, "audio_projector      4 of     4 tensors"));
        snprintf(ready, sizeof ready, "stage %s can begin: no", stages[i]);
        assert_int_equal(vl2("info", GOLDEN "/model_vl", "--stage", stages[i]), 0);
        assert_non_null(strstr(process.out, ready));
        assert_non_null(strstr(process.out, "audio_tower      none in config.json (mm_audio_tower)"));
    }
    assert_int_equal(vl2("info", AV), 0);
    assert_non_null(strstr(process.out, "audio tower: 2 layers, width 32, 2 heads of 16, FFN 64, patch 16"));
    assert_non_null(strstr(process.out, "audio tokens: 1496 for 30 s"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_about_files),
        cmocka_unit_test(wrong_calls),
        cmocka_unit_test(silence),
        cmocka_unit_test(tells_what_a_stage_needs),
    };
    return cmocka_run_group_tests(tests, set_up, remove_scratch);
}
