#include "cli/probe_audio.h"

#include <stdio.h>

#include "base/memory.h"
#include "base/safetensors.h"
#include "cli/options.h"
#include "data/audio.h"

typedef struct AudioCall {
    const char *output;
    VlAudioOptions options;
    int64_t files;
    char **file;  // the files among the arguments
} AudioCall;

static VlStatus parse_call(AudioCall *call, int argc, char **argv, bool *help) {
    static const char *const sources[] = {[VL_AUDIO_FILE] = "file", [VL_AUDIO_VIDEO] = "video"};
    const char *from = "file";
    int64_t source;
    *call = (AudioCall){.file = argv, .options.media = vl_media_defaults()};
    const VlOption option[] = {
        {"output", VL_OPTION_STRING, &call->output, "FILE", "safetensors to write", true},
        {"from", VL_OPTION_STRING, &from, "file|video", "a sound file, or the sound of a video (file)", false},
        {"window-start", VL_OPTION_INT64, &call->options.window_start, "K",
         "of a sound file longer than 30 s: the window's first sample, at the file's own rate (0)", false}};
    const VlCommand command = {"probe audio",
                               "Log mel filter banks of sounds, or of the sound of videos, as the audio tower takes "
                               "them before rounding and normalisation.",
                               "FILE ...",
                               1,
                               INT32_MAX,
                               sizeof option / sizeof *option,
                               option};
    VL_TRY(vl_options_parse(&command, argc, argv, &call->files, help));
    if (*help) return VL_OK;
    VL_TRY(vl_option_choice("from", from, sources, 2, &source));
    call->options.source = (VlAudioSource)source;
    if (call->options.window_start < 0) {
        return vl_error(VL_USAGE, "--window-start: %lld is no number of a sample",
                        (long long)call->options.window_start);
    }
    return VL_OK;
}

static VlStatus write_files(const AudioCall *call, const VlFbank *fbank, float *values, VlSafetensorsWriter *writer) {
    char name[64];
    bool silent;
    for (int64_t i = 0; i < call->files; i++) {
        snprintf(name, sizeof name, "fbank.%lld", (long long)i);
        VL_TRY(vl_safetensors_declare(writer, name, vl_tensor(NULL, VL_F32, VL_AUDIO_FRAMES, VL_FBANK_BINS)));
    }
    VL_TRY(vl_safetensors_begin(writer));
    for (int64_t i = 0; i < call->files; i++) {
        VL_TRY(vl_audio_read_fbank(fbank, call->file[i], &call->options, values, &silent));
        VL_TRY(vl_safetensors_write(writer, values, VL_AUDIO_FRAMES * VL_FBANK_BINS * (int64_t)sizeof *values));
    }
    return vl_safetensors_commit(writer);
}

VlStatus vl_probe_audio(int argc, char **argv) {
    AudioCall call;
    VlFbank *fbank = NULL;
    float *values = NULL;
    VlSafetensorsWriter writer;
    bool help;
    VL_TRY(parse_call(&call, argc, argv, &help));
    if (help) return VL_OK;
    VlStatus status;
    VL_TRY_GOTO(status, vl_fbank_create(&fbank), done);
    VL_TRY_GOTO(status, VL_NEW(&values, VL_AUDIO_FRAMES * VL_FBANK_BINS), done);
    VL_TRY_GOTO(status, vl_safetensors_create(&writer, call.output), done);
    status = write_files(&call, fbank, values, &writer);
    if (status != VL_OK) vl_safetensors_abandon(&writer);
done:
    vl_free(values);
    vl_fbank_free(fbank);
    return status;
}
