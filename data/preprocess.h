// The image preprocessing of the vision towers: pad to a square or not, resize, crop, normalise; in exactly the
// reference's arithmetic (Hugging Face's CLIPImageProcessor and SiglipImageProcessor over Pillow).
#ifndef VL_DATA_PREPROCESS_H
#define VL_DATA_PREPROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "data/image.h"

typedef enum VlAspect {
    VL_ASPECT_NONE,  // the picture as it is
    VL_ASPECT_PAD,   // in the middle of a square of the mean colour
} VlAspect;

// Errors: VL_USAGE.
VlStatus vl_aspect_parse(VlAspect *aspect, const char *name);

typedef struct VlPreprocessConfig {
    bool by_shortest_side;  // the shorter side becomes resize_height, the other follows (truncated)
    int64_t resize_height, resize_width;
    int64_t height, width;  // of the result: the middle of the resized picture; 0: the model takes no pictures
    bool rescale, normalize;
    double rescale_factor;
    double mean[3], std[3];
} VlPreprocessConfig;

// What a model folder says: config.json names the vision tower's folder (`mm_vision_tower`), inside the model folder or
// a path of its own; there preprocessor_config.json wins over what follows from config.json's model_type (CLIP or
// SigLIP) and image_size. A model without a tower gives height and width 0. Errors: VL_IO, VL_FORMAT, VL_INVALID (a
// tower that is not there), VL_UNSUPPORTED (another kind of resampling, say), naming the file.
VlStatus vl_preprocess_load(VlPreprocessConfig *config, const char *model_folder);

// What follows from a tower's model_type (clip_vision_model, siglip_vision_model) and image size alone. Errors:
// VL_UNSUPPORTED, VL_INVALID.
VlStatus vl_preprocess_defaults(VlPreprocessConfig *config, const char *model_type, int64_t image_size);

enum { VL_PREPROCESS_FINGERPRINT = 160 };

// Everything that the levels of vl_preprocess_levels depend on, as text of at most VL_PREPROCESS_FINGERPRINT bytes.
void vl_preprocess_fingerprint(const VlPreprocessConfig *config, VlAspect aspect, char *text);

// Keeps the weights between pictures of the same size. For one thread at a time. VL_INVALID when the model takes no
// pictures.
typedef struct VlPreprocessor VlPreprocessor;
VlStatus vl_preprocessor_create(VlPreprocessor **preprocessor, const VlPreprocessConfig *config, VlAspect aspect);
const VlPreprocessConfig *vl_preprocessor_config(const VlPreprocessor *preprocessor);
void vl_preprocessor_free(VlPreprocessor *preprocessor);

// The resized and cropped picture before normalisation: u8 [config.height, config.width, 3].
VlStatus vl_preprocess_levels(VlPreprocessor *preprocessor, const VlImage *image, uint8_t *levels);

// u8 [count, height, width, 3] to f32 [count, 3, height, width]: f32(level * factor), in f64, then
// (value - mean) / std in f32.
void vl_preprocess_normalize(const VlPreprocessConfig *config, const uint8_t *levels, int64_t count, float *values);

#endif
