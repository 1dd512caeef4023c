// One view of stored tensors over safetensors and PyTorch's files.
#include "base/json.h"
#include "base/safetensors.h"
#include "base/weights.h"
#include "tests/base/support.h"

#define GOLDEN VL_SOURCE_DIR "/tests/golden/torch/"
#define FIRST "pytorch_model-00001-of-00002.bin"
#define SECOND "pytorch_model-00002-of-00002.bin"
#define INDEX "pytorch_model.bin.index.json"

static void copy_file(const char *from, const char *to) {
    char *data;
    int64_t size;
    assert_ok(vl_read_file(from, 1 << 20, &data, &size));
    put_file(to, data, size);
    vl_free(data);
}

static VlStatus open_and_close(const char *path) {
    VlWeights weights;
    VlStatus status = vl_weights_open(&weights, path);
    if (status) {  // nothing is left to free
        assert_null(weights.entries);
        assert_null(weights.torch);
    } else {
        vl_weights_close(&weights);
    }
    return status;
}

static void check_values(const VlWeights *weights, const char *name, int64_t count, float first) {
    float values[16];
    const VlWeightsEntry *entry = vl_weights_find(weights, name);
    assert_non_null(entry);
    assert_string_equal(entry->name, name);
    assert_int_equal(vl_elements(entry->tensor), count);
    assert_ok(vl_weights_read_as(weights, entry, VL_F32, values));
    for (int64_t i = 0; i < count; i++) assert_true(values[i] == first + (float)i);
}

static void check_shards(const char *path) {
    VlWeights weights;
    uint16_t bf16[2];
    float part[2];
    double wide[4];
    assert_ok(vl_weights_open(&weights, path));
    assert_string_equal(vl_weights_format_name(&weights), "PyTorch");
    assert_int_equal(weights.count, 3);
    assert_int_equal(weights.files, 2);
    assert_string_equal(weights.entries[0].name, "a.bias");
    assert_string_equal(weights.entries[1].name, "a.weight");
    assert_string_equal(weights.entries[2].name, "b");
    assert_int_equal(weights.entries[0].file, 1);
    assert_string_equal(strrchr(vl_weights_path(&weights, 1), '/'), "/" SECOND);
    assert_int_equal(json_object_size(vl_weights_data(&weights, 0)), 0);
    check_values(&weights, "a.weight", 6, 1);
    check_values(&weights, "a.bias", 3, 7);
    check_values(&weights, "b", 4, 50);
    const VlWeightsEntry *b = vl_weights_find(&weights, "b");
    assert_int_equal(b->tensor.dtype, VL_BF16);
    assert_ok(vl_weights_read_part(&weights, b, 1, 2, bf16));
    assert_int_equal(bf16[0], vl_bf16_from_f32(51));
    assert_int_equal(bf16[1], vl_bf16_from_f32(52));
    assert_ok(vl_weights_read_part(&weights, vl_weights_find(&weights, "a.weight"), 4, 2, part));
    assert_true(part[0] == 5 && part[1] == 6);
    assert_ok(vl_weights_read_as(&weights, b, VL_F64, wide));
    assert_true(wide[0] == 50 && wide[3] == 53);
    assert_error(vl_weights_read_as(&weights, b, VL_I32, wide), VL_INVALID, "'b' is bf16 and cannot be read as i32");
    assert_error(vl_weights_read_part(&weights, b, 3, 2, bf16), VL_INVALID, "are not within [4] bf16");
    assert_null(vl_weights_find(&weights, "c"));
    assert_ok(vl_weights_verify(&weights));
    vl_weights_close(&weights);
}

static void shards_are_joined_by_an_index(void **state) {
    (void)state;
    check_shards(GOLDEN "shards");
    check_shards(GOLDEN "shards/" INDEX);
}

static void save(const char *path, const char *name, float value) {
    assert_ok(vl_safetensors_save(path, 1, &name, &(VlTensor){&value, VL_F32, 1, {1}}));
}

static void a_folder_is_searched_in_order(void **state) {
    char path[VL_PATH_MAX];
    VlWeights weights;
    assert_ok(vl_weights_locate(path, *state));
    assert_string_equal(path, "");
    assert_error(open_and_close(*state), VL_IO, "holds no weights: neither model.safetensors nor pytorch_model.bin");
    put_file(scratch(state, "config.json"), "{}", 2);
    assert_ok(vl_weights_locate(path, *state));
    assert_string_equal(path, "");
    copy_file(GOLDEN "shards/" FIRST, scratch(state, FIRST));
    assert_error(vl_weights_locate(path, *state), VL_UNSUPPORTED,
                 "has weights (" FIRST ") but neither model.safetensors nor pytorch_model.bin");
    assert_error(open_and_close(*state), VL_UNSUPPORTED, "has weights (" FIRST ")");
    copy_file(GOLDEN "shards/" SECOND, scratch(state, SECOND));
    copy_file(GOLDEN "shards/" INDEX, scratch(state, INDEX));
    check_shards(*state);
    copy_file(GOLDEN "state_dict.pt", scratch(state, "pytorch_model.bin"));
    assert_ok(vl_weights_open(&weights, *state));
    assert_int_equal(weights.count, 4);
    check_values(&weights, "norm.weight", 3, 20);
    vl_weights_close(&weights);
    save(scratch(state, "model.safetensors"), "s", 3);
    assert_ok(vl_weights_locate(path, *state));
    assert_string_equal(path, scratch(state, "model.safetensors"));
    assert_ok(vl_weights_open(&weights, *state));
    assert_string_equal(vl_weights_format_name(&weights), "safetensors");
    assert_int_equal(weights.count, 1);
    assert_int_equal(weights.files, 1);
    assert_string_equal(vl_weights_path(&weights, 0), path);
    assert_null(vl_weights_data(&weights, 0));
    check_values(&weights, "s", 1, 3);
    float value = 0;
    assert_ok(vl_weights_read(&weights, &weights.entries[0], &value));
    assert_true(value == 3);
    assert_ok(vl_weights_verify(&weights));
    vl_weights_close(&weights);
}

static void single_files_are_read(void **state) {
    VlWeights weights;
    double size = 0;
    assert_ok(vl_weights_open(&weights, GOLDEN "nested_2.pt"));
    check_values(&weights, "model.encoder.w", 4, 1);
    const json_t *cfg = json_object_get(vl_weights_data(&weights, 0), "cfg");
    assert_ok(vl_json_get_double(cfg, "cfg", "dropout", true, &size));
    assert_true(size == 0.1);
    vl_weights_close(&weights);
    save(scratch(state, "x.safetensors"), "t", 5);
    assert_ok(vl_weights_open(&weights, scratch(state, "x.safetensors")));
    check_values(&weights, "t", 1, 5);
    vl_weights_close(&weights);
    const char *index = "{\"weight_map\": {\"t\": \"x.safetensors\"}}";
    put_file(scratch(state, "model.safetensors.index.json"), index, (int64_t)strlen(index));
    assert_ok(vl_weights_open(&weights, scratch(state, "model.safetensors.index.json")));
    check_values(&weights, "t", 1, 5);
    vl_weights_close(&weights);
    assert_error(open_and_close(scratch(state, "x")), VL_IO, "No such file");
    copy_file(scratch(state, "x.safetensors"), scratch(state, "x.bin"));
    assert_error(open_and_close(scratch(state, "x.bin")), VL_FORMAT, "does not begin like a file of PyTorch's");
    copy_file(GOLDEN "state_dict.pt", scratch(state, "y.safetensors"));
    assert_error(open_and_close(scratch(state, "y.safetensors")), VL_FORMAT, "is this a safetensors file?");
}

static void false_indexes_are_refused(void **state) {
#define MAP(text) "{\"weight_map\": {" text "}}"
#define A "\"a.weight\": \"" FIRST "\", \"b\": \"" FIRST "\""
    static const struct {
        const char *index, *reason;
    } cases[] = {
        {"", "line 1"},
        {"[]", "\"weight_map\" is missing or is no object"},
        {"{}", "\"weight_map\" is missing or is no object"},
        {"{\"weight_map\": []}", "\"weight_map\" is missing or is no object"},
        {MAP("\"a\": 1"), "the file of 'a' is no string"},
        {MAP("\"a\": \"../x\""), "'a' is in \"../x\", which is no file name inside the folder"},
        {MAP("\"a\": \"/etc/passwd\""), "which is no file name inside the folder"},
        {MAP("\"a\": \"sub/x.bin\""), "which is no file name inside the folder"},
        {MAP("\"a\": \"..\""), "which is no file name inside the folder"},
        {MAP("\"a\": \"\""), "which is no file name inside the folder"},
        {MAP(A ", \"a.bias\": \"" FIRST "\""), "'a.bias' is not in " FIRST ", which the index names"},
        {MAP("\"a.weight\": \"" FIRST "\""), "tensor 'b' of " FIRST " is not in the index"},
        {MAP(A ", \"a.bias\": \"" SECOND "\", \"c\": \"" SECOND "\""), "'c' is not in " SECOND},
        {MAP("\"a.weight\": \"" SECOND "\", \"b\": \"" FIRST "\", \"a.bias\": \"" SECOND "\""),
         "'a.weight' is in " FIRST ", but the index names " SECOND},
        {MAP(A ", \"a.bias\": \"copy.bin\", \"z\": \"" SECOND "\""), "'a.bias' is in two shards"},
    };
    copy_file(GOLDEN "shards/" FIRST, scratch(state, FIRST));
    copy_file(GOLDEN "shards/" SECOND, scratch(state, SECOND));
    copy_file(GOLDEN "shards/" SECOND, scratch(state, "copy.bin"));
    const char *path = scratch(state, INDEX);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_file(path, cases[i].index, (int64_t)strlen(cases[i].index));
        vl_error_clear();
        VlStatus status = open_and_close(path);
        if (status != VL_FORMAT || !strstr(vl_error_text(), cases[i].reason)) {
            fail_msg("case %zu: status %d with '%s'", i, (int)status, vl_error_text());
        }
    }
    put_file(path, MAP("\"a\": \"none.bin\""), (int64_t)strlen(MAP("\"a\": \"none.bin\"")));
    assert_error(open_and_close(path), VL_IO, "none.bin");
}

static void damage_is_found_by_verify(void **state) {
    char *data;
    int64_t size;
    VlWeights weights;
    copy_file(GOLDEN "shards/" FIRST, scratch(state, FIRST));
    copy_file(GOLDEN "shards/" INDEX, scratch(state, INDEX));
    assert_ok(vl_weights_open(&weights, GOLDEN "shards"));
    int64_t place = vl_torch_find(&weights.torch[1], "a.bias")->offset;
    vl_weights_close(&weights);
    assert_ok(vl_read_file(GOLDEN "shards/" SECOND, 1 << 20, &data, &size));
    data[place] ^= 4;
    put_file(scratch(state, SECOND), data, size);
    vl_free(data);
    assert_ok(vl_weights_open(&weights, *state));
    assert_error(vl_weights_verify(&weights), VL_FORMAT, SECOND);
    vl_weights_close(&weights);
}

#define in_scratch(test) cmocka_unit_test_setup_teardown(test, make_scratch, remove_scratch)

int main(void) {
    const struct CMUnitTest tests[] = {
        in_scratch(shards_are_joined_by_an_index), in_scratch(a_folder_is_searched_in_order),
        in_scratch(single_files_are_read),         in_scratch(false_indexes_are_refused),
        in_scratch(damage_is_found_by_verify),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
