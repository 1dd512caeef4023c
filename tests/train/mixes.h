// Runs whose every step is another random mix of videos with their sound, sounds, videos, images and texts: what the
// ranks (mixes.c) and the test that compares them (test_mixes.c) draw alike.
#ifndef VL_TESTS_TRAIN_MIXES_H
#define VL_TESTS_TRAIN_MIXES_H

#include "base/random.h"
#include "tests/train/runs.h"

enum { MIX_RUNS = 5, MIX_STEPS = 40 };

// What varies from run to run, beside the order of the samples.
typedef struct Mix {
    int64_t seed, global_batch, micro_tokens;
    double layer_drop;
    const char *trainable;
} Mix;

static inline Mix draw_mix(int64_t number) {
    static const int64_t budgets[] = {2, 60, 130, 400, 100000};
    static const char *const trainable[] = {"connector,llm,audio_tower,audio_projector", "audio_tower,audio_projector",
                                            "vision_tower,connector,audio_tower", "llm", "audio_projector"};
    VlRandom random = vl_random(2024, (uint64_t)number);
    Mix mix = {.seed = number, .trainable = trainable[number % 5], .micro_tokens = budgets[number * 2 % 5]};
    mix.global_batch = 1 + vl_random_below(&random, 9);
    mix.layer_drop = vl_random_below(&random, 2) ? 0.3 : 0;
    return mix;
}

static inline void mix_path(char out[VL_PATH_MAX], const char *folder, int64_t ranks, int64_t number) {
    char name[64];
    snprintf(name, sizeof name, "ranks-%lld-mix-%lld", (long long)ranks, (long long)number);
    join(out, folder, name);
}

#endif
