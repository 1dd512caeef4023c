// `vl2 world`: a small world of moving, sounding shapes that makes its own training data: real media files and
// LLaVA-style annotations, and a model folder without weights whose tokenizer knows the world's words.
//
// FOLDER/media/        clips (MP4, 64 x 64, 24 frames at 12 fps, with sound at 16 kHz) and pictures (PNG)
// FOLDER/things.json   one question about each picture of one thing: what it is
// FOLDER/warmup.json   questions about pictures, and text alone: what stands for the public tower and language model
// FOLDER/pretrain.json captions of clips and pictures
// FOLDER/finetune.json several questions about each clip and each picture
// FOLDER/heldout.json  one question a sample, with its "kind"; combinations of shape, colour and motion (or place)
//                      that no other file shows
// FOLDER/audio.json, audiovisual.json: questions about the sound, and about sound and picture together
// FOLDER/model/        config.json, a CLIP tower's folder, tokenizer
//
// Questions of time have no answer in a single frame: a path's middle lies anywhere, whatever its direction; a clip
// and its reversal are equally likely, so that the set of its frames without their order tells nothing either (of
// directions it tells the axis, of an order of appearance the two candidates, of bounces how far the path reaches).
#ifndef VL_DATA_WORLD_H
#define VL_DATA_WORLD_H

#include <stdint.h>

#include "base/status.h"

typedef struct VlWorldOptions {
    int64_t seed;
    int64_t samples;  // clips to train on; the pictures are six times as many
    int64_t heldout;  // questions held out, of all kinds together
    int64_t threads;  // that render and encode; what is written does not depend on it
} VlWorldOptions;

typedef struct VlWorldReport {
    int64_t clips, pictures;                                                  // media files
    int64_t things, warmup, pretrain, finetune, heldout, audio, audiovisual;  // samples of each file
    int64_t vocabulary;
} VlWorldReport;

// Writes the world into `folder` (made when missing; files of an earlier world are replaced), the annotations last.
// Errors: VL_INVALID (options), VL_IO, VL_UNSUPPORTED (a build without the media libraries).
VlStatus vl_world_make(const char *folder, const VlWorldOptions *options, VlWorldReport *report);

#endif
