// The parts of the made world, shared by the files world*.c and their test only.
#ifndef VL_DATA_WORLD_PARTS_H
#define VL_DATA_WORLD_PARTS_H

#include <jansson.h>
#include <stdbool.h>

#include "base/random.h"
#include "base/status.h"

enum {
    VL_WORLD_SIDE = 64,  // pixels
    VL_WORLD_FRAMES = 24,
    VL_WORLD_FPS = 12,
    VL_WORLD_RATE = 16000,  // samples of sound a second
    VL_WORLD_SHAPES = 6,
    VL_WORLD_COLOURS = 8,
    VL_WORLD_DIRECTIONS = 8,
    VL_WORLD_CELLS = 9,  // places in a picture: the eight directions and the middle
    VL_WORLD_THINGS = 3,
    VL_WORLD_BELLS = 3,
};

// ---- Scenes ----------------------------------------------------------------

typedef enum VlWorldMotion {
    VL_WORLD_STILL,   // a picture of one to three things, each in a cell of its own
    VL_WORLD_GLIDE,   // one thing moves straight at a constant speed
    VL_WORLD_PACE,    // one thing moves straight and gets faster or slower
    VL_WORLD_BOUNCE,  // one thing runs to and fro between two walls
    VL_WORLD_ORDER,   // one thing is shown, and later another one
    VL_WORLD_MOTIONS
} VlWorldMotion;

// Held-out scenes hold a combination that the others never show.
typedef enum VlWorldSplit { VL_WORLD_TRAIN, VL_WORLD_HELDOUT } VlWorldSplit;

typedef struct VlWorldThing {
    int64_t shape, colour;
    int64_t cell;  // VL_WORLD_STILL
    double x, y;   // in a picture: its centre; on a path: the path's middle; the canvas is [0,1] x [0,1]
    double radius;
    double from, until;  // when it is shown, as fractions of the clip
} VlWorldThing;

typedef struct VlWorldGround {
    int64_t texture;  // 0 noise, 1 gradient, 2 stripes
    double angle, period, phase;
    double low[3], high[3];  // the two colours that it blends
    uint64_t seed;
} VlWorldGround;

typedef struct VlWorldScene {
    VlWorldMotion motion;
    VlWorldGround ground;
    int64_t things;
    VlWorldThing thing[VL_WORLD_THINGS];  // the first is the one that held-out questions ask about
    int64_t direction;                    // glide, pace: 0 north, 1 northeast, ... clockwise
    bool slower;                          // pace
    int64_t bounces;                      // bounce: 0 to 3
    double start, widths;                 // bounce: phase of the path, and its length in distances between the walls
    int64_t bells;
    double bell[VL_WORLD_BELLS];  // when a bell rings, as fractions of the clip
    bool bell_at_second;          // order: the one bell rings while the second thing is shown
} VlWorldScene;

// Scene number `number` of its motion and split: a pure function of these and the seed. Its answers run through their
// values with the number, so that they are balanced: direction, then pace; bounces; the first colour. Pictures hold
// one, two, three, one, two, one things as number % 6 says; number / 18 is the colour, shape or cell of the first of
// them, as number / 6 % 3 says.
void vl_world_scene_make(VlWorldScene *scene, uint64_t seed, VlWorldSplit split, VlWorldMotion motion, int64_t number);

// What the first thing is combined with: direction, bounces, the second thing's shape, or a thing's cell.
int64_t vl_world_scene_third(const VlWorldScene *scene, const VlWorldThing *thing);
// The rule that holds out one eighth of the combinations.
bool vl_world_is_heldout(int64_t shape, int64_t colour, int64_t third);

// Where the centre of a thing is at `time` (0 first frame, 1 last frame). False: it is not shown.
bool vl_world_place(const VlWorldScene *scene, const VlWorldThing *thing, double time, double *x, double *y);

// When the thing of a bounce scene hits a wall.
void vl_world_bounce_times(const VlWorldScene *scene, double times[3]);

// ---- Picture and sound -----------------------------------------------------

// One picture, u8 [VL_WORLD_SIDE, VL_WORLD_SIDE, 3]; `frames` pictures at the times f / (frames - 1).
void vl_world_render(const VlWorldScene *scene, int64_t frames, uint8_t *rgb);
// The clip's sound, VL_WORLD_RATE * VL_WORLD_FRAMES / VL_WORLD_FPS samples in [-1, 1].
void vl_world_sound(const VlWorldScene *scene, float *samples);

// ---- Annotations -----------------------------------------------------------

extern const char *const vl_world_shapes[VL_WORLD_SHAPES];
extern const char *const vl_world_colours[VL_WORLD_COLOURS];
extern const char *const vl_world_cells[VL_WORLD_CELLS];  // the first eight are the directions

// Which question, for the key "kind". Those before VL_WORLD_ASK_DIRECTION need one picture only.
typedef enum VlWorldQuestion {
    VL_WORLD_ASK_COLOUR,
    VL_WORLD_ASK_SHAPE,
    VL_WORLD_ASK_COUNT,
    VL_WORLD_ASK_PLACE,
    VL_WORLD_ASK_DIRECTION,
    VL_WORLD_ASK_PACE,
    VL_WORLD_ASK_BOUNCES,
    VL_WORLD_ASK_ORDER,
    VL_WORLD_QUESTIONS
} VlWorldQuestion;
VlWorldMotion vl_world_question_motion(VlWorldQuestion question);  // the scenes that it is held out from
const char *vl_world_question_kind(VlWorldQuestion question);      // "image-colour", "temporal-order", ...

// Samples as the annotation files hold them; the caller owns them. NULL: no memory. `random` orders the questions. A
// caption's question is its medium alone.
json_t *vl_world_sample_caption(const VlWorldScene *scene, const char *id, const char *media);
// A NULL medium: the questions alone, whose answers can only be guessed.
json_t *vl_world_sample_questions(const VlWorldScene *scene, const char *id, const char *media, VlRandom *random);
// A picture of one thing, asked what it is: its shape and colour in one answer. From these a tower and a language model
// learn in a few hundred steps to pass both on. Of many questions at once they learn shapes in thousands of steps or
// never, and of questions about the shape alone they unlearn the colours.
json_t *vl_world_sample_thing(const VlWorldScene *scene, const char *id, const char *media);
json_t *vl_world_sample_heldout(const VlWorldScene *scene, const char *id, const char *media, VlWorldQuestion question);
json_t *vl_world_sample_text(const char *id, const VlWorldScene *scene, VlRandom *random);  // no medium
json_t *vl_world_sample_sound(const VlWorldScene *scene, const char *id, const char *media, int64_t number);
json_t *vl_world_sample_audiovisual(const VlWorldScene *scene, const char *id, const char *media);

// ---- Model folder ----------------------------------------------------------

// Writes folder/config.json, folder/tower/ and the tokenizer, whose merges come from the texts of `count` annotation
// lists.
VlStatus vl_world_model_save(const char *folder, json_t *const *annotations, int64_t count, int64_t *vocabulary);

typedef struct VlWorldVocabulary {
    json_t *tokens;  // {"token": id}, in the alphabet of byte-level BPE
    json_t *merges;  // ["left right", ..]
} VlWorldVocabulary;
// Byte pair encoding of the words of `count` annotation lists, merged until each word is one token. Ids from `first`.
VlStatus vl_world_vocabulary_make(VlWorldVocabulary *vocabulary, int64_t first, json_t *const *annotations,
                                  int64_t count);
void vl_world_vocabulary_free(VlWorldVocabulary *vocabulary);

#endif
