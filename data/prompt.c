// The protocols vl2-main and vl2-av: prompts are rendered by the checkpoint's chat template.
#include "data/prompt.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "data/prompt_parts.h"
#include "data/template.h"

enum { CONFIG_LIMIT = 16 << 20 };

// The second gap of two spaces and what follows each half are the reference's.
const char *const vl_prompt_system_first =
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  "
    "Your "
    "answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. Please "
    "ensure "
    "that your responses are socially unbiased and positive in nature.";
const char *const vl_prompt_system_second =
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "not "
    "correct. If you don't know the answer to a question, please don't share false information.";

static const char *const mode_names[] = {
    [VL_PROMPT_TRAIN_PLAIN] = "train-plain", [VL_PROMPT_TRAIN_SFT] = "train-sft", [VL_PROMPT_INFER] = "infer"};
enum { MODES = sizeof mode_names / sizeof *mode_names };

VlStatus vl_prompt_mode_parse(VlPromptMode *mode, const char *name) {
    for (int i = 0; i < MODES; i++) {
        if (!strcmp(name, mode_names[i])) {
            *mode = (VlPromptMode)i;
            return VL_OK;
        }
    }
    const char *nearest = vl_nearest_word(name, mode_names, MODES);
    return vl_error(VL_USAGE, "unknown mode '%.80s'; %s%s", name,
                    nearest ? "did you mean " : "known are train-plain, train-sft, ", nearest ? nearest : "infer");
}

const char *vl_prompt_mode_name(VlPromptMode mode) { return mode_names[mode]; }

VlStatus vl_prompt_family_load(VlPromptFamily *family, const char *folder) {
    static const struct {
        const char *type;
        VlPromptFamily family;
    } types[] = {{"videollama2", VL_PROMPT_FAMILY_LLAMA},
                 {"mistral", VL_PROMPT_FAMILY_LLAMA},
                 {"mixtral", VL_PROMPT_FAMILY_LLAMA},
                 {"videollama2_mistral", VL_PROMPT_FAMILY_LLAMA},
                 {"videollama2_mixtral", VL_PROMPT_FAMILY_LLAMA},
                 {"qwen2", VL_PROMPT_FAMILY_QWEN},
                 {"videollama2_qwen2", VL_PROMPT_FAMILY_QWEN}};
    char path[VL_PATH_MAX];
    json_t *config = NULL;
    const char *type = "";
    VL_TRY(vl_path_join(path, folder, "config.json"));
    VL_TRY(vl_json_load(path, CONFIG_LIMIT, &config));
    VlStatus status = vl_json_get_string(config, path, "model_type", true, &type);
    *family = VL_PROMPT_FAMILY_UNKNOWN;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!strcmp(types[i].type, type)) *family = types[i].family;
    }
    if (!status && *family == VL_PROMPT_FAMILY_UNKNOWN) {
        status = vl_error(VL_UNSUPPORTED,
                          "%s: model_type \"%.80s\" is not known; known are videollama2, videollama2_mistral, "
                          "videollama2_mixtral, videollama2_qwen2",
                          path, type);
    }
    json_decref(config);
    return status;
}

void vl_prompt_free(VlPrompt *prompt) {
    vl_token_ids_free(&prompt->input_ids);
    vl_token_ids_free(&prompt->labels);
    *prompt = (VlPrompt){0};
}

void vl_prompt_mask(VlPromptJob *job, int64_t begin, int64_t end) {
    VlTokenIds *labels = &job->prompt->labels;
    for (int64_t i = begin < 0 ? 0 : begin; i < end && i < labels->count; i++) labels->ids[i] = VL_LABEL_IGNORE;
}

VlStatus vl_prompt_label_all(VlPromptJob *job) {
    return vl_token_ids_append_all(&job->prompt->labels, job->prompt->input_ids.ids, job->prompt->input_ids.count);
}

void vl_prompt_drop_leading_answer(VlPromptJob *job) {
    if (job->turns[0].role == VL_ROLE_USER) return;
    job->turns++;
    job->count--;
}

// ---- Rendering and tokenising ----------------------------------------------

// Each part between tags is tokenised alone, with nothing added, and the modality id is put between them.
static VlStatus tokenize(const VlPromptJob *job, VlSpan text, VlTokenIds *out) {
    const char *tag = vl_modal_tag(job->modal);
    if (!tag) return vl_tokenizer_encode(job->tokenizer, text.data, text.length, false, out);
    VlSplit split = vl_split(text, tag);
    VlSpan part;
    for (bool first = true; vl_split_next(&split, &part); first = false) {
        if (!first) VL_TRY(vl_token_ids_append(out, vl_modal_id(job->modal)));
        VL_TRY(vl_tokenizer_encode(job->tokenizer, part.data, part.length, false, out));
    }
    return VL_OK;
}

static VlStatus token_text(const VlTokenizer *tokenizer, int64_t id, VlText *out) {
    int64_t length = 0;
    const char *text = vl_tokenizer_token(tokenizer, id, &length);
    return text ? vl_text_append(out, vl_span(text, length)) : VL_OK;
}

// The ids of turns as the tokenizer's chat template writes them, appended to *out.
static VlStatus render_ids(const VlPromptJob *job, const VlTurn *turns, int64_t count, bool generation_prompt,
                           VlTokenIds *out) {
    VlText text = {0}, bos = {0}, eos = {0};
    VlTemplate shape;
    VlStatus status;
    VL_TRY_GOTO(status, vl_template_recognize(&shape, vl_tokenizer_chat_template(job->tokenizer)), done);
    VL_TRY_GOTO(status, token_text(job->tokenizer, vl_tokenizer_bos(job->tokenizer), &bos), done);
    VL_TRY_GOTO(status, token_text(job->tokenizer, vl_tokenizer_eos(job->tokenizer), &eos), done);
    VL_TRY_GOTO(status, vl_template_render(shape, turns, count, generation_prompt, bos.data, eos.data, &text), done);
    VL_TRY_GOTO(status, tokenize(job, vl_text_span(&text), out), done);
done:
    vl_text_free(&text);
    vl_text_free(&bos);
    vl_text_free(&eos);
    return status;
}

// How many ids render_ids gives.
static VlStatus count_ids(const VlPromptJob *job, const VlTurn *turns, int64_t count, bool generation_prompt,
                          int64_t *length) {
    VlTokenIds ids = {0};
    VlStatus status = render_ids(job, turns, count, generation_prompt, &ids);
    *length = ids.count;
    vl_token_ids_free(&ids);
    return status;
}

// ---- The three modes -------------------------------------------------------

static VlStatus check_plain(const VlPromptJob *job) {
    const char *tag = vl_modal_tag(job->modal);
    if (!tag) return vl_error(VL_INVALID, "the plain stage needs a medium: a text-only sample has none");
    if (job->count != 2) {
        return vl_error(VL_INVALID, "the plain stage needs one question and one answer, not %lld turns",
                        (long long)job->count);
    }
    if (vl_span_find(vl_text_span(&job->turns[0].text), vl_span_string(tag), 0) < 0) {
        return vl_error(VL_INVALID, "the first turn of a sample of the plain stage must hold %s", tag);
    }
    return VL_OK;
}

// Question and answer in one line; all but the modality id is labelled.
static VlStatus plain_main(VlPromptJob *job) {
    VL_TRY(check_plain(job));
    VlText text = {0};
    VlStatus status;
    VL_TRY_GOTO(status, vl_text_append(&text, vl_text_span(&job->turns[0].text)), done);
    VL_TRY_GOTO(status, vl_text_append_string(&text, " "), done);
    VL_TRY_GOTO(status, vl_text_append(&text, vl_text_span(&job->turns[1].text)), done);
    VL_TRY_GOTO(status, tokenize(job, vl_text_span(&text), &job->prompt->input_ids), done);
    VL_TRY_GOTO(status, vl_prompt_label_all(job), done);
    for (int64_t i = 0; i < job->prompt->labels.count; i++) {
        if (job->prompt->labels.ids[i] == vl_modal_id(job->modal)) vl_prompt_mask(job, i, i + 1);
    }
done:
    vl_text_free(&text);
    return status;
}

// The chat template with the modality tag alone as the question, which is masked.
static VlStatus plain_av(VlPromptJob *job) {
    VL_TRY(check_plain(job));
    const char *tag = vl_modal_tag(job->modal);
    VlTurn turns[2] = {{.role = VL_ROLE_USER, .text = {.data = (char *)tag, .length = (int64_t)strlen(tag)}},
                       {.role = VL_ROLE_ASSISTANT, .text = job->turns[1].text}};
    int64_t question = 0;
    VL_TRY(render_ids(job, turns, 2, false, &job->prompt->input_ids));
    VL_TRY(vl_prompt_label_all(job));
    VL_TRY(count_ids(job, turns, 1, true, &question));
    vl_prompt_mask(job, 0, question);
    return VL_OK;
}

// What lies between an answer's end and the next answer's start is masked. Both are found as token counts of rendered
// prefixes, as in the reference: where tokens merge over a border, the count decides.
static VlStatus sft(VlPromptJob *job) {
    vl_prompt_drop_leading_answer(job);
    VL_TRY(render_ids(job, job->turns, job->count, false, &job->prompt->input_ids));
    if (job->count % 2) {
        return vl_error(VL_INVALID, "a conversation must have an even number of turns, not %lld",
                        (long long)job->count);
    }
    VL_TRY(vl_prompt_label_all(job));
    for (int64_t i = 0, end = 0; i < job->count; i += 2) {
        int64_t answer = 0;
        VL_TRY(count_ids(job, job->turns, i + 1, true, &answer));
        vl_prompt_mask(job, end, answer);
        VL_TRY(count_ids(job, job->turns, i + 2, false, &end));
    }
    return VL_OK;
}

static VlStatus tag_first_turn(VlConversation *asked, const VlPromptJob *job) {
    const char *tag = vl_modal_tag(job->modal);
    for (int64_t i = 0; i < job->count; i++) {
        VlText text = {0};
        VlStatus status = VL_OK;
        if (i == 0 && tag) status = vl_text_append_string(&text, tag);
        if (i == 0 && !status) status = vl_text_append_string(&text, "\n");
        if (!status) status = vl_text_append(&text, vl_text_span(&job->turns[i].text));
        if (!status) status = vl_conversation_append(asked, job->turns[i].role, vl_text_span(&text));
        vl_text_free(&text);
        if (status) return status;
    }
    return VL_OK;
}

static VlStatus add_system_turn(VlConversation *asked) {
    VlText text = {0};
    const char *const pieces[] = {"<<SYS>>\n", vl_prompt_system_first, "\n", vl_prompt_system_second, "\n<</SYS>>"};
    VlStatus status = VL_OK;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces && !status; i++)
        status = vl_text_append_string(&text, pieces[i]);
    if (!status) status = vl_conversation_append(asked, VL_ROLE_SYSTEM, vl_text_span(&text));
    vl_text_free(&text);
    return status;
}

static VlStatus infer(VlPromptJob *job) {
    if (job->rules.family == VL_PROMPT_FAMILY_UNKNOWN) {
        return vl_error(VL_INVALID, "a prompt for inference depends on the model's type, which is not known");
    }
    VlConversation asked = {0};
    VlStatus status = VL_OK;
    if (job->rules.family == VL_PROMPT_FAMILY_LLAMA) VL_TRY_GOTO(status, add_system_turn(&asked), done);
    VL_TRY_GOTO(status, tag_first_turn(&asked, job), done);
    VL_TRY_GOTO(status, render_ids(job, asked.turns, asked.count, true, &job->prompt->input_ids), done);
done:
    vl_conversation_free(&asked);
    return status;
}

static VlStatus make(VlPromptJob *job) {
    bool old = job->rules.protocol == VL_PROTOCOL_2024_06, av = job->rules.protocol == VL_PROTOCOL_AV;
    switch (job->rules.mode) {
    case VL_PROMPT_TRAIN_PLAIN: return old ? vl_prompt_plain_2024_06(job) : av ? plain_av(job) : plain_main(job);
    case VL_PROMPT_TRAIN_SFT: return old ? vl_prompt_sft_2024_06(job) : sft(job);
    case VL_PROMPT_INFER: return old ? vl_prompt_infer_2024_06(job) : infer(job);
    }
    return vl_error(VL_INTERNAL, "prompt mode %d is not implemented", (int)job->rules.mode);
}

VlStatus vl_prompt_make(const VlTokenizer *tokenizer, const VlPromptRules *rules, const VlConversation *conversation,
                        VlPrompt *prompt) {
    bool question = rules->mode == VL_PROMPT_INFER;
    if (conversation->question != question) {
        return vl_error(VL_INVALID, "mode %s takes %s", vl_prompt_mode_name(rules->mode),
                        question ? "\"instruct\" or \"messages\", not \"conversations\""
                                 : "\"conversations\", not \"instruct\" or \"messages\"");
    }
    if (vl_conversation_is_heard(conversation) && rules->protocol != VL_PROTOCOL_AV) {
        return vl_error(VL_INVALID, "protocol %s knows no sound; take vl2-av", vl_protocol_name(rules->protocol));
    }
    if (conversation->count == 0) return vl_error(VL_INVALID, "the conversation has no turns");
    VlConversation placed = {.modal = conversation->modal};
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < conversation->count; i++) {
        VlSpan text = vl_text_span(&conversation->turns[i].text);
        VL_TRY_GOTO(status, vl_conversation_append(&placed, conversation->turns[i].role, text), done);
    }
    if (!question) VL_TRY_GOTO(status, vl_conversation_place_tags(&placed, rules->protocol), done);
    VlPromptJob job = {.tokenizer = tokenizer,
                       .rules = *rules,
                       .modal = placed.modal,
                       .turns = placed.turns,
                       .count = placed.count,
                       .prompt = prompt};
    VL_TRY_GOTO(status, make(&job), done);
    for (int64_t i = 0; i < prompt->input_ids.count; i++) prompt->media += prompt->input_ids.ids[i] < 0;
done:
    vl_conversation_free(&placed);
    return status;
}
