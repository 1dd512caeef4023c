// What packing does beside the thread that writes: samples are checked and worded, media are decoded.
#ifndef VL_DATA_PACK_WORKER_H
#define VL_DATA_PACK_WORKER_H

#include <jansson.h>

#include "base/pool.h"
#include "data/annotations.h"
#include "data/audio.h"
#include "data/conversation.h"
#include "data/prompt.h"
#include "data/visual.h"

// What all workers read and none changes.
typedef struct VlPackContext {
    VlVisualOptions visual;
    VlAudioOptions audio;  // its source and draw are each file's own
    VlFbank *fbank;        // NULL: the model has no audio tower
    VlTokenizer *tokenizer;
    VlProtocol protocol;
    const char *media;  // folder
} VlPackContext;

// What is seen and heard of one file, decoded once for all samples that wait for it.
typedef struct VlPackMedium {
    VlTask task;
    const VlPackContext *context;
    char *key;         // "image:path", "video:path", "audio:path", "av:path": what the record depends on
    const char *path;  // inside `key`
    VlModal modal;
    bool with_audio;  // a video with its sound
    int64_t frames;
    uint8_t *levels;     // [frames,height,width,3]
    VlFrameTime *times;  // [frames]
    int64_t rows;
    float *fbank;   // [rows,128]
    bool silent;    // the video has no sound track
    int64_t users;  // samples that have not been written yet
} VlPackMedium;

// One annotation on its way.
typedef struct VlPackJob {
    VlTask task;
    const VlPackContext *context;
    int64_t number;
    int64_t row;  // of the table that it stands in; 0: none
    VlConversation conversation;
    char *id, *kind;
    char *reason;  // why it cannot be packed; NULL while it can
    char *text;    // the text record, filled by the task
    int64_t length, tokens;
    char *key;             // of its medium; NULL for text
    VlPackMedium *medium;  // NULL: text, or the shard holds the medium already
} VlPackJob;

// Takes an annotation apart, in the calling thread; `reason` is set where it cannot be packed. Errors only for want of
// memory.
VlStatus vl_pack_job_create(VlPackJob **job, const VlPackContext *context, const VlAnnotation *annotation,
                            int64_t number);
// Keeps the thread's error text as the job's reason, with its row in front. Errors that are no sample's fault are
// handed on.
VlStatus vl_pack_job_blame(VlPackJob *job, VlStatus status);
void vl_pack_job_free(VlPackJob *job);

VlStatus vl_pack_medium_create(VlPackMedium **medium, const VlPackContext *context, const VlPackJob *job);
void vl_pack_medium_free(VlPackMedium *medium);

// The status of a sample's own fault, which leaves its slot out; any other one ends the run.
bool vl_pack_is_bad_sample(VlStatus status);

#endif
