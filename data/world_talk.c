// Questions and answers become the turns of a sample.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "data/world_parts.h"

void vl_world_ask(VlWorldTalk *talk, const char *answer, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(talk->question[talk->count], VL_WORLD_TEXT, format, arguments);
    va_end(arguments);
    snprintf(talk->answer[talk->count++], VL_WORLD_TEXT, "%s", answer);
}

void vl_world_talk_shuffle(VlWorldTalk *talk, VlRandom *random) {
    for (int64_t i = talk->count - 1; i > 0; i--) {
        int64_t j = vl_random_below(random, i + 1);
        char spare[VL_WORLD_TEXT];
        memcpy(spare, talk->question[i], VL_WORLD_TEXT);
        memcpy(talk->question[i], talk->question[j], VL_WORLD_TEXT);
        memcpy(talk->question[j], spare, VL_WORLD_TEXT);
        memcpy(spare, talk->answer[i], VL_WORLD_TEXT);
        memcpy(talk->answer[i], talk->answer[j], VL_WORLD_TEXT);
        memcpy(talk->answer[j], spare, VL_WORLD_TEXT);
    }
}

static json_t *turn(const char *from, const char *before, const char *space, const char *text) {
    return json_pack("{s:s, s:s++}", "from", from, "value", before, *before ? space : "", text);
}

static bool set_medium(json_t *sample, const char *modality, const char *media) {
    if (!modality) return true;
    if (strcmp(modality, "va") != 0) return json_object_set_new(sample, modality, json_string(media)) == 0;
    return json_object_set_new(sample, "video", json_string(media)) == 0 &&
           json_object_set_new(sample, "va", json_true()) == 0;
}

json_t *vl_world_talk_sample(const VlWorldTalk *talk, const char *id, const char *modality, const char *media,
                             const char *kind) {
    json_t *sample = json_pack("{s:s}", "id", id), *turns = json_array();
    const char *before = !modality                        ? talk->description
                         : strcmp(modality, "image") == 0 ? "<image>"
                         : strcmp(modality, "audio") == 0 ? "<audio>"
                                                          : "<video>";
    const char *space = modality ? "\n" : " ";
    bool complete = sample && turns && set_medium(sample, modality, media);
    complete = complete && json_object_set_new(sample, "kind", json_string(kind)) == 0;
    for (int64_t i = 0; i < talk->count && complete; i++) {
        complete = json_array_append_new(turns, turn("human", i == 0 ? before : "", space, talk->question[i])) == 0 &&
                   json_array_append_new(turns, turn("gpt", "", "", talk->answer[i])) == 0;
    }
    if (complete && json_object_set(sample, "conversations", turns) == 0) {
        json_decref(turns);
        return sample;
    }
    json_decref(turns);
    json_decref(sample);
    return NULL;
}
