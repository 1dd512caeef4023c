// Every guarded call of an operation (allocation, open, read, write, sync, rename) fails once, one after the other:
// each failure must be a status with a text, leave nothing behind, and leave what was there before as it was. Run
// with -DVL_SANITIZE=ON, the tests show leaks too.
#include "base/json.h"
#include "base/safetensors.h"
#include "base/weights.h"
#include "base/yaml.h"
#include "tests/base/support.h"

enum { SAVED_FLOATS = 50000 };  // larger than one write of the header

typedef VlStatus (*Operation)(const char *folder);

// Runs the operation with call 0, 1, 2, ... failing until it passes. Returns how many calls could fail.
static int64_t fail_one_by_one(const char *folder, Operation operation, void (*check)(const char *folder)) {
    for (int64_t failing = 0; failing < 100000; failing++) {
        vl_error_clear();
        vl_fault_arm(failing);
        VlStatus status = operation(folder);
        bool left = false;  // the failure is still to come: the operation has fewer calls
        for (int64_t i = 0; i <= failing && !left; i++) left = vl_fault_hit();
        vl_fault_arm(-1);
        if (status == VL_OK && !left) fail_msg("call %lld failed, and nobody noticed", (long long)failing);
        if (status == VL_OK) return failing;
        if (status != VL_IO && status != VL_OUT_OF_MEMORY) {
            fail_msg("call %lld: status %d, '%s'", (long long)failing, (int)status, vl_error_text());
        }
        assert_true(vl_error_text()[0] != '\0');
        check(folder);
    }
    fail_msg("the operation never passes");
    return -1;
}

static const char *file_in(const char *folder, const char *name) {
    static char path[VL_PATH_MAX];
    assert_ok(vl_path_join(path, folder, name));
    return path;
}

static VlStatus save_with(const char *folder, float value) {
    const char *names[3] = {"first", "second", "third"};
    float *values;
    VL_TRY(VL_NEW(&values, SAVED_FLOATS));
    for (int i = 0; i < SAVED_FLOATS; i++) values[i] = value;
    const VlTensor tensors[3] = {vl_tensor(values, VL_F32, SAVED_FLOATS), vl_tensor(values, VL_F32, 3, 4),
                                 vl_tensor(values, VL_F32, 0)};
    VlStatus status = vl_safetensors_save(file_in(folder, "model.safetensors"), 3, names, tensors);
    vl_free(values);
    return status;
}

static VlStatus save(const char *folder) { return save_with(folder, 2.0f); }

static VlStatus load(const char *folder) {
    VlSafetensors set;
    double *values = NULL;
    VlStatus status;
    VL_TRY(vl_safetensors_open(&set, folder));
    VL_TRY_GOTO(status, VL_NEW(&values, SAVED_FLOATS), done);
    VL_TRY_GOTO(status, vl_safetensors_read_as(&set, vl_safetensors_find(&set, "first"), VL_F64, values), done);
    assert_true(values[0] == 2 && values[SAVED_FLOATS - 1] == 2);
done:
    vl_free(values);
    vl_safetensors_close(&set);
    return status;
}

// One file, complete: the old one, or the new one if only the sync of the folder failed.
static void check_saved(const char *folder) {
    VlSafetensors set;
    float values[12];
    assert_int_equal(count_names(folder), 1);
    assert_ok(vl_safetensors_open(&set, folder));
    assert_ok(vl_safetensors_read(&set, vl_safetensors_find(&set, "second"), values));
    for (int i = 0; i < 12; i++) assert_true(values[i] == values[0]);
    assert_true(values[0] == 1 || values[0] == 2);
    vl_safetensors_close(&set);
}

static void nothing_or_whole(const char *folder) {
    if (count_names(folder)) check_saved(folder);
}

static void no_temporary_file(const char *folder) {
    char **names;
    int64_t count;
    assert_ok(vl_list_folder(folder, &names, &count));
    for (int64_t i = 0; i < count; i++) assert_null(strstr(names[i], ".tmp-"));
    vl_free_names(names, count);
}

static void nothing_to_check(const char *folder) { (void)folder; }

static void a_failing_save_leaves_no_half_file(void **state) {
    int64_t calls = fail_one_by_one(*state, save, nothing_or_whole);
    assert_in_range(calls, 15, 60);
    check_saved(*state);
}

static void a_failing_save_keeps_the_old_file(void **state) {
    assert_ok(save_with(*state, 1.0f));
    fail_one_by_one(*state, save, check_saved);
    check_saved(*state);
}

static void a_failing_load_leaks_nothing(void **state) {
    assert_ok(save(*state));
    int64_t descriptors = count_names("/proc/self/fd");
    int64_t calls = fail_one_by_one(*state, load, nothing_to_check);
    assert_in_range(calls, 10, 60);
    assert_int_equal(count_names("/proc/self/fd"), descriptors);
}

static VlStatus load_index(const char *folder) {
    VlSafetensors set;
    VL_TRY(vl_safetensors_open(&set, file_in(folder, "x.safetensors.index.json")));
    assert_int_equal(set.count, 3);
    vl_safetensors_close(&set);
    return VL_OK;
}

static void a_failing_load_of_shards_leaks_nothing(void **state) {
    const char *index =
        "{\"metadata\": {\"total_size\": 200048}, \"weight_map\": {\"first\": \"model.safetensors\", \"second\": "
        "\"model.safetensors\", \"third\": \"model.safetensors\"}}";
    assert_ok(save(*state));
    assert_ok(vl_write_file(file_in(*state, "x.safetensors.index.json"), index, (int64_t)strlen(index)));
    int64_t descriptors = count_names("/proc/self/fd");
    int64_t calls = fail_one_by_one(*state, load_index, nothing_to_check);
    assert_in_range(calls, 10, 60);
    assert_int_equal(count_names("/proc/self/fd"), descriptors);
}

static VlStatus load_torch(const char *path) {
    VlWeights weights;
    char *values = NULL;
    VL_TRY(vl_weights_open(&weights, path));
    VlStatus status = vl_allocate(&values, 1000, 8);
    for (int64_t i = 0; i < weights.count && !status; i++) {
        status = vl_weights_read(&weights, &weights.entries[i], values);
    }
    if (!status) status = vl_weights_verify(&weights);
    vl_free(values);
    vl_weights_close(&weights);
    return status;
}

static void a_failing_load_of_torch_files_leaks_nothing(void **state) {
    (void)state;
    int64_t descriptors = count_names("/proc/self/fd");
    assert_in_range(fail_one_by_one(VL_SOURCE_DIR "/tests/golden/torch/shards", load_torch, nothing_to_check), 50, 400);
    fail_one_by_one(VL_SOURCE_DIR "/tests/golden/torch/types_2.pt", load_torch, nothing_to_check);
    fail_one_by_one(VL_SOURCE_DIR "/tests/golden/torch/nested_4.pt", load_torch, nothing_to_check);
    fail_one_by_one(VL_SOURCE_DIR "/tests/golden/torch/legacy.pt", load_torch, nothing_to_check);
    assert_int_equal(count_names("/proc/self/fd"), descriptors);
}

static VlStatus stream_list(const char *folder) {
    VlJsonStream *stream;
    json_t *element = NULL;
    int64_t offset, size, count = 0;
    VL_TRY(vl_json_stream_open(&stream, file_in(folder, "list.json")));
    VlStatus status = vl_json_stream_next(stream, &element, &offset, &size);
    for (; !status && element; count++) {
        json_decref(element);
        status = vl_json_stream_next(stream, &element, &offset, &size);
    }
    vl_json_stream_close(stream);
    if (!status) assert_int_equal(count, 3);
    return status;
}

static void a_failing_stream_leaks_nothing(void **state) {
    char *text;
    assert_ok(VL_NEW(&text, 300001));
    memset(text, ' ', 300000);
    text[0] = '[';
    text[70000] = '1';
    memcpy(text + 140000, ",{}", 3);
    memcpy(text + 299990, ",[3]]", 5);
    assert_ok(vl_write_file(file_in(*state, "list.json"), text, 300000));
    vl_free(text);
    int64_t descriptors = count_names("/proc/self/fd");
    int64_t calls = fail_one_by_one(*state, stream_list, nothing_to_check);
    assert_in_range(calls, 8, 60);
    assert_int_equal(count_names("/proc/self/fd"), descriptors);
}

static VlStatus load_yaml(const char *folder) {
    VlYaml *document;
    VL_TRY(vl_yaml_load(file_in(folder, "c.yaml"), &document));
    vl_yaml_free(document);
    return VL_OK;
}

static VlStatus write_small(const char *folder) { return vl_write_file(file_in(folder, "small"), "x", 1); }

static VlStatus save_json(const char *folder) {
    json_t *document = json_pack("{s:[i,i]}", "a", 1, 2);
    VlStatus status = vl_json_save(file_in(folder, "a.json"), document, 0);
    json_decref(document);
    return status;
}

static void failing_documents_leak_nothing(void **state) {
    const char *text = "a: {b: [1, 2], c: 'x'}\nd: [{e: f}]\n";
    int64_t descriptors = count_names("/proc/self/fd");
    fail_one_by_one(*state, write_small, no_temporary_file);
    fail_one_by_one(*state, save_json, no_temporary_file);
    assert_int_equal(count_names(*state), 2);
    assert_ok(vl_write_file(file_in(*state, "c.yaml"), text, (int64_t)strlen(text)));
    assert_in_range(fail_one_by_one(*state, load_yaml, nothing_to_check), 30, 100);
    assert_int_equal(count_names("/proc/self/fd"), descriptors);
}

static VlStatus make_and_remove(const char *folder) {
    VL_TRY(vl_make_folders(file_in(folder, "tree/a/b")));
    VL_TRY(vl_write_file(file_in(folder, "tree/a/file"), "x", 1));
    VL_TRY(vl_remove_tree(file_in(folder, "tree")));
    return VL_OK;
}

static void failing_folders_are_told(void **state) {
    assert_in_range(fail_one_by_one(*state, make_and_remove, nothing_to_check), 10, 60);
    assert_int_equal(count_names(*state), 0);
}

#define in_scratch(test) cmocka_unit_test_setup_teardown(test, make_scratch, remove_scratch)

int main(void) {
    const struct CMUnitTest tests[] = {
        in_scratch(a_failing_save_leaves_no_half_file),
        in_scratch(a_failing_save_keeps_the_old_file),
        in_scratch(a_failing_load_leaks_nothing),
        in_scratch(a_failing_load_of_shards_leaks_nothing),
        in_scratch(a_failing_load_of_torch_files_leaks_nothing),
        in_scratch(a_failing_stream_leaks_nothing),
        in_scratch(failing_documents_leak_nothing),
        in_scratch(failing_folders_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
