#include "data/pack_manifest.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"

#define FORMAT "vl2 pack"
enum { VERSION = 2, MANIFEST_LIMIT = 256 << 20, PIECE = 1 << 20 };

// ---- Counts ----------------------------------------------------------------

typedef struct Count {
    const char *key;
    size_t offset;
} Count;

#define COUNT(name) \
    { #name, offsetof(VlPackReport, name) }
static const Count counts[] = {COUNT(annotations), COUNT(samples),      COUNT(texts),        COUNT(images),
                               COUNT(videos),      COUNT(sounds),       COUNT(heard_videos), COUNT(media),
                               COUNT(silent),      COUNT(bad),          COUNT(shards),       COUNT(bytes),
                               COUNT(stored),      COUNT(bad_in_a_row), COUNT(list_bytes)};
enum { COUNTS = sizeof counts / sizeof *counts };

static json_t *counts_to_json(const VlPackReport *report) {
    json_t *object = json_object();
    for (int i = 0; object && i < COUNTS; i++) {
        int64_t value;
        memcpy(&value, (const char *)report + counts[i].offset, sizeof value);
        if (json_object_set_new(object, counts[i].key, json_integer(value))) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static VlStatus counts_from_json(const json_t *object, const char *path, VlPackReport *report) {
    for (int i = 0; i < COUNTS; i++) {
        int64_t value = 0;
        VL_TRY(vl_json_get_int(object, path, counts[i].key, true, &value));
        if (value < 0) return vl_error(VL_FORMAT, "%s: \"%s\" is below 0", path, counts[i].key);
        memcpy((char *)report + counts[i].offset, &value, sizeof value);
    }
    return VL_OK;
}

// ---- Manifest --------------------------------------------------------------

static VlStatus load_shard(const json_t *entry, const char *path, VlPackShard *shard) {
    const char *name = NULL;
    int64_t crc = 0;
    VL_TRY(vl_json_get_string(entry, path, "name", true, &name));
    if (strlen(name) >= sizeof shard->name || strchr(name, '/')) {
        return vl_error(VL_FORMAT, "%s: '%.60s' is no name of a shard", path, name);
    }
    memcpy(shard->name, name, strlen(name) + 1);
    VL_TRY(vl_json_get_int(entry, path, "file_bytes", true, &shard->file_bytes));
    VL_TRY(vl_json_get_int(entry, path, "crc32c", true, &crc));
    VL_TRY(vl_json_get_int(entry, path, "quarantine_bytes", true, &shard->quarantine_bytes));
    if (crc < 0 || crc > UINT32_MAX || shard->quarantine_bytes < 0) {
        return vl_error(VL_FORMAT, "%s: the values of '%s' are not possible", path, name);
    }
    shard->crc32c = (uint32_t)crc;
    return counts_from_json(json_object_get(entry, "counts"), path, &shard->report);
}

static VlStatus load_document(const json_t *document, const char *path, VlPackManifest *manifest) {
    const char *format = "", *options = "", *preprocessing = "";
    int64_t version = 0;
    VL_TRY(vl_json_get_string(document, path, "format", true, &format));
    VL_TRY(vl_json_get_int(document, path, "version", true, &version));
    if (strcmp(format, FORMAT)) return vl_error(VL_FORMAT, "%s was not written by vl2 pack", path);
    if (version != VERSION) {
        return vl_error(VL_UNSUPPORTED,
                        "%s has version %lld; this program reads version %d: remove the folder and pack again", path,
                        (long long)version, VERSION);
    }
    VL_TRY(vl_json_get_string(document, path, "options", true, &options));
    VL_TRY(vl_json_get_string(document, path, "preprocessing", true, &preprocessing));
    VL_TRY(vl_json_get_bool(document, path, "complete", true, &manifest->complete));
    if (strlen(options) >= sizeof manifest->options || strlen(preprocessing) >= sizeof manifest->preprocessing) {
        return vl_error(VL_FORMAT, "%s: \"options\" or \"preprocessing\" is too long", path);
    }
    memcpy(manifest->options, options, strlen(options) + 1);
    memcpy(manifest->preprocessing, preprocessing, strlen(preprocessing) + 1);
    if (manifest->complete) VL_TRY(counts_from_json(json_object_get(document, "counts"), path, &manifest->report));
    const json_t *list = json_object_get(document, "shards");
    if (!json_is_array(list)) return vl_error(VL_FORMAT, "%s: \"shards\" must be a list", path);
    for (size_t i = 0; i < json_array_size(list); i++) {
        VlPackShard shard = {0};
        VL_TRY(load_shard(json_array_get(list, i), path, &shard));
        VL_TRY(vl_pack_manifest_add(manifest, &shard));
    }
    return VL_OK;
}

VlStatus vl_pack_manifest_load(VlPackManifest *manifest, const char *folder) {
    char path[VL_PATH_MAX];
    json_t *document;
    *manifest = (VlPackManifest){0};
    VL_TRY(vl_path_join(path, folder, VL_PACK_MANIFEST));
    VL_TRY(vl_json_load(path, MANIFEST_LIMIT, &document));
    VlStatus status = load_document(document, path, manifest);
    json_decref(document);
    if (status) vl_pack_manifest_free(manifest);
    return status;
}

static json_t *manifest_to_json(const VlPackManifest *manifest) {
    json_t *shards = json_array();
    for (int64_t i = 0; shards && i < manifest->shards; i++) {
        const VlPackShard *shard = &manifest->shard[i];
        json_t *entry =
            json_pack("{s:s,s:I,s:I,s:I,s:o}", "name", shard->name, "file_bytes", (json_int_t)shard->file_bytes,
                      "crc32c", (json_int_t)shard->crc32c, "quarantine_bytes", (json_int_t)shard->quarantine_bytes,
                      "counts", counts_to_json(&shard->report));
        if (json_array_append_new(shards, entry)) {
            json_decref(shards);
            return NULL;
        }
    }
    return json_pack("{s:s,s:i,s:s,s:s,s:b,s:o,s:o}", "format", FORMAT, "version", VERSION, "options",
                     manifest->options, "preprocessing", manifest->preprocessing, "complete", manifest->complete,
                     "counts", counts_to_json(&manifest->report), "shards", shards);
}

VlStatus vl_pack_manifest_save(const VlPackManifest *manifest, const char *folder) {
    char path[VL_PATH_MAX];
    VL_TRY(vl_path_join(path, folder, VL_PACK_MANIFEST));
    json_t *document = manifest_to_json(manifest);
    if (!document) return vl_error(VL_OUT_OF_MEMORY, "out of memory for %s", path);
    VlStatus status = vl_json_save(path, document, JSON_INDENT(1));
    json_decref(document);
    return status;
}

VlStatus vl_pack_manifest_add(VlPackManifest *manifest, const VlPackShard *shard) {
    VL_TRY(vl_reserve(&manifest->shard, &manifest->capacity, manifest->shards + 1, (int64_t)sizeof *shard));
    manifest->shard[manifest->shards++] = *shard;
    return VL_OK;
}

void vl_pack_manifest_free(VlPackManifest *manifest) {
    vl_free(manifest->shard);
    *manifest = (VlPackManifest){0};
}

VlStatus vl_pack_file_checksum(const char *path, int64_t *size, uint32_t *crc) {
    VlReader reader;
    uint8_t *piece;
    VL_TRY(VL_NEW(&piece, PIECE));
    VlStatus status = vl_reader_open(&reader, path);
    *crc = 0;
    for (int64_t offset = 0; !status && offset < reader.size; offset += PIECE) {
        int64_t part = reader.size - offset < PIECE ? reader.size - offset : PIECE;
        status = vl_reader_read(&reader, offset, piece, part);
        if (!status) *crc = vl_crc32c(*crc, piece, part);
    }
    *size = reader.size;
    vl_reader_close(&reader);
    vl_free(piece);
    return status;
}

// ---- Quarantine ------------------------------------------------------------

VlStatus vl_pack_quarantine_open(FILE **file, const char *folder, int64_t bytes) {
    char path[VL_PATH_MAX];
    VL_TRY(vl_path_join(path, folder, VL_PACK_QUARANTINE));
    *file = vl_fault_hit() ? NULL : fopen(path, "ae");
    if (!*file) return vl_error(VL_IO, "cannot write '%s': %s", path, strerror(errno));
    int64_t size = 0;
    VlStatus status = vl_file_size(path, &size);
    if (!status && size < bytes) {
        status = vl_error(VL_FORMAT, "'%s' is shorter than '%s' says: remove the folder and pack again", path,
                          VL_PACK_MANIFEST);
    }
    if (!status && ftruncate(fileno(*file), bytes)) {
        status = vl_error(VL_IO, "cannot cut '%s': %s", path, strerror(errno));
    }
    if (!status) return VL_OK;
    fclose(*file);
    *file = NULL;
    return status;
}

VlStatus vl_pack_quarantine_add(FILE *file, int64_t index, const char *id, const char *reason) {
    json_t *line = json_pack("{s:I,s:s,s:s%}", "index", (json_int_t)index, "id", id, "reason", reason, strlen(reason));
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    if (!text) return vl_error(VL_OUT_OF_MEMORY, "out of memory for a line of %s", VL_PACK_QUARANTINE);
    bool done = fputs(text, file) >= 0 && fputc('\n', file) >= 0 && fflush(file) == 0;
    vl_free(text);
    return done ? VL_OK : vl_error(VL_IO, "cannot write %s: %s", VL_PACK_QUARANTINE, strerror(errno));
}

VlStatus vl_pack_quarantine_sync(FILE *file, int64_t *bytes) {
    bool done = !vl_fault_hit() && fflush(file) == 0 && fsync(fileno(file)) == 0 && fseeko(file, 0, SEEK_END) == 0;
    *bytes = done ? (int64_t)ftello(file) : 0;
    return done && *bytes >= 0 ? VL_OK : vl_error(VL_IO, "cannot write %s: %s", VL_PACK_QUARANTINE, strerror(errno));
}
