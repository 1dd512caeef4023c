// Conversion of models: the Hugging Face layout <-> our checkpoint, in pieces, whatever the model's size.
//
// Comes in: a folder in the Hugging Face layout, a checkpoint of a whole model, a run's checkpoint or output folder
// (with the stages below it), or parts from several places. Goes out: a Hugging Face folder (safetensors, cut into
// shards, with index), or a checkpoint of a whole model, which stands alone: every tensor in its stored type, and the
// configuration and tokenizer files in a sub-folder.
#ifndef VL_TRAIN_CONVERT_H
#define VL_TRAIN_CONVERT_H

#include "base/files.h"
#include "base/tensor.h"
#include "train/tensor_hash.h"

typedef enum VlConvertFormat { VL_CONVERT_OTHER, VL_CONVERT_HF, VL_CONVERT_CHECKPOINT } VlConvertFormat;

typedef struct VlConvertOptions {
    const char *from;  // NULL when the model is made of parts
    // Parts; NULL for those that are missing. A language model and a vision tower are folders, the others files. Audio
    // parts may also be put upon `from`, which becomes a Hugging Face folder then.
    const char *llm, *vision, *connector, *audio, *audio_projector;
    const char
        *connector_type;  // of the composed config.json; NULL: stc_connector for CLIP, stc_connector_v35 for SigLIP
    int64_t frames;       // its num_frames; 0: 8 for CLIP, 16 for SigLIP
    const char *to;
    VlConvertFormat format;  // VL_CONVERT_OTHER: the other kin of `from`; parts become a Hugging Face folder
    bool cast;               // floating-point tensors become `dtype`: f32, bf16 or f16; else each keeps its own
    VlDtype dtype;
    int64_t shard_bytes;  // a file holds at most so many bytes of tensors, or one tensor
    bool verify;
} VlConvertOptions;

typedef struct VlConvertReport {
    int64_t tensors, bytes;  // of what was written or compared
    bool written, compared;
    char hash[VL_HASH_TEXT];  // over names, types, shapes and hashes of all tensors in order of their names
} VlConvertReport;

// Called for every tensor in order of names, at the end.
typedef void (*VlConvertVisit)(void *user, const char *name, VlTensor shape, bool scalar, const char *hash);

// Converts, under a temporary name beside `to`, fsynced and renamed at the end: `to` is there whole or not at all. With
// `verify`, the result is then read back and compared, tensor by tensor, with what comes in; where `to` exists already,
// that is all that is done. Values that change their type are rounded to the nearest, ties to even; a finite value that
// would become infinite is an error. Checkpoints that come in are checked against their hashes as they pass. `visit`
// may be NULL. Errors: VL_INVALID (`to` exists), VL_FORMAT naming the first tensor that differs and how many do, VL_IO,
// ...; VL_INTERRUPTED. Nothing is left behind after an error.
VlStatus vl_convert_model(const VlConvertOptions *options, VlConvertReport *report, VlConvertVisit visit, void *user);

#endif
