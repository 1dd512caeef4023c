#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/torch_internal.h"

// A pickle's values may be shared, even in circles: a small file could unfold to any size.
enum { DEPTH_LIMIT = 64, STEP_LIMIT = 1 << 21, TEXT_LIMIT = 1 << 26, NAME_LIMIT = 1000 };

typedef struct Walk {
    VlTorchFile *file;
    const char *prefix;
    int64_t capacity, steps, text;
    char path[NAME_LIMIT + 1];  // of the value that is looked at
    int64_t length;             // of the path
} Walk;

static VlStatus walk(Walk *state, const VlPickleValue *value, int depth, json_t **out);

static VlStatus spend_text(Walk *state, int64_t bytes) {
    state->text += bytes;
    if (state->text <= TEXT_LIMIT) return VL_OK;
    return vl_error(VL_FORMAT, "the pickle unfolds to more than %d bytes of text", TEXT_LIMIT);
}

// ---- Tensors ---------------------------------------------------------------

static bool is_contiguous(const VlPickleTensor *view) {
    int64_t expected = 1;
    for (int32_t i = view->tensor.dims - 1; i >= 0; i--) {
        if (view->tensor.dim[i] == 0) return true;
        if (view->tensor.dim[i] != 1 && view->stride[i] != expected) return false;
        expected *= view->tensor.dim[i];
    }
    return true;
}

// The record of a storage; its size must be what the pickle says.
static VlStatus find_record(const Walk *state, const VlPickleValue *storage, const VlZipRecord **record) {
    char name[512];
    const VlPickleValue *key = storage->as.storage.key;
    int64_t bytes, size = vl_dtype_size(storage->as.storage.dtype);
    snprintf(name, sizeof name, "%s%.*s", state->prefix, (int)key->as.text.length, key->as.text.bytes);
    *record = vl_zip_find(&state->file->records, name);
    if (!*record) return vl_error(VL_FORMAT, "its storage '%.100s' is not in the file", name);
    if (!vl_multiply(storage->as.storage.elements, size, &bytes) || bytes != (*record)->bytes) {
        return vl_error(VL_FORMAT, "its storage has %lld %s in the pickle, but %lld bytes in the file",
                        (long long)storage->as.storage.elements, vl_dtype_name(storage->as.storage.dtype),
                        (long long)(*record)->bytes);
    }
    return VL_OK;
}

static VlStatus add_entry(Walk *state, const VlPickleTensor *view) {
    VlTorchFile *file = state->file;
    const VlZipRecord *record;
    if (!state->length) {
        return vl_error(VL_UNSUPPORTED, "the file holds a tensor without a name; save a dictionary of tensors");
    }
    VL_TRY(spend_text(state, state->length));
    VL_TRY(find_record(state, view->storage, &record));
    VL_TRY(vl_reserve(&file->entries, &state->capacity, file->count + 1, (int64_t)sizeof *file->entries));
    VlTorchEntry *entry = &file->entries[file->count];
    *entry = (VlTorchEntry){.tensor = view->tensor, .scalar = view->scalar, .contiguous = is_contiguous(view)};
    VL_TRY(vl_duplicate_bytes(&entry->name, state->path, state->length));
    file->count++;
    // An empty view may state any offset; it has no element there.
    entry->offset = record->offset;
    if (vl_elements(view->tensor)) entry->offset += view->offset * vl_dtype_size(view->tensor.dtype);
    memcpy(entry->stride, view->stride, sizeof entry->stride);
    return VL_OK;
}

// ---- Plain data ------------------------------------------------------------

static VlStatus hold(json_t *value, json_t **out) {
    *out = value;
    return value ? VL_OK : vl_error(VL_OUT_OF_MEMORY, "out of memory for the file's plain data");
}

static VlStatus walk_text(Walk *state, const VlPickleValue *value, json_t **out) {
    VL_TRY(spend_text(state, value->as.text.length));
    *out = json_stringn(value->as.text.bytes, (size_t)value->as.text.length);
    return *out ? VL_OK : vl_error(VL_FORMAT, "a text is no UTF-8");
}

static VlStatus walk_bytes(Walk *state, const VlPickleValue *value, json_t **out) {
    char *text;
    size_t used = 0;
    VL_TRY(spend_text(state, 2 * value->as.text.length));
    VL_TRY(VL_NEW(&text, 2 * value->as.text.length));
    for (int64_t i = 0; i < value->as.text.length; i++) {
        unsigned char byte = (unsigned char)value->as.text.bytes[i];
        if (byte >= 0x80) text[used++] = (char)(0xc0 | byte >> 6);
        text[used++] = (char)(byte >= 0x80 ? 0x80 | (byte & 0x3f) : byte);
    }
    json_t *string = json_stringn(text, used);
    vl_free(text);
    return hold(string, out);
}

static VlStatus walk_real(double real, json_t **out) {
    if (isfinite(real)) return hold(json_real(real), out);
    return hold(json_string(isnan(real) ? "nan" : real > 0 ? "inf" : "-inf"), out);
}

// Appends a key to the path; the caller takes it off again by the length before.
static VlStatus enter(Walk *state, const char *key, int64_t length) {
    int64_t dot = state->length > 0;
    if (length > NAME_LIMIT - state->length - dot) {
        return vl_error(VL_FORMAT, "the name of a value is longer than %d bytes: '%.60s...'", NAME_LIMIT, state->path);
    }
    if (dot) state->path[state->length] = '.';
    memcpy(state->path + state->length + dot, key, (size_t)length);
    state->length += dot + length;
    state->path[state->length] = '\0';
    return VL_OK;
}

static void leave(Walk *state, int64_t length) {
    state->length = length;
    state->path[length] = '\0';
}

static VlStatus walk_list(Walk *state, const VlPickleValue *list, int depth, json_t *array) {
    char key[24];
    int64_t length = state->length;
    for (int64_t i = 0; i < list->as.list.count; i++) {
        json_t *item = NULL;
        VL_TRY(enter(state, key, snprintf(key, sizeof key, "%lld", (long long)i)));
        VL_TRY(walk(state, list->as.list.items[i], depth + 1, &item));
        leave(state, length);
        if (json_array_append_new(array, item ? item : json_null())) return hold(NULL, &item);
    }
    return VL_OK;
}

// The text of a dictionary's key; `buffer` for a number. UTF-8 without a zero byte.
static VlStatus key_text(Walk *state, const VlPickleValue *key, char buffer[24], const char **text, int64_t *length) {
    *text = buffer;
    if (key->kind == VL_PICKLE_INTEGER) {
        *length = snprintf(buffer, 24, "%lld", (long long)key->as.integer);
        return VL_OK;
    }
    if (key->kind != VL_PICKLE_TEXT) return vl_error(VL_UNSUPPORTED, "a key is neither text nor an integer");
    *text = key->as.text.bytes;
    *length = key->as.text.length;
    if (memchr(*text, '\0', (size_t)*length)) return vl_error(VL_FORMAT, "a key holds a zero byte");
    return spend_text(state, *length);
}

// Members of `seen` are the keys so far: Python would let the last of two equal ones win.
static VlStatus walk_member(Walk *state, VlPickleValue *const *member, int depth, json_t *object, json_t *seen) {
    char buffer[24];
    const char *key = NULL;
    int64_t length = 0;
    json_t *item = NULL;
    VL_TRY(key_text(state, member[0], buffer, &key, &length));
    VL_TRY(enter(state, key, length));
    const char *name = state->path + state->length - length;
    if (json_object_get(seen, name)) {
        return vl_error(VL_FORMAT, "the key '%.200s' is in a dictionary twice", name);
    }
    if (json_object_set_new(seen, name, json_null())) return vl_error(VL_FORMAT, "a key is no UTF-8");
    VL_TRY(walk(state, member[1], depth + 1, &item));
    if (item && json_object_set_new(object, name, item)) return hold(NULL, &item);
    return VL_OK;
}

static VlStatus walk_dictionary(Walk *state, const VlPickleValue *dictionary, int depth, json_t *object) {
    json_t *seen;
    VlStatus status;
    int64_t length = state->length;
    VL_TRY(hold(json_object(), &seen));
    for (int64_t i = 0; i < dictionary->as.list.count; i += 2) {
        VL_TRY_GOTO(status, walk_member(state, dictionary->as.list.items + i, depth, object, seen), done);
        leave(state, length);
    }
    status = VL_OK;
done:
    json_decref(seen);
    return status;
}

// *out = NULL for a tensor.
static VlStatus walk(Walk *state, const VlPickleValue *value, int depth, json_t **out) {
    VlStatus status;
    if (depth > DEPTH_LIMIT) {
        return vl_error(VL_FORMAT, "the pickle is nested more than %d deep, or a value contains itself", DEPTH_LIMIT);
    }
    if (++state->steps > STEP_LIMIT) {
        return vl_error(VL_FORMAT, "the pickle unfolds to more than %d values", STEP_LIMIT);
    }
    switch (value->kind) {
    case VL_PICKLE_NONE: return hold(json_null(), out);
    case VL_PICKLE_BOOL: return hold(json_boolean(value->as.integer), out);
    case VL_PICKLE_INTEGER: return hold(json_integer(value->as.integer), out);
    case VL_PICKLE_REAL: return walk_real(value->as.real, out);
    case VL_PICKLE_TEXT: return walk_text(state, value, out);
    case VL_PICKLE_BYTES: return walk_bytes(state, value, out);
    case VL_PICKLE_LIST:
    case VL_PICKLE_TUPLE:
    case VL_PICKLE_DICTIONARY:
        VL_TRY(hold(value->kind == VL_PICKLE_DICTIONARY ? json_object() : json_array(), out));
        status = value->kind == VL_PICKLE_DICTIONARY ? walk_dictionary(state, value, depth, *out)
                                                     : walk_list(state, value, depth, *out);
        if (status) json_decref(*out);
        return status;
    case VL_PICKLE_TENSOR: *out = NULL; return add_entry(state, value->as.tensor);
    case VL_PICKLE_LONG: return vl_error(VL_UNSUPPORTED, "an integer has more than 64 bits");
    case VL_PICKLE_NAME:
    case VL_PICKLE_STORAGE: break;
    }
    return vl_error(VL_UNSUPPORTED, "a type or a bare storage is stored as data; only tensors and plain data are read");
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const VlTorchEntry *)a)->name, ((const VlTorchEntry *)b)->name);
}

VlStatus vl_torch_walk(VlTorchFile *file, const VlPickleValue *result, const char *prefix) {
    Walk state = {.file = file, .prefix = prefix};
    json_t *data = NULL;
    VlStatus status = walk(&state, result, 0, &data);
    if (status && state.length) vl_error_context(status, "at '%.200s'", state.path);
    VL_TRY(status);
    file->data = data;
    if (file->count) qsort(file->entries, (size_t)file->count, sizeof *file->entries, compare_names);
    for (int64_t i = 1; i < file->count; i++) {
        if (!strcmp(file->entries[i - 1].name, file->entries[i].name)) {
            return vl_error(VL_FORMAT, "two tensors have the name '%.200s'", file->entries[i].name);
        }
    }
    return VL_OK;
}
