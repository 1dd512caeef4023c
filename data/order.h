// Which sample stands at which position of a run: a pure function of (seed, sizes and weights of the sources, mix),
// computed for any position in time that does not depend on it. It knows nothing of ranks, threads or batches.
//
// A pass over the data holds round(size * weight) samples of each source. Sample j of a source's n in a pass belongs at
// the time (j + 1/2) / n, and the pass is all of them by time (ties: the first source first), so that any stretch of
// positions holds the sources in their proportions, off by at most one or so each. Which sample of the source that is,
// a keyed permutation says, anew each time all of the source's samples have been reached.
#ifndef VL_DATA_ORDER_H
#define VL_DATA_ORDER_H

#include <stdint.h>

#include "base/status.h"
#include "data/sample.h"

// What a sample is to a pattern: its VlModal, or a video with its sound.
enum { VL_ORDER_AV = VL_MODAL_AUDIO + 1, VL_ORDER_MODALITIES };

typedef struct VlOrderSource {
    int64_t samples;          // at least 1
    double weight;            // above 0
    const uint8_t *modality;  // [samples] VlModal or VL_ORDER_AV of each; used while the order is made, and only for a
                              // pattern
} VlOrderSource;

typedef struct VlOrderPlace {
    int64_t source, index;
    int64_t epoch;  // pass over the data, from 0
} VlOrderPlace;

typedef struct VlOrder VlOrder;

// mix: "proportional"; or a pattern such as "v,v,i,t" (av video with its sound, a audio, v video, i image, t text) that
// repeats over the positions: each modality then has a pass of its own, over the sources that hold it, and starts it
// again when it is through.
// Errors: VL_INVALID: no samples, a weight that rounds to none, a pattern's modality that no source holds, or one that
// the sources hold and the pattern would never reach; VL_USAGE for a mix that is neither.
VlStatus vl_order_create(VlOrder **order, const VlOrderSource *sources, int64_t count, const char *mix, uint64_t seed);
void vl_order_free(VlOrder *order);

int64_t vl_order_samples(const VlOrder *order);                    // of one pass: the sum of round(size * weight)
VlOrderPlace vl_order_at(const VlOrder *order, int64_t position);  // position >= 0

#endif
