// A language model without a vision tower: text is packed and trained on; pictures are refused by name.
#include "tests/process.h"
#include "tests/train/runs.h"

// The golden run's model, but for the tower and its connector; and a text that says the same again and again, beside
// one sample with a picture.
static void make_model(const char *folder) {
    static const char *const gone[] = {"mm_vision_tower", "mm_hidden_size", "mm_projector_type"};
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json"};
    char from[VL_PATH_MAX], to[VL_PATH_MAX], model[VL_PATH_MAX];
    json_t *config;
    join(model, folder, "model");
    assert_ok(vl_make_folders(model));
    for (int i = 0; i < 2; i++) {
        join(from, GOLDEN "/model_vl", files[i]);
        join(to, model, files[i]);
        copy_file(from, to);
    }
    assert_ok(vl_json_load(GOLDEN "/model_vl/config.json", 1 << 20, &config));
    for (int i = 0; i < 3; i++) json_object_del(config, gone[i]);
    json_object_set_new(config, "model_type", json_string("videollama2_qwen2"));
    json_object_set_new(config, "tie_word_embeddings", json_true());
    join(to, model, "config.json");
    assert_ok(vl_json_save(to, config, 0));
    json_decref(config);
}

static void make_configuration(const char *folder, const char *annotations) {
    static const char texts[] =
        "[{\"id\": \"a\", \"conversations\": [{\"from\": \"human\", \"value\": \"What is it?\"},"
        " {\"from\": \"gpt\", \"value\": \"A red square.\"}]},"
        " {\"id\": \"b\", \"conversations\": [{\"from\": \"human\", \"value\": \"What was it?\"},"
        " {\"from\": \"gpt\", \"value\": \"A blue disc.\"}]}]";
    static const char mixed[] =
        "[{\"id\": \"a\", \"conversations\": [{\"from\": \"human\", \"value\": \"What is it?\"},"
        " {\"from\": \"gpt\", \"value\": \"A red square.\"}]},"
        " {\"id\": \"p\", \"image\": \"media/image_000.png\", \"conversations\": ["
        "{\"from\": \"human\", \"value\": \"<image>\\nWhat is it?\"}, {\"from\": \"gpt\", \"value\": \"A disc.\"}]}]";
    char path[VL_PATH_MAX], text[4 * VL_PATH_MAX];
    join(path, folder, "texts.json");
    put_file(path, texts, (int64_t)strlen(texts));
    join(path, folder, "mixed.json");
    put_file(path, mixed, (int64_t)strlen(mixed));
    snprintf(text, sizeof text,
             "model: {path: %s/model}\n"
             "data: {sources: [{annotations: %s/%s.json, media: %s/data, shards: %s/%s}], max_tokens: 64}\n"
             "train: {trainable: llm, steps: 40, global_batch: 4, dtype: bf16}\n"
             "optim: {lr: 3.0e-3}\n"
             "threads: 1\n",
             folder, folder, annotations, GOLDEN, folder, annotations);
    join(path, folder, "finetune.yaml");
    put_file(path, text, (int64_t)strlen(text));
}

static void trains(void **state) {
    const char *folder = *state;
    char output[VL_PATH_MAX];
    VlConfig config;
    VlComm *comm;
    Curve curve;
    make_model(folder);
    make_configuration(folder, "texts");
    assert_ok(load_config(&config, folder, "finetune", "", (const char *const[]){NULL}));
    assert_ok(vl_pack_sources(&config));
    vl_config_free(&config);
    join(output, folder, "run");
    assert_ok(vl_comm_open(&comm, 0));
    assert_ok(train(comm, folder, "finetune", output));
    vl_comm_close(comm);
    read_curve(output, &curve);
    assert_int_equal(curve.steps, 40);
    if (!(curve.loss[0] > 4 && curve.loss[39] < 0.2 * curve.loss[0])) {
        fail_msg("the loss went from %g to %g", curve.loss[0], curve.loss[39]);
    }
}

static void pictures_are_refused(void **state) {
    const char *folder = *state;
    char path[VL_PATH_MAX], *text;
    int64_t size;
    VlConfig config;
    make_model(folder);
    make_configuration(folder, "mixed");
    assert_ok(load_config(&config, folder, "finetune", "", (const char *const[]){NULL}));
    assert_ok(vl_pack_sources(&config));  // one bad sample is put up with, and named
    join(path, folder, "mixed/quarantine.jsonl");
    assert_ok(vl_read_file(path, 1 << 20, &text, &size));
    assert_int_equal(count_lines(text), 1);
    assert_non_null(strstr(text, "\"id\":\"p\""));
    assert_non_null(strstr(text, "the model has no vision tower (mm_vision_tower)"));
    vl_free(text);
    config.limits.bad_samples = 0;
    join(path, folder, "mixed");
    assert_ok(vl_remove_tree(path));
    assert_error(vl_pack_sources(&config), VL_FORMAT, "no vision tower");
    vl_config_free(&config);
}

// A window of the model that is shorter than data.max_tokens allows is an error before anything is trained.
static void window(void **state) {
    const char *folder = *state;
    char path[VL_PATH_MAX], output[VL_PATH_MAX];
    VlComm *comm;
    json_t *config;
    make_model(folder);
    make_configuration(folder, "texts");
    join(path, folder, "model/config.json");
    assert_ok(vl_json_load(path, 1 << 20, &config));
    json_object_set_new(config, "sliding_window", json_integer(63));
    json_object_set_new(config, "use_sliding_window", json_true());
    assert_ok(vl_json_save(path, config, 0));
    json_decref(config);
    join(output, folder, "run");
    assert_ok(vl_comm_open(&comm, 0));
    assert_error(train(comm, folder, "finetune", output), VL_USAGE, "data.max_tokens 64");
    assert_error(train(comm, folder, "finetune", output, "data.max_tokens=63"), VL_IO, "pack.json");
    vl_comm_close(comm);
}

int main(void) {
    vl_log_configure(VL_LOG_WARNING, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(trains, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(pictures_are_refused, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(window, make_scratch, remove_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
