#include "train/inventory.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "model/load.h"
#include "model/vlm.h"
#include "train/config.h"
#include "train/convert_source.h"
#include "train/model_source.h"

static VlStatus add_issue(VlInventory *inventory, VlIssueKind kind, const char *name, VlIssue **issue) {
    VL_TRY(
        vl_reserve(&inventory->issue, &inventory->capacity, inventory->issues + 1, (int64_t)sizeof *inventory->issue));
    *issue = &inventory->issue[inventory->issues];
    **issue = (VlIssue){.kind = kind};
    VL_TRY(vl_duplicate_string(&(*issue)->name, name));
    inventory->issues++;
    return VL_OK;
}

// What lies in a file; a tensor without a place is one that a run drew from its seed.
static const VlConvertTensor *find_stored(const VlConvertSource *source, const char *name) {
    const VlConvertTensor *tensor = vl_convert_source_find(source, name);
    return tensor && tensor->weights ? tensor : NULL;
}

static VlStatus compare_row(VlInventory *inventory, const VlParam *row, const VlConvertTensor *tensor) {
    VlIssue *issue;
    if (!row->optional) {
        inventory->wanted[row->group]++;
        inventory->elements[row->group] += vl_elements(row->shape);
        inventory->stored[row->group] += tensor != NULL;
    }
    if (tensor ? vl_same_shape(tensor->shape, row->shape) : row->optional) return VL_OK;
    VL_TRY(add_issue(inventory, tensor ? VL_ISSUE_SHAPE : VL_ISSUE_MISSING, row->name, &issue));
    issue->group = row->group;
    issue->wanted = row->shape;
    if (tensor) issue->stored = tensor->shape;
    return VL_OK;
}

static VlStatus compare(VlInventory *inventory, const VlParams *params, const VlConvertSource *source) {
    for (int64_t i = 0; i < params->count; i++) {
        VL_TRY(compare_row(inventory, params->rows[i], find_stored(source, params->rows[i]->name)));
    }
    for (int64_t i = 0; i < source->count; i++) {
        const VlConvertTensor *tensor = &source->tensors[i];
        VlIssue *issue;
        if (!tensor->weights || vl_params_find(params, tensor->name)) continue;
        if (vl_model_load_skips(tensor->name)) {
            inventory->skipped++;
            continue;
        }
        VL_TRY(add_issue(inventory, VL_ISSUE_LEFT_OVER, tensor->name, &issue));
        issue->stored = tensor->shape;
    }
    return VL_OK;
}

// The places of the tensors; a folder without weights leaves the source empty.
static VlStatus open_source(VlConvertSource *source, const VlModelSource *chain) {
    char path[VL_PATH_MAX], tower[VL_PATH_MAX] = "";
    VlModelConfig config;
    VL_TRY(vl_model_config_load(&config, chain->folder));
    VL_TRY(vl_weights_locate(path, chain->folder));
    if (config.vision_folder[0]) VL_TRY(vl_weights_locate(tower, config.vision_folder));
    bool bare = !*chain->model && chain->checkpoints == 0 && !*path && !*tower && !*config.audio_file;
    return bare ? VL_OK : vl_convert_source_open(source, chain->path);
}

static VlStatus take(VlInventory *inventory, VlConvertSource *source, const VlModelSource *chain) {
    VlModelConfig config;
    VlContext *context;
    VlVlm *model = NULL;
    VL_TRY(open_source(source, chain));
    VL_TRY(vl_model_config_load(&config, chain->folder));
    VL_TRY(vl_context_create_plan(&context, VL_DEVICE_CPU, 1));
    VlStatus status = vl_vlm_create(&model, context, &config, 0);
    if (status == VL_OK) status = compare(inventory, vl_vlm_params(model), source);
    vl_vlm_free(model);
    vl_context_free(context);
    return status;
}

VlStatus vl_inventory_take(VlInventory *inventory, const char *path) {
    VlConvertSource *source = NULL;
    VlModelSource *chain = NULL;
    VlStatus status;
    *inventory = (VlInventory){0};
    VL_TRY_GOTO(status, VL_NEW(&chain, 1), done);
    VL_TRY_GOTO(status, VL_NEW(&source, 1), done);
    VL_TRY_GOTO(status, vl_model_source_open(chain, path, 0), done);
    VL_TRY_GOTO(status, take(inventory, source, chain), done);
done:
    if (source) vl_convert_source_close(source);
    vl_free(source);
    vl_free(chain);
    if (status != VL_OK) vl_inventory_free(inventory);
    return status;
}

void vl_inventory_free(VlInventory *inventory) {
    for (int64_t i = 0; i < inventory->issues; i++) vl_free(inventory->issue[i].name);
    vl_free(inventory->issue);
    *inventory = (VlInventory){0};
}

bool vl_inventory_group_is_usable(const VlInventory *inventory, VlGroup group, VlGroups needs) {
    int64_t all = 0;
    for (int g = 0; g < VL_GROUP_COUNT; g++) all += inventory->stored[g];
    for (int64_t i = 0; i < inventory->issues; i++) {
        if (inventory->issue[i].kind == VL_ISSUE_SHAPE && inventory->issue[i].group == group) return false;
    }
    if (inventory->stored[group] == inventory->wanted[group]) return true;
    VlGroups given =
        VL_GROUP_BIT(VL_GROUP_LLM) | VL_GROUP_BIT(VL_GROUP_VISION_TOWER) | VL_GROUP_BIT(VL_GROUP_AUDIO_TOWER) | needs;
    bool begins = !(given & VL_GROUP_BIT(group));
    return inventory->stored[group] == 0 && (begins || all == 0);
}

VlStatus vl_inventory_stage(const char *stage, VlGroups *trained) {
    VlConfig config;
    char override[VL_CONFIG_TEXT];
    const char *overrides[] = {override};
    snprintf(override, sizeof override, "stage=%s", stage);
    VL_TRY(vl_config_load(&config, NULL, 1, overrides));
    VlStatus status = vl_groups_parse(config.train.trainable, trained);
    vl_config_free(&config);
    return status;
}

VlStatus vl_inventory_hash(const VlWeights *weights, const VlWeightsEntry *entry, char hex[VL_HASH_TEXT]) {
    VlStatus status;
    int64_t size = vl_dtype_size(entry->tensor.dtype), count = vl_elements(entry->tensor);
    int64_t step = VL_HASH_PIECE / size, pieces = vl_hash_pieces(count * size), used = 0;
    void *buffer = NULL;
    VlHash *hashes = NULL;
    VL_TRY_GOTO(status, vl_allocate(&buffer, step, size), done);
    VL_TRY_GOTO(status, VL_NEW(&hashes, pieces), done);
    for (int64_t begin = 0; begin < count; begin += step) {
        int64_t length = count - begin < step ? count - begin : step;
        VL_TRY_GOTO(status, vl_weights_read_part(weights, entry, begin, length, buffer), done);
        vl_hash_pieces_of(buffer, length * size, &hashes[used++]);
    }
    vl_hash_tensor(hashes, pieces, hex);
done:
    vl_free(buffer);
    vl_free(hashes);
    return status;
}
