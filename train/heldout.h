// Held-out samples during and after training: loss, and accuracy per kind of question. An answer counts as right when
// greedy decoding would give it whole, end token included; as each label is then the most likely token after the labels
// before it, one forward pass over question and answer decides it.
#ifndef VL_TRAIN_HELDOUT_H
#define VL_TRAIN_HELDOUT_H

#include "data/loader.h"
#include "data/preprocess.h"
#include "dist/comm.h"
#include "model/vlm.h"

// What is taken away from the samples, to see what an answer rests on.
typedef enum VlControl {
    VL_CONTROL_NONE,
    VL_CONTROL_TEXT_ONLY,   // neither picture nor sound
    VL_CONTROL_ONE_FRAME,   // the middle frame in place of every frame of a video
    VL_CONTROL_SHUFFLED,    // the frames of a video in another order
    VL_CONTROL_VIDEO_ONLY,  // "video-only": no sound, with a video or alone
    VL_CONTROL_AUDIO_ONLY,  // "audio-only": no picture; of a video with its sound, the sound stays
    VL_CONTROL_COUNT
} VlControl;
const char *vl_control_name(VlControl control);

typedef struct VlHeldoutResult {
    int64_t asked, right;        // all ranks
    double accuracy, low, high;  // with the 95 % interval of Wilson's score
} VlHeldoutResult;

typedef struct VlHeldoutKind {
    char *name;
    int64_t questions;                         // of this kind in the annotations
    double chance;                             // always giving the commonest answer would be right so often
    VlHeldoutResult result[VL_CONTROL_COUNT];  // of the last evaluation under each control
} VlHeldoutKind;

typedef struct VlHeldout {
    int64_t kinds, capacity;
    VlHeldoutKind *kind;
    int64_t samples;                // evaluated by one call
    double loss[VL_CONTROL_COUNT];  // of the last evaluation under each control: mean over the label tokens
    VlLoader *loader;
    VlPreprocessConfig preprocess;
    int64_t global_batch, micro_tokens;
    uint64_t seed;
    bool has_sound;  // some samples have one
} VlHeldout;

// Reads the kinds of questions from the annotations (key "kind" of each sample) and opens the packed samples. `loader`
// names everything but the shards. limit 0: all samples.
VlStatus vl_heldout_open(VlHeldout *heldout, const char *annotations, const char *shards, const VlLoaderOptions *loader,
                         const VlPreprocessConfig *preprocess, int64_t micro_tokens, int64_t limit);
void vl_heldout_close(VlHeldout *heldout);
// Whether the control says something of these samples: the two that part sight from hearing do where there is sound.
bool vl_heldout_has_control(const VlHeldout *heldout, VlControl control);
// Fills in the results. Collective.
VlStatus vl_heldout_evaluate(VlHeldout *heldout, VlVlm *model, VlComm *comm, VlControl control);
// Appends {"step", "control", "loss", "kinds": {..}} to PATH as one line.
VlStatus vl_heldout_record(const VlHeldout *heldout, const char *path, int64_t step, VlControl control);

// Whether two kinds of questions belong to one group: their names are equal up to the first '-'.
bool vl_heldout_same_group(const char *a, const char *b);

// The results under all controls side by side as text, one line per kind of question, and one per group of kinds. Owner
// frees *text with free().
VlStatus vl_heldout_table(const VlHeldout *heldout, char **text);

#endif
