#include "cli/chat.h"

#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/audio.h"
#include "data/prompt.h"
#include "data/token_stream.h"
#include "data/visual.h"

enum { PATIENCE = 600 };  // seconds for one file, whose answer is waited for

struct VlChat {
    const VlOpenModel *open;
    VlTokenizer *tokenizer;
    VlPromptRules rules;
    VlConversation conversation;
    VlMedium medium;
    float *pixels, *fbank;
    int64_t media;
    // The answer that is being made.
    VlTokenStream *stream;
    VlText answer;
    int64_t shown;  // bytes of it that are out already
    FILE *file;
};

// The option's word, or what the run was trained with, or what config.json records.
static VlStatus choose_aspect(const VlModelSource *source, const char *word, VlAspect *aspect) {
    const char *folder = source->folder;
    char path[VL_PATH_MAX];
    const char *recorded = "none";
    json_t *document;
    if (!word && source->aspect[0]) word = source->aspect;
    if (word) return vl_aspect_parse(aspect, word);
    VL_TRY(vl_path_join(path, folder, "config.json"));
    VL_TRY(vl_json_load(path, 64 << 20, &document));
    VlStatus status = vl_json_get_string(document, path, "image_aspect_ratio", false, &recorded);
    if (status == VL_OK) *aspect = strcmp(recorded, "pad") == 0 ? VL_ASPECT_PAD : VL_ASPECT_NONE;
    json_decref(document);
    return status;
}

// The sound of a file or of the video, made as the run's data were.
static VlStatus read_sound(VlChat *chat, const VlChatOptions *options) {
    const VlModelSource *source = &chat->open->source;
    VlAudioOptions audio = {.source = options->audio ? VL_AUDIO_FILE : VL_AUDIO_VIDEO,
                            .seconds = options->sound_seconds > 0 ? options->sound_seconds : source->sound_seconds,
                            .bf16 = strcmp(source->fbank_dtype, "bf16") == 0,
                            .media = vl_media_defaults()};
    const char *path = options->audio ? options->audio : options->video;
    VlFbank *fbank;
    bool silent = false;
    audio.media.max_seconds = PATIENCE;
    if (!vl_vlm_config(chat->open->model)->has_audio) {
        return vl_error(VL_INVALID, "%s: this model hears nothing: its config.json names no mm_audio_tower", path);
    }
    chat->medium.rows = vl_audio_rows(audio.seconds);
    VL_TRY(VL_NEW(&chat->fbank, chat->medium.rows * VL_FBANK_BINS));
    VL_TRY(vl_fbank_create(&fbank));
    VlStatus status = vl_audio_read_fbank(fbank, path, &audio, chat->fbank, &silent);
    vl_fbank_free(fbank);
    if (silent) vl_log(VL_LOG_WARNING, "%s has no sound: silence is heard", path);
    chat->medium.fbank = chat->fbank;
    chat->media = 1;
    return status;
}

static VlStatus read_frames(VlChat *chat, const VlChatOptions *options) {
    const VlModelConfig *config = vl_vlm_config(chat->open->model);
    const char *folder = chat->open->source.folder, *path = options->video ? options->video : options->image;
    VlVisualOptions visual = {
        .protocol = chat->rules.protocol, .num_frames = config->num_frames, .media = vl_media_defaults()};
    uint8_t *levels;
    visual.media.max_seconds = PATIENCE;
    VL_TRY(vl_preprocess_load(&visual.config, folder));
    VL_TRY(vl_model_config_check_frames(config, visual.config.height, visual.config.width));
    VL_TRY(choose_aspect(&chat->open->source, options->aspect, &visual.aspect));
    VL_TRY(vl_visual_read(&visual, path, chat->conversation.modal, &chat->medium.frames, &levels, NULL));
    VlStatus status = VL_NEW(&chat->pixels, chat->medium.frames * 3 * visual.config.height * visual.config.width);
    if (status == VL_OK) vl_preprocess_normalize(&visual.config, levels, chat->medium.frames, chat->pixels);
    vl_free(levels);
    chat->medium.pixels = chat->pixels;
    chat->media = 1;
    return status;
}

static VlStatus read_medium(VlChat *chat, const VlChatOptions *options) {
    chat->conversation.modal = options->video   ? VL_MODAL_VIDEO
                               : options->image ? VL_MODAL_IMAGE
                               : options->audio ? VL_MODAL_AUDIO
                                                : VL_MODAL_TEXT;
    if (options->video || options->image) VL_TRY(read_frames(chat, options));
    return options->audio || options->sound ? read_sound(chat, options) : VL_OK;
}

static VlStatus set_up(VlChat *chat, const VlChatOptions *options) {
    const char *folder = chat->open->source.folder;
    chat->rules.mode = VL_PROMPT_INFER;
    chat->conversation.question = true;
    const char *protocol = options->protocol ? options->protocol : chat->open->source.protocol;
    VL_TRY(vl_protocol_parse(&chat->rules.protocol, *protocol ? protocol : "vl2-av"));
    VL_TRY(vl_tokenizer_load(&chat->tokenizer, folder));
    VL_TRY(vl_prompt_family_load(&chat->rules.family, folder));
    if (options->as_trained) chat->rules.family = VL_PROMPT_FAMILY_QWEN;  // the family without a system text of its own
    return read_medium(chat, options);
}

VlStatus vl_chat_open(VlChat **out, const VlOpenModel *open, const VlChatOptions *options) {
    VlChat *chat;
    VL_TRY(VL_NEW(&chat, 1));
    chat->open = open;
    VlStatus status = set_up(chat, options);
    if (status != VL_OK) {
        vl_chat_close(chat);
        return status;
    }
    *out = chat;
    return VL_OK;
}

void vl_chat_close(VlChat *chat) {
    if (!chat) return;
    vl_tokenizer_free(chat->tokenizer);
    vl_conversation_free(&chat->conversation);
    vl_text_free(&chat->answer);
    vl_free(chat->pixels);
    vl_free(chat->fbank);
    vl_free(chat);
}

// Writes what is new in the answer. It is stripped, as the reference does it: white space before the first word is not
// shown, and white space at the end waits for a word behind it.
static VlStatus show(VlChat *chat, VlSpan piece) {
    VL_TRY(vl_text_append(&chat->answer, piece));
    const char *text = chat->answer.data;
    VlSpan stripped = vl_span_strip(vl_text_span(&chat->answer));
    int64_t begin = stripped.data - text, end = begin + stripped.length;
    if (begin < chat->shown) begin = chat->shown;
    if (begin >= end) return VL_OK;
    fwrite(text + begin, 1, (size_t)(end - begin), chat->file);
    chat->shown = end;
    return fflush(chat->file) == 0 ? VL_OK : vl_error(VL_IO, "standard output cannot be written");
}

static VlStatus hear(void *user, int64_t id) {
    VlChat *chat = user;
    VlSpan piece;
    VL_TRY(vl_token_stream_push(chat->stream, id, &piece));
    return show(chat, piece);
}

static VlStatus hear_end(VlChat *chat) {
    VlSpan rest;
    VL_TRY(vl_token_stream_finish(chat->stream, &rest));
    VL_TRY(show(chat, rest));
    fputc('\n', chat->file);
    return fflush(chat->file) == 0 ? VL_OK : vl_error(VL_IO, "standard output cannot be written");
}

static VlStatus answer(VlChat *chat, const VlPrompt *prompt, const VlGenerateOptions *generate, int64_t *made) {
    VlSequence sequence = {
        .tokens = prompt->input_ids.count, .ids = prompt->input_ids.ids, .media = chat->media, .medium = &chat->medium};
    VlGenerateOptions options = *generate;
    int64_t count, stop[VL_MOST_STOPS + 1], eos = vl_tokenizer_eos(chat->tokenizer);
    // The tokenizer's end of sequence ends an answer too, as in the reference.
    for (int64_t i = 0; i < options.stops; i++) stop[i] = options.stop[i];
    if (eos >= 0) stop[options.stops++] = eos;
    options.stop = stop;
    options.token = hear;
    options.user = chat;
    chat->answer.length = chat->shown = 0;
    VL_TRY(vl_token_stream_open(&chat->stream, chat->tokenizer, true));
    VlStatus status = vl_generate(chat->open->model, &sequence, &options, made, &count);
    if (status == VL_OK) status = hear_end(chat);
    vl_token_stream_close(chat->stream);
    return status;
}

VlStatus vl_chat_ask(VlChat *chat, const char *question, const VlGenerateOptions *generate, FILE *file) {
    VlPrompt prompt = {0};
    int64_t *made = NULL;
    chat->file = file;
    VL_TRY(vl_conversation_append(&chat->conversation, VL_ROLE_USER, vl_span_string(question)));
    VlStatus status = vl_prompt_make(chat->tokenizer, &chat->rules, &chat->conversation, &prompt);
    if (status == VL_OK) status = VL_NEW(&made, generate->max_new_tokens);
    if (status == VL_OK) status = answer(chat, &prompt, generate, made);
    if (status == VL_OK) {
        status =
            vl_conversation_append(&chat->conversation, VL_ROLE_ASSISTANT, vl_span_strip(vl_text_span(&chat->answer)));
    }
    vl_prompt_free(&prompt);
    vl_free(made);
    return status;
}
