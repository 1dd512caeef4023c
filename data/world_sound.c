// A scene's sound: each kind of event has a tone of its own.
#include <math.h>

#include "data/world_parts.h"

enum { SAMPLES = VL_WORLD_RATE * VL_WORLD_FRAMES / VL_WORLD_FPS };

static const double bell_pitch = 1000, knock_pitch = 500, chime_pitch = 1600, hum_low = 200, hum_high = 400;

// A tone that gets from one pitch (Hz) to another, from `from` to `until` (fractions of the clip); `decay` per second.
static void add_tone(float *samples, double from, double until, double pitch, double last_pitch, double level,
                     double decay) {
    int64_t begin = (int64_t)(from * SAMPLES), end = (int64_t)(until * SAMPLES);
    double phase = 0;
    for (int64_t i = begin < 0 ? 0 : begin; i < end && i < SAMPLES; i++) {
        double way = (double)(i - begin) / (double)(end - begin), seconds = (double)(i - begin) / VL_WORLD_RATE;
        double rise = seconds < 0.005 ? seconds / 0.005 : 1, left = (double)(end - i) / VL_WORLD_RATE;
        double fall = left < 0.005 ? left / 0.005 : 1;
        samples[i] += (float)(level * rise * fall * exp(-decay * seconds) * sin(phase));
        phase += 6.283185307179586 * (pitch + way * (last_pitch - pitch)) / VL_WORLD_RATE;
    }
}

static void add_stroke(float *samples, double time, double pitch) {
    add_tone(samples, time, time + 0.12, pitch, pitch, 0.4, 12);
}

void vl_world_sound(const VlWorldScene *scene, float *samples) {
    double times[3];
    for (int64_t i = 0; i < SAMPLES; i++) samples[i] = 0;
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
    double later = scene->bell_at_second ? 0.62 : 0;
    for (int64_t i = 0; i < scene->bells; i++) add_stroke(samples, scene->bell[i] + later, bell_pitch);
}
