// From sequences as the data pipeline gives them (ids with modality ids inside) to a packed micro-batch.
#ifndef VL_MODEL_BATCH_BUILD_H
#define VL_MODEL_BATCH_BUILD_H

#include "model/batch.h"
#include "model/config.h"

// What one modality id stands for: an image, a video, a sound, or a video with its sound.
typedef struct VlMedium {
    int64_t frames;       // 1 for an image, 0 for a sound
    const float *pixels;  // [frames,3,image_size,image_size], normalised; NULL: the caller fills VlBatch.pixels
    int64_t rows;         // of the sound's filter bank; 0: no sound
    const float *fbank;   // [rows,128], not normalised; NULL: in a batch for planning
} VlMedium;

typedef struct VlSequence {
    int64_t tokens;         // before expansion
    const int64_t *ids;     // [tokens] in [0, vocabulary), or VL_IMAGE_ID, VL_VIDEO_ID, VL_AUDIO_ID
    const int64_t *labels;  // [tokens] in [0, vocabulary), or VL_IGNORE; NULL: nothing is labelled
    int64_t media;
    const VlMedium *medium;  // [media] in the order of the modality ids
} VlSequence;

// Tokens of a sequence after expansion. Errors: VL_INVALID naming the position and the id that cannot be honoured: an
// id outside of the vocabulary, more or fewer modality ids than media, an image of more than one frame, a medium that
// the model has no tower for.
VlStatus vl_sequence_tokens(const VlModelConfig *config, const VlSequence *sequence, int64_t *tokens);

// Packs `count` sequences. Position t predicts the label of position t + 1 of the same sequence after expansion;
// inserted positions carry no label, and the label at a modality id goes with it. An image stands for num_frames equal
// frames. What *batch holds belongs to the caller: vl_batch_free. Errors: as vl_sequence_tokens with the sequence's
// number; VL_OUT_OF_MEMORY.
VlStatus vl_batch_build(VlBatch *batch, const VlModelConfig *config, int64_t count, const VlSequence *sequences);
void vl_batch_free(VlBatch *batch);

#endif
