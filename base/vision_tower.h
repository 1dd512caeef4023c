// Where a model's vision tower stands: in a folder of its own, or in the table of towers that are known by their hub
// id. The one home of that table, for the model (layers) and for preprocessing (pictures).
#ifndef VL_BASE_VISION_TOWER_H
#define VL_BASE_VISION_TOWER_H

#include <stdint.h>

#include "base/files.h"

// The numbers of a released tower, as its own config.json has them.
typedef struct VlHubTower {
    const char *id;          // "google/siglip-so400m-patch14-384"
    const char *model_type;  // "clip_vision_model", "siglip_vision_model"
    int64_t hidden, intermediate, layers, heads, image_size, patch_size;
} VlHubTower;

typedef struct VlTowerPlace {
    char folder[VL_PATH_MAX];  // holds config.json; "" when the tower is known by its hub id only
    const VlHubTower *hub;     // NULL when there is a folder
} VlTowerPlace;

// Resolves mm_vision_tower: a folder with a config.json, relative to the model folder or absolute, comes first, then
// the hub ids. `config` is the file that names the tower, for the error text. Errors: VL_INVALID naming what was looked
// for.
VlStatus vl_tower_find(VlTowerPlace *place, const char *model_folder, const char *config, const char *name);

#endif
