#include "data/conversation.h"

#include <strings.h>

#include "base/json.h"
#include "base/memory.h"

static const struct {
    const char *name, *tag;
    int64_t id;
} modals[] = {[VL_MODAL_TEXT] = {"text", NULL, 0},
              [VL_MODAL_IMAGE] = {"image", "<image>", -200},
              [VL_MODAL_VIDEO] = {"video", "<video>", -201},
              [VL_MODAL_AUDIO] = {"audio", "<audio>", -202}};
enum { MODALS = sizeof modals / sizeof *modals };

const char *vl_modal_tag(VlModal modal) { return modals[modal].tag; }
int64_t vl_modal_id(VlModal modal) { return modals[modal].id; }
const char *vl_modal_name(VlModal modal) { return modals[modal].name; }

VlStatus vl_modal_parse(const char *word, VlModal *modal) {
    for (int i = 0; i < MODALS; i++) {
        if (!strcmp(word, modals[i].name)) {
            *modal = (VlModal)i;
            return VL_OK;
        }
    }
    return vl_error(VL_FORMAT, "unknown modality \"%.80s\": it must be video, image, audio or text", word);
}

VlStatus vl_conversation_append(VlConversation *conversation, VlRole role, VlSpan text) {
    VL_TRY(vl_reserve(&conversation->turns, &conversation->capacity, conversation->count + 1,
                      sizeof *conversation->turns));
    VlTurn *turn = &conversation->turns[conversation->count];
    *turn = (VlTurn){.role = role};
    conversation->count++;
    return vl_text_append(&turn->text, text);
}

void vl_conversation_free(VlConversation *conversation) {
    for (int64_t i = 0; i < conversation->count; i++) vl_text_free(&conversation->turns[i].text);
    vl_free(conversation->turns);
    vl_free(conversation->media);
    *conversation = (VlConversation){0};
}

// ---- From JSON -------------------------------------------------------------

static VlStatus parse_role(const char *word, bool question, const char *name, VlRole *role) {
    static const struct {
        const char *word;
        bool question;
        VlRole role;
    } roles[] = {{"human", false, VL_ROLE_USER},
                 {"gpt", false, VL_ROLE_ASSISTANT},
                 {"user", true, VL_ROLE_USER},
                 {"assistant", true, VL_ROLE_ASSISTANT},
                 {"system", true, VL_ROLE_SYSTEM}};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (roles[i].question == question && !strcmp(roles[i].word, word)) {
            *role = roles[i].role;
            return VL_OK;
        }
    }
    return vl_error(VL_FORMAT, "%s: unknown role \"%.80s\": it must be %s", name, word,
                    question ? "user, assistant or system" : "human or gpt");
}

static VlStatus load_turns(VlConversation *conversation, const json_t *list, const char *role_key, const char *text_key,
                           const char *name) {
    if (!json_is_array(list)) return vl_error(VL_FORMAT, "%s: the turns must be a list of objects", name);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *word = "";
        VlRole role = VL_ROLE_USER;
        VL_TRY_CONTEXT(vl_json_get_string(entry, name, role_key, true, &word), "turn %zu", i + 1);
        VL_TRY_CONTEXT(parse_role(word, conversation->question, name, &role), "turn %zu", i + 1);
        const json_t *text = json_object_get(entry, text_key);
        if (!json_is_string(text)) {
            return vl_error(VL_FORMAT, "turn %zu: %s: \"%s\" must be a text", i + 1, name, text_key);
        }
        VlSpan span = vl_span(json_string_value(text), (int64_t)json_string_length(text));
        VL_TRY(vl_conversation_append(conversation, role, span));
    }
    if (conversation->count == 0) return vl_error(VL_FORMAT, "%s: there are no turns", name);
    return VL_OK;
}

static bool has_picture_extension(const char *path) {
    static const char *const extensions[] = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"};
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++) {
        size_t own = strlen(extensions[i]);
        if (length > own && !strcasecmp(path + length - own, extensions[i])) return true;
    }
    return false;
}

static bool holds_tag(const VlConversation *conversation, const char *tag) {
    for (int64_t i = 0; i < conversation->count; i++) {
        if (vl_span_find(vl_text_span(&conversation->turns[i].text), vl_span_string(tag), 0) >= 0) return true;
    }
    return false;
}

static VlStatus load_medium(VlConversation *conversation, const json_t *sample, const char *name) {
    const char *path = NULL, *word = NULL;
    for (int i = VL_MODAL_IMAGE; i < MODALS; i++) {
        const char *found = NULL;
        VL_TRY(vl_json_get_string(sample, name, modals[i].name, false, &found));
        if (found && path) {
            return vl_error(VL_FORMAT, "%s: both \"%s\" and \"%s\" are given, but a sample has one medium", name,
                            modals[conversation->modal].name, modals[i].name);
        }
        if (!found) continue;
        path = found;
        conversation->modal = (VlModal)i;
    }
    if (path) VL_TRY(vl_duplicate_string(&conversation->media, path));
    VL_TRY(vl_json_get_string(sample, name, "modal", false, &word));
    if (word) {
        VlModal modal = VL_MODAL_TEXT;
        VL_TRY_CONTEXT(vl_modal_parse(word, &modal), "%s", name);
        if (path && modal != conversation->modal) {
            return vl_error(VL_FORMAT, "%s: \"modal\" is %s, but the medium is given under \"%s\"", name, word,
                            modals[conversation->modal].name);
        }
        conversation->modal = modal;
    }
    return vl_json_get_bool(sample, name, "va", false, &conversation->with_audio);
}

static VlStatus load(VlConversation *conversation, const json_t *sample, const char *name) {
    if (!json_is_object(sample)) return vl_error(VL_FORMAT, "%s: a sample must be an object", name);
    const json_t *conversations = json_object_get(sample, "conversations");
    const json_t *messages = json_object_get(sample, "messages"), *instruct = json_object_get(sample, "instruct");
    if (!!conversations + !!messages + !!instruct != 1) {
        return vl_error(VL_FORMAT, "%s: a sample needs one of \"conversations\", \"messages\" and \"instruct\"", name);
    }
    conversation->question = !conversations;
    VL_TRY(load_medium(conversation, sample, name));
    if (instruct) {
        if (!json_is_string(instruct)) return vl_error(VL_FORMAT, "%s: \"instruct\" must be a text", name);
        VlSpan text = vl_span(json_string_value(instruct), (int64_t)json_string_length(instruct));
        return vl_conversation_append(conversation, VL_ROLE_USER, text);
    }
    if (messages) return load_turns(conversation, messages, "role", "content", name);
    VL_TRY(load_turns(conversation, conversations, "from", "value", name));
    if (conversation->modal == VL_MODAL_VIDEO && conversation->media && has_picture_extension(conversation->media) &&
        holds_tag(conversation, "<image>") && !holds_tag(conversation, "<video>")) {
        conversation->modal = VL_MODAL_IMAGE;
    }
    return VL_OK;
}

VlStatus vl_conversation_from_json(VlConversation *conversation, const json_t *sample, const char *name) {
    VL_TRY(load(conversation, sample, name));
    if (!conversation->with_audio || conversation->modal == VL_MODAL_VIDEO) return VL_OK;
    return vl_error(VL_FORMAT, "%s: \"va\" is true, but the sample is no video", name);
}

// ---- Tags ------------------------------------------------------------------

static VlStatus place_tag(VlText *text, const char *tag) {
    if (vl_span_find(vl_text_span(text), vl_span_string(tag), 0) < 0) return VL_OK;
    VlText without = {0}, placed = {0};
    VlStatus status;
    VL_TRY_GOTO(status, vl_text_append_replaced(&without, vl_text_span(text), vl_span_string(tag), vl_span("", 0)),
                done);
    VL_TRY_GOTO(status, vl_text_append_string(&placed, tag), done);
    VL_TRY_GOTO(status, vl_text_append_string(&placed, "\n"), done);
    VL_TRY_GOTO(status, vl_text_append(&placed, vl_span_strip(vl_text_span(&without))), done);
    text->length = 0;
    VL_TRY_GOTO(status, vl_text_append(text, vl_span_strip(vl_text_span(&placed))), done);
done:
    vl_text_free(&without);
    vl_text_free(&placed);
    return status;
}

VlStatus vl_conversation_place_tags(VlConversation *conversation, VlProtocol protocol) {
    if (conversation->modal == VL_MODAL_TEXT) return VL_OK;
    for (int64_t i = 0; i < conversation->count; i++) {
        for (int modal = VL_MODAL_IMAGE; modal < MODALS; modal++) {
            if (protocol != VL_PROTOCOL_2024_06 && modal != (int)conversation->modal) continue;
            VL_TRY(place_tag(&conversation->turns[i].text, modals[modal].tag));
        }
    }
    return VL_OK;
}
