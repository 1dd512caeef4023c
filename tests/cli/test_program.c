// The program vl2 from outside: help, usage errors, missing files, and what its commands print. Whatever goes wrong is
// one line on standard error, with exit code 2 for a wrong call or configuration and 1 for anything else.
#include "tests/process.h"
#include "tests/train/runs.h"

#define CASE VL_SOURCE_DIR "/tests/golden/model/mistral_clip_stc"
#define EXPERTS VL_SOURCE_DIR "/tests/golden/model/mixtral_clip_stc/model"
#define MODEL GOLDEN "/model_vl"

static Process process;
static char path_of_run[VL_PATH_MAX], checkpoint[VL_PATH_MAX], shards[VL_PATH_MAX], shard[VL_PATH_MAX],
    config[VL_PATH_MAX];

#define vl2(...) process_call(&process, 60, VL2_PROGRAM, __VA_ARGS__)

static void check_answer(int code, const char *const *parts) {
    if (code != 0) fail_msg("exit code %d: %s", code, process.err);
    for (; *parts; parts++) {
        if (!strstr(process.out, *parts)) fail_msg("'%s' is not in: %s", *parts, process.out);
    }
}
// The call succeeds, and its output holds all of the parts.
#define answers(call, ...) check_answer((call), (const char *const[]){__VA_ARGS__, NULL})

static void fails(int code, int expected, const char *part) {
    if (code != expected) fail_msg("exit code %d, not %d: %s", code, expected, process.err);
    if (count_lines(process.err) != 1 || !strstr(process.err, "vl2: error: ") || !strstr(process.err, part))
        fail_msg("not one line with '%s': %s", part, process.err);
}

// ---- Help and usage ----------------------------------------------------------------------------------------------

static const char *const commands[] = {"world", "pack", "plan",  "train",  "generate", "parity",
                                       "info",  "show", "probe", "report", "bench"};
static const char *const probes[] = {"tokenize", "detokenize", "prompt", "frames", "image", "video"};
static const char *const benches[] = {"machine", "train", "data"};

static void version_and_help(void **state) {
    (void)state;
    answers(vl2("--version"), "vl2 " VL_VERSION " (", "backends: cpu", "MPI: ", "media: ", "CUDA: ");
    assert_int_equal(count_lines(process.out), 1);
    assert_string_equal(process.err, "");
    assert_int_equal(vl2("--help"), 0);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) assert_non_null(strstr(process.out, commands[i]));
    answers(vl2("-h"), "usage: vl2 COMMAND");
    assert_int_equal(process_call(&process, 10, VL2_PROGRAM), 2);
    assert_non_null(strstr(process.out, "usage: vl2 COMMAND"));
}

static void expect_help(const char *command, const char *sub) {
    char usage[128];
    snprintf(usage, sizeof usage, "usage: vl2 %s%s%s", command, sub ? " " : "", sub ? sub : "");
    for (int i = 0; i < 2; i++) {
        const char *word = i ? "-h" : "--help";
        answers(sub ? vl2(command, sub, word) : vl2(command, word), usage);
        assert_string_equal(process.err, "");
    }
}

static void every_command_has_help(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) expect_help(commands[i], NULL);
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++) expect_help("probe", probes[i]);
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++) expect_help("bench", benches[i]);
    answers(vl2("train", "--keys"), "train.micro_tokens", "data.sources", "include");
}

static void usage_errors_name_the_nearest_word(void **state) {
    (void)state;
    fails(vl2("trian"), 2, "unknown command 'trian'; nearest: train");
    fails(vl2("qqqqqqqq"), 2, "unknown command 'qqqqqqqq'; see vl2 --help");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) fails(vl2(commands[i], "--hlp"), 2, "--hlp");
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++)
        fails(vl2("probe", probes[i], "--hlp"), 2, "nearest: --help");
    fails(vl2("generate", "--model", MODEL, "--promt", "x"), 2, "unknown option '--promt'; nearest: --prompt");
    fails(vl2("generate", "--model"), 2, "--model needs a value");
    fails(vl2("generate", "--model", MODEL), 2, "give --prompt TEXT");
    fails(vl2("generate", "--model", MODEL, "--ids"), 2, "go together");
    fails(vl2("generate", "--model", MODEL, "--prompt", "x", "--image", "a", "--video", "b"), 2,
          "one of --video, --image and --audio");
    fails(vl2("generate", "--model", MODEL, "--model", MODEL), 2, "--model is given twice");
    fails(vl2("generate", "--model", MODEL, "--prompt", "x", "--dtype", "f64"), 2, "--dtype is 'f64'");
    fails(vl2("generate", "--model", MODEL, "--prompt", "x", "--max-new-tokens", "many"), 2,
          "needs an integer, not 'many'");
    fails(vl2("generate", "--prompt", "x"), 2, "--model DIR is missing");
    fails(vl2("world"), 2, "--out DIR is missing");
    fails(vl2("world", "--out", "/tmp/x", "--samples", "1.5"), 2, "needs an integer");
    fails(vl2("parity", "--model", MODEL), 2, "is missing");
    fails(vl2("info"), 2, "usage is vl2 info PATH");
    fails(vl2("info", "a", "b"), 2, "'b' is one argument too many");
    fails(vl2("show", "a"), 2, "usage is vl2 show SHARD N");
    fails(vl2("show", "a", "one", "--model", MODEL), 2, "'one' is no sample's number");
    fails(vl2("show", shard, "0", "--model", MODEL, "--protocol", "vl2-man"), 2, "vl2-main");
    fails(vl2("train"), 2, "needs a configuration file");
    fails(vl2("pack"), 2, "needs a configuration file");
    fails(vl2("plan"), 2, "usage is vl2 plan CONFIG");
    fails(vl2("plan", config, "--ranks", "0"), 2, "--ranks 0 is below 1");
    fails(vl2("train", config, "train.step=1"), 2, "the nearest is 'train.steps'");
    fails(vl2("train", config, "optim.lr"), 2, "'optim.lr' is no key=value");
    fails(vl2("probe"), 2, "is none of tokenize");
    fails(vl2("probe", "tokenise"), 2, "nearest: tokenize");
    fails(vl2("probe", "frames", "--protocol", "vl2"), 2, "vl2");
    fails(vl2("probe", "image", "--model", MODEL, "--output", "/tmp/x", "a.png"), 2, "--aspect pad|none is missing");
    fails(vl2("probe", "video", "--model", MODEL, "--output", "/tmp/x", "a.mp4", "--num-frames", "0"), 2,
          "--num-frames");
    fails(vl2("bench", "trian"), 2, "none of machine, train, data");
    fails(vl2("bench", "train", "--model", MODEL, "--text-tokens", "1,x"), 2, "--text-tokens");
    fails(vl2("bench", "train", "--model", MODEL, "--trainable", "lm"), 1, "nearest: llm");
}

// ---- Files that are missing or not what they should be -----------------------------------------------------------

static void a_machine_without_a_gpu(void **state) {
    char output[VL_PATH_MAX + 16];
    snprintf(output, sizeof output, "output=%s/no-gpu", (char *)*state);
    if (vl_path_exists("/dev/nvidiactl") || vl_path_exists("/dev/dxg")) {
        print_message("skipped: this machine has a GPU\n");
        skip();
    }
    fails(vl2("generate", "--model", MODEL, "--prompt", "x", "--device", "cuda"), 1, "no CUDA device");
    fails(vl2("train", config, output, "device=cuda"), 1, "no CUDA device");
    fails(vl2("bench", "machine", "--device", "cuda"), 1, "no CUDA device");
}

static void missing_files(void **state) {
    (void)state;
    fails(vl2("info", "/no/such"), 1, "/no/such does not exist");
    fails(vl2("info", "/tmp"), 1, "neither a model folder");
    fails(vl2("info", config), 1, "finetune.yaml");
    fails(vl2("generate", "--model", "/no/such", "--prompt", "x"), 1, "cannot find /no/such");
    fails(vl2("generate", "--model", "/tmp", "--prompt", "x"), 1, "is no model");
    fails(vl2("generate", "--model", MODEL, "--input", "/no/such.json", "--ids"), 1, "/no/such.json");
    fails(vl2("generate", "--model", MODEL, "--prompt", "x", "--image", "/no/such.png"), 1, "/no/such.png");
    fails(vl2("parity", "--model", MODEL, "--input", "/no/such", "--output", "/tmp/x"), 1, "/no/such");
    fails(vl2("show", "/no/such.h5", "0", "--model", MODEL), 1, "/no/such.h5");
    fails(vl2("show", config, "0", "--model", MODEL), 1, "finetune.yaml");
    fails(vl2("show", shard, "16", "--model", MODEL), 1, "16");
    fails(vl2("show", shard, "-1", "--model", MODEL), 2, "-1");
    fails(vl2("pack", "/no/such.yaml"), 2, "/no/such.yaml");
    fails(vl2("pack", "--check", "/no/such"), 1, "/no/such");
    fails(vl2("train", "/no/such.yaml"), 2, "/no/such.yaml");
    fails(vl2("train", config, "output=/dev/null/x"), 1, "/dev/null/x");
    fails(vl2("train", config, "model.path=/no/such", "output=/tmp/x"), 1, "cannot find /no/such");
    fails(vl2("plan", config, "model.path=/no/such"), 1, "cannot find /no/such");
    fails(vl2("probe", "tokenize", "--model", "/no/such"), 1, "/no/such");
    fails(vl2("probe", "image", "--model", MODEL, "--aspect", "pad", "--output", "/tmp/x.safetensors", "/no/such.png"),
          1, "/no/such.png");
    fails(vl2("bench", "train", "--model", "/no/such"), 1, "/no/such");
    fails(vl2("bench", "data", "--video", "/no/such.mp4", "--seconds", "0.1"), 1, "/no/such.mp4");
}

static void output_that_cannot_be_written(void **state) {
    (void)state;
    char command[2 * VL_PATH_MAX];
    snprintf(command, sizeof command, "exec %s info %s > /dev/full", VL2_PROGRAM, MODEL);
    fails(process_call(&process, 30, "sh", "-c", command), 1, "cannot write to standard output");
    fails(vl2("parity", "--model", CASE "/model", "--input", CASE "/input.safetensors", "--output", "/no/such/x"), 1,
          "/no/such/x");
}

// ---- What commands print -----------------------------------------------------------------------------------------

static void info_on_every_kind_of_path(void **state) {
    (void)state;
    answers(vl2("info", MODEL), "model: " MODEL, "videollama2_mistral",
            "language model: 3 layers of 48, 3/1 heads of 16", "vocabulary 384",
            "vision tower: ", "visual tokens: ", "tensors: ");
    answers(vl2("info", EXPERTS), "videollama2_mixtral", "experts: 4 in each layer, 2 for a token", "(2 files)");
    answers(vl2("info", MODEL "/model.safetensors"), "safetensors: ", "tensors: ");
    answers(vl2("info", MODEL, "--tensors"), "model.layers.0.self_attn.q_proj.weight", "[48,48] f32");
    answers(vl2("info", MODEL, "--hash"), "files (XXH3-128, bytes, name):", "  config.json\n", "  model.safetensors\n");
    answers(vl2("info", MODEL, "--stage", "pretrain"), "for stage pretrain:", "connector ", ", trained\n",
            "stage pretrain can begin: yes");
    fails(vl2("info", MODEL, "--stage", "pretraining"), 2, "is none of: pretrain finetune");
    answers(vl2("info", MODEL "/clip-tiny"), "vision tower: ", "3 heads of 16", "safetensors: ");
    answers(vl2("info", MODEL "/config.json"), "videollama2_mistral");
    answers(vl2("info", MODEL "/tokenizer.json"), "tokenizer: ", "chat template: ");
    answers(vl2("info", path_of_run, "--stage", "finetune"), "run: ", "stage finetune can begin: yes");
    answers(vl2("info", checkpoint, "--tensors", "--hash"), "model.layers.0.self_attn.q_proj.weight", "manifest.json");
    answers(vl2("info", path_of_run), "run: ", "checkpoint: ", "step 4 of 4", "trained: connector,llm", "upon: " MODEL);
    answers(vl2("info", checkpoint), "step 2 of 4, global batch 16, seed 42", "steps left out: 0, bad samples: 0");
    answers(vl2("info", shards), "folder of 1 shards",
            "samples: 16 (4 text, 12 image, 0 video, 0 audio, 0 video with its sound)");
    answers(vl2("info", shard), "shard: ", "42 x 42", "aspect pad");
}

static void plans(void **state) {
    (void)state;
    answers(vl2("plan", config), "which 179520 train", "frozen weights", "optimizer state", "total", "GFLOP",
            "Ranks: 1");
    answers(vl2("plan", config, "--ranks", "4", "train.trainable=connector"), "Ranks: 4; the sum of gradients moves");
    answers(vl2("plan", config, "--tflops", "0.5"), "A step: 16 samples of", "The run: 30 steps",
            "Time at 0.5 TFLOP/s");
    fails(vl2("plan", config, "--tflops", "-1"), 2, "--tflops -1 is below 0");
    answers(vl2("plan", config, "--gpu", "h200"), "total on the GPU",
            "A step on 1 x h200 (67 TFLOP/s in f32, 4.8 TB/s)", "memory-bound rows", "tokens/s of a rank", "MFU, %",
            "The run: ", "this fits");
    answers(vl2("plan", config, "--gpu", "h100", "--ranks", "8", "train.dtype=bf16"), "remainders of f32 masters",
            "A step on 8 x h100 (989 TFLOP/s in bf16, 3.35 TB/s)");
    fails(vl2("plan", config, "--gpu", "h20"), 2, "--gpu: GPU 'h20' is unknown");
}

static void shows_a_sample(void **state) {
    (void)state;
    // The first sample of the list: its text, the masked span, ids and labels of the golden run.
    answers(vl2("show", shard, "0", "--model", MODEL, "--protocol", "vl2-main"), "id: f0", "modality: image", "41 ids",
            "20 labelled", "Long the under quickly (it's 42% done).", "ids: 1 61 43 48 53 54 63 223 -200 201",
            "labels: -100 -100");
    answers(vl2("show", shard, "15", "--model", path_of_run, "--protocol", "vl2-main", "--max-tokens", "32"),
            "sample 15");
    answers(vl2("pack", "--check", shards), "16 samples in 1 shards");
}

static void generates_the_golden_ids(void **state) {
    (void)state;
    json_t *expected, *found;
    assert_ok(vl_json_load(CASE "/expected_generate.json", 1 << 20, &expected));
    assert_int_equal(vl2("generate", "--model", CASE "/model", "--input", CASE "/generate.json", "--ids"), 0);
    assert_int_equal(count_lines(process.out), 1);
    assert_ok(vl_json_parse(process.out, (int64_t)strlen(process.out), "ids", &found));
    assert_true(json_equal(json_object_get(expected, "ids"), json_object_get(found, "ids")));
    json_decref(expected);
    json_decref(found);
    fails(
        vl2("generate", "--model", CASE "/model", "--input", CASE "/generate.json", "--ids", "--max-new-tokens", "-4"),
        1, "max_new_tokens is -4");
    // From the run's own checkpoint, with a picture of its data.
    assert_int_equal(vl2("generate", "--model", path_of_run, "--image", GOLDEN "/data/media/f0.png", "--prompt",
                         "What moves?", "--as-trained", "--protocol", "vl2-main", "--max-new-tokens", "4"),
                     0);
    assert_true(strlen(process.out) > 0);
}

static void probes_answer(void **state) {
    char command[3 * VL_PATH_MAX];
    const char *output = scratch(state, "pixels.safetensors");
    snprintf(command, sizeof command, "echo '{\"n\": 100, \"num_frames\": 4}' | %s probe frames --protocol vl2-main",
             VL2_PROGRAM);
    answers(process_call(&process, 30, "sh", "-c", command), "{\"indices\":[");
    snprintf(command, sizeof command, "echo '{\"n\": 0, \"num_frames\": 4}' | %s probe frames --protocol vl2-main",
             VL2_PROGRAM);
    assert_int_equal(process_call(&process, 30, "sh", "-c", command), 1);
    assert_non_null(strstr(process.out, "{\"error\":"));
    snprintf(command, sizeof command, "echo '{\"text\": \"Long the under\"}' | %s probe tokenize --model %s",
             VL2_PROGRAM, MODEL);
    answers(process_call(&process, 30, "sh", "-c", command), "{\"ids\":[");
    assert_int_equal(vl2("probe", "image", "--model", MODEL, "--aspect", "none", "--output", output,
                         GOLDEN "/data/media/f0.png", GOLDEN "/data/media/f1.png"),
                     0);
    answers(vl2("info", output, "--tensors"), "pixel_values.0", "pixel_values.1", "[3,42,42] f32");
}

static void bench_answers_with_json(void **state) {
    (void)state;
    json_t *result;
    assert_int_equal(
        vl2("bench", "train", "--model", MODEL, "--frames", "4", "--text-tokens", "30,20", "--steps", "2", "--json"),
        0);
    assert_ok(vl_json_parse(process.out, (int64_t)strlen(process.out), "bench", &result));
    assert_true(member(result, "tokens") > 50 && member(result, "seconds_min") > 0);
    assert_true(member(result, "planned_bytes") > 0 && member(result, "peak_rss_bytes") > 0);
    json_decref(result);
}

static int set_up(void **state) {
    VlComm *comm;
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_WARNING, 0);
    pack_stage(*state, "finetune");
    join(path_of_run, *state, "run");
    join(shards, *state, "finetune-shards");
    join(shard, shards, "shard-00000.h5");
    join(config, *state, "finetune.yaml");
    assert_ok(vl_comm_open(&comm, 0));
    assert_ok(train(comm, *state, "finetune", path_of_run, "train.steps=4", "checkpoint.every=2"));
    vl_comm_close(comm);
    checkpoint_path(checkpoint, path_of_run, 2);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_and_help),
        cmocka_unit_test(every_command_has_help),
        cmocka_unit_test(usage_errors_name_the_nearest_word),
        cmocka_unit_test(a_machine_without_a_gpu),
        cmocka_unit_test(missing_files),
        cmocka_unit_test(output_that_cannot_be_written),
        cmocka_unit_test(info_on_every_kind_of_path),
        cmocka_unit_test(plans),
        cmocka_unit_test(shows_a_sample),
        cmocka_unit_test(generates_the_golden_ids),
        cmocka_unit_test(probes_answer),
        cmocka_unit_test(bench_answers_with_json),
    };
    return cmocka_run_group_tests(tests, set_up, remove_scratch);
}
