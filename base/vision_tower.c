#include "base/vision_tower.h"

#include <string.h>

static const VlHubTower hub_towers[] = {
    {"openai/clip-vit-large-patch14-336", "clip_vision_model", 1024, 4096, 24, 16, 336, 14},
    {"openai/clip-vit-large-patch14", "clip_vision_model", 1024, 4096, 24, 16, 224, 14},
    {"google/siglip-so400m-patch14-384", "siglip_vision_model", 1152, 4304, 27, 16, 384, 14},
};
enum { HUB_TOWERS = sizeof hub_towers / sizeof *hub_towers };

VlStatus vl_tower_find(VlTowerPlace *place, const char *model_folder, const char *config, const char *name) {
    *place = (VlTowerPlace){0};
    VL_TRY(vl_path_join(place->folder, model_folder, name));
    if (vl_folder_holds(place->folder, "config.json")) return VL_OK;
    for (int i = 0; i < HUB_TOWERS; i++) {
        if (strcmp(name, hub_towers[i].id) != 0) continue;
        *place = (VlTowerPlace){.hub = &hub_towers[i]};
        return VL_OK;
    }
    return vl_error(VL_INVALID,
                    "%s: mm_vision_tower '%.200s' is neither a folder with a config.json (looked in %.400s) nor one of "
                    "%s, %s, %s; put the tower's folder there",
                    config, name, place->folder, hub_towers[0].id, hub_towers[1].id, hub_towers[2].id);
}
