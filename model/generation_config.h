// How a model folder wants to be asked: generation_config.json, or the same keys in config.json where that file is
// missing, as in Hugging Face's generate.
#ifndef VL_MODEL_GENERATION_CONFIG_H
#define VL_MODEL_GENERATION_CONFIG_H

#include "model/config.h"

typedef struct VlGenerationConfig {
    int64_t stops, stop[VL_MOST_STOPS];  // eos_token_id: each of them ends an answer
    double repetition_penalty;           // 1: none
    int64_t top_k;                       // sampling takes one of the likeliest so many; 0: of all
} VlGenerationConfig;

// Reads the folder of `config`. What the command line decides (sampling or not, temperature, top_p, lengths) is not
// read; a key that would change the answer in a way that this version does not know is refused by name. Errors: VL_IO,
// VL_FORMAT, VL_INVALID, VL_UNSUPPORTED naming file and key.
VlStatus vl_generation_config_load(VlGenerationConfig *generation, const VlModelConfig *config);

#endif
