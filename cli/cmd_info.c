#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/safetensors.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "data/pack.h"
#include "data/show.h"
#include "train/checkpoint.h"
#include "train/checkpoint_file.h"

typedef struct Totals {
    bool list;
    int64_t tensors, elements, bytes;
} Totals;

static VlStatus count_tensor(void *user, const char *name, VlTensor shape) {
    Totals *totals = user;
    totals->tensors++;
    totals->elements += vl_elements(shape);
    totals->bytes += vl_bytes(shape);
    if (totals->list) printf("  %-72s %s\n", name, vl_describe(shape));
    return VL_OK;
}

static void print_totals(const Totals *totals) {
    printf("tensors: %" PRId64 ", elements: %" PRId64 ", bytes: %" PRId64 "\n", totals->tensors, totals->elements,
           totals->bytes);
}

static VlStatus info_safetensors(const char *path, bool list) {
    VlSafetensors set;
    Totals totals = {.list = list};
    VL_TRY(vl_safetensors_open(&set, path));
    for (int64_t i = 0; i < set.count; i++) count_tensor(&totals, set.entries[i].name, set.entries[i].tensor);
    printf("safetensors: %s (%" PRId64 " files)\n", path, set.files);
    print_totals(&totals);
    vl_safetensors_close(&set);
    return VL_OK;
}

static VlStatus info_model(const char *path, bool list) {
    VlModelConfig config;
    char weights[VL_PATH_MAX];
    VL_TRY(vl_model_config_load(&config, path));
    printf("model: %s, %s\n", path, config.model_type);
    printf("language model: %" PRId64 " layers of %" PRId64 ", %" PRId64 "/%" PRId64 " heads of %" PRId64
           ", FFN %" PRId64 ", vocabulary %" PRId64 "\n",
           config.decoder.layers, config.decoder.hidden, config.decoder.heads, config.decoder.kv_heads,
           config.decoder.head_size, config.decoder.intermediate, config.decoder.vocabulary);
    if (config.has_vision) {
        printf("vision tower: %" PRId64 " of %" PRId64 " layers run, width %" PRId64 ", image %" PRId64
               ", patch %" PRId64 "\n",
               config.vision.run_layers, config.vision.layers, config.vision.hidden, config.vision.image_size,
               config.vision.patch_size);
        printf("visual tokens: %" PRId64 " for %" PRId64 " frames\n",
               vl_model_visual_tokens(&config, config.num_frames), config.num_frames);
    }
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    for (int i = 0; i < 2; i++) {
        VL_TRY(vl_path_join(weights, path, names[i]));
        if (vl_path_exists(weights)) return info_safetensors(weights, list);
    }
    printf("weights: none; training starts from seeded initial values\n");
    return VL_OK;
}

static VlStatus info_checkpoint(const char *path, bool list) {
    VlCheckpointInfo info;
    Totals totals = {.list = list};
    char file[VL_PATH_MAX], **names;
    int64_t count;
    VL_TRY(vl_checkpoint_info(path, &info));
    printf("checkpoint: %s\n", path);
    printf("step %" PRId64 " of %" PRId64 ", global batch %" PRId64 ", seed %" PRId64 "\n", info.progress.step,
           info.progress.steps, info.progress.global_batch, info.progress.seed);
    printf("steps left out: %" PRId64 ", bad samples: %" PRId64 "\n", info.progress.skipped, info.progress.bad_samples);
    printf("trained: %s\nupon: %s (%s)\n", info.trainable, info.base, info.base_hash);
    VL_TRY(vl_list_folder(path, &names, &count));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < count && status == VL_OK; i++) {
        if (!strstr(names[i], ".h5")) continue;
        status = vl_path_join(file, path, names[i]);
        if (status == VL_OK) status = vl_checkpoint_file_list(file, count_tensor, &totals);
    }
    vl_free_names(names, count);
    if (status == VL_OK) print_totals(&totals);
    return status;
}

static VlStatus info_run(const char *path, bool list) {
    char newest[VL_PATH_MAX];
    VL_TRY(vl_checkpoint_newest(path, -1, newest));
    printf("run: %s\n", path);
    if (!newest[0]) {
        printf("no complete checkpoint\n");
        return VL_OK;
    }
    return info_checkpoint(newest, list);
}

VlStatus vl_cmd_info(int argc, char **argv) {
    bool help, list = false;
    int64_t positional;
    const VlOption option[] = {{"tensors", VL_OPTION_FLAG, &list, NULL, "list every tensor", false}};
    const VlCommand command = {
        "info", "What a model folder, checkpoint, run, shard, packed folder or safetensors file holds.",
        "PATH", 1,
        1,      1,
        option};
    VL_TRY(vl_options_parse(&command, argc, argv, &positional, &help));
    if (help) return VL_OK;
    const char *path = argv[0], *dot = strrchr(path, '.');
    if (!vl_path_exists(path)) return vl_error(VL_IO, "%s does not exist", path);
    if (!vl_path_is_folder(path))
        return dot && strcmp(dot, ".h5") == 0 ? vl_show_shard(path, stdout) : info_safetensors(path, list);
    if (vl_folder_holds(path, "manifest.json")) return info_checkpoint(path, list);
    if (vl_folder_holds(path, "checkpoints")) return info_run(path, list);
    if (vl_folder_holds(path, VL_PACK_MANIFEST)) return vl_show_packed(path, stdout);
    if (vl_folder_holds(path, "config.json")) return info_model(path, list);
    return vl_error(VL_INVALID, "%s is neither a model folder, a checkpoint, a run, nor a packed folder", path);
}
