#include "data/world.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/pool.h"
#include "data/media_write.h"
#include "data/world_parts.h"

enum {
    SOUND_SAMPLES = VL_WORLD_RATE * VL_WORLD_FRAMES / VL_WORLD_FPS,
    MOST = 10000000,
    NAME = 64,
    LISTS = 7,
    TEXT_EVERY = 8,
    CAPTION_EVERY = 8,
    PICTURES_PER_CLIP = 6
};

static const char *const list_names[LISTS] = {"things.json",  "warmup.json", "pretrain.json",   "finetune.json",
                                              "heldout.json", "audio.json",  "audiovisual.json"};
enum { THINGS, WARMUP, PRETRAIN, FINETUNE, HELDOUT, AUDIO, AUDIOVISUAL };

// One media file: made by a thread of the pool, in any order.
typedef struct Job {
    VlTask task;
    VlWorldScene scene;
    char path[VL_PATH_MAX];
} Job;

typedef struct World {
    const char *folder;
    const VlWorldOptions *options;
    VlWorldReport *report;
    VlPool *pool;
    int64_t jobs, next;  // a ring of jobs
    Job *job;
    json_t *list[LISTS];
} World;

// ---- Media -----------------------------------------------------------------

static VlStatus write_media(void *argument) {
    const Job *job = argument;
    int64_t frames = job->scene.motion == VL_WORLD_STILL ? 1 : VL_WORLD_FRAMES;
    uint8_t *rgb = NULL;
    float *sound = NULL;
    VlStatus status;
    VL_TRY_GOTO(status, VL_NEW(&rgb, frames * VL_WORLD_SIDE * VL_WORLD_SIDE * 3), done);
    VL_TRY_GOTO(status, VL_NEW(&sound, SOUND_SAMPLES), done);
    vl_world_render(&job->scene, frames, rgb);
    if (frames == 1) {
        status = vl_media_write_png(job->path, VL_WORLD_SIDE, VL_WORLD_SIDE, rgb);
    } else {
        vl_world_sound(&job->scene, sound);
        status = vl_media_write_video(job->path, frames, VL_WORLD_SIDE, VL_WORLD_SIDE, rgb, VL_WORLD_FPS, sound,
                                      SOUND_SAMPLES, VL_WORLD_RATE);
    }
done:
    vl_free(rgb);
    vl_free(sound);
    return status;
}

// Orders the file media/NAME.mp4 or .png, and gives its path as annotations name it.
static VlStatus order_media(World *world, const VlWorldScene *scene, const char *name, char media[NAME]) {
    Job *job = &world->job[world->next++ % world->jobs];
    VL_TRY(vl_pool_wait(world->pool, &job->task));
    bool still = scene->motion == VL_WORLD_STILL;
    snprintf(media, NAME, "media/%s.%s", name, still ? "png" : "mp4");
    VL_TRY(vl_path_join(job->path, world->folder, media));
    job->scene = *scene;
    job->task = (VlTask){.run = write_media, .argument = job};
    vl_pool_submit(world->pool, &job->task, false);
    *(still ? &world->report->pictures : &world->report->clips) += 1;
    return VL_OK;
}

static VlStatus wait_for_media(World *world) {
    for (int64_t i = 0; i < world->jobs; i++) VL_TRY(vl_pool_wait(world->pool, &world->job[i].task));
    return VL_OK;
}

// ---- Samples ---------------------------------------------------------------

static VlStatus add(World *world, int list, json_t *sample) {
    if (sample && json_array_append_new(world->list[list], sample) == 0) return VL_OK;
    return vl_error(VL_OUT_OF_MEMORY, "out of memory for the annotations of a world");
}

// Draws of the texts, apart from those of the scenes.
static VlRandom text_random(const World *world, uint64_t number) {
    return vl_random((uint64_t)world->options->seed ^ vl_hash_string("texts"), number);
}

// Pictures are cheap: before and during the warm-up there are several for each clip, later one.
static VlStatus add_picture(World *world, int64_t number) {
    VlWorldScene scene;
    char name[NAME], media[NAME];
    VlRandom random = text_random(world, (uint64_t)(2 * number));
    vl_world_scene_make(&scene, (uint64_t)world->options->seed, VL_WORLD_TRAIN, VL_WORLD_STILL, number);
    snprintf(name, sizeof name, "image-%06" PRId64, number);
    VL_TRY(order_media(world, &scene, name, media));
    if (scene.things == 1) VL_TRY(add(world, THINGS, vl_world_sample_thing(&scene, name, media)));
    bool caption = number % CAPTION_EVERY == 0;  // without a question, as the stage pretrain has it
    VL_TRY(add(world, WARMUP,
               caption ? vl_world_sample_caption(&scene, name, media)
                       : vl_world_sample_questions(&scene, name, media, &random)));
    if (number >= world->options->samples) return VL_OK;
    VL_TRY(add(world, FINETUNE, vl_world_sample_questions(&scene, name, media, &random)));
    return number % 2 ? VL_OK : add(world, PRETRAIN, vl_world_sample_caption(&scene, name, media));
}

// The same clip with the bell at the other time.
static VlStatus add_twins(World *world, const VlWorldScene *scene, const char *id, const char *media, int64_t number) {
    VlWorldScene other = *scene;
    char name[NAME], other_media[NAME];
    other.bell_at_second = !scene->bell_at_second;
    snprintf(name, sizeof name, "twin-%06" PRId64, number);
    VL_TRY(order_media(world, &other, name, other_media));
    VL_TRY(add(world, AUDIOVISUAL, vl_world_sample_audiovisual(scene, id, media)));
    return add(world, AUDIOVISUAL, vl_world_sample_audiovisual(&other, name, other_media));
}

// Text alone: sentences, and questions without their medium, so that a model which sees nothing guesses.
static VlStatus add_texts(World *world, int64_t number) {
    VlWorldScene scene;
    char name[NAME];
    VlRandom random = text_random(world, UINT64_MAX - (uint64_t)number);
    uint64_t seed = (uint64_t)world->options->seed ^ vl_hash_string("scenes of texts");
    vl_world_scene_make(&scene, seed, VL_WORLD_TRAIN, (VlWorldMotion)(number % VL_WORLD_MOTIONS), number);
    snprintf(name, sizeof name, "text-%06" PRId64, number);
    VL_TRY(add(world, WARMUP, vl_world_sample_text(name, &scene, &random)));
    snprintf(name, sizeof name, "guess-%06" PRId64, number);
    VL_TRY(add(world, WARMUP, vl_world_sample_questions(&scene, name, NULL, &random)));
    return add(world, FINETUNE, vl_world_sample_questions(&scene, name, NULL, &random));
}

// Motions take turns; the numbers within each motion run on, for the balance of its answers.
static VlStatus add_clip(World *world, int64_t number) {
    static const VlWorldMotion turns[] = {VL_WORLD_GLIDE, VL_WORLD_PACE, VL_WORLD_BOUNCE, VL_WORLD_ORDER};
    VlWorldScene scene;
    char name[NAME], media[NAME];
    VlRandom random = text_random(world, (uint64_t)(2 * number + 1));
    vl_world_scene_make(&scene, (uint64_t)world->options->seed, VL_WORLD_TRAIN, turns[number % 4], number / 4);
    snprintf(name, sizeof name, "clip-%06" PRId64, number);
    VL_TRY(order_media(world, &scene, name, media));
    VL_TRY(add(world, PRETRAIN, vl_world_sample_caption(&scene, name, media)));
    VL_TRY(add(world, FINETUNE, vl_world_sample_questions(&scene, name, media, &random)));
    VL_TRY(add(world, AUDIO, vl_world_sample_sound(&scene, name, media, number / 4)));
    if (scene.motion == VL_WORLD_ORDER && number % 8 == 3) VL_TRY(add_twins(world, &scene, name, media, number));
    return number % TEXT_EVERY ? VL_OK : add_texts(world, number / TEXT_EVERY);
}

static VlStatus add_heldout(World *world, int64_t number) {
    VlWorldQuestion question = (VlWorldQuestion)(number % VL_WORLD_QUESTIONS);
    int64_t nth = number / VL_WORLD_QUESTIONS;
    VlWorldScene scene;
    char name[NAME], media[NAME];
    int64_t scene_number = nth;
    if (question == VL_WORLD_ASK_COUNT) {
        scene_number = 18 * nth + nth % VL_WORLD_THINGS;
    } else if (vl_world_question_motion(question) == VL_WORLD_STILL) {
        int64_t attribute = question == VL_WORLD_ASK_COLOUR ? 0 : question == VL_WORLD_ASK_SHAPE ? 1 : 2;
        scene_number = 18 * nth + 6 * attribute + (nth + nth / 6) % 6;
    }
    vl_world_scene_make(&scene, (uint64_t)world->options->seed, VL_WORLD_HELDOUT, vl_world_question_motion(question),
                        scene_number);
    snprintf(name, sizeof name, "heldout-%06" PRId64, number);
    VL_TRY(order_media(world, &scene, name, media));
    return add(world, HELDOUT, vl_world_sample_heldout(&scene, name, media, question));
}

// ---- The whole -------------------------------------------------------------

static VlStatus make_all(World *world) {
    const VlWorldOptions *options = world->options;
    for (int64_t i = 0; i < options->samples; i++) VL_TRY(add_clip(world, i));
    for (int64_t i = 0; i < PICTURES_PER_CLIP * options->samples; i++) VL_TRY(add_picture(world, i));
    for (int64_t i = 0; i < options->heldout; i++) VL_TRY(add_heldout(world, i));
    return wait_for_media(world);
}

static VlStatus save_all(World *world) {
    char path[VL_PATH_MAX];
    VlWorldReport *report = world->report;
    int64_t *counts[LISTS] = {&report->things,  &report->warmup, &report->pretrain,   &report->finetune,
                              &report->heldout, &report->audio,  &report->audiovisual};
    VL_TRY(vl_path_join(path, world->folder, "model"));
    VL_TRY(vl_world_model_save(path, world->list, LISTS, &report->vocabulary));
    for (int i = 0; i < LISTS; i++) {
        *counts[i] = (int64_t)json_array_size(world->list[i]);
        VL_TRY(vl_path_join(path, world->folder, list_names[i]));
        VL_TRY(vl_json_save(path, world->list[i], JSON_INDENT(1)));
    }
    return VL_OK;
}

static VlStatus open_world(World *world) {
    char path[VL_PATH_MAX];
    world->jobs = 4 * world->options->threads;
    VL_TRY(VL_NEW(&world->job, world->jobs));
    VL_TRY(vl_path_join(path, world->folder, "media"));
    VL_TRY(vl_make_folders(path));
    for (int i = 0; i < LISTS; i++) {
        world->list[i] = json_array();
        if (!world->list[i]) return vl_error(VL_OUT_OF_MEMORY, "out of memory for the annotations of a world");
    }
    return vl_pool_open(&world->pool, world->options->threads);
}

VlStatus vl_world_make(const char *folder, const VlWorldOptions *options, VlWorldReport *report) {
    if (options->samples < 1 || options->samples > MOST || options->heldout < 0 || options->heldout > MOST ||
        options->threads < 1 || options->seed < 0) {
        return vl_error(VL_INVALID,
                        "a world of %" PRId64 " samples and %" PRId64 " held-out questions with seed %" PRId64
                        " on %" PRId64
                        " threads cannot be made: 1 to %d samples, 0 to %d questions, a seed and threads that are not "
                        "negative are possible",
                        options->samples, options->heldout, options->seed, options->threads, (int)MOST, (int)MOST);
    }
    *report = (VlWorldReport){0};
    World world = {.folder = folder, .options = options, .report = report};
    VlStatus status = open_world(&world);
    if (status == VL_OK) status = make_all(&world);
    vl_pool_close(world.pool);
    if (status == VL_OK) status = save_all(&world);
    for (int i = 0; i < LISTS; i++) json_decref(world.list[i]);
    vl_free(world.job);
    return status;
}
