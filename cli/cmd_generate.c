#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "cli/chat.h"
#include "cli/commands.h"
#include "cli/generate_request.h"
#include "cli/model_open.h"
#include "data/audio.h"
#include "model/generate.h"
#include "model/generation_config.h"

enum { DEFAULT_NEW_TOKENS = 512, MOST_NEW_TOKENS = 1 << 20 };

typedef struct Settings {
    VlModelOptions model;
    VlChatOptions chat;
    const char *input, *prompt;
    bool ids, conversation;
    int64_t max_new_tokens, seed;  // max_new_tokens VL_NOT_GIVEN: what the request says, or the default
    double temperature, top_p;
} Settings;

static VlStatus print_ids(const int64_t *ids, int64_t count) {
    printf("{\"ids\": [");
    for (int64_t i = 0; i < count; i++) printf("%s%lld", i ? ", " : "", (long long)ids[i]);
    printf("]}\n");
    return fflush(stdout) == 0 ? VL_OK : vl_error(VL_IO, "standard output cannot be written");
}

static VlStatus generate_options(const Settings *settings, const VlGenerationConfig *recorded, int64_t max_new_tokens,
                                 VlGenerateOptions *options) {
    if (max_new_tokens < 1 || max_new_tokens > MOST_NEW_TOKENS) {
        return vl_error(VL_INVALID, "max_new_tokens is %lld: give 1 to %d", (long long)max_new_tokens, MOST_NEW_TOKENS);
    }
    *options = (VlGenerateOptions){.max_new_tokens = max_new_tokens,
                                   .temperature = settings->temperature,
                                   .top_p = settings->top_p,
                                   .top_k = recorded->top_k,
                                   .seed = (uint64_t)settings->seed,
                                   .repetition_penalty = recorded->repetition_penalty,
                                   .stops = recorded->stops,
                                   .stop = recorded->stop};
    return VL_OK;
}

// The form --input REQUEST.json --ids.
static VlStatus answer_request(const VlOpenModel *open, const Settings *settings) {
    VlGenerateRequest request;
    VlGenerateOptions options;
    VlGenerationConfig recorded;
    int64_t *ids = NULL, count, most = settings->max_new_tokens;
    VL_TRY(vl_generation_config_load(&recorded, vl_vlm_config(open->model)));
    VL_TRY(vl_generate_request_load(&request, settings->input, vl_vlm_config(open->model)));
    if (most == VL_NOT_GIVEN) most = request.max_new_tokens;
    if (most == VL_NOT_GIVEN) most = DEFAULT_NEW_TOKENS;
    VlStatus status = generate_options(settings, &recorded, most, &options);
    if (status == VL_OK) status = VL_NEW(&ids, most);
    if (status == VL_OK) status = vl_generate(open->model, &request.prompt, &options, ids, &count);
    if (status == VL_OK) status = print_ids(ids, count);
    vl_free(ids);
    vl_generate_request_free(&request);
    return status;
}

// The form --prompt TEXT, and the conversation.
static VlStatus answer_text(const VlOpenModel *open, const Settings *settings) {
    VlGenerateOptions options;
    VlChat *chat;
    VlGenerationConfig recorded;
    VL_TRY(vl_generation_config_load(&recorded, vl_vlm_config(open->model)));
    VL_TRY(generate_options(settings, &recorded,
                            settings->max_new_tokens == VL_NOT_GIVEN ? DEFAULT_NEW_TOKENS : settings->max_new_tokens,
                            &options));
    VL_TRY(vl_chat_open(&chat, open, &settings->chat));
    VlStatus status = settings->prompt ? vl_chat_ask(chat, settings->prompt, &options, stdout) : VL_OK;
    char *line = NULL;
    size_t capacity = 0;
    while (settings->conversation && status == VL_OK) {
        fputs("> ", stderr);
        if (getline(&line, &capacity, stdin) < 0) break;
        line[strcspn(line, "\n")] = '\0';
        status = vl_chat_ask(chat, line, &options, stdout);
    }
    free(line);
    if (ferror(stdin) && status == VL_OK) status = vl_error(VL_IO, "standard input cannot be read");
    vl_chat_close(chat);
    return status;
}

static VlStatus check_form(const Settings *settings) {
    const VlChatOptions *chat = &settings->chat;
    if (settings->input ? !settings->ids : settings->ids) {
        return vl_error(VL_USAGE, "vl2 generate: --input FILE.json and --ids go together");
    }
    if (settings->input &&
        (settings->prompt || settings->conversation || chat->video || chat->image || chat->audio || chat->sound)) {
        return vl_error(
            VL_USAGE,
            "vl2 generate: --input holds the whole request; it goes with none of --prompt, --chat, --video, "
            "--image, --audio, --sound");
    }
    if (!settings->input && !settings->prompt && !settings->conversation) {
        return vl_error(VL_USAGE, "vl2 generate: give --prompt TEXT, --chat, or --input FILE.json --ids");
    }
    if ((chat->video != NULL) + (chat->image != NULL) + (chat->audio != NULL) > 1) {
        return vl_error(
            VL_USAGE, "vl2 generate: give one of --video, --image and --audio; a video's own sound comes with --sound");
    }
    if (chat->sound && !chat->video) return vl_error(VL_USAGE, "vl2 generate: --sound is that of a --video");
    if (chat->sound_seconds != 0 && !(chat->sound_seconds >= 1 && chat->sound_seconds <= VL_AUDIO_SECONDS)) {
        return vl_error(VL_USAGE, "vl2 generate: --sound-seconds is %g: give 1 to %d", chat->sound_seconds,
                        VL_AUDIO_SECONDS);
    }
    return VL_OK;
}

VlStatus vl_cmd_generate(int argc, char **argv) {
    Settings settings = {.model = VL_MODEL_OPTIONS_DEFAULT, .top_p = 1, .max_new_tokens = VL_NOT_GIVEN};
    const VlOption options[] = {
        VL_MODEL_OPTION_ROWS(settings.model),
        {"video", VL_OPTION_STRING, &settings.chat.video, "FILE", "the video that is asked about", false},
        {"image", VL_OPTION_STRING, &settings.chat.image, "FILE", "the picture that is asked about", false},
        {"audio", VL_OPTION_STRING, &settings.chat.audio, "FILE", "the sound that is asked about", false},
        {"sound", VL_OPTION_FLAG, &settings.chat.sound, NULL, "the video is heard, too: its own sound track", false},
        {"sound-seconds", VL_OPTION_DOUBLE, &settings.chat.sound_seconds, "X",
         "how much of a sound is heard, from its beginning; shorter ones are padded (the run's; 30)", false},
        {"prompt", VL_OPTION_STRING, &settings.prompt, "TEXT", "the question", false},
        {"chat", VL_OPTION_FLAG, &settings.conversation, NULL,
         "a conversation: questions from standard input, a line each", false},
        {"protocol", VL_OPTION_STRING, &settings.chat.protocol, "NAME",
         "prompt and frame sampling: vl2-av, vl2-main, vl2-2024-06 (the run's; vl2-av)", false},
        {"aspect", VL_OPTION_STRING, &settings.chat.aspect, "pad|none",
         "pad pictures to a square (the run's; what config.json says)", false},
        {"as-trained", VL_OPTION_FLAG, &settings.chat.as_trained, NULL,
         "the prompt as training has it, without the reference's system text", false},
        {"input", VL_OPTION_STRING, &settings.input, "FILE.json",
         "request: input_ids, pixel_values, fbank, max_new_tokens", false},
        {"ids", VL_OPTION_FLAG, &settings.ids, NULL, "answer with token ids: {\"ids\": [..]}", false},
        {"max-new-tokens", VL_OPTION_INT64, &settings.max_new_tokens, "N", "longest answer (the request's; 512)",
         false},
        {"temperature", VL_OPTION_DOUBLE, &settings.temperature, "X", "0: always the likeliest token (0)", false},
        {"top-p", VL_OPTION_DOUBLE, &settings.top_p, "X", "sample from the likeliest tokens of this probability (1)",
         false},
        {"seed", VL_OPTION_INT64, &settings.seed, "N", "of the draws (0)", false},
    };
    const VlCommand command = {.name = "generate",
                               .about =
                                   "Answers a question about a video, a sound, a video with its sound, a picture or a "
                                   "text.",
                               .options = sizeof options / sizeof *options,
                               .option = options};
    bool help;
    VL_TRY(vl_options_parse(&command, argc, argv, NULL, &help));
    if (help) return VL_OK;
    VL_TRY(check_form(&settings));
    VlOpenModel open;
    VL_TRY(vl_model_open(&open, &settings.model, 0));
    VlStatus status = settings.input ? answer_request(&open, &settings) : answer_text(&open, &settings);
    vl_model_close(&open);
    return status;
}
