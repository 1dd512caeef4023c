// A sample as training takes it from the loader: token ids with one modality id inside, labels, and the frames as the
// image preprocessor leaves them before normalisation.
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

typedef struct VlSample {
    int64_t position;  // in the global order of the run: step * global_batch + slot
    int64_t source;    // which source of the configuration
    int64_t index;     // which sample of that source
    char *id;          // from the annotation
    char *kind;        // kind of question, from the annotation ("" when it names none); for reports
    VlModal modal;
    int64_t tokens;   // length of ids and labels
    int64_t *ids;     // a modality id is negative (-200 image, -201 video)
    int64_t *labels;  // -100: not labelled
    int64_t frames;   // stored frames (image 1; text 0)
    int64_t height, width;
    uint8_t *pixels;  // [frames,height,width,3]
    bool bad;  // could not be read: an empty slot; `reason` says why, everything else but position, source, index is
               // empty
    char *reason;
} VlSample;

void vl_sample_clear(VlSample *sample);

#endif
