#include "train/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "train/checkpoint_file.h"
#include "train/checkpoint_manifest.h"

#define CONFIGURATION "config.resolved.yaml"

static VlStatus checkpoints_folder(const char *run, char folder[VL_PATH_MAX]) {
    return vl_path_join(folder, run, "checkpoints");
}

static void rank_name(int64_t rank, const char *extension, char name[VL_TABLE_FILE]) {
    snprintf(name, VL_TABLE_FILE, "rank-%05" PRId64 "%s", rank, extension);
}

// ----------------------------------------------------------------------------------------------------------------
// saving

// Rows [first, last) of a rank: neighbouring rows, about equal in bytes.
static void share(const VlParams *params, int64_t rank, int64_t ranks, int64_t *first, int64_t *last) {
    int64_t total = params->trainable_elements, begin = total / ranks * rank,
            end = rank + 1 == ranks ? total : total / ranks * (rank + 1);
    *first = *last = params->count;
    for (int64_t i = params->count - 1; i >= 0; i--) {
        const VlParam *row = params->rows[i];
        if (!row->trainable) continue;
        if (row->offset >= begin) *first = i;
        if (row->offset >= end) *last = i;
    }
}

static json_t *describe_run(const VlOptimizer *optimizer, const VlModelSource *base, const char *trainable,
                            const VlProgress *progress) {
    char data_hash[17];
    snprintf(data_hash, sizeof data_hash, "%016" PRIx64, progress->data_hash);
    return json_pack("{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:I, s:{s:s, s:s, s:I}, s:[]}",
                     "version", VL_MANIFEST_VERSION, "kind", "run", "step", (json_int_t)progress->step, "steps",
                     (json_int_t)progress->steps, "skipped", (json_int_t)progress->skipped, "bad_samples",
                     (json_int_t)progress->bad_samples, "bad_in_a_row", (json_int_t)progress->bad_in_a_row,
                     "global_batch", (json_int_t)progress->global_batch, "seed", (json_int_t)progress->seed,
                     "optimizer_steps", (json_int_t)optimizer->steps, "data_hash", data_hash, "trainable", trainable,
                     "elements", (json_int_t)optimizer->params->trainable_elements, "base", "path", base->path, "hash",
                     base->hash, "seed", (json_int_t)base->seed, "files");
}

// Names the configuration and the ranks' tables, which name the ranks' HDF5 files.
static VlStatus write_manifest(const char *folder, json_t *root, int64_t ranks) {
    VlStatus status = root ? VL_OK : vl_error(VL_OUT_OF_MEMORY, "out of memory for the manifest of %s", folder);
    if (status == VL_OK) status = vl_manifest_add_file(root, folder, CONFIGURATION, false);
    for (int64_t i = 0; i < ranks && status == VL_OK; i++) {
        char name[VL_TABLE_FILE];
        rank_name(i, ".json", name);
        status = vl_manifest_add_file(root, folder, name, true);
    }
    if (status == VL_OK) return vl_manifest_write(root, folder);
    json_decref(root);
    return status;
}

// A checkpoint is renamed before it is removed: half removed it must not be taken for one.
static VlStatus discard(const char *path) {
    char old[VL_PATH_MAX + 16];
    snprintf(old, sizeof old, "%s.old.tmp", path);
    if (!vl_path_exists(path)) return VL_OK;
    VL_TRY(vl_remove_tree(old));
    if (rename(path, old) != 0) return vl_error(VL_IO, "cannot rename %s to %s: %s", path, old, strerror(errno));
    return vl_remove_tree(old);
}

// The step in a checkpoint's name; -1 for any other name.
static int64_t step_of(const char *name) {
    char *end;
    if (strncmp(name, "step-", 5) != 0) return -1;
    int64_t step = strtoll(name + 5, &end, 10);
    return *end || end == name + 5 ? -1 : step;
}

// What is newer than `step` was given up by a fall-back to an earlier checkpoint, and goes too.
static VlStatus remove_old(const char *run, int64_t step, int64_t keep) {
    char folder[VL_PATH_MAX], path[VL_PATH_MAX], **names;
    int64_t count, complete = 0;
    VL_TRY(checkpoints_folder(run, folder));
    VL_TRY(vl_list_folder(folder, &names, &count));
    VlStatus status = VL_OK;
    for (int64_t i = count - 1; i >= 0 && status == VL_OK; i--) {  // sorted: the newest is last
        int64_t found = step_of(names[i]);
        if (found < 0 || (found <= step && ++complete <= keep)) continue;
        status = vl_path_join(path, folder, names[i]);
        if (status == VL_OK) status = discard(path);
    }
    vl_free_names(names, count);
    return status;
}

static VlStatus save_share(VlComm *comm, const char *folder, const VlOptimizer *optimizer) {
    char name[VL_TABLE_FILE];
    int64_t first, last;
    share(optimizer->params, vl_comm_rank(comm), vl_comm_size(comm), &first, &last);
    rank_name(vl_comm_rank(comm), "", name);
    return vl_checkpoint_file_save(folder, name, optimizer, first, last);
}

VlStatus vl_checkpoint_save(VlComm *comm, const char *run, const VlOptimizer *optimizer, const VlModelSource *base,
                            const char *trainable, const VlProgress *progress, const char *configuration,
                            int64_t keep) {
    char folder[VL_PATH_MAX], name[64], final[VL_PATH_MAX], temporary[VL_PATH_MAX + 8], path[VL_PATH_MAX];
    bool leader = vl_comm_rank(comm) == 0;
    VL_TRY(checkpoints_folder(run, folder));
    snprintf(name, sizeof name, "step-%08" PRId64, progress->step);
    VL_TRY(vl_path_join(final, folder, name));
    snprintf(temporary, sizeof temporary, "%s.tmp", final);
    VlStatus status = VL_OK;
    if (leader) {
        status = vl_remove_tree(temporary);
        if (status == VL_OK) status = vl_make_folders(temporary);
    }
    VL_TRY(vl_comm_agree(comm, status));
    VL_TRY_GOTO(status, vl_comm_agree(comm, save_share(comm, temporary, optimizer)), failed);
    if (leader) {
        status = vl_path_join(path, temporary, CONFIGURATION);
        if (status == VL_OK) status = vl_write_file(path, configuration, (int64_t)strlen(configuration));
        if (status == VL_OK)
            status = write_manifest(temporary, describe_run(optimizer, base, trainable, progress), vl_comm_size(comm));
        if (status == VL_OK) status = vl_sync_folder(temporary);
        // A checkpoint of this step from before a fall-back to an earlier one makes way.
        if (status == VL_OK) status = discard(final);
        if (status == VL_OK && rename(temporary, final) != 0) {
            status = vl_error(VL_IO, "cannot rename %s to %s: %s", temporary, final, strerror(errno));
        }
        if (status == VL_OK) status = vl_sync_folder(folder);
        if (status == VL_OK) status = remove_old(run, progress->step, keep);
    }
    VL_TRY_GOTO(status, vl_comm_agree(comm, status), failed);
failed:
    if (status != VL_OK && leader) {
        VlError error = vl_error_take(status);
        vl_remove_tree(temporary);
        return vl_error_raise(&error);
    }
    return status;
}

VlStatus vl_checkpoint_clean(const char *run) {
    char folder[VL_PATH_MAX], path[VL_PATH_MAX], **names;
    int64_t count;
    VL_TRY(checkpoints_folder(run, folder));
    if (!vl_path_is_folder(folder)) return VL_OK;
    VL_TRY(vl_list_folder(folder, &names, &count));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < count && status == VL_OK; i++) {
        if (!strstr(names[i], ".tmp")) continue;
        status = vl_path_join(path, folder, names[i]);
        if (status == VL_OK) status = vl_remove_tree(path);
        if (status == VL_OK) vl_log(VL_LOG_WARNING, "removed %s, a checkpoint that was never finished", path);
    }
    vl_free_names(names, count);
    return status;
}

// ---------------------------------------------------------------------------------------------------------------
// loading

VlStatus vl_checkpoint_newest(const char *run, int64_t before, char path[VL_PATH_MAX]) {
    char folder[VL_PATH_MAX], **names;
    int64_t count;
    path[0] = '\0';
    VL_TRY(checkpoints_folder(run, folder));
    if (!vl_path_is_folder(folder)) return VL_OK;
    VL_TRY(vl_list_folder(folder, &names, &count));
    VlStatus status = VL_OK;
    for (int64_t i = count - 1; i >= 0 && !path[0] && status == VL_OK; i--) {
        int64_t step = step_of(names[i]);
        if (step >= 0 && (before < 0 || step < before)) status = vl_path_join(path, folder, names[i]);
    }
    vl_free_names(names, count);
    return status;
}

int64_t vl_checkpoint_step(const char *path) {
    const char *dash = strrchr(path, '-');
    return dash ? strtoll(dash + 1, NULL, 10) : -1;
}

static VlStatus copy_string(const json_t *object, const char *name, const char *key, char *out, size_t size) {
    const char *text = NULL;
    VL_TRY(vl_json_get_string(object, name, key, true, &text));
    if (strlen(text) >= size) return vl_error(VL_FORMAT, "%s: '%s' is too long", name, key);
    memcpy(out, text, strlen(text) + 1);
    return VL_OK;
}

static VlStatus read_info(const json_t *root, const char *name, VlCheckpointInfo *info) {
    VlProgress *progress = &info->progress;
    char data_hash[17];
    VL_TRY(vl_json_get_int(root, name, "step", true, &progress->step));
    VL_TRY(vl_json_get_int(root, name, "steps", true, &progress->steps));
    VL_TRY(vl_json_get_int(root, name, "skipped", true, &progress->skipped));
    VL_TRY(vl_json_get_int(root, name, "bad_samples", true, &progress->bad_samples));
    VL_TRY(vl_json_get_int(root, name, "bad_in_a_row", true, &progress->bad_in_a_row));
    VL_TRY(vl_json_get_int(root, name, "global_batch", true, &progress->global_batch));
    VL_TRY(vl_json_get_int(root, name, "seed", true, &progress->seed));
    VL_TRY(copy_string(root, name, "data_hash", data_hash, sizeof data_hash));
    progress->data_hash = strtoull(data_hash, NULL, 16);
    VL_TRY(copy_string(root, name, "trainable", info->trainable, sizeof info->trainable));
    const json_t *base = json_object_get(root, "base");
    if (!json_is_object(base)) return vl_error(VL_FORMAT, "%s: 'base' is missing", name);
    VL_TRY(copy_string(base, name, "path", info->base, sizeof info->base));
    VL_TRY(copy_string(base, name, "hash", info->base_hash, sizeof info->base_hash));
    return vl_json_get_int(base, name, "seed", true, &info->seed);
}

static VlStatus read_kind(const json_t *root, const char *name, VlCheckpointInfo *info) {
    const char *kind = NULL;
    VL_TRY(vl_json_get_string(root, name, "kind", true, &kind));
    info->model = strcmp(kind, "model") == 0;
    if (info->model) return VL_OK;
    if (strcmp(kind, "run") != 0) return vl_error(VL_FORMAT, "%s: 'kind' is '%.60s'", name, kind);
    return read_info(root, name, info);
}

VlStatus vl_checkpoint_info(const char *path, VlCheckpointInfo *info) {
    VlManifest manifest;
    *info = (VlCheckpointInfo){0};
    VL_TRY(vl_manifest_open(&manifest, path));
    VlStatus status = read_kind(manifest.root, manifest.path, info);
    vl_manifest_close(&manifest);
    return status;
}

VlStatus vl_checkpoint_verify(VlComm *comm, const char *path) {
    VlManifest manifest;
    VlStatus status = vl_manifest_open(&manifest, path);
    if (status == VL_OK) {
        if (vl_comm_rank(comm) == 0) status = vl_manifest_verify_files(&manifest);
        if (status == VL_OK) status = vl_manifest_verify_rest(&manifest, vl_comm_rank(comm), vl_comm_size(comm));
        if (status == VL_OK) status = vl_manifest_verify_tensors(&manifest, vl_comm_rank(comm), vl_comm_size(comm));
        vl_manifest_close(&manifest);
    }
    return vl_comm_agree(comm, status);
}

static VlStatus load_tables(const VlManifest *manifest, VlContext *context, VlParams *params, VlOptimizer *optimizer,
                            bool *found) {
    for (int64_t i = 0; i < manifest->tables; i++) {
        VL_TRY(vl_checkpoint_file_read(manifest->folder, &manifest->table[i], context, params, optimizer, found));
    }
    if (!optimizer) return VL_OK;
    for (int64_t i = 0; i < params->count; i++) {
        if (params->rows[i]->trainable && !found[i]) {
            return vl_error(VL_FORMAT, "%s lacks %s, which this run trains; start a new run in another output folder",
                            manifest->folder, params->rows[i]->name);
        }
    }
    return vl_json_get_int(manifest->root, manifest->path, "optimizer_steps", true, &optimizer->steps);
}

VlStatus vl_checkpoint_load(VlContext *context, const char *path, VlParams *params, VlOptimizer *optimizer) {
    VlManifest manifest;
    bool *found = NULL;
    VL_TRY(vl_manifest_open(&manifest, path));
    VlStatus status = VL_NEW(&found, params->count);
    if (status == VL_OK) status = load_tables(&manifest, context, params, optimizer, found);
    vl_free(found);
    vl_manifest_close(&manifest);
    return status;
}
