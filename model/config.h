// What config.json of a model folder says: every key is honoured, or refused by name.
#ifndef VL_MODEL_CONFIG_H
#define VL_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/files.h"
#include "ops/ops.h"

typedef enum VlConnectorKind {
    VL_CONNECTOR_MLP,  // linear, mlpKx_gelu
    VL_CONNECTOR_STC,  // stc_connector, stc_connector_v35
    VL_CONNECTOR_STP,  // stp_connector
    VL_CONNECTOR_SPATIAL_CONV,
    VL_CONNECTOR_SPATIAL_POOL
} VlConnectorKind;

typedef struct VlVisionConfig {
    int64_t hidden, intermediate, layers, heads;
    int64_t image_size, patch_size;
    int64_t run_layers;  // blocks that are run: hidden_states[select_layer] is the output of the last of them
    bool class_token;    // CLIP; SigLIP has none
    bool pre_norm;       // CLIP's pre_layrnorm
    bool patch_bias;     // SigLIP
    VlActivation activation;
    float eps;
} VlVisionConfig;

typedef struct VlConnectorConfig {
    VlConnectorKind kind;
    int64_t depth;       // RegStage blocks (STC, STP: 4; spatial: 0); linear layers of an MLP
    int64_t kt, kh, kw;  // sampler's kernel = stride
    int64_t padding;
    int64_t input, output;  // mm_hidden_size, hidden_size
} VlConnectorConfig;

#define VL_BEATS_EPS 1e-5F  // of all the audio tower's norms

typedef struct VlAudioConfig {
    int64_t embedding;  // width of a patch
    int64_t hidden, intermediate, layers, heads;
    int64_t patch_size;
    int64_t conv_taps, conv_groups;  // of the positional convolution
    int64_t buckets, max_distance;   // of the relative position bias
    int64_t predictor_classes;       // of the unused predictor; 0: there is none
    float gradient_decay;            // of the gradient of each block's input
    float layer_drop;                // probability, in training
} VlAudioConfig;

typedef struct VlDecoderConfig {
    int64_t hidden, intermediate, layers, heads, kv_heads, head_size, vocabulary;
    float eps;
    double rope_theta;
    bool qkv_bias;                       // Qwen2: biases on the query, key and value projections
    bool tied;                           // lm_head is embed_tokens
    int64_t experts, experts_per_token;  // Mixtral: of `intermediate` each; 0: one dense MLP
    int64_t window;  // sliding_window: sequences up to it are honoured, longer ones are refused; 0: none
    float initializer_range;
} VlDecoderConfig;

enum { VL_MOST_STOPS = 16 };

typedef struct VlModelConfig {
    char folder[VL_PATH_MAX];  // the model folder
    char model_type[64];       // videollama2_mistral, ...
    bool has_vision;
    char vision_folder[VL_PATH_MAX];  // the tower's folder, "" when its numbers came from the built-in table
    VlVisionConfig vision;
    VlConnectorConfig connector;
    bool has_audio;
    char audio_file[VL_PATH_MAX];  // the tower's own file, "" when there is none; read where no other file holds it
    VlAudioConfig audio;
    VlDecoderConfig decoder;
    int64_t num_frames;
    int64_t stops, stop[VL_MOST_STOPS];  // eos_token_id of config.json: ids that end an answer
} VlModelConfig;

// Reads FOLDER/config.json and the vision tower's config.json. Errors: VL_IO, VL_FORMAT; VL_UNSUPPORTED / VL_INVALID
// naming the key, its value, and what is possible.
VlStatus vl_model_config_load(VlModelConfig *config, const char *folder);

// VL_INVALID unless frames of height x width are what the vision tower takes.
VlStatus vl_model_config_check_frames(const VlModelConfig *config, int64_t height, int64_t width);

// VL_UNSUPPORTED naming the key when a sequence of `tokens` tokens (modality tokens counted) is longer than the window
// over which the model attends.
VlStatus vl_model_config_check_length(const VlModelConfig *config, int64_t tokens);

// Patches per frame; tokens of a video of `frames` frames after the connector.
int64_t vl_model_patches(const VlModelConfig *config);
int64_t vl_model_visual_tokens(const VlModelConfig *config, int64_t frames);

#endif
