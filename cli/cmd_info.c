#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "data/audio.h"
#include "data/pack.h"
#include "data/show.h"
#include "data/template.h"
#include "data/tokenizer.h"
#include "model/config_vision.h"
#include "train/checkpoint.h"
#include "train/checkpoint_manifest.h"
#include "train/inventory.h"
#include "train/micro_batch.h"
#include "train/stage_needs.h"

typedef struct Settings {
    bool tensors, hash;
    const char *stage;
} Settings;

// ---- Files and tensors -------------------------------------------------------------------------

static VlStatus print_file(const char *path, const char *name) {
    char hex[VL_HASH_TEXT];
    int64_t size;
    VL_TRY(vl_file_size(path, &size));
    VL_TRY(vl_hash_file(path, hex));
    printf("  %s  %14" PRId64 "  %s\n", hex, size, name);
    return VL_OK;
}

// XXH3-128, size and name of a file, or of every file in a folder.
static VlStatus print_files(const char *path) {
    char **names, file[VL_PATH_MAX];
    int64_t count;
    printf("files (XXH3-128, bytes, name):\n");
    if (!vl_path_is_folder(path)) return print_file(path, path);
    VL_TRY(vl_list_folder(path, &names, &count));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < count && status == VL_OK; i++) {
        status = vl_path_join(file, path, names[i]);
        if (status == VL_OK && !vl_path_is_folder(file)) status = print_file(file, names[i]);
    }
    vl_free_names(names, count);
    return status;
}

// `hashes`: what a checkpoint says of its tensors; NULL: they are read where they are wanted.
static VlStatus print_tensors(const VlWeights *weights, const char **hashes, const Settings *settings) {
    int64_t elements = 0, bytes = 0, tensors[VL_DTYPE_COUNT] = {0}, sizes[VL_DTYPE_COUNT] = {0};
    for (int64_t i = 0; i < weights->count; i++) {
        const VlWeightsEntry *entry = &weights->entries[i];
        char hex[VL_HASH_TEXT] = "";
        elements += vl_elements(entry->tensor);
        bytes += vl_bytes(entry->tensor);
        tensors[entry->tensor.dtype]++;
        sizes[entry->tensor.dtype] += vl_bytes(entry->tensor);
        if (!settings->tensors) continue;
        if (settings->hash && !hashes) VL_TRY(vl_inventory_hash(weights, entry, hex));
        printf("  %-72s %-24s %s\n", entry->name, vl_describe(entry->tensor),
               settings->hash && hashes ? hashes[i] : hex);
    }
    printf("tensors: %" PRId64 ", elements: %" PRId64 ", bytes: %" PRId64 "\n", weights->count, elements, bytes);
    for (int i = 0; i < VL_DTYPE_COUNT; i++) {
        if (tensors[i] == 0) continue;
        printf("  %s: %" PRId64 " tensors, %" PRId64 " bytes\n", vl_dtype_name((VlDtype)i), tensors[i], sizes[i]);
    }
    return VL_OK;
}

static VlStatus info_weights(const char *path, const Settings *settings) {
    VlWeights weights;
    VL_TRY(vl_weights_open(&weights, path));
    printf("%s: %s (%" PRId64 " files)\n", vl_weights_format_name(&weights), path, weights.files);
    VlStatus status = print_tensors(&weights, NULL, settings);
    vl_weights_close(&weights);
    return status;
}

// ---- Stages ------------------------------------------------------------------------------------

// Parts that are missing as a whole are said to be so by print_parts.
static void print_issues(const VlInventory *inventory) {
    enum { MOST = 20 };  // of a kind
    static const char *const titles[] = {"missing", "stored with other extents", "left over"};
    for (int kind = VL_ISSUE_MISSING; kind <= VL_ISSUE_LEFT_OVER; kind++) {
        int64_t found = 0;
        for (int64_t i = 0; i < inventory->issues; i++) {
            const VlIssue *issue = &inventory->issue[i];
            bool whole = kind == VL_ISSUE_MISSING && inventory->stored[issue->group] == 0;
            if ((int)issue->kind != kind || whole || found++ >= MOST) continue;
            printf("%s: %s %s", titles[kind], issue->name,
                   vl_describe(kind == VL_ISSUE_LEFT_OVER ? issue->stored : issue->wanted));
            printf(kind == VL_ISSUE_SHAPE ? ", in the file %s\n" : "\n", vl_describe(issue->stored));
        }
        if (found > MOST) printf("%s: %" PRId64 " more\n", titles[kind], found - MOST);
    }
}

// What the stage makes of each part, and whether it can begin.
static void print_parts(const VlInventory *inventory, const char *stage, VlGroups trained) {
    bool ready = true;
    VlGroups needs = vl_stage_needs(stage);
    for (int64_t i = 0; i < inventory->issues; i++) ready = ready && inventory->issue[i].kind != VL_ISSUE_LEFT_OVER;
    for (int g = 0; g < VL_GROUP_COUNT; g++) {
        if (inventory->wanted[g] == 0) {
            if (!(needs & VL_GROUP_BIT(g))) continue;
            printf("  %-16s none in config.json (%s), and the stage needs it\n", vl_group_name((VlGroup)g),
                   g == VL_GROUP_VISION_TOWER || g == VL_GROUP_CONNECTOR ? "mm_vision_tower" : "mm_audio_tower");
            ready = false;
            continue;
        }
        bool usable = vl_inventory_group_is_usable(inventory, (VlGroup)g, needs);
        ready = ready && usable;
        printf("  %-16s %5" PRId64 " of %5" PRId64 " tensors, %12" PRId64 " elements, %s%s\n",
               vl_group_name((VlGroup)g), inventory->stored[g], inventory->wanted[g], inventory->elements[g],
               trained & VL_GROUP_BIT(g) ? "trained" : "frozen",
               !usable                                        ? ": cannot be used"
               : inventory->stored[g] == inventory->wanted[g] ? ""
                                                              : ": begins from seeded initial values");
    }
    printf("stage %s can begin: %s\n", stage, ready ? "yes" : "no");
}

static VlStatus info_stage(const char *path, const char *stage) {
    VlInventory inventory;
    VlGroups trained;
    VL_TRY(vl_inventory_stage(stage, &trained));
    VL_TRY(vl_inventory_take(&inventory, path));
    printf("for stage %s:\n", stage);
    print_issues(&inventory);
    if (inventory.skipped > 0) printf("stored, and known to take no part: %" PRId64 " tensors\n", inventory.skipped);
    print_parts(&inventory, stage, trained);
    vl_inventory_free(&inventory);
    return VL_OK;
}

// ---- Folders -----------------------------------------------------------------------------------

static void print_tower(const VlVisionConfig *vision) {
    printf("width %" PRId64 ", %" PRId64 " heads of %" PRId64 ", FFN %" PRId64 ", image %" PRId64 ", patch %" PRId64
           ": %" PRId64 " patches\n",
           vision->hidden, vision->heads, vision->hidden / vision->heads, vision->intermediate, vision->image_size,
           vision->patch_size, (vision->image_size / vision->patch_size) * (vision->image_size / vision->patch_size));
}

static void print_audio(const VlModelConfig *config) {
    const VlAudioConfig *audio = &config->audio;
    if (!config->has_audio) {
        printf("audio tower: none\n");
        return;
    }
    printf("audio tower: %" PRId64 " layers, width %" PRId64 ", %" PRId64 " heads of %" PRId64 ", FFN %" PRId64
           ", patch %" PRId64 "\n",
           audio->layers, audio->hidden, audio->heads, audio->hidden / audio->heads, audio->intermediate,
           audio->patch_size);
    printf("audio tokens: %" PRId64 " for 30 s\n", vl_media_tokens(config, VL_MODAL_AUDIO, 0, VL_AUDIO_FRAMES));
}

static void print_config(const VlModelConfig *config) {
    const VlDecoderConfig *decoder = &config->decoder;
    printf("language model: %" PRId64 " layers of %" PRId64 ", %" PRId64 "/%" PRId64 " heads of %" PRId64
           ", FFN %" PRId64 ", vocabulary %" PRId64 "%s%s\n",
           decoder->layers, decoder->hidden, decoder->heads, decoder->kv_heads, decoder->head_size,
           decoder->intermediate, decoder->vocabulary, decoder->qkv_bias ? ", biases on q, k, v" : "",
           decoder->tied ? ", tied head" : "");
    if (decoder->experts > 0) {
        printf("experts: %" PRId64 " in each layer, %" PRId64 " for a token\n", decoder->experts,
               decoder->experts_per_token);
    }
    if (decoder->window > 0) printf("sequences of at most %" PRId64 " tokens (sliding_window)\n", decoder->window);
    if (config->has_vision) {
        printf("vision tower: %" PRId64 " of %" PRId64 " layers run, ", config->vision.run_layers,
               config->vision.layers);
        print_tower(&config->vision);
        printf("visual tokens: %" PRId64 " for %" PRId64 " frames\n",
               vl_model_visual_tokens(config, config->num_frames), config->num_frames);
    } else {
        printf("vision tower: none\n");
    }
    print_audio(config);
}

static VlStatus info_folder_weights(const char *path, const Settings *settings, const char *none) {
    char weights[VL_PATH_MAX];
    VL_TRY(vl_weights_locate(weights, path));
    if (*weights) return info_weights(weights, settings);
    printf("weights: %s\n", none);
    return VL_OK;
}

// Whether a config.json is that of a vision tower alone, or of the CLIP or SigLIP that it is part of.
static VlStatus is_tower(const char *file, bool *tower) {
    json_t *json;
    VL_TRY(vl_json_load(file, VL_CONFIG_LIMIT, &json));
    const char *type = json_string_value(json_object_get(json, "model_type"));
    *tower = (type && vl_ends_with(type, "_vision_model")) || json_object_get(json, "vision_config");
    json_decref(json);
    return VL_OK;
}

// A folder with a config.json: a model, or a vision tower alone.
static VlStatus info_model(const char *path, const Settings *settings) {
    VlModelConfig config;
    VlVisionConfig vision;
    bool tower = false;
    char file[VL_PATH_MAX];
    VL_TRY(vl_path_join(file, path, "config.json"));
    VL_TRY(is_tower(file, &tower));
    if (tower) {
        VL_TRY(vl_vision_config_load(&vision, file));
        printf("vision tower: %s\n%" PRId64 " layers, ", path, vision.layers);
        print_tower(&vision);
        return info_folder_weights(path, settings, "none in this folder");
    }
    VL_TRY(vl_model_config_load(&config, path));
    printf("model: %s, %s\n", path, config.model_type);
    print_config(&config);
    return info_folder_weights(path, settings, "none; training starts from seeded initial values");
}

static void print_run(const VlCheckpointInfo *info) {
    printf("step %" PRId64 " of %" PRId64 ", global batch %" PRId64 ", seed %" PRId64 "\n", info->progress.step,
           info->progress.steps, info->progress.global_batch, info->progress.seed);
    printf("steps left out: %" PRId64 ", bad samples: %" PRId64 "\n", info->progress.skipped,
           info->progress.bad_samples);
    printf("trained: %s\nupon: %s (%s)\n", info->trainable, info->base, info->base_hash);
}

static VlStatus info_checkpoint(const char *path, const Settings *settings) {
    VlCheckpointInfo info;
    VlManifest manifest;
    VlWeights weights;
    const char **hashes;
    VL_TRY(vl_checkpoint_info(path, &info));
    printf("checkpoint%s: %s\n", info.model ? " of a whole model" : "", path);
    if (!info.model) print_run(&info);
    VL_TRY(vl_manifest_open(&manifest, path));
    VlStatus status = vl_manifest_weights(&manifest, &weights, &hashes);
    if (status == VL_OK) {
        status = print_tensors(&weights, hashes, settings);
        vl_free(hashes);
        vl_weights_close(&weights);
    }
    vl_manifest_close(&manifest);
    return status;
}

static VlStatus info_run(const char *path, const Settings *settings) {
    char newest[VL_PATH_MAX];
    VL_TRY(vl_checkpoint_newest(path, -1, newest));
    printf("run: %s\n", path);
    if (*newest) return info_checkpoint(newest, settings);
    printf("no complete checkpoint\n");
    return VL_OK;
}

static VlStatus info_tokenizer(const char *folder) {
    VlTokenizer *tokenizer;
    VlTemplate shape;
    VL_TRY(vl_tokenizer_load(&tokenizer, folder));
    const char *text = vl_tokenizer_chat_template(tokenizer);
    bool known = vl_template_recognize(&shape, text) == VL_OK;
    printf("tokenizer: %s\nids: %" PRId64 ", bos %" PRId64 ", eos %" PRId64 ", pad %" PRId64 ", unk %" PRId64 "\n",
           folder, vl_tokenizer_count(tokenizer), vl_tokenizer_bos(tokenizer), vl_tokenizer_eos(tokenizer),
           vl_tokenizer_pad(tokenizer), vl_tokenizer_unk(tokenizer));
    printf("chat template: %s\n", known ? vl_template_name(shape) : text ? "unknown" : "none");
    vl_tokenizer_free(tokenizer);
    return VL_OK;
}

// ---- The command -------------------------------------------------------------------------------

static VlStatus info_file(const char *path, const Settings *settings) {
    char folder[VL_PATH_MAX];
    VL_TRY(vl_path_folder(folder, path));
    if (vl_ends_with(path, "tokenizer.json") || vl_ends_with(path, "tokenizer_config.json"))
        return info_tokenizer(folder);
    if (vl_ends_with(path, "/config.json") || strcmp(path, "config.json") == 0) return info_model(folder, settings);
    if (!vl_ends_with(path, ".h5")) return info_weights(path, settings);
    return vl_folder_holds(folder, VL_MANIFEST) ? info_checkpoint(folder, settings) : vl_show_shard(path, stdout);
}

static VlStatus info_folder(const char *path, const Settings *settings) {
    char weights[VL_PATH_MAX];
    if (vl_folder_holds(path, VL_MANIFEST)) return info_checkpoint(path, settings);
    if (vl_folder_holds(path, "checkpoints")) return info_run(path, settings);
    if (vl_folder_holds(path, VL_PACK_MANIFEST)) return vl_show_packed(path, stdout);
    if (vl_folder_holds(path, "config.json")) return info_model(path, settings);
    if (vl_folder_holds(path, "tokenizer.json")) return info_tokenizer(path);
    if (vl_weights_locate(weights, path) == VL_OK && *weights) return info_weights(weights, settings);
    return vl_error(VL_INVALID, "%s is neither a model folder, weights, a checkpoint, a run, nor a packed folder",
                    path);
}

VlStatus vl_cmd_info(int argc, char **argv) {
    Settings settings = {0};
    bool help;
    int64_t positional;
    const VlOption options[] = {
        {"tensors", VL_OPTION_FLAG, &settings.tensors, NULL, "list every tensor", false},
        {"hash", VL_OPTION_FLAG, &settings.hash, NULL,
         "XXH3-128 of every file, and with --tensors of every tensor, as in checkpoints", false},
        {"stage", VL_OPTION_STRING, &settings.stage, "NAME",
         "what is missing or left over of a model for a stage (pretrain, finetune, audio-pretrain, audio-finetune, "
         "joint), "
         "and what begins from initial values",
         false},
    };
    const VlCommand command = {
        .name = "info",
        .about = "What a model folder, weights, checkpoint, run, shard, packed folder or tokenizer holds.",
        .positional = "PATH",
        .least = 1,
        .most = 1,
        .options = sizeof options / sizeof *options,
        .option = options};
    VL_TRY(vl_options_parse(&command, argc, argv, &positional, &help));
    if (help) return VL_OK;
    const char *path = argv[0];
    if (!vl_path_exists(path)) return vl_error(VL_IO, "%s does not exist", path);
    VL_TRY(vl_path_is_folder(path) ? info_folder(path, &settings) : info_file(path, &settings));
    if (settings.hash) VL_TRY(print_files(path));
    return settings.stage ? info_stage(path, settings.stage) : VL_OK;
}
