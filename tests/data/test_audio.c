// Sound in, against the reference's numbers: decoding, windows and clips, resampling, filter banks; and bad files.
#include <math.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/random.h"
#include "data/audio.h"
#include "data/fft.h"
#include "data/resample.h"
#include "media_fixture.h"

enum { EVERY = 37, HEADER = 44 };

static VlFbank *fbank;
static float *values;
static char scratch[64];

// ---- Transforms ------------------------------------------------------------

static double noise(int64_t i) { return (double)((i * 7919 + 104729) % 10007) / 5003.5 - 1; }

static VlComplex direct_bin(const VlComplex *x, int64_t n, int64_t k, double sign) {
    VlComplex sum = {0};
    for (int64_t j = 0; j < n; j++) {
        double angle = sign * 2 * M_PI * (double)(j * k % n) / (double)n;
        sum.re += x[j].re * cos(angle) - x[j].im * sin(angle);
        sum.im += x[j].re * sin(angle) + x[j].im * cos(angle);
    }
    return sum;
}

static void transforms_of_any_length(void **state) {
    (void)state;
    static const int64_t large[] = {1000, 1009, 4096, 7 * 11 * 13 * 17, 2 * 37 * 41, 30000};
    for (int64_t i = 1; i <= 80 + 6; i++) {
        int64_t n = i <= 80 ? i : large[i - 81];
        VlFft *fft;
        VlComplex *x, *y;
        must(vl_fft_create(&fft, n));
        must(VL_NEW(&x, n));
        must(VL_NEW(&y, n));
        for (int64_t j = 0; j < n; j++) x[j] = (VlComplex){noise(2 * j), noise(2 * j + 1)};
        for (int inverse = 0; inverse < 2; inverse++) {
            vl_fft_run(fft, inverse, x, y);
            for (int64_t k = 0; k<n; k += n> 80 ? n / 13 : 1) {
                VlComplex expected = direct_bin(x, n, k, inverse ? 1 : -1);
                double error = fabs(y[k].re - expected.re) + fabs(y[k].im - expected.im);
                if (!(error <= 1e-11 * sqrt((double)n))) fail_msg("n %d, bin %d: %g off", (int)n, (int)k, error);
            }
        }
        vl_free(x);
        vl_free(y);
        vl_fft_free(fft);
    }
    VlFft *none;
    assert_int_equal(vl_fft_create(&none, 0), VL_INVALID);
    assert_int_equal(vl_fft_create(&none, 11999989), VL_INVALID);  // a prime
}

// The definition: bins up to the smaller half, with the rules at the Nyquist frequency.
static double direct_resample(const double *x, int64_t n, int64_t m, int64_t at) {
    int64_t least = n < m ? n : m;
    double sum = 0;
    for (int64_t k = 0; k <= least / 2; k++) {
        double re = 0, im = 0, weight = k == 0 ? 1 : 2;
        for (int64_t j = 0; j < n; j++) {
            re += x[j] * cos(2 * M_PI * (double)(j * k % n) / (double)n);
            im -= x[j] * sin(2 * M_PI * (double)(j * k % n) / (double)n);
        }
        if (2 * k == least) {
            weight = n < m ? 1 : n > m ? 2 : 1;  // up: half of twice; down: both sides, real part
            if (n >= m) im = 0;
        }
        double angle = 2 * M_PI * (double)k * (double)at / (double)m;
        sum += weight * (re * cos(angle) - im * sin(angle));
    }
    return sum / (double)n;
}

static void resampling_by_its_definition(void **state) {
    (void)state;
    static const int64_t lengths[][2] = {{12, 30}, {30, 12}, {44, 16}, {16, 44},
                                         {74, 20}, {20, 33}, {90, 31}, {10, 10}};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        int64_t n = lengths[i][0], m = lengths[i][1];
        double in[100], out[100];
        for (int64_t j = 0; j < n; j++) in[j] = noise(j + 5);
        must(vl_resample(in, n, out, m));
        for (int64_t j = 0; j < m; j++) {
            double error = fabs(out[j] - direct_resample(in, n, m, j));
            if (!(error <= 1e-12)) fail_msg("%d to %d, sample %d: %g off", (int)n, (int)m, (int)j, error);
        }
    }
    double one[2] = {0};
    assert_int_equal(vl_resample(one, 1, one, 1), VL_INVALID);
}

static void clips_start_where_the_sampler_says(void **state) {
    (void)state;
    static const struct {
        int64_t count;
        bool to_the_end;
        int64_t second, fourth, last;
    } cases[] = {{0, false, 0, 0, 0},
                 {31999, false, 0, 0, 0},
                 {32007, false, 0, 2, 6},
                 {96001, false, 8000, 24000, 56000},
                 {96001, true, 9143, 27429, 64001},
                 {294128, false, 32765, 98297, 229361},
                 {294128, true, 37446, 112340, 262127},
                 {57600007, false, 7196000, 21588002, 50372006}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t starts[VL_AUDIO_CLIPS];
        vl_audio_clip_starts(cases[i].count, VL_AUDIO_CLIPS, cases[i].to_the_end, starts);
        assert_int_equal(starts[0], 0);
        assert_int_equal(starts[1], cases[i].second);
        assert_int_equal(starts[3], cases[i].fourth);
        assert_int_equal(starts[7], cases[i].last);
    }
    int64_t starts[VL_AUDIO_CLIPS];
    vl_audio_clip_starts(96000, 2, false, starts);
    assert_int_equal(starts[1], 32000);
    vl_audio_clip_starts(96000, 2, true, starts);
    assert_int_equal(starts[1], 64000);
    vl_audio_clip_starts(96000, 1, true, starts);
    assert_int_equal(starts[0], 0);
}

// ---- Files -----------------------------------------------------------------

static void put_number(uint8_t *at, int64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) at[i] = (uint8_t)(value >> (8 * i));
}

// A WAV file's header; the lengths in it need not be true.
static void put_header(uint8_t *wave, int format, int64_t channels, int64_t rate, int64_t bits, int64_t bytes) {
    memcpy(wave, "RIFF....WAVEfmt ", 16);
    put_number(wave + 4, 36 + bytes, 4);
    put_number(wave + 16, 16, 4);
    put_number(wave + 20, format, 2);
    put_number(wave + 22, channels, 2);
    put_number(wave + 24, rate, 4);
    put_number(wave + 28, rate * channels * bits / 8, 4);
    put_number(wave + 32, channels * bits / 8, 2);
    put_number(wave + 34, bits, 2);
    memcpy(wave + 36, "data", 4);
    put_number(wave + 40, bytes, 4);
}

// Noise over triangles, with pauses; another period for each channel.
static void make_wave(const char *name, int64_t rate, int64_t channels, int64_t count, uint32_t seed, char *path) {
    int64_t bytes = count * channels * 2;
    uint8_t *wave;
    must(vl_allocate(&wave, HEADER + bytes, 1));
    put_header(wave, 1, channels, rate, 16, bytes);
    for (int64_t i = 0; i < count; i++) {
        for (int64_t c = 0; c < channels; c++) {
            seed = (seed * 1103515245u + 12345u) & 0x7fffffff;
            int64_t period = 37 + 11 * c;
            int64_t value = llabs(i % period * 2 - period) * 8000 / period - 4000 + (seed >> 16) % 4001 - 2000;
            if (i / (rate / 2) % 3 == 2) value = 0;
            put_number(wave + HEADER + (i * channels + c) * 2, value, 2);
        }
    }
    put_file(scratch, name, wave, HEADER + bytes, path);
    vl_free(wave);
}

static VlAudioOptions options_of(VlAudioSource source, int64_t window_start) {
    return (VlAudioOptions){.source = source, .window_start = window_start, .media = vl_media_defaults()};
}

static VlStatus read_from(const char *path, VlAudioSource source, int64_t window_start, bool *silent) {
    VlAudioOptions options = options_of(source, window_start);
    return vl_audio_read_fbank(fbank, path, &options, values, silent);
}

static void check_case(const json_t *one, const VlSafetensors *expected) {
    char path[VL_PATH_MAX];
    int64_t number = json_integer_value(json_object_get(one, "i"));
    const char *place = json_string_value(json_object_get(one, "place"));
    bool video = !strcmp(json_string_value(json_object_get(one, "kind")), "video"), silent;
    const char *folder = !strcmp(place, "golden") ? GOLDEN "/audio" : !strcmp(place, "examples") ? MEDIA : scratch;
    must(vl_path_join(path, folder, json_string_value(json_object_get(one, "file"))));
    must(read_from(path, video ? VL_AUDIO_VIDEO : VL_AUDIO_FILE,
                   json_integer_value(json_object_get(one, "window_start")), &silent));
    assert_int_equal(silent, !strcmp(json_string_value(json_object_get(one, "file")), "bikes.mp4"));
    VlTensor shape;
    float *rows = load_tensor(expected, "fbank", number, &shape);
    assert_non_null(rows);
    assert_int_equal(shape.dim[0], (VL_AUDIO_FRAMES + EVERY - 1) / EVERY);
    double most = 0, sum = 0;
    for (int64_t i = 0; i < vl_elements(shape); i++) {
        double error = fabs(rows[i] - values[i / VL_FBANK_BINS * EVERY * VL_FBANK_BINS + i % VL_FBANK_BINS]);
        if (rows[i] > 2 && !(error <= most)) most = error;
        sum += error;
    }
    double average = sum / (double)vl_elements(shape), limit = json_number_value(json_object_get(one, "most"));
    if (!(most <= limit && average <= json_number_value(json_object_get(one, "average")))) {
        fail_msg("%s, case %d: %g off at most, %g on average", path, (int)number, most, average);
    }
    vl_free(rows);
}

static void filter_banks_equal_the_reference(void **state) {
    (void)state;
    char path[VL_PATH_MAX];
    VlSafetensors expected;
    make_wave("m8.wav", 8000, 2, 280000, 1, path);
    make_wave("m16.wav", 16000, 1, 50001, 2, path);
    make_wave("m48.wav", 48000, 1, 1000, 3, path);
    json_t *cases = load_json(GOLDEN "/audio/cases.json");
    must(vl_safetensors_open(&expected, GOLDEN "/audio/expected.safetensors"));
    assert_int_equal(json_array_size(cases), 10);
    for (size_t i = 0; i < json_array_size(cases); i++) check_case(json_array_get(cases, i), &expected);
    vl_safetensors_close(&expected);
    json_decref(cases);
}

static void windows_at_random(void **state) {
    (void)state;
    static const struct {
        double draw;
        int64_t start;
    } draws[] = {{0, 0}, {0.5, 20000}, {0.99999999, 40000}};
    char path[VL_PATH_MAX];
    make_wave("long.wav", 8000, 1, 280000, 7, path);
    for (size_t i = 0; i < 3; i++) {
        VlAudioOptions options = options_of(VL_AUDIO_FILE, VL_SOUND_WINDOW_AT_RANDOM);
        double *drawn, *given;
        bool silent;
        options.window_draw = draws[i].draw;
        must(vl_audio_read(path, &options, &drawn, &silent));
        options.window_start = draws[i].start;
        must(vl_audio_read(path, &options, &given, &silent));
        assert_memory_equal(drawn, given, VL_AUDIO_SAMPLES * sizeof *drawn);
        vl_free(drawn);
        vl_free(given);
    }
}

// ---- Bad files -------------------------------------------------------------

static void expect_refusal(const char *path, VlAudioSource source, const char *what) {
    bool silent;
    VlStatus status = read_from(path, source, 0, &silent);
    if (status == VL_OK) fail_msg("%s: was read", what);
    if (!strstr(vl_error_text(), path)) fail_msg("%s: '%s' does not name the file", what, vl_error_text());
    if (strchr(vl_error_text(), '\n')) fail_msg("%s: '%s' has more than one line", what, vl_error_text());
}

static void headers_that_lie(void **state) {
    (void)state;
    static const struct {
        const char *what;
        int format;
        int64_t channels, rate, bits, bytes;
    } lies[] = {{"no channels", 1, 0, 16000, 16, 2000},
                {"65535 channels", 1, 65535, 16000, 16, 2000},
                {"no rate", 1, 1, 0, 16, 2000},
                {"rate 2^31 - 1", 1, 1, 2147483647, 16, 2000},
                {"rate 2^32 - 1", 1, 1, 4294967295, 16, 2000},
                {"a rate with a large prime", 1, 1, 383969, 16, 2000},
                {"no bits", 1, 1, 16000, 0, 2000},
                {"too many bits", 1, 1, 16000, 24000, 2000},
                {"more bytes than there are", 1, 1, 16000, 16, 2002},
                {"2^31 - 5 bytes", 1, 1, 16000, 16, 2147483643},
                {"an unknown format", 0xffff, 1, 16000, 16, 2000},
                {"no numbers", 3, 1, 44100, 32, 2000}};
    uint8_t wave[HEADER + 2000];
    char path[VL_PATH_MAX];
    memset(wave, 0xff, sizeof wave);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        put_header(wave, lies[i].format, lies[i].channels, lies[i].rate, lies[i].bits, lies[i].bytes);
        put_file(scratch, "lie.wav", wave, sizeof wave, path);
        expect_refusal(path, VL_AUDIO_FILE, lies[i].what);
    }
    put_file(scratch, "text.wav", "hello\n", 6, path);
    expect_refusal(path, VL_AUDIO_FILE, "text");
    put_file(scratch, "list.wav", "#EXTM3U\nfile:/etc/passwd\n", 25, path);
    expect_refusal(path, VL_AUDIO_FILE, "a playlist");
    expect_refusal("/nonexistent.wav", VL_AUDIO_VIDEO, "no file");
    expect_refusal(MEDIA "/mask.png", VL_AUDIO_FILE, "a picture");
    expect_refusal(MEDIA "/bikes.mp4", VL_AUDIO_FILE, "a video without sound as a sound file");
}

static void check_cuts(const char *source, const char *name, VlAudioSource from) {
    char *data, path[VL_PATH_MAX];
    int64_t size, cuts[24] = {1, 4, 12, 30, 44, 60, 100, 500};
    VlRandom random = vl_random(5, 0);
    must(vl_read_file(source, 16 << 20, &data, &size));
    for (int i = 8; i < 22; i++) cuts[i] = 1 + vl_random_below(&random, size - 1);
    cuts[22] = size - 1;
    cuts[23] = size - 30;
    for (int i = 0; i < 24; i++) {
        char what[64];
        snprintf(what, sizeof what, "%s cut to %d bytes", name, (int)cuts[i]);
        put_file(scratch, name, data, cuts[i], path);
        expect_refusal(path, from, what);
    }
    vl_free(data);
}

static void cut_files(void **state) {
    (void)state;
    char path[VL_PATH_MAX];
    make_wave("whole.wav", 16000, 2, 5000, 1, path);
    check_cuts(path, "cut.wav", VL_AUDIO_FILE);
    check_cuts(GOLDEN "/audio/chime_44k1_stereo.flac", "cut.flac", VL_AUDIO_FILE);
    check_cuts(MEDIA "/alarm_48k_stereo.oga", "cut.oga", VL_AUDIO_FILE);
    check_cuts(MEDIA "/bigbuckbunny.mp4", "cut.mp4", VL_AUDIO_VIDEO);
}

static void few_samples_or_none(void **state) {
    (void)state;
    char path[VL_PATH_MAX];
    bool silent;
    const float floor_level = logf(0x1p-23f);
    static const int64_t rates[] = {16000, 44100, 1};
    for (int64_t count = 0; count < 2; count++) {
        for (size_t i = 0; i < 3; i++) {
            uint8_t wave[HEADER + 2];
            put_header(wave, 1, 1, rates[i], 16, count * 2);
            put_number(wave + HEADER, 0x4000, 2);
            put_file(scratch, "few.wav", wave, HEADER + count * 2, path);
            must(read_from(path, VL_AUDIO_FILE, 0, &silent));
            assert_false(silent);
            if (!(fabsf(values[VL_AUDIO_FRAMES / 2 * VL_FBANK_BINS + 9] - floor_level) < 1e-5) && rates[i] == 16000) {
                fail_msg("the middle is not silent");
            }
            if (count == 1 && rates[i] > 1 && !(values[100] > floor_level + 5)) fail_msg("one sample is not heard");
            if (count == 0 && !(fabsf(values[100] - floor_level) < 1e-5)) fail_msg("no sample is heard");
        }
    }
    must(read_from(scratch, VL_AUDIO_VIDEO, 0, &silent));
    assert_true(silent);
    must(read_from(MEDIA "/carphone.gif", VL_AUDIO_VIDEO, 0, &silent));
    assert_true(silent);
}

// Ten hours, of which nothing but the window may be in memory: a file with a hole, and a tone at its end.
static void a_long_file_needs_no_more_memory(void **state) {
    (void)state;
    const int64_t rate = 16000, count = rate * 36000;
    char path[VL_PATH_MAX];
    uint8_t header[HEADER], tail[2000];
    struct rusage before, after;
    bool silent;
    put_header(header, 1, 1, rate, 16, count * 2);
    put_file(scratch, "hours.wav", header, HEADER, path);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++) put_number(tail + 2 * i, i % 20 < 10 ? 8000 : -8000, 2);
    assert_int_equal(fseeko(file, HEADER + count * 2 - (off_t)sizeof tail, SEEK_SET), 0);
    assert_int_equal(fwrite(tail, sizeof tail, 1, file), 1);
    fclose(file);
    getrusage(RUSAGE_SELF, &before);
    must(read_from(path, VL_AUDIO_FILE, INT64_MAX, &silent));
    getrusage(RUSAGE_SELF, &after);
    if (!(values[(VL_AUDIO_FRAMES - 1) * VL_FBANK_BINS + 30] > 2)) fail_msg("the end of the file is not heard");
    if (after.ru_maxrss - before.ru_maxrss > 65536) fail_msg("it took %ld kB", after.ru_maxrss - before.ru_maxrss);
    must(read_from(path, VL_AUDIO_FILE, 0, &silent));
    unlink(path);
}

// Shorter sounds: of a file, the beginning of its window; of a video, as many clips as fit. The reference's 30 s hold
// them both where nothing is cut.
static void sounds_of_other_lengths(void **state) {
    (void)state;
    enum { RATE = VL_FBANK_RATE, TRACK = 11 * RATE };
    char path[VL_PATH_MAX];
    double *whole, *part;
    bool silent;
    make_wave("eleven.wav", RATE, 1, TRACK, 5, path);
    VlAudioOptions options = options_of(VL_AUDIO_FILE, 0);
    assert_int_equal(vl_audio_rows(0), VL_AUDIO_FRAMES);
    assert_int_equal(vl_audio_rows(30), VL_AUDIO_FRAMES);
    assert_int_equal(vl_audio_rows(1), 98);
    must(vl_audio_read(path, &options, &whole, &silent));
    static const double seconds[] = {1, 2.5, 9, 12.25, 29.99};
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
        int64_t wanted = vl_audio_samples(seconds[i]), clips = (int64_t)(seconds[i] / 2);
        options.source = VL_AUDIO_FILE;
        options.seconds = seconds[i];
        must(vl_audio_read(path, &options, &part, &silent));
        assert_memory_equal(part, whole, (size_t)wanted * sizeof *part);
        vl_free(part);
        options.source = VL_AUDIO_VIDEO;
        must(vl_audio_read(path, &options, &part, &silent));
        clips = clips < 1 ? 1 : clips > VL_AUDIO_CLIPS ? VL_AUDIO_CLIPS : clips;
        for (int64_t k = 0; k < wanted; k++) {
            int64_t clip = k / (2 * RATE), at = clip * (TRACK - 2 * RATE) / clips + k % (2 * RATE);
            double value = clip < clips ? whole[at] : 0;  // libswresample leaves 16 kHz mono of 16 bits as it is
            if (part[k] != value) fail_msg("%g s: sample %lld is %g, not %g", seconds[i], (long long)k, part[k], value);
        }
        vl_free(part);
    }
    vl_free(whole);
    options = options_of(VL_AUDIO_FILE, 0);
    options.seconds = 2;
    options.bf16 = true;
    must(vl_audio_read_fbank(fbank, path, &options, values, &silent));
    float *exact;
    must(VL_NEW(&exact, vl_audio_rows(2) * VL_FBANK_BINS));
    options.bf16 = false;
    must(vl_audio_read_fbank(fbank, path, &options, exact, &silent));
    int64_t moved = 0;
    for (int64_t i = 0; i < vl_audio_rows(2) * VL_FBANK_BINS; i++) {
        if (!(fabsf(values[i] - exact[i]) <= fabsf(exact[i]) / 256)) fail_msg("%g became %g", exact[i], values[i]);
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        assert_int_equal(bits & 0xffff, 0);
        moved += values[i] != exact[i];
    }
    assert_true(moved > 1000);
    vl_free(exact);
    static const double impossible[] = {0.5, 30.1, -1, NAN, INFINITY};
    for (int i = 0; i < 5; i++) {
        options.seconds = impossible[i];
        assert_int_equal(vl_audio_read(path, &options, &part, &silent), VL_INVALID);
    }
    unlink(path);
}

static int set_up(void **state) {
    (void)state;
    make_folder(scratch);
    must(vl_fbank_create(&fbank));
    must(VL_NEW(&values, VL_AUDIO_FRAMES * VL_FBANK_BINS));
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    vl_fbank_free(fbank);
    vl_free(values);
    must(vl_remove_tree(scratch));
    return 0;
}

int main(void) {
    const struct CMUnitTest always[] = {cmocka_unit_test(transforms_of_any_length),
                                        cmocka_unit_test(resampling_by_its_definition),
                                        cmocka_unit_test(clips_start_where_the_sampler_says)};
    const struct CMUnitTest with_media[] = {cmocka_unit_test(filter_banks_equal_the_reference),
                                            cmocka_unit_test(windows_at_random),
                                            cmocka_unit_test(headers_that_lie),
                                            cmocka_unit_test(cut_files),
                                            cmocka_unit_test(sounds_of_other_lengths),
                                            cmocka_unit_test(few_samples_or_none),
                                            cmocka_unit_test(a_long_file_needs_no_more_memory)};
    int failed = cmocka_run_group_tests(always, NULL, NULL);
    if (failed) return failed;
    if (media_is_missing()) return 77;
    return cmocka_run_group_tests(with_media, set_up, tear_down);
}
