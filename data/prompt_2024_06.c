// The protocol vl2-2024-06: fixed wrappers instead of chat templates, and every part of a text tokenised with the BOS
// that the tokenizer adds. Label counts follow the reference step by step, its oddities included (spec data.md, 5.2).
#include "base/memory.h"
#include "data/prompt_parts.h"

#define QWEN_USER "<|im_start|>user\n"
#define QWEN_ASSISTANT "<|im_start|>assistant\n"
#define QWEN_SYSTEM "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
#define QWEN_END "<|im_end|>"

static bool is_qwen(const VlPromptJob *job) {
    if (job->rules.family != VL_PROMPT_FAMILY_UNKNOWN) return job->rules.family == VL_PROMPT_FAMILY_QWEN;
    return vl_tokenizer_find(job->tokenizer, "<|im_start|>") >= 0;
}

// Texts without a medium are split at the image's tag, as the reference does.
static VlModal split_modal(const VlPromptJob *job) { return job->modal == VL_MODAL_TEXT ? VL_MODAL_IMAGE : job->modal; }

// The BOS of the first part is kept, those of the others are dropped.
static VlStatus tokenize(const VlPromptJob *job, VlSpan text, VlTokenIds *out) {
    VlModal modal = split_modal(job);
    VlSplit split = vl_split(text, vl_modal_tag(modal));
    VlTokenIds ids = {0};
    VlSpan part;
    VlStatus status = VL_OK;
    int64_t begin = out->count, skipped = 0;
    int64_t bos = vl_tokenizer_bos(job->tokenizer);
    for (bool first = true; vl_split_next(&split, &part); first = false) {
        ids.count = 0;
        if (!first) VL_TRY_GOTO(status, vl_token_ids_append(out, vl_modal_id(modal)), done);
        VL_TRY_GOTO(status, vl_tokenizer_encode(job->tokenizer, part.data, part.length, true, &ids), done);
        int64_t from = skipped < ids.count ? skipped : ids.count;
        VL_TRY_GOTO(status, vl_token_ids_append_all(out, ids.ids + from, ids.count - from), done);
        if (first && bos >= 0 && out->count > begin && out->ids[begin] == bos) skipped = 1;
    }
done:
    vl_token_ids_free(&ids);
    return status;
}

static VlStatus count_ids(const VlPromptJob *job, VlSpan text, int64_t *length) {
    VlTokenIds ids = {0};
    VlStatus status = tokenize(job, text, &ids);
    *length = ids.count;
    vl_token_ids_free(&ids);
    return status;
}

static VlStatus put(VlText *out, const char *before, VlSpan text, const char *after) {
    VL_TRY(vl_text_append_string(out, before));
    VL_TRY(vl_text_append(out, text));
    return vl_text_append_string(out, after);
}

static VlStatus check_alternation(const VlPromptJob *job) {
    for (int64_t i = 0; i < job->count; i++) {
        if ((job->turns[i].role == VL_ROLE_USER) != (i % 2 == 0)) {
            return vl_error(VL_INVALID, "turn %lld: roles must alternate human/gpt/human/gpt/...", (long long)(i + 1));
        }
    }
    return VL_OK;
}

// <|im_start|> and <|im_end|> are always labelled, also in masked spans. The reference writes Qwen2's ids down, so
// another vocabulary has them masked.
static void label_chat_tokens(VlPromptJob *job) {
    enum { QWEN2_START = 151644, QWEN2_END = 151645 };
    VlPrompt *prompt = job->prompt;
    for (int64_t i = 0; i < prompt->input_ids.count; i++) {
        int64_t id = prompt->input_ids.ids[i];
        if (id == QWEN2_START || id == QWEN2_END) prompt->labels.ids[i] = id;
    }
}

// ---- Plain stage -----------------------------------------------------------

static VlStatus render_plain(const VlPromptJob *job, bool qwen, VlText *out) {
    VlSpan tag = vl_span_string(vl_modal_tag(split_modal(job)));
    for (int64_t i = 0; i < job->count; i++) {
        bool asks = i % 2 == 0;
        VlSpan text = asks ? tag : vl_text_span(&job->turns[i].text);
        const char *role = !qwen ? "" : asks ? QWEN_USER : QWEN_ASSISTANT;
        const char *end = qwen ? QWEN_END : asks ? "" : "\n";
        VL_TRY(put(out, role, text, text.length ? end : ""));
    }
    return VL_OK;
}

// ChatML: the questions are masked by counts in which only the first end token is counted.
static VlStatus mask_plain_qwen(VlPromptJob *job, VlSpan text) {
    VlSplit split = vl_split(text, QWEN_END);
    VlSpan part;
    int64_t position = 0;
    for (int64_t i = 0; vl_split_next(&split, &part) && part.length > 0; i++) {
        int64_t length = 0;
        VL_TRY(count_ids(job, part, &length));
        if (i % 2 == 0) vl_prompt_mask(job, position, position + length);
        position += length + (i == 0);
    }
    label_chat_tokens(job);
    return VL_OK;
}

VlStatus vl_prompt_plain_2024_06(VlPromptJob *job) {
    bool qwen = is_qwen(job);
    VlText text = {0};
    VlStatus status = VL_OK;
    int64_t question = 0;
    if (qwen) VL_TRY(check_alternation(job));
    VL_TRY_GOTO(status, render_plain(job, qwen, &text), done);
    VL_TRY_GOTO(status, tokenize(job, vl_text_span(&text), &job->prompt->input_ids), done);
    VL_TRY_GOTO(status, vl_prompt_label_all(job), done);
    if (qwen) {
        status = mask_plain_qwen(job, vl_text_span(&text));
    } else {
        VL_TRY_GOTO(status, count_ids(job, vl_span_string(vl_modal_tag(split_modal(job))), &question), done);
        vl_prompt_mask(job, 0, question);
    }
done:
    vl_text_free(&text);
    return status;
}

// ---- Conversations ---------------------------------------------------------

static VlStatus check_first_turn(const VlPromptJob *job) {
    if (job->count == 0 || job->turns[0].text.length > 0) return VL_OK;
    return vl_error(VL_INVALID, "the first turn is empty");
}

// "[INST] <<SYS>>\nsystem\n<</SYS>>\n\nquestion [/INST] answer </s>"; an empty turn is left out.
static VlStatus render_llama(const VlPromptJob *job, const char *system, VlText *out) {
    for (int64_t i = 0; i < job->count; i++) {
        VlSpan text = vl_text_span(&job->turns[i].text);
        if (text.length == 0) continue;
        if (i % 2) {
            VL_TRY(put(out, " ", text, " </s>"));
            continue;
        }
        VL_TRY(vl_text_append_string(out, "[INST] "));
        if (i == 0) VL_TRY(put(out, "<<SYS>>\n", vl_span_string(system), "\n<</SYS>>\n\n"));
        VL_TRY(put(out, "", text, " [/INST]"));
    }
    return VL_OK;
}

static VlStatus mask_llama(VlPromptJob *job, VlSpan text) {
    static const char separator[] = "[/INST] ";
    VlSplit rounds = vl_split(text, "</s>");
    VlSpan round;
    int64_t position = 1;
    vl_prompt_mask(job, 0, 1);
    while (vl_split_next(&rounds, &round) && round.length > 0) {
        int64_t found = vl_span_find(round, vl_span_string(separator), 0), length = 0, question = 0;
        int64_t behind = found + (int64_t)strlen(separator);
        if (found < 0 || vl_span_find(round, vl_span_string(separator), behind) >= 0) break;
        VL_TRY(count_ids(job, round, &length));
        VL_TRY(count_ids(job, vl_span(round.data, behind), &question));
        vl_prompt_mask(job, position, position + question - 2);
        position += length;
    }
    // The reference pads with the unknown token, so that one does not count.
    VlPrompt *prompt = job->prompt;
    int64_t pad = vl_tokenizer_unk(job->tokenizer), total = 0;
    if (pad < 0) pad = vl_tokenizer_pad(job->tokenizer);
    for (int64_t i = 0; i < prompt->input_ids.count; i++) total += pad < 0 || prompt->input_ids.ids[i] != pad;
    prompt->mismatch = position != total;
    vl_prompt_mask(job, prompt->mismatch ? 0 : position, prompt->labels.count);
    return VL_OK;
}

static VlStatus render_qwen(const VlPromptJob *job, VlText *out) {
    VL_TRY(vl_text_append_string(out, QWEN_SYSTEM));
    for (int64_t i = 0; i < job->count; i++) {
        VlSpan text = vl_text_span(&job->turns[i].text);
        VL_TRY(put(out, i % 2 ? QWEN_ASSISTANT : QWEN_USER, text, text.length ? QWEN_END "\n" : ""));
    }
    return VL_OK;
}

static VlStatus mask_qwen(VlPromptJob *job, VlSpan text) {
    VlSplit rounds = vl_split(text, QWEN_END);
    VlSpan round;
    int64_t position = 0, length = 0;
    if (!vl_split_next(&rounds, &round)) return VL_OK;
    VlTokenIds system = {0};
    VlStatus status = vl_tokenizer_encode(job->tokenizer, round.data, round.length, true, &system);
    position = system.count + 1;
    vl_token_ids_free(&system);
    if (status) return status;
    vl_prompt_mask(job, 0, position);
    for (int64_t i = 0; vl_split_next(&rounds, &round); i++) {
        if (round.length == 0 || vl_span_equal(round, vl_span_string("\n"))) break;
        VlSpan role = vl_span_string(i % 2 ? QWEN_ASSISTANT : QWEN_USER);
        int64_t found = vl_span_find(round, role, 0), question = 0, behind = found + role.length;
        if (found < 0 || vl_span_find(round, role, behind) >= 0) {
            return vl_error(VL_INVALID,
                            "round %lld of the conversation does not hold its role once: a turn before it is empty or "
                            "holds chat tokens",
                            (long long)(i + 1));
        }
        VL_TRY(count_ids(job, round, &length));
        VL_TRY(count_ids(job, vl_span(round.data, behind), &question));
        vl_prompt_mask(job, position, position + (i % 2 ? question : length + 1));
        position += length + 1;
    }
    vl_prompt_mask(job, position, job->prompt->labels.count);
    label_chat_tokens(job);
    return VL_OK;
}

VlStatus vl_prompt_sft_2024_06(VlPromptJob *job) {
    static const char system[] =
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and "
        "polite answers to the user's questions.";
    bool qwen = is_qwen(job);
    VlText text = {0};
    VlStatus status;
    vl_prompt_drop_leading_answer(job);
    VL_TRY(check_alternation(job));
    VL_TRY(check_first_turn(job));
    VL_TRY_GOTO(status, qwen ? render_qwen(job, &text) : render_llama(job, system, &text), done);
    VL_TRY_GOTO(status, tokenize(job, vl_text_span(&text), &job->prompt->input_ids), done);
    VL_TRY_GOTO(status, vl_prompt_label_all(job), done);
    VL_TRY_GOTO(status, qwen ? mask_qwen(job, vl_text_span(&text)) : mask_llama(job, vl_text_span(&text)), done);
done:
    vl_text_free(&text);
    return status;
}

// ---- Inference -------------------------------------------------------------

VlStatus vl_prompt_infer_2024_06(VlPromptJob *job) {
    if (job->modal != VL_MODAL_VIDEO || job->count != 1 || job->turns[0].role != VL_ROLE_USER) {
        return vl_error(VL_INVALID, "protocol vl2-2024-06 infers on a video with one question, nothing else");
    }
    VlText question = {0}, text = {0}, system = {0};
    VlTurn asked = {.role = VL_ROLE_USER};
    VlPromptJob single = *job;
    VlStatus status;
    VL_TRY_GOTO(status, put(&question, "<video>\n", vl_text_span(&job->turns[0].text), ""), done);
    asked.text = question;
    single.turns = &asked;
    if (is_qwen(job)) {
        VL_TRY_GOTO(status, render_qwen(&single, &text), done);
        VL_TRY_GOTO(status, vl_text_append_string(&text, QWEN_ASSISTANT), done);
    } else {
        VL_TRY_GOTO(status, put(&system, vl_prompt_system_first, vl_span_string("\n\n"), vl_prompt_system_second),
                    done);
        VL_TRY_GOTO(status, render_llama(&single, system.data, &text), done);
    }
    VL_TRY_GOTO(status, tokenize(job, vl_text_span(&text), &job->prompt->input_ids), done);
done:
    vl_text_free(&question);
    vl_text_free(&text);
    vl_text_free(&system);
    return status;
}
