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
    VL_WORLD_SOUND = VL_WORLD_RATE * VL_WORLD_FRAMES / VL_WORLD_FPS,  // samples of sound, of a clip or alone
    VL_WORLD_SOURCES = 4,
    VL_WORLD_TONES = 3,
    VL_WORLD_TWINS = 4,
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

// ---- Sounds ----------------------------------------------------------------

typedef enum VlWorldTune {
    VL_WORLD_RING,   // one source is heard one to three times
    VL_WORLD_SLIDE,  // one source rises or falls
    VL_WORLD_LONE,   // one source is heard once, in the first half or in the second
    VL_WORLD_TUNES
} VlWorldTune;

typedef struct VlWorldTone {
    int64_t source;
    bool high;
    double from, until;        // when it is heard, as fractions of the clip
    double pitch, last_pitch;  // Hz, where it begins and ends
} VlWorldTone;

// A sound of its own, which any clip can have.
typedef struct VlWorldSound {
    VlWorldTune tune;
    int64_t tones;
    VlWorldTone tone[VL_WORLD_TONES];  // in the order of time
    bool falls;                        // slide
    bool late;                         // lone
    uint64_t seed;                     // of its noise
} VlWorldSound;

// Sound number `number` of its tune and split: a pure function of these and the seed. Its answers run through their
// values with the number: ring: count, source or pitch, as number % 3 says, with number / 3; slide: falls; lone: late.
// Held-out sounds hold a combination that the others never have: of a source and its pitch with the places of its
// tones, with the course and the width of its slide, or with the moment in its half.
void vl_world_sound_make(VlWorldSound *sound, uint64_t seed, VlWorldSplit split, VlWorldTune tune, int64_t number);
bool vl_world_sound_is_heldout(const VlWorldSound *sound);

// Things and a sound that meet: an order scene and a lone tone, which is heard while one of the two things is shown.
typedef struct VlWorldMeeting {
    VlWorldScene scene;
    VlWorldSound sound;
} VlWorldMeeting;

// Meeting number `number`. Its things and its source are a combination that the other split never shows; its scene
// alone, in both orders, and its sound alone are of VL_WORLD_TRAIN. First colour, half and source run through their
// values.
void vl_world_meeting_make(VlWorldMeeting *meeting, uint64_t seed, VlWorldSplit split, int64_t number);
// Its twin: with `video` the two things change their times, with `sound` the tone moves to the other half.
VlWorldMeeting vl_world_meeting_twin(const VlWorldMeeting *meeting, bool video, bool sound);

// ---- Picture and sound -----------------------------------------------------

// One picture, u8 [VL_WORLD_SIDE, VL_WORLD_SIDE, 3]; `frames` pictures at the times f / (frames - 1).
void vl_world_render(const VlWorldScene *scene, int64_t frames, uint8_t *rgb);
// VL_WORLD_SOUND samples in [-1, 1]: the sound of a clip about which nobody asks, with a tone for each kind of event;
// a sound of its own.
void vl_world_sound(const VlWorldScene *scene, float *samples);
void vl_world_sound_play(const VlWorldSound *sound, float *samples);

// ---- Annotations -----------------------------------------------------------

extern const char *const vl_world_shapes[VL_WORLD_SHAPES];
extern const char *const vl_world_colours[VL_WORLD_COLOURS];
extern const char *const vl_world_cells[VL_WORLD_CELLS];  // the first eight are the directions
extern const char *const vl_world_numbers[VL_WORLD_TONES + 1];
extern const char *const vl_world_sources[VL_WORLD_SOURCES];

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

// ---- Annotations of sounds -------------------------------------------------

typedef enum VlWorldHeard {
    VL_WORLD_HEAR_SOURCE,
    VL_WORLD_HEAR_COUNT,
    VL_WORLD_HEAR_PITCH,
    VL_WORLD_HEAR_COURSE,
    VL_WORLD_HEAR_HALF,
    VL_WORLD_HEARD
} VlWorldHeard;
VlWorldTune vl_world_heard_tune(VlWorldHeard heard);             // the sounds that it is held out from
const char *vl_world_heard_kind(VlWorldHeard heard);             // "sound-source", "sound-count", ...
int64_t vl_world_heard_number(VlWorldHeard heard, int64_t nth);  // the number of a sound for which it is balanced

// What is asked about a meeting: the colour that is there when the tone is heard, or when it is not.
typedef enum VlWorldMet { VL_WORLD_MEET_TONE, VL_WORLD_MEET_SILENCE, VL_WORLD_MET } VlWorldMet;
const char *vl_world_met_kind(VlWorldMet met);  // "av-tone", "av-silence"

// The medium is a sound file.
json_t *vl_world_sample_sound_caption(const VlWorldSound *sound, const char *id, const char *media);
json_t *vl_world_sample_sound_questions(const VlWorldSound *sound, const char *id, const char *media, VlRandom *random);
json_t *vl_world_sample_sound_heldout(const VlWorldSound *sound, const char *id, const char *media, VlWorldHeard heard);
// The medium is a clip with its sound.
json_t *vl_world_sample_meeting(const VlWorldMeeting *meeting, const char *id, const char *media, VlRandom *random);
json_t *vl_world_sample_meeting_heldout(const VlWorldMeeting *meeting, const char *id, const char *media,
                                        VlWorldMet met);
// Questions that follow upon a description in place of the medium, or, without `described`, upon nothing.
json_t *vl_world_sample_sound_text(const VlWorldSound *sound, const char *id, bool described, VlRandom *random);
json_t *vl_world_sample_meeting_text(const VlWorldMeeting *meeting, const char *id, bool described, VlRandom *random);

// ---- Turns -----------------------------------------------------------------

enum { VL_WORLD_TEXT = 320, VL_WORLD_TURNS = 8 };

// Questions with their answers, to become the turns of a sample.
typedef struct VlWorldTalk {
    char description[2 * VL_WORLD_TEXT];  // in place of a medium, before the first question; may be empty
    int64_t count;
    char question[VL_WORLD_TURNS][VL_WORLD_TEXT], answer[VL_WORLD_TURNS][VL_WORLD_TEXT];
} VlWorldTalk;

void vl_world_ask(VlWorldTalk *talk, const char *answer, const char *format, ...) __attribute__((format(printf, 3, 4)));
void vl_world_talk_shuffle(VlWorldTalk *talk, VlRandom *random);
// `modality`: "image", "video", "audio", "va" (a video with its sound) or NULL for text alone.
json_t *vl_world_talk_sample(const VlWorldTalk *talk, const char *id, const char *modality, const char *media,
                             const char *kind);
void vl_world_caption(const VlWorldScene *scene, char text[VL_WORLD_TEXT]);

// ---- Model folder ----------------------------------------------------------

// Writes folder/config.json with the numbers of a small BEATs in it, folder/tower/ and the tokenizer, whose merges come
// from the texts of `count` annotation lists.
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
