#include "train/pack_sources.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/pool.h"
#include "data/pack.h"
#include "model/config.h"
#include "train/model_source.h"

static void show_progress(void *user, const VlPackReport *report) {
    double share = report->list_bytes > 0 ? (double)report->list_offset / (double)report->list_bytes : 1;
    vl_log_progress("packing %s: %3.0f %%  %" PRId64 " samples, %" PRId64 " bad, %" PRId64 " shards",
                    (const char *)user, 100 * share, report->samples, report->bad, report->shards);
}

static VlStatus pack(const VlConfig *config, const char *annotations, const char *media, const char *shards) {
    VlModelSource model;
    VlModelConfig model_config;
    VlPackReport report;
    VL_TRY(vl_model_source_open(&model, config->model.path, config->train.seed));
    VL_TRY(vl_model_config_load(&model_config, model.folder));
    VlPackOptions options = {.annotations = annotations,
                             .media = media,
                             .shards = shards,
                             .model = model.folder,
                             .num_frames = config->data.frames > 0 ? config->data.frames
                                           : model.frames > 0      ? model.frames
                                                                   : model_config.num_frames,
                             .has_audio = model_config.has_audio,
                             .sound_seconds = config->data.sound_seconds,
                             .sound_bf16 = strcmp(config->data.fbank_dtype, "bf16") == 0,
                             .threads = config->threads > 0 ? config->threads : vl_cpu_count(),
                             .bad_samples = config->limits.bad_samples,
                             .bad_in_a_row = config->limits.bad_in_a_row,
                             .progress = show_progress,
                             .progress_user = (void *)(uintptr_t)shards};
    VL_TRY(vl_aspect_parse(&options.aspect, config->data.aspect));
    VL_TRY(vl_protocol_parse(&options.protocol, config->data.protocol));
    VlStatus status = vl_pack(&options, &report);
    vl_log_progress("%s", "");
    VL_TRY(status);
    vl_log(VL_LOG_INFO,
           "%s: %" PRId64 " samples (%" PRId64 " texts, %" PRId64 " images, %" PRId64 " videos, %" PRId64
           " sounds, %" PRId64 " videos with sound) in %" PRId64 " shards, %.1f MB; %" PRId64 " bad, %" PRId64
           " videos without a sound track packed as silence",
           shards, report.samples, report.texts, report.images, report.videos, report.sounds, report.heard_videos,
           report.shards, (double)report.stored / 1e6, report.bad, report.silent);
    return VL_OK;
}

VlStatus vl_pack_sources(const VlConfig *config) {
    VL_TRY(vl_config_need_model(config));
    if (config->data.sources == 0)
        return vl_error(VL_USAGE, "data.sources is empty: name at least one {annotations, media, shards}");
    for (int64_t i = 0; i < config->data.sources; i++) {
        const VlConfigSource *source = &config->data.source[i];
        if (!source->annotations[0])
            return vl_error(VL_USAGE, "data.sources: the entry of %s names no annotations", source->shards);
        VL_TRY(pack(config, source->annotations, source->media, source->shards));
    }
    return VL_OK;
}

VlStatus vl_pack_heldout(const VlConfig *config, const char *shards) {
    return pack(config, config->heldout.annotations, config->heldout.media, shards);
}
