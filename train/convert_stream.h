// The data of a conversion, passed in pieces: read, cast, hashed, and written or compared, by several threads at once.
#ifndef VL_TRAIN_CONVERT_STREAM_H
#define VL_TRAIN_CONVERT_STREAM_H

#include "train/convert_source.h"

// Where a tensor goes.
typedef struct VlConvertPlace {
    int descriptor;
    const char *path;
    int64_t offset;
} VlConvertPlace;

typedef struct VlConvertStream {
    const VlConvertSource *source;
    const VlConvertPlace *places;          // to write: [source->count] into files that hold nothing yet; or
    const VlConvertTensor *const *others;  // to compare: [source->count] what each has to be; NULL to leave one out
    char (*hashes)[VL_HASH_TEXT];          // out: [source->count] of the tensors as they go out
    bool *differs;                         // out, to compare: [source->count]
} VlConvertStream;

// Passes all tensors. Errors: VL_FORMAT for a tensor that does not match the hash that its checkpoint says, VL_INVALID
// for a value that the asked dtype cannot hold, both naming the tensor; VL_IO; VL_INTERRUPTED.
VlStatus vl_convert_stream(const VlConvertStream *stream);

#endif
