// What a conversion reads: the tensors of a model under their Hugging Face names, wherever they lie, and the files that
// go with them.
#ifndef VL_TRAIN_CONVERT_SOURCE_H
#define VL_TRAIN_CONVERT_SOURCE_H

#include "model/params.h"
#include "train/checkpoint_manifest.h"
#include "train/convert.h"

typedef struct VlConvertTensor {
    char *name;
    VlTensor shape;  // as stored: dtype and extents
    bool scalar;
    VlDtype to;                // the dtype that is asked for
    const VlWeights *weights;  // where it lies; NULL: in no file, drawn from `init` under `seed`
    const VlWeightsEntry *entry;
    const char *hash;  // what a checkpoint says of it; NULL elsewhere
    VlInit init;
    uint64_t seed;
} VlConvertTensor;

// A file beside the weights. Its content is `text` where there is one, else that of the file at `path`.
typedef struct VlConvertDocument {
    char name[VL_PATH_MAX];  // relative to the model folder
    char path[VL_PATH_MAX];
    char *text;
} VlConvertDocument;

enum { VL_CONVERT_SETS = 24 };

typedef struct VlConvertSource {
    int64_t count, capacity;
    VlConvertTensor *tensors;  // in the order in which they lie in files
    int64_t documents, document_capacity;
    VlConvertDocument *document;
    bool checkpoint;  // a checkpoint, not a Hugging Face folder
    int64_t sets;
    VlWeights set[VL_CONVERT_SETS];
    int64_t manifests;
    VlManifest manifest[VL_CONVERT_SETS];
    const char **hashes[VL_CONVERT_SETS];  // of the manifests' tensors
} VlConvertSource;

// A folder in the Hugging Face layout, a checkpoint, or a run. Errors: VL_IO, VL_FORMAT, VL_UNSUPPORTED.
VlStatus vl_convert_source_open(VlConvertSource *source, const char *path);
// Parts from several places (train/convert.h). config.json is composed from the language model's.
VlStatus vl_convert_source_compose(VlConvertSource *source, const VlConvertOptions *options);
// Audio parts of `options` upon the model that is there: the tower and its numbers in config.json, the projector.
VlStatus vl_convert_source_add_audio(VlConvertSource *source, const VlConvertOptions *options);
// The tensors of an audio tower's own file (model/audio_file.h).
VlStatus vl_convert_source_add_audio_file(VlConvertSource *source, const char *path);
void vl_convert_source_close(VlConvertSource *source);

// Floating-point tensors are asked for as `dtype`, and config.json's torch_dtype says so.
VlStatus vl_convert_source_cast(VlConvertSource *source, VlDtype dtype);

// For those who fill a source.
VlStatus vl_convert_source_add_tensor(VlConvertSource *source, const char *name, VlConvertTensor **tensor);
VlStatus vl_convert_source_open_set(VlConvertSource *source, const char *path, VlWeights **set);
// Tensors of `set` whose names begin with `from` come in with `to` in its place; the others are left out. An existing
// tensor of that name is replaced, and keeps its place and the dtype that was asked for.
VlStatus vl_convert_source_add(VlConvertSource *source, const VlWeights *set, const char **hashes, const char *from,
                               const char *to);
VlConvertTensor *vl_convert_source_find(const VlConvertSource *source, const char *name);
// A file of `folder`, if it is there, or every file at its top that holds no weights, as INSIDE/...; "" for the model
// folder itself.
VlStatus vl_convert_source_add_file(VlConvertSource *source, const char *folder, const char *name, const char *inside);
VlStatus vl_convert_source_add_files(VlConvertSource *source, const char *folder, const char *inside);
VlConvertDocument *vl_convert_source_find_document(const VlConvertSource *source, const char *name);
// Gives a document a new content, or adds it; `json` stays the caller's.
VlStatus vl_convert_source_set_document(VlConvertSource *source, const char *name, const json_t *json);
// A document's content as JSON; VL_IO when it is not there.
VlStatus vl_convert_source_load_document(const VlConvertSource *source, const char *name, json_t **json);

#endif
