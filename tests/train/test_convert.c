// Conversions: every tensor and file comes back bit by bit, whatever its type; what differs, is damaged or cannot be
// rounded is named; a conversion that fails or is killed leaves nothing that looks like a model.
#include <fcntl.h>
#include <hdf5.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/random.h"
#include "base/safetensors.h"
#include "base/weights.h"
#include "tests/train/vl2.h"
#include "train/convert.h"

static VlComm *comm;

static VlStatus convert_with(VlConvertOptions options) {
    VlConvertReport report;
    if (options.shard_bytes == 0) options.shard_bytes = 5000000000;
    return vl_convert_model(&options, &report, NULL, NULL);
}
#define convert(...) convert_with((VlConvertOptions){__VA_ARGS__})

// ---- Folders to convert -------------------------------------------------------------

typedef struct Stored {
    const char *name;
    VlTensor tensor;  // with its data
    bool scalar;
} Stored;

static void write_weights(const char *folder, const Stored *stored, int64_t count) {
    char path[VL_PATH_MAX];
    VlSafetensorsWriter writer;
    assert_ok(vl_make_folders(folder));
    join(path, folder, "model.safetensors");
    assert_ok(vl_safetensors_create(&writer, path));
    for (int64_t i = 0; i < count; i++) {
        assert_ok(stored[i].scalar ? vl_safetensors_declare_scalar(&writer, stored[i].name, stored[i].tensor.dtype)
                                   : vl_safetensors_declare(&writer, stored[i].name, stored[i].tensor));
    }
    assert_ok(vl_safetensors_begin(&writer));
    for (int64_t i = 0; i < count; i++)
        assert_ok(vl_safetensors_write(&writer, stored[i].tensor.data, vl_bytes(stored[i].tensor)));
    assert_ok(vl_safetensors_commit(&writer));
    join(path, folder, "config.json");
    static const char text[] = "{\"model_type\": \"mistral\", \"torch_dtype\": \"float32\", \"eps\": 1e-05}";
    put_file(path, text, (int64_t)strlen(text));
}

enum { DRAWN = 3 << 20 };

// A model of all types and kinds of shapes; one tensor is larger than the parts in which data pass.
static void write_every_type(const char *folder) {
    static uint16_t drawn[DRAWN];
    VlRandom random = vl_random(5, 1);
    for (int64_t i = 0; i < DRAWN; i++) drawn[i] = (uint16_t)(vl_random_u64(&random) & 0xbfff);  // no infinities
    memset(drawn + 20000, 0, 60000);
    const Stored stored[] = {
        {"large", vl_tensor(drawn, VL_BF16, 3, 1 << 20), false},
        {"f32", vl_tensor(drawn, VL_F32, 7, 5, 3), false},
        {"f16", vl_tensor(drawn + 3, VL_F16, 33), false},
        {"f64", vl_tensor(drawn, VL_F64, 2, 1, 2, 1, 3), false},
        {"i64", vl_tensor(drawn, VL_I64, 1, 577), false},
        {"i32", vl_tensor(drawn, VL_I32, 3), false},
        {"i16", vl_tensor(drawn, VL_I16, 3), false},
        {"i8", vl_tensor(drawn, VL_I8, 3), false},
        {"u8", vl_tensor(drawn + 1, VL_U8, 5), false},
        {"bool", vl_tensor("\1\0\1", VL_BOOL, 3), false},
        {"scalar", vl_tensor(drawn, VL_F32, 1), true},
        {"one", vl_tensor(drawn, VL_F32, 1), false},
        {"none", vl_tensor(drawn, VL_F32, 0, 4), false},
    };
    write_weights(folder, stored, (int64_t)(sizeof stored / sizeof *stored));
}

// ---- Comparing folders --------------------------------------------------------------

static char *read_tensor(const VlWeights *weights, const VlWeightsEntry *entry) {
    char *data;
    assert_ok(vl_allocate(&data, vl_bytes(entry->tensor), 1));
    assert_ok(vl_weights_read(weights, entry, data));
    return data;
}

static void same_tensors(const char *a_folder, const char *b_folder) {
    VlWeights a, b;
    assert_ok(vl_weights_open(&a, a_folder));
    assert_ok(vl_weights_open(&b, b_folder));
    assert_int_equal(a.count, b.count);
    for (int64_t i = 0; i < a.count; i++) {
        const VlWeightsEntry *x = &a.entries[i], *y = &b.entries[i];
        assert_string_equal(x->name, y->name);
        if (!vl_same_shape(x->tensor, y->tensor) || x->tensor.dtype != y->tensor.dtype || x->scalar != y->scalar)
            fail_msg("%s: %s, %s", x->name, vl_describe(x->tensor), vl_describe(y->tensor));
        char *left = read_tensor(&a, x), *right = read_tensor(&b, y);
        assert_memory_equal(left, right, (size_t)vl_bytes(x->tensor));
        vl_free(left);
        vl_free(right);
    }
    vl_weights_close(&a);
    vl_weights_close(&b);
}

// Every file of `a` that is no weights is in `b`, byte by byte.
static void same_files(const char *a, const char *b) {
    char **names, left[VL_PATH_MAX], right[VL_PATH_MAX], *x, *y;
    int64_t count, x_size, y_size;
    assert_ok(vl_list_folder(a, &names, &count));
    for (int64_t i = 0; i < count; i++) {
        join(left, a, names[i]);
        join(right, b, names[i]);
        if (strstr(names[i], ".safetensors")) continue;
        if (vl_path_is_folder(left)) {
            same_files(left, right);
            continue;
        }
        assert_ok(vl_read_file(left, 1 << 28, &x, &x_size));
        assert_ok(vl_read_file(right, 1 << 28, &y, &y_size));
        assert_int_equal(x_size, y_size);
        assert_memory_equal(x, y, (size_t)x_size);
        vl_free(x);
        vl_free(y);
    }
    vl_free_names(names, count);
}

// ---- There and back -------------------------------------------------------------------

static void golden_models_come_back(void **state) {
    static const char *const cases[] = {"mistral_clip_stc", "mistral_text_only", "qwen2_siglip_v35", "conn_linear",
                                        "mixtral_clip_stc"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char model[VL_PATH_MAX], checkpoint[VL_PATH_MAX], back[VL_PATH_MAX], name[128];
        snprintf(model, sizeof model, "%s/tests/golden/model/%s/model", VL_SOURCE_DIR, cases[i]);
        snprintf(name, sizeof name, "%s.checkpoint", cases[i]);
        join(checkpoint, *state, name);
        join(back, *state, cases[i]);
        assert_ok(convert(.from = model, .to = checkpoint, .verify = true));
        assert_ok(vl_checkpoint_verify(comm, checkpoint));
        assert_ok(convert(.from = checkpoint, .to = back, .verify = true));
        same_tensors(model, back);
        same_files(model, back);
        assert_true(same_weights(model, checkpoint));
    }
}

static void every_type_comes_back(void **state) {
    const char *model = scratch(state, "types"), *whole = scratch(state, "types.whole");
    char checkpoint[VL_PATH_MAX], back[VL_PATH_MAX], path[VL_PATH_MAX];
    write_every_type(model);
    for (int64_t shard = 100; shard <= 10000000000; shard *= 100000000) {
        join(checkpoint, *state, shard == 100 ? "types.shards.h5" : "types.h5");
        join(back, *state, shard == 100 ? "types.shards" : "types.back");
        assert_ok(convert(.from = model, .to = checkpoint, .shard_bytes = shard, .verify = true));
        assert_ok(convert(.from = checkpoint, .to = back, .shard_bytes = shard, .verify = true));
        join(path, back, "model.safetensors.index.json");
        assert_int_equal(vl_path_exists(path), shard == 100);
        same_tensors(model, back);
        same_files(model, back);
        assert_ok(convert(.from = model, .to = back, .verify = true));
    }
    join(back, *state, "types.shards");
    assert_ok(convert(.from = back, .to = whole, .format = VL_CONVERT_HF));
    same_tensors(model, whole);
}

// The HDF5 library finds the values where the table says they are.
static void hdf5_reads_checkpoints(void **state) {
    const char *model = scratch(state, "library"), *checkpoint = scratch(state, "library.h5");
    static const float values[] = {1.5f, -2.0f, 1e-30f, 0, 3, 7};
    static const uint16_t halves[] = {0x3c00, 0xc000, 0x3f80};  // f16 1, -2; bf16 of the last: 1
    const Stored stored[] = {{"a.weight", vl_tensor((void *)(uintptr_t)values, VL_F32, 2, 3), false},
                             {"half", vl_tensor((void *)(uintptr_t)halves, VL_F16, 2), false},
                             {"brain", vl_tensor((void *)(uintptr_t)halves, VL_BF16, 3), false}};
    write_weights(model, stored, 3);
    assert_ok(convert(.from = model, .to = checkpoint));
    char path[VL_PATH_MAX], text[8] = "";
    float found[6];
    uint16_t bits[3];
    join(path, checkpoint, "weights-00000.h5");
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    hid_t set = H5Dopen2(file, "/parameters/a.weight", H5P_DEFAULT);
    assert_true(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, found) >= 0);
    assert_memory_equal(found, values, sizeof values);
    H5Dclose(set);
    set = H5Dopen2(file, "/parameters/half", H5P_DEFAULT);
    assert_true(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, found) >= 0);
    assert_true(found[0] == 1 && found[1] == -2);
    H5Dclose(set);
    set = H5Dopen2(file, "/parameters/brain", H5P_DEFAULT);
    assert_true(H5Dread(set, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, bits) >= 0);
    assert_memory_equal(bits, halves, sizeof halves);
    hid_t attribute = H5Aopen(set, "dtype", H5P_DEFAULT), type = H5Aget_type(attribute);
    assert_true(H5Aread(attribute, type, text) >= 0);
    assert_string_equal(text, "bf16");
    H5Tclose(type);
    H5Aclose(attribute);
    H5Dclose(set);
    H5Fclose(file);
}

// ---- Rounding -----------------------------------------------------------------------

static void values_are_rounded_to_the_nearest(void **state) {
    const char *model = scratch(state, "round"), *bf16 = scratch(state, "round.bf16");
    char f16[VL_PATH_MAX], back[VL_PATH_MAX];
    join(f16, *state, "round.f16");
    join(back, *state, "round.f32");
    // Ties to even below and above, NaN, infinity, a subnormal of f16, and the largest that f16 holds.
    float values[] = {1 + 0x1p-8f, 1 + 0x3p-8f, 1 + 0x1p-11f, NAN, INFINITY, -0.0f, 0x1p-24f, 65519.0f};
    int64_t ids[] = {70000, -1};
    const Stored stored[] = {{"w", vl_tensor(values, VL_F32, 8), false}, {"ids", vl_tensor(ids, VL_I64, 2), false}};
    static const uint16_t brain[] = {0x3f80, 0x3f82, 0x3f80, 0x7fc0, 0x7f80, 0x8000, 0x3380, 0x4780};
    static const uint16_t half[] = {0x3c04, 0x3c0c, 0x3c00, 0x7e00, 0x7c00, 0x8000, 0x0001, 0x7bff};
    write_weights(model, stored, 2);
    for (int i = 0; i < 2; i++) {
        const char *to = i ? f16 : bf16;
        VlWeights weights;
        uint16_t found[8];
        int64_t same[2];
        json_t *config;
        char path[VL_PATH_MAX];
        assert_ok(convert(.from = model, .to = to, .format = VL_CONVERT_HF, .cast = true, .dtype = i ? VL_F16 : VL_BF16,
                          .verify = true));
        assert_ok(vl_weights_open(&weights, to));
        assert_ok(vl_weights_read(&weights, vl_weights_find(&weights, "w"), found));
        assert_ok(vl_weights_read(&weights, vl_weights_find(&weights, "ids"), same));
        assert_memory_equal(found, i ? half : brain, sizeof found);
        assert_memory_equal(same, ids, sizeof ids);
        vl_weights_close(&weights);
        join(path, to, "config.json");
        assert_ok(vl_json_load(path, 1 << 20, &config));
        assert_string_equal(json_string_value(json_object_get(config, "torch_dtype")), i ? "float16" : "bfloat16");
        json_decref(config);
    }
    assert_ok(convert(.from = bf16, .to = back, .cast = true, .dtype = VL_F32, .verify = true));
    values[7] = 65520.0f;
    write_weights(model, stored, 2);
    join(back, *state, "round.overflow");
    assert_error(convert(.from = model, .to = back, .cast = true, .dtype = VL_F16), VL_INVALID,
                 "tensor w: element 7 is 65520, which f16 cannot hold");
    assert_false(vl_path_exists(back));
}

// ---- Differences and damage -----------------------------------------------------------

static void differences_are_named(void **state) {
    const char *a = scratch(state, "mine"), *b = scratch(state, "theirs");
    float values[6] = {1, 2, 3, 4, 5, 6}, others[6] = {1, 2, 3, 4, 5, 7};
    const Stored mine[] = {{"x", vl_tensor(values, VL_F32, 6), false},
                           {"y", vl_tensor(values, VL_F32, 6), false},
                           {"z", vl_tensor(values, VL_F32, 6), false}};
    Stored theirs[3] = {mine[0], mine[1], mine[2]};
    write_weights(a, mine, 3);
    write_weights(b, theirs, 3);
    assert_ok(convert(.from = a, .to = b, .verify = true));
    assert_error(convert(.from = a, .to = b), VL_INVALID, "exists; it is not overwritten");
    theirs[1].tensor = theirs[2].tensor = vl_tensor(others, VL_F32, 6);
    write_weights(b, theirs, 3);
    assert_error(convert(.from = a, .to = b, .verify = true), VL_FORMAT,
                 "tensor y holds other values; 2 of 3 tensors differ, 0 are additional");
    theirs[1].tensor = vl_tensor(values, VL_F32, 2, 3);
    write_weights(b, theirs, 3);
    assert_error(convert(.from = a, .to = b, .verify = true), VL_FORMAT, "tensor y has another shape; 2 of 3");
    theirs[1].tensor = vl_tensor(values, VL_I32, 6);
    write_weights(b, theirs, 3);
    assert_error(convert(.from = a, .to = b, .verify = true), VL_FORMAT, "tensor y has another type; 2 of 3");
    write_weights(b, theirs, 1);
    assert_error(convert(.from = a, .to = b, .verify = true), VL_FORMAT, "tensor y is missing; 2 of 3");
    assert_error(convert(.from = b, .to = a, .verify = true), VL_FORMAT,
                 "tensor y is additional; 0 of 1 tensors differ, 2 are additional");
    theirs[1] = mine[1];
    theirs[2] = mine[2];
    write_weights(b, theirs, 3);
    char path[VL_PATH_MAX];
    join(path, b, "config.json");
    put_file(path, "{}", 2);
    assert_error(convert(.from = a, .to = b, .verify = true), VL_FORMAT, "the file config.json differs");
}

static void damage_is_found(void **state) {
    const char *model = scratch(state, "sound"), *checkpoint = scratch(state, "sound.h5");
    char path[VL_PATH_MAX], back[VL_PATH_MAX];
    static const char *const files[] = {"weights-00000.h5", "weights-00000.json", "manifest.json", "model/config.json"};
    write_every_type(model);
    assert_ok(convert(.from = model, .to = checkpoint));
    join(back, *state, "damaged");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        int64_t size;
        join(path, checkpoint, files[i]);
        assert_ok(vl_file_size(path, &size));
        for (int64_t k = 0; k < 5; k++) {
            int64_t offset = k == 4 ? size - 1 : size / 5 * k + 7;
            flip_byte(path, offset);
            for (int cast = 0; cast < 2; cast++) {
                VlStatus status = convert(.from = checkpoint, .to = back, .cast = cast, .dtype = VL_F32);
                if (status == VL_OK) fail_msg("%s: a flipped bit at %lld goes unnoticed", path, (long long)offset);
                assert_non_null(strstr(vl_error_text(), files[i]));
                assert_false(vl_path_exists(back));
            }
            assert_int_not_equal(convert(.from = model, .to = checkpoint, .verify = true), VL_OK);
            flip_byte(path, offset);
        }
    }
    assert_ok(convert(.from = checkpoint, .to = back, .verify = true));
}

// ---- Whole or not at all ----------------------------------------------------------------

static void nothing_is_left_behind(void **state) {
    char folder[VL_PATH_MAX], model[VL_PATH_MAX], to[VL_PATH_MAX], temporary[VL_PATH_MAX];
    const float values[] = {1, 2, 3};
    const Stored stored[] = {{"x", vl_tensor((void *)(uintptr_t)values, VL_F32, 3), false}};
    join(folder, *state, "faults");
    join(model, folder, "model");
    join(to, folder, "to");
    join(temporary, folder, "to.tmp");
    write_weights(model, stored, 1);
    for (int format = VL_CONVERT_HF; format <= VL_CONVERT_CHECKPOINT; format++) {
        int64_t faults = 0;
        for (VlStatus status = VL_IO; status != VL_OK; faults++) {
            vl_fault_arm(faults);
            status = convert(.from = model, .to = to, .format = (VlConvertFormat)format);
            vl_fault_arm(-1);
            if (status != VL_OK) assert_int_equal(count_names(folder), vl_path_exists(to) ? 2 : 1);
            // Only the last step, the fsync of the folder around, may fail when all is there.
            if (status != VL_OK && vl_path_exists(to)) assert_ok(vl_remove_tree(to));
        }
        assert_ok(convert(.from = model, .to = to, .format = (VlConvertFormat)format, .verify = true));
        assert_ok(vl_remove_tree(to));
        print_message("%lld faults\n", (long long)faults - 1);
        assert_true(faults > 30);
    }
    // Another program writes there; then it is gone and has left its work unfinished.
    assert_ok(vl_make_folders(temporary));
    int lock = open(temporary, O_RDONLY | O_DIRECTORY);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    assert_error(convert(.from = model, .to = to), VL_INVALID, "another program is writing");
    close(lock);
    char file[VL_PATH_MAX];
    join(file, temporary, "rest");
    put_file(file, "x", 1);
    assert_ok(convert(.from = model, .to = to, .verify = true));
    assert_int_equal(count_names(folder), 2);
}

static void full_disks_and_kills(void **state) {
    static Process process;
    char folder[VL_PATH_MAX], model[VL_PATH_MAX], to[VL_PATH_MAX];
    join(folder, *state, "kills");
    join(model, folder, "model");
    join(to, folder, "to");
    write_every_type(model);
    const char *const words[] = {VL2_PROGRAM, "convert", "--from", model, "--to", to, NULL};
    process_start(&process, words, 1 << 20);
    expect_failure(&process, process_finish(&process, 60), 1, "File too large");
    assert_int_equal(count_names(folder), 1);
    int killed = 0;
    for (int i = 0; i < 12; i++) {
        process_start(&process, words, 0);
        process_sleep(0.004 * i);
        kill(process.pid, SIGKILL);
        if (process_finish(&process, 60) != 0) killed++;
        if (!vl_path_exists(to)) continue;
        assert_ok(convert(.from = model, .to = to, .verify = true));
        assert_ok(vl_remove_tree(to));
    }
    print_message("killed %d times\n", killed);
    assert_true(killed > 0);
    assert_ok(convert(.from = model, .to = to, .verify = true));
    assert_int_equal(count_names(folder), 2);
}

// ---- Runs and parts -------------------------------------------------------------------

static void runs_are_exported(void **state) {
    char run[VL_PATH_MAX], next[VL_PATH_MAX], scratch_model[VL_PATH_MAX], path[VL_PATH_MAX], to[VL_PATH_MAX];
    pack_stage(*state, "pretrain");
    pack_stage(*state, "finetune");
    // Two stages upon one another: the connector, then the language model too.
    join(run, *state, "stage1");
    join(next, *state, "stage2");
    assert_ok(train(comm, *state, "pretrain", run, "train.steps=3"));
    char below[VL_PATH_MAX + 16];
    snprintf(below, sizeof below, "model.path=%s", run);
    assert_ok(train(comm, *state, "finetune", next, "train.steps=3", below));
    join(to, *state, "stage2.exported");
    assert_ok(convert(.from = next, .to = to, .verify = true));
    assert_true(same_weights(next, to));
    assert_false(same_weights(run, to));
    // A checkpoint of the whole model is trained upon like the folder that it came from.
    char whole[VL_PATH_MAX], on_whole[VL_PATH_MAX], on_folder[VL_PATH_MAX];
    join(whole, *state, "whole");
    join(on_whole, *state, "on_whole");
    join(on_folder, *state, "on_folder");
    assert_ok(convert(.from = to, .to = whole));
    snprintf(below, sizeof below, "model.path=%s", whole);
    assert_ok(train(comm, *state, "finetune", on_whole, "train.steps=2", below));
    snprintf(below, sizeof below, "model.path=%s", to);
    assert_ok(train(comm, *state, "finetune", on_folder, "train.steps=2", below));
    assert_true(same_weights(on_whole, on_folder));
    join(path, *state, "on_whole.exported");
    assert_ok(convert(.from = on_whole, .to = path, .verify = true));
    assert_true(same_weights(on_folder, path));
    // From scratch: what no file holds comes from the run's seed.
    join(scratch_model, *state, "scratch_model");
    copy_tree(GOLDEN "/model_vl", scratch_model);
    join(path, scratch_model, "model.safetensors");
    assert_int_equal(unlink(path), 0);
    join(path, scratch_model, "clip-tiny/model.safetensors");
    assert_int_equal(unlink(path), 0);
    snprintf(below, sizeof below, "model.path=%s", scratch_model);
    join(run, *state, "from_scratch");
    join(to, *state, "from_scratch.exported");
    assert_ok(train(comm, *state, "pretrain", run, "train.steps=2", "train.seed=11", below));
    assert_ok(convert(.from = run, .to = to, .verify = true));
    assert_true(same_weights(run, to));
    join(path, *state, "from_nothing");
    assert_error(convert(.from = GOLDEN "/../../../examples/model", .to = path), VL_INVALID, "holds no weights");
}

// Tensors of the golden model whose names begin with `from`, as `to`..., into `path`.
static void write_part(const char *path, const char *from, const char *to) {
    VlWeights weights;
    VlSafetensorsWriter writer;
    assert_ok(vl_weights_open(&weights, GOLDEN "/model_vl"));
    assert_ok(vl_safetensors_create(&writer, path));
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < weights.count; i++) {
            const VlWeightsEntry *entry = &weights.entries[i];
            char name[512];
            bool visual = strstr(entry->name, "vision_tower") || strstr(entry->name, "mm_projector");
            if (strncmp(entry->name, from, strlen(from)) != 0 || (!*from && visual)) continue;
            snprintf(name, sizeof name, "%s%s", to, entry->name + strlen(from));
            if (pass == 0) {
                assert_ok(vl_safetensors_declare(&writer, name, entry->tensor));
                continue;
            }
            char *data = read_tensor(&weights, entry);
            assert_ok(vl_safetensors_write(&writer, data, vl_bytes(entry->tensor)));
            vl_free(data);
        }
        if (pass == 0) assert_ok(vl_safetensors_begin(&writer));
    }
    assert_ok(vl_safetensors_commit(&writer));
    vl_weights_close(&weights);
}

static void parts_make_one_model(void **state) {
    const char *whole = GOLDEN "/model_vl";
    char llm[VL_PATH_MAX], vision[VL_PATH_MAX], connector[VL_PATH_MAX], path[VL_PATH_MAX], to[VL_PATH_MAX];
    json_t *original, *config;
    join(llm, *state, "llm");
    join(vision, *state, "clip-parts");
    join(connector, *state, "connector.safetensors");
    join(to, *state, "composed");
    join(path, whole, "config.json");
    assert_ok(vl_json_load(path, 1 << 20, &original));
    config = json_deep_copy(original);
    const char *key;
    json_t *value;
    json_object_foreach(original, key, value) {
        if (strncmp(key, "mm_", 3) == 0) json_object_del(config, key);
    }
    json_object_set_new(config, "model_type", json_string("mistral"));
    assert_ok(vl_make_folders(llm));
    join(path, llm, "config.json");
    assert_ok(vl_json_save(path, config, 0));
    json_decref(config);
    join(path, llm, "model.safetensors");
    write_part(path, "", "");
    char tower[VL_PATH_MAX];
    join(tower, whole, json_string_value(json_object_get(original, "mm_vision_tower")));
    copy_tree(tower, vision);
    join(path, vision, "model.safetensors");
    write_part(path, "model.vision_tower.vision_tower.", "");
    write_part(connector, "model.mm_projector.", "model.mm_projector.");
    assert_ok(convert(.llm = llm, .vision = vision, .connector = connector, .frames = 4, .to = to, .verify = true,
                      .connector_type = json_string_value(json_object_get(original, "mm_projector_type"))));
    same_tensors(whole, to);
    assert_true(same_weights(whole, to));
    join(path, to, "config.json");
    assert_ok(vl_json_load(path, 1 << 20, &config));
    assert_string_equal(json_string_value(json_object_get(config, "model_type")), "videollama2_mistral");
    assert_string_equal(json_string_value(json_object_get(config, "mm_vision_tower")), "clip-parts");
    assert_int_equal(json_integer_value(json_object_get(config, "num_frames")), 4);
    json_decref(config);
    json_decref(original);
    join(path, *state, "wrong");
    assert_error(convert(.llm = llm, .connector = path, .to = path), VL_IO, "wrong");
    join(to, vision, "model.safetensors");
    assert_error(convert(.llm = llm, .connector = to, .to = path), VL_FORMAT, "holds no connector");
    assert_error(convert(.llm = vision, .to = path), VL_UNSUPPORTED, "clip_vision_model");
    assert_false(vl_path_exists(path));
}

static int begin(void **state) {
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_ERROR, 0);
    assert_ok(vl_comm_open(&comm, 0));
    return 0;
}

static int end(void **state) {
    vl_comm_close(comm);
    return remove_scratch(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_models_come_back), cmocka_unit_test(every_type_comes_back),
        cmocka_unit_test(hdf5_reads_checkpoints),  cmocka_unit_test(values_are_rounded_to_the_nearest),
        cmocka_unit_test(differences_are_named),   cmocka_unit_test(damage_is_found),
        cmocka_unit_test(nothing_is_left_behind),  cmocka_unit_test(full_disks_and_kills),
        cmocka_unit_test(runs_are_exported),       cmocka_unit_test(parts_make_one_model),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
