// Shared by prompt.c and prompt_2024_06.c only.
#ifndef VL_DATA_PROMPT_PARTS_H
#define VL_DATA_PROMPT_PARTS_H

#include "data/prompt.h"

// A conversation whose tags are in place, on its way to a prompt.
typedef struct VlPromptJob {
    const VlTokenizer *tokenizer;
    VlPromptRules rules;
    VlModal modal;
    const VlTurn *turns;
    int64_t count;
    VlPrompt *prompt;
} VlPromptJob;

// Labels [begin, end) become VL_LABEL_IGNORE, cut to the labels that exist.
void vl_prompt_mask(VlPromptJob *job, int64_t begin, int64_t end);
// Labels = copy of the ids.
VlStatus vl_prompt_label_all(VlPromptJob *job);
// Without a leading turn that is not the user's.
void vl_prompt_drop_leading_answer(VlPromptJob *job);

VlStatus vl_prompt_plain_2024_06(VlPromptJob *job);
VlStatus vl_prompt_sft_2024_06(VlPromptJob *job);
VlStatus vl_prompt_infer_2024_06(VlPromptJob *job);

// Llama 2's published system text, in its two halves.
extern const char *const vl_prompt_system_first, *const vl_prompt_system_second;

#endif
