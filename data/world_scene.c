// What happens in a scene: drawn at random under the balance of answers and the rule of held-out combinations.
#include <math.h>

#include "data/world_parts.h"

// Distances are fractions of the canvas. A steady path is longer than one of changing pace, because the latter lies
// to one side of its middle.
static const double glide_length = 0.56, pace_length = 0.46, pace_power = 2.2;
static const double wall_low = 0.16, wall_high = 0.84;

bool vl_world_is_heldout(int64_t shape, int64_t colour, int64_t third) { return (shape + colour + third) % 8 == 5; }

int64_t vl_world_scene_third(const VlWorldScene *scene, const VlWorldThing *thing) {
    switch (scene->motion) {
    case VL_WORLD_STILL: return thing->cell;
    case VL_WORLD_BOUNCE: return scene->bounces;
    case VL_WORLD_ORDER: return scene->thing[1].shape;
    default: return scene->direction;
    }
}

static double between(VlRandom *random, double low, double high) {
    return low + (high - low) * vl_random_uniform(random);
}

// Calm and hardly coloured, away from all colours of things, and from the mean that preprocessing subtracts: of patches
// near zero, a tower's first normalisation would show nothing but their noise.
static void draw_ground(VlWorldGround *ground, VlRandom *random) {
    static const double base[] = {178, 168, 152};
    *ground = (VlWorldGround){.texture = vl_random_below(random, 3),
                              .angle = between(random, 0, 3.141592653589793),
                              .period = between(random, 0.15, 0.4),
                              .phase = between(random, 0, 1),
                              .seed = vl_random_u64(random)};
    double level = between(random, -6, 6), contrast = between(random, 4, 12);
    for (int c = 0; c < 3; c++) {
        ground->low[c] = base[c] + level - contrast + between(random, -4, 4);
        ground->high[c] = base[c] + level + contrast + between(random, -4, 4);
    }
}

// Shapes, colours and cells without repetition among the things of one scene.
static void draw_things(VlWorldScene *scene, int64_t things, VlRandom *random) {
    uint64_t keys[3] = {vl_random_u64(random), vl_random_u64(random), vl_random_u64(random)};
    scene->things = things;
    for (int64_t i = 0; i < things; i++) {
        scene->thing[i] = (VlWorldThing){.shape = vl_permute(i, VL_WORLD_SHAPES, keys[0]),
                                         .colour = vl_permute(i, VL_WORLD_COLOURS, keys[1]),
                                         .cell = vl_permute(i, VL_WORLD_CELLS, keys[2]),
                                         .until = 1};
    }
}

// The first thing takes `value`; the thing that had it takes the first thing's.
#define EXCHANGE(scene, field, value)                                                 \
    do {                                                                              \
        int64_t old_ = (scene)->thing[0].field;                                       \
        for (int64_t i_ = 1; i_ < (scene)->things; i_++) {                            \
            if ((scene)->thing[i_].field == (value)) (scene)->thing[i_].field = old_; \
        }                                                                             \
        (scene)->thing[0].field = (value);                                            \
    } while (0)

static void cell_centre(int64_t cell, double *x, double *y) {
    static const int8_t columns[] = {1, 2, 2, 2, 1, 0, 0, 0, 1}, rows[] = {0, 0, 1, 2, 2, 2, 1, 0, 1};
    *x = (columns[cell] + 0.5) / 3;
    *y = (rows[cell] + 0.5) / 3;
}

static void draw_still(VlWorldScene *scene, int64_t number, VlRandom *random) {
    static const int64_t things[] = {1, 2, 3, 1, 2, 1};
    draw_things(scene, things[number % 6], random);
    int64_t value = number / 18;
    switch (number / 6 % 3) {
    case 0: EXCHANGE(scene, colour, value % VL_WORLD_COLOURS); break;
    case 1: EXCHANGE(scene, shape, value % VL_WORLD_SHAPES); break;
    default: EXCHANGE(scene, cell, value % VL_WORLD_CELLS);
    }
    for (int64_t i = 0; i < scene->things; i++) {
        VlWorldThing *thing = &scene->thing[i];
        thing->radius = between(random, 0.145, 0.165);
        cell_centre(thing->cell, &thing->x, &thing->y);
        thing->x += between(random, -0.02, 0.02);
        thing->y += between(random, -0.02, 0.02);
    }
}

static void draw_path(VlWorldScene *scene, int64_t number, VlRandom *random) {
    bool pace = scene->motion == VL_WORLD_PACE;
    double spread = pace ? 0.10 : 0.15;
    VlWorldThing *thing = &scene->thing[0];
    draw_things(scene, 1, random);
    scene->direction = number % VL_WORLD_DIRECTIONS;
    scene->slower = number / VL_WORLD_DIRECTIONS % 2;
    thing->radius = between(random, 0.16, 0.19);
    thing->x = between(random, 0.5 - spread, 0.5 + spread);
    thing->y = between(random, 0.5 - spread, 0.5 + spread);
}

// Phases: 0 is the left wall, 1 the right one, 2 the left one again. In the middle of the clip the thing is at some
// distance `near` from one wall, drawn in the same way for every number of bounces; walls then lie at the distances
// near, 1 - near, 1 + near, 2 - near, ... along the path, before or behind that point. Half of the path's length
// decides how many of them it reaches; it keeps a margin from the next and from the last one, so that each bounce is
// seen from both sides.
static void draw_bounces(VlWorldScene *scene, int64_t number, VlRandom *random) {
    VlWorldThing *thing = &scene->thing[0];
    draw_things(scene, 1, random);
    scene->bounces = number % 4;
    thing->radius = between(random, 0.16, 0.19);
    thing->y = between(random, 0.2, 0.8);
    double near = between(random, 0.16, 0.33), margin = 0.04 + 0.04 * (double)scene->bounces;
    const double wall[] = {0.4 * near - margin, near, 1 - near, 1 + near, 2 - near};
    double half = between(random, wall[scene->bounces] + margin, wall[scene->bounces + 1] - margin);
    double middle = (double)vl_random_below(random, 2) + (vl_random_below(random, 2) ? near : 1 - near);
    scene->start = fmod(middle - half + 4, 2);
    scene->widths = 2 * half;
}

// Each thing is shown in one half of the clip; around the middle there is nothing.
static void draw_order(VlWorldScene *scene, int64_t number, VlRandom *random) {
    draw_things(scene, 2, random);
    EXCHANGE(scene, colour, number % VL_WORLD_COLOURS);
    for (int64_t i = 0; i < 2; i++) {
        VlWorldThing *thing = &scene->thing[i];
        double outer = between(random, 0, 0.1), inner = between(random, 0.32, 0.42);
        thing->radius = between(random, 0.16, 0.19);
        thing->x = between(random, 0.2, 0.8);
        thing->y = between(random, 0.2, 0.8);
        thing->from = i == 0 ? outer : 1 - inner;
        thing->until = i == 0 ? inner : 1 - outer;
    }
}

static void draw_bells(VlWorldScene *scene, VlRandom *random) {
    scene->bells = 0;
    if (scene->motion == VL_WORLD_STILL) return;
    if (scene->motion == VL_WORLD_ORDER) {
        double later = vl_random_below(random, 2) ? 0.62 : 0;  // with the first thing, or with the second
        scene->bells = 1;
        scene->bell[0] = between(random, 0.14, 0.24) + later;
        return;
    }
    scene->bells = vl_random_below(random, VL_WORLD_BELLS + 1);
    for (int64_t i = 0; i < scene->bells; i++)
        scene->bell[i] = ((double)i + between(random, 0.1, 0.5)) / VL_WORLD_BELLS;
}

static bool belongs(const VlWorldScene *scene, VlWorldSplit split) {
    int64_t asked = scene->motion == VL_WORLD_ORDER ? 1 : scene->things;
    bool first = false, any = false;
    for (int64_t i = 0; i < asked; i++) {
        const VlWorldThing *thing = &scene->thing[i];
        bool heldout = vl_world_is_heldout(thing->shape, thing->colour, vl_world_scene_third(scene, thing));
        first |= heldout && i == 0;
        any |= heldout;
    }
    return split == VL_WORLD_HELDOUT ? first : !any;
}

void vl_world_scene_make(VlWorldScene *scene, uint64_t seed, VlWorldSplit split, VlWorldMotion motion, int64_t number) {
    uint64_t stream = ((uint64_t)number * VL_WORLD_MOTIONS + (uint64_t)motion) * 2 + (uint64_t)split;
    VlRandom random = vl_random(seed, stream);
    do {
        *scene = (VlWorldScene){.motion = motion};
        switch (motion) {
        case VL_WORLD_STILL: draw_still(scene, number, &random); break;
        case VL_WORLD_BOUNCE: draw_bounces(scene, number, &random); break;
        case VL_WORLD_ORDER: draw_order(scene, number, &random); break;
        default: draw_path(scene, number, &random);
        }
    } while (!belongs(scene, split));
    draw_ground(&scene->ground, &random);
    draw_bells(scene, &random);
}

// ---- Motion ----------------------------------------------------------------

// How far along the path, and the same of its reversal.
static double progress(const VlWorldScene *scene, double time) {
    if (scene->motion == VL_WORLD_GLIDE) return time;
    return scene->slower ? 1 - pow(1 - time, pace_power) : pow(time, pace_power);
}

bool vl_world_place(const VlWorldScene *scene, const VlWorldThing *thing, double time, double *x, double *y) {
    *x = thing->x;
    *y = thing->y;
    if (scene->motion == VL_WORLD_GLIDE || scene->motion == VL_WORLD_PACE) {
        double length = scene->motion == VL_WORLD_GLIDE ? glide_length : pace_length;
        double angle = (double)scene->direction * 0.7853981633974483;
        double way = length * (progress(scene, time) - progress(scene, 0.5));
        *x += way * sin(angle);
        *y -= way * cos(angle);
    } else if (scene->motion == VL_WORLD_BOUNCE) {
        double phase = fmod(scene->start + scene->widths * time, 2);
        *x = wall_low + (wall_high - wall_low) * (phase < 1 ? phase : 2 - phase);
    }
    return time >= thing->from && time <= thing->until;
}

void vl_world_bounce_times(const VlWorldScene *scene, double times[3]) {
    for (int64_t i = 0; i < scene->bounces; i++) {
        times[i] = (floor(scene->start) + 1 + (double)i - scene->start) / scene->widths;
    }
}
