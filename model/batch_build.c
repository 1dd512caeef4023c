#include "model/batch_build.h"

#include <string.h>

#include "base/memory.h"
#include "model/beats.h"

// Frames that the connector sees of a visual: an image is a still video.
static int64_t repeat_of(const VlModelConfig *config, int64_t id) { return id == VL_IMAGE_ID ? config->num_frames : 1; }

static VlStatus check_sound(const VlModelConfig *config, const VlMedium *medium, int64_t position, int64_t id) {
    if (medium->rows == 0) return VL_OK;
    if (!config->has_audio) {
        return vl_error(VL_INVALID,
                        "position %lld (%lld) has a sound, but the model has no audio tower (mm_audio_tower)",
                        (long long)position, (long long)id);
    }
    if (id == VL_IMAGE_ID || vl_beats_tokens(&config->audio, medium->rows) < 1) {
        return vl_error(
            VL_INVALID, "position %lld (%lld): a sound of %lld rows; an image has none, and any other at least %lld",
            (long long)position, (long long)id, (long long)medium->rows, (long long)config->audio.patch_size);
    }
    return VL_OK;
}

static VlStatus check_frames(const VlModelConfig *config, const VlMedium *medium, int64_t position, int64_t id) {
    int64_t frames = medium->frames;
    if (id == VL_AUDIO_ID) {
        if (frames == 0 && medium->rows > 0) return VL_OK;
        return vl_error(VL_INVALID, "position %lld is a sound (%lld): %lld frames and %lld rows; it has rows only",
                        (long long)position, (long long)id, (long long)frames, (long long)medium->rows);
    }
    if (!config->has_vision) {
        return vl_error(VL_INVALID,
                        "position %lld is a visual (%lld), but the model has no vision tower (mm_vision_tower)",
                        (long long)position, (long long)id);
    }
    if (frames < 1 || (id == VL_IMAGE_ID && frames != 1)) {
        return vl_error(VL_INVALID, "position %lld (%lld): %lld frames; an image (%d) has 1, a video (%d) 1 or more",
                        (long long)position, (long long)id, (long long)frames, VL_IMAGE_ID, VL_VIDEO_ID);
    }
    return VL_OK;
}

static VlStatus check_modality(const VlModelConfig *config, const VlSequence *sequence, int64_t position,
                               int64_t number) {
    int64_t id = sequence->ids[position];
    if (id != VL_IMAGE_ID && id != VL_VIDEO_ID && id != VL_AUDIO_ID) {
        return vl_error(VL_INVALID,
                        "position %lld holds id %lld: give an id in [0,%lld), %d (image), %d (video) or %d (sound)",
                        (long long)position, (long long)id, (long long)config->decoder.vocabulary, VL_IMAGE_ID,
                        VL_VIDEO_ID, VL_AUDIO_ID);
    }
    if (number >= sequence->media) {
        return vl_error(VL_INVALID, "position %lld is a medium (%lld), but frames or sounds are given for %lld only",
                        (long long)position, (long long)id, (long long)sequence->media);
    }
    VL_TRY(check_frames(config, &sequence->medium[number], position, id));
    return check_sound(config, &sequence->medium[number], position, id);
}

// Tokens that stand for the frames, and for the sound, of the medium with this id.
static VlStatus count_medium(const VlModelConfig *config, const VlMedium *medium, int64_t id, int64_t *visual,
                             int64_t *sound) {
    int64_t frames;
    if (!vl_multiply(medium->frames, repeat_of(config, id), &frames)) return vl_error(VL_INVALID, "too many frames");
    *visual = frames > 0 ? vl_model_visual_tokens(config, frames) : 0;
    *sound = medium->rows > 0 ? vl_beats_tokens(&config->audio, medium->rows) : 0;
    return VL_OK;
}

static VlStatus check_label(const VlModelConfig *config, const VlSequence *sequence, int64_t position) {
    int64_t label = sequence->labels ? sequence->labels[position] : VL_IGNORE;
    if (label == VL_IGNORE || (label >= 0 && label < config->decoder.vocabulary)) return VL_OK;
    return vl_error(VL_INVALID, "position %lld has label %lld: give an id in [0,%lld) or %d (not labelled)",
                    (long long)position, (long long)label, (long long)config->decoder.vocabulary, VL_IGNORE);
}

VlStatus vl_sequence_tokens(const VlModelConfig *config, const VlSequence *sequence, int64_t *tokens) {
    int64_t total = 0, media = 0;
    for (int64_t i = 0; i < sequence->tokens; i++) {
        int64_t id = sequence->ids[i], visual = 1, sound = 0;
        if (id < 0) {
            VL_TRY(check_modality(config, sequence, i, media));
            VL_TRY_CONTEXT(count_medium(config, &sequence->medium[media++], id, &visual, &sound), "position %lld",
                           (long long)i);
        } else {
            if (id >= config->decoder.vocabulary) {
                return vl_error(VL_INVALID, "position %lld holds id %lld: the vocabulary has %lld", (long long)i,
                                (long long)id, (long long)config->decoder.vocabulary);
            }
            VL_TRY(check_label(config, sequence, i));
        }
        if (!vl_add(total, visual, &total) || !vl_add(total, sound, &total)) {
            return vl_error(VL_INVALID, "the sequence has too many tokens");
        }
    }
    if (media != sequence->media) {
        return vl_error(VL_INVALID,
                        "frames or sounds are given for %lld media, but the ids name %lld (%d image, %d video, %d "
                        "sound)",
                        (long long)sequence->media, (long long)media, VL_IMAGE_ID, VL_VIDEO_ID, VL_AUDIO_ID);
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
        int64_t tokens, number = 0;
        VL_TRY_CONTEXT(vl_sequence_tokens(config, sequence, &tokens), "sequence %lld", (long long)s);
        if (!vl_add(batch->tokens, tokens, &batch->tokens)) {
            return vl_error(VL_INVALID, "the batch has too many tokens");
        }
        batch->text_tokens += sequence->tokens - sequence->media;
        for (int64_t i = 0; i < sequence->tokens; i++) {
            if (sequence->ids[i] >= 0) continue;
            const VlMedium *medium = &sequence->medium[number++];
            int64_t visual = 0, sound = 0;
            VL_TRY(count_medium(config, medium, sequence->ids[i], &visual, &sound));
            batch->visuals += medium->frames > 0;
            batch->frames += medium->frames;
            batch->visual_tokens += visual;
            batch->sounds += medium->rows > 0;
            batch->fbank_rows += medium->rows;
            batch->sound_tokens += sound;
        }
    }
    batch->sequences = count;
    return VL_OK;
}

static VlStatus allocate_arrays(VlBatch *batch, int64_t frame_elements) {
    int64_t pixels, bins;
    if (!vl_multiply(batch->frames, frame_elements, &pixels) || !vl_multiply(batch->fbank_rows, VL_FBANK_BINS, &bins)) {
        return vl_error(VL_INVALID, "the batch has too many frames");
    }
    VL_TRY(VL_NEW(&batch->cu_seqlens, batch->sequences + 1));
    VL_TRY(VL_NEW(&batch->positions, batch->tokens));
    VL_TRY(VL_NEW(&batch->text_ids, batch->text_tokens));
    VL_TRY(VL_NEW(&batch->source, batch->tokens));
    VL_TRY(VL_NEW(&batch->targets, batch->tokens));
    VL_TRY(VL_NEW(&batch->visual, batch->visuals));
    VL_TRY(VL_NEW(&batch->pixels, pixels));
    VL_TRY(VL_NEW(&batch->sound_rows, batch->sounds));
    VL_TRY(VL_NEW(&batch->fbank, bins));
    return VL_OK;
}

// How far the arrays are filled.
typedef struct Cursor {
    int64_t token, text, visual, visual_token, frame, sound, sound_token, row;
} Cursor;

static void fill_visual(VlBatch *batch, Cursor *at, int64_t repeat, int64_t tokens, const VlMedium *medium,
                        int64_t frame_elements) {
    batch->visual[at->visual++] = (VlVisual){.first_frame = at->frame, .frames = medium->frames, .repeat = repeat};
    if (medium->pixels) {
        memcpy(batch->pixels + at->frame * frame_elements, medium->pixels,
               (size_t)(medium->frames * frame_elements) * sizeof *medium->pixels);
    }
    at->frame += medium->frames;
    for (int64_t i = 0; i < tokens; i++) batch->source[at->token++] = -1 - at->visual_token++;
}

// Mean and twice the standard deviation with which BEATs was trained.
static void fill_sound(VlBatch *batch, Cursor *at, int64_t tokens, const VlMedium *medium) {
    static const float mean = 15.41663F, divisor = 2 * 6.55582F;
    float *to = batch->fbank + at->row * VL_FBANK_BINS;
    batch->sound_rows[at->sound++] = medium->rows;
    for (int64_t i = 0; i < medium->rows * VL_FBANK_BINS && medium->fbank; i++) {
        to[i] = (medium->fbank[i] - mean) / divisor;
    }
    at->row += medium->rows;
    for (int64_t i = 0; i < tokens; i++) batch->source[at->token++] = -1 - batch->visual_tokens - at->sound_token++;
}

// The tokens of a video stand before those of its sound.
static VlStatus fill_medium(VlBatch *batch, const VlModelConfig *config, Cursor *at, int64_t id, const VlMedium *medium,
                            int64_t frame_elements) {
    int64_t visual = 0, sound = 0;
    VL_TRY(count_medium(config, medium, id, &visual, &sound));
    if (medium->frames > 0) fill_visual(batch, at, repeat_of(config, id), visual, medium, frame_elements);
    if (medium->rows > 0) fill_sound(batch, at, sound, medium);
    return VL_OK;
}

static VlStatus fill_sequence(VlBatch *batch, const VlModelConfig *config, Cursor *at, const VlSequence *sequence,
                              int64_t frame_elements) {
    int64_t first = at->token, number = 0;
    for (int64_t i = 0; i < sequence->tokens; i++) {
        if (sequence->ids[i] < 0) {
            VL_TRY(fill_medium(batch, config, at, sequence->ids[i], &sequence->medium[number++], frame_elements));
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
    return VL_OK;
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
        VL_TRY_GOTO(status, fill_sequence(batch, config, &at, &sequences[s], frame_elements), failed);
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
    vl_free(batch->sound_rows);
    vl_free(batch->fbank);
    *batch = (VlBatch){0};
}
