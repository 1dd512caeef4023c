// A scene as pictures: a textured ground, and things whose edges are smoothed by sampling each pixel several times.
#include <math.h>
#include <string.h>

#include "data/world_parts.h"

enum { GRID = 9, SUBSAMPLES = 3 };

static const double colours[VL_WORLD_COLOURS][3] = {{220, 35, 35},  {30, 165, 50},  {35, 65, 225},   {240, 220, 40},
                                                    {150, 40, 190}, {40, 210, 220}, {248, 248, 248}, {12, 12, 12}};

// Every thing has a dark outline, in radii so wide: a shape then looks alike in every colour.
static const double outline_width = 0.14, outline_level = 12;

// ---- Ground ----------------------------------------------------------------

// A level in [0, 1] of smooth noise: random values on a grid, joined linearly.
static double noise(const double grid[GRID][GRID], double x, double y) {
    double column = x * (GRID - 1), row = y * (GRID - 1);
    int64_t c = column < GRID - 2 ? (int64_t)column : GRID - 2, r = row < GRID - 2 ? (int64_t)row : GRID - 2;
    double a = column - (double)c, b = row - (double)r;
    return (1 - b) * ((1 - a) * grid[r][c] + a * grid[r][c + 1]) +
           b * ((1 - a) * grid[r + 1][c] + a * grid[r + 1][c + 1]);
}

static void draw_ground(const VlWorldGround *ground, double *levels) {
    double grid[GRID][GRID];
    VlRandom random = vl_random(ground->seed, 0);
    for (int64_t i = 0; i < GRID * GRID; i++) grid[i / GRID][i % GRID] = vl_random_uniform(&random);
    double across = cos(ground->angle), down = sin(ground->angle);
    for (int64_t i = 0; i < VL_WORLD_SIDE * VL_WORLD_SIDE; i++) {
        double x = ((double)(i % VL_WORLD_SIDE) + 0.5) / VL_WORLD_SIDE;
        double y = ((double)(i / VL_WORLD_SIDE) + 0.5) / VL_WORLD_SIDE;
        double way = (x - 0.5) * across + (y - 0.5) * down;
        double level = noise((const double(*)[GRID])grid, x, y);
        if (ground->texture == 1) level = 0.5 + way * 0.7;
        if (ground->texture == 2) level = 0.5 + 0.5 * sin(6.283185307179586 * (way / ground->period + ground->phase));
        for (int c = 0; c < 3; c++) levels[3 * i + c] = ground->low[c] + level * (ground->high[c] - ground->low[c]);
    }
}

// ---- Things ----------------------------------------------------------------

// How deep the point (x, y), in radii from the centre, y downwards, lies inside of a shape: the distance to the line of
// the nearest edge, negative outside.
static double star_depth(double x, double y) {
    const double inner = 0.5, outer = 1.15, fifth = 1.2566370614359172;
    double angle = atan2(x, -y);
    double within = fabs(angle - fifth * nearbyint(angle / fifth));  // from the nearest of five points, one of them up
    double radius = sqrt(x * x + y * y), a = radius * cos(within), b = radius * sin(within);
    // The edge runs from (outer, 0) to the distance `inner` at half of the angle between two points.
    double along_a = inner * cos(fifth / 2) - outer, along_b = inner * sin(fifth / 2);
    return (b * along_a - (a - outer) * along_b) / sqrt(along_a * along_a + along_b * along_b);
}

static double depth(int64_t shape, double x, double y) {
    double radius = sqrt(x * x + y * y), across = fabs(x), down = fabs(y);
    switch (shape) {
    case 0:  // circle
        return 0.95 - radius;
    case 1:  // square
        return 0.85 - fmax(across, down);
    case 2:  // triangle, point upwards
        return fmin(0.8 - y, ((y + 1.1) * 0.58 - across) / sqrt(1 + 0.58 * 0.58));
    case 3:  // cross
        return fmax(fmin(0.36 - across, 1 - down), fmin(0.36 - down, 1 - across));
    case 4:  // ring
        return fmin(1 - radius, radius - 0.42);
    default: return star_depth(x, y);
    }
}

static int64_t clamp(double value) {
    return value < 0 ? 0 : value > VL_WORLD_SIDE - 1 ? VL_WORLD_SIDE - 1 : (int64_t)value;
}

static void draw_thing(const VlWorldThing *thing, double x, double y, double *levels) {
    const double side = VL_WORLD_SIDE, reach = 1.2 * thing->radius;
    const double *colour = colours[thing->colour];
    if (x + reach < 0 || y + reach < 0 || x - reach > 1 || y - reach > 1) return;
    for (int64_t row = clamp((y - reach) * side); row <= clamp((y + reach) * side); row++) {
        for (int64_t column = clamp((x - reach) * side); column <= clamp((x + reach) * side); column++) {
            int64_t outlines = 0, hits = 0;
            for (int64_t s = 0; s < SUBSAMPLES * SUBSAMPLES; s++) {
                double px = ((double)column + ((double)(s % SUBSAMPLES) + 0.5) / SUBSAMPLES) / side;
                double py = ((double)row + ((double)(s / SUBSAMPLES) + 0.5) / SUBSAMPLES) / side;
                double d = depth(thing->shape, (px - x) / thing->radius, (py - y) / thing->radius);
                outlines += d >= 0 && d < outline_width;
                hits += d >= outline_width;
            }
            double *level = levels + 3 * (row * VL_WORLD_SIDE + column), all = SUBSAMPLES * SUBSAMPLES;
            for (int c = 0; c < 3; c++) {
                level[c] +=
                    ((double)outlines * (outline_level - level[c]) + (double)hits * (colour[c] - level[c])) / all;
            }
        }
    }
}

void vl_world_render(const VlWorldScene *scene, int64_t frames, uint8_t *rgb) {
    enum { LEVELS = 3 * VL_WORLD_SIDE * VL_WORLD_SIDE };
    double ground[LEVELS], levels[LEVELS];
    draw_ground(&scene->ground, ground);
    for (int64_t f = 0; f < frames; f++) {
        double time = frames > 1 ? (double)f / (double)(frames - 1) : 0, x, y;
        memcpy(levels, ground, sizeof levels);
        for (int64_t i = 0; i < scene->things; i++) {
            if (vl_world_place(scene, &scene->thing[i], time, &x, &y)) draw_thing(&scene->thing[i], x, y, levels);
        }
        for (int64_t i = 0; i < LEVELS; i++) {
            double level = nearbyint(levels[i]);
            rgb[f * LEVELS + i] = (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
        }
    }
}
