#include "train/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/checkpoint_file.h"

enum { FORMAT_VERSION = 1, MANIFEST_LIMIT = 64 << 20 };
#define CONFIGURATION "config.resolved.yaml"

static void print_hash(XXH128_hash_t hash, char hex[33]) {
    snprintf(hex, 33, "%016" PRIx64 "%016" PRIx64, hash.high64, hash.low64);
}

VlStatus vl_hash_file(const char *path, char hex[33]) {
    enum { BLOCK = 4 << 20 };
    VlReader reader;
    char *block = NULL;
    VL_TRY(vl_reader_open(&reader, path));
    XXH3_state_t *state = XXH3_createState();
    VlStatus status =
        state ? VL_NEW(&block, BLOCK) : vl_error(VL_OUT_OF_MEMORY, "out of memory while hashing %s", path);
    if (status == VL_OK) XXH3_128bits_reset(state);
    for (int64_t offset = 0; offset < reader.size && status == VL_OK;) {
        int64_t size = reader.size - offset < BLOCK ? reader.size - offset : BLOCK;
        status = vl_reader_read(&reader, offset, block, size);
        if (status == VL_OK) XXH3_128bits_update(state, block, (size_t)size);
        offset += size;
    }
    if (status == VL_OK) print_hash(XXH3_128bits_digest(state), hex);
    vl_reader_close(&reader);
    XXH3_freeState(state);
    vl_free(block);
    return status;
}

static VlStatus checkpoints_folder(const char *run, char folder[VL_PATH_MAX]) {
    return vl_path_join(folder, run, "checkpoints");
}

static VlStatus rank_file(const char *folder, int64_t rank, char path[VL_PATH_MAX]) {
    char name[64];
    snprintf(name, sizeof name, "rank-%05" PRId64 ".h5", rank);
    return vl_path_join(path, folder, name);
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

typedef struct FileHash {
    char hex[33];
    int64_t size;
} FileHash;

// XXH3-128 of a manifest's values, whatever its layout as text. `root` has no member "hash".
static VlStatus hash_manifest(const json_t *root, const char *name, char hex[33]) {
    char *text = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text) return vl_error(VL_OUT_OF_MEMORY, "out of memory for the hash of %s", name);
    print_hash(XXH3_128bits(text, strlen(text)), hex);
    free(text);
    return VL_OK;
}

static VlStatus write_manifest(const char *folder, const VlOptimizer *optimizer, const VlModelSource *base,
                               const char *trainable, const VlProgress *progress, int64_t files,
                               const int64_t *hashes) {
    char path[VL_PATH_MAX], configuration[VL_PATH_MAX], configuration_hash[33], own_hash[33];
    VL_TRY(vl_path_join(path, folder, "manifest.json"));
    VL_TRY(vl_path_join(configuration, folder, CONFIGURATION));
    VL_TRY(vl_hash_file(configuration, configuration_hash));
    json_t *list = json_array();
    for (int64_t i = 0; i < files; i++) {
        char name[64], hex[33];
        snprintf(name, sizeof name, "rank-%05" PRId64 ".h5", i);
        snprintf(hex, sizeof hex, "%016" PRIx64 "%016" PRIx64, (uint64_t)hashes[3 * i], (uint64_t)hashes[3 * i + 1]);
        json_array_append_new(
            list, json_pack("{s:s, s:I, s:s}", "name", name, "size", (json_int_t)hashes[3 * i + 2], "xxh3_128", hex));
    }
    char data_hash[17];
    snprintf(data_hash, sizeof data_hash, "%016" PRIx64, progress->data_hash);
    json_t *root =
        json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:I, s:{s:s, s:s, s:I}, s:s, s:o}",
                  "version", FORMAT_VERSION, "step", (json_int_t)progress->step, "steps", (json_int_t)progress->steps,
                  "skipped", (json_int_t)progress->skipped, "bad_samples", (json_int_t)progress->bad_samples,
                  "bad_in_a_row", (json_int_t)progress->bad_in_a_row, "global_batch",
                  (json_int_t)progress->global_batch, "seed", (json_int_t)progress->seed, "optimizer_steps",
                  (json_int_t)optimizer->steps, "data_hash", data_hash, "trainable", trainable, "elements",
                  (json_int_t)optimizer->params->trainable_elements, "base", "path", base->path, "hash", base->hash,
                  "seed", (json_int_t)base->seed, "configuration_xxh3_128", configuration_hash, "files", list);
    if (!root) return vl_error(VL_OUT_OF_MEMORY, "out of memory for the manifest of %s", folder);
    VlStatus status = hash_manifest(root, path, own_hash);
    if (status == VL_OK && json_object_set_new(root, "hash", json_string(own_hash)) != 0)
        status = vl_error(VL_OUT_OF_MEMORY, "out of memory for the manifest of %s", folder);
    if (status == VL_OK) status = vl_json_save(path, root, JSON_INDENT(1));
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

// This rank's file, its hash and size.
static VlStatus save_share(VlComm *comm, const char *folder, const VlOptimizer *optimizer, int64_t hash[3]) {
    char path[VL_PATH_MAX], hex[33];
    int64_t first, last, size;
    share(optimizer->params, vl_comm_rank(comm), vl_comm_size(comm), &first, &last);
    VL_TRY(rank_file(folder, vl_comm_rank(comm), path));
    VL_TRY(vl_checkpoint_file_write(path, optimizer, first, last));
    VL_TRY(vl_hash_file(path, hex));
    VL_TRY(vl_file_size(path, &size));
    char high[17];
    memcpy(high, hex, 16);
    high[16] = '\0';
    hash[0] = (int64_t)strtoull(high, NULL, 16);
    hash[1] = (int64_t)strtoull(hex + 16, NULL, 16);
    hash[2] = size;
    return VL_OK;
}

VlStatus vl_checkpoint_save(VlComm *comm, const char *run, const VlOptimizer *optimizer, const VlModelSource *base,
                            const char *trainable, const VlProgress *progress, const char *configuration,
                            int64_t keep) {
    char folder[VL_PATH_MAX], name[64], final[VL_PATH_MAX], temporary[VL_PATH_MAX + 8], path[VL_PATH_MAX];
    bool leader = vl_comm_rank(comm) == 0;
    int64_t hash[3] = {0}, *hashes = NULL;
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
    VL_TRY_GOTO(status, vl_comm_agree(comm, save_share(comm, temporary, optimizer, hash)), failed);
    VL_TRY_GOTO(status, VL_NEW(&hashes, 3 * vl_comm_size(comm)), failed);
    VL_TRY_GOTO(status, vl_comm_gather_i64(comm, hash, 3, hashes), failed);
    if (leader) {
        status = vl_path_join(path, temporary, CONFIGURATION);
        if (status == VL_OK) status = vl_write_file(path, configuration, (int64_t)strlen(configuration));
        if (status == VL_OK)
            status = write_manifest(temporary, optimizer, base, trainable, progress, vl_comm_size(comm), hashes);
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
    vl_free(hashes);
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

static VlStatus check_manifest(json_t *root, const char *manifest) {
    int64_t version = 0;
    char expected[33], found[33];
    VL_TRY(vl_json_get_int(root, manifest, "version", true, &version));
    if (version != FORMAT_VERSION) {
        return vl_error(VL_UNSUPPORTED, "%s: version %" PRId64 " of the format; this program reads version %d",
                        manifest, version, FORMAT_VERSION);
    }
    VL_TRY(copy_string(root, manifest, "hash", expected, sizeof expected));
    json_object_del(root, "hash");
    VL_TRY(hash_manifest(root, manifest, found));
    if (strcmp(found, expected) != 0)
        return vl_error(VL_FORMAT, "%s does not match the hash within it: the checkpoint is damaged", manifest);
    return VL_OK;
}

static VlStatus open_manifest(const char *path, json_t **root, char manifest[VL_PATH_MAX]) {
    VL_TRY(vl_path_join(manifest, path, "manifest.json"));
    VL_TRY(vl_json_load(manifest, MANIFEST_LIMIT, root));
    VlStatus status = check_manifest(*root, manifest);
    if (status != VL_OK) json_decref(*root);
    return status;
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

VlStatus vl_checkpoint_info(const char *path, VlCheckpointInfo *info) {
    char manifest[VL_PATH_MAX];
    json_t *root;
    *info = (VlCheckpointInfo){0};
    VL_TRY(open_manifest(path, &root, manifest));
    VlStatus status = read_info(root, manifest, info);
    json_decref(root);
    return status;
}

// The path, size and hash of file number `i` of a manifest.
static VlStatus manifest_file(const json_t *root, const char *manifest, const char *folder, size_t i,
                              char path[VL_PATH_MAX], int64_t *size, char hex[33]) {
    const json_t *file = json_array_get(json_object_get(root, "files"), i);
    char name[256];
    if (!json_is_object(file)) return vl_error(VL_FORMAT, "%s: 'files' is no list of objects", manifest);
    VL_TRY(copy_string(file, manifest, "name", name, sizeof name));
    if (strchr(name, '/')) return vl_error(VL_FORMAT, "%s: file '%s' lies outside of the checkpoint", manifest, name);
    VL_TRY(vl_json_get_int(file, manifest, "size", true, size));
    VL_TRY(copy_string(file, manifest, "xxh3_128", hex, 33));
    return vl_path_join(path, folder, name);
}

static VlStatus verify_file(const json_t *root, const char *manifest, const char *folder, size_t i) {
    char path[VL_PATH_MAX], expected[33], found[33];
    int64_t size, actual;
    VL_TRY(manifest_file(root, manifest, folder, i, path, &size, expected));
    VL_TRY(vl_file_size(path, &actual));
    if (actual != size) {
        return vl_error(VL_FORMAT, "%s has %" PRId64 " bytes, %" PRId64 " were written: the checkpoint is damaged",
                        path, actual, size);
    }
    VL_TRY(vl_hash_file(path, found));
    if (strcmp(found, expected) != 0) {
        return vl_error(VL_FORMAT, "%s does not match its hash (%s, expected %s): the checkpoint is damaged", path,
                        found, expected);
    }
    return VL_OK;
}

static VlStatus verify_configuration(const json_t *root, const char *manifest, const char *folder) {
    char path[VL_PATH_MAX], expected[33], found[33];
    VL_TRY(copy_string(root, manifest, "configuration_xxh3_128", expected, sizeof expected));
    VL_TRY(vl_path_join(path, folder, CONFIGURATION));
    VL_TRY(vl_hash_file(path, found));
    if (strcmp(found, expected) != 0)
        return vl_error(VL_FORMAT, "%s does not match its hash: the checkpoint is damaged", path);
    return VL_OK;
}

VlStatus vl_checkpoint_verify(VlComm *comm, const char *path) {
    char manifest[VL_PATH_MAX];
    json_t *root = NULL;
    VlStatus status = open_manifest(path, &root, manifest);
    if (status == VL_OK) {
        size_t files = json_array_size(json_object_get(root, "files"));
        if (files == 0) status = vl_error(VL_FORMAT, "%s names no files", manifest);
        if (status == VL_OK && vl_comm_rank(comm) == 0) status = verify_configuration(root, manifest, path);
        for (size_t i = (size_t)vl_comm_rank(comm); i < files && status == VL_OK; i += (size_t)vl_comm_size(comm)) {
            status = verify_file(root, manifest, path, i);
        }
        json_decref(root);
    }
    return vl_comm_agree(comm, status);
}

static VlStatus load_files(const json_t *root, const char *manifest, const char *path, VlContext *context,
                           VlParams *params, VlOptimizer *optimizer, bool *found) {
    size_t files = json_array_size(json_object_get(root, "files"));
    for (size_t i = 0; i < files; i++) {
        char file[VL_PATH_MAX], hex[33];
        int64_t size;
        VL_TRY(manifest_file(root, manifest, path, i, file, &size, hex));
        VL_TRY(vl_checkpoint_file_read(file, context, params, optimizer, found));
    }
    if (!optimizer) return VL_OK;
    for (int64_t i = 0; i < params->count; i++) {
        if (params->rows[i]->trainable && !found[i]) {
            return vl_error(VL_FORMAT, "%s lacks %s, which this run trains; start a new run in another output folder",
                            path, params->rows[i]->name);
        }
    }
    return vl_json_get_int(root, manifest, "optimizer_steps", true, &optimizer->steps);
}

VlStatus vl_checkpoint_load(VlContext *context, const char *path, VlParams *params, VlOptimizer *optimizer) {
    char manifest[VL_PATH_MAX];
    json_t *root;
    bool *found = NULL;
    VL_TRY(open_manifest(path, &root, manifest));
    VlStatus status = VL_NEW(&found, params->count);
    if (status == VL_OK) status = load_files(root, manifest, path, context, params, optimizer, found);
    vl_free(found);
    json_decref(root);
    return status;
}
