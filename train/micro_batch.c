#include "train/micro_batch.h"

#include "base/memory.h"

int64_t vl_sample_expanded_tokens(const VlModelConfig *config, const VlSample *sample) {
    if (sample->bad) return 0;
    if (sample->frames == 0) return sample->tokens;
    return sample->tokens - 1 +
           vl_model_visual_tokens(config, sample->modal == VL_MODAL_IMAGE ? config->num_frames : sample->frames);
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

VlStatus vl_micro_batch_build(VlMicroBatch *micro, const VlModelConfig *config, const VlPreprocessConfig *preprocess,
                              int64_t count, const VlSample *samples) {
    VlSequence *sequences = NULL;
    VlFrames *frames = NULL;
    VlStatus status = VL_OK;
    int64_t size = 3 * preprocess->height * preprocess->width, total = 0, good = 0, filled = 0;
    vl_batch_free(&micro->batch);
    for (int64_t i = 0; i < count; i++) total += samples[i].frames;
    VL_TRY_GOTO(status,
                vl_reserve(&micro->pixels, &micro->pixels_capacity, total * size, (int64_t)sizeof *micro->pixels),
                done);
    VL_TRY_GOTO(status, VL_NEW(&sequences, count), done);
    VL_TRY_GOTO(status, VL_NEW(&frames, count), done);
    for (int64_t i = 0; i < count; i++) {
        const VlSample *sample = &samples[i];
        if (sample->bad) continue;
        VlSequence *sequence = &sequences[good];
        *sequence = (VlSequence){.tokens = sample->tokens, .ids = sample->ids, .labels = sample->labels};
        if (sample->frames > 0) {
            float *pixels = micro->pixels + filled * size;
            vl_preprocess_normalize(preprocess, sample->pixels, sample->frames, pixels);
            frames[good] = (VlFrames){.frames = sample->frames, .pixels = pixels};
            sequence->visuals = 1;
            sequence->visual = &frames[good];
            filled += sample->frames;
        }
        good++;
    }
    status = vl_batch_build(&micro->batch, config, good, sequences);
done:
    vl_free(sequences);
    vl_free(frames);
    return status;
}

void vl_micro_batch_free(VlMicroBatch *micro) {
    vl_batch_free(&micro->batch);
    vl_free(micro->pixels);
    *micro = (VlMicroBatch){0};
}
