// A model with holes, of the shapes of Qwen2-72B (or small ones): every tensor has blocks of 4 KiB of seeded bytes at
// its beginning, its end and random offsets, and nothing between. vl2 converts it to a checkpoint and back; every block
// is compared afterwards, and what disk and memory it took is checked. Usage: PROGRAM [72b].
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/json.h"
#include "base/random.h"
#include "base/safetensors.h"
#include "base/sparse.h"
#include "base/weights.h"
#include "tests/base/support.h"
#include "tests/process.h"

enum { BLOCK = 4096, BLOCKS = 5, LAYER_TENSORS = 12, MOST_TENSORS = 1200, SEED = 72 };

typedef struct Sizes {
    int64_t hidden, middle, kv, layers, vocabulary, shard_bytes;
} Sizes;

static const Sizes large = {8192, 29568, 1024, 80, 152064, 4000000000};
static const Sizes small = {512, 1376, 128, 3, 1000, 6000000};
static const Sizes *sizes = &small;

typedef struct Tensor {
    char name[128];
    VlTensor shape;
} Tensor;

static Tensor tensors[MOST_TENSORS];
static int64_t count;

static void add(const char *name, int64_t rows, int64_t columns) {
    Tensor *tensor = &tensors[count++];
    assert_true(count <= MOST_TENSORS);
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    tensor->shape = columns ? vl_tensor(NULL, VL_BF16, rows, columns) : vl_tensor(NULL, VL_BF16, rows);
}

static void list_tensors(void) {
    int64_t h = sizes->hidden, m = sizes->middle, kv = sizes->kv;
    const struct {
        const char *name;
        int64_t rows, columns;
    } layer[LAYER_TENSORS] = {{"input_layernorm.weight", h, 0},
                              {"mlp.down_proj.weight", h, m},
                              {"mlp.gate_proj.weight", m, h},
                              {"mlp.up_proj.weight", m, h},
                              {"post_attention_layernorm.weight", h, 0},
                              {"self_attn.k_proj.bias", kv, 0},
                              {"self_attn.k_proj.weight", kv, h},
                              {"self_attn.o_proj.weight", h, h},
                              {"self_attn.q_proj.bias", h, 0},
                              {"self_attn.q_proj.weight", h, h},
                              {"self_attn.v_proj.bias", kv, 0},
                              {"self_attn.v_proj.weight", kv, h}};
    add("model.embed_tokens.weight", sizes->vocabulary, h);
    for (int64_t i = 0; i < sizes->layers; i++) {
        for (int j = 0; j < LAYER_TENSORS; j++) {
            char name[128];
            snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)i, layer[j].name);
            add(name, layer[j].rows, layer[j].columns);
        }
    }
    add("model.norm.weight", h, 0);
    add("lm_head.weight", sizes->vocabulary, h);
}

// Block number `b` of a tensor: where it lies in it, how long it is (a small tensor has less than a block), its bytes.
static int64_t make_block(int64_t tensor, int b, int64_t *offset, char bytes[BLOCK]) {
    int64_t size = vl_bytes(tensors[tensor].shape), length = size < BLOCK ? size : BLOCK;
    VlRandom random = vl_random(SEED, (uint64_t)(tensor * BLOCKS + b)), place = vl_random(SEED + 1, (uint64_t)tensor);
    // The tensor is divided into as many parts as there are blocks between the first and the last, one block in each.
    int64_t part = (size - 2 * length) / (BLOCKS - 2);
    *offset = b == 0 ? 0 : size - length;
    if (b > 0 && b < BLOCKS - 1) {
        if (part < length) return 0;
        place.position = (uint64_t)b * 16;
        *offset = length + (b - 1) * part + vl_random_below(&place, part - length + 1);
    }
    if (b == BLOCKS - 1 && size < 2 * length) return 0;
    for (int64_t i = 0; i < BLOCK; i += 8) {
        uint64_t word = vl_random_u64(&random);
        memcpy(bytes + i, &word, sizeof word);
    }
    return length;
}

static void write_shard(const char *folder, const char *name, int64_t first, int64_t last) {
    char path[VL_PATH_MAX], bytes[BLOCK];
    VlSafetensorsWriter writer;
    assert_ok(vl_path_join(path, folder, name));
    assert_ok(vl_safetensors_create(&writer, path));
    for (int64_t i = first; i < last; i++)
        assert_ok(vl_safetensors_declare(&writer, tensors[i].name, tensors[i].shape));
    assert_ok(vl_safetensors_begin(&writer));
    assert_ok(vl_safetensors_make_hole(&writer));
    for (int64_t i = first; i < last; i++) {
        for (int b = 0; b < BLOCKS; b++) {
            int64_t offset, length = make_block(i, b, &offset, bytes);
            offset += writer.header_end + writer.entries[i - first].offset;
            assert_ok(vl_write_sparse(writer.writer.descriptor, path, offset, bytes, length));
        }
    }
    assert_ok(vl_safetensors_commit(&writer));
}

static void write_model(const char *folder) {
    char path[VL_PATH_MAX], name[64];
    int64_t first = 0, shard = 0, used = 0, total = 0;
    json_t *map = json_object();
    assert_ok(vl_make_folders(folder));
    for (int64_t i = 0; i < count; i++) {
        int64_t bytes = vl_bytes(tensors[i].shape);
        if (used > 0 && used + bytes > sizes->shard_bytes) {
            snprintf(name, sizeof name, "model-%05lld.safetensors", (long long)shard++);
            write_shard(folder, name, first, i);
            first = i;
            used = 0;
        }
        used += bytes;
        total += bytes;
        snprintf(name, sizeof name, "model-%05lld.safetensors", (long long)shard);
        json_object_set_new(map, tensors[i].name, json_string(name));
    }
    write_shard(folder, name, first, count);
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    assert_ok(vl_path_join(path, folder, "model.safetensors.index.json"));
    assert_ok(vl_json_save(path, index, 0));
    json_decref(index);
    assert_ok(vl_path_join(path, folder, "config.json"));
    put_file(path, "{\"model_type\": \"qwen2\"}\n", 24);
}

static void compare_blocks(const char *folder, const char *what) {
    VlWeights weights;
    char wanted[BLOCK], found[BLOCK];
    int64_t blocks = 0;
    assert_ok(vl_weights_open(&weights, folder));
    assert_int_equal(weights.count, count);
    for (int64_t i = 0; i < count; i++) {
        const VlWeightsEntry *entry = vl_weights_find(&weights, tensors[i].name);
        assert_non_null(entry);
        assert_true(vl_same_shape(entry->tensor, tensors[i].shape) && entry->tensor.dtype == VL_BF16);
        const VlSafetensorsEntry *place = &weights.safetensors.entries[entry->position];
        for (int b = 0; b < BLOCKS; b++) {
            int64_t offset, length = make_block(i, b, &offset, wanted);
            if (length == 0) continue;
            assert_ok(vl_reader_read(&weights.safetensors.readers[place->file], place->offset + offset, found, length));
            if (memcmp(found, wanted, (size_t)length) != 0)
                fail_msg("%s: block %d of %s differs", what, b, tensors[i].name);
            blocks++;
        }
    }
    vl_weights_close(&weights);
    print_message("%s: %lld blocks compared\n", what, (long long)blocks);
}

// Bytes that a folder's files take on the disk, and their lengths.
static int64_t disk_bytes(const char *folder, int64_t *length) {
    char **names, path[VL_PATH_MAX];
    int64_t entries, sum = 0;
    assert_ok(vl_list_folder(folder, &names, &entries));
    for (int64_t i = 0; i < entries; i++) {
        struct stat info;
        assert_ok(vl_path_join(path, folder, names[i]));
        assert_int_equal(stat(path, &info), 0);
        if (S_ISDIR(info.st_mode)) {
            sum += disk_bytes(path, length);
            continue;
        }
        sum += (int64_t)info.st_blocks * 512;
        *length += info.st_size;
    }
    vl_free_names(names, entries);
    return sum;
}

static void convert(const char *from, const char *to) {
    static Process process;
    int code = process_call(&process, 3600, VL2_PROGRAM, "convert", "--from", from, "--to", to, "--verify");
    if (code != 0) fail_msg("%s -> %s: exit code %d: %s", from, to, code, process.err);
    int64_t length = 0, disk = disk_bytes(to, &length);
    print_message("%s: %.1f s, %.1f GB long, %.1f MB on the disk\n", to, process.seconds, (double)length / 1e9,
                  (double)disk / 1e6);
    assert_true(disk < 2000000000);
    assert_true(disk < length / 8);
}

static void holes_stay_holes(void **state) {
    const char *model = scratch(state, "model"), *checkpoint = scratch(state, "checkpoint"),
               *back = scratch(state, "back");
    int64_t length = 0;
    list_tensors();
    write_model(model);
    int64_t disk = disk_bytes(model, &length);
    print_message("%lld tensors, %.1f GB long, %.1f MB on the disk\n", (long long)count, (double)length / 1e9,
                  (double)disk / 1e6);
    compare_blocks(model, "made");
    convert(model, checkpoint);
    convert(checkpoint, back);
    compare_blocks(back, "to a checkpoint and back");
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &usage), 0);
    print_message("most memory of a conversion: %.0f MB\n", (double)usage.ru_maxrss / 1024);
    assert_true(usage.ru_maxrss < 200 * 1024);
}

// The scratch folder is made in the working folder, on a disk with room and with holes.
static int begin(void **state) {
    char *path = strdup("convert_holes.XXXXXX");
    *state = path;
    return path && mkdtemp(path) ? 0 : -1;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "72b") == 0) sizes = &large;
    const struct CMUnitTest tests[] = {cmocka_unit_test(holes_stay_holes)};
    return cmocka_run_group_tests(tests, begin, remove_scratch);
}
