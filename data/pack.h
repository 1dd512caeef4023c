// `vl2 pack`: annotations and media become a folder of shards.
//
// The folder holds shard-00000.h5, ... (data/shard.h), pack.json (what was packed how, and the shards with their
// checksums; written anew after each shard) and quarantine.jsonl (one object {"index","id","reason"} per annotation
// that was left out). What is written depends on the annotations, the media and the options, not on threads or
// interruptions: a pack that was killed goes on behind the last complete shard.
#ifndef VL_DATA_PACK_H
#define VL_DATA_PACK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "data/preprocess.h"
#include "data/protocol.h"
#include "data/shard.h"

#define VL_PACK_MANIFEST "pack.json"
#define VL_PACK_QUARANTINE "quarantine.jsonl"

typedef struct VlPackReport {
    int64_t annotations;              // looked at
    int64_t samples;                  // packed
    int64_t texts, images, videos;    // of them; videos without their sound
    int64_t sounds, heard_videos;     // of them; heard_videos: videos with their sound
    int64_t media;                    // media records: samples of one shard about the same file share one
    int64_t silent;                   // of them, videos to be heard that have no sound track: silence was packed
    int64_t bad;                      // left out because they could not be packed
    int64_t bad_in_a_row;             // at this moment
    int64_t shards;                   // complete
    int64_t resumed_shards;           // of them, from an earlier call
    int64_t bytes, stored;            // of the complete shards' records; the same compressed
    int64_t list_bytes, list_offset;  // size of the annotation file, and how far it is read
} VlPackReport;

typedef struct VlPackOptions {
    const char *annotations;  // a JSON list, JSON lines or a table (data/annotations.h); read as a stream
    const char *media;        // folder that the annotations' paths are relative to
    const char *shards;       // folder to write; created
    const char *model;        // model folder: its tokenizer, chat template and image preprocessing
    VlAspect aspect;
    VlProtocol protocol;
    int64_t num_frames;    // of a video
    bool has_audio;        // the model has an audio tower; without one, samples with sound are bad ones
    double sound_seconds;  // what is heard of a sound, as in VlAudioOptions
    bool sound_bf16;       // filter banks are rounded to bfloat16
    int64_t threads;       // at least 1
    int64_t shard_bytes;   // uncompressed bytes after which a shard is closed, as with 65,536 samples; 0: 256 MiB
    int64_t bad_samples;   // more bad samples than this end the run
    int64_t bad_in_a_row;  // the same, one after the other
    void (*progress)(void *user, const VlPackReport *report);  // from the calling thread, often; NULL: none
    void *progress_user;
} VlPackOptions;

// How frames are made, as text of at most VL_PREPROCESSING_MAX bytes: shards carry it, and the loader compares it.
VlStatus vl_pack_fingerprint(const VlPreprocessConfig *config, VlAspect aspect, VlProtocol protocol, int64_t num_frames,
                             char *text);

// The same for filter banks, as text of at most VL_SOUND_PREPROCESSING_MAX bytes. A model without an audio tower has
// "".
void vl_pack_sound_fingerprint(double sound_seconds, bool sound_bf16, char *text);

// Packs. Errors: VL_INVALID (a folder that was packed with other options or annotations), VL_FORMAT (over a limit of
// bad samples, an annotation file that is no JSON, nothing to pack), VL_IO. *report is filled on failure, too.
VlStatus vl_pack(const VlPackOptions *options, VlPackReport *report);

// Reads every byte of a packed folder again: checksums of the files and of the records, and the records' content.
// Errors: VL_FORMAT naming the first damaged shard, VL_IO. *report: the sums over the shards.
VlStatus vl_pack_check(const char *folder, int64_t threads, VlPackReport *report);

#endif
