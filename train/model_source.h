// Where a model's values come from: a folder in the Hugging Face layout or a checkpoint that holds a whole model, and
// upon it the checkpoints of the stages since, in order.
#ifndef VL_TRAIN_MODEL_SOURCE_H
#define VL_TRAIN_MODEL_SOURCE_H

#include "dist/comm.h"
#include "model/load.h"
#include "model/vlm.h"
#include "train/config.h"

enum { VL_SOURCE_CHECKPOINTS = 16 };
#define VL_MODEL_FOLDER "model"  // in a checkpoint of a whole model: what is no weights of a Hugging Face folder

typedef struct VlModelSource {
    char path[VL_PATH_MAX];  // as it was asked for, made absolute; a run's folder is replaced by its newest checkpoint
    char folder[VL_PATH_MAX];  // the Hugging Face folder at the root: configuration, tokenizer, frozen parts
    char model[VL_PATH_MAX];   // or the checkpoint of a whole model, "" otherwise; `folder` is then the one inside it
    int64_t checkpoints;       // applied one after the other
    char checkpoint[VL_SOURCE_CHECKPOINTS][VL_PATH_MAX];
    int64_t seed;  // initialises what the folder lacks
    // Of the newest checkpoint's run; 0 and "" for a folder: frames of a video, data.sound_seconds, data.aspect,
    // data.protocol, data.fbank_dtype.
    int64_t frames;
    double sound_seconds;
    char aspect[VL_CONFIG_TEXT], protocol[VL_CONFIG_TEXT], fbank_dtype[VL_CONFIG_TEXT];
    char hash[33];  // of all that the values come from; "" until vl_model_source_identify
} VlModelSource;

// Resolves a path: a folder with config.json, a checkpoint (a folder with manifest.json), or a run's output folder (its
// newest checkpoint). `seed` is for a folder; a checkpoint names its own. Errors: VL_IO, VL_FORMAT saying what the path
// is not.
VlStatus vl_model_source_open(VlModelSource *source, const char *path, int64_t seed);
// Whether what lies below each checkpoint is what it was trained upon, by the hashes. VL_FORMAT. Not collective.
VlStatus vl_model_source_check(const VlModelSource *source);
// Fills the model's parameters (bound). Verifies the checkpoints' hashes and that the frozen parts are those the
// checkpoints were trained with. With `complete`, a folder without checkpoints has to hold the whole model; else what
// it lacks is initialised. Collective.
VlStatus vl_model_source_load(const VlModelSource *source, VlContext *context, VlVlm *model, VlComm *comm,
                              bool complete);
// The part of it that reads the root, unverified: the values, or, on a planning context, only what is stored and what
// is not. Not collective.
VlStatus vl_model_source_load_root(const VlModelSource *source, VlContext *context, VlVlm *model, VlLoadReport *report);
// Fills in source->hash, 32 hexadecimal digits: over names and contents of the folder's weight files and configuration,
// or, with checkpoints, over the last one's manifest, which names the hashes of what lies below. One rank reads the
// files. Collective.
VlStatus vl_model_source_identify(VlModelSource *source, VlComm *comm);

#endif
