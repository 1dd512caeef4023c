// `vl2 world`: a small world of moving, sounding shapes that makes its own training data: real media files and
// LLaVA-style annotations, and a model folder without weights whose tokenizer knows the world's words.
//
// FOLDER/media/        clips (MP4, 64 x 64, 24 frames at 12 fps, with sound at 16 kHz), pictures (PNG), sounds (FLAC)
// FOLDER/things.json   one question about each picture of one thing: what it is
// FOLDER/warmup.json   questions about pictures, and text alone: what stands for the public tower and language model
// FOLDER/texts.json    text alone that prepares for sounds: questions about descriptions of them
// FOLDER/pretrain.json captions of clips and pictures
// FOLDER/finetune.json several questions about each clip and each picture
// FOLDER/audio-pretrain.json, audio-finetune.json: captions of sounds, several questions about each sound
// FOLDER/joint.json    questions that picture and sound of a clip answer together: which colour is there when the bell
//                      is heard, and which when nothing is heard
// FOLDER/heldout.json  one question a sample, with its "kind"; combinations of shape, colour and motion (or place), of
//                      voices and times of a sound, of things and sounds that no other file has
// FOLDER/model/        config.json, a CLIP tower's folder, tokenizer
//
// Questions of time have no answer in a single frame: a path's middle lies anywhere, whatever its direction; a clip
// and its reversal are equally likely, so that the set of its frames without their order tells nothing either (of
// directions it tells the axis, of an order of appearance the two candidates, of bounces how far the path reaches).
//
// Questions about what is seen and heard together come in fours: a clip of two things, one after the other, and of one
// sound, its twin with the things exchanged, its twin with the sound in the other half, and the twin of both. Either
// exchange changes the answer, so the picture alone is right half of the time at best, and the sound alone by chance.
#ifndef VL_DATA_WORLD_H
#define VL_DATA_WORLD_H

#include <stdint.h>

#include "base/status.h"

typedef struct VlWorldOptions {
    int64_t seed;
    int64_t samples;  // clips to train on; the pictures are six times as many
    int64_t heldout;  // questions held out about pictures and clips, of all kinds together; about sounds there are as
                      // many of each kind, about what is seen and heard together twice as many of each
    int64_t threads;  // that render and encode; what is written does not depend on it
} VlWorldOptions;

typedef struct VlWorldReport {
    int64_t clips, pictures, sounds;                                                                    // media files
    int64_t things, warmup, pretrain, finetune, heldout, texts, audio_pretrain, audio_finetune, joint;  // samples
    int64_t vocabulary;
} VlWorldReport;

// Writes the world into `folder` (made when missing; files of an earlier world are replaced), the annotations last.
// Errors: VL_INVALID (options), VL_IO, VL_UNSUPPORTED (a build without the media libraries).
VlStatus vl_world_make(const char *folder, const VlWorldOptions *options, VlWorldReport *report);

#endif
