#include "data/world.h"

#include <jansson.h>
#include <math.h>

#include "base/json.h"
#include "data/media.h"
#include "data/media_audio.h"
#include "data/tokenizer.h"
#include "data/world_parts.h"
#include "tests/data/packing.h"

enum { SCENES = 864, PIXELS = VL_WORLD_SIDE * VL_WORLD_SIDE * 3 };

static const char *const lists[] = {"things.json",         "warmup.json",         "pretrain.json",
                                    "finetune.json",       "heldout.json",        "texts.json",
                                    "audio-pretrain.json", "audio-finetune.json", "joint.json"};
enum { LISTS = sizeof lists / sizeof *lists };

static char *work;
static bool has_media;

static int set_up(void **state) {
    (void)state;
    const VlWorldOptions options = {.seed = 7, .samples = 24, .heldout = 72, .threads = 2};
    VlWorldReport report;
    work = make_folder();
    VlStatus status = vl_world_make(in_folder(work, "a"), &options, &report);
    has_media = status != VL_UNSUPPORTED;
    if (has_media) assert_ok(status);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    remove_folder(work);
    return 0;
}

static json_t *load_list(const char *name) {
    json_t *list;
    assert_ok(vl_json_load(in_folder(in_folder(work, "a"), name), 1 << 26, &list));
    assert_true(json_array_size(list) > 0);
    return list;
}

static VlWorldScene scene_of(VlWorldSplit split, VlWorldMotion motion, int64_t number) {
    VlWorldScene scene;
    vl_world_scene_make(&scene, 7, split, motion, number);
    return scene;
}

// ---- Scenes ----------------------------------------------------------------

static void test_heldout_combinations_are_unseen(void **state) {
    (void)state;
    for (int motion = 0; motion < VL_WORLD_MOTIONS; motion++) {
        int64_t asked = motion == VL_WORLD_ORDER ? 1 : VL_WORLD_THINGS;
        for (int64_t n = 0; n < SCENES; n++) {
            VlWorldScene seen = scene_of(VL_WORLD_TRAIN, (VlWorldMotion)motion, n);
            for (int64_t i = 0; i < seen.things && i < asked; i++) {
                const VlWorldThing *thing = &seen.thing[i];
                assert_false(vl_world_is_heldout(thing->shape, thing->colour, vl_world_scene_third(&seen, thing)));
            }
            VlWorldScene unseen = scene_of(VL_WORLD_HELDOUT, (VlWorldMotion)motion, n);
            const VlWorldThing *thing = &unseen.thing[0];
            assert_true(vl_world_is_heldout(thing->shape, thing->colour, vl_world_scene_third(&unseen, thing)));
        }
    }
}

static void count_up(int64_t *counts, int64_t values, int64_t value) {
    assert_in_range(value, 0, values - 1);
    counts[value]++;
}

static void assert_even(const int64_t *counts, int64_t values, int64_t total, const char *what) {
    for (int64_t i = 0; i < values; i++) {
        if (llabs(counts[i] * values - total) > values) {
            fail_msg("%s: value %d comes %d times of %d", what, (int)i, (int)counts[i], (int)total);
        }
    }
}

static void test_answers_are_balanced(void **state) {
    (void)state;
    for (int split = 0; split < 2; split++) {
        int64_t direction[8] = {0}, slower[2] = {0}, bounces[4] = {0}, first[8] = {0}, count[3] = {0}, colour[8] = {0},
                shape[6] = {0}, cell[9] = {0};
        for (int64_t n = 0; n < SCENES; n++) {
            count_up(direction, 8, scene_of((VlWorldSplit)split, VL_WORLD_GLIDE, n).direction);
            count_up(slower, 2, scene_of((VlWorldSplit)split, VL_WORLD_PACE, n).slower);
            count_up(bounces, 4, scene_of((VlWorldSplit)split, VL_WORLD_BOUNCE, n).bounces);
            count_up(first, 8, scene_of((VlWorldSplit)split, VL_WORLD_ORDER, n).thing[0].colour);
            count_up(count, 3, scene_of((VlWorldSplit)split, VL_WORLD_STILL, 6 * (n / 3) + n % 3).things - 1);
            count_up(colour, 8, scene_of((VlWorldSplit)split, VL_WORLD_STILL, 18 * n).thing[0].colour);
            count_up(shape, 6, scene_of((VlWorldSplit)split, VL_WORLD_STILL, 18 * n + 6).thing[0].shape);
            count_up(cell, 9, scene_of((VlWorldSplit)split, VL_WORLD_STILL, 18 * n + 12).thing[0].cell);
        }
        assert_even(direction, 8, SCENES, "direction");
        assert_even(slower, 2, SCENES, "pace");
        assert_even(bounces, 4, SCENES, "bounces");
        assert_even(first, 8, SCENES, "first colour");
        assert_even(count, 3, SCENES, "count");
        assert_even(colour, 8, SCENES, "colour");
        assert_even(shape, 6, SCENES, "shape");
        assert_even(cell, 9, SCENES, "cell");
    }
}

// How often the best guess of `answers` values from the place of the first thing at `time` is right, over and above
// the best guess without it: places are told apart in 4 x 4 fields.
static double lead_of_places(VlWorldMotion motion, double time, int64_t answers) {
    enum { FIELDS = 17, SAMPLE = 4000 };
    int64_t tally[FIELDS][8] = {{0}}, right = 0;
    for (int64_t n = 0; n < SAMPLE; n++) {
        VlWorldScene scene = scene_of(VL_WORLD_TRAIN, motion, n);
        double x, y;
        bool shown = vl_world_place(&scene, &scene.thing[0], time, &x, &y);
        int64_t column = (int64_t)fmin(3, fmax(0, x * 4)), row = (int64_t)fmin(3, fmax(0, y * 4));
        int64_t answer = motion == VL_WORLD_GLIDE    ? scene.direction
                         : motion == VL_WORLD_PACE   ? scene.slower
                         : motion == VL_WORLD_BOUNCE ? scene.bounces
                                                     : scene.thing[0].colour;
        tally[shown ? row * 4 + column : 16][answer]++;
    }
    for (int64_t f = 0; f < FIELDS; f++) {
        int64_t most = 0;
        for (int64_t a = 0; a < answers; a++) most = tally[f][a] > most ? tally[f][a] : most;
        right += most;
    }
    return (double)right / SAMPLE - 1.0 / (double)answers;
}

// The measure finds what is there: of the last frame, the place tells much about the direction.
static void test_middle_frame_does_not_tell(void **state) {
    (void)state;
    const struct {
        VlWorldMotion motion;
        int64_t answers;
    } cases[] = {{VL_WORLD_GLIDE, 8}, {VL_WORLD_PACE, 2}, {VL_WORLD_BOUNCE, 4}, {VL_WORLD_ORDER, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double lead = lead_of_places(cases[i].motion, 0.5, cases[i].answers);
        if (!(lead < 0.05)) fail_msg("motion %d: places in the middle frame tell %.3f", (int)cases[i].motion, lead);
    }
    assert_true(lead_of_places(VL_WORLD_GLIDE, 1, 8) > 0.3);
}

// A clip of changing pace, backwards, is one of the other pace in the opposite direction: the same frames.
static void test_reversal(void **state) {
    (void)state;
    for (int64_t n = 0; n < 16; n++) {
        VlWorldScene scene = scene_of(VL_WORLD_TRAIN, VL_WORLD_PACE, n), reversed = scene;
        reversed.slower = !scene.slower;
        reversed.direction = (scene.direction + 4) % VL_WORLD_DIRECTIONS;
        for (int64_t f = 0; f < VL_WORLD_FRAMES; f++) {
            double time = (double)f / (VL_WORLD_FRAMES - 1), x, y, other_x, other_y;
            vl_world_place(&scene, &scene.thing[0], time, &x, &y);
            vl_world_place(&reversed, &reversed.thing[0], 1 - time, &other_x, &other_y);
            assert_true(fabs(x - other_x) < 1e-12 && fabs(y - other_y) < 1e-12);
        }
    }
}

// Turns of the path, counted frame by frame, are the answer, and each lies where the sound has its knock.
static void test_bounces_are_as_told(void **state) {
    (void)state;
    enum { STEPS = 10000 };
    for (int64_t n = 0; n < 400; n++) {
        VlWorldScene scene = scene_of(VL_WORLD_TRAIN, VL_WORLD_BOUNCE, n);
        double times[3] = {0}, before = 0, here = 0, y;
        int64_t turns = 0;
        vl_world_bounce_times(&scene, times);
        for (int64_t i = 0; i <= STEPS; i++) {
            double next;
            vl_world_place(&scene, &scene.thing[0], (double)i / STEPS, &next, &y);
            if (i > 1 && (here - before) * (next - here) < 0) {
                assert_true(turns < 3 && fabs(times[turns] - (double)(i - 1) / STEPS) < 2.0 / STEPS);
                turns++;
            }
            before = here;
            here = next;
        }
        assert_int_equal(turns, scene.bounces);
    }
}

static void test_shapes_and_colours_differ(void **state) {
    (void)state;
    static uint8_t rgb[VL_WORLD_SHAPES][PIXELS];
    VlWorldScene scene = scene_of(VL_WORLD_TRAIN, VL_WORLD_STILL, 0);
    for (int64_t s = 0; s < VL_WORLD_SHAPES; s++) {
        scene.thing[0].shape = s;
        vl_world_render(&scene, 1, rgb[s]);
        for (int64_t other = 0; other < s; other++) {
            int64_t different = 0;
            for (int64_t i = 0; i < PIXELS; i += 3) different += abs(rgb[s][i] - rgb[other][i]) > 40;
            assert_true(different > 12);
        }
    }
}

static void test_events_have_their_tones(void **state) {
    (void)state;
    static float samples[VL_WORLD_SOUND];
    const double pitches[] = {1000, 500};  // bell, knock
    for (int64_t n = 0; n < 12; n++) {
        VlWorldScene scene = scene_of(VL_WORLD_TRAIN, VL_WORLD_BOUNCE, n);
        int64_t wanted[] = {scene.bells, scene.bounces};
        double peak = 0;
        vl_world_sound(&scene, samples);
        for (int p = 0; p < 2; p++) {
            double re = 0, im = 0;
            for (int64_t i = 0; i < VL_WORLD_SOUND; i++) {
                re += samples[i] * cos(6.283185307179586 * pitches[p] * (double)i / VL_WORLD_RATE);
                im += samples[i] * sin(6.283185307179586 * pitches[p] * (double)i / VL_WORLD_RATE);
                peak = fmax(peak, fabs(samples[i]));
            }
            double power = sqrt(re * re + im * im);
            if (wanted[p] == 0) assert_true(power < 40);
            if (wanted[p] == 1) assert_true(power > 100);
        }
        assert_true(peak <= 1);
    }
}

// ---- Sounds ----------------------------------------------------------------

static VlWorldSound sound_of(VlWorldSplit split, VlWorldTune tune, int64_t number) {
    VlWorldSound sound;
    vl_world_sound_make(&sound, 7, split, tune, number);
    return sound;
}

static VlWorldMeeting meeting_of(VlWorldSplit split, int64_t number) {
    VlWorldMeeting meeting;
    vl_world_meeting_make(&meeting, 7, split, number);
    return meeting;
}

static void test_heldout_sounds_are_unheard(void **state) {
    (void)state;
    for (int tune = 0; tune < VL_WORLD_TUNES; tune++) {
        for (int64_t n = 0; n < SCENES; n++) {
            VlWorldSound heard = sound_of(VL_WORLD_TRAIN, (VlWorldTune)tune, n);
            VlWorldSound unheard = sound_of(VL_WORLD_HELDOUT, (VlWorldTune)tune, n);
            assert_false(vl_world_sound_is_heldout(&heard));
            assert_true(vl_world_sound_is_heldout(&unheard));
            for (int64_t i = 0; i < heard.tones; i++) {
                assert_true(heard.tone[i].from >= 0 && heard.tone[i].until <= 1);
                if (i > 0) assert_true(heard.tone[i].from > heard.tone[i - 1].until);
            }
        }
    }
}

static void test_answers_about_sounds_are_balanced(void **state) {
    (void)state;
    for (int split = 0; split < 2; split++) {
        int64_t count[3] = {0}, source[4] = {0}, high[2] = {0}, falls[2] = {0}, late[2] = {0};
        for (int64_t n = 0; n < SCENES; n++) {
            VlWorldSplit part = (VlWorldSplit)split;
            int64_t number = vl_world_heard_number(VL_WORLD_HEAR_COUNT, n);
            count_up(count, 3, sound_of(part, VL_WORLD_RING, number).tones - 1);
            number = vl_world_heard_number(VL_WORLD_HEAR_SOURCE, n);
            count_up(source, 4, sound_of(part, VL_WORLD_RING, number).tone[0].source);
            number = vl_world_heard_number(VL_WORLD_HEAR_PITCH, n);
            count_up(high, 2, sound_of(part, VL_WORLD_RING, number).tone[0].high);
            count_up(falls, 2, sound_of(part, VL_WORLD_SLIDE, n).falls);
            count_up(late, 2, sound_of(part, VL_WORLD_LONE, n).late);
        }
        assert_even(count, 3, SCENES, "count");
        assert_even(source, 4, SCENES, "source");
        assert_even(high, 2, SCENES, "pitch");
        assert_even(falls, 2, SCENES, "course");
        assert_even(late, 2, SCENES, "half");
    }
}

// The power of a tone is where its pitch is, at the time that it is said to be heard.
static void test_tones_are_heard_in_their_time(void **state) {
    (void)state;
    static float samples[VL_WORLD_SOUND];
    for (int64_t n = 0; n < 32; n++) {
        VlWorldSound sound = sound_of(VL_WORLD_TRAIN, VL_WORLD_RING, n);
        double inside = 0, outside = 0, peak = 0;
        vl_world_sound_play(&sound, samples);
        for (int64_t i = 0; i < VL_WORLD_SOUND; i++) {
            double time = (double)i / VL_WORLD_SOUND, power = (double)samples[i] * (double)samples[i];
            bool heard = false;
            for (int64_t t = 0; t < sound.tones; t++)
                heard |= time >= sound.tone[t].from - 1e-4 && time <= sound.tone[t].until + 1e-4;
            *(heard ? &inside : &outside) += power;
            peak = fmax(peak, fabs(samples[i]));
        }
        assert_true(inside > 20 * (double)sound.tones && outside == 0);
        assert_true(peak > 0.1 && peak <= 1);
    }
}

// The rule of meetings holds for a meeting and each of its twins, so that no twin shows what is held out.
static int64_t meeting_rest(const VlWorldMeeting *meeting) {
    int64_t sum = meeting->sound.tone[0].source;
    for (int64_t i = 0; i < 2; i++) sum += meeting->scene.thing[i].shape + 3 * meeting->scene.thing[i].colour;
    return sum % 8;
}

static void test_things_and_sounds_meet(void **state) {
    (void)state;
    int64_t colours[8] = {0}, sources[4] = {0}, late[2] = {0};
    for (int64_t n = 0; n < 256; n++) {
        VlWorldMeeting seen = meeting_of(VL_WORLD_TRAIN, n), unseen = meeting_of(VL_WORLD_HELDOUT, n);
        count_up(colours, 8, unseen.scene.thing[0].colour);
        count_up(sources, 4, unseen.sound.tone[0].source);
        count_up(late, 2, unseen.sound.late);
        for (int64_t twin = 0; twin < VL_WORLD_TWINS; twin++) {
            VlWorldMeeting known = vl_world_meeting_twin(&seen, twin & 1, twin & 2);
            VlWorldMeeting other = vl_world_meeting_twin(&unseen, twin & 1, twin & 2);
            assert_int_equal(meeting_rest(&other), 5);
            assert_int_not_equal(meeting_rest(&known), 5);
            const VlWorldThing *thing = known.scene.thing;
            assert_false(vl_world_is_heldout(thing[0].shape, thing[0].colour, thing[1].shape));
            assert_false(vl_world_sound_is_heldout(&known.sound));
            assert_true(other.sound.tone[0].from >= other.scene.thing[other.sound.late].from);
            assert_true(other.sound.tone[0].until <= other.scene.thing[other.sound.late].until);
        }
    }
    assert_even(colours, 8, 256, "first colour of a meeting");
    assert_even(sources, 4, 256, "source of a meeting");
    assert_even(late, 2, 256, "half of a meeting");
}

static const char *turn_of(const json_t *sample, size_t turn) {
    const json_t *turns = json_object_get(sample, "conversations");
    return json_string_value(json_object_get(json_array_get(turns, turn), "value"));
}

// Under one question a meeting, its twins by either exchange, and the twin of both have the answers a, b, b, a: neither
// the picture nor the sound alone decides between the two, and each exchange is told by the other medium.
static void test_twins_have_other_answers(void **state) {
    (void)state;
    for (int met = 0; met < VL_WORLD_MET; met++) {
        for (int64_t n = 0; n < 64; n++) {
            VlWorldMeeting meeting = meeting_of(VL_WORLD_HELDOUT, n);
            json_t *samples[VL_WORLD_TWINS];
            for (int64_t twin = 0; twin < VL_WORLD_TWINS; twin++) {
                VlWorldMeeting other = vl_world_meeting_twin(&meeting, twin & 1, twin & 2);
                samples[twin] = vl_world_sample_meeting_heldout(&other, "x", "x.mp4", (VlWorldMet)met);
                assert_true(json_is_true(json_object_get(samples[twin], "va")));
                assert_string_equal(turn_of(samples[twin], 0), turn_of(samples[0], 0));
            }
            const VlWorldThing *thing = meeting.scene.thing;
            int64_t first = met == VL_WORLD_MEET_TONE ? meeting.sound.late : !meeting.sound.late;
            const char *a = vl_world_colours[thing[first].colour], *b = vl_world_colours[thing[!first].colour];
            assert_string_not_equal(a, b);
            assert_string_equal(turn_of(samples[0], 1), a);
            assert_string_equal(turn_of(samples[1], 1), b);
            assert_string_equal(turn_of(samples[2], 1), b);
            assert_string_equal(turn_of(samples[3], 1), a);
            for (int64_t twin = 0; twin < VL_WORLD_TWINS; twin++) json_decref(samples[twin]);
        }
    }
}

// Exchanging the sounds leaves every frame, exchanging the things every sample of the sound.
static void test_twins_differ_in_one_medium(void **state) {
    (void)state;
    static uint8_t rgb[3][VL_WORLD_FRAMES * PIXELS];
    static float samples[3][VL_WORLD_SOUND];
    VlWorldMeeting meeting = meeting_of(VL_WORLD_TRAIN, 3);
    for (int64_t twin = 0; twin < 3; twin++) {
        VlWorldMeeting other = vl_world_meeting_twin(&meeting, twin == 1, twin == 2);
        vl_world_render(&other.scene, VL_WORLD_FRAMES, rgb[twin]);
        vl_world_sound_play(&other.sound, samples[twin]);
    }
    assert_int_not_equal(memcmp(rgb[0], rgb[1], sizeof rgb[0]), 0);
    assert_memory_equal(rgb[0], rgb[2], sizeof rgb[0]);
    assert_memory_equal(samples[0], samples[1], sizeof samples[0]);
    assert_int_not_equal(memcmp(samples[0], samples[2], sizeof samples[0]), 0);
}

// ---- Files -----------------------------------------------------------------

static void test_same_bytes_on_any_number_of_threads(void **state) {
    (void)state;
    if (!has_media) skip();
    const VlWorldOptions again = {.seed = 7, .samples = 24, .heldout = 72, .threads = 5};
    const VlWorldOptions other = {.seed = 8, .samples = 24, .heldout = 8, .threads = 1};
    VlWorldReport report;
    assert_ok(vl_world_make(in_folder(work, "b"), &again, &report));
    assert_ok(vl_world_make(in_folder(work, "c"), &other, &report));
    char **names;
    int64_t count, size_a, size_c;
    for (int i = 0; i < LISTS; i++)
        assert_same_file(in_folder(in_folder(work, "a"), lists[i]), in_folder(in_folder(work, "b"), lists[i]));
    assert_same_file(in_folder(work, "a/model/tokenizer.json"), in_folder(work, "b/model/tokenizer.json"));
    assert_ok(vl_list_folder(in_folder(work, "a/media"), &names, &count));
    assert_true(count > 24 * 7 + 72);
    for (int64_t i = 0; i < count; i++) {
        assert_same_file(in_folder(in_folder(work, "a/media"), names[i]),
                         in_folder(in_folder(work, "b/media"), names[i]));
    }
    vl_free_names(names, count);
    char *a = read_all(in_folder(work, "a/finetune.json"), &size_a),
         *c = read_all(in_folder(work, "c/finetune.json"), &size_c);
    assert_true(size_a != size_c || memcmp(a, c, (size_t)size_a) != 0);
    vl_free(a);
    vl_free(c);
}

static VlStatus count_frame(void *user, int64_t position, double seconds, const VlImage *frame) {
    (void)position;
    (void)seconds;
    assert_int_equal(frame->width, VL_WORLD_SIDE);
    assert_int_equal(frame->height, VL_WORLD_SIDE);
    ++*(int64_t *)user;
    return VL_OK;
}

static void check_video(const char *path) {
    const VlMediaOptions options = vl_media_defaults();
    int64_t indices[VL_WORLD_FRAMES], read = 0;
    VlVideo *video;
    for (int64_t i = 0; i < VL_WORLD_FRAMES; i++) indices[i] = i;
    assert_ok(vl_video_open(&video, path, &options));
    assert_int_equal(vl_video_info(video)->count, VL_WORLD_FRAMES);
    assert_true(fabs(vl_video_info(video)->fps - VL_WORLD_FPS) < 0.01);
    assert_ok(vl_video_read(video, indices, VL_WORLD_FRAMES, count_frame, &read));
    assert_int_equal(read, VL_WORLD_FRAMES);
    vl_video_close(video);
}

static void check_sound(const char *path) {
    const VlMediaOptions options = vl_media_defaults();
    const VlSoundWindow window = {.seconds = 2};
    double *samples, power = 0;
    int64_t rate;
    assert_ok(vl_sound_read_file(path, &options, &window, &samples, &rate));
    assert_int_equal(rate, VL_WORLD_RATE);
    for (int64_t i = 0; i < VL_WORLD_SOUND; i++) power += samples[i] * samples[i];
    assert_true(power > 20);
    vl_free(samples);
}

static void test_media_exist_and_decode(void **state) {
    (void)state;
    if (!has_media) skip();
    const VlMediaOptions options = vl_media_defaults();
    for (int i = 0; i < LISTS; i++) {
        json_t *list = load_list(lists[i]), *sample;
        size_t n;
        json_array_foreach(list, n, sample) {
            const char *image = json_string_value(json_object_get(sample, "image"));
            const char *video = json_string_value(json_object_get(sample, "video"));
            const char *audio = json_string_value(json_object_get(sample, "audio"));
            bool text = strcmp(json_string_value(json_object_get(sample, "kind")), "text") == 0;
            assert_int_equal(!!image + !!video + !!audio, !text);
            assert_int_equal(json_array_size(json_object_get(sample, "conversations")) % 2, 0);
            if (image) {
                VlImage picture;
                assert_ok(vl_image_read(in_folder(in_folder(work, "a"), image), &options, &picture));
                assert_int_equal(picture.width, VL_WORLD_SIDE);
                assert_int_equal(picture.height, VL_WORLD_SIDE);
                vl_image_free(&picture);
            }
            if (video) check_video(in_folder(in_folder(work, "a"), video));
            if (audio) check_sound(in_folder(in_folder(work, "a"), audio));
        }
        json_decref(list);
    }
}

static void test_heldout_asks_each_kind_alike(void **state) {
    (void)state;
    if (!has_media) skip();
    json_t *list = load_list("heldout.json"), *sample;
    int64_t seen[VL_WORLD_QUESTIONS] = {0}, heard[VL_WORLD_HEARD] = {0}, met[VL_WORLD_MET] = {0};
    size_t n;
    json_array_foreach(list, n, sample) {
        assert_int_equal(json_array_size(json_object_get(sample, "conversations")), 2);
        const char *kind = json_string_value(json_object_get(sample, "kind"));
        for (int q = 0; q < VL_WORLD_QUESTIONS; q++)
            seen[q] += strcmp(kind, vl_world_question_kind((VlWorldQuestion)q)) == 0;
        for (int h = 0; h < VL_WORLD_HEARD; h++) heard[h] += strcmp(kind, vl_world_heard_kind((VlWorldHeard)h)) == 0;
        for (int m = 0; m < VL_WORLD_MET; m++) met[m] += strcmp(kind, vl_world_met_kind((VlWorldMet)m)) == 0;
    }
    for (int q = 0; q < VL_WORLD_QUESTIONS; q++) assert_int_equal(seen[q], 9);
    for (int h = 0; h < VL_WORLD_HEARD; h++) assert_int_equal(heard[h], 9);
    assert_int_equal(met[0] + met[1], 36);
    assert_int_equal(json_array_size(list), 72 + 45 + 36);
    json_decref(list);
}

static const char *text_of(const json_t *turns, size_t turn) {
    return json_string_value(json_object_get(json_array_get(turns, turn), "value"));
}

static void test_single_things_are_named(void **state) {
    (void)state;
    if (!has_media) skip();
    json_t *list = load_list("things.json"), *sample;
    size_t n, known = 0;
    assert_int_equal(json_array_size(list), 24 * 6 / 2);  // half of the pictures show one thing
    json_array_foreach(list, n, sample) {
        const json_t *turns = json_object_get(sample, "conversations");
        VlWorldScene scene = scene_of(VL_WORLD_TRAIN, VL_WORLD_STILL,
                                      strtoll(json_string_value(json_object_get(sample, "id")) + 6, NULL, 10));
        char answer[64];
        snprintf(answer, sizeof answer, "%s in %s", vl_world_shapes[scene.thing[0].shape],
                 vl_world_colours[scene.thing[0].colour]);
        assert_int_equal(json_array_size(turns), 2);
        assert_string_equal(text_of(turns, 0), "<image>\nWhat is it?");
        assert_string_equal(text_of(turns, 1), answer);
        known += scene.things == 1;
    }
    assert_int_equal(known, json_array_size(list));
    json_decref(list);
}

// No question names what another one of the same sample asks for.
static void test_questions_do_not_tell_answers(void **state) {
    (void)state;
    if (!has_media) skip();
    const char *const names[] = {"warmup.json", "finetune.json", "audio-finetune.json", "joint.json"};
    const char *const kinds[] = {"image", "image", "sound", "av"};
    for (size_t i = 0; i < 4; i++) {
        json_t *list = load_list(names[i]), *sample;
        size_t n, looked = 0;
        json_array_foreach(list, n, sample) {
            if (strcmp(json_string_value(json_object_get(sample, "kind")), kinds[i]) != 0) continue;
            const json_t *turns = json_object_get(sample, "conversations");
            for (size_t answer = 1; answer < json_array_size(turns); answer += 2) {
                for (size_t question = 0; question < json_array_size(turns); question += 2, looked++) {
                    if (strstr(text_of(turns, question), text_of(turns, answer))) {
                        fail_msg("'%s' tells '%s'", text_of(turns, question), text_of(turns, answer));
                    }
                }
            }
        }
        assert_true(looked >= 12);
        json_decref(list);
    }
}

// All texts come back from their tokens, and each word is one token: behind the tag and its line break, or behind the
// space that the chat template puts.
static void test_tokenizer_knows_the_words(void **state) {
    (void)state;
    if (!has_media) skip();
    VlTokenizer *tokenizer;
    assert_ok(vl_tokenizer_load(&tokenizer, in_folder(work, "a/model")));
    assert_true(vl_tokenizer_count(tokenizer) < 600);
    for (int i = 0; i < LISTS; i++) {
        json_t *list = load_list(lists[i]), *sample, *turn;
        size_t n, t;
        json_array_foreach(list, n, sample) {
            json_array_foreach(json_object_get(sample, "conversations"), t, turn) {
                char text[512], *back;
                const char *value = json_string_value(json_object_get(turn, "value"));
                const char *tag_end = strchr(value, '\n');
                if (tag_end && !tag_end[1]) continue;  // a medium alone
                int64_t words = 1, length;
                VlTokenIds ids = {0};
                snprintf(text, sizeof text, "%s%s", tag_end ? "" : " ", tag_end ? tag_end + 1 : value);
                for (const char *c = text + 1; *c; c++) words += *c == ' ' || *c == '?' || *c == '.' || *c == ',';
                assert_ok(vl_tokenizer_encode(tokenizer, text, (int64_t)strlen(text), false, &ids));
                if (ids.count != words) fail_msg("%d tokens for '%s'", (int)ids.count, text);
                assert_ok(vl_tokenizer_decode(tokenizer, ids.ids, ids.count, true, &back, &length));
                assert_string_equal(back, text);
                vl_free(back);
                vl_token_ids_free(&ids);
            }
        }
        json_decref(list);
    }
    vl_tokenizer_free(tokenizer);
}

static void test_wrong_options(void **state) {
    (void)state;
    const VlWorldOptions none = {.seed = 1, .samples = 0, .threads = 1},
                         negative = {.seed = -1, .samples = 1, .threads = 1};
    VlWorldReport report;
    assert_status(vl_world_make(in_folder(work, "d"), &none, &report), VL_INVALID);
    assert_status(vl_world_make(in_folder(work, "d"), &negative, &report), VL_INVALID);
    assert_false(vl_path_exists(in_folder(work, "d")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heldout_combinations_are_unseen),
        cmocka_unit_test(test_answers_are_balanced),
        cmocka_unit_test(test_middle_frame_does_not_tell),
        cmocka_unit_test(test_reversal),
        cmocka_unit_test(test_bounces_are_as_told),
        cmocka_unit_test(test_shapes_and_colours_differ),
        cmocka_unit_test(test_events_have_their_tones),
        cmocka_unit_test(test_heldout_sounds_are_unheard),
        cmocka_unit_test(test_answers_about_sounds_are_balanced),
        cmocka_unit_test(test_tones_are_heard_in_their_time),
        cmocka_unit_test(test_things_and_sounds_meet),
        cmocka_unit_test(test_twins_have_other_answers),
        cmocka_unit_test(test_twins_differ_in_one_medium),
        cmocka_unit_test(test_same_bytes_on_any_number_of_threads),
        cmocka_unit_test(test_media_exist_and_decode),
        cmocka_unit_test(test_heldout_asks_each_kind_alike),
        cmocka_unit_test(test_single_things_are_named),
        cmocka_unit_test(test_questions_do_not_tell_answers),
        cmocka_unit_test(test_tokenizer_knows_the_words),
        cmocka_unit_test(test_wrong_options),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
