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
    MOST = 10000000,
    NAME = 64,
    MEDIA = NAME + 16,
    TEXT_EVERY = 8,
    CAPTION_EVERY = 8,
    PICTURES_PER_CLIP = 6,
    SOUNDS_PER_CLIP = 2,
    CLIPS_PER_MEETING = 4,  // a meeting has four twins, so that there are as many clips of meetings as other ones
};

static const char *const list_names[] = {"things.json",         "warmup.json",         "pretrain.json",
                                         "finetune.json",       "heldout.json",        "texts.json",
                                         "audio-pretrain.json", "audio-finetune.json", "joint.json"};
enum { THINGS, WARMUP, PRETRAIN, FINETUNE, HELDOUT, TEXTS, AUDIO_PRETRAIN, AUDIO_FINETUNE, JOINT, LISTS };

// One media file: made by a thread of the pool, in any order.
typedef struct Job {
    VlTask task;
    bool shows, sounds;  // a picture shows, a sound alone sounds; a clip of a scene alone has the scene's own sound
    VlWorldScene scene;
    VlWorldSound sound;
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
    int64_t frames = !job->shows ? 0 : job->scene.motion == VL_WORLD_STILL ? 1 : VL_WORLD_FRAMES;
    uint8_t *rgb = NULL;
    float *sound = NULL;
    VlStatus status;
    VL_TRY_GOTO(status, VL_NEW(&rgb, frames * VL_WORLD_SIDE * VL_WORLD_SIDE * 3), done);
    VL_TRY_GOTO(status, VL_NEW(&sound, VL_WORLD_SOUND), done);
    if (job->shows) vl_world_render(&job->scene, frames, rgb);
    if (job->sounds) {
        vl_world_sound_play(&job->sound, sound);
    } else {
        vl_world_sound(&job->scene, sound);
    }
    if (frames == 0) {
        status = vl_media_write_sound(job->path, sound, VL_WORLD_SOUND, VL_WORLD_RATE);
    } else if (frames == 1) {
        status = vl_media_write_png(job->path, VL_WORLD_SIDE, VL_WORLD_SIDE, rgb);
    } else {
        status = vl_media_write_video(job->path, frames, VL_WORLD_SIDE, VL_WORLD_SIDE, rgb, VL_WORLD_FPS, sound,
                                      VL_WORLD_SOUND, VL_WORLD_RATE);
    }
done:
    vl_free(rgb);
    vl_free(sound);
    return status;
}

// Orders the file media/NAME.mp4, .png or .flac of a scene, a sound or both, and gives its path as annotations name it.
static VlStatus order_media(World *world, const VlWorldScene *scene, const VlWorldSound *sound, const char *name,
                            char media[MEDIA]) {
    Job *job = &world->job[world->next++ % world->jobs];
    VL_TRY(vl_pool_wait(world->pool, &job->task));
    bool still = scene && scene->motion == VL_WORLD_STILL;
    snprintf(media, MEDIA, "media/%s.%s", name, !scene ? "flac" : still ? "png" : "mp4");
    VL_TRY(vl_path_join(job->path, world->folder, media));
    job->shows = scene != NULL;
    job->sounds = sound != NULL;
    if (scene) job->scene = *scene;
    if (sound) job->sound = *sound;
    job->task = (VlTask){.run = write_media, .argument = job};
    vl_pool_submit(world->pool, &job->task, false);
    *(!scene ? &world->report->sounds : still ? &world->report->pictures : &world->report->clips) += 1;
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
    char name[NAME], media[MEDIA];
    VlRandom random = text_random(world, (uint64_t)(2 * number));
    vl_world_scene_make(&scene, (uint64_t)world->options->seed, VL_WORLD_TRAIN, VL_WORLD_STILL, number);
    snprintf(name, sizeof name, "image-%06" PRId64, number);
    VL_TRY(order_media(world, &scene, NULL, name, media));
    if (scene.things == 1) VL_TRY(add(world, THINGS, vl_world_sample_thing(&scene, name, media)));
    bool caption = number % CAPTION_EVERY == 0;  // without a question, as the stage pretrain has it
    VL_TRY(add(world, WARMUP,
               caption ? vl_world_sample_caption(&scene, name, media)
                       : vl_world_sample_questions(&scene, name, media, &random)));
    if (number >= world->options->samples) return VL_OK;
    VL_TRY(add(world, FINETUNE, vl_world_sample_questions(&scene, name, media, &random)));
    return number % 2 ? VL_OK : add(world, PRETRAIN, vl_world_sample_caption(&scene, name, media));
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
    char name[NAME], media[MEDIA];
    VlRandom random = text_random(world, (uint64_t)(2 * number + 1));
    vl_world_scene_make(&scene, (uint64_t)world->options->seed, VL_WORLD_TRAIN, turns[number % 4], number / 4);
    snprintf(name, sizeof name, "clip-%06" PRId64, number);
    VL_TRY(order_media(world, &scene, NULL, name, media));
    VL_TRY(add(world, PRETRAIN, vl_world_sample_caption(&scene, name, media)));
    VL_TRY(add(world, FINETUNE, vl_world_sample_questions(&scene, name, media, &random)));
    return number % TEXT_EVERY ? VL_OK : add_texts(world, number / TEXT_EVERY);
}

static VlStatus add_heldout(World *world, int64_t number) {
    VlWorldQuestion question = (VlWorldQuestion)(number % VL_WORLD_QUESTIONS);
    int64_t nth = number / VL_WORLD_QUESTIONS;
    VlWorldScene scene;
    char name[NAME], media[MEDIA];
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
    VL_TRY(order_media(world, &scene, NULL, name, media));
    return add(world, HELDOUT, vl_world_sample_heldout(&scene, name, media, question));
}

// ---- Samples that are heard ------------------------------------------------

// Every sound is asked about, every other one is also described.
static VlStatus add_sound(World *world, int64_t number) {
    static const VlWorldTune turns[] = {VL_WORLD_RING, VL_WORLD_LONE, VL_WORLD_RING, VL_WORLD_SLIDE};
    VlWorldSound sound;
    char name[NAME], media[MEDIA];
    VlRandom random = text_random(world, vl_hash_string("sounds") + (uint64_t)number);
    VlWorldTune tune = turns[number % 4];
    int64_t nth = tune == VL_WORLD_RING ? number / 2 : number / 4;
    vl_world_sound_make(&sound, (uint64_t)world->options->seed, VL_WORLD_TRAIN, tune, nth);
    snprintf(name, sizeof name, "sound-%06" PRId64, number);
    VL_TRY(order_media(world, NULL, &sound, name, media));
    VL_TRY(add(world, AUDIO_FINETUNE, vl_world_sample_sound_questions(&sound, name, media, &random)));
    if (number / 4 % 2) return VL_OK;
    return add(world, AUDIO_PRETRAIN, vl_world_sample_sound_caption(&sound, name, media));
}

// A meeting and its twins, one clip each. Held out they come under one question, otherwise under all.
static VlStatus add_meeting(World *world, VlWorldSplit split, int64_t number) {
    bool heldout = split == VL_WORLD_HELDOUT;
    VlWorldMeeting meeting;
    VlRandom random = text_random(world, vl_hash_string("meetings") + (uint64_t)number);
    vl_world_meeting_make(&meeting, (uint64_t)world->options->seed, split, heldout ? number / VL_WORLD_MET : number);
    for (int i = 0; i < VL_WORLD_TWINS; i++) {
        char name[NAME], media[MEDIA];
        VlWorldMeeting twin = vl_world_meeting_twin(&meeting, i & 1, i & 2);
        snprintf(name, sizeof name, "%s-%06" PRId64 "-%d", heldout ? "heldout-meeting" : "meeting", number, i);
        VL_TRY(order_media(world, &twin.scene, &twin.sound, name, media));
        VL_TRY(heldout ? add(world, HELDOUT,
                             vl_world_sample_meeting_heldout(&twin, name, media, (VlWorldMet)(number % VL_WORLD_MET)))
                       : add(world, JOINT, vl_world_sample_meeting(&twin, name, media, &random)));
    }
    return VL_OK;
}

// Text alone that prepares for sounds: a description is asked about as its medium will be, two of three times one of
// things and sounds that meet; some questions come without any description, so that a model that hears nothing guesses.
static VlStatus add_sound_text(World *world, int64_t number) {
    uint64_t seed = (uint64_t)world->options->seed ^ vl_hash_string("sounds of texts");
    VlRandom random = text_random(world, vl_hash_string("texts of sounds") + (uint64_t)number);
    char name[NAME];
    bool described = number % TEXT_EVERY > 0;
    snprintf(name, sizeof name, "read-%06" PRId64, number);
    if (number % 3) {
        VlWorldMeeting meeting;
        vl_world_meeting_make(&meeting, seed, VL_WORLD_TRAIN, number / 3 * 2 + number % 3 - 1);
        return add(world, TEXTS, vl_world_sample_meeting_text(&meeting, name, described, &random));
    }
    VlWorldSound sound;
    int64_t nth = number / 3;
    vl_world_sound_make(&sound, seed, VL_WORLD_TRAIN, (VlWorldTune)(nth % VL_WORLD_TUNES), nth / VL_WORLD_TUNES);
    return add(world, TEXTS, vl_world_sample_sound_text(&sound, name, described, &random));
}

static VlStatus add_heldout_sound(World *world, int64_t number) {
    VlWorldHeard heard = (VlWorldHeard)(number % VL_WORLD_HEARD);
    VlWorldSound sound;
    char name[NAME], media[MEDIA];
    vl_world_sound_make(&sound, (uint64_t)world->options->seed, VL_WORLD_HELDOUT, vl_world_heard_tune(heard),
                        vl_world_heard_number(heard, number / VL_WORLD_HEARD));
    snprintf(name, sizeof name, "heldout-sound-%06" PRId64, number);
    VL_TRY(order_media(world, NULL, &sound, name, media));
    return add(world, HELDOUT, vl_world_sample_sound_heldout(&sound, name, media, heard));
}

// ---- The whole -------------------------------------------------------------

static VlStatus make_all(World *world) {
    const VlWorldOptions *options = world->options;
    for (int64_t i = 0; i < options->samples; i++) VL_TRY(add_clip(world, i));
    for (int64_t i = 0; i < PICTURES_PER_CLIP * options->samples; i++) VL_TRY(add_picture(world, i));
    for (int64_t i = 0; i < options->heldout; i++) VL_TRY(add_heldout(world, i));
    for (int64_t i = 0; i < SOUNDS_PER_CLIP * options->samples; i++) VL_TRY(add_sound(world, i));
    for (int64_t i = 0; i < (options->samples + CLIPS_PER_MEETING - 1) / CLIPS_PER_MEETING; i++)
        VL_TRY(add_meeting(world, VL_WORLD_TRAIN, i));
    for (int64_t i = 0; i < options->samples; i++) VL_TRY(add_sound_text(world, i));
    for (int64_t i = 0; i < options->heldout / VL_WORLD_QUESTIONS * VL_WORLD_HEARD; i++)
        VL_TRY(add_heldout_sound(world, i));
    for (int64_t i = 0; i < options->heldout / (2 * VL_WORLD_TWINS); i++)
        VL_TRY(add_meeting(world, VL_WORLD_HELDOUT, i));
    VL_TRY(wait_for_media(world));
    return vl_sync_file_system(world->folder);  // before the lists that name them
}

static VlStatus save_all(World *world) {
    char path[VL_PATH_MAX];
    VlWorldReport *report = world->report;
    int64_t *counts[LISTS] = {&report->things,         &report->warmup,         &report->pretrain,
                              &report->finetune,       &report->heldout,        &report->texts,
                              &report->audio_pretrain, &report->audio_finetune, &report->joint};
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
