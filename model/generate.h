// Continues a sequence token by token: prefill of the prompt, then one token at a time through the key/value cache.
#ifndef VL_MODEL_GENERATE_H
#define VL_MODEL_GENERATE_H

#include "model/batch_build.h"
#include "model/vlm.h"

typedef struct VlGenerateOptions {
    int64_t max_new_tokens;  // at least 1
    double temperature;      // 0: the most likely token each time
    double top_p;   // in (0,1]: sample from the smallest set of likeliest tokens that holds so much probability
    int64_t top_k;  // ... of at most so many tokens, likeliest first; 0: of any number
    uint64_t seed;  // of the draws
    double repetition_penalty;  // logits of ids that the answer holds are divided (below zero: multiplied); 0 or 1: not
    int64_t stops;
    const int64_t *stop;  // [stops] ids that end the answer
    // Called with every new token as it comes; an error ends the generation and is handed on. NULL: nobody listens.
    VlStatus (*token)(void *user, int64_t id);
    void *user;
} VlGenerateOptions;

// New ids to `ids` [max_new_tokens], their number to *count; a stop id is the last of them. The same inputs give the
// same ids. The arenas of the model's context are bound anew where they are too small (vl_vlm_prepare). Errors:
// VL_INVALID for an empty prompt, options out of range, or logits that are not finite; VL_UNSUPPORTED when the prompt
// with the longest answer is longer than the model's window; as vl_batch_build.
VlStatus vl_generate(VlVlm *model, const VlSequence *prompt, const VlGenerateOptions *options, int64_t *ids,
                     int64_t *count);

// The next id from logits[vocabulary] by options' rule; draw number `draw` of its seed. `order` is room for vocabulary
// numbers. Source: Holtzman et al., "The curious case of neural text degeneration", 2020 (top-p); the order top-k, then
// top-p over what is left, as in Hugging Face's generate.
VlStatus vl_generate_choose(const VlGenerateOptions *options, const float *logits, int64_t vocabulary, int64_t draw,
                            int64_t *order, int64_t *id);

#endif
