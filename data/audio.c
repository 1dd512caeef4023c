#include "data/audio.h"

#include <math.h>
#include <stddef.h>

#include "base/dtype.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/resample.h"

static const double FULL_SCALE = 32768;

int64_t vl_audio_samples(double seconds) { return seconds > 0 ? (int64_t)(seconds * VL_FBANK_RATE) : VL_AUDIO_SAMPLES; }

int64_t vl_audio_rows(double seconds) { return vl_fbank_frames(vl_audio_samples(seconds)); }

double vl_audio_draw(const char *name) {
    VlRandom random = vl_random(vl_hash_string("window"), vl_hash_string(name));
    return vl_random_uniform(&random);
}

// The reference's resampler finds the number of samples in f64 and rounds up: at some unusual rates one more than there
// are in the seconds.
static int64_t resampled_length(int64_t seconds, int64_t rate) {
    return (int64_t)ceil((double)(seconds * rate) * ((double)VL_FBANK_RATE / (double)rate));
}

// The window has whole seconds, an even number of them, because the resampler takes even lengths; the caller looks at
// its beginning.
static VlStatus read_file(const char *path, const VlAudioOptions *options, double **samples) {
    int64_t wanted = vl_audio_samples(options->seconds);
    int64_t seconds = (wanted + 2 * VL_FBANK_RATE - 1) / (2 * VL_FBANK_RATE) * 2;
    VlSoundWindow window = {.seconds = seconds, .start = options->window_start, .draw = options->window_draw};
    double *native = NULL, *resampled = NULL;
    int64_t rate;
    VL_TRY(vl_sound_read_file(path, &options->media, &window, &native, &rate));
    if (rate == VL_FBANK_RATE) {
        *samples = native;
        return VL_OK;
    }
    int64_t length = resampled_length(seconds, rate);
    VlStatus status = VL_NEW(&resampled, length < wanted ? wanted : length);
    if (status == VL_OK) status = vl_resample(native, seconds * rate, resampled, length);
    vl_free(native);
    if (status != VL_OK) {
        vl_free(resampled);
        return vl_error_context(status, "%s", path);
    }
    *samples = resampled;
    return VL_OK;
}

void vl_audio_clip_starts(int64_t count, int64_t clips, bool clips_to_the_end, int64_t starts[VL_AUDIO_CLIPS]) {
    double last = fmax((double)count / VL_FBANK_RATE - 2.0, 0.0);
    int64_t parts = clips_to_the_end && clips > 1 ? clips - 1 : clips;
    int exponent;
    // last = mantissa * 2^exponent exactly; the exponent is negative for all lengths that a track can have.
    int64_t mantissa = (int64_t)ldexp(frexp(last, &exponent), 53);
    exponent -= 53;
    for (int64_t i = 0; i < clips; i++) {
        __int128 product = (__int128)mantissa * VL_FBANK_RATE * i / parts;
        starts[i] = exponent > -127 ? (int64_t)(product >> -exponent) : 0;
    }
}

// As many clips as fit into the seconds, at least one and at most the reference's 8.
static VlStatus read_video(const char *path, const VlAudioOptions *options, double **samples, bool *silent) {
    int16_t *track;
    int64_t count, starts[VL_AUDIO_CLIPS], wanted = vl_audio_samples(options->seconds);
    int64_t clips = wanted / VL_AUDIO_CLIP_SAMPLES, length = VL_AUDIO_CLIP_SAMPLES;
    if (clips < 1) clips = 1;
    if (clips > VL_AUDIO_CLIPS) clips = VL_AUDIO_CLIPS;
    if (length > wanted) length = wanted;
    VL_TRY(vl_sound_read_track(path, &options->media, &track, &count));
    VlStatus status = VL_NEW(samples, wanted);
    if (status == VL_OK) {
        double *out = *samples;
        *silent = track == NULL;
        vl_audio_clip_starts(count, clips, options->clips_to_the_end, starts);
        for (int64_t i = 0; i < clips; i++) {
            int64_t end = starts[i] + length < count ? starts[i] + length : count;
            for (int64_t j = starts[i]; j < end; j++) *out++ = track[j] / FULL_SCALE;
        }
    }
    vl_free(track);
    return status;
}

VlStatus vl_audio_read(const char *path, const VlAudioOptions *options, double **samples, bool *silent) {
    *samples = NULL;
    *silent = false;
    if (options->seconds != 0 && !(options->seconds >= 1 && options->seconds <= VL_AUDIO_SECONDS)) {
        return vl_error(VL_INVALID, "%s: %g seconds of a sound; 1 to %d are possible", path, options->seconds,
                        VL_AUDIO_SECONDS);
    }
    if (options->source == VL_AUDIO_VIDEO) return read_video(path, options, samples, silent);
    return read_file(path, options, samples);
}

VlStatus vl_audio_read_fbank(const VlFbank *fbank, const char *path, const VlAudioOptions *options, float *values,
                             bool *silent) {
    double *samples;
    int64_t count = vl_audio_samples(options->seconds);
    VL_TRY(vl_audio_read(path, options, &samples, silent));
    vl_fbank_run(fbank, samples, count, FULL_SCALE, values);
    vl_free(samples);
    for (int64_t i = 0; options->bf16 && i < vl_fbank_frames(count) * VL_FBANK_BINS; i++) {
        values[i] = vl_f32_from_bf16(vl_bf16_from_f32(values[i]));
    }
    return VL_OK;
}
