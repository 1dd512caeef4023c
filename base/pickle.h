// A restricted machine for Python's pickles, protocols 2 to 5, as torch.save writes them: plain data and the
// descriptions of tensors. It calls nothing and imports nothing: a name that the pickle asks for is looked up in a
// fixed list of types and of ways to describe a tensor, any other is refused.
#ifndef VL_BASE_PICKLE_H
#define VL_BASE_PICKLE_H

#include "base/status.h"
#include "base/tensor.h"

enum { VL_PICKLE_KEY_LIMIT = 200 };

typedef enum VlPickleKind {
    VL_PICKLE_NONE,
    VL_PICKLE_BOOL,
    VL_PICKLE_INTEGER,  // of at most 64 bits
    VL_PICKLE_LONG,     // of more bits; only to be compared
    VL_PICKLE_REAL,
    VL_PICKLE_TEXT,  // bytes that claim to be UTF-8
    VL_PICKLE_BYTES,
    VL_PICKLE_LIST,  // or a set
    VL_PICKLE_TUPLE,
    VL_PICKLE_DICTIONARY,
    VL_PICKLE_NAME,     // a type or function of the fixed list
    VL_PICKLE_STORAGE,  // what a tensor's bytes are called in the file
    VL_PICKLE_TENSOR,
} VlPickleKind;

typedef struct VlPickleValue VlPickleValue;

// A view of a storage: strides and offset in elements; inside the storage, and with no more elements than it has.
typedef struct VlPickleTensor {
    const VlPickleValue *storage;
    int64_t offset, stride[VL_MAX_DIMS];
    VlTensor tensor;  // a scalar ([]) is one extent of 1
    bool scalar;
} VlPickleTensor;

struct VlPickleValue {
    VlPickleKind kind;
    union {
        int64_t integer;  // also BOOL; of a NAME its place in the list
        double real;
        struct {
            const char *bytes;  // inside the pickle's text
            int64_t length;
        } text;
        struct {
            VlPickleValue **items;  // of a dictionary: key, value, key, value, ...
            int64_t count, capacity;
        } list;
        struct {
            const VlPickleValue *key;  // a TEXT of at most VL_PICKLE_KEY_LIMIT bytes without a zero byte
            VlDtype dtype;
            int64_t elements;
        } storage;
        VlPickleTensor *tensor;
    } as;
};

// The values of one pickle. They may refer to each other in circles: who walks them must bound the depth and the number
// of steps.
typedef struct VlPickle {
    VlPickleValue *result;
    int64_t used;            // bytes of the text up to and with the end of the pickle
    int64_t values;          // made so far
    VlPickleValue storages;  // a LIST of all that were described
    struct VlPickleBlock *blocks;
} VlPickle;

// Runs the pickle at the begin of `text`, which must stay until vl_pickle_free. Bounded: 2 million values, 2 million
// places of the memo. Errors: VL_FORMAT (damaged), VL_UNSUPPORTED (what it asks for), VL_OUT_OF_MEMORY.
VlStatus vl_pickle_run(VlPickle *pickle, const char *text, int64_t size);
bool vl_pickle_is_text(const VlPickleValue *value, const char *text);
void vl_pickle_free(VlPickle *pickle);

#endif
