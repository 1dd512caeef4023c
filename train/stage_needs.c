#include "train/stage_needs.h"

#include <string.h>

#include "train/checkpoint.h"

#define SEEING (VL_GROUP_BIT(VL_GROUP_VISION_TOWER) | VL_GROUP_BIT(VL_GROUP_CONNECTOR))
#define TOWER VL_GROUP_BIT(VL_GROUP_AUDIO_TOWER)
#define HEARING (TOWER | VL_GROUP_BIT(VL_GROUP_AUDIO_PROJECTOR))

static const struct {
    const char *stage;
    VlGroups needs;
} stages[] = {{"audio-pretrain", TOWER}, {"audio-finetune", HEARING}, {"joint", SEEING | HEARING}};

VlGroups vl_stage_needs(const char *stage) {
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        if (strcmp(stages[i].stage, stage) == 0) return stages[i].needs;
    }
    return 0;
}

static VlStatus no_tower(const char *stage, const VlModelSource *source, const char *tower, const char *key,
                         const char *part) {
    return vl_error(VL_INVALID,
                    "stage %s needs %s tower, and %s/config.json names none (%s): vl2 convert %s puts one in", stage,
                    tower, source->folder, key, part);
}

static VlStatus missing(const char *stage, const VlModelSource *source, const VlParam *param) {
    static const char *const ways[VL_GROUP_COUNT] = {
        [VL_GROUP_CONNECTOR] = "train stage pretrain before it",
        [VL_GROUP_AUDIO_PROJECTOR] =
            "train stage audio-pretrain before it, or put it in with vl2 convert --audio-projector FILE",
    };
    const char *way = ways[param->group];
    return vl_error(VL_INVALID, "stage %s needs the %s, and %s has no %s: %s", stage, vl_group_name(param->group),
                    source->path, param->name, way ? way : "put its weights into the model's folder");
}

// The groups that one of the checkpoints upon the root holds.
static VlStatus trained_groups(const VlModelSource *source, VlGroups *trained) {
    *trained = 0;
    for (int64_t i = 0; i < source->checkpoints; i++) {
        VlCheckpointInfo info;
        VlGroups groups;
        VL_TRY(vl_checkpoint_info(source->checkpoint[i], &info));
        VL_TRY(vl_groups_parse(info.trainable, &groups));
        *trained |= groups;
    }
    return VL_OK;
}

static VlStatus check_stored(const char *stage, const VlModelSource *source, VlContext *context, VlVlm *model) {
    VlLoadReport report;
    VlGroups trained;
    int64_t stored = 0;
    VL_TRY(vl_model_source_load_root(source, context, model, &report));
    VL_TRY(trained_groups(source, &trained));
    for (int group = 0; group < VL_GROUP_COUNT; group++) stored += report.stored[group];
    for (int group = 0; group < VL_GROUP_COUNT && stored > 0; group++) {
        bool needed = vl_stage_needs(stage) & VL_GROUP_BIT(group);
        if (needed && report.missing[group] && !(trained & VL_GROUP_BIT(group)))
            return missing(stage, source, report.missing[group]);
    }
    return VL_OK;
}

VlStatus vl_stage_check(const char *stage, const VlModelSource *source, const VlModelConfig *config) {
    VlGroups needs = vl_stage_needs(stage);
    VlContext *context;
    VlVlm *model = NULL;
    if ((needs & TOWER) && !config->has_audio)
        return no_tower(stage, source, "an audio", "mm_audio_tower", "--from DIR --audio FILE");
    if ((needs & SEEING) && !config->has_vision)
        return no_tower(stage, source, "a vision", "mm_vision_tower", "--llm DIR --vision DIR");
    VL_TRY(vl_context_create_plan(&context, VL_DEVICE_CPU, 1));
    VlStatus status = vl_vlm_create(&model, context, config, 0);
    if (status == VL_OK) status = check_stored(stage, source, context, model);
    vl_vlm_free(model);
    vl_context_free(context);
    return status;
}
