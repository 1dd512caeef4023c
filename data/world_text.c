// What is asked and said about a scene.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "data/world_parts.h"

const char *const vl_world_shapes[VL_WORLD_SHAPES] = {"circle", "square", "triangle", "cross", "ring", "star"};
const char *const vl_world_colours[VL_WORLD_COLOURS] = {"red",    "green", "blue",  "yellow",
                                                        "purple", "cyan",  "white", "black"};
const char *const vl_world_cells[VL_WORLD_CELLS] = {"north",     "northeast", "east",      "southeast", "south",
                                                    "southwest", "west",      "northwest", "middle"};
static const char *const numbers[] = {"zero", "one", "two", "three"};

enum { TEXT = 320, TURNS = 8 };

// Questions with their answers, to become the turns of a sample.
typedef struct Talk {
    int64_t count;
    char question[TURNS][TEXT], answer[TURNS][TEXT];
} Talk;

static void ask(Talk *talk, const char *answer, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void ask(Talk *talk, const char *answer, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(talk->question[talk->count], TEXT, format, arguments);
    va_end(arguments);
    snprintf(talk->answer[talk->count++], TEXT, "%s", answer);
}

static void shuffle(Talk *talk, VlRandom *random) {
    for (int64_t i = talk->count - 1; i > 0; i--) {
        int64_t j = vl_random_below(random, i + 1);
        char spare[TEXT];
        memcpy(spare, talk->question[i], TEXT);
        memcpy(talk->question[i], talk->question[j], TEXT);
        memcpy(talk->question[j], spare, TEXT);
        memcpy(spare, talk->answer[i], TEXT);
        memcpy(talk->answer[i], talk->answer[j], TEXT);
        memcpy(talk->answer[j], spare, TEXT);
    }
}

static json_t *turn(const char *from, const char *tag, const char *text) {
    return json_pack("{s:s, s:s++}", "from", from, "value", tag ? tag : "", tag ? "\n" : "", text);
}

// `modality`: "image", "video" or NULL for text alone.
static json_t *make_sample(const char *id, const char *modality, const char *media, const char *kind,
                           const Talk *talk) {
    json_t *sample = json_pack("{s:s}", "id", id), *turns = json_array();
    const char *tag = !modality ? NULL : strcmp(modality, "image") == 0 ? "<image>" : "<video>";
    bool complete = sample && turns;
    if (modality) complete = complete && json_object_set_new(sample, modality, json_string(media)) == 0;
    complete = complete && json_object_set_new(sample, "kind", json_string(kind)) == 0;
    for (int64_t i = 0; i < talk->count && complete; i++) {
        complete = json_array_append_new(turns, turn("human", i == 0 ? tag : NULL, talk->question[i])) == 0 &&
                   json_array_append_new(turns, turn("gpt", NULL, talk->answer[i])) == 0;
    }
    if (complete && json_object_set(sample, "conversations", turns) == 0) {
        json_decref(turns);
        return sample;
    }
    json_decref(turns);
    json_decref(sample);
    return NULL;
}

static const char *modality_of(const VlWorldScene *scene) {
    return scene->motion == VL_WORLD_STILL ? "image" : "video";
}

// ---- Captions --------------------------------------------------------------

// The things of a picture in the order of reading, so that only one caption is right.
static void write_still_caption(const VlWorldScene *scene, char text[TEXT]) {
    static const int64_t reading_order[VL_WORLD_CELLS] = {7, 0, 1, 6, 8, 2, 5, 4, 3};
    size_t used = 0;
    for (int64_t i = 0; i < VL_WORLD_CELLS; i++) {
        for (int64_t j = 0; j < scene->things; j++) {
            const VlWorldThing *thing = &scene->thing[j];
            if (thing->cell != reading_order[i]) continue;
            used += (size_t)snprintf(text + used, TEXT - used, "%s %s %s in the %s", used ? ", a" : "A",
                                     vl_world_colours[thing->colour], vl_world_shapes[thing->shape],
                                     vl_world_cells[thing->cell]);
        }
    }
    snprintf(text + used, TEXT - used, ".");
}

static void write_caption(const VlWorldScene *scene, char text[TEXT]) {
    const VlWorldThing *thing = scene->thing;
    const char *colour = vl_world_colours[thing->colour], *shape = vl_world_shapes[thing->shape];
    switch (scene->motion) {
    case VL_WORLD_GLIDE:
        snprintf(text, TEXT, "A %s %s moves %s.", colour, shape, vl_world_cells[scene->direction]);
        break;
    case VL_WORLD_PACE:
        snprintf(text, TEXT, "A %s %s moves %s and gets %s.", colour, shape, vl_world_cells[scene->direction],
                 scene->slower ? "slower" : "faster");
        break;
    case VL_WORLD_BOUNCE:
        snprintf(text, TEXT, "A %s %s bounces %s times.", colour, shape, numbers[scene->bounces]);
        break;
    case VL_WORLD_ORDER:
        snprintf(text, TEXT, "First a %s %s appears, then a %s %s.", colour, shape, vl_world_colours[thing[1].colour],
                 vl_world_shapes[thing[1].shape]);
        break;
    default: write_still_caption(scene, text);
    }
}

json_t *vl_world_sample_caption(const VlWorldScene *scene, const char *id, const char *media) {
    Talk talk = {0};
    char text[TEXT];
    write_caption(scene, text);
    ask(&talk, text, "%s", "");
    return make_sample(id, modality_of(scene), media, "caption", &talk);
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

static void ask_about(Talk *talk, const VlWorldScene *scene, const VlWorldThing *thing, VlWorldQuestion question) {
    const char *colour = vl_world_colours[thing->colour], *shape = vl_world_shapes[thing->shape];
    switch (question) {
    case VL_WORLD_ASK_COLOUR: ask(talk, colour, "What colour is the %s?", shape); break;
    case VL_WORLD_ASK_SHAPE: ask(talk, shape, "Which shape is %s?", colour); break;
    case VL_WORLD_ASK_COUNT: ask(talk, numbers[scene->things], "How many shapes are there?"); break;
    case VL_WORLD_ASK_PLACE: ask(talk, vl_world_cells[thing->cell], "Where is the %s?", shape); break;
    case VL_WORLD_ASK_DIRECTION: ask(talk, vl_world_cells[scene->direction], "Which way does it move?"); break;
    case VL_WORLD_ASK_PACE: ask(talk, scene->slower ? "slower" : "faster", "Does it get faster or slower?"); break;
    case VL_WORLD_ASK_BOUNCES: ask(talk, numbers[scene->bounces], "How many times does it bounce?"); break;
    default: ask(talk, colour, "Which colour appears first?");
    }
}

// Of one thing, without a name for it.
static void ask_about_it(Talk *talk, const VlWorldThing *thing, VlWorldQuestion question) {
    switch (question) {
    case VL_WORLD_ASK_COLOUR: ask(talk, vl_world_colours[thing->colour], "What colour is it?"); break;
    case VL_WORLD_ASK_SHAPE: ask(talk, vl_world_shapes[thing->shape], "What shape is it?"); break;
    default: ask(talk, vl_world_cells[thing->cell], "Where is it?");
    }
}

// An answer must not follow from those before it, as the held-out questions stand alone: so each thing is asked for one
// of its properties only, unless no question names any property.
static void ask_about_picture(Talk *talk, const VlWorldScene *scene, VlRandom *random) {
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

static void ask_about_clip(Talk *talk, const VlWorldScene *scene, VlRandom *random) {
    const VlWorldThing *thing = scene->thing;
    if (scene->motion == VL_WORLD_ORDER) {
        ask_about(talk, scene, thing, VL_WORLD_ASK_ORDER);
        if (vl_random_below(random, 2)) {
            ask(talk, vl_world_shapes[thing[0].shape], "Which shape appears first?");
        } else {
            ask(talk, vl_world_shapes[thing[1].shape], "Which shape appears last?");
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
    Talk talk = {0};
    bool still = scene->motion == VL_WORLD_STILL;
    if (still) {
        ask_about_picture(&talk, scene, random);
    } else {
        ask_about_clip(&talk, scene, random);
    }
    shuffle(&talk, random);
    return make_sample(id, media ? modality_of(scene) : NULL, media,
                       !media  ? "text"
                       : still ? "image"
                               : "temporal",
                       &talk);
}

json_t *vl_world_sample_thing(const VlWorldScene *scene, const char *id, const char *media) {
    Talk talk = {0};
    char text[TEXT];
    const VlWorldThing *thing = &scene->thing[0];
    snprintf(text, TEXT, "%s in %s", vl_world_shapes[thing->shape], vl_world_colours[thing->colour]);
    ask(&talk, text, "What is it?");
    return make_sample(id, modality_of(scene), media, "image", &talk);
}

json_t *vl_world_sample_heldout(const VlWorldScene *scene, const char *id, const char *media,
                                VlWorldQuestion question) {
    Talk talk = {0};
    ask_about(&talk, scene, &scene->thing[0], question);
    return make_sample(id, modality_of(scene), media, questions[question].kind, &talk);
}

// Words and sentences that later stages need, without a medium: a language model knows them before it sees.
json_t *vl_world_sample_text(const char *id, const VlWorldScene *scene, VlRandom *random) {
    Talk talk = {0};
    char text[TEXT];
    int64_t cell = vl_random_below(random, VL_WORLD_DIRECTIONS), number = vl_random_below(random, 3);
    write_caption(scene, text);
    ask(&talk, text, "Describe a clip.");
    ask(&talk, vl_world_cells[(cell + 4) % VL_WORLD_DIRECTIONS], "What is the opposite of %s?", vl_world_cells[cell]);
    ask(&talk, numbers[number + 1], "Which number comes after %s?", numbers[number]);
    return make_sample(id, NULL, NULL, "text", &talk);
}

// ---- Sound -----------------------------------------------------------------

json_t *vl_world_sample_sound(const VlWorldScene *scene, const char *id, const char *media, int64_t number) {
    static const char *const heard[] = {[VL_WORLD_STILL] = "nothing",
                                        [VL_WORLD_GLIDE] = "a hum",
                                        [VL_WORLD_PACE] = "a hum",
                                        [VL_WORLD_BOUNCE] = "knocks",
                                        [VL_WORLD_ORDER] = "chimes"};
    Talk talk = {0};
    if (scene->motion == VL_WORLD_PACE && number % 3 == 0) {
        ask(&talk, scene->slower ? "falling" : "rising", "Is the hum rising or falling?");
    } else if (scene->motion != VL_WORLD_ORDER && number % 3 == 1) {
        ask(&talk, numbers[scene->bells], "How many times does the bell ring?");
    } else {
        bool quiet = scene->motion == VL_WORLD_BOUNCE && scene->bounces == 0;
        ask(&talk, quiet ? "nothing" : heard[scene->motion], "What is heard besides the bell?");
    }
    json_t *sample = make_sample(id, "video", media, "sound", &talk);
    if (sample && json_object_set_new(sample, "va", json_true()) != 0) {
        json_decref(sample);
        return NULL;
    }
    return sample;
}

json_t *vl_world_sample_audiovisual(const VlWorldScene *scene, const char *id, const char *media) {
    Talk talk = {0};
    ask(&talk, vl_world_shapes[scene->thing[scene->bell_at_second].shape], "Which shape is there when the bell rings?");
    json_t *sample = make_sample(id, "video", media, "audiovisual", &talk);
    if (sample && json_object_set_new(sample, "va", json_true()) != 0) {
        json_decref(sample);
        return NULL;
    }
    return sample;
}
