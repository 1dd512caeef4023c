// Batches of samples from packed shards, in an order that is a pure function of (seed, epoch, sources, mix):
// independent of the number of ranks and of threads. The only state is the step.
#ifndef VL_DATA_LOADER_H
#define VL_DATA_LOADER_H

#include "data/prompt.h"
#include "data/sample.h"
#include "data/tokenizer.h"

typedef struct VlSource {
    const char *shards;  // folder that `vl2 pack` wrote
    double weight;       // samples of this source per pass over the data, as a multiple of its size
} VlSource;

typedef struct VlLoaderOptions {
    int64_t sources;
    const VlSource *source;
    const char *mix;  // "proportional", or a fixed pattern of modalities per batch such as "v,v,i,t"
    uint64_t seed;
    int64_t global_batch;  // samples per step, of all ranks
    int64_t rank, ranks;
    int64_t threads;   // reading and decompressing ahead; at least 1
    int64_t prefetch;  // steps held ready at most
    const VlTokenizer *tokenizer;
    VlProtocol protocol;
    VlPromptMode mode;  // train-plain or train-sft
    int64_t max_tokens;
    bool truncate_expanded;  // cut by the length with modality tokens, their span kept whole; false: by the ids alone
    int64_t num_frames;      // of the model; shards with frames must hold as many
    VlMediaTokens media_tokens;
    void *media_tokens_user;
    int64_t height, width;      // the frames' size that the model needs; shards with frames of another size are refused
    const char *preprocessing;  // its fingerprint; shards with frames that were made otherwise are refused
    const char *sound;  // the same for filter banks, and shards with sounds; NULL or "": the model has no audio tower
} VlLoaderOptions;

typedef struct VlLoader VlLoader;

// Opens the shards of all sources and starts the reading threads. Errors: VL_IO, VL_FORMAT, VL_INVALID naming the
// shard.
VlStatus vl_loader_open(VlLoader **loader, const VlLoaderOptions *options);
void vl_loader_close(VlLoader *loader);

// Samples in one pass over all sources (their sizes times their weights, rounded), and a hash of what they hold, so
// that a resumed run notices changed data.
int64_t vl_loader_epoch_samples(const VlLoader *loader);
uint64_t vl_loader_data_hash(const VlLoader *loader);

// The samples of global step `step` (from 0) that this rank works on, in order of position: *samples and its count
// belong to the loader until the next call. Dealt to the ranks by predicted cost, longest first, so that the ranks'
// work is even. Steps may be asked for from any start, then one after the other. A sample that cannot be read comes as
// a bad one, never as another sample. Not collective. *wait_seconds: time spent waiting for the reading threads.
VlStatus vl_loader_next(VlLoader *loader, int64_t step, VlSample **samples, int64_t *count, double *wait_seconds);
// How many samples were cut to max_tokens so far.
int64_t vl_loader_truncated(const VlLoader *loader);
// Whether any source holds sounds.
bool vl_loader_has_sound(const VlLoader *loader);

#endif
