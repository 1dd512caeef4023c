// Sounds as samples: those of clips, where each kind of event has a tone of its own, and those of four sources.
#include <math.h>

#include "data/world_parts.h"

static const double tau = 6.283185307179586;
static const double bell_pitch = 1000, knock_pitch = 500, chime_pitch = 1600, hum_low = 200, hum_high = 400;
static const double edge = 0.005;  // seconds of a tone's rise and fall

// How loud a tone is so many seconds after its start, with so many seconds left.
static double envelope(double seconds, double left, double decay) {
    double rise = seconds < edge ? seconds / edge : 1, fall = left < edge ? left / edge : 1;
    return rise * fall * exp(-decay * seconds);
}

static void silence(float *samples) {
    for (int64_t i = 0; i < VL_WORLD_SOUND; i++) samples[i] = 0;
}

// ---- Clips -----------------------------------------------------------------

// A tone that gets from one pitch (Hz) to another, from `from` to `until` (fractions of the clip); `decay` per second.
static void add_tone(float *samples, double from, double until, double pitch, double last_pitch, double level,
                     double decay) {
    int64_t begin = (int64_t)(from * VL_WORLD_SOUND), end = (int64_t)(until * VL_WORLD_SOUND);
    double phase = 0;
    for (int64_t i = begin < 0 ? 0 : begin; i < end && i < VL_WORLD_SOUND; i++) {
        double way = (double)(i - begin) / (double)(end - begin), seconds = (double)(i - begin) / VL_WORLD_RATE;
        double left = (double)(end - i) / VL_WORLD_RATE;
        samples[i] += (float)(level * envelope(seconds, left, decay) * sin(phase));
        phase += tau * (pitch + way * (last_pitch - pitch)) / VL_WORLD_RATE;
    }
}

static void add_stroke(float *samples, double time, double pitch) {
    add_tone(samples, time, time + 0.12, pitch, pitch, 0.4, 12);
}

void vl_world_sound(const VlWorldScene *scene, float *samples) {
    double times[3];
    silence(samples);
    switch (scene->motion) {
    case VL_WORLD_GLIDE: add_tone(samples, 0, 1, hum_low, hum_low, 0.15, 0); break;
    case VL_WORLD_PACE:
        add_tone(samples, 0, 1, scene->slower ? hum_high : hum_low, scene->slower ? hum_low : hum_high, 0.15, 0);
        break;
    case VL_WORLD_BOUNCE:
        vl_world_bounce_times(scene, times);
        for (int64_t i = 0; i < scene->bounces; i++) add_stroke(samples, times[i], knock_pitch);
        break;
    case VL_WORLD_ORDER:
        for (int64_t i = 0; i < scene->things; i++) add_stroke(samples, scene->thing[i].from, chime_pitch);
        break;
    default: break;
    }
    for (int64_t i = 0; i < scene->bells; i++) add_stroke(samples, scene->bell[i], bell_pitch);
}

// ---- Sources ---------------------------------------------------------------

// What sets a source apart: its partials, how fast it dies away, how its pitch wavers, and whether it rattles.
typedef struct Source {
    int partials;
    double step;   // between partials, in multiples of the first; 1: harmonic
    double decay;  // per second
    double waver;  // share of the pitch, six times a second
    double noise;  // share of the pitch, drawn anew every two milliseconds
} Source;

static const Source sources[VL_WORLD_SOURCES] = {{.partials = 3, .step = 1.76, .decay = 9},
                                                 {.partials = 6, .step = 1},
                                                 {.partials = 1, .step = 1, .waver = 0.06},
                                                 {.partials = 2, .step = 1, .decay = 3, .noise = 0.5}};

static const double level = 0.3;

static void add_source(float *samples, const VlWorldTone *tone, bool sliding, VlRandom *random) {
    const Source *source = &sources[tone->source];
    int64_t begin = (int64_t)(tone->from * VL_WORLD_SOUND), end = (int64_t)(tone->until * VL_WORLD_SOUND);
    double phase = 0, draw = 0, decay = sliding ? 0 : source->decay;
    for (int64_t i = begin; i < end && i < VL_WORLD_SOUND; i++) {
        double way = (double)(i - begin) / (double)(end - begin), seconds = (double)(i - begin) / VL_WORLD_RATE;
        double left = (double)(end - i) / VL_WORLD_RATE, sum = 0;
        if ((i - begin) % (VL_WORLD_RATE / 500) == 0) draw = 2 * vl_random_uniform(random) - 1;
        for (int p = 0; p < source->partials; p++) sum += sin(phase * (1 + source->step * p)) / (1 + p);
        samples[i] += (float)(level * envelope(seconds, left, decay) * sum);
        double pitch = tone->pitch * pow(tone->last_pitch / tone->pitch, way);
        phase += tau * pitch * (1 + source->waver * sin(6 * tau * seconds) + source->noise * draw) / VL_WORLD_RATE;
    }
}

void vl_world_sound_play(const VlWorldSound *sound, float *samples) {
    VlRandom random = vl_random(sound->seed, 0);
    silence(samples);
    for (int64_t i = 0; i < sound->tones; i++)
        add_source(samples, &sound->tone[i], sound->tune == VL_WORLD_SLIDE, &random);
}
