#include "data/preprocess.h"

#include <stdio.h>
#include <string.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/vision_tower.h"

enum { MAX_CONFIG_BYTES = 16 << 20, MAX_TARGET_SIDE = 8192, BICUBIC = 3 };

struct VlPreprocessor {
    VlPreprocessConfig config;
    VlAspect aspect;
    int64_t source_height, source_width;  // what `resize` is for
    VlResize *resize;
};

VlStatus vl_aspect_parse(VlAspect *aspect, const char *name) {
    if (!strcmp(name, "pad")) {
        *aspect = VL_ASPECT_PAD;
    } else if (!strcmp(name, "none")) {
        *aspect = VL_ASPECT_NONE;
    } else {
        return vl_error(VL_USAGE, "unknown aspect '%s': pad or none are possible", name);
    }
    return VL_OK;
}

static VlStatus check_side(const char *path, int64_t side) {
    if (side >= 1 && side <= MAX_TARGET_SIDE) return VL_OK;
    return vl_error(VL_FORMAT, "%s: a picture side of %lld pixels: 1 to %d are possible", path, (long long)side,
                    MAX_TARGET_SIDE);
}

// What follows from the tower's family and its image size.
static VlStatus set_defaults(VlPreprocessConfig *config, const char *path, const char *model_type, int64_t side) {
    static const VlPreprocessConfig clip = {.by_shortest_side = true,
                                            .rescale = true,
                                            .normalize = true,
                                            .rescale_factor = 1.0 / 255.0,
                                            .mean = {0.48145466, 0.4578275, 0.40821073},
                                            .std = {0.26862954, 0.26130258, 0.27577711}};
    static const VlPreprocessConfig siglip = {.rescale = true,
                                              .normalize = true,
                                              .rescale_factor = 1.0 / 255.0,
                                              .mean = {0.5, 0.5, 0.5},
                                              .std = {0.5, 0.5, 0.5}};
    if (!strncmp(model_type, "clip", 4)) {
        *config = clip;
    } else if (!strncmp(model_type, "siglip", 6)) {
        *config = siglip;
    } else {
        return vl_error(VL_UNSUPPORTED,
                        "%s: model_type '%s' is no vision tower that is known: clip_vision_model and "
                        "siglip_vision_model are",
                        path, model_type);
    }
    VL_TRY(check_side(path, side));
    config->resize_height = config->resize_width = config->height = config->width = side;
    return VL_OK;
}

VlStatus vl_preprocess_defaults(VlPreprocessConfig *config, const char *model_type, int64_t image_size) {
    return set_defaults(config, "image size", model_type, image_size);
}

// A size is a number, {"shortest_edge": n} or {"height": h, "width": w}.
static VlStatus read_size(const json_t *document, const char *path, const char *key, bool *by_shortest_side,
                          int64_t *height, int64_t *width) {
    const json_t *size = json_object_get(document, key);
    if (!size || json_is_null(size)) return VL_OK;
    if (json_is_integer(size)) {
        *height = *width = json_integer_value(size);
    } else if (json_object_get(size, "shortest_edge")) {
        if (!by_shortest_side) return vl_error(VL_FORMAT, "%s: %s has no height and width", path, key);
        VL_TRY(vl_json_get_int(size, path, "shortest_edge", true, height));
        *width = *height;
        *by_shortest_side = true;
    } else {
        VL_TRY(vl_json_get_int(size, path, "height", true, height));
        VL_TRY(vl_json_get_int(size, path, "width", true, width));
        if (by_shortest_side) *by_shortest_side = false;
    }
    VL_TRY(check_side(path, *height));
    return check_side(path, *width);
}

static VlStatus read_channels(const json_t *document, const char *path, const char *key, double *values) {
    const json_t *list = json_object_get(document, key);
    if (!list || json_is_null(list)) return VL_OK;
    if (!json_is_array(list) || json_array_size(list) != 3) {
        return vl_error(VL_FORMAT, "%s: %s is not a list of three numbers", path, key);
    }
    for (size_t c = 0; c < 3; c++) {
        const json_t *value = json_array_get(list, c);
        if (!json_is_number(value)) return vl_error(VL_FORMAT, "%s: %s is not a list of three numbers", path, key);
        values[c] = json_number_value(value);
    }
    return VL_OK;
}

static VlStatus read_preprocessor(VlPreprocessConfig *config, const char *path, const json_t *document) {
    bool resize = true, crop = config->by_shortest_side;
    int64_t resample = BICUBIC;
    VL_TRY(read_size(document, path, "size", &config->by_shortest_side, &config->resize_height, &config->resize_width));
    VL_TRY(vl_json_get_bool(document, path, "do_resize", false, &resize));
    VL_TRY(vl_json_get_bool(document, path, "do_center_crop", false, &crop));
    VL_TRY(vl_json_get_int(document, path, "resample", false, &resample));
    if (!resize || resample != BICUBIC || (config->by_shortest_side && !crop)) {
        return vl_error(VL_UNSUPPORTED,
                        "%s: only bicubic resizing to a fixed size is known (do_resize, resample 3, and "
                        "do_center_crop where the size is a shortest_edge)",
                        path);
    }
    config->height = config->resize_height;
    config->width = config->resize_width;
    if (crop) VL_TRY(read_size(document, path, "crop_size", NULL, &config->height, &config->width));
    if (config->height > config->resize_height || config->width > config->resize_width) {
        return vl_error(VL_UNSUPPORTED, "%s: crop_size %lld x %lld is larger than size %lld x %lld", path,
                        (long long)config->width, (long long)config->height, (long long)config->resize_width,
                        (long long)config->resize_height);
    }
    VL_TRY(vl_json_get_bool(document, path, "do_rescale", false, &config->rescale));
    VL_TRY(vl_json_get_bool(document, path, "do_normalize", false, &config->normalize));
    VL_TRY(vl_json_get_double(document, path, "rescale_factor", false, &config->rescale_factor));
    VL_TRY(read_channels(document, path, "image_mean", config->mean));
    VL_TRY(read_channels(document, path, "image_std", config->std));
    for (int c = 0; c < 3; c++) {
        if (!(config->std[c] > 0.0) || !(config->mean[c] >= 0.0 && config->mean[c] <= 1.0)) {
            return vl_error(VL_FORMAT, "%s: image_mean %g or image_std %g is out of range", path, config->mean[c],
                            config->std[c]);
        }
    }
    return VL_OK;
}

static VlStatus read_tower(VlPreprocessConfig *config, const char *path, const json_t *document) {
    const char *model_type = NULL;
    int64_t side = 224;  // of both families' configuration classes
    const json_t *vision = json_object_get(document, "vision_config");
    VL_TRY(vl_json_get_string(document, path, "model_type", true, &model_type));
    VL_TRY(vl_json_get_int(json_is_object(vision) ? vision : document, path, "image_size", false, &side));
    return set_defaults(config, path, model_type, side);
}

static VlStatus read_folder(VlPreprocessConfig *config, const char *tower) {
    char path[VL_PATH_MAX];
    json_t *document;
    VL_TRY(vl_path_join(path, tower, "config.json"));
    VL_TRY(vl_json_load(path, MAX_CONFIG_BYTES, &document));
    VlStatus status = read_tower(config, path, document);
    json_decref(document);
    VL_TRY(status);
    VL_TRY(vl_path_join(path, tower, "preprocessor_config.json"));
    if (!vl_path_exists(path)) return VL_OK;
    VL_TRY(vl_json_load(path, MAX_CONFIG_BYTES, &document));
    status = read_preprocessor(config, path, document);
    json_decref(document);
    return status;
}

VlStatus vl_preprocess_load(VlPreprocessConfig *config, const char *model_folder) {
    char path[VL_PATH_MAX];
    VlTowerPlace place = {0};
    const char *name = NULL;
    json_t *document;
    *config = (VlPreprocessConfig){0};
    VL_TRY(vl_path_join(path, model_folder, "config.json"));
    VL_TRY(vl_json_load(path, MAX_CONFIG_BYTES, &document));
    VlStatus status = vl_json_get_string(document, path, "mm_vision_tower", false, &name);
    bool sees = status == VL_OK && name && *name;
    if (sees) status = vl_tower_find(&place, model_folder, path, name);
    json_decref(document);
    if (status != VL_OK || !sees) return status;
    if (place.hub) return vl_preprocess_defaults(config, place.hub->model_type, place.hub->image_size);
    return read_folder(config, place.folder);
}

static void fill_colour(const VlPreprocessConfig *config, uint8_t fill[3]) {
    for (int c = 0; c < 3; c++) fill[c] = (uint8_t)(config->mean[c] * 255.0);
}

void vl_preprocess_fingerprint(const VlPreprocessConfig *config, VlAspect aspect, char *text) {
    uint8_t fill[3];
    if (config->height == 0) {
        snprintf(text, VL_PREPROCESS_FINGERPRINT, "no pictures");
        return;
    }
    fill_colour(config, fill);
    int used = snprintf(text, VL_PREPROCESS_FINGERPRINT, "bicubic %s %lldx%lld, crop %lldx%lld, aspect ",
                        config->by_shortest_side ? "shortest" : "exact", (long long)config->resize_width,
                        (long long)config->resize_height, (long long)config->width, (long long)config->height);
    if (aspect == VL_ASPECT_PAD) {
        snprintf(text + used, (size_t)(VL_PREPROCESS_FINGERPRINT - used), "pad %d,%d,%d", fill[0], fill[1], fill[2]);
    } else {
        snprintf(text + used, (size_t)(VL_PREPROCESS_FINGERPRINT - used), "none");
    }
}

VlStatus vl_preprocessor_create(VlPreprocessor **preprocessor, const VlPreprocessConfig *config, VlAspect aspect) {
    *preprocessor = NULL;
    if (config->height == 0) {
        return vl_error(VL_INVALID, "the model has no vision tower (mm_vision_tower): it takes no picture or video");
    }
    VL_TRY(VL_NEW(preprocessor, 1));
    (*preprocessor)->config = *config;
    (*preprocessor)->aspect = aspect;
    return VL_OK;
}

const VlPreprocessConfig *vl_preprocessor_config(const VlPreprocessor *preprocessor) { return &preprocessor->config; }

void vl_preprocessor_free(VlPreprocessor *preprocessor) {
    if (!preprocessor) return;
    vl_resize_free(preprocessor->resize);
    vl_free(preprocessor);
}

// The resize for pictures of one size; the one of the picture before is kept when it fits.
static VlStatus prepare(VlPreprocessor *preprocessor, int64_t height, int64_t width) {
    if (preprocessor->resize && preprocessor->source_height == height && preprocessor->source_width == width) {
        return VL_OK;
    }
    const VlPreprocessConfig *config = &preprocessor->config;
    VlResizeShape shape = {.source_height = height,
                           .source_width = width,
                           .canvas_height = height,
                           .canvas_width = width,
                           .resized_height = config->resize_height,
                           .resized_width = config->resize_width,
                           .height = config->height,
                           .width = config->width};
    fill_colour(config, shape.fill);
    if (preprocessor->aspect == VL_ASPECT_PAD) {
        shape.canvas_height = shape.canvas_width = height > width ? height : width;
    }
    if (config->by_shortest_side) {
        double side = (double)config->resize_height;
        if (shape.canvas_width <= shape.canvas_height) {
            shape.resized_width = config->resize_height;
            shape.resized_height = (int64_t)(side * (double)shape.canvas_height / (double)shape.canvas_width);
        } else {
            shape.resized_height = config->resize_height;
            shape.resized_width = (int64_t)(side * (double)shape.canvas_width / (double)shape.canvas_height);
        }
    }
    shape.top = (shape.resized_height - shape.height) / 2;
    shape.left = (shape.resized_width - shape.width) / 2;
    vl_resize_free(preprocessor->resize);
    preprocessor->resize = NULL;
    VL_TRY(vl_resize_create(&preprocessor->resize, &shape));
    preprocessor->source_height = height;
    preprocessor->source_width = width;
    return VL_OK;
}

VlStatus vl_preprocess_levels(VlPreprocessor *preprocessor, const VlImage *image, uint8_t *levels) {
    VL_TRY(prepare(preprocessor, image->height, image->width));
    vl_resize_apply(preprocessor->resize, image->pixels, levels);
    return VL_OK;
}

void vl_preprocess_normalize(const VlPreprocessConfig *config, const uint8_t *levels, int64_t count, float *values) {
    float table[3][256];
    for (int c = 0; c < 3; c++) {
        float mean = (float)config->mean[c], std = (float)config->std[c];
        for (int level = 0; level < 256; level++) {
            float value = config->rescale ? (float)((double)level * config->rescale_factor) : (float)level;
            table[c][level] = config->normalize ? (value - mean) / std : value;
        }
    }
    int64_t pixels = config->height * config->width;
    for (int64_t i = 0; i < count; i++) {
        for (int c = 0; c < 3; c++) {
            const uint8_t *from = levels + i * pixels * 3 + c;
            float *to = values + (i * 3 + c) * pixels;
            for (int64_t p = 0; p < pixels; p++) to[p] = table[c][from[3 * p]];
        }
    }
}
