#include "base/torch_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/torch_internal.h"

enum { VERSION_LIMIT = 10, SMALL_RECORD = 64, BEGIN_SIZE = 16 };

// ---- The archive -----------------------------------------------------------

// prefix = "ARCHIVE/": the folder that holds data.pkl, and everything else.
static VlStatus find_folder(const VlZip *zip, char prefix[256]) {
    const char *slash = NULL;
    for (int64_t i = 0; i < zip->count && !slash; i++) {
        const char *first = strchr(zip->records[i].name, '/');
        if (!first || strcmp(first, "/data.pkl")) continue;
        slash = first;
        if (snprintf(prefix, 256, "%.*s/", (int)(first - zip->records[i].name), zip->records[i].name) >= 256) {
            return vl_error(VL_FORMAT, "the name of the archive's folder is too long");
        }
    }
    if (!slash) return vl_error(VL_FORMAT, "the zip archive has no record ARCHIVE/data.pkl: no file of PyTorch's");
    for (int64_t i = 0; i < zip->count; i++) {
        const char *name = zip->records[i].name;
        if (strncmp(name, prefix, strlen(prefix)) != 0 || strstr(name, "..")) {
            return vl_error(VL_FORMAT, "the record '%.200s' is not in the folder '%s' of the archive", name, prefix);
        }
    }
    return VL_OK;
}

static const VlZipRecord *find_record(const VlZip *zip, const char *prefix, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s%s", prefix, name);
    return vl_zip_find(zip, path);
}

// *text = the content of a small record, "" when the archive has none of that name.
static VlStatus read_small(const VlTorchFile *file, const char *prefix, const char *name, char text[SMALL_RECORD + 1]) {
    const VlZipRecord *record = find_record(&file->records, prefix, name);
    char *content;
    text[0] = '\0';
    if (!record) return VL_OK;
    VL_TRY(vl_zip_read(&file->reader, record, SMALL_RECORD, &content));
    snprintf(text, SMALL_RECORD + 1, "%s", content);
    vl_free(content);
    return VL_OK;
}

static VlStatus check_kind(const VlTorchFile *file, const char *prefix) {
    char text[SMALL_RECORD + 1], *end;
    if (find_record(&file->records, prefix, "constants.pkl")) {
        return vl_error(VL_UNSUPPORTED, "it is a TorchScript program; save the module's state_dict() instead");
    }
    VL_TRY(read_small(file, prefix, "byteorder", text));
    if (text[0] && strcmp(text, "little") != 0) {
        return vl_error(VL_UNSUPPORTED, "its byte order is '%s'; only little is read", text);
    }
    VL_TRY(read_small(file, prefix, "version", text));
    long version = strtol(text, &end, 10);
    if (end == text || strcmp(end, "\n") != 0 || version < 1 || version > VERSION_LIMIT) {
        return vl_error(VL_UNSUPPORTED, "the archive's version is '%s'; 1 to %d are read", text, VERSION_LIMIT);
    }
    return VL_OK;
}

static VlStatus open_archive(VlTorchFile *file) {
    char prefix[256], *text = NULL;
    VlPickle pickle;
    VL_TRY(vl_zip_open(&file->records, &file->reader));
    VL_TRY(find_folder(&file->records, prefix));
    VL_TRY(check_kind(file, prefix));
    const VlZipRecord *record = find_record(&file->records, prefix, "data.pkl");
    VL_TRY(vl_zip_read(&file->reader, record, VL_TORCH_PICKLE_LIMIT, &text));
    VlStatus status = vl_pickle_run(&pickle, text, record->bytes);
    if (!status) {
        if (pickle.used != record->bytes) status = vl_error(VL_FORMAT, "there are bytes behind the end of the pickle");
        snprintf(prefix + strlen(prefix), sizeof prefix - strlen(prefix), "data/");
        if (!status) status = vl_torch_walk(file, pickle.result, prefix);
        vl_pickle_free(&pickle);
    }
    vl_free(text);
    return status;
}

// ---- Public ----------------------------------------------------------------

static VlStatus open_file(VlTorchFile *file) {
    unsigned char begin[BEGIN_SIZE];
    int64_t size = file->reader.size < BEGIN_SIZE ? file->reader.size : BEGIN_SIZE;
    VL_TRY(vl_reader_read(&file->reader, 0, begin, size));
    if (size >= 4 && !memcmp(begin, "PK\3\4", 4)) return open_archive(file);
    if (vl_torch_is_legacy(begin, size)) return vl_torch_open_legacy(file);
    if (size >= 11 && !memcmp(begin, "version htt", 11)) {
        return vl_error(VL_FORMAT, "it is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`");
    }
    return vl_error(VL_FORMAT, "it does not begin like a file of PyTorch's (a zip archive, or the pickle before 1.6)");
}

VlStatus vl_torch_open(VlTorchFile *file, const char *path) {
    *file = (VlTorchFile){0};
    VL_TRY(vl_reader_open(&file->reader, path));
    VlStatus status = open_file(file);
    if (status) {
        vl_error_context(status, "%s", path);
        vl_torch_close(file);
    }
    return status;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const VlTorchEntry *)a)->name, ((const VlTorchEntry *)b)->name);
}

const VlTorchEntry *vl_torch_find(const VlTorchFile *file, const char *name) {
    VlTorchEntry wanted = {.name = (char *)name};
    if (!file->count) return NULL;
    return bsearch(&wanted, file->entries, (size_t)file->count, sizeof *file->entries, compare_names);
}

// Copies elements [begin, begin + count) of a view whose first element is at `from`.
static void gather(const VlTorchEntry *entry, const char *from, int64_t begin, int64_t count, char *to) {
    const int64_t size = vl_dtype_size(entry->tensor.dtype), *dim = entry->tensor.dim;
    int64_t index[VL_MAX_DIMS] = {0}, position = 0, rest = begin;
    for (int32_t i = entry->tensor.dims - 1; i >= 0; i--) {
        index[i] = rest % dim[i];
        rest /= dim[i];
        position += index[i] * entry->stride[i];
    }
    for (int64_t done = 0; done < count; done++) {
        memcpy(to + done * size, from + position * size, (size_t)size);
        for (int32_t i = entry->tensor.dims - 1; i >= 0; i--) {
            position += entry->stride[i];
            if (++index[i] < dim[i]) break;
            position -= dim[i] * entry->stride[i];
            index[i] = 0;
        }
    }
}

// Through a mapping: the elements of a transposed matrix lie far from each other, and the page cache serves them
// better than any window of ours.
static VlStatus read_strided(const VlTorchFile *file, const VlTorchEntry *entry, int64_t begin, int64_t count,
                             void *data) {
    int64_t page = sysconf(_SC_PAGESIZE), start = entry->offset / page * page;
    int64_t end = entry->offset + vl_dtype_size(entry->tensor.dtype);
    for (int32_t i = 0; i < entry->tensor.dims; i++) {
        end += (entry->tensor.dim[i] - 1) * entry->stride[i] * vl_dtype_size(entry->tensor.dtype);
    }
    char *mapped = vl_fault_hit() ? MAP_FAILED
                                  : mmap(NULL, (size_t)(end - start), PROT_READ, MAP_PRIVATE, file->reader.descriptor,
                                         (off_t)start);
    if (mapped == MAP_FAILED) {
        return vl_error(VL_IO, "%s: cannot map the %lld bytes of tensor '%s'", file->reader.path,
                        (long long)(end - start), entry->name);
    }
    gather(entry, mapped + (entry->offset - start), begin, count, data);
    munmap(mapped, (size_t)(end - start));
    return VL_OK;
}

VlStatus vl_torch_read_part(const VlTorchFile *file, const VlTorchEntry *entry, int64_t begin, int64_t count,
                            void *data) {
    int64_t end, size = vl_dtype_size(entry->tensor.dtype);
    if (!vl_add(begin, count, &end) || end > vl_elements(entry->tensor)) {
        return vl_error(VL_INVALID, "tensor '%s': elements [%lld, +%lld) are not within %s", entry->name,
                        (long long)begin, (long long)count, vl_describe(entry->tensor));
    }
    if (!entry->contiguous && count) return read_strided(file, entry, begin, count, data);
    VL_TRY_CONTEXT(vl_reader_read(&file->reader, entry->offset + begin * size, data, count * size), "tensor '%s'",
                   entry->name);
    return VL_OK;
}

VlStatus vl_torch_verify(const VlTorchFile *file) {
    for (int64_t i = 0; i < file->records.count && !file->legacy; i++) {
        VL_TRY_CONTEXT(vl_zip_verify(&file->reader, &file->records.records[i]), "%s", file->reader.path);
    }
    return VL_OK;
}

void vl_torch_close(VlTorchFile *file) {
    for (int64_t i = 0; i < file->count; i++) vl_free(file->entries[i].name);
    vl_free(file->entries);
    json_decref(file->data);
    vl_zip_close(&file->records);
    vl_reader_close(&file->reader);
    *file = (VlTorchFile){.reader.descriptor = -1};
}
