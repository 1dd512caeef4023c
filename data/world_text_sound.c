// What is asked and said about sounds, and about what is seen and heard together.
#include <stdio.h>

#include "data/world_parts.h"

const char *const vl_world_sources[VL_WORLD_SOURCES] = {"bell", "horn", "whistle", "rattle"};

static const struct {
    const char *kind;
    VlWorldTune tune;
} heard_kinds[VL_WORLD_HEARD] = {
    [VL_WORLD_HEAR_SOURCE] = {"sound-source", VL_WORLD_RING}, [VL_WORLD_HEAR_COUNT] = {"sound-count", VL_WORLD_RING},
    [VL_WORLD_HEAR_PITCH] = {"sound-pitch", VL_WORLD_RING},   [VL_WORLD_HEAR_COURSE] = {"sound-course", VL_WORLD_SLIDE},
    [VL_WORLD_HEAR_HALF] = {"sound-half", VL_WORLD_LONE},
};
static const char *const met_kinds[VL_WORLD_MET] = {"av-tone", "av-silence"};

VlWorldTune vl_world_heard_tune(VlWorldHeard heard) { return heard_kinds[heard].tune; }
const char *vl_world_heard_kind(VlWorldHeard heard) { return heard_kinds[heard].kind; }
const char *vl_world_met_kind(VlWorldMet met) { return met_kinds[met]; }

// ---- Sounds ----------------------------------------------------------------

static const char *pitch_of(const VlWorldTone *tone) { return tone->high ? "high" : "low"; }

static const char *half_of(const VlWorldSound *sound) { return sound->late ? "last" : "first"; }

static void write_caption(const VlWorldSound *sound, char text[VL_WORLD_TEXT]) {
    const VlWorldTone *tone = sound->tone;
    const char *source = vl_world_sources[tone->source];
    switch (sound->tune) {
    case VL_WORLD_RING:
        snprintf(text, VL_WORLD_TEXT, "A %s %s is heard %s times.", pitch_of(tone), source,
                 vl_world_numbers[sound->tones]);
        break;
    case VL_WORLD_SLIDE: snprintf(text, VL_WORLD_TEXT, "A %s %s.", source, sound->falls ? "falls" : "rises"); break;
    default: snprintf(text, VL_WORLD_TEXT, "A %s %s is heard %s.", pitch_of(tone), source, half_of(sound));
    }
}

static void ask_about(VlWorldTalk *talk, const VlWorldSound *sound, VlWorldHeard heard) {
    const VlWorldTone *tone = sound->tone;
    const char *source = vl_world_sources[tone->source];
    switch (heard) {
    case VL_WORLD_HEAR_SOURCE: vl_world_ask(talk, source, "What is heard?"); break;
    case VL_WORLD_HEAR_COUNT: vl_world_ask(talk, vl_world_numbers[sound->tones], "How many times is it heard?"); break;
    case VL_WORLD_HEAR_PITCH: vl_world_ask(talk, pitch_of(tone), "Which pitch has it?"); break;
    case VL_WORLD_HEAR_COURSE: vl_world_ask(talk, sound->falls ? "falls" : "rises", "What does the sound do?"); break;
    default: vl_world_ask(talk, half_of(sound), "When is it heard?");
    }
}

static void ask_all(VlWorldTalk *talk, const VlWorldSound *sound, VlRandom *random) {
    for (int heard = 0; heard < VL_WORLD_HEARD; heard++) {
        if (heard_kinds[heard].tune == sound->tune) ask_about(talk, sound, (VlWorldHeard)heard);
    }
    vl_world_talk_shuffle(talk, random);
}

json_t *vl_world_sample_sound_caption(const VlWorldSound *sound, const char *id, const char *media) {
    VlWorldTalk talk = {0};
    char text[VL_WORLD_TEXT];
    write_caption(sound, text);
    vl_world_ask(&talk, text, "%s", "");
    return vl_world_talk_sample(&talk, id, "audio", media, "caption");
}

json_t *vl_world_sample_sound_questions(const VlWorldSound *sound, const char *id, const char *media,
                                        VlRandom *random) {
    VlWorldTalk talk = {0};
    ask_all(&talk, sound, random);
    return vl_world_talk_sample(&talk, id, "audio", media, "sound");
}

json_t *vl_world_sample_sound_heldout(const VlWorldSound *sound, const char *id, const char *media,
                                      VlWorldHeard heard) {
    VlWorldTalk talk = {0};
    ask_about(&talk, sound, heard);
    return vl_world_talk_sample(&talk, id, "audio", media, heard_kinds[heard].kind);
}

// ---- Meetings --------------------------------------------------------------

static void ask_about_meeting(VlWorldTalk *talk, const VlWorldMeeting *meeting, VlWorldMet met) {
    const VlWorldThing *thing = meeting->scene.thing;
    int64_t heard = meeting->sound.late;
    if (met == VL_WORLD_MEET_TONE) {
        vl_world_ask(talk, vl_world_colours[thing[heard].colour], "Which colour is there when the %s is heard?",
                     vl_world_sources[meeting->sound.tone[0].source]);
    } else {
        vl_world_ask(talk, vl_world_colours[thing[!heard].colour], "Which colour is there when nothing is heard?");
    }
}

static void ask_all_about_meeting(VlWorldTalk *talk, const VlWorldMeeting *meeting, VlRandom *random) {
    for (int met = 0; met < VL_WORLD_MET; met++) ask_about_meeting(talk, meeting, (VlWorldMet)met);
    vl_world_talk_shuffle(talk, random);
}

json_t *vl_world_sample_meeting(const VlWorldMeeting *meeting, const char *id, const char *media, VlRandom *random) {
    VlWorldTalk talk = {0};
    ask_all_about_meeting(&talk, meeting, random);
    return vl_world_talk_sample(&talk, id, "va", media, "av");
}

json_t *vl_world_sample_meeting_heldout(const VlWorldMeeting *meeting, const char *id, const char *media,
                                        VlWorldMet met) {
    VlWorldTalk talk = {0};
    ask_about_meeting(&talk, meeting, met);
    return vl_world_talk_sample(&talk, id, "va", media, met_kinds[met]);
}

// ---- Text alone ------------------------------------------------------------

json_t *vl_world_sample_sound_text(const VlWorldSound *sound, const char *id, bool described, VlRandom *random) {
    VlWorldTalk talk = {0};
    ask_all(&talk, sound, random);
    if (described) write_caption(sound, talk.description);
    return vl_world_talk_sample(&talk, id, NULL, NULL, "text");
}

json_t *vl_world_sample_meeting_text(const VlWorldMeeting *meeting, const char *id, bool described, VlRandom *random) {
    VlWorldTalk talk = {0};
    char seen[VL_WORLD_TEXT], heard[VL_WORLD_TEXT];
    ask_all_about_meeting(&talk, meeting, random);
    write_caption(&meeting->sound, heard);
    vl_world_caption(&meeting->scene, seen);
    if (described) snprintf(talk.description, sizeof talk.description, "%s %s", seen, heard);
    return vl_world_talk_sample(&talk, id, NULL, NULL, "text");
}
