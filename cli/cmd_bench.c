#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/model_open.h"
#include "ops/profile.h"
#include "train/bench_data.h"
#include "train/bench_machine.h"
#include "train/bench_train.h"

static VlStatus bench_machine(int argc, char **argv) {
    int64_t threads = 0;
    bool json = false, help;
    double f32, bf16, copy, triad;
    const char *word = "cpu";
    VlDevice device;
    VlContext *context;
    VlOption option[] = {
        {"device", VL_OPTION_STRING, &word, "auto|cpu|cuda", "whose limits (cpu)", false},
        {"threads", VL_OPTION_INT64, &threads, "N", "CPU threads (0: as many as the process may use)", false},
        {"json", VL_OPTION_FLAG, &json, NULL, "one object on standard output", false}};
    VlCommand command = {
        "bench machine", "Peak of f32 and bf16 matrix products, and bandwidth of copy and triad.", NULL, 0, 0, 3,
        option};
    VL_TRY(vl_options_parse(&command, argc, argv, NULL, &help));
    if (help) return VL_OK;
    VL_TRY(vl_read_device(word, &device));
    VL_TRY(vl_context_create(&context, device, threads));
    int64_t size = device == VL_DEVICE_CPU ? 4096 : 8192;
    VlStatus status = vl_measure_gemm_peak(context, VL_F32, size, 2.0, &f32);
    if (status == VL_OK) status = vl_measure_gemm_peak(context, VL_BF16, size, 2.0, &bf16);
    if (status == VL_OK) status = vl_measure_bandwidth(context, 2.0, &copy, &triad);
    threads = context->threads;
    vl_context_free(context);
    VL_TRY(status);
    printf(json ? "{\"gemm_f32_gflop_per_s\": %.1f, \"gemm_bf16_gflop_per_s\": %.1f, \"copy_gb_per_s\": %.2f, "
                  "\"triad_gb_per_s\": %.2f, "
                  "\"threads\": %" PRId64 ", \"device\": \"%s\"}\n"
                : "f32 matrix product   %.1f GFLOP/s\nbf16 matrix product  %.1f GFLOP/s\ncopy   %.2f GB/s\ntriad  %.2f "
                  "GB/s\n(%" PRId64 " threads, %s)\n",
           f32 / 1e9, bf16 / 1e9, copy / 1e9, triad / 1e9, threads, vl_device_name(device));
    return VL_OK;
}

// "1024,300,600" as numbers.
static VlStatus parse_list(const char *text, int64_t most, int64_t *numbers, int64_t *count) {
    for (*count = 0;; text++) {
        char *end;
        if (*count == most) return vl_error(VL_USAGE, "--text-tokens names more than %" PRId64 " samples", most);
        numbers[*count] = strtoll(text, &end, 10);
        if (end == text || numbers[*count] < 2 || (*end && *end != ',')) {
            return vl_error(VL_USAGE, "--text-tokens: '%s' is no list of numbers above 1 such as 1024,300", text);
        }
        ++*count;
        if (!*end) return VL_OK;
        text = end;
    }
}

// What a GPU adds: its name, its memory, and the share of its peak.
static void print_gpu(const VlBenchTrainResult *result, bool json) {
    if (!result->gpu[0]) return;
    double mfu = 1e9 * result->model_gflop / result->seconds_min / result->peak_flops;
    printf(json ? ", \"gpu\": \"%s\", \"device_bytes\": %" PRId64 ", \"peak_gflop_per_s\": %.1f, \"mfu\": %.4f"
                : "%s: %" PRId64 " bytes taken, peak %.1f GFLOP/s, MFU %.4f\n",
           result->gpu, result->device_bytes, result->peak_flops / 1e9, mfu);
}

static void print_train(const VlBenchTrainResult *result, const VlBenchTrainOptions *options, bool json) {
    const char *format =
        json ? "{\"tokens\": %" PRId64
               ", \"seconds_min\": %.6f, \"seconds_median\": %.6f, \"tokens_per_s\": %.2f, \"peak_rss_bytes\": %" PRId64
               ", \"planned_bytes\": %" PRId64
               ", \"model_gflop\": %.3f, \"gflop_per_s\": %.2f, \"split\": {\"forward\": %.6f, \"backward\": %.6f, "
               "\"optimizer\": %.6f}, \"dtype\": \"%s\", \"threads\": %" PRId64 ", \"steps\": %" PRId64
               ", \"device\": \"%s\""
             : "tokens %" PRId64 "\nseconds %.4f (least), %.4f (median)\ntokens/s %.1f\npeak memory %" PRId64
               " bytes, planned %" PRId64
               "\nmodel GFLOP %.2f, %.2f GFLOP/s\nforward %.4f s, backward %.4f s, optimizer %.4f s\n%s, %" PRId64
               " threads, %" PRId64 " steps, %s\n";
    printf(format, result->tokens, result->seconds_min, result->seconds_median,
           (double)result->tokens / result->seconds_min, result->peak_rss_bytes, result->planned_bytes,
           result->model_gflop, result->model_gflop / result->seconds_min, result->forward, result->backward,
           result->optimizer, vl_dtype_name(options->dtype), result->threads, options->steps,
           vl_device_name(options->device));
    print_gpu(result, json);
}

// ---- Where a step's time goes

enum { MOST_LINES = VL_PROFILE_PARTS * (VL_CALLS + 1) };
typedef struct Line {
    const char *part, *operation;  // operation NULL: all of the part
    VlProfileRow row;
} Line;

static double lost(const Line *line) { return line->row.seconds - line->row.limit; }

// Sums of parts first, then what loses most against the limits.
static int worst_first(const void *a, const void *b) {
    const Line *x = a, *y = b;
    if (!x->operation != !y->operation) return x->operation ? 1 : -1;
    return (lost(x) < lost(y)) - (lost(x) > lost(y));
}

static int64_t collect_lines(const VlProfile *profile, Line *lines) {
    int64_t count = 0;
    for (int part = 0; part <= VL_BENCH_OPTIMIZER; part++) {
        const char *name = part == VL_BENCH_OPTIMIZER ? "optimizer" : vl_group_name((VlGroup)part);
        Line all = {.part = name};
        for (int call = 0; call < VL_CALLS; call++) {
            VlProfileRow row = profile->of[part][call];
            if (row.calls == 0) continue;
            lines[count++] = (Line){name, vl_call_name((VlCall)call), row};
            all.row.calls += row.calls;
            all.row.seconds += row.seconds;
            all.row.limit += row.limit;
        }
        if (all.row.calls > 0) lines[count++] = all;
    }
    qsort(lines, (size_t)count, sizeof *lines, worst_first);
    return count;
}

static void print_profile(const VlProfile *profile, bool json) {
    Line lines[MOST_LINES];
    int64_t count = collect_lines(profile, lines);
    const char *format = json ? "%s{\"part\": \"%s\", \"operation\": \"%s\", \"calls\": %" PRId64
                                ", \"seconds\": %.6f, \"limit\": %.6f}"
                              : "%s%-16s %-32s %6" PRId64 " %10.6f %10.6f";
    printf(json ? ", \"profile\": [" : "%-16s %-32s %6s %10s %10s %8s\n", "part", "operation", "calls", "seconds",
           "limit", "reached");
    for (int64_t i = 0; i < count; i++) {
        const Line *line = &lines[i];
        printf(format, json && i > 0 ? ", " : "", line->part, line->operation ? line->operation : "all",
               line->row.calls, line->row.seconds, line->row.limit);
        if (!json && line->row.seconds > 0) printf(" %7.1f%%", 100 * line->row.limit / line->row.seconds);
        if (!json) printf("\n");
    }
    if (json) printf("]");
}

static VlStatus bench_train(int argc, char **argv) {
    enum { MOST = 256 };
    int64_t tokens[MOST];
    const char *trainable = "connector,llm", *text_tokens = "1024", *dtype = "f32", *device = "auto";
    VlBenchTrainOptions options = {.frames = -1, .text_tokens = tokens, .steps = 5};
    VlBenchTrainResult result;
    VlProfile profile = {0};
    bool json = false, profiled = false, help;
    VlOption option[] = {
        {"model", VL_OPTION_STRING, &options.model, "DIR", "model folder; config.json is enough", true},
        {"trainable", VL_OPTION_STRING, &trainable, "LIST", "parts that train (connector,llm)", false},
        {"frames", VL_OPTION_INT64, &options.frames, "N",
         "frames of the first sample's video; 0: none (8; with --audio-frames 0)", false},
        {"audio-frames", VL_OPTION_INT64, &options.audio_rows, "N",
         "filter bank rows of its sound, 100 a second; 0: none (0)", false},
        {"text-tokens", VL_OPTION_STRING, &text_tokens, "N,N,...", "text tokens of each sample (1024)", false},
        {"dtype", VL_OPTION_STRING, &dtype, "f32|bf16", "type of weights and activations (f32)", false},
        {"threads", VL_OPTION_INT64, &options.threads, "N", "CPU threads (0: as many as the process may use)", false},
        {"device", VL_OPTION_STRING, &device, "auto|cpu|cuda", "where to compute (auto)", false},
        {"steps", VL_OPTION_INT64, &options.steps, "N", "timed steps (5)", false},
        {"profile", VL_OPTION_FLAG, &profiled, NULL,
         "then one more step in which each operation is waited for and held against the machine's limits", false},
        {"json", VL_OPTION_FLAG, &json, NULL, "one object on standard output", false}};
    VlCommand command = {"bench train",
                         "Training steps on synthetic input: forward, backward, clipping, AdamW.",
                         NULL,
                         0,
                         0,
                         sizeof option / sizeof *option,
                         option};
    VL_TRY(vl_options_parse(&command, argc, argv, NULL, &help));
    if (help) return VL_OK;
    VL_TRY(vl_read_device(device, &options.device));
    VL_TRY(vl_read_dtype(dtype, &options.dtype));
    VL_TRY(vl_groups_parse(trainable, &options.trainable));
    if (options.frames == -1) options.frames = options.audio_rows > 0 ? 0 : 8;
    VL_TRY(parse_list(text_tokens, MOST, tokens, &options.samples));
    if (profiled) options.profile = &profile;
    VL_TRY(vl_bench_train(&options, &result));
    print_train(&result, &options, json);
    if (profiled) print_profile(&profile, json);
    if (json) printf("}\n");
    return VL_OK;
}

static VlStatus bench_data(int argc, char **argv) {
    VlBenchDataOptions options = {.frames = 8, .image_size = 336, .threads = 1, .seconds = 5};
    VlBenchDataResult result;
    const char *aspect = "pad";
    bool json = false, help;
    VlOption option[] = {
        {"video", VL_OPTION_STRING, &options.video, "FILE", "the video that is decoded again and again", false},
        {"audio", VL_OPTION_STRING, &options.audio, "FILE", "in its place: the sound file that is read", false},
        {"frames", VL_OPTION_INT64, &options.frames, "N", "frames sampled from it (8)", false},
        {"image-size", VL_OPTION_INT64, &options.image_size, "N", "side of the preprocessed frames (336)", false},
        {"aspect", VL_OPTION_STRING, &aspect, "pad|none", "pad to a square or crop the centre (pad)", false},
        {"threads", VL_OPTION_INT64, &options.threads, "N", "samples decoded side by side (1)", false},
        {"seconds", VL_OPTION_DOUBLE, &options.seconds, "S", "how long to measure (5)", false},
        {"json", VL_OPTION_FLAG, &json, NULL, "one object on standard output", false}};
    VlCommand command = {
        "bench data", "Samples per second of decoding and preprocessing.", NULL, 0, 0, sizeof option / sizeof *option,
        option};
    VL_TRY(vl_options_parse(&command, argc, argv, NULL, &help));
    if (help) return VL_OK;
    VL_TRY(vl_aspect_parse(&options.aspect, aspect));
    VL_TRY(vl_bench_data(&options, &result));
    printf(json ? "{\"samples_per_s\": %.3f, \"samples\": %" PRId64 ", \"seconds\": %.3f, \"threads\": %" PRId64 "}\n"
                : "%.3f samples/s (%" PRId64 " samples in %.3f s, %" PRId64 " threads)\n",
           (double)result.samples / result.seconds, result.samples, result.seconds, options.threads);
    return VL_OK;
}

VlStatus vl_cmd_bench(int argc, char **argv) {
    static const char *const names[] = {"machine", "train", "data"};
    static VlStatus (*const runs[])(int, char **) = {bench_machine, bench_train, bench_data};
    if (argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
        printf("usage: vl2 bench machine|train|data ...\n\nTimings; vl2 bench WHAT --help tells more.\n");
        return VL_OK;
    }
    for (int i = 0; i < 3 && argc > 0; i++) {
        if (strcmp(argv[0], names[i]) == 0) return runs[i](argc - 1, argv + 1);
    }
    const char *nearest = argc > 0 ? vl_nearest_word(argv[0], names, 3) : NULL;
    return vl_error(VL_USAGE, "vl2 bench: '%s' is none of machine, train, data%s%s", argc > 0 ? argv[0] : "",
                    nearest ? "; nearest: " : "", nearest ? nearest : "");
}
