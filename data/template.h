// Chat templates: the five shapes that the released checkpoints and common conversions of them carry, each implemented
// in C. A checkpoint's template is recognised by its exact text (length and hash); an unknown one is refused, not
// guessed.
#ifndef VL_DATA_TEMPLATE_H
#define VL_DATA_TEMPLATE_H

#include "data/conversation.h"

typedef enum VlTemplate {
    VL_TEMPLATE_MISTRAL_SYSTEM,  // "<s> [INST] system\n\nuser [/INST] answer</s>"; the system turn may be left out
    VL_TEMPLATE_MISTRAL_2023,    // "<s>[INST] user [/INST]answer</s>"; refuses a system turn
    VL_TEMPLATE_MISTRAL_STRIP,   // "<s>[INST] system\n\nuser [/INST] answer </s>", texts stripped of white space
    VL_TEMPLATE_CHATML_QWEN2,    // "<|im_start|>role\ntext<|im_end|>\n", with a default system turn
    VL_TEMPLATE_CHATML_PLAIN,    // the same without the default system turn
} VlTemplate;

// The shape of a template's text. Errors: VL_UNSUPPORTED with the text's hash; also for NULL (the tokenizer has no
// template).
VlStatus vl_template_recognize(VlTemplate *shape, const char *text);
const char *vl_template_name(VlTemplate shape);

// Appends `count` turns as the template writes them. `bos` and `eos` are the texts of those tokens, NULL where there is
// none. With `generation_prompt`, what an answer starts with is added (ChatML only; Mistral's templates have no such
// part). Errors: VL_INVALID where the template itself refuses: no turns, roles that do not alternate, a role it does
// not know.
VlStatus vl_template_render(VlTemplate shape, const VlTurn *turns, int64_t count, bool generation_prompt,
                            const char *bos, const char *eos, VlText *out);

#endif
