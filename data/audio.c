#include "data/audio.h"

#include <math.h>
#include <stddef.h>

#include "base/memory.h"
#include "data/resample.h"

static const double FULL_SCALE = 32768;

// The reference's resampler finds the number of samples in f64 and rounds up: at some unusual rates one more than
// 480,000.
static int64_t resampled_length(int64_t rate) {
    return (int64_t)ceil((double)(VL_AUDIO_SECONDS * rate) * ((double)VL_FBANK_RATE / (double)rate));
}

static VlStatus read_file(const char *path, const VlAudioOptions *options, double **samples) {
    VlSoundWindow window = {.seconds = VL_AUDIO_SECONDS, .start = options->window_start, .draw = options->window_draw};
    double *native = NULL, *resampled = NULL;
    int64_t rate;
    VL_TRY(vl_sound_read_file(path, &options->media, &window, &native, &rate));
    if (rate == VL_FBANK_RATE) {
        *samples = native;
        return VL_OK;
    }
    int64_t length = resampled_length(rate);
    VlStatus status = VL_NEW(&resampled, length < VL_AUDIO_SAMPLES ? VL_AUDIO_SAMPLES : length);
    if (status == VL_OK) status = vl_resample(native, VL_AUDIO_SECONDS * rate, resampled, length);
    vl_free(native);
    if (status != VL_OK) {
        vl_free(resampled);
        return vl_error_context(status, "%s", path);
    }
    *samples = resampled;
    return VL_OK;
}

void vl_audio_clip_starts(int64_t count, bool clips_to_the_end, int64_t starts[VL_AUDIO_CLIPS]) {
    double last = fmax((double)count / VL_FBANK_RATE - 2.0, 0.0);
    int exponent;
    // last = mantissa * 2^exponent exactly; the exponent is negative for all lengths that a track can have.
    int64_t mantissa = (int64_t)ldexp(frexp(last, &exponent), 53);
    exponent -= 53;
    for (int i = 0; i < VL_AUDIO_CLIPS; i++) {
        __int128 product =
            (__int128)mantissa * VL_FBANK_RATE * i / (clips_to_the_end ? VL_AUDIO_CLIPS - 1 : VL_AUDIO_CLIPS);
        starts[i] = exponent > -127 ? (int64_t)(product >> -exponent) : 0;
    }
}

static VlStatus read_video(const char *path, const VlAudioOptions *options, double **samples, bool *silent) {
    int16_t *track;
    int64_t count, starts[VL_AUDIO_CLIPS];
    VL_TRY(vl_sound_read_track(path, &options->media, &track, &count));
    VlStatus status = VL_NEW(samples, VL_AUDIO_SAMPLES);
    if (status == VL_OK) {
        double *out = *samples;
        *silent = track == NULL;
        vl_audio_clip_starts(count, options->clips_to_the_end, starts);
        for (int i = 0; i < VL_AUDIO_CLIPS; i++) {
            int64_t end = starts[i] + VL_AUDIO_CLIP_SAMPLES < count ? starts[i] + VL_AUDIO_CLIP_SAMPLES : count;
            for (int64_t j = starts[i]; j < end; j++) *out++ = track[j] / FULL_SCALE;
        }
    }
    vl_free(track);
    return status;
}

VlStatus vl_audio_read(const char *path, const VlAudioOptions *options, double **samples, bool *silent) {
    *samples = NULL;
    *silent = false;
    if (options->source == VL_AUDIO_VIDEO) return read_video(path, options, samples, silent);
    return read_file(path, options, samples);
}

VlStatus vl_audio_read_fbank(const VlFbank *fbank, const char *path, const VlAudioOptions *options, float *values,
                             bool *silent) {
    double *samples;
    VL_TRY(vl_audio_read(path, options, &samples, silent));
    vl_fbank_run(fbank, samples, VL_AUDIO_SAMPLES, FULL_SCALE, values);
    vl_free(samples);
    return VL_OK;
}
