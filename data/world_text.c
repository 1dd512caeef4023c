// What is asked and said about a scene.
#include <stdio.h>
#include <string.h>

#include "data/world_parts.h"

const char *const vl_world_shapes[VL_WORLD_SHAPES] = {"circle", "square", "triangle", "cross", "ring", "star"};
const char *const vl_world_colours[VL_WORLD_COLOURS] = {"red",    "green", "blue",  "yellow",
                                                        "purple", "cyan",  "white", "black"};
const char *const vl_world_cells[VL_WORLD_CELLS] = {"north",     "northeast", "east",      "southeast", "south",
                                                    "southwest", "west",      "northwest", "middle"};
const char *const vl_world_numbers[VL_WORLD_TONES + 1] = {"zero", "one", "two", "three"};

static const char *modality_of(const VlWorldScene *scene) {
    return scene->motion == VL_WORLD_STILL ? "image" : "video";
}

// ---- Captions --------------------------------------------------------------

// The things of a picture in the order of reading, so that only one caption is right.
static void write_still_caption(const VlWorldScene *scene, char text[VL_WORLD_TEXT]) {
    static const int64_t reading_order[VL_WORLD_CELLS] = {7, 0, 1, 6, 8, 2, 5, 4, 3};
    size_t used = 0;
    for (int64_t i = 0; i < VL_WORLD_CELLS; i++) {
        for (int64_t j = 0; j < scene->things; j++) {
            const VlWorldThing *thing = &scene->thing[j];
            if (thing->cell != reading_order[i]) continue;
            used += (size_t)snprintf(text + used, VL_WORLD_TEXT - used, "%s %s %s in the %s", used ? ", a" : "A",
                                     vl_world_colours[thing->colour], vl_world_shapes[thing->shape],
                                     vl_world_cells[thing->cell]);
        }
    }
    snprintf(text + used, VL_WORLD_TEXT - used, ".");
}

void vl_world_caption(const VlWorldScene *scene, char text[VL_WORLD_TEXT]) {
    const VlWorldThing *thing = scene->thing;
    const char *colour = vl_world_colours[thing->colour], *shape = vl_world_shapes[thing->shape];
    switch (scene->motion) {
    case VL_WORLD_GLIDE:
        snprintf(text, VL_WORLD_TEXT, "A %s %s moves %s.", colour, shape, vl_world_cells[scene->direction]);
        break;
    case VL_WORLD_PACE:
        snprintf(text, VL_WORLD_TEXT, "A %s %s moves %s and gets %s.", colour, shape, vl_world_cells[scene->direction],
                 scene->slower ? "slower" : "faster");
        break;
    case VL_WORLD_BOUNCE:
        snprintf(text, VL_WORLD_TEXT, "A %s %s bounces %s times.", colour, shape, vl_world_numbers[scene->bounces]);
        break;
    case VL_WORLD_ORDER:
        snprintf(text, VL_WORLD_TEXT, "First a %s %s appears, then a %s %s.", colour, shape,
                 vl_world_colours[thing[1].colour], vl_world_shapes[thing[1].shape]);
        break;
    default: write_still_caption(scene, text);
    }
}

json_t *vl_world_sample_caption(const VlWorldScene *scene, const char *id, const char *media) {
    VlWorldTalk talk = {0};
    char text[VL_WORLD_TEXT];
    vl_world_caption(scene, text);
    vl_world_ask(&talk, text, "%s", "");
    return vl_world_talk_sample(&talk, id, modality_of(scene), media, "caption");
}

// ---- Questions -------------------------------------------------------------

static const struct {
    const char *kind;
    VlWorldMotion motion;
} questions[VL_WORLD_QUESTIONS] = {
    [VL_WORLD_ASK_COLOUR] = {"image-colour", VL_WORLD_STILL},
    [VL_WORLD_ASK_SHAPE] = {"image-shape", VL_WORLD_STILL},
    [VL_WORLD_ASK_COUNT] = {"image-count", VL_WORLD_STILL},
    [VL_WORLD_ASK_PLACE] = {"image-place", VL_WORLD_STILL},
    [VL_WORLD_ASK_DIRECTION] = {"temporal-direction", VL_WORLD_GLIDE},
    [VL_WORLD_ASK_PACE] = {"temporal-pace", VL_WORLD_PACE},
    [VL_WORLD_ASK_BOUNCES] = {"temporal-bounces", VL_WORLD_BOUNCE},
    [VL_WORLD_ASK_ORDER] = {"temporal-order", VL_WORLD_ORDER},
};

VlWorldMotion vl_world_question_motion(VlWorldQuestion question) { return questions[question].motion; }
const char *vl_world_question_kind(VlWorldQuestion question) { return questions[question].kind; }

static void ask_about(VlWorldTalk *talk, const VlWorldScene *scene, const VlWorldThing *thing,
                      VlWorldQuestion question) {
    const char *colour = vl_world_colours[thing->colour], *shape = vl_world_shapes[thing->shape];
    switch (question) {
    case VL_WORLD_ASK_COLOUR: vl_world_ask(talk, colour, "What colour is the %s?", shape); break;
    case VL_WORLD_ASK_SHAPE: vl_world_ask(talk, shape, "Which shape is %s?", colour); break;
    case VL_WORLD_ASK_COUNT: vl_world_ask(talk, vl_world_numbers[scene->things], "How many shapes are there?"); break;
    case VL_WORLD_ASK_PLACE: vl_world_ask(talk, vl_world_cells[thing->cell], "Where is the %s?", shape); break;
    case VL_WORLD_ASK_DIRECTION: vl_world_ask(talk, vl_world_cells[scene->direction], "Which way does it move?"); break;
    case VL_WORLD_ASK_PACE:
        vl_world_ask(talk, scene->slower ? "slower" : "faster", "Does it get faster or slower?");
        break;
    case VL_WORLD_ASK_BOUNCES:
        vl_world_ask(talk, vl_world_numbers[scene->bounces], "How many times does it bounce?");
        break;
    default: vl_world_ask(talk, colour, "Which colour appears first?");
    }
}

// Of one thing, without a name for it.
static void ask_about_it(VlWorldTalk *talk, const VlWorldThing *thing, VlWorldQuestion question) {
    switch (question) {
    case VL_WORLD_ASK_COLOUR: vl_world_ask(talk, vl_world_colours[thing->colour], "What colour is it?"); break;
    case VL_WORLD_ASK_SHAPE: vl_world_ask(talk, vl_world_shapes[thing->shape], "What shape is it?"); break;
    default: vl_world_ask(talk, vl_world_cells[thing->cell], "Where is it?");
    }
}

// An answer must not follow from those before it, as the held-out questions stand alone: so each thing is asked for one
// of its properties only, unless no question names any property.
static void ask_about_picture(VlWorldTalk *talk, const VlWorldScene *scene, VlRandom *random) {
    const VlWorldThing *thing = scene->thing;
    ask_about(talk, scene, thing, VL_WORLD_ASK_COUNT);
    if (scene->things == 1 && vl_random_below(random, 3)) {
        ask_about_it(talk, thing, VL_WORLD_ASK_SHAPE);
        ask_about_it(talk, thing, VL_WORLD_ASK_COLOUR);
        ask_about_it(talk, thing, VL_WORLD_ASK_PLACE);
        return;
    }
    int64_t turns = vl_random_below(random, 3);
    for (int64_t i = 0; i < scene->things; i++) {
        ask_about(talk, scene, &thing[i],
                  (VlWorldQuestion[]){VL_WORLD_ASK_COLOUR, VL_WORLD_ASK_SHAPE, VL_WORLD_ASK_PLACE}[(turns + i) % 3]);
    }
}

static void ask_about_clip(VlWorldTalk *talk, const VlWorldScene *scene, VlRandom *random) {
    const VlWorldThing *thing = scene->thing;
    if (scene->motion == VL_WORLD_ORDER) {
        ask_about(talk, scene, thing, VL_WORLD_ASK_ORDER);
        if (vl_random_below(random, 2)) {
            vl_world_ask(talk, vl_world_shapes[thing[0].shape], "Which shape appears first?");
        } else {
            vl_world_ask(talk, vl_world_shapes[thing[1].shape], "Which shape appears last?");
        }
        return;
    }
    if (scene->motion == VL_WORLD_BOUNCE) {  // the hardest question goes alone
        ask_about(talk, scene, thing, VL_WORLD_ASK_BOUNCES);
        return;
    }
    ask_about_it(talk, thing, VL_WORLD_ASK_COLOUR);
    ask_about_it(talk, thing, VL_WORLD_ASK_SHAPE);
    ask_about(talk, scene, thing, VL_WORLD_ASK_DIRECTION);
    if (scene->motion == VL_WORLD_PACE) ask_about(talk, scene, thing, VL_WORLD_ASK_PACE);
}

json_t *vl_world_sample_questions(const VlWorldScene *scene, const char *id, const char *media, VlRandom *random) {
    VlWorldTalk talk = {0};
    bool still = scene->motion == VL_WORLD_STILL;
    if (still) {
        ask_about_picture(&talk, scene, random);
    } else {
        ask_about_clip(&talk, scene, random);
    }
    vl_world_talk_shuffle(&talk, random);
    const char *kind = !media ? "text" : still ? "image" : "temporal";
    return vl_world_talk_sample(&talk, id, media ? modality_of(scene) : NULL, media, kind);
}

json_t *vl_world_sample_thing(const VlWorldScene *scene, const char *id, const char *media) {
    VlWorldTalk talk = {0};
    char text[VL_WORLD_TEXT];
    const VlWorldThing *thing = &scene->thing[0];
    snprintf(text, VL_WORLD_TEXT, "%s in %s", vl_world_shapes[thing->shape], vl_world_colours[thing->colour]);
    vl_world_ask(&talk, text, "What is it?");
    return vl_world_talk_sample(&talk, id, modality_of(scene), media, "image");
}

json_t *vl_world_sample_heldout(const VlWorldScene *scene, const char *id, const char *media,
                                VlWorldQuestion question) {
    VlWorldTalk talk = {0};
    ask_about(&talk, scene, &scene->thing[0], question);
    return vl_world_talk_sample(&talk, id, modality_of(scene), media, questions[question].kind);
}

// Words and sentences that later stages need, without a medium: a language model knows them before it sees.
json_t *vl_world_sample_text(const char *id, const VlWorldScene *scene, VlRandom *random) {
    VlWorldTalk talk = {0};
    char text[VL_WORLD_TEXT];
    int64_t cell = vl_random_below(random, VL_WORLD_DIRECTIONS), number = vl_random_below(random, 3);
    vl_world_caption(scene, text);
    vl_world_ask(&talk, text, "Describe a clip.");
    vl_world_ask(&talk, vl_world_cells[(cell + 4) % VL_WORLD_DIRECTIONS], "What is the opposite of %s?",
                 vl_world_cells[cell]);
    vl_world_ask(&talk, vl_world_numbers[number + 1], "Which number comes after %s?", vl_world_numbers[number]);
    return vl_world_talk_sample(&talk, id, NULL, NULL, "text");
}
