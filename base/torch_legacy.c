// The format of torch.save before PyTorch 1.6: five pickles (a number to know it by, the format's version, the
// machine's sizes, the objects, the keys of the storages), then per key the number of elements (int64) and the bytes.
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/torch_internal.h"

enum { FORMAT_VERSION = 1001, BEGIN_LENGTH = 14 };

// Protocol 2, a number of ten bytes, its bytes: 0x1950a86a20f9469cfc6c.
static const unsigned char known_begin[BEGIN_LENGTH] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c,
                                                        0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

bool vl_torch_is_legacy(const unsigned char *begin, int64_t size) {
    return size >= BEGIN_LENGTH && !memcmp(begin, known_begin, BEGIN_LENGTH);
}

typedef struct Head {
    char *text;  // the file's first bytes
    int64_t size, position;
} Head;

static VlStatus run_next(Head *head, VlPickle *pickle) {
    VL_TRY(vl_pickle_run(pickle, head->text + head->position, head->size - head->position));
    head->position += pickle->used;
    return VL_OK;
}

static VlStatus check_version(const VlPickleValue *version) {
    if (version->kind == VL_PICKLE_INTEGER && version->as.integer == FORMAT_VERSION) return VL_OK;
    return vl_error(VL_UNSUPPORTED, "its version is not %d", FORMAT_VERSION);
}

static VlStatus check_machine(const VlPickleValue *sizes) {
    for (int64_t i = 0; sizes->kind == VL_PICKLE_DICTIONARY && i < sizes->as.list.count; i += 2) {
        const VlPickleValue *value = sizes->as.list.items[i + 1];
        if (!vl_pickle_is_text(sizes->as.list.items[i], "little_endian")) continue;
        if (value->kind == VL_PICKLE_BOOL && value->as.integer) return VL_OK;
        return vl_error(VL_UNSUPPORTED, "its byte order is big; only little is read");
    }
    return vl_error(VL_FORMAT, "its byte order is not stated");
}

// The number, the version and the sizes of the machine.
static VlStatus check_preamble(Head *head) {
    for (int i = 0; i < 3; i++) {
        VlPickle pickle;
        VlStatus status = VL_OK;
        VL_TRY(run_next(head, &pickle));
        if (i == 1) status = check_version(pickle.result);
        if (i == 2) status = check_machine(pickle.result);
        vl_pickle_free(&pickle);
        VL_TRY(status);
    }
    return VL_OK;
}

// ---- Storages --------------------------------------------------------------

static int compare_keys(const void *a, const void *b) {
    const VlPickleValue *x = (*(VlPickleValue *const *)a)->as.storage.key;
    const VlPickleValue *y = (*(VlPickleValue *const *)b)->as.storage.key;
    int64_t common = x->as.text.length < y->as.text.length ? x->as.text.length : y->as.text.length;
    int order = memcmp(x->as.text.bytes, y->as.text.bytes, (size_t)common);
    return order ? order : (x->as.text.length > y->as.text.length) - (x->as.text.length < y->as.text.length);
}

// A record for every storage that the pickle names, in the order of their keys; list[i] becomes the storage of record
// i. Where they lie is not known yet: offset 0.
static VlStatus collect_storages(VlZip *records, VlPickleValue **list, int64_t count) {
    VL_TRY(VL_NEW(&records->records, count));
    if (count) qsort(list, (size_t)count, sizeof *list, compare_keys);
    for (int64_t i = 0; i < count; i++) {
        const VlPickleValue *storage = list[i], *last = records->count ? list[records->count - 1] : NULL;
        if (last && !compare_keys(&storage, &last)) {
            if (last->as.storage.elements == storage->as.storage.elements &&
                last->as.storage.dtype == storage->as.storage.dtype) {
                continue;
            }
            return vl_error(VL_FORMAT, "one storage has two sizes or types");
        }
        VlZipRecord *record = &records->records[records->count];
        const VlPickleValue *key = storage->as.storage.key;
        if (!vl_multiply(storage->as.storage.elements, vl_dtype_size(storage->as.storage.dtype), &record->bytes)) {
            return vl_error(VL_FORMAT, "the size of a storage overflows");
        }
        VL_TRY(vl_duplicate_bytes(&record->name, key->as.text.bytes, key->as.text.length));
        list[records->count++] = list[i];
    }
    return VL_OK;
}

// The storage that stands at *position in the file; moves *position behind it.
static VlStatus place_storage(VlZip *records, VlPickleValue *const *list, const VlReader *reader,
                              const VlPickleValue *key, int64_t *position) {
    char name[VL_PICKLE_KEY_LIMIT + 1] = "";
    int64_t elements, end;
    if (key->kind == VL_PICKLE_TEXT && key->as.text.length < (int64_t)sizeof name) {
        memcpy(name, key->as.text.bytes, (size_t)key->as.text.length);
    }
    VlZipRecord *record = (VlZipRecord *)vl_zip_find(records, name);
    if (!record || record->offset) return vl_error(VL_FORMAT, "the storage '%s' is unknown or stored twice", name);
    VL_TRY(vl_reader_read(reader, *position, &elements, 8));
    if (elements != list[record - records->records]->as.storage.elements) {
        return vl_error(VL_FORMAT, "the storage '%s' has %lld elements in the pickle, but %lld in the file", name,
                        (long long)list[record - records->records]->as.storage.elements, (long long)elements);
    }
    record->offset = *position + 8;
    if (!vl_add(record->offset, record->bytes, &end) || end > reader->size) {
        return vl_error(VL_FORMAT, "truncated: the storage '%s' needs %lld bytes at %lld, the file has %lld", name,
                        (long long)record->bytes, (long long)record->offset, (long long)reader->size);
    }
    *position = end;
    return VL_OK;
}

// Storages follow the pickles in the order of `keys`, to the end of the file.
static VlStatus place_storages(VlZip *records, VlPickleValue *const *list, const VlReader *reader,
                               const VlPickleValue *keys, int64_t position) {
    if (keys->kind != VL_PICKLE_LIST || keys->as.list.count != records->count) {
        return vl_error(VL_FORMAT, "its list of storages does not fit its objects");
    }
    for (int64_t i = 0; i < keys->as.list.count; i++) {
        VL_TRY(place_storage(records, list, reader, keys->as.list.items[i], &position));
    }
    if (position == reader->size) return VL_OK;
    return vl_error(VL_FORMAT, "%lld bytes behind the last storage belong to none",
                    (long long)(reader->size - position));
}

static VlStatus read_objects(VlTorchFile *file, Head *head) {
    VlPickle objects, keys;
    VlStatus status;
    VL_TRY(run_next(head, &objects));
    VL_TRY_GOTO(status, run_next(head, &keys), free_objects);
    VlPickleValue **list = objects.storages.as.list.items;
    VL_TRY_GOTO(status, collect_storages(&file->records, list, objects.storages.as.list.count), free_keys);
    VL_TRY_GOTO(status, place_storages(&file->records, list, &file->reader, keys.result, head->position), free_keys);
    status = vl_torch_walk(file, objects.result, "");
free_keys:
    vl_pickle_free(&keys);
free_objects:
    vl_pickle_free(&objects);
    return status;
}

VlStatus vl_torch_open_legacy(VlTorchFile *file) {
    Head head = {.size = file->reader.size < VL_TORCH_PICKLE_LIMIT ? file->reader.size : VL_TORCH_PICKLE_LIMIT};
    file->legacy = true;
    VL_TRY(VL_NEW(&head.text, head.size));
    VlStatus status = vl_reader_read(&file->reader, 0, head.text, head.size);
    if (!status) status = check_preamble(&head);
    if (!status) status = read_objects(file, &head);
    vl_free(head.text);
    return status;
}
