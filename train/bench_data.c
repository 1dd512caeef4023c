#include "train/bench_data.h"

#include <stddef.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/pool.h"
#include "data/audio.h"
#include "data/visual.h"

typedef struct Worker {
    VlTask task;
    const VlBenchDataOptions *options;
    VlVisualOptions visual;
    const VlFbank *fbank;
    double end;
    int64_t samples;
} Worker;

static VlStatus decode(void *argument) {
    Worker *worker = argument;
    size_t size = (size_t)(worker->visual.config.height * worker->visual.config.width * 3);
    float *values = NULL;
    VlStatus status = VL_NEW(&values, worker->options->frames * (int64_t)size);
    while (status == VL_OK && vl_seconds() < worker->end) {
        int64_t frames;
        uint8_t *levels;
        status = vl_visual_read(&worker->visual, worker->options->video, VL_MODAL_VIDEO, &frames, &levels, NULL);
        if (status != VL_OK) break;
        vl_preprocess_normalize(&worker->visual.config, levels, frames, values);
        vl_free(levels);
        worker->samples++;
    }
    vl_free(values);
    return status;
}

static VlStatus hear(void *argument) {
    Worker *worker = argument;
    VlAudioOptions audio = {.source = VL_AUDIO_FILE, .media = vl_media_defaults()};
    float *values = NULL;
    bool silent;
    audio.media.max_seconds = 0;
    VlStatus status = VL_NEW(&values, VL_AUDIO_FRAMES * VL_FBANK_BINS);
    while (status == VL_OK && vl_seconds() < worker->end) {
        status = vl_audio_read_fbank(worker->fbank, worker->options->audio, &audio, values, &silent);
        if (status == VL_OK) worker->samples++;
    }
    vl_free(values);
    return status;
}

VlStatus vl_bench_data(const VlBenchDataOptions *options, VlBenchDataResult *result) {
    VlPool *pool = NULL;
    Worker *workers = NULL;
    VlFbank *fbank = NULL;
    VlStatus status = VL_OK;
    *result = (VlBenchDataResult){0};
    if (!options->video == !options->audio) {
        return vl_error(VL_USAGE, "vl2 bench data: give one of --video and --audio");
    }
    if (options->frames < 1 || options->threads < 1 || !(options->seconds > 0)) {
        return vl_error(VL_USAGE, "vl2 bench data: --frames, --threads and --seconds must be above 0");
    }
    VL_TRY(VL_NEW(&workers, options->threads));
    VL_TRY_GOTO(status, vl_fbank_create(&fbank), done);
    VL_TRY_GOTO(status, vl_pool_open(&pool, options->threads), done);
    double begin = vl_seconds();
    for (int64_t i = 0; i < options->threads; i++) {
        Worker *worker = &workers[i];
        *worker = (Worker){.options = options, .end = begin + options->seconds, .fbank = fbank};
        worker->task = (VlTask){.run = options->video ? decode : hear, .argument = worker};
        worker->visual = (VlVisualOptions){.aspect = options->aspect,
                                           .protocol = VL_PROTOCOL_MAIN,
                                           .num_frames = options->frames,
                                           .media = vl_media_defaults()};
        VL_TRY_GOTO(status, vl_preprocess_defaults(&worker->visual.config, "clip_vision_model", options->image_size),
                    done);
        worker->visual.media.max_seconds = 0;  // a busy machine is to give a low figure, not an error
        vl_pool_submit(pool, &worker->task, false);
    }
    for (int64_t i = 0; i < options->threads; i++) {
        VlStatus waited = vl_pool_wait(pool, &workers[i].task);
        if (status == VL_OK) status = waited;
        result->samples += workers[i].samples;
    }
    result->seconds = vl_seconds() - begin;
done:
    vl_pool_close(pool);
    vl_fbank_free(fbank);
    vl_free(workers);
    return status;
}
