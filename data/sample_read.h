// From a shard's records to a sample as training takes it: prompt, labels, truncation.
#ifndef VL_DATA_SAMPLE_READ_H
#define VL_DATA_SAMPLE_READ_H

#include "data/prompt.h"
#include "data/sample.h"
#include "data/shard.h"

typedef struct VlSampleRules {
    const VlTokenizer *tokenizer;
    VlPromptRules prompt;
    int64_t max_tokens;
    bool truncate_expanded;  // as in data/loader.h
    VlMediaTokens media_tokens;
    void *media_tokens_user;
} VlSampleRules;

// Tokens that stand for the medium in the place of its id: 0 for text.
int64_t vl_sample_media_tokens(const VlSampleRules *rules, VlModal modal, int64_t frames, int64_t rows);

// Fills an empty (zeroed) sample but its position, source and index; the owner clears it with vl_sample_clear, also
// after an error. *cut: tokens were taken off its end. Any number of threads at a time, each with its own scratch.
// Errors name shard and sample: VL_IO, VL_FORMAT (damaged), VL_INVALID (the rules refuse it; max_tokens ends inside the
// modality's span).
VlStatus vl_sample_read(const VlShard *shard, int64_t row, const VlSampleRules *rules, VlShardScratch *scratch,
                        VlSample *sample, bool *cut);

#endif
