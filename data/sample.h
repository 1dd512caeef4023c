// A sample as training takes it from the loader: token ids with one modality id inside, labels, the frames as the image
// preprocessor leaves them, and the filter bank of its sound; both before normalisation.
#ifndef VL_DATA_SAMPLE_H
#define VL_DATA_SAMPLE_H

#include <stdint.h>

#include "base/status.h"

typedef enum VlModal { VL_MODAL_TEXT, VL_MODAL_IMAGE, VL_MODAL_VIDEO, VL_MODAL_AUDIO } VlModal;

// Where a stored frame comes from.
typedef struct VlFrameTime {
    int64_t index;   // among the video's frames, in presentation order; 0 for a picture; -1 for an appended black frame
    double seconds;  // after the start; -1 for an appended frame
} VlFrameTime;

// Tokens that the model has in the place of a modality id, from the frames and the filter bank's rows that are stored;
// a video's sound comes behind its frames. Called for media, not for text.
typedef int64_t (*VlMediaTokens)(void *user, VlModal modal, int64_t frames, int64_t rows);

typedef struct VlSample {
    int64_t position;  // in the global order of the run: step * global_batch + slot
    int64_t source;    // which source of the configuration
    int64_t index;     // which sample of that source
    char *id;          // from the annotation
    char *kind;        // kind of question, from the annotation ("" when it names none); for reports
    VlModal modal;
    int64_t tokens;   // length of ids and labels
    int64_t *ids;     // a modality id is negative (-200 image, -201 video, -202 audio)
    int64_t *labels;  // -100: not labelled
    int64_t frames;   // stored frames (image 1; text and audio 0)
    int64_t height, width;
    uint8_t *pixels;  // [frames,height,width,3]
    int64_t rows;     // of its sound's filter bank: an audio sample, or a video with its sound; 0: no sound
    float *fbank;     // [rows,128]
    bool bad;  // could not be read: an empty slot; `reason` says why, everything else but position, source, index is
               // empty
    char *reason;
} VlSample;

void vl_sample_clear(VlSample *sample);

#endif
