// One packed micro-batch as the model takes it: host memory, filled by the batch builder, read by the model.
//
// Sequences stand one behind the other; attention never crosses a sequence, positions restart in each. The place of a
// modality id is taken by that item's features.
#ifndef VL_MODEL_BATCH_H
#define VL_MODEL_BATCH_H

#include <stdbool.h>
#include <stdint.h>

enum { VL_IGNORE = -100, VL_IMAGE_ID = -200, VL_VIDEO_ID = -201, VL_AUDIO_ID = -202 };

typedef struct VlVisual {
    int64_t first_frame;  // of its frames in VlBatch.pixels
    int64_t frames;       // stored frames; an image has 1
    int64_t repeat;       // each stored frame stands for so many (an image: num_frames; a video: 1)
} VlVisual;

typedef struct VlBatch {
    int64_t sequences;
    int64_t tokens;       // after splicing, of all sequences
    int64_t *cu_seqlens;  // [sequences + 1]
    int64_t *positions;   // [tokens] 0, 1, ... in each sequence
    int64_t text_tokens;
    int64_t *text_ids;  // [text_tokens]
    // [tokens] >= 0: row of text_ids; < 0: row -1 - source of the media's tokens: those of all visuals in order, then
    // those of all sounds.
    int64_t *source;
    int64_t *targets;  // [tokens] the id that the position predicts (the next token's label), or VL_IGNORE
    int64_t labels;    // positions whose target is not VL_IGNORE
    int64_t visuals;
    VlVisual *visual;       // [visuals]
    int64_t frames;         // stored frames of all visuals
    float *pixels;          // [frames,3,h,w], normalised
    int64_t visual_tokens;  // of all visuals
    int64_t sounds;
    int64_t *sound_rows;   // [sounds] fbank rows of each
    int64_t fbank_rows;    // of all sounds
    float *fbank;          // [fbank_rows,128], normalised
    int64_t sound_tokens;  // of all sounds
} VlBatch;

#endif
