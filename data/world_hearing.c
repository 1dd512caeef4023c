// What is heard: sounds of their own, and scenes that sounds meet, drawn at random under the balance of answers and the
// rule of held-out combinations.
#include <math.h>

#include "data/world_parts.h"

enum { PLACES = 4, WIDTHS = 4, MOMENTS = 4, HELDOUT_ONE_IN = 8, HELDOUT_REST = 5 };

static const double tone_length = 0.1, moment_length = 0.025;  // of the clip
static const double half_begins[2] = {0.1, 0.68};

// Low and high pitch of each source, Hz.
static const double pitches[VL_WORLD_SOURCES][2] = {{520, 1040}, {190, 380}, {1500, 3000}, {900, 1900}};

static double between(VlRandom *random, double low, double high) {
    return low + (high - low) * vl_random_uniform(random);
}

static void draw_voice(VlWorldTone *tone, int64_t source, bool high, VlRandom *random) {
    tone->source = source;
    tone->high = high;
    tone->pitch = tone->last_pitch = pitches[source][high] * between(random, 0.92, 1.08);
}

static int64_t voice_of(const VlWorldTone *tone) { return tone->source + VL_WORLD_SOURCES * tone->high; }

// ---- Sounds ----------------------------------------------------------------

// One voice at `count` of the four places.
static void draw_ring(VlWorldSound *sound, int64_t number, VlRandom *random) {
    VlWorldTone voice = {0};
    uint64_t key = vl_random_u64(random);
    int64_t value = number / 3, asked = number % 3;
    int64_t count = asked == 0 ? value % VL_WORLD_TONES : vl_random_below(random, VL_WORLD_TONES);
    int64_t source = asked == 1 ? value % VL_WORLD_SOURCES : vl_random_below(random, VL_WORLD_SOURCES);
    draw_voice(&voice, source, asked == 2 ? value % 2 : vl_random_below(random, 2), random);
    for (int64_t place = 0; place < PLACES; place++) {
        if (vl_permute(place, PLACES, key) > count) continue;
        VlWorldTone *tone = &sound->tone[sound->tones++];
        *tone = voice;
        tone->from = ((double)place + between(random, 0.15, 0.5)) / PLACES;
        tone->until = tone->from + tone_length;
    }
}

static void draw_slide(VlWorldSound *sound, int64_t number, VlRandom *random) {
    VlWorldTone *tone = &sound->tone[sound->tones++];
    draw_voice(tone, vl_random_below(random, VL_WORLD_SOURCES), vl_random_below(random, 2), random);
    sound->falls = number % 2;
    tone->from = between(random, 0.05, 0.15);
    tone->until = between(random, 0.8, 0.95);
    double width = 1.5 + 0.25 * (double)vl_random_below(random, WIDTHS), pitch = tone->pitch;
    tone->pitch = sound->falls ? pitch * width : pitch;
    tone->last_pitch = sound->falls ? pitch : pitch * width;
}

// As the things of an order scene are shown: the tone lies within the time that one of them has for certain.
static void draw_lone(VlWorldSound *sound, int64_t number, VlRandom *random) {
    VlWorldTone *tone = &sound->tone[sound->tones++];
    draw_voice(tone, number / 2 % VL_WORLD_SOURCES, vl_random_below(random, 2), random);
    sound->late = number % 2;
    tone->from = half_begins[sound->late] + moment_length * ((double)vl_random_below(random, MOMENTS) + 0.5);
    tone->until = tone->from + tone_length;
}

// The places of a ring as the bits of a number, the width of a slide or the moment of a lone tone as one of four.
static int64_t shape_of(const VlWorldSound *sound) {
    int64_t shape = 0;
    if (sound->tune == VL_WORLD_LONE) {
        return 3 * (int64_t)((sound->tone[0].from - half_begins[sound->late]) / moment_length);
    }
    if (sound->tune == VL_WORLD_SLIDE) {
        double width = fmax(sound->tone[0].pitch, sound->tone[0].last_pitch) /
                       fmin(sound->tone[0].pitch, sound->tone[0].last_pitch);
        return 2 * (int64_t)nearbyint((width - 1.5) / 0.25) + sound->falls;
    }
    for (int64_t i = 0; i < sound->tones; i++) shape += 1 << (int64_t)(sound->tone[i].from * PLACES);
    return shape;
}

bool vl_world_sound_is_heldout(const VlWorldSound *sound) {
    return (voice_of(&sound->tone[0]) + shape_of(sound)) % HELDOUT_ONE_IN == HELDOUT_REST;
}

static void draw_sound(VlWorldSound *sound, VlWorldTune tune, int64_t number, VlRandom *random) {
    *sound = (VlWorldSound){.tune = tune, .seed = vl_random_u64(random)};
    switch (tune) {
    case VL_WORLD_RING: draw_ring(sound, number, random); break;
    case VL_WORLD_SLIDE: draw_slide(sound, number, random); break;
    default: draw_lone(sound, number, random);
    }
}

void vl_world_sound_make(VlWorldSound *sound, uint64_t seed, VlWorldSplit split, VlWorldTune tune, int64_t number) {
    uint64_t stream = ((uint64_t)number * VL_WORLD_TUNES + (uint64_t)tune) * 2 + (uint64_t)split;
    VlRandom random = vl_random(seed ^ vl_hash_string("sounds"), stream);
    do {
        draw_sound(sound, tune, number, &random);
    } while (vl_world_sound_is_heldout(sound) != (split == VL_WORLD_HELDOUT));
}

// The rest of a division by three says which answer of a ring runs through its values.
int64_t vl_world_heard_number(VlWorldHeard heard, int64_t nth) {
    switch (heard) {
    case VL_WORLD_HEAR_COUNT: return 3 * nth;
    case VL_WORLD_HEAR_SOURCE: return 3 * nth + 1;
    case VL_WORLD_HEAR_PITCH: return 3 * nth + 2;
    default: return nth;
    }
}

// ---- Meetings --------------------------------------------------------------

VlWorldMeeting vl_world_meeting_twin(const VlWorldMeeting *meeting, bool video, bool sound) {
    VlWorldMeeting twin = *meeting;
    for (int64_t i = 0; i < 2 && video; i++) {
        const VlWorldThing *place = &meeting->scene.thing[i];
        twin.scene.thing[i] = meeting->scene.thing[1 - i];
        twin.scene.thing[i].from = place->from;
        twin.scene.thing[i].until = place->until;
    }
    if (sound) {
        VlWorldTone *tone = &twin.sound.tone[0];
        double shift = half_begins[!meeting->sound.late] - half_begins[meeting->sound.late];
        twin.sound.late = !meeting->sound.late;
        tone->from += shift;
        tone->until += shift;
    }
    return twin;
}

// Neither the scene in one of its orders nor the sound is what questions about one of them alone hold out.
static bool parts_are_known(const VlWorldMeeting *meeting) {
    const VlWorldThing *thing = meeting->scene.thing;
    return !vl_world_is_heldout(thing[0].shape, thing[0].colour, thing[1].shape) &&
           !vl_world_is_heldout(thing[1].shape, thing[1].colour, thing[0].shape) &&
           !vl_world_sound_is_heldout(&meeting->sound);
}

static bool is_heldout(const VlWorldMeeting *meeting) {
    int64_t sum = meeting->sound.tone[0].source;
    for (int64_t i = 0; i < 2; i++) sum += meeting->scene.thing[i].shape + 3 * meeting->scene.thing[i].colour;
    return sum % HELDOUT_ONE_IN == HELDOUT_REST;
}

void vl_world_meeting_make(VlWorldMeeting *meeting, uint64_t seed, VlWorldSplit split, int64_t number) {
    VlRandom random = vl_random(seed ^ vl_hash_string("meetings"), 2 * (uint64_t)number + (uint64_t)split);
    do {
        vl_world_scene_make(&meeting->scene, vl_random_u64(&random), VL_WORLD_TRAIN, VL_WORLD_ORDER, number);
        draw_sound(&meeting->sound, VL_WORLD_LONE, number / VL_WORLD_COLOURS, &random);
    } while (!parts_are_known(meeting) || is_heldout(meeting) != (split == VL_WORLD_HELDOUT));
}
