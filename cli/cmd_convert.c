#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "train/convert.h"
#include "train/signals.h"

typedef struct Words {
    const char *format, *dtype, *shard_size;
    bool hashes;
} Words;

static void print_tensor(void *user, const char *name, VlTensor shape, bool scalar, const char *hash) {
    (void)user;
    printf("%s  %s  %s\n", hash, name, scalar ? vl_dtype_name(shape.dtype) : vl_describe(shape));
}

// "5GB", "500MB", "2GiB", "1000000".
static VlStatus read_size(const char *word, int64_t *bytes) {
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"", 1},      {"B", 1},      {"KB", 1e3},      {"MB", 1e6},        {"GB", 1e9},
                 {"TB", 1e12}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}};
    double number = 0;
    int used = 0;
    if (sscanf(word, "%lf%n", &number, &used) == 1 && number > 0) {
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
            if (strcmp(word + used, units[i].unit) != 0) continue;
            double size = number * units[i].factor;
            if (!(size >= 1 && size < 9e18)) break;
            *bytes = (int64_t)size;
            return VL_OK;
        }
    }
    return vl_error(VL_USAGE, "--shard-size is '%s'; give a size such as 5GB, 500MB or 2GiB", word);
}

static VlStatus read_words(const Words *words, VlConvertOptions *options) {
    static const char *const formats[] = {"hf", "checkpoint"};
    static const char *const dtypes[] = {"keep", "f32", "bf16", "f16"};
    static const VlDtype types[] = {VL_F32, VL_F32, VL_BF16, VL_F16};
    int64_t choice;
    if (words->format) {
        VL_TRY(vl_option_choice("format", words->format, formats, 2, &choice));
        options->format = choice == 0 ? VL_CONVERT_HF : VL_CONVERT_CHECKPOINT;
    }
    VL_TRY(vl_option_choice("dtype", words->dtype, dtypes, 4, &choice));
    options->cast = choice > 0;
    options->dtype = types[choice];
    VL_TRY(read_size(words->shard_size, &options->shard_bytes));
    bool parts = options->llm || options->vision || options->connector || options->connector_type || options->frames;
    if (options->from && parts)
        return vl_error(VL_USAGE,
                        "vl2 convert: --from is a whole model, which takes --audio and --audio-projector; other parts "
                        "are given without it, upon --llm DIR");
    if (!options->from && !options->llm)
        return vl_error(VL_USAGE, "vl2 convert: give --from PATH, or parts, of which --llm DIR is the first");
    return VL_OK;
}

VlStatus vl_cmd_convert(int argc, char **argv) {
    VlConvertOptions options = {0};
    VlConvertReport report;
    Words words = {.dtype = "keep", .shard_size = "5GB"};
    bool help;
    int64_t positional;
    const VlOption option[] = {
        {"from", VL_OPTION_STRING, &options.from, "PATH",
         "a Hugging Face folder, a checkpoint, or a run's output folder", false},
        {"to", VL_OPTION_STRING, &options.to, "DIR", "the folder that is made", true},
        {"format", VL_OPTION_STRING, &words.format, "hf|checkpoint",
         "what is made (the other kin of --from; hf from parts)", false},
        {"dtype", VL_OPTION_STRING, &words.dtype, "keep|f32|bf16|f16",
         "type of floating-point tensors (keep); rounded to the nearest, ties to even; a finite value that the type "
         "cannot hold is an error",
         false},
        {"shard-size", VL_OPTION_STRING, &words.shard_size, "SIZE", "most bytes of tensors in a file (5GB)", false},
        {"verify", VL_OPTION_FLAG, &options.verify, NULL,
         "compare both sides afterwards, tensor by tensor; when DIR exists, do only that", false},
        {"hashes", VL_OPTION_FLAG, &words.hashes, NULL, "print the hash of every tensor", false},
        {"llm", VL_OPTION_STRING, &options.llm, "DIR", "parts instead of --from: a plain Mistral, Mixtral or Qwen2",
         false},
        {"vision", VL_OPTION_STRING, &options.vision, "DIR", "a CLIP or SigLIP", false},
        {"connector", VL_OPTION_STRING, &options.connector, "FILE", "mm_projector.bin or .safetensors", false},
        {"audio", VL_OPTION_STRING, &options.audio, "FILE", "BEATs' .pt, or audio_tower.bin; upon --llm or --from",
         false},
        {"audio-projector", VL_OPTION_STRING, &options.audio_projector, "FILE",
         "mm_projector_a.bin; upon --llm or --from", false},
        {"connector-type", VL_OPTION_STRING, &options.connector_type, "TYPE",
         "mm_projector_type (CLIP: stc_connector, SigLIP: stc_connector_v35)", false},
        {"frames", VL_OPTION_INT64, &options.frames, "N", "num_frames (CLIP: 8, SigLIP: 16)", false}};
    const VlCommand command = {"convert",
                               "Hugging Face layout <-> checkpoint, exactly and in pieces. The new folder is there "
                               "whole or not at all; a folder that exists is not overwritten.",
                               NULL,
                               0,
                               0,
                               sizeof option / sizeof *option,
                               option};
    VL_TRY(vl_options_parse(&command, argc, argv, &positional, &help));
    if (help) return VL_OK;
    VL_TRY(read_words(&words, &options));
    VL_TRY(vl_signals_catch());
    double begin = vl_seconds();
    VL_TRY(vl_convert_model(&options, &report, words.hashes ? print_tensor : NULL, NULL));
    double seconds = vl_seconds() - begin;
    printf("%s%s%s%s: %" PRId64 " tensors, %" PRId64 " bytes, %.1f s\n", report.written ? "written" : "",
           report.written && report.compared ? " and " : "", report.compared ? "compared, equal: " : ": ", options.to,
           report.tensors, report.bytes, seconds);
    printf("XXH3-128 over all tensors: %s\n", report.hash);
    return VL_OK;
}
