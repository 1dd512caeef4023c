#include "model/batch_build.h"

#include <string.h>

#include "base/memory.h"

// Frames that the connector sees of a visual: an image is a still video.
static int64_t repeat_of(const VlModelConfig *config, int64_t id) { return id == VL_IMAGE_ID ? config->num_frames : 1; }

static VlStatus check_modality(const VlModelConfig *config, const VlSequence *sequence, int64_t position,
                               int64_t visual) {
    int64_t id = sequence->ids[position];
    if (id == VL_AUDIO_ID) {
        return vl_error(VL_UNSUPPORTED, "position %lld is <audio> (%lld): this model takes images, videos and text",
                        (long long)position, (long long)id);
    }
    if (id != VL_IMAGE_ID && id != VL_VIDEO_ID) {
        return vl_error(VL_INVALID, "position %lld holds id %lld: give an id in [0,%lld), %d (image) or %d (video)",
                        (long long)position, (long long)id, (long long)config->decoder.vocabulary, VL_IMAGE_ID,
                        VL_VIDEO_ID);
    }
    if (!config->has_vision) {
        return vl_error(VL_INVALID,
                        "position %lld is a visual (%lld), but the model has no vision tower (mm_vision_tower)",
                        (long long)position, (long long)id);
    }
    if (visual >= sequence->visuals) {
        return vl_error(VL_INVALID, "position %lld is a visual (%lld), but frames are given for %lld only",
                        (long long)position, (long long)id, (long long)sequence->visuals);
    }
    int64_t frames = sequence->visual[visual].frames;
    if (frames < 1 || (id == VL_IMAGE_ID && frames != 1)) {
        return vl_error(VL_INVALID, "position %lld (%lld): %lld frames; an image (%d) has 1, a video (%d) 1 or more",
                        (long long)position, (long long)id, (long long)frames, VL_IMAGE_ID, VL_VIDEO_ID);
    }
    return VL_OK;
}

static VlStatus check_label(const VlModelConfig *config, const VlSequence *sequence, int64_t position) {
    int64_t label = sequence->labels ? sequence->labels[position] : VL_IGNORE;
    if (label == VL_IGNORE || (label >= 0 && label < config->decoder.vocabulary)) return VL_OK;
    return vl_error(VL_INVALID, "position %lld has label %lld: give an id in [0,%lld) or %d (not labelled)",
                    (long long)position, (long long)label, (long long)config->decoder.vocabulary, VL_IGNORE);
}

VlStatus vl_sequence_tokens(const VlModelConfig *config, const VlSequence *sequence, int64_t *tokens) {
    int64_t total = 0, visuals = 0;
    for (int64_t i = 0; i < sequence->tokens; i++) {
        int64_t id = sequence->ids[i], count = 1;
        if (id < 0) {
            VL_TRY(check_modality(config, sequence, i, visuals));
            int64_t frames;
            if (!vl_multiply(sequence->visual[visuals++].frames, repeat_of(config, id), &frames)) {
                return vl_error(VL_INVALID, "position %lld: too many frames", (long long)i);
            }
            count = vl_model_visual_tokens(config, frames);
        } else {
            if (id >= config->decoder.vocabulary) {
                return vl_error(VL_INVALID, "position %lld holds id %lld: the vocabulary has %lld", (long long)i,
                                (long long)id, (long long)config->decoder.vocabulary);
            }
            VL_TRY(check_label(config, sequence, i));
        }
        if (!vl_add(total, count, &total)) return vl_error(VL_INVALID, "the sequence has too many tokens");
    }
    if (visuals != sequence->visuals) {
        return vl_error(VL_INVALID, "frames are given for %lld visuals, but the ids name %lld (%d image, %d video)",
                        (long long)sequence->visuals, (long long)visuals, VL_IMAGE_ID, VL_VIDEO_ID);
    }
    VL_TRY(vl_model_config_check_length(config, total));
    *tokens = total;
    return VL_OK;
}

// Counts of the whole batch, and the check of every sequence.
static VlStatus count_sequences(VlBatch *batch, const VlModelConfig *config, int64_t count,
                                const VlSequence *sequences) {
    for (int64_t s = 0; s < count; s++) {
        const VlSequence *sequence = &sequences[s];
        int64_t tokens;
        VL_TRY_CONTEXT(vl_sequence_tokens(config, sequence, &tokens), "sequence %lld", (long long)s);
        if (!vl_add(batch->tokens, tokens, &batch->tokens)) {
            return vl_error(VL_INVALID, "the batch has too many tokens");
        }
        batch->visuals += sequence->visuals;
        batch->text_tokens += sequence->tokens - sequence->visuals;
        for (int64_t i = 0; i < sequence->visuals; i++) batch->frames += sequence->visual[i].frames;
    }
    batch->sequences = count;
    return VL_OK;
}

static VlStatus allocate_arrays(VlBatch *batch, int64_t frame_elements) {
    int64_t pixels;
    if (!vl_multiply(batch->frames, frame_elements, &pixels))
        return vl_error(VL_INVALID, "the batch has too many frames");
    VL_TRY(VL_NEW(&batch->cu_seqlens, batch->sequences + 1));
    VL_TRY(VL_NEW(&batch->positions, batch->tokens));
    VL_TRY(VL_NEW(&batch->text_ids, batch->text_tokens));
    VL_TRY(VL_NEW(&batch->source, batch->tokens));
    VL_TRY(VL_NEW(&batch->targets, batch->tokens));
    VL_TRY(VL_NEW(&batch->visual, batch->visuals));
    VL_TRY(VL_NEW(&batch->pixels, pixels));
    return VL_OK;
}

// How far the arrays are filled.
typedef struct Cursor {
    int64_t token, text, visual, visual_token, frame;
} Cursor;

static void fill_visual(VlBatch *batch, const VlModelConfig *config, Cursor *at, int64_t id, const VlFrames *frames,
                        int64_t frame_elements) {
    int64_t repeat = repeat_of(config, id);
    int64_t tokens = vl_model_visual_tokens(config, frames->frames * repeat);
    batch->visual[at->visual++] = (VlVisual){.first_frame = at->frame, .frames = frames->frames, .repeat = repeat};
    if (frames->pixels) {
        memcpy(batch->pixels + at->frame * frame_elements, frames->pixels,
               (size_t)(frames->frames * frame_elements) * sizeof *frames->pixels);
    }
    at->frame += frames->frames;
    for (int64_t i = 0; i < tokens; i++) batch->source[at->token++] = -1 - at->visual_token++;
}

static void fill_sequence(VlBatch *batch, const VlModelConfig *config, Cursor *at, const VlSequence *sequence,
                          int64_t frame_elements) {
    int64_t first = at->token, visual = 0;
    for (int64_t i = 0; i < sequence->tokens; i++) {
        if (sequence->ids[i] < 0) {
            fill_visual(batch, config, at, sequence->ids[i], &sequence->visual[visual++], frame_elements);
            continue;
        }
        int64_t label = sequence->labels ? sequence->labels[i] : VL_IGNORE;
        if (at->token > first && label != VL_IGNORE) {
            batch->targets[at->token - 1] = label;
            batch->labels++;
        }
        batch->text_ids[at->text] = sequence->ids[i];
        batch->source[at->token++] = at->text++;
    }
    for (int64_t i = first; i < at->token; i++) batch->positions[i] = i - first;
}

VlStatus vl_batch_build(VlBatch *batch, const VlModelConfig *config, int64_t count, const VlSequence *sequences) {
    VlStatus status;
    *batch = (VlBatch){0};
    int64_t side = config->has_vision ? config->vision.image_size : 0, frame_elements = 3 * side * side;
    VL_TRY_GOTO(status, count_sequences(batch, config, count, sequences), failed);
    VL_TRY_GOTO(status, allocate_arrays(batch, frame_elements), failed);
    for (int64_t i = 0; i < batch->tokens; i++) batch->targets[i] = VL_IGNORE;
    Cursor at = {0};
    for (int64_t s = 0; s < count; s++) {
        fill_sequence(batch, config, &at, &sequences[s], frame_elements);
        batch->cu_seqlens[s + 1] = at.token;
    }
    return VL_OK;
failed:
    vl_batch_free(batch);
    return status;
}

void vl_batch_free(VlBatch *batch) {
    vl_free(batch->cu_seqlens);
    vl_free(batch->positions);
    vl_free(batch->text_ids);
    vl_free(batch->source);
    vl_free(batch->targets);
    vl_free(batch->visual);
    vl_free(batch->pixels);
    *batch = (VlBatch){0};
}
