#include "train/convert_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "train/checkpoint_file.h"
#include "train/convert_stream.h"
#include "train/model_source.h"

// One file of weights.
typedef struct Shard {
    int64_t first, last;  // tensors [first, last) of the source
    char name[VL_TABLE_FILE];
    VlSafetensorsWriter writer;  // of a Hugging Face folder
    VlTensorTable table;         // of a checkpoint
    int descriptor;
    char path[VL_PATH_MAX];
} Shard;

typedef struct Output {
    const VlConvertSource *source;
    const char *folder;  // the temporary one
    bool checkpoint;
    int64_t shards, capacity;
    Shard *shard;
    VlConvertPlace *places;
    char (*hashes)[VL_HASH_TEXT];
} Output;

static VlTensor outgoing(const VlConvertTensor *tensor) {
    VlTensor shape = tensor->shape;
    shape.dtype = tensor->to;
    return shape;
}

// ---- Cutting --------------------------------------------------------------------

static VlStatus cut(Output *output, int64_t shard_bytes) {
    const VlConvertSource *source = output->source;
    int64_t used = 0;
    for (int64_t i = 0; i < source->count; i++) {
        int64_t bytes = vl_bytes(outgoing(&source->tensors[i]));
        if (i == 0 || (used > 0 && bytes > shard_bytes - used)) {
            VL_TRY(vl_reserve(&output->shard, &output->capacity, output->shards + 1, (int64_t)sizeof *output->shard));
            output->shard[output->shards++] = (Shard){.first = i, .descriptor = -1};
            used = 0;
        }
        used += bytes;
        output->shard[output->shards - 1].last = i + 1;
    }
    for (int64_t i = 0; i < output->shards; i++) {
        char *name = output->shard[i].name;
        if (output->checkpoint) {
            snprintf(name, VL_TABLE_FILE, "weights-%05lld", (long long)i);
        } else if (output->shards == 1) {
            snprintf(name, VL_TABLE_FILE, "model.safetensors");
        } else {
            snprintf(name, VL_TABLE_FILE, "model-%05lld-of-%05lld.safetensors", (long long)i + 1,
                     (long long)output->shards);
        }
    }
    return VL_OK;
}

// ---- Laying out: every file with its header and its full size, as a hole ---------------

static VlStatus lay_out_safetensors(Output *output, Shard *shard) {
    VL_TRY(vl_path_join(shard->path, output->folder, shard->name));
    VL_TRY(vl_safetensors_create(&shard->writer, shard->path));
    for (int64_t i = shard->first; i < shard->last; i++) {
        const VlConvertTensor *tensor = &output->source->tensors[i];
        VL_TRY(tensor->scalar ? vl_safetensors_declare_scalar(&shard->writer, tensor->name, tensor->to)
                              : vl_safetensors_declare(&shard->writer, tensor->name, outgoing(tensor)));
    }
    VL_TRY(vl_safetensors_begin(&shard->writer));
    VL_TRY(vl_safetensors_make_hole(&shard->writer));
    for (int64_t i = shard->first; i < shard->last; i++) {
        int64_t offset = shard->writer.header_end + shard->writer.entries[i - shard->first].offset;
        output->places[i] = (VlConvertPlace){shard->writer.writer.descriptor, shard->path, offset};
    }
    return VL_OK;
}

static VlStatus lay_out_table(Output *output, Shard *shard) {
    char file[VL_TABLE_FILE + 8];
    snprintf(file, sizeof file, "%s.h5", shard->name);
    VL_TRY(vl_path_join(shard->path, output->folder, file));
    for (int64_t i = shard->first; i < shard->last; i++) {
        const VlConvertTensor *tensor = &output->source->tensors[i];
        VL_TRY(vl_tensor_table_add(&shard->table, "parameters", tensor->name, outgoing(tensor), tensor->scalar));
    }
    VL_TRY(vl_checkpoint_file_create(shard->path, &shard->table));
    shard->descriptor = open(shard->path, O_WRONLY | O_CLOEXEC);
    if (shard->descriptor < 0) return vl_error(VL_IO, "cannot open '%s': %s", shard->path, strerror(errno));
    for (int64_t i = shard->first; i < shard->last; i++) {
        output->places[i] =
            (VlConvertPlace){shard->descriptor, shard->path, shard->table.tensors[i - shard->first].offset};
    }
    return VL_OK;
}

static VlStatus lay_out(Output *output) {
    for (int64_t i = 0; i < output->shards; i++) {
        Shard *shard = &output->shard[i];
        VL_TRY(output->checkpoint ? lay_out_table(output, shard) : lay_out_safetensors(output, shard));
    }
    return VL_OK;
}

// ---- Finishing ----------------------------------------------------------------------

// The documents, below `prefix`.
static VlStatus write_documents(const Output *output, const char *prefix) {
    enum { LIMIT = 1 << 30 };
    for (int64_t i = 0; i < output->source->documents; i++) {
        const VlConvertDocument *document = &output->source->document[i];
        char folder[VL_PATH_MAX], path[VL_PATH_MAX], *text = NULL;
        int64_t size = 0;
        VL_TRY(vl_path_join(folder, output->folder, prefix));
        VL_TRY(vl_path_join(path, folder, document->name));
        VL_TRY(vl_path_folder(folder, path));
        VL_TRY(vl_make_folders(folder));
        if (!document->text) VL_TRY(vl_read_file(document->path, LIMIT, &text, &size));
        VlStatus status = vl_write_file(path, document->text ? document->text : text,
                                        document->text ? (int64_t)strlen(document->text) : size);
        vl_free(text);
        VL_TRY(status);
    }
    return VL_OK;
}

static VlStatus write_index(const Output *output) {
    char path[VL_PATH_MAX];
    int64_t total = 0;
    json_t *map = json_object();
    for (int64_t i = 0; i < output->shards; i++) {
        const Shard *shard = &output->shard[i];
        for (int64_t j = shard->first; j < shard->last; j++) {
            const VlConvertTensor *tensor = &output->source->tensors[j];
            json_object_set_new(map, tensor->name, json_string(shard->name));
            total += vl_bytes(outgoing(tensor));
        }
    }
    bool complete = map && (int64_t)json_object_size(map) == output->source->count;
    json_t *root = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    VlStatus status = complete && root ? VL_OK : vl_error(VL_OUT_OF_MEMORY, "out of memory for the index of shards");
    if (status == VL_OK) status = vl_path_join(path, output->folder, "model.safetensors.index.json");
    if (status == VL_OK) status = vl_json_save(path, root, JSON_INDENT(2) | JSON_SORT_KEYS);
    json_decref(root);
    return status;
}

static VlStatus finish_safetensors(Output *output) {
    for (int64_t i = 0; i < output->shards; i++) VL_TRY(vl_safetensors_commit(&output->shard[i].writer));
    if (output->shards > 1) VL_TRY(write_index(output));
    return write_documents(output, "");
}

static VlStatus finish_table(Output *output, Shard *shard) {
    char path[VL_PATH_MAX], name[VL_TABLE_FILE + 8];
    for (int64_t i = shard->first; i < shard->last; i++)
        memcpy(shard->table.tensors[i - shard->first].hash, output->hashes[i], VL_HASH_TEXT);
    if (vl_fault_hit() || fsync(shard->descriptor) != 0)
        return vl_error(VL_IO, "cannot write '%s': %s", shard->path, strerror(errno));
    snprintf(name, sizeof name, "%s.json", shard->name);
    VL_TRY(vl_path_join(path, output->folder, name));
    return vl_tensor_table_save(&shard->table, path);
}

static VlStatus describe_files(const Output *output, json_t *root) {
    char name[VL_PATH_MAX];
    for (int64_t i = 0; i < output->source->documents; i++) {
        VL_TRY(vl_path_join(name, VL_MODEL_FOLDER, output->source->document[i].name));
        VL_TRY(vl_manifest_add_file(root, output->folder, name, false));
    }
    for (int64_t i = 0; i < output->shards; i++) {
        snprintf(name, sizeof name, "%s.json", output->shard[i].name);
        VL_TRY(vl_manifest_add_file(root, output->folder, name, true));
    }
    return VL_OK;
}

static VlStatus finish_checkpoint(Output *output) {
    for (int64_t i = 0; i < output->shards; i++) VL_TRY(finish_table(output, &output->shard[i]));
    VL_TRY(write_documents(output, VL_MODEL_FOLDER));
    json_t *root = json_pack("{s:i, s:s, s:[]}", "version", VL_MANIFEST_VERSION, "kind", "model", "files");
    VlStatus status = root ? describe_files(output, root) : vl_error(VL_OUT_OF_MEMORY, "out of memory for a manifest");
    if (status == VL_OK) return vl_manifest_write(root, output->folder);
    json_decref(root);
    return status;
}

static void close_output(Output *output) {
    for (int64_t i = 0; i < output->shards; i++) {
        Shard *shard = &output->shard[i];
        vl_safetensors_abandon(&shard->writer);
        vl_tensor_table_free(&shard->table);
        if (shard->descriptor >= 0) close(shard->descriptor);
    }
    vl_free(output->shard);
    vl_free(output->places);
}

static VlStatus write_folder(Output *output, int64_t shard_bytes) {
    VL_TRY(cut(output, shard_bytes));
    VL_TRY(VL_NEW(&output->places, output->source->count));
    VL_TRY(lay_out(output));
    VL_TRY(vl_convert_stream(
        &(VlConvertStream){.source = output->source, .places = output->places, .hashes = output->hashes}));
    VL_TRY(output->checkpoint ? finish_checkpoint(output) : finish_safetensors(output));
    return vl_sync_folder(output->folder);
}

// ---- There whole or not at all ---------------------------------------------------------

// Opens and locks a folder for as long as *lock is open, so that no two programs write there.
static VlStatus lock_folder(const char *path, int *lock) {
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return vl_error(VL_IO, "cannot create the folder '%s': %s", path, strerror(errno));
    *lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*lock < 0) return vl_error(VL_IO, "cannot open the folder '%s': %s", path, strerror(errno));
    if (flock(*lock, LOCK_EX | LOCK_NB) == 0) return VL_OK;
    close(*lock);
    *lock = -1;
    return vl_error(VL_INVALID, "another program is writing %s; wait for it or take another --to", path);
}

// Makes and locks the temporary folder. What an earlier program has left unfinished there goes.
static VlStatus take_folder(const char *temporary, int *lock) {
    char parent[VL_PATH_MAX];
    VL_TRY(vl_path_folder(parent, temporary));
    VL_TRY(vl_make_folders(parent));
    VL_TRY(lock_folder(temporary, lock));
    if (rmdir(temporary) != 0) VL_TRY(vl_remove_tree(temporary));
    close(*lock);
    return lock_folder(temporary, lock);
}

static VlStatus write_temporary(Output *output, const char *to, int64_t shard_bytes) {
    char parent[VL_PATH_MAX];
    VL_TRY(write_folder(output, shard_bytes));
    VL_TRY(vl_path_folder(parent, to));
    if (vl_path_exists(to)) return vl_error(VL_INVALID, "%s exists; it is not overwritten", to);
    if (vl_fault_hit() || rename(output->folder, to) != 0)
        return vl_error(VL_IO, "cannot rename '%s' to '%s': %s", output->folder, to, strerror(errno));
    return vl_sync_folder(parent);
}

VlStatus vl_convert_write(const VlConvertSource *source, const char *to, VlConvertFormat format, int64_t shard_bytes,
                          char (*hashes)[VL_HASH_TEXT]) {
    char final[VL_PATH_MAX], temporary[VL_PATH_MAX + 8];
    VL_TRY(vl_path_join(final, "", to));
    for (size_t length = strlen(final); length > 1 && final[length - 1] == '/';) final[--length] = '\0';
    snprintf(temporary, sizeof temporary, "%s.tmp", final);
    Output output = {
        .source = source, .folder = temporary, .checkpoint = format == VL_CONVERT_CHECKPOINT, .hashes = hashes};
    int lock = -1;
    VlStatus status = take_folder(temporary, &lock);
    bool mine = status == VL_OK;
    if (mine) status = write_temporary(&output, final, shard_bytes);
    close_output(&output);
    if (status != VL_OK && mine) {
        VlError error = vl_error_take(status);
        vl_remove_tree(temporary);
        status = vl_error_raise(&error);
    }
    if (lock >= 0) close(lock);
    return status;
}
