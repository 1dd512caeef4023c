// From sequences to a packed batch: every array of one example, and what is refused.
#include "model/beats.h"
#include "tests/model/tiny_model.h"

static void test_arrays(void **state) {
    (void)state;
    static Tiny tiny;
    TinySequences sequences;
    VlBatch batch;
    VlModelConfig config = tiny_config(TINY_PLAIN);
    for (size_t i = 0; i < sizeof tiny.pixels / sizeof *tiny.pixels; i++) tiny.pixels[i] = (float)i;
    tiny_sequences(&tiny, &sequences);
    CHECK(vl_batch_build(&batch, &config, 3, sequences.all));
    int64_t video = vl_model_visual_tokens(&config, TINY_FRAMES),
            image = vl_model_visual_tokens(&config, config.num_frames);
    assert_int_equal(batch.sequences, 3);
    assert_int_equal(batch.tokens, 8 + 6 + video + 4 + image);
    assert_int_equal(batch.text_tokens, 8 + 6 + 4);
    assert_int_equal(batch.cu_seqlens[0], 0);
    assert_int_equal(batch.cu_seqlens[1], 8);
    assert_int_equal(batch.cu_seqlens[2], 8 + 6 + video);
    assert_int_equal(batch.cu_seqlens[3], batch.tokens);
    for (int64_t s = 0; s < 3; s++) {
        for (int64_t t = batch.cu_seqlens[s]; t < batch.cu_seqlens[s + 1]; t++) {
            assert_int_equal(batch.positions[t], t - batch.cu_seqlens[s]);
        }
    }
    // Text: the target is the next label. The first label that counts is at position 3.
    for (int64_t t = 0; t < 7; t++) assert_int_equal(batch.targets[t], t < 2 ? VL_IGNORE : tiny_text_labels[t + 1]);
    assert_int_equal(batch.targets[7], VL_IGNORE);
    // Video: 1, 7, [video], 12, 30, 44, 2. The last inserted token predicts 12.
    int64_t at = 8;
    assert_int_equal(batch.source[at + 1], 9);
    for (int64_t t = 0; t < video; t++) {
        assert_int_equal(batch.source[at + 2 + t], -1 - t);
        assert_int_equal(batch.targets[at + 2 + t], t == video - 1 ? 12 : VL_IGNORE);
    }
    assert_int_equal(batch.targets[at + 1], VL_IGNORE);
    assert_int_equal(batch.source[at + 2 + video], 10);
    assert_int_equal(batch.targets[at + 2 + video], VL_IGNORE);
    assert_int_equal(batch.targets[at + 3 + video], 44);
    assert_int_equal(batch.targets[at + 4 + video], 2);
    assert_int_equal(batch.targets[at + 5 + video], VL_IGNORE);
    // Image: first in its sequence; its tokens follow the video's.
    at = batch.cu_seqlens[2];
    for (int64_t t = 0; t < image; t++) assert_int_equal(batch.source[at + t], -1 - video - t);
    assert_int_equal(batch.text_ids[batch.source[at + image]], 3);
    assert_int_equal(batch.targets[at + image - 1], VL_IGNORE);
    assert_int_equal(batch.targets[at + image], 17);
    assert_int_equal(batch.labels, 5 + 3 + 3);
    assert_int_equal(batch.visuals, 2);
    assert_int_equal(batch.frames, TINY_FRAMES + 1);
    assert_int_equal(batch.visual[0].first_frame, 0);
    assert_int_equal(batch.visual[0].frames, TINY_FRAMES);
    assert_int_equal(batch.visual[0].repeat, 1);
    assert_int_equal(batch.visual[1].first_frame, TINY_FRAMES);
    assert_int_equal(batch.visual[1].frames, 1);
    assert_int_equal(batch.visual[1].repeat, config.num_frames);
    int64_t frame = 3 * TINY_SIDE * TINY_SIDE;
    for (int64_t i = 0; i < TINY_FRAMES * frame; i++) assert_true(batch.pixels[i] == tiny.pixels[i]);
    for (int64_t i = 0; i < frame; i++) assert_true(batch.pixels[TINY_FRAMES * frame + i] == tiny.pixels[frame + i]);
    vl_batch_free(&batch);
}

// The label of the first token of a sequence has nobody to predict it; that at a modality id goes with it.
static void test_lost_labels(void **state) {
    (void)state;
    static Tiny tiny;
    TinySequences sequences;
    VlBatch batch;
    VlModelConfig config = tiny_config(TINY_PLAIN);
    tiny_sequences(&tiny, &sequences);
    int64_t labels[] = {1, VL_IGNORE, 40, VL_IGNORE, VL_IGNORE, VL_IGNORE, VL_IGNORE};
    sequences.all[1].labels = labels;
    CHECK(vl_batch_build(&batch, &config, 1, &sequences.all[1]));
    assert_int_equal(batch.labels, 0);
    for (int64_t t = 0; t < batch.tokens; t++) assert_int_equal(batch.targets[t], VL_IGNORE);
    vl_batch_free(&batch);
}

static void expect_refused(const VlModelConfig *config, const VlSequence *sequence, VlStatus status, const char *text) {
    VlBatch batch;
    assert_int_equal(vl_batch_build(&batch, config, 1, sequence), status);
    if (!strstr(vl_error_text(), text)) fail_msg("'%s' does not say '%s'", vl_error_text(), text);
    assert_null(batch.pixels);
}

// A sound, a video with its sound, and another sound: tokens of the video before those of its sound, rows of all
// visuals before those of all sounds.
static void test_sounds(void **state) {
    (void)state;
    enum { ROWS = 36 };
    static Tiny tiny;
    static float fbank[ROWS * VL_FBANK_BINS];
    TinySequences sequences;
    VlModelConfig config = tiny_config(TINY_PLAIN);
    tiny_sequences(&tiny, &sequences);
    config.has_audio = true;
    config.audio.patch_size = 16;
    for (int i = 0; i < ROWS * VL_FBANK_BINS; i++) fbank[i] = (float)(i % 97);
    int64_t visual = vl_model_visual_tokens(&config, TINY_FRAMES), position = 1;
    int64_t first[] = {5, VL_AUDIO_ID}, second[] = {6, VL_VIDEO_ID, 7, VL_AUDIO_ID}, labels[] = {6, 9, 7, 9};
    VlMedium one = {.rows = ROWS, .fbank = fbank},
             two[] = {{.frames = TINY_FRAMES, .pixels = tiny.pixels, .rows = 20, .fbank = fbank},
                      {.rows = 17, .fbank = fbank + VL_FBANK_BINS}};
    const VlSequence both[] = {{2, first, NULL, 1, &one}, {4, second, labels, 2, two}};
    VlBatch batch;
    CHECK(vl_batch_build(&batch, &config, 2, both));
    assert_int_equal(batch.visuals, 1);
    assert_int_equal(batch.sounds, 3);
    assert_int_equal(batch.visual_tokens, visual);
    assert_int_equal(batch.sound_tokens, 16 + 8 + 8);
    assert_int_equal(batch.fbank_rows, ROWS + 20 + 17);
    assert_int_equal(batch.sound_rows[1], 20);
    assert_int_equal(batch.tokens, 3 + visual + 32);
    for (int64_t i = 0; i < 16; i++) assert_int_equal(batch.source[position++], -1 - visual - i);
    position++;
    for (int64_t i = 0; i < visual; i++) assert_int_equal(batch.source[position++], -1 - i);
    for (int64_t i = 16; i < 24; i++) assert_int_equal(batch.source[position++], -1 - visual - i);
    position++;
    for (int64_t i = 24; i < 32; i++) assert_int_equal(batch.source[position++], -1 - visual - i);
    assert_int_equal(position, batch.tokens);
    assert_int_equal(batch.labels, 1);  // that of 7; 6 stands first, 9 at modality ids
    for (int i = 0; i < 17 * VL_FBANK_BINS; i++) {
        double want = ((double)fbank[VL_FBANK_BINS + i] - 15.41663) / (2 * 6.55582);
        if (!(fabs(batch.fbank[(ROWS + 20) * VL_FBANK_BINS + i] - want) <= 1e-6)) fail_msg("row element %d", i);
    }
    vl_batch_free(&batch);
}

static void test_refused(void **state) {
    (void)state;
    static Tiny tiny;
    TinySequences sequences;
    VlModelConfig config = tiny_config(TINY_PLAIN);
    tiny_sequences(&tiny, &sequences);
    VlMedium two = {.frames = 2, .pixels = tiny.pixels}, none = {.frames = 0, .pixels = tiny.pixels};
    int64_t ids[] = {1, 2, 3}, labels[] = {1, 2, 3};
    VlSequence sequence = {3, ids, labels, 0, NULL};
    ids[1] = TINY_VOCABULARY;
    expect_refused(&config, &sequence, VL_INVALID, "position 1 holds id 50");
    ids[1] = -1;
    expect_refused(&config, &sequence, VL_INVALID, "position 1 holds id -1");
    ids[1] = VL_VIDEO_ID;
    expect_refused(&config, &sequence, VL_INVALID, "frames or sounds are given for 0 only");
    sequence.media = 1;
    VlMedium sound = {.rows = 40}, both = {.frames = 1, .rows = 40, .pixels = tiny.pixels};
    sequence.medium = &sound;
    ids[1] = VL_AUDIO_ID;
    expect_refused(&config, &sequence, VL_INVALID, "no audio tower");
    config.has_audio = true;
    config.audio.patch_size = 16;
    sound.rows = 15;
    expect_refused(&config, &sequence, VL_INVALID, "a sound of 15 rows");
    sequence.medium = &both;
    expect_refused(&config, &sequence, VL_INVALID, "1 frames and 40 rows; it has rows only");
    ids[1] = VL_IMAGE_ID;
    expect_refused(&config, &sequence, VL_INVALID, "an image has none");
    ids[1] = VL_VIDEO_ID;
    sequence.medium = &none;
    expect_refused(&config, &sequence, VL_INVALID, "0 frames");
    sequence.medium = &two;
    ids[1] = VL_IMAGE_ID;
    expect_refused(&config, &sequence, VL_INVALID, "2 frames");
    ids[1] = 2;
    expect_refused(&config, &sequence, VL_INVALID, "the ids name 0");
    sequence.media = 0;
    labels[2] = TINY_VOCABULARY;
    expect_refused(&config, &sequence, VL_INVALID, "position 2 has label 50");
    labels[2] = -200;
    expect_refused(&config, &sequence, VL_INVALID, "position 2 has label -200");
    labels[2] = 3;
    ids[1] = VL_VIDEO_ID;
    sequence.media = 1;
    config.has_vision = false;
    expect_refused(&config, &sequence, VL_INVALID, "no vision tower");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_lost_labels),
        cmocka_unit_test(test_sounds),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
