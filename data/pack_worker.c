#include "data/pack_worker.h"

#include <stdio.h>
#include <string.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"

bool vl_pack_is_bad_sample(VlStatus status) {
    return status == VL_IO || status == VL_FORMAT || status == VL_INVALID || status == VL_UNSUPPORTED;
}

VlStatus vl_pack_job_blame(VlPackJob *job, VlStatus status) {
    if (!status || !vl_pack_is_bad_sample(status)) return status;
    if (job->row > 0) vl_error_context(status, "row %lld", (long long)job->row);
    return vl_duplicate_string(&job->reason, vl_error_text());
}

// ---- Text ------------------------------------------------------------------

static json_t *record_to_json(const VlPackJob *job) {
    const VlConversation *conversation = &job->conversation;
    json_t *turns = json_array();
    for (int64_t i = 0; turns && i < conversation->count; i++) {
        VlSpan text = vl_text_span(&conversation->turns[i].text);
        const char *from = conversation->turns[i].role == VL_ROLE_USER ? "human" : "gpt";
        if (json_array_append_new(turns,
                                  json_pack("{s:s,s:s%}", "from", from, "value", text.data, (size_t)text.length))) {
            json_decref(turns);
            return NULL;
        }
    }
    const char *modal = vl_modal_name(conversation->modal);
    return json_pack("{s:s,s:s,s:s,s:o*,s:o}", "id", job->id, "kind", job->kind, "modal", modal, "va",
                     conversation->with_audio ? json_true() : NULL, "conversations", turns);
}

// The sample must be one that the SFT rules take: what the plain stage needs besides is the loader's to check.
static VlStatus check_prompt(VlPackJob *job) {
    VlPrompt prompt = {0};
    VlPromptRules rules = {.protocol = job->context->protocol, .mode = VL_PROMPT_TRAIN_SFT};
    const char *tag = vl_modal_tag(job->conversation.modal);
    int64_t wanted = tag ? 1 : 0;
    VlStatus status = vl_prompt_make(job->context->tokenizer, &rules, &job->conversation, &prompt);
    if (!status && prompt.media != wanted) {
        status = vl_error(VL_INVALID, "its turns hold %lld tags %s; exactly %lld is needed", (long long)prompt.media,
                          tag ? tag : "of a medium", (long long)wanted);
    }
    job->tokens = prompt.input_ids.count;
    vl_prompt_free(&prompt);
    return status;
}

static VlStatus word_sample(void *argument) {
    VlPackJob *job = argument;
    VL_TRY(vl_pack_job_blame(job, check_prompt(job)));
    if (job->reason) return VL_OK;
    json_t *record = record_to_json(job);
    job->text = record ? json_dumps(record, JSON_COMPACT) : NULL;
    json_decref(record);
    if (!job->text)
        return vl_error(VL_OUT_OF_MEMORY, "out of memory for the text of annotation %lld", (long long)job->number);
    job->length = (int64_t)strlen(job->text);
    return VL_OK;
}

// ---- Annotations -----------------------------------------------------------

// "id" may be a string or a number; a sample without one is called by its number in the list.
static VlStatus take_id(VlPackJob *job, const json_t *annotation) {
    char number[32];
    const json_t *id = json_object_get(annotation, "id"), *kind = json_object_get(annotation, "kind");
    if (json_is_integer(id)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(id));
    } else {
        snprintf(number, sizeof number, "%lld", (long long)job->number);
    }
    VL_TRY(vl_duplicate_string(&job->id, json_is_string(id) ? json_string_value(id) : number));
    return vl_duplicate_string(&job->kind, json_is_string(kind) ? json_string_value(kind) : "");
}

static const char *key_word(const VlConversation *conversation) {
    return conversation->with_audio ? "av" : vl_modal_name(conversation->modal);
}

static VlStatus take_conversation(VlPackJob *job, const VlAnnotation *annotation) {
    VlConversation *conversation = &job->conversation;
    if (annotation->problem) return vl_error(VL_FORMAT, "%s", annotation->problem);
    VL_TRY(vl_conversation_from_json(conversation, annotation->object, "the annotation"));
    if (conversation->question) return vl_error(VL_INVALID, "it has no \"conversations\" to learn from");
    if (vl_conversation_is_heard(conversation) && !job->context->fbank) {
        return vl_error(VL_INVALID,
                        "the model has no audio tower; take one whose config.json names an mm_audio_tower, or leave "
                        "samples with sound out");
    }
    if (conversation->modal == VL_MODAL_TEXT) return VL_OK;
    if (!conversation->media || !conversation->media[0]) return vl_error(VL_INVALID, "it names no file for its medium");
    size_t size = strlen(conversation->media) + 16;
    VL_TRY(VL_NEW(&job->key, (int64_t)size));
    snprintf(job->key, size, "%s:%s", key_word(conversation), conversation->media);
    return VL_OK;
}

VlStatus vl_pack_job_create(VlPackJob **out, const VlPackContext *context, const VlAnnotation *annotation,
                            int64_t number) {
    VlPackJob *job;
    VL_TRY(VL_NEW(&job, 1));
    job->context = context;
    job->number = number;
    job->row = annotation->row;
    job->task = (VlTask){.run = word_sample, .argument = job};
    VlStatus status = take_id(job, annotation->object);
    if (!status) status = vl_pack_job_blame(job, take_conversation(job, annotation));
    if (status) {
        vl_pack_job_free(job);
        return status;
    }
    *out = job;
    return VL_OK;
}

void vl_pack_job_free(VlPackJob *job) {
    if (!job) return;
    vl_conversation_free(&job->conversation);
    vl_free(job->id);
    vl_free(job->kind);
    vl_free(job->reason);
    vl_free(job->text);
    vl_free(job->key);
    vl_free(job);
}

// ---- Media -----------------------------------------------------------------

// The window of a long file is chosen by the annotation's path, wherever the media folder lies.
static VlStatus read_sound(VlPackMedium *medium, const char *path) {
    VlAudioOptions options = medium->context->audio;
    options.source = medium->modal == VL_MODAL_VIDEO ? VL_AUDIO_VIDEO : VL_AUDIO_FILE;
    options.window_draw = vl_audio_draw(medium->path);
    medium->rows = vl_audio_rows(options.seconds);
    VL_TRY(VL_NEW(&medium->fbank, medium->rows * VL_FBANK_BINS));
    return vl_audio_read_fbank(medium->context->fbank, path, &options, medium->fbank, &medium->silent);
}

static VlStatus decode_medium(void *argument) {
    VlPackMedium *medium = argument;
    char path[VL_PATH_MAX];
    VL_TRY(vl_path_join(path, medium->context->media, medium->path));
    if (medium->modal != VL_MODAL_AUDIO) {
        VL_TRY(vl_visual_read(&medium->context->visual, path, medium->modal, &medium->frames, &medium->levels,
                              &medium->times));
    }
    return medium->modal == VL_MODAL_AUDIO || medium->with_audio ? read_sound(medium, path) : VL_OK;
}

VlStatus vl_pack_medium_create(VlPackMedium **out, const VlPackContext *context, const VlPackJob *job) {
    VlPackMedium *medium;
    VL_TRY(VL_NEW(&medium, 1));
    medium->context = context;
    medium->modal = job->conversation.modal;
    medium->with_audio = job->conversation.with_audio;
    medium->task = (VlTask){.run = decode_medium, .argument = medium};
    VlStatus status = vl_duplicate_string(&medium->key, job->key);
    if (status) {
        vl_free(medium);
        return status;
    }
    medium->path = medium->key + strlen(key_word(&job->conversation)) + 1;
    *out = medium;
    return VL_OK;
}

void vl_pack_medium_free(VlPackMedium *medium) {
    if (!medium) return;
    vl_free(medium->key);
    vl_free(medium->levels);
    vl_free(medium->times);
    vl_free(medium->fbank);
    vl_free(medium);
}
