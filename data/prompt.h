// From a conversation to token ids and labels, by the rules of a protocol and a stage (spec data.md, sections 0
// and 5.2).
#ifndef VL_DATA_PROMPT_H
#define VL_DATA_PROMPT_H

#include "data/conversation.h"
#include "data/token_ids.h"
#include "data/tokenizer.h"

enum { VL_LABEL_IGNORE = -100 };

typedef enum VlPromptMode {
    VL_PROMPT_TRAIN_PLAIN,  // "train-plain": caption pretraining, one question and one answer
    VL_PROMPT_TRAIN_SFT,    // "train-sft": conversations
    VL_PROMPT_INFER,        // "infer": a question that the model is to answer
} VlPromptMode;

// Errors: VL_USAGE naming the nearest mode.
VlStatus vl_prompt_mode_parse(VlPromptMode *mode, const char *name);
const char *vl_prompt_mode_name(VlPromptMode mode);

// What the prompt depends on of a model's type: Llama's family gets a system text at inference, and 2024-06 has one
// wrapper each.
typedef enum VlPromptFamily {
    VL_PROMPT_FAMILY_UNKNOWN,  // enough for training; then 2024-06 goes by the tokenizer (ChatML tokens: Qwen)
    VL_PROMPT_FAMILY_LLAMA,    // videollama2, videollama2_mistral, videollama2_mixtral
    VL_PROMPT_FAMILY_QWEN,     // videollama2_qwen2
} VlPromptFamily;

// From the `model_type` of folder/config.json. Errors: VL_IO, VL_FORMAT, VL_UNSUPPORTED for another type.
VlStatus vl_prompt_family_load(VlPromptFamily *family, const char *folder);

typedef struct VlPromptRules {
    VlProtocol protocol;
    VlPromptMode mode;
    VlPromptFamily family;
} VlPromptRules;

typedef struct VlPrompt {
    VlTokenIds input_ids;  // text ids, and -200, -201 or -202 where a medium's tag stood
    VlTokenIds labels;     // one per id (-100: not labelled); empty for a question
    int64_t media;         // modality ids in input_ids; a sample that can be trained on has one for its medium
    bool mismatch;         // 2024-06 SFT: the token counts disagreed, so the reference's rule masked the whole sample
} VlPrompt;

// Fills an empty (zeroed) prompt, released with vl_prompt_free, also after an error. The tags of a training sample are
// put in place first (vl_conversation_place_tags, on a copy). The text of the prompt is not truncated. Errors:
// VL_INVALID where the reference's rules refuse (odd turns, a template against the roles, no tag in the plain stage,
// sound outside vl2-av), VL_UNSUPPORTED for an unknown chat template.
VlStatus vl_prompt_make(const VlTokenizer *tokenizer, const VlPromptRules *rules, const VlConversation *conversation,
                        VlPrompt *prompt);
void vl_prompt_free(VlPrompt *prompt);

#endif
