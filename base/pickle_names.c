#include <string.h>

#include "base/memory.h"
#include "base/pickle_internal.h"

typedef enum Action { STORAGE_TYPE, ORDERED_DICT, SET_TYPE, SIZE_TYPE, ENCODE, TENSOR, TENSOR_V2, PARAMETER } Action;

static const struct {
    const char *module, *name;
    Action action;
    VlDtype dtype;  // of a storage type
} names[] = {
    {"collections", "OrderedDict", ORDERED_DICT, 0},
    {"torch._utils", "_rebuild_tensor_v2", TENSOR_V2, 0},
    {"torch._utils", "_rebuild_parameter", PARAMETER, 0},
    {"torch._utils", "_rebuild_tensor", TENSOR, 0},
    {"torch", "FloatStorage", STORAGE_TYPE, VL_F32},
    {"torch", "BFloat16Storage", STORAGE_TYPE, VL_BF16},
    {"torch", "HalfStorage", STORAGE_TYPE, VL_F16},
    {"torch", "DoubleStorage", STORAGE_TYPE, VL_F64},
    {"torch", "LongStorage", STORAGE_TYPE, VL_I64},
    {"torch", "IntStorage", STORAGE_TYPE, VL_I32},
    {"torch", "ShortStorage", STORAGE_TYPE, VL_I16},
    {"torch", "CharStorage", STORAGE_TYPE, VL_I8},
    {"torch", "ByteStorage", STORAGE_TYPE, VL_U8},
    {"torch", "BoolStorage", STORAGE_TYPE, VL_BOOL},
    {"torch", "Size", SIZE_TYPE, 0},
    {"_codecs", "encode", ENCODE, 0},  // bytes in protocol 2: a text and "latin1"
    {"builtins", "set", SET_TYPE, 0},
    {"__builtin__", "set", SET_TYPE, 0},  // its name in protocol 2
};
enum { NAMES = sizeof names / sizeof *names };

bool vl_pickle_is_text(const VlPickleValue *value, const char *text) {
    size_t length = strlen(text);
    return value->kind == VL_PICKLE_TEXT && value->as.text.length == (int64_t)length &&
           !memcmp(value->as.text.bytes, text, length);
}

VlStatus vl_pickle_name(VlPickle *pickle, const VlPickleValue *module, const VlPickleValue *name,
                        VlPickleValue **value) {
    if (module->kind != VL_PICKLE_TEXT || name->kind != VL_PICKLE_TEXT) {
        return vl_error(VL_FORMAT, "the pickle asks for a name that is no text");
    }
    for (int i = 0; i < NAMES; i++) {
        if (!vl_pickle_is_text(module, names[i].module) || !vl_pickle_is_text(name, names[i].name)) continue;
        VL_TRY(vl_pickle_make(pickle, VL_PICKLE_NAME, value));
        (*value)->as.integer = i;
        return VL_OK;
    }
    int module_length = module->as.text.length < 100 ? (int)module->as.text.length : 100;
    int name_length = name->as.text.length < 100 ? (int)name->as.text.length : 100;
    return vl_error(VL_UNSUPPORTED, "the pickle asks for %.*s.%.*s; only tensors and plain data are read",
                    module_length, module->as.text.bytes, name_length, name->as.text.bytes);
}

// ---- Tensors ---------------------------------------------------------------

VlStatus vl_pickle_storage(VlPickle *pickle, const VlPickleValue *description, VlPickleValue **value) {
    VlPickleValue **items = description->as.list.items;
    int64_t count = description->kind == VL_PICKLE_TUPLE ? description->as.list.count : 0;
    // ("storage", type, key, location, elements); before PyTorch 1.6 also a view of another storage, or None
    if ((count != 5 && count != 6) || !vl_pickle_is_text(items[0], "storage") || items[1]->kind != VL_PICKLE_NAME ||
        names[items[1]->as.integer].action != STORAGE_TYPE || items[2]->kind != VL_PICKLE_TEXT ||
        items[4]->kind != VL_PICKLE_INTEGER || items[4]->as.integer < 0) {
        return vl_error(VL_FORMAT, "a storage's description in the pickle is damaged");
    }
    if (count == 6 && items[5]->kind != VL_PICKLE_NONE) {
        return vl_error(VL_UNSUPPORTED, "a storage is a view of another storage; save the file with PyTorch >= 1.6");
    }
    if (items[2]->as.text.length > VL_PICKLE_KEY_LIMIT ||
        memchr(items[2]->as.text.bytes, '\0', (size_t)items[2]->as.text.length)) {
        return vl_error(VL_FORMAT, "a storage's name in the pickle is damaged");
    }
    VL_TRY(vl_pickle_make(pickle, VL_PICKLE_STORAGE, value));
    (*value)->as.storage.key = items[2];
    (*value)->as.storage.dtype = names[items[1]->as.integer].dtype;
    (*value)->as.storage.elements = items[4]->as.integer;
    return VL_OK;
}

// The view must stay in its storage and have no more elements than that: then no tensor is larger than what the file
// holds.
static VlStatus check_view(const VlPickleTensor *view) {
    int64_t elements = view->storage->as.storage.elements, last = view->offset, count = 1;
    for (int32_t i = 0; i < view->tensor.dims; i++) {
        int64_t extent = view->tensor.dim[i], reach;
        if (extent == 0) return VL_OK;
        if (!vl_multiply(count, extent, &count) || !vl_multiply(extent - 1, view->stride[i], &reach) ||
            !vl_add(last, reach, &last)) {
            return vl_error(VL_FORMAT, "a tensor's size overflows: %s", vl_describe(view->tensor));
        }
    }
    if (last >= elements) {
        return vl_error(VL_FORMAT, "a tensor %s reaches element %lld of its storage, which has %lld",
                        vl_describe(view->tensor), (long long)last, (long long)elements);
    }
    if (count > elements) {
        return vl_error(VL_UNSUPPORTED, "a tensor %s repeats elements of its storage; save it after .contiguous()",
                        vl_describe(view->tensor));
    }
    return VL_OK;
}

// items: storage, offset, extents, strides.
static VlStatus read_view(VlPickleValue *const *items, VlPickleTensor *view) {
    const VlPickleValue *extents = items[2], *strides = items[3];
    if (items[0]->kind != VL_PICKLE_STORAGE || items[1]->kind != VL_PICKLE_INTEGER ||
        extents->kind != VL_PICKLE_TUPLE || strides->kind != VL_PICKLE_TUPLE ||
        extents->as.list.count != strides->as.list.count) {
        return vl_error(VL_FORMAT, "a tensor's description in the pickle is damaged");
    }
    int64_t dims = extents->as.list.count;
    if (dims > VL_MAX_DIMS) {
        return vl_error(VL_UNSUPPORTED, "a tensor has %lld extents; at most %d are supported", (long long)dims,
                        VL_MAX_DIMS);
    }
    view->storage = items[0];
    view->offset = items[1]->as.integer;
    view->scalar = dims == 0;
    view->tensor = (VlTensor){.dtype = items[0]->as.storage.dtype, .dims = dims ? (int32_t)dims : 1, .dim = {1}};
    view->stride[0] = 1;
    if (view->offset < 0) return vl_error(VL_FORMAT, "a tensor's offset is negative: %lld", (long long)view->offset);
    for (int64_t i = 0; i < dims; i++) {
        const VlPickleValue *extent = extents->as.list.items[i], *stride = strides->as.list.items[i];
        if (extent->kind != VL_PICKLE_INTEGER || stride->kind != VL_PICKLE_INTEGER) {
            return vl_error(VL_FORMAT, "a tensor's extent or stride is no integer of 64 bits");
        }
        if (extent->as.integer < 0 || stride->as.integer < 0) {
            return vl_error(VL_FORMAT, "a tensor's extent or stride is negative: %lld, %lld",
                            (long long)extent->as.integer, (long long)stride->as.integer);
        }
        view->tensor.dim[i] = extent->as.integer;
        view->stride[i] = stride->as.integer;
    }
    return check_view(view);
}

static VlStatus make_tensor(VlPickle *pickle, VlPickleValue *const *items, VlPickleValue **value) {
    VlPickleTensor view = {0};
    VL_TRY(read_view(items, &view));
    VL_TRY(vl_pickle_make(pickle, VL_PICKLE_TENSOR, value));
    VL_TRY(VL_NEW(&(*value)->as.tensor, 1));
    *(*value)->as.tensor = view;
    return VL_OK;
}

// ---- Calls -----------------------------------------------------------------

// A tensor with lazy conjugation or negation says so behind its backward hooks.
static VlStatus make_tensor_v2(VlPickle *pickle, const VlPickleValue *arguments, VlPickleValue **value) {
    const VlPickleValue *bits = arguments->as.list.count == 7 ? arguments->as.list.items[6] : NULL;
    if (bits && bits->kind != VL_PICKLE_NONE && (bits->kind != VL_PICKLE_DICTIONARY || bits->as.list.count)) {
        return vl_error(VL_UNSUPPORTED, "a tensor is stored negated or conjugated; save it after .resolve_neg()");
    }
    return make_tensor(pickle, arguments->as.list.items, value);
}

VlStatus vl_pickle_reduce(VlPickle *pickle, const VlPickleValue *callable, VlPickleValue *arguments,
                          VlPickleValue **value) {
    if (callable->kind != VL_PICKLE_NAME || arguments->kind != VL_PICKLE_TUPLE) {
        return vl_error(VL_FORMAT, "the pickle calls what is no name, or without a tuple of arguments");
    }
    VlPickleValue **items = arguments->as.list.items;
    int64_t count = arguments->as.list.count;
    switch (names[callable->as.integer].action) {
    case ORDERED_DICT:
        if (count == 0) return vl_pickle_make(pickle, VL_PICKLE_DICTIONARY, value);
        break;
    case SIZE_TYPE:
        if (count != 1 || items[0]->kind != VL_PICKLE_TUPLE) break;
        *value = items[0];
        return VL_OK;
    case ENCODE:
        if (count != 2 || items[0]->kind != VL_PICKLE_TEXT || !vl_pickle_is_text(items[1], "latin1")) break;
        *value = items[0];
        return VL_OK;
    case SET_TYPE:
        if (count != 1 || items[0]->kind != VL_PICKLE_LIST) break;
        *value = items[0];
        return VL_OK;
    case TENSOR:
        if (count == 4) return make_tensor(pickle, items, value);
        break;
    case TENSOR_V2:
        if (count == 6 || count == 7) return make_tensor_v2(pickle, arguments, value);
        break;
    case PARAMETER:  // the tensor, requires_grad, backward hooks
        if (count != 3 || items[0]->kind != VL_PICKLE_TENSOR) break;
        *value = items[0];
        return VL_OK;
    case STORAGE_TYPE: break;
    }
    return vl_error(VL_UNSUPPORTED, "the pickle calls %s.%s with arguments that are not known",
                    names[callable->as.integer].module, names[callable->as.integer].name);
}
