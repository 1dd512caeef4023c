// Packing of sounds and of videos with their sound: what is stored is what data/audio.h reads, and what cannot be heard
// is silence or a bad sample.
#include <math.h>

#include "data/audio.h"
#include "data/media_write.h"
#include "data/packed.h"
#include "data/show.h"
#include "tests/data/packing.h"

static char *work;
static bool media_library = true;

static int set_up(void **state) {
    (void)state;
    const uint8_t pixel[3] = {0};
    work = make_folder();
    if (vl_media_write_png(in_folder(work, "pixel.png"), 1, 1, pixel) == VL_UNSUPPORTED) media_library = false;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    remove_folder(work);
    return 0;
}

static void need_media(void) {
    if (!media_library) skip();
}

#define GOLDEN VL_SOURCE_DIR "/tests/golden/train"

static VlPackOptions hearing_options(const char *annotations, const char *shards) {
    return (VlPackOptions){.annotations = in_folder(work, annotations),
                           .media = GOLDEN "/data/media",
                           .shards = in_folder(work, shards),
                           .model = MODEL,
                           .aspect = VL_ASPECT_PAD,
                           .protocol = VL_PROTOCOL_AV,
                           .num_frames = 4,
                           .has_audio = true,
                           .threads = 2,
                           .bad_samples = 100,
                           .bad_in_a_row = 10};
}

// The stored bank of a sample against the file read anew.
static void assert_bank(const VlShard *shard, int64_t row, const char *path, VlAudioOptions options) {
    VlShardScratch scratch = {0};
    VlShardRecord record;
    VlFbank *fbank;
    float *values;
    bool silent;
    int64_t rows = vl_audio_rows(options.seconds);
    options.media = vl_media_defaults();
    assert_ok(vl_fbank_create(&fbank));
    assert_ok(VL_NEW(&values, rows * VL_FBANK_BINS));
    assert_ok(vl_audio_read_fbank(fbank, path, &options, values, &silent));
    assert_int_equal(vl_shard_rows(shard, row), rows);
    assert_ok(vl_shard_read(shard, row, &scratch, true, &record));
    assert_int_equal(strstr(record.text, "\"va\":true") != NULL, vl_shard_frames(shard, row) > 0);
    assert_memory_equal(record.fbank, values, (size_t)(rows * VL_FBANK_BINS) * sizeof *values);
    vl_shard_record_free(&record);
    vl_shard_scratch_free(&scratch);
    vl_free(values);
    vl_fbank_free(fbank);
}

// The joint stage's golden annotations: videos with sound, sounds, a video, an image, a text.
static void test_golden_joint(void **state) {
    (void)state;
    need_media();
    static const char *const heard[] = {"v0.mkv", "v1.mkv", "a0.wav", "a2.wav"};
    VlPackReport report;
    VlShard *shard;
    VlPackOptions options = hearing_options("", "joint");
    options.annotations = GOLDEN "/data/joint.json";
    options.media = GOLDEN "/data";
    options.model = GOLDEN "/model_av";
    assert_ok(vl_pack(&options, &report));
    assert_int_equal(report.samples, 7);
    assert_int_equal(report.texts, 1);
    assert_int_equal(report.images, 1);
    assert_int_equal(report.videos, 1);
    assert_int_equal(report.sounds, 2);
    assert_int_equal(report.heard_videos, 2);
    assert_int_equal(report.media, 6);
    assert_int_equal(report.silent + report.bad, 0);
    assert_ok(vl_shard_open(&shard, in_folder(work, "joint/shard-00000.h5")));
    for (int64_t row = 0; row < 7; row++) {
        static const VlModal modals[] = {VL_MODAL_VIDEO, VL_MODAL_VIDEO, VL_MODAL_AUDIO, VL_MODAL_AUDIO,
                                         VL_MODAL_VIDEO, VL_MODAL_IMAGE, VL_MODAL_TEXT};
        char path[VL_PATH_MAX];
        assert_int_equal(vl_shard_row(shard, row)->modality, modals[row]);
        assert_int_equal(vl_shard_frames(shard, row), modals[row] == VL_MODAL_VIDEO   ? 4
                                                      : modals[row] == VL_MODAL_IMAGE ? 1
                                                                                      : 0);
        if (row >= 4) {
            assert_int_equal(vl_shard_rows(shard, row), 0);
            continue;
        }
        assert_ok(vl_path_join(path, GOLDEN "/data/media", heard[row]));
        assert_bank(shard, row, path, (VlAudioOptions){.source = row < 2 ? VL_AUDIO_VIDEO : VL_AUDIO_FILE});
    }
    vl_shard_close(shard);
    assert_ok(vl_pack_check(options.shards, 2, &report));
    // Half a sound's value flipped in the middle of the file is found.
    char *shard_path = strdup(in_folder(work, "joint/shard-00000.h5"));
    int64_t size;
    vl_free(read_all(shard_path, &size));
    flip(shard_path, size / 2, 4);
    assert_status(vl_pack_check(options.shards, 2, &report), VL_FORMAT);
    free(shard_path);
}

static int64_t one_each(void *user, VlModal modal, int64_t frames, int64_t rows) {
    (void)user, (void)modal;
    return 4 * frames + rows / 16;
}

// The same video seen, heard, and both are three records; samples alike in that share one. Cut sounds, rounded values,
// silence, and files that are no sounds.
static void test_sounds(void **state) {
    (void)state;
    need_media();
    VlPackReport report;
    VlShard *shard;
    char *text = NULL;
    size_t size;
    write_text(in_folder(work, "sounds.jsonl"),
               "{\"id\":0,\"video\":\"v0.mkv\"," TURNS("<video>") "}\n"
               "{\"id\":1,\"video\":\"v0.mkv\",\"va\":true," TURNS("<video>") "}\n"
               "{\"id\":2,\"audio\":\"v0.mkv\"," TURNS("<audio>") "}\n"
               "{\"id\":3,\"video\":\"v0.mkv\",\"va\":true," TURNS("<video>") "}\n"
               "{\"id\":4,\"audio\":\"a1.wav\"," TURNS("<audio>") "}\n"
               "{\"id\":5,\"video\":\"v2.mkv\",\"va\":true," TURNS("<video>") "}\n"
               "{\"id\":6,\"audio\":\"a1.wav\"," TURNS("<audio>") "}\n"
               "{\"id\":7,\"audio\":\"f0.png\"," TURNS("<audio>") "}\n"
               "{\"id\":8,\"audio\":\"none.wav\"," TURNS("<audio>") "}\n"
               "{\"id\":9,\"audio\":\"v2.mkv\"," TURNS("<audio>") "}\n"
               "{\"id\":10,\"audio\":\"a1.wav\"," TURNS("<video>") "}\n");
    VlPackOptions options = hearing_options("sounds.jsonl", "sounds");
    options.sound_seconds = 2.5;
    options.sound_bf16 = true;
    assert_ok(vl_pack(&options, &report));
    assert_int_equal(report.samples, 7);
    assert_int_equal(report.bad, 4);
    assert_int_equal(report.videos, 1);
    assert_int_equal(report.heard_videos, 3);
    assert_int_equal(report.sounds, 3);
    assert_int_equal(report.media, 5);
    assert_int_equal(report.silent, 1);
    assert_ok(vl_shard_open(&shard, in_folder(work, "sounds/shard-00000.h5")));
    assert_string_equal(vl_shard_header(shard)->sound, "kaldi, 128 bins, 2.5 s, bf16");
    VlAudioOptions video = {.source = VL_AUDIO_VIDEO, .seconds = 2.5, .bf16 = true}, file = video;
    file.source = VL_AUDIO_FILE;
    assert_bank(shard, 1, GOLDEN "/data/media/v0.mkv", video);
    assert_bank(shard, 2, GOLDEN "/data/media/v0.mkv", file);
    assert_bank(shard, 4, GOLDEN "/data/media/a1.wav", file);
    assert_bank(shard, 5, GOLDEN "/data/media/v2.mkv", video);
    assert_int_equal(vl_shard_row(shard, 1)->media, vl_shard_row(shard, 3)->media);
    assert_int_equal(vl_shard_row(shard, 4)->media, vl_shard_row(shard, 6)->media);
    assert_int_not_equal(vl_shard_row(shard, 0)->media, vl_shard_row(shard, 1)->media);
    assert_int_equal(vl_shard_rows(shard, 0), 0);
    assert_int_equal(vl_shard_rows(shard, 1), 248);
    VlTokenizer *tokenizer;
    assert_ok(vl_tokenizer_load(&tokenizer, MODEL));
    VlSampleRules rules = {.tokenizer = tokenizer,
                           .prompt = {.protocol = VL_PROTOCOL_AV, .mode = VL_PROMPT_TRAIN_SFT},
                           .max_tokens = 2048,
                           .truncate_expanded = true,
                           .media_tokens = one_each};
    FILE *out = open_memstream(&text, &size);
    for (int64_t row = 4; row < 6; row++) assert_ok(vl_show_sample(shard, row, &rules, false, out));
    assert_ok(vl_show_packed(options.shards, out));
    fclose(out);
    assert_non_null(strstr(text, "<audio: 15 tokens>"));
    assert_non_null(strstr(text, "<video with its sound: 31 tokens>"));
    assert_non_null(strstr(text, "sound: 2.50 s, 248 rows of 128 bins, "));
    assert_non_null(strstr(text, "-15.9375 to -15.9375, mean -15.9375 (silent)"));  // in bfloat16
    assert_non_null(strstr(text, "(0 text, 0 image, 1 video, 3 audio, 3 video with its sound)"));
    assert_non_null(strstr(text, "silent: 1 videos"));
    free(text);
    vl_tokenizer_free(tokenizer);
    vl_shard_close(shard);
    assert_ok(vl_pack_check(options.shards, 1, &report));
    assert_int_equal(report.silent, 1);
    // Other sounds do not go into the same folder, and not every length is one.
    options.sound_bf16 = false;
    assert_status(vl_pack(&options, &report), VL_INVALID);
    options.shards = in_folder(work, "sounds-long");
    options.sound_seconds = 31;
    assert_status(vl_pack(&options, &report), VL_INVALID);
    assert_error_names("31");
    options.sound_seconds = 2;
    options.protocol = VL_PROTOCOL_MAIN;
    assert_ok(vl_pack(&options, &report));
    assert_int_equal(report.samples, 1);  // without sound
    // Nothing that is seen: a folder of texts and sounds is packed without a look at frames.
    write_text(
        in_folder(work, "heard.csv"),
        "audio,video,sound,question,answer\na0.wav,,,What?,That.\n,v1.mkv,Yes,,A caption.\n,v1.mkv,no,,A caption.\n"
        "a0.wav,,yes,What?,That.\n,v1.mkv,maybe,What?,That.\na0.wav,v1.mkv,,What?,That.\n");
    options = hearing_options("heard.csv", "heard");
    assert_ok(vl_pack(&options, &report));
    assert_int_equal(report.sounds, 1);
    assert_int_equal(report.heard_videos, 1);
    assert_int_equal(report.videos, 1);
    assert_int_equal(report.bad, 3);
    char *lines = read_all(in_folder(work, "heard/quarantine.jsonl"), (int64_t *)&size);
    assert_non_null(strstr(lines, "row 5: its sound is 'yes', but it names no video"));
    assert_non_null(strstr(lines, "row 6: its sound is neither"));
    assert_non_null(strstr(lines, "row 7: it names more than one of video, image and audio"));
    vl_free(lines);
}

// Which window of a long file is packed depends on the annotation's path alone, not on threads or on where it lies.
static void test_long_sound(void **state) {
    (void)state;
    need_media();
    enum { RATE = 8000, SECONDS = 40 };
    VlPackReport report;
    VlShard *shard;
    static uint8_t wav[44 + RATE * SECONDS] =
        "RIFF\x24\xe2\x04\x00WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0"
        "data\x00\xe2\x04";
    for (int64_t i = 0; i < RATE * SECONDS; i++) wav[44 + i] = (uint8_t)(i * (1 + i / RATE) * 7);
    assert_ok(vl_write_file(in_folder(work, "long.wav"), wav, sizeof wav));
    write_text(in_folder(work, "long.jsonl"), "{\"audio\":\"long.wav\"," TURNS("<audio>") "}\n");
    VlPackOptions options = hearing_options("long.jsonl", "long");
    options.media = work;
    assert_ok(vl_pack(&options, &report));
    assert_ok(vl_shard_open(&shard, in_folder(work, "long/shard-00000.h5")));
    double draw = vl_audio_draw("long.wav");
    assert_true(draw >= 0 && draw < 1 && draw != vl_audio_draw("long2.wav"));
    assert_bank(shard, 0, in_folder(work, "long.wav"),
                (VlAudioOptions){.window_start = (int64_t)(draw * (RATE * (SECONDS - 30) + 1))});
    vl_shard_close(shard);
}

// A model that hears and does not see: its shards have no size of frames, and what is to be seen is a bad sample.
static void test_model_without_sight(void **state) {
    (void)state;
    need_media();
    static const char *const parts[] = {"tokenizer.json", "tokenizer_config.json"};
    VlPackReport report;
    VlShard *shard;
    char model[VL_PATH_MAX], from[VL_PATH_MAX];
    int64_t size;
    assert_ok(vl_path_join(model, work, "deaf-model"));
    assert_ok(vl_make_folders(model));
    for (int i = 0; i < 2; i++) {
        assert_ok(vl_path_join(from, MODEL, parts[i]));
        char *data = read_all(from, &size);
        assert_ok(vl_write_file(in_folder(model, parts[i]), data, size));
        vl_free(data);
    }
    write_text(in_folder(model, "config.json"), "{\"model_type\":\"videollama2_qwen2\"}");
    VlPackOptions options = hearing_options("", "unseen");
    options.annotations = GOLDEN "/data/joint.json";
    options.media = GOLDEN "/data";
    options.model = model;
    options.sound_seconds = 1;
    assert_ok(vl_pack(&options, &report));
    assert_int_equal(report.sounds, 2);
    assert_int_equal(report.texts, 1);
    assert_int_equal(report.bad, 4);
    assert_ok(vl_shard_open(&shard, in_folder(work, "unseen/shard-00000.h5")));
    assert_int_equal(vl_shard_header(shard)->height, 0);
    assert_false(vl_shard_has_frames(shard));
    assert_bank(shard, 0, GOLDEN "/data/media/a0.wav", (VlAudioOptions){.seconds = 1});
    vl_shard_close(shard);
    char *lines = read_all(in_folder(work, "unseen/quarantine.jsonl"), &size);
    assert_non_null(strstr(lines, "\"id\":\"av1\",\"reason\":\"the model has no vision tower"));
    vl_free(lines);
}

// The n-th allocation, read or write fails, for every n.
static void test_every_failure(void **state) {
    (void)state;
    need_media();
    VlPackReport report;
    int64_t n = 0;
    write_text(in_folder(work, "failing.jsonl"), "{\"video\":\"v1.mkv\",\"va\":true," TURNS(
                                                     "<video>") "}\n{\"audio\":\"a3.wav\"," TURNS("<audio>") "}\n");
    VlPackOptions options = hearing_options("failing.jsonl", "failing");
    options.sound_seconds = 2;
    options.threads = 1;
    for (;; n += 1 + n / 5) {
        assert_true(n < 20000);
        assert_ok(vl_remove_tree(options.shards));
        vl_fault_arm(n);
        VlStatus status = vl_pack(&options, &report);
        vl_fault_arm(-1);
        if (!status && report.bad == 0) break;
        if (status) assert_true(status == VL_OUT_OF_MEMORY || status == VL_IO || status == VL_FORMAT);
    }
    assert_true(n > 100);
    assert_int_equal(report.samples, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_joint),  cmocka_unit_test(test_sounds),
        cmocka_unit_test(test_long_sound),    cmocka_unit_test(test_model_without_sight),
        cmocka_unit_test(test_every_failure),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
