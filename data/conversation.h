// What is said in one sample, and about what: the common ground of training annotations, evaluation questions and
// chats.
#ifndef VL_DATA_CONVERSATION_H
#define VL_DATA_CONVERSATION_H

#include <jansson.h>

#include "base/status.h"
#include "data/protocol.h"
#include "data/sample.h"
#include "data/text.h"

typedef enum VlRole { VL_ROLE_SYSTEM, VL_ROLE_USER, VL_ROLE_ASSISTANT } VlRole;

typedef struct VlTurn {
    VlRole role;
    VlText text;
} VlTurn;

typedef struct VlConversation {
    VlModal modal;
    bool with_audio;  // a video with its sound: one video tag stands for both
    bool question;    // to be answered (inference), not to be learned from
    char *media;      // path as the annotation gives it; NULL when it gives none
    VlTurn *turns;
    int64_t count, capacity;
} VlConversation;

// Whether there is a sound in it: alone, or with a video.
static inline bool vl_conversation_is_heard(const VlConversation *conversation) {
    return conversation->with_audio || conversation->modal == VL_MODAL_AUDIO;
}

// Fills an empty (zeroed) conversation, to be released with vl_conversation_free, from one of these objects:
//   {"image"|"video"|"audio": "path", "va": bool, "conversations": [{"from": "human"|"gpt", "value": ".."}, ..]}
//        LLaVA's sample; without a medium it is text. "va" (a video with its sound) is optional.
//   {"modal": "video"|"image"|"audio"|"text", "conversations": [..]}
//   {"modal": .., "instruct": ".."} or {"modal": .., "messages": [{"role": "user"|"assistant"|"system", "content":
//   ".."}, ..]}
//        a question; the modality tag is not in the text, vl_prompt_make puts it there.
// Other keys are the caller's. A picture's file under "video" whose text holds <image> and no <video> is an image, as
// the annotations of the reference have it. `name` stands in error texts. Errors: VL_FORMAT (wrong types, unknown
// roles, no turns, two media, a medium that contradicts "modal").
VlStatus vl_conversation_from_json(VlConversation *conversation, const json_t *sample, const char *name);
VlStatus vl_conversation_append(VlConversation *conversation, VlRole role, VlSpan text);
void vl_conversation_free(VlConversation *conversation);

// "<image>", "<video>", "<audio>" and their ids -200, -201, -202; text has neither (NULL, 0).
const char *vl_modal_tag(VlModal modal);
int64_t vl_modal_id(VlModal modal);
const char *vl_modal_name(VlModal modal);
// Errors: VL_FORMAT for another word.
VlStatus vl_modal_parse(const char *word, VlModal *modal);

// Moves the tags in a training sample to the front of their turn: in every turn that holds the tag, all copies are
// removed, white space at the ends is stripped, and the tag and a line break are put in front (a lone tag stays alone).
// Only the sample's own tag; in 2024-06 all three, one after the other. Texts without a medium are not touched (spec
// data.md, 5.1).
VlStatus vl_conversation_place_tags(VlConversation *conversation, VlProtocol protocol);

#endif
