// `vl2 parity` and greedy generation against the golden cases of the reference (tests/golden/model), on the device that
// VL_TEST_DEVICE names (cpu). Arguments: the cases to run, without them all.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/safetensors.h"
#include "cli/commands.h"
#include "cli/generate_request.h"
#include "cli/model_open.h"
#include "model/generate.h"
#include "model/generation_config.h"

#define CHECK(expression)                                                            \
    do {                                                                             \
        if ((expression) != VL_OK) fail_msg("%s: %s", #expression, vl_error_text()); \
    } while (0)

static const char *const cases[] = {
    "mistral_clip_stc", "mistral_clip_image",  "mistral_text_only", "conn_linear",      "conn_mlp2x_gelu",
    "conn_stp",         "conn_spatial_conv",   "conn_spatial_pool", "qwen2_siglip_v35", "qwen2_tied",
    "audio_qwen2",      "audio_qwen2_nodecay", "av_qwen2_siglip",   "mixtral_clip_stc"};
enum { CASES = sizeof cases / sizeof *cases };

static int wanted;  // names on the command line; 0: all cases
static char **wanted_name;

static bool is_wanted(const char *name) {
    bool found = wanted == 0;
    for (int i = 0; i < wanted; i++) found = found || strcmp(name, wanted_name[i]) == 0;
    return found;
}

static const char *device(void) {
    const char *word = getenv("VL_TEST_DEVICE");
    return word && *word ? word : "cpu";
}

static void case_path(char *out, const char *name, const char *file) {
    const char *root = getenv("VL_TEST_ROOT");  // where tests/golden lies, if not in the source tree
    snprintf(out, VL_PATH_MAX, "%s/tests/golden/model/%s/%s", root ? root : VL_SOURCE_DIR, name, file);
}

static void run_parity(const char *name, const char *dtype, const char *output) {
    char model[VL_PATH_MAX], input[VL_PATH_MAX];
    case_path(model, name, "model");
    case_path(input, name, "input.safetensors");
    char *words[] = {"--model",  model,           "--input",     input,       "--output", (char *)output,
                     "--grads",  "--dtype",       (char *)dtype, "--threads", "2",        "--train-audio-tower",
                     "--device", (char *)device()};
    CHECK(vl_cmd_parity(sizeof words / sizeof *words, words));
}

static float *read_f32(const VlSafetensors *set, const VlSafetensorsEntry *entry) {
    float *values;
    CHECK(VL_NEW(&values, vl_elements(entry->tensor)));
    CHECK(vl_safetensors_read_as(set, entry, VL_F32, values));
    return values;
}

// |found - expected| / |expected|; of an expected zero: |found|.
static double distance(const VlSafetensors *found_set, const VlSafetensors *expected_set,
                       const VlSafetensorsEntry *expected) {
    const VlSafetensorsEntry *found = vl_safetensors_find(found_set, expected->name);
    if (!found) fail_msg("%s is missing", expected->name);
    if (!vl_same_shape(found->tensor, expected->tensor)) {
        fail_msg("%s is %s, expected %s", expected->name, vl_describe(found->tensor), vl_describe(expected->tensor));
    }
    float *a = read_f32(found_set, found), *b = read_f32(expected_set, expected);
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < vl_elements(expected->tensor); i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    vl_free(a);
    vl_free(b);
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

// What the reference itself loses in bf16: per tensor, and the median over the gradients.
static json_t *bf16_errors(const char *name, double *median) {
    char path[VL_PATH_MAX];
    json_t *errors, *value;
    const char *key;
    double gradients[512];
    size_t count = 0;
    case_path(path, name, "bf16_error.json");
    CHECK(vl_json_load(path, 1 << 20, &errors));
    json_object_foreach(errors, key, value) {
        if (strncmp(key, "grad.", 5) == 0 && count < 512) gradients[count++] = json_number_value(value);
    }
    qsort(gradients, count, sizeof *gradients, compare_doubles);
    *median = count ? gradients[count / 2] : 0;
    return errors;
}

// Attention does not see a bias of its keys: what stands there is rounding.
static bool is_zero_in_exact_arithmetic(const char *name) {
    return strstr(name, "audio_tower") && strstr(name, ".self_attn.k_proj.bias");
}

static double norm(const VlSafetensors *set, const VlSafetensorsEntry *entry) {
    double sum = 0;
    float *values = read_f32(set, entry);
    for (int64_t i = 0; i < vl_elements(entry->tensor); i++) sum += (double)values[i] * (double)values[i];
    vl_free(values);
    return sqrt(sum);
}

// Against the size of the gradient of the query's bias beside it.
static void check_small(const char *name, const VlSafetensors *found, const VlSafetensors *expected,
                        const VlSafetensorsEntry *entry, double tolerance) {
    char query[512];
    snprintf(query, sizeof query, "%s", entry->name);
    *strstr(query, "k_proj") = 'q';
    const VlSafetensorsEntry *mine = vl_safetensors_find(found, entry->name);
    const VlSafetensorsEntry *beside = vl_safetensors_find(expected, query);
    if (!mine || !beside) fail_msg("%s: %s or %s is missing", name, entry->name, query);
    double size = norm(found, mine), other = norm(expected, beside);
    if (!(size <= tolerance * other)) fail_msg("%s: %s is %g, that of the query %g", name, entry->name, size, other);
}

// Three numbers, each a sum over all scores of a head that mostly cancels: rounding the weights to bf16, with
// everything computed in f32, moves them by 0.12 already, which leaves little of twice the error of the reference's one
// run in bf16 (0.085). This one has 0.198; with the input moved by 2 % it is 0.13 on average.
static bool is_chance_in_bf16(const char *name, const char *entry) {
    return strcmp(name, "audio_qwen2_nodecay") == 0 &&
           strcmp(entry, "grad.model.audio_tower.encoder.layers.1.self_attn.grep_a") == 0;
}

static void compare(const char *name, const char *output, bool bf16) {
    char path[VL_PATH_MAX];
    VlSafetensors found, expected;
    double median = 0, worst[2] = {0, 0};
    json_t *errors = bf16 ? bf16_errors(name, &median) : NULL;
    case_path(path, name, "expected.safetensors");
    CHECK(vl_safetensors_open(&found, output));
    CHECK(vl_safetensors_open(&expected, path));
    assert_int_equal(found.count, expected.count);
    for (int64_t i = 0; i < expected.count; i++) {
        const VlSafetensorsEntry *entry = &expected.entries[i];
        bool gradient = strncmp(entry->name, "grad.", 5) == 0;
        if (gradient && is_zero_in_exact_arithmetic(entry->name)) {
            check_small(name, &found, &expected, entry, bf16 ? 6e-2 : 1e-3);
            continue;
        }
        double error = distance(&found, &expected, entry), tolerance = gradient ? 1e-3 : 1e-4;
        if (bf16) {
            tolerance = fmax(gradient ? 6e-2 : 3e-2, 2 * json_number_value(json_object_get(errors, entry->name)));
            if (gradient) tolerance = fmax(tolerance, 2 * median);
            if (is_chance_in_bf16(name, entry->name)) tolerance = 0.25;
        }
        if (!(error <= tolerance)) fail_msg("%s: %s differs by %g (tolerance %g)", name, entry->name, error, tolerance);
        worst[gradient] = fmax(worst[gradient], error);
    }
    print_message("%-20s %s: outputs within %.1e, gradients within %.1e\n", name, bf16 ? "bf16" : "f32", worst[0],
                  worst[1]);
    json_decref(errors);
    vl_safetensors_close(&found);
    vl_safetensors_close(&expected);
}

static void check_cases(const char *dtype) {
    char output[64];
    snprintf(output, sizeof output, "parity-%d.safetensors", (int)getpid());
    for (int i = 0; i < CASES; i++) {
        if (!is_wanted(cases[i])) continue;
        run_parity(cases[i], dtype, output);
        compare(cases[i], output, strcmp(dtype, "bf16") == 0);
    }
    assert_int_equal(unlink(output), 0);
}

static void test_f32(void **state) {
    (void)state;
    check_cases("f32");
}

static void test_bf16(void **state) {
    (void)state;
    check_cases("bf16");
}

static void check_generation(const char *name) {
    char folder[VL_PATH_MAX], path[VL_PATH_MAX];
    VlOpenModel open;
    VlGenerateRequest request;
    int64_t ids[64], count;
    json_t *expected;
    case_path(folder, name, "model");
    VlModelOptions options = VL_MODEL_OPTIONS_DEFAULT;
    options.path = folder;
    options.threads = 2;
    options.device = device();
    CHECK(vl_model_open(&open, &options, 0));
    case_path(path, name, "generate.json");
    CHECK(vl_generate_request_load(&request, path, vl_vlm_config(open.model)));
    assert_in_range(request.max_new_tokens, 1, 64);
    VlGenerationConfig recorded;
    CHECK(vl_generation_config_load(&recorded, vl_vlm_config(open.model)));
    VlGenerateOptions generate = {.max_new_tokens = request.max_new_tokens,
                                  .top_p = 1,
                                  .repetition_penalty = recorded.repetition_penalty,
                                  .stops = recorded.stops,
                                  .stop = recorded.stop};
    CHECK(vl_generate(open.model, &request.prompt, &generate, ids, &count));
    case_path(path, name, "expected_generate.json");
    CHECK(vl_json_load(path, 1 << 20, &expected));
    const json_t *list = json_object_get(expected, "ids"), *margins = json_object_get(expected, "margins");
    assert_int_equal(count, json_array_size(list));
    for (int64_t i = 0; i < count; i++) {
        if (json_number_value(json_array_get(margins, (size_t)i)) < 1e-3) break;
        int64_t id = json_integer_value(json_array_get(list, (size_t)i));
        if (ids[i] != id)
            fail_msg("%s: token %lld is %lld, expected %lld", name, (long long)i, (long long)ids[i], (long long)id);
    }
    json_decref(expected);
    vl_generate_request_free(&request);
    vl_model_close(&open);
}

static void test_generation(void **state) {
    (void)state;
    int checked = 0;
    for (int i = 0; i < CASES; i++) {
        char path[VL_PATH_MAX];
        case_path(path, cases[i], "generate.json");
        if (!vl_path_exists(path) || !is_wanted(cases[i])) continue;
        check_generation(cases[i]);
        checked++;
    }
    if (wanted == 0) assert_int_equal(checked, 5);
}

static void expect_failure(VlStatus status, const char *text, int count, const char *const *words) {
    char *argv[16];
    for (int i = 0; i < count; i++) argv[i] = (char *)words[i];
    assert_int_equal(vl_cmd_parity(count, argv), status);
    if (!strstr(vl_error_text(), text)) fail_msg("'%s' does not say '%s'", vl_error_text(), text);
}

static void test_usage(void **state) {
    (void)state;
    char model[VL_PATH_MAX], input[VL_PATH_MAX];
    case_path(model, "conn_linear", "model");
    case_path(input, "mistral_clip_stc", "input.safetensors");
    expect_failure(VL_USAGE, "nearest: --grads", 1, (const char *const[]){"--grad"});
    expect_failure(VL_USAGE, "--model DIR is missing", 1, (const char *const[]){"--grads"});
    expect_failure(VL_USAGE, "needs a value", 1, (const char *const[]){"--model"});
    expect_failure(VL_USAGE, "needs an integer", 2, (const char *const[]){"--threads", "many"});
    expect_failure(VL_USAGE, "one argument too many", 1, (const char *const[]){"more"});
    expect_failure(VL_USAGE, "possible are: f32, bf16; nearest: bf16", 8,
                   (const char *const[]){"--model", model, "--input", input, "--output", "x", "--dtype", "bf61"});
    // Frames of another model.
    expect_failure(VL_FORMAT, "this model takes [frames,3,28,28]", 6,
                   (const char *const[]){"--model", model, "--input", input, "--output", "x"});
}

int main(int argc, char **argv) {
    wanted = argc - 1;
    wanted_name = argv + 1;
    for (int i = 0; i < wanted; i++) {
        bool known = false;
        for (int k = 0; k < CASES; k++) known = known || strcmp(wanted_name[i], cases[k]) == 0;
        if (known) continue;
        fprintf(stderr, "'%s' is no case of tests/golden/model\n", wanted_name[i]);
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_generation),
        cmocka_unit_test(test_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
