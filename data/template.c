#include "data/template.h"

#include "base/random.h"

static const struct {
    const char *name;
    int64_t length;
    uint64_t hash;  // vl_hash_string of the template's text
} shapes[] = {
    [VL_TEMPLATE_MISTRAL_SYSTEM] = {"mistral-system", 1058, 0xc995e444726bd478u},
    [VL_TEMPLATE_MISTRAL_2023] = {"mistral-2023", 470, 0x24e7d8fa11ccd3fcu},
    [VL_TEMPLATE_MISTRAL_STRIP] = {"mistral-strip", 768, 0xe2b0973dc90cca5bu},
    [VL_TEMPLATE_CHATML_QWEN2] = {"chatml-qwen2", 328, 0x0344a8c8899b521eu},
    [VL_TEMPLATE_CHATML_PLAIN] = {"chatml-plain", 196, 0x16b581611aef74ccu},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

const char *vl_template_name(VlTemplate shape) { return shapes[shape].name; }

VlStatus vl_template_recognize(VlTemplate *shape, const char *text) {
    if (!text) {
        return vl_error(VL_UNSUPPORTED,
                        "tokenizer_config.json has no chat_template; take the one of the model's release over");
    }
    uint64_t hash = vl_hash_string(text);
    for (int i = 0; i < SHAPES; i++) {
        if (shapes[i].hash == hash && shapes[i].length == (int64_t)strlen(text)) {
            *shape = (VlTemplate)i;
            return VL_OK;
        }
    }
    return vl_error(
        VL_UNSUPPORTED,
        "tokenizer_config.json: the chat_template with the hash %016llx (%zu bytes) is not known; known, by their "
        "exact "
        "text, are mistral-system, mistral-2023, mistral-strip, chatml-qwen2 and chatml-plain: take the "
        "tokenizer_config.json of the model's release, or the template of these that the model was trained with",
        (unsigned long long)hash, strlen(text));
}

// ---- Rendering -------------------------------------------------------------

typedef struct Render {
    const VlTurn *turns;
    int64_t count;
    const char *bos, *eos;
    VlText *out;
} Render;

static VlStatus put(Render *render, const char *before, VlSpan text, const char *after) {
    VL_TRY(vl_text_append_string(render->out, before));
    VL_TRY(vl_text_append(render->out, text));
    return vl_text_append_string(render->out, after);
}

static VlStatus check_alternation(const VlTurn *turn, int64_t index) {
    if ((turn->role == VL_ROLE_USER) == (index % 2 == 0)) return VL_OK;
    return vl_error(VL_INVALID,
                    "the chat template refuses turn %lld: roles must alternate user/assistant/user/assistant/...",
                    (long long)(index + 1));
}

static VlStatus put_end(Render *render) {
    if (!render->eos)
        return vl_error(VL_INVALID, "the chat template needs an eos_token, and tokenizer_config.json names none");
    return vl_text_append_string(render->out, render->eos);
}

static VlStatus render_mistral_system(Render *render) {
    const VlTurn *system = render->turns[0].role == VL_ROLE_SYSTEM ? render->turns : NULL;
    const VlTurn *turns = render->turns + (system ? 1 : 0);
    int64_t count = render->count - (system ? 1 : 0);
    VL_TRY(vl_text_append_string(render->out, render->bos));
    for (int64_t i = 0; i < count; i++) {
        VlSpan text = vl_text_span(&turns[i].text);
        VL_TRY(check_alternation(&turns[i], i));
        if (turns[i].role == VL_ROLE_USER) {
            VL_TRY(vl_text_append_string(render->out, " [INST] "));
            if (i == 0 && system) VL_TRY(put(render, "", vl_text_span(&system->text), "\n\n"));
            VL_TRY(put(render, "", text, " [/INST]"));
        } else if (turns[i].role == VL_ROLE_ASSISTANT) {
            VL_TRY(put(render, " ", text, ""));
            VL_TRY(put_end(render));
        } else {
            return vl_error(VL_INVALID, "the chat template refuses a system turn that is not the first");
        }
    }
    return VL_OK;
}

static VlStatus render_mistral_2023(Render *render) {
    VL_TRY(vl_text_append_string(render->out, render->bos));
    for (int64_t i = 0; i < render->count; i++) {
        const VlTurn *turn = &render->turns[i];
        if (i == 0 && turn->role == VL_ROLE_SYSTEM) {
            return vl_error(VL_INVALID,
                            "the chat template mistral-2023 refuses a system turn; inference needs a later one");
        }
        VL_TRY(check_alternation(turn, i));
        if (turn->role == VL_ROLE_USER) {
            VL_TRY(put(render, "[INST] ", vl_text_span(&turn->text), " [/INST]"));
        } else if (turn->role == VL_ROLE_ASSISTANT) {
            VL_TRY(put(render, "", vl_text_span(&turn->text), ""));
            VL_TRY(put_end(render));
        } else {
            return vl_error(VL_INVALID, "the chat template refuses a system turn");
        }
    }
    return VL_OK;
}

static VlStatus put_first_user_turn(Render *render, const VlTurn *system, const VlTurn *turn) {
    VlText content = {0};
    VlStatus status = VL_OK;
    if (system) {
        VL_TRY_GOTO(status, vl_text_append(&content, vl_span_strip(vl_text_span(&system->text))), done);
        VL_TRY_GOTO(status, vl_text_append_string(&content, "\n\n"), done);
    }
    VL_TRY_GOTO(status, vl_text_append(&content, vl_text_span(&turn->text)), done);
    VL_TRY_GOTO(status, put(render, "[INST] ", vl_span_strip(vl_text_span(&content)), " [/INST]"), done);
done:
    vl_text_free(&content);
    return status;
}

static VlStatus render_mistral_strip(Render *render) {
    const VlTurn *system = render->turns[0].role == VL_ROLE_SYSTEM ? render->turns : NULL;
    const VlTurn *turns = render->turns + (system ? 1 : 0);
    int64_t count = render->count - (system ? 1 : 0);
    VL_TRY(vl_text_append_string(render->out, render->bos));
    for (int64_t i = 0; i < count; i++) {
        VL_TRY(check_alternation(&turns[i], i));
        if (turns[i].role == VL_ROLE_USER) {
            VL_TRY(put_first_user_turn(render, i == 0 ? system : NULL, &turns[i]));
        } else if (turns[i].role == VL_ROLE_ASSISTANT) {
            VL_TRY(put(render, " ", vl_span_strip(vl_text_span(&turns[i].text)), " "));
            VL_TRY(put_end(render));
        }  // the template leaves a later system turn out without a word
    }
    return VL_OK;
}

static VlStatus render_chatml(Render *render, bool default_system, bool generation_prompt) {
    static const char *const names[] = {
        [VL_ROLE_SYSTEM] = "system", [VL_ROLE_USER] = "user", [VL_ROLE_ASSISTANT] = "assistant"};
    if (default_system && render->turns[0].role != VL_ROLE_SYSTEM) {
        VL_TRY(vl_text_append_string(render->out, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"));
    }
    for (int64_t i = 0; i < render->count; i++) {
        VL_TRY(put(render, "<|im_start|>", vl_span_string(names[render->turns[i].role]), "\n"));
        VL_TRY(put(render, "", vl_text_span(&render->turns[i].text), "<|im_end|>\n"));
    }
    return generation_prompt ? vl_text_append_string(render->out, "<|im_start|>assistant\n") : VL_OK;
}

VlStatus vl_template_render(VlTemplate shape, const VlTurn *turns, int64_t count, bool generation_prompt,
                            const char *bos, const char *eos, VlText *out) {
    if (count < 1) return vl_error(VL_INVALID, "there are no turns for the chat template");
    Render render = {.turns = turns, .count = count, .bos = bos ? bos : "", .eos = eos, .out = out};
    switch (shape) {
    case VL_TEMPLATE_MISTRAL_SYSTEM: return render_mistral_system(&render);
    case VL_TEMPLATE_MISTRAL_2023: return render_mistral_2023(&render);
    case VL_TEMPLATE_MISTRAL_STRIP: return render_mistral_strip(&render);
    case VL_TEMPLATE_CHATML_QWEN2:
    case VL_TEMPLATE_CHATML_PLAIN: return render_chatml(&render, shape == VL_TEMPLATE_CHATML_QWEN2, generation_prompt);
    }
    return vl_error(VL_INTERNAL, "template shape %d is not implemented", (int)shape);
}
