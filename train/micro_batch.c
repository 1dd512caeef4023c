#include "train/micro_batch.h"

#include "base/memory.h"
#include "model/beats.h"

int64_t vl_media_tokens(const VlModelConfig *config, VlModal modal, int64_t frames, int64_t rows) {
    int64_t shown = modal == VL_MODAL_IMAGE ? config->num_frames : frames, tokens = 0;
    if (config->has_vision && frames > 0) tokens += vl_model_visual_tokens(config, shown);
    if (config->has_audio && rows > 0) tokens += vl_beats_tokens(&config->audio, rows);
    return tokens;
}

int64_t vl_media_tokens_of_user(void *user, VlModal modal, int64_t frames, int64_t rows) {
    return vl_media_tokens(user, modal, frames, rows);
}

int64_t vl_sample_expanded_tokens(const VlModelConfig *config, const VlSample *sample) {
    if (sample->bad) return 0;
    if (sample->frames == 0 && sample->rows == 0) return sample->tokens;
    return sample->tokens - 1 + vl_media_tokens(config, sample->modal, sample->frames, sample->rows);
}

int64_t vl_micro_batch_end(const VlModelConfig *config, const VlSample *samples, int64_t count, int64_t begin,
                           int64_t budget) {
    int64_t end = begin + 1, tokens = vl_sample_expanded_tokens(config, &samples[begin]);
    while (end < count) {
        tokens += vl_sample_expanded_tokens(config, &samples[end]);
        if (tokens > budget) break;
        end++;
    }
    return end;
}

// The frames go straight to their places in the batch, in the order of the samples.
static void fill_pixels(VlBatch *batch, const VlPreprocessConfig *preprocess, int64_t count, const VlSample *samples) {
    float *next = batch->pixels;
    for (int64_t i = 0; i < count; i++) {
        if (samples[i].bad || samples[i].frames == 0) continue;
        vl_preprocess_normalize(preprocess, samples[i].pixels, samples[i].frames, next);
        next += samples[i].frames * 3 * preprocess->height * preprocess->width;
    }
}

VlStatus vl_micro_batch_build(VlBatch *batch, const VlModelConfig *config, const VlPreprocessConfig *preprocess,
                              int64_t count, const VlSample *samples) {
    VlSequence *sequences = NULL;
    VlMedium *media = NULL;
    VlStatus status;
    int64_t good = 0;
    vl_batch_free(batch);
    VL_TRY_GOTO(status, VL_NEW(&sequences, count), done);
    VL_TRY_GOTO(status, VL_NEW(&media, count), done);
    for (int64_t i = 0; i < count; i++) {
        const VlSample *sample = &samples[i];
        if (sample->bad) continue;
        VlSequence *sequence = &sequences[good];
        *sequence = (VlSequence){.tokens = sample->tokens, .ids = sample->ids, .labels = sample->labels};
        if (sample->frames > 0 || sample->rows > 0) {
            media[good] = (VlMedium){.frames = sample->frames, .rows = sample->rows, .fbank = sample->fbank};
            sequence->media = 1;
            sequence->medium = &media[good];
        }
        good++;
    }
    VL_TRY_GOTO(status, vl_batch_build(batch, config, good, sequences), done);
    fill_pixels(batch, preprocess, count, samples);
done:
    vl_free(sequences);
    vl_free(media);
    return status;
}
