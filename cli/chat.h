// Questions and answers about one medium: the question becomes a prompt, the answer comes as text while it is made.
#ifndef VL_CLI_CHAT_H
#define VL_CLI_CHAT_H

#include <stdio.h>

#include "cli/model_open.h"
#include "model/generate.h"

typedef struct VlChatOptions {
    const char *video, *image, *audio;  // one of them, or none
    bool sound;                         // of the video, too
    double sound_seconds;               // 0: the run's, or 30
    const char *protocol;               // NULL: the run's, or vl2-av
    const char *aspect;  // NULL: the run's, or what config.json says in image_aspect_ratio; else pad or none
    bool as_trained;     // no system text at inference
} VlChatOptions;

typedef struct VlChat VlChat;

// Loads the tokenizer and reads the medium. `open` outlives the chat.
VlStatus vl_chat_open(VlChat **chat, const VlOpenModel *open, const VlChatOptions *options);
// Adds a question to the conversation, writes the answer to `file` with a line break behind it, and adds it too.
VlStatus vl_chat_ask(VlChat *chat, const char *question, const VlGenerateOptions *generate, FILE *file);
void vl_chat_close(VlChat *chat);

#endif
