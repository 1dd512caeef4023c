// Micro-batches: cut by a budget of tokens, bad samples left out, frames and sounds in their places.
#include <math.h>

#include "base/sound.h"
#include "tests/base/support.h"
#include "train/micro_batch.h"

#define MODEL VL_SOURCE_DIR "/tests/golden/train/model_vl"
#define HEARING VL_SOURCE_DIR "/tests/golden/train/model_av"
enum { SIDE = 42, PIXELS = 3 * SIDE * SIDE, MOST_FRAMES = 8 };

static VlModelConfig config;
static VlPreprocessConfig preprocess;
static int64_t ids[8] = {1, VL_IMAGE_ID, 5, 6, 7, 8, 9, 10}, labels[8] = {-100, -100, -100, -100, 7, 8, 9, 10};
static int64_t text_ids[8] = {1, 4, 5, 6, 7, 8, 9, 10};
static uint8_t levels[MOST_FRAMES * PIXELS];

static VlSample text(int64_t tokens) { return (VlSample){.tokens = tokens, .ids = text_ids, .labels = labels}; }

static VlSample picture(uint8_t *pixels) {
    return (VlSample){.modal = VL_MODAL_IMAGE,
                      .tokens = 8,
                      .ids = ids,
                      .labels = labels,
                      .frames = 1,
                      .height = SIDE,
                      .width = SIDE,
                      .pixels = pixels};
}

static int set_up(void **state) {
    (void)state;
    assert_ok(vl_model_config_load(&config, MODEL));
    assert_ok(vl_preprocess_load(&preprocess, MODEL));
    assert_int_equal(preprocess.height, SIDE);
    for (int64_t i = 0; i < MOST_FRAMES * PIXELS; i++) levels[i] = (uint8_t)(i * 37 + i / PIXELS * 11);
    return 0;
}

static void expanded_tokens(void **state) {
    (void)state;
    int64_t visual = vl_model_visual_tokens(&config, config.num_frames);
    VlSample sample = text(8), video = picture(levels);
    assert_true(visual > 1);
    assert_int_equal(vl_sample_expanded_tokens(&config, &sample), 8);
    sample = picture(levels);
    assert_int_equal(vl_sample_expanded_tokens(&config, &sample), 7 + visual);
    video.modal = VL_MODAL_VIDEO;
    video.frames = config.num_frames;
    assert_int_equal(vl_sample_expanded_tokens(&config, &video), 7 + visual);
    video.frames = 2;
    assert_int_equal(vl_sample_expanded_tokens(&config, &video), 7 + vl_model_visual_tokens(&config, 2));
    sample.bad = true;
    assert_int_equal(vl_sample_expanded_tokens(&config, &sample), 0);
}

static void cut_by_the_budget(void **state) {
    (void)state;
    VlSample samples[6] = {text(4), text(6), text(8), text(3), {.bad = true}, text(5)};
    assert_int_equal(vl_micro_batch_end(&config, samples, 6, 0, 10), 2);
    assert_int_equal(vl_micro_batch_end(&config, samples, 6, 0, 9), 1);
    assert_int_equal(vl_micro_batch_end(&config, samples, 6, 2, 10), 3);
    assert_int_equal(vl_micro_batch_end(&config, samples, 6, 3, 8), 6);  // the bad one takes no room
    assert_int_equal(vl_micro_batch_end(&config, samples, 6, 3, 7), 5);
    assert_int_equal(vl_micro_batch_end(&config, samples, 6, 2, 2), 3);  // at least one, however long
    assert_int_equal(vl_micro_batch_end(&config, samples, 6, 0, 1 << 20), 6);
    assert_int_equal(vl_micro_batch_end(&config, samples, 5, 4, 1), 5);
}

static void builds_batches(void **state) {
    (void)state;
    VlBatch batch = {0};
    VlSample samples[5] = {picture(levels), text(6), {.bad = true}, picture(levels + 5 * PIXELS), text(8)};
    static float expected[PIXELS];
    for (int round = 0; round < 2; round++) {  // the memory is used again
        assert_ok(vl_micro_batch_build(&batch, &config, &preprocess, 5, samples));
        int64_t image = vl_sample_expanded_tokens(&config, &samples[0]);
        assert_int_equal(batch.sequences, 4);
        assert_int_equal(batch.visuals, 2);
        assert_int_equal(batch.frames, 2);
        assert_int_equal(batch.tokens, 2 * image + 6 + 8);
        assert_int_equal(batch.labels, 4 + 2 + 4 + 4);
        assert_int_equal(batch.cu_seqlens[1], image);
        assert_int_equal(batch.cu_seqlens[2], image + 6);
        for (int frame = 0; frame < 2; frame++) {
            vl_preprocess_normalize(&preprocess, levels + (frame ? 5 : 0) * PIXELS, 1, expected);
            assert_memory_equal(batch.pixels + frame * PIXELS, expected, sizeof expected);
        }
    }
    VlSample bad[2] = {{.bad = true}, {.bad = true}};
    assert_ok(vl_micro_batch_build(&batch, &config, &preprocess, 2, bad));
    assert_int_equal(batch.sequences, 0);
    samples[1].ids = labels;  // a label is no id
    assert_error(vl_micro_batch_build(&batch, &config, &preprocess, 5, samples), VL_INVALID, "-100");
    vl_batch_free(&batch);
}

static VlSample sound(float *fbank, int64_t rows) {
    static int64_t sound_ids[8] = {1, VL_AUDIO_ID, 5, 6, 7, 8, 9, 10};
    return (VlSample){
        .modal = VL_MODAL_AUDIO, .tokens = 8, .ids = sound_ids, .labels = labels, .rows = rows, .fbank = fbank};
}

// Text, picture, video, sound and video with its sound in one batch, each medium where it belongs.
static void modalities_are_mixed(void **state) {
    (void)state;
    enum { ROWS = 98 };
    static float fbank[2 * ROWS * VL_FBANK_BINS];
    static int64_t video_ids[8] = {1, VL_VIDEO_ID, 5, 6, 7, 8, 9, 10};
    VlModelConfig hearing;
    VlBatch batch = {0};
    assert_ok(vl_model_config_load(&hearing, HEARING));
    int64_t patches = hearing.audio.patch_size, heard = ROWS / patches * (VL_FBANK_BINS / patches);
    for (int64_t i = 0; i < 2 * ROWS * VL_FBANK_BINS; i++) fbank[i] = (float)(i % 251) / 9;
    VlSample video = picture(levels), both;
    video.modal = VL_MODAL_VIDEO;
    video.ids = video_ids;
    video.frames = 4;
    both = video;
    both.rows = ROWS;
    both.fbank = fbank;
    VlSample samples[6] = {both,          text(6), sound(fbank + ROWS * VL_FBANK_BINS, ROWS),
                           {.bad = true}, video,   picture(levels)};
    int64_t seen = vl_model_visual_tokens(&hearing, 4);
    assert_int_equal(vl_sample_expanded_tokens(&hearing, &both), 7 + seen + heard);
    assert_int_equal(vl_sample_expanded_tokens(&hearing, &samples[2]), 7 + heard);
    assert_int_equal(vl_media_tokens(&hearing, VL_MODAL_IMAGE, 1, 0),
                     vl_model_visual_tokens(&hearing, hearing.num_frames));
    assert_int_equal(vl_media_tokens(&config, VL_MODAL_AUDIO, 0, ROWS), 0);  // it hears nothing
    assert_ok(vl_micro_batch_build(&batch, &hearing, &preprocess, 6, samples));
    assert_int_equal(batch.sequences, 5);
    assert_int_equal(batch.sounds, 2);
    assert_int_equal(batch.fbank_rows, 2 * ROWS);
    assert_int_equal(batch.visuals, 3);
    assert_int_equal(batch.frames, 4 + 4 + 1);
    assert_int_equal(batch.tokens, 4 * 7 + 6 + 3 * seen + 2 * heard);
    assert_int_equal(batch.cu_seqlens[3] - batch.cu_seqlens[2], 7 + heard);
    for (int64_t i = 0; i < 2 * ROWS * VL_FBANK_BINS; i++) {
        double wanted = ((double)fbank[i] - 15.41663) / (2 * 6.55582);
        if (!(fabs((double)batch.fbank[i] - wanted) <= 1e-6)) fail_msg("value %d", (int)i);
    }
    for (int frame = 0; frame < 9; frame++) {
        static float expected[PIXELS];
        vl_preprocess_normalize(&preprocess, levels + (frame < 8 ? frame % 4 : 0) * PIXELS, 1, expected);
        assert_memory_equal(batch.pixels + frame * PIXELS, expected, sizeof expected);
    }
    // Sounds alone need no preprocessing of pictures; a model that hears nothing refuses them.
    VlPreprocessConfig none = {0};
    assert_ok(vl_micro_batch_build(&batch, &hearing, &none, 1, &samples[2]));
    assert_int_equal(batch.tokens, 7 + heard);
    assert_error(vl_micro_batch_build(&batch, &config, &preprocess, 1, &samples[2]), VL_INVALID, "audio tower");
    samples[2].rows = patches - 1;
    assert_error(vl_micro_batch_build(&batch, &hearing, &preprocess, 1, &samples[2]), VL_INVALID, "rows");
    vl_batch_free(&batch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expanded_tokens),
        cmocka_unit_test(cut_by_the_budget),
        cmocka_unit_test(builds_batches),
        cmocka_unit_test(modalities_are_mixed),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
