#include "cli/chat.h"

#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "data/prompt.h"
#include "data/visual.h"

struct VlChat {
    const VlOpenModel *open;
    VlTokenizer *tokenizer;
    VlPromptRules rules;
    VlConversation conversation;
    VlMedium medium;
    float *pixels;
    int64_t media;
    // The answer that is being made.
    int64_t *ids, count;
    int64_t shown;  // bytes of its text that are out already
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

static VlStatus read_medium(VlChat *chat, const VlChatOptions *options) {
    const VlModelConfig *config = vl_vlm_config(chat->open->model);
    const char *folder = chat->open->source.folder, *path = options->video ? options->video : options->image;
    VlVisualOptions visual = {
        .protocol = chat->rules.protocol, .num_frames = config->num_frames, .media = vl_media_defaults()};
    uint8_t *levels;
    visual.media.max_seconds = 600;  // patient: one file, and its answer is waited for
    if (!path) return VL_OK;
    chat->conversation.modal = options->video ? VL_MODAL_VIDEO : VL_MODAL_IMAGE;
    VL_TRY(vl_preprocess_load(&visual.config, folder));
    VL_TRY(vl_model_config_check_frames(config, visual.config.height, visual.config.width));
    VL_TRY(choose_aspect(&chat->open->source, options->aspect, &visual.aspect));
    VL_TRY(vl_visual_read(&visual, path, chat->conversation.modal, &chat->medium.frames, &levels));
    VlStatus status = VL_NEW(&chat->pixels, chat->medium.frames * 3 * visual.config.height * visual.config.width);
    if (status == VL_OK) vl_preprocess_normalize(&visual.config, levels, chat->medium.frames, chat->pixels);
    vl_free(levels);
    chat->medium.pixels = chat->pixels;
    chat->media = 1;
    return status;
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
    vl_free(chat->pixels);
    vl_free(chat);
}

// Writes what is new in the text so far. A character whose last bytes are still to come is held back: it stands as
// U+FFFD at the end.
static VlStatus show(VlChat *chat, bool all) {
    static const char replacement[] = "\xef\xbf\xbd";
    char *text;
    int64_t length;
    VL_TRY(vl_tokenizer_decode(chat->tokenizer, chat->ids, chat->count, true, &text, &length));
    int64_t ready = length;
    while (!all && ready >= 3 && memcmp(text + ready - 3, replacement, 3) == 0) ready -= 3;
    if (ready > chat->shown) {
        // The answer is stripped, as the reference does it: white space before its first word is not shown.
        int64_t begin = chat->shown;
        while (chat->shown == 0 && begin < ready && strchr(" \n\t\r", text[begin])) begin++;
        fwrite(text + begin, 1, (size_t)(ready - begin), chat->file);
        fflush(chat->file);
        if (begin < ready) chat->shown = ready;
    }
    vl_free(text);
    return VL_OK;
}

static VlStatus hear(void *user, int64_t id) {
    VlChat *chat = user;
    chat->ids[chat->count++] = id;
    return show(chat, false);
}

static VlStatus answer(VlChat *chat, const VlPrompt *prompt, const VlGenerateOptions *generate, int64_t *made) {
    VlSequence sequence = {
        .tokens = prompt->input_ids.count, .ids = prompt->input_ids.ids, .media = chat->media, .medium = &chat->medium};
    VlGenerateOptions options = *generate;
    int64_t count;
    int64_t eos = vl_tokenizer_eos(chat->tokenizer);
    if (options.stops == 0 && eos >= 0) {  // config.json names none
        options.stops = 1;
        options.stop = &eos;
    }
    options.token = hear;
    options.user = chat;
    chat->count = chat->shown = 0;
    VL_TRY(vl_generate(chat->open->model, &sequence, &options, made, &count));
    VL_TRY(show(chat, true));
    fputc('\n', chat->file);
    return fflush(chat->file) == 0 ? VL_OK : vl_error(VL_IO, "standard output cannot be written");
}

static VlStatus remember(VlChat *chat) {
    char *text;
    int64_t length;
    VL_TRY(vl_tokenizer_decode(chat->tokenizer, chat->ids, chat->count, true, &text, &length));
    VlStatus status =
        vl_conversation_append(&chat->conversation, VL_ROLE_ASSISTANT, vl_span_strip(vl_span(text, length)));
    vl_free(text);
    return status;
}

VlStatus vl_chat_ask(VlChat *chat, const char *question, const VlGenerateOptions *generate, FILE *file) {
    VlPrompt prompt = {0};
    int64_t *made = NULL;
    chat->file = file;
    VL_TRY(vl_conversation_append(&chat->conversation, VL_ROLE_USER, vl_span_string(question)));
    VlStatus status = vl_prompt_make(chat->tokenizer, &chat->rules, &chat->conversation, &prompt);
    if (status == VL_OK) status = VL_NEW(&made, generate->max_new_tokens);
    if (status == VL_OK) status = VL_NEW(&chat->ids, generate->max_new_tokens);
    if (status == VL_OK) status = answer(chat, &prompt, generate, made);
    if (status == VL_OK) status = remember(chat);
    vl_prompt_free(&prompt);
    vl_free(made);
    vl_free(chat->ids);
    chat->ids = NULL;
    return status;
}
