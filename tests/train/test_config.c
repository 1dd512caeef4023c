// The configuration: defaults by stage, includes, overrides, and every way to get it wrong.
#include "tests/base/support.h"
#include "train/config.h"

enum { MOST_WORDS = 8 };

static VlStatus load(void **state, const char *text, VlConfig *config, const char *const *words) {
    const char *path = scratch(state, "config.yaml");
    int64_t count = 0;
    while (words[count]) count++;
    put_file(path, text, (int64_t)strlen(text));
    return vl_config_load(config, path, count, words);
}
#define config_of(state, config, text, ...) \
    load((state), (text), (config), (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void expect_error(void **state, const char *text, const char *place, const char *part) {
    VlConfig config;
    char where[VL_PATH_MAX + 16];
    vl_error_clear();
    VlStatus status = config_of(state, &config, text);
    snprintf(where, sizeof where, "%s%s", scratch(state, "config.yaml"), place);
    if (status != VL_USAGE || !strstr(vl_error_text(), where) || !strstr(vl_error_text(), part)) {
        fail_msg("status %d, '%s'; not %d with '%s' and '%s'", (int)status, vl_error_text(), VL_USAGE, where, part);
    }
    assert_null(strchr(vl_error_text(), '\n'));
}

static void expect_override_error(void **state, const char *word, const char *part) {
    VlConfig config;
    vl_error_clear();
    VlStatus status = config_of(state, &config, "stage: finetune\n", word);
    if (status != VL_USAGE || !strstr(vl_error_text(), "command line: ") || !strstr(vl_error_text(), part)) {
        fail_msg("%s: status %d, '%s' lacks '%s'", word, (int)status, vl_error_text(), part);
    }
}

static void stages_set_defaults(void **state) {
    VlConfig config;
    assert_ok(vl_config_load(&config, NULL, 0, NULL));
    assert_string_equal(config.stage, "finetune");
    assert_string_equal(config.train.trainable, "connector,llm");
    assert_true(config.optim.lr == 2e-5);
    assert_int_equal(config.train.global_batch, 128);
    assert_true(config.optim.warmup_ratio == 0.03 && config.optim.clip_norm == 1.0 && config.optim.weight_decay == 0);
    vl_config_free(&config);
    assert_ok(config_of(state, &config, "stage: pretrain\n"));
    assert_string_equal(config.train.trainable, "connector");
    assert_true(config.optim.lr == 1e-3);
    vl_config_free(&config);
    static const struct {
        const char *stage, *trainable;
        double rate;
    } heard[] = {{"audio-pretrain", "audio_projector", 1e-3},
                 {"audio-finetune", "audio_tower,audio_projector", 2e-5},
                 {"joint", "connector,llm,audio_tower,audio_projector", 2e-5}};
    for (int i = 0; i < 3; i++) {
        char text[64];
        snprintf(text, sizeof text, "stage: %s\n", heard[i].stage);
        assert_ok(config_of(state, &config, text));
        assert_string_equal(config.train.trainable, heard[i].trainable);
        assert_true(config.optim.lr == heard[i].rate && config.train.layer_drop == 0);
        vl_config_free(&config);
    }
    assert_ok(config_of(state, &config, "stage: joint\n"));
    assert_true(config.data.sound_seconds == 30);
    assert_string_equal(config.data.fbank_dtype, "f32");
    vl_config_free(&config);
    assert_ok(config_of(state, &config, "data: {sound_seconds: 2.5, fbank_dtype: bf16}\n"));
    assert_true(config.data.sound_seconds == 2.5);
    assert_string_equal(config.data.fbank_dtype, "bf16");
    vl_config_free(&config);
    expect_override_error(state, "data.sound_seconds=0.5", "1 .. 30");
    expect_override_error(state, "data.sound_seconds=31", "1 .. 30");
    expect_override_error(state, "data.fbank_dtype=f16", "f32 bf16");
    // What is written out wins over the stage's defaults, wherever the stage stands.
    assert_ok(config_of(state, &config, "optim: {lr: 5.0e-4}\nstage: pretrain\n"));
    assert_true(config.optim.lr == 5e-4);
    vl_config_free(&config);
    assert_ok(config_of(state, &config, "optim: {lr: 5.0e-4}\n", "stage=pretrain"));
    assert_true(config.optim.lr == 5e-4);
    assert_string_equal(config.train.trainable, "connector");
    vl_config_free(&config);
}

static void values_of_every_kind(void **state) {
    VlConfig config;
    assert_ok(config_of(state, &config,
                        "stage: finetune\n"
                        "model:\n  path: \"models/a b: #1\"\n"
                        "data:\n"
                        "  mix: [v, v, i, t]\n"
                        "  frames: 16\n"
                        "  sources:\n"
                        "    - {annotations: a.json, media: m, shards: s}\n"
                        "    - shards: t\n"
                        "      weight: 0.25\n"
                        "train: {trainable: [connector, llm], nonfinite: skip, seed: 1000000000000}\n"
                        "optim: {eps: 1.0e-6}\n"));
    assert_string_equal(config.model.path, "models/a b: #1");
    assert_string_equal(config.data.mix, "v,v,i,t");
    assert_int_equal(config.data.frames, 16);
    assert_int_equal(config.data.sources, 2);
    assert_string_equal(config.data.source[0].annotations, "a.json");
    assert_string_equal(config.data.source[0].media, "m");
    assert_true(config.data.source[0].weight == 1);
    assert_string_equal(config.data.source[1].shards, "t");
    assert_true(config.data.source[1].weight == 0.25);
    assert_string_equal(config.train.nonfinite, "skip");
    assert_int_equal(config.train.seed, 1000000000000);
    assert_true(config.optim.eps == 1e-6);
    vl_config_free(&config);
}

static void overrides_win(void **state) {
    VlConfig config;
    assert_ok(config_of(state, &config, "train: {steps: 5, trainable: [llm]}\n", "train.steps=7", "output=a=b",
                        "train.trainable=connector,llm", "optim.lr=1e-4"));
    assert_int_equal(config.train.steps, 7);
    assert_string_equal(config.output, "a=b");
    assert_string_equal(config.train.trainable, "connector,llm");
    assert_true(config.optim.lr == 1e-4);
    vl_config_free(&config);
    static const char *const forms[] = {"train.trainable=[connector,llm]", "train.trainable=[connector, llm]",
                                        "train.trainable= connector , llm ", "train.trainable=connector,llm"};
    for (int i = 0; i < 4; i++) {
        assert_ok(config_of(state, &config, "stage: pretrain\n", forms[i]));
        assert_string_equal(config.train.trainable, "connector,llm");
        vl_config_free(&config);
    }
    assert_ok(config_of(state, &config, "train: {steps: 5}\n", "train.steps=7", "train.steps=9", "train.trainable=[]"));
    assert_int_equal(config.train.steps, 9);
    assert_string_equal(config.train.trainable, "");
    vl_config_free(&config);
}

static void errors_of_a_file(void **state) {
    expect_error(state, "stage: finetune\ntrain: {step: 5}\n",
                 ":2: ", "unknown key 'train.step'; the nearest is 'train.steps'");
    expect_error(state, "a: 1\n", ":1: ", "unknown key 'a'");
    expect_error(state, "\n\noutptu: x\n", ":3: ", "the nearest is 'output'");
    expect_error(state, "optimm:\n  lr: 1\n", ":2: ", "unknown key 'optimm'; the nearest is 'optim");
    expect_error(state, "data:\n  frams: 8\n", ":2: ", "the nearest is 'data.frames'");
    expect_error(state, "stage: finetun\n", ":1: ", "'finetun' is none of: pretrain finetune");
    expect_error(state, "stage: [finetune]\n", ":1: ", "stage is no single value");
    expect_error(state, "train:\n  steps: many\n", ":2: ", "train.steps: 'many' is no number");
    expect_error(state, "train:\n  steps: 1.5\n", ":2: ", "'1.5' is no whole number");
    expect_error(state, "train:\n  steps: 1e3\n", ":2: ", "is no whole number");
    expect_error(state, "train:\n  steps: \"\"\n", ":2: ", "'' is no number");
    expect_error(state, "train:\n  steps: 5 6\n", ":2: ", "'5 6' is no number");
    expect_error(state, "train:\n  steps: [5]\n", ":2: ", "train.steps is no single value");
    expect_error(state, "train:\n  steps: {a: 5}\n", ":2: ", "train.steps is no single value");
    expect_error(state, "train:\n  steps: -1\n", ":2: ", "outside of 0 .. 1e+15");
    expect_error(state, "train:\n  global_batch: 0\n", ":2: ", "outside of 1 ..");
    expect_error(state, "train:\n  steps: 99999999999999999999\n", ":2: ", "outside of");
    expect_error(state, "optim:\n  lr: nan\n", ":2: ", "'nan' is no number");
    expect_error(state, "optim:\n  lr: inf\n", ":2: ", "'inf' is no number");
    expect_error(state, "optim:\n  beta1: 1\n", ":2: ", "optim.beta1: 1 is outside of 0 .. 0.9999999");
    expect_error(state, "optim:\n  warmup_ratio: 1.01\n", ":2: ", "outside of 0 .. 1");
    expect_error(state, "train:\n  dtype: fp16\n", ":2: ", "'fp16' is none of: f32 bf16");
    expect_error(state, "train:\n  trainable: [connector, lm]\n",
                 ":2: ", "'lm' is none of: vision_tower connector llm audio_tower audio_projector");
    expect_error(state, "train:\n  trainable: connector,\n", ":2: ", "'' is none of");
    expect_error(state, "train:\n  trainable: [[llm]]\n", ":2: ", "an entry is no single value");
    expect_error(state, "train: 5\n", ":1: ", "train is a map of keys");
    expect_error(state, "train:\n  optim:\n    lr: 1\n", ":3: ", "unknown key 'train.optim'");
    expect_error(state, "data: {sources: 5}\n", ":1: ", "data.sources is a list");
    expect_error(state, "data:\n  sources:\n    - 5\n", ":3: ", "each entry is a map");
    expect_error(state, "data:\n  sources:\n    - {shard: x}\n",
                 ":3: ", "unknown key 'shard' in data.sources; the nearest is shards");
    expect_error(state, "data:\n  sources:\n    - {annotations: x}\n", ":3: ", "an entry without 'shards'");
    expect_error(state, "data:\n  sources:\n    - shards: x\n      weight: 0\n",
                 ":4: ", "weight '0' is no positive number");
    expect_error(state, "data:\n  sources:\n    - shards: x\n      weight: nan\n", ":4: ", "weight 'nan'");
    expect_error(state, "data:\n  sources:\n    - shards: x\n      weight: \"\"\n", ":4: ", "weight ''");
    expect_error(state, "data:\n  sources:\n    - shards: [x]\n", ":3: ", "shards is no single value");
    expect_error(state, "train:\n  steps: 1\n  steps: 2\n", ":3", "steps");
    expect_error(state, "train: {steps: 1\n", ":", "configuration: ");
    expect_error(state, "- a\n- b\n", ": ", "a configuration is a map of keys");
    expect_error(state, "5\n", ": ", "a configuration is a map of keys");
    expect_error(state, "include: [a, b]\n", ": ", "include names one file");
    char text[VL_CONFIG_TEXT + 64] = "data:\n  mix: ";
    memset(text + strlen(text), 'v', VL_CONFIG_TEXT);
    expect_error(state, text, ":2: ", "data.mix: the value is longer than 255 characters");
}

static void errors_of_the_command_line(void **state) {
    expect_override_error(state, "train.step=5", "unknown key 'train.step'; the nearest is 'train.steps'");
    expect_override_error(state, "train.steps", "'train.steps' is no key=value");
    expect_override_error(state, "=5", "unknown key ''");
    expect_override_error(state, "train.steps=", "'' is no number");
    expect_override_error(state, "train.steps=x", "'x' is no number");
    expect_override_error(state, "stage=joined",
                          "'joined' is none of: pretrain finetune audio-pretrain audio-finetune joint");
    expect_override_error(state, "stage=audio_pretrain", "'audio_pretrain' is none of");
    expect_override_error(state, "train.layer_drop=1", "train.layer_drop: 1 is outside of 0 .. 0.999999");
    expect_override_error(state, "train.layer_drop=-0.1", "outside of 0 ..");
    expect_override_error(state, "train.layer_drop=often", "'often' is no number");
    expect_override_error(state, "train.layerdrop=0.1", "the nearest is 'train.layer_drop'");
    expect_override_error(state, "train.trainable=beats", "'beats' is none of");
    expect_override_error(state, "train.trainable=[connector,lm]", "'lm' is none of");
    expect_override_error(state, "train=5", "unknown key 'train'");
    expect_override_error(state, "data.sources=x", "data.sources is a list of maps: it is given in a file");
    char text[VL_PATH_MAX + 64] = "output=";
    memset(text + strlen(text), 'v', VL_PATH_MAX);
    expect_override_error(state, text, "output: the value is longer than 4095 characters");
}

static void includes(void **state) {
    VlConfig config;
    put_file(scratch(state, "base.yaml"), "stage: pretrain\ntrain: {steps: 3, seed: 8}\n", 43);
    assert_ok(config_of(state, &config, "include: base.yaml\ntrain: {steps: 4}\n"));
    assert_string_equal(config.stage, "pretrain");
    assert_int_equal(config.train.steps, 4);
    assert_int_equal(config.train.seed, 8);
    assert_true(config.optim.lr == 1e-3);
    vl_config_free(&config);
    assert_ok(config_of(state, &config, "include: base.yaml\nstage: finetune\n"));
    assert_true(config.optim.lr == 2e-5);
    assert_int_equal(config.train.steps, 3);
    vl_config_free(&config);
    // An error in the included file names that file.
    put_file(scratch(state, "base.yaml"), "stage: pretrain\ntrain: {stepz: 3}\n", 34);
    assert_error(config_of(state, &config, "include: base.yaml\n"), VL_USAGE, "base.yaml:2: unknown key 'train.stepz'");
    assert_error(config_of(state, &config, "include: missing.yaml\n"), VL_USAGE, "missing.yaml");
    assert_error(config_of(state, &config, "include: config.yaml\n"), VL_USAGE, "include one another");
    assert_error(vl_config_load(&config, "/no/such.yaml", 0, NULL), VL_USAGE, "/no/such.yaml");
    assert_error(vl_config_load(&config, "/tmp", 0, NULL), VL_USAGE, "/tmp");
}

static void expect_same(const VlConfig *a, const VlConfig *b) {
    VlConfig x = *a, y = *b;
    assert_int_equal(x.data.sources, y.data.sources);
    for (int64_t i = 0; i < x.data.sources; i++) {
        assert_string_equal(x.data.source[i].annotations, y.data.source[i].annotations);
        assert_string_equal(x.data.source[i].media, y.data.source[i].media);
        assert_string_equal(x.data.source[i].shards, y.data.source[i].shards);
        assert_true(x.data.source[i].weight == y.data.source[i].weight);
    }
    x.data.source = y.data.source = NULL;
    x.data.sources_capacity = y.data.sources_capacity = 0;
    assert_memory_equal(&x, &y, sizeof x);
}

static void dumps_read_back(void **state) {
    VlConfig config, again;
    char *text, *twice;
    assert_ok(config_of(state, &config,
                        "stage: pretrain\nmodel: {path: \"a \\\"b\\\" \\\\ c: #d\\t\"}\n"
                        "data:\n  mix: \"v,v,i,t\"\n  sources:\n"
                        "    - {annotations: \"x: y.json\", media: '#m', shards: \"s,t\", weight: 0.1}\n"
                        "    - {shards: \"- u\"}\n"
                        "optim: {lr: 0.1, eps: 3.0e-9}\noutput: \"[run]\"\n"));
    assert_ok(vl_config_dump(&config, &text));
    assert_ok(config_of(state, &again, text));
    expect_same(&config, &again);
    assert_ok(vl_config_dump(&again, &twice));
    assert_string_equal(text, twice);
    free(text);
    free(twice);
    vl_config_free(&config);
    vl_config_free(&again);
    assert_ok(vl_config_load(&config, NULL, 1, (const char *const[]){"train.trainable="}));
    assert_ok(vl_config_dump(&config, &text));
    assert_ok(config_of(state, &again, text));
    expect_same(&config, &again);
    free(text);
    vl_config_free(&config);
    vl_config_free(&again);
}

// ---- Every configuration that is shipped

static int64_t resolve_folder(void **state, const char *folder) {
    char **names, path[VL_PATH_MAX], *text;
    int64_t count, resolved = 0;
    assert_ok(vl_list_folder(folder, &names, &count));
    for (int64_t i = 0; i < count; i++) {
        VlConfig config, again;
        const char *dot = strrchr(names[i], '.');
        assert_ok(vl_path_join(path, folder, names[i]));
        if (vl_path_is_folder(path)) resolved += resolve_folder(state, path);
        if (!dot || strcmp(dot, ".yaml") != 0) continue;
        assert_ok(vl_config_load(&config, path, 0, NULL));
        assert_ok(vl_config_dump(&config, &text));
        assert_ok(config_of(state, &again, text));
        expect_same(&config, &again);
        free(text);
        vl_config_free(&config);
        vl_config_free(&again);
        resolved++;
    }
    vl_free_names(names, count);
    return resolved;
}

static void shipped_files_resolve(void **state) {
    int64_t resolved = resolve_folder(state, VL_SOURCE_DIR "/configs");
    print_message("%lld configurations\n", (long long)resolved);
    assert_true(resolved >= 10);
}

static void help_names_every_key(void **state) {
    (void)state;
    VlConfig config;
    char *text, *help;
    size_t size;
    FILE *file = open_memstream(&help, &size);
    assert_non_null(file);
    vl_config_help(file);
    assert_int_equal(fclose(file), 0);
    assert_ok(vl_config_load(&config, NULL, 0, NULL));
    assert_ok(vl_config_dump(&config, &text));
    char section[64] = "", name[128];
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) && *line;) {
        char *colon = strchr(line, ':');
        *colon = '\0';
        if (*line != ' ' && !colon[1]) {
            snprintf(section, sizeof section, "%s", line);
            continue;
        }
        snprintf(name, sizeof name, "  %s%s%s ", *line == ' ' ? section : "", *line == ' ' ? "." : "",
                 line + strspn(line, " "));
        if (!strstr(help, name)) fail_msg("'%s' is not in the help", name);
    }
    free(text);
    free(help);
    vl_config_free(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_set_defaults),
        cmocka_unit_test(values_of_every_kind),
        cmocka_unit_test(overrides_win),
        cmocka_unit_test(errors_of_a_file),
        cmocka_unit_test(errors_of_the_command_line),
        cmocka_unit_test(includes),
        cmocka_unit_test(dumps_read_back),
        cmocka_unit_test(shipped_files_resolve),
        cmocka_unit_test(help_names_every_key),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
