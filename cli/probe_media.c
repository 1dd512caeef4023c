#include "cli/probe_media.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/safetensors.h"
#include "cli/options.h"
#include "data/clip.h"
#include "data/frames.h"

enum { MAX_CONFIG_BYTES = 16 << 20 };

// A video is opened twice, first for its size: together within the limit for one file.
static const double SECONDS_PER_PASS = 4.5;

static const int64_t FROM_MODEL = INT64_MIN;  // --num-frames was not given

typedef struct MediaCall {
    const char *model, *output, *aspect, *protocol;
    int64_t num_frames;
    double start, end;  // NAN: not given
    int64_t files;
    char **file;  // the files among the arguments
} MediaCall;

static VlStatus parse_call(MediaCall *call, int argc, char **argv, bool video, bool *help) {
    enum { COMMON = 3 };
    const VlOption option[] = {
        {"model", VL_OPTION_STRING, &call->model, "DIR", "model folder: its image preprocessing", true},
        {"output", VL_OPTION_STRING, &call->output, "FILE", "safetensors to write", true},
        {"aspect", VL_OPTION_STRING, &call->aspect, "pad|none", "pad to a square, or crop the centre", !video},
        {"protocol", VL_OPTION_STRING, &call->protocol, "NAME",
         "frame sampling: vl2-main, vl2-av, vl2-2024-06 (vl2-main)", false},
        {"num-frames", VL_OPTION_INT64, &call->num_frames, "N", "frames taken (the model's num_frames)", false},
        {"start", VL_OPTION_DOUBLE, &call->start, "S", "seconds from which frames are taken", false},
        {"end", VL_OPTION_DOUBLE, &call->end, "S", "seconds up to which frames are taken", false}};
    const VlCommand command = {video ? "probe video" : "probe image",
                               video ? "Frames of videos, which and when, and their pixel values."
                                     : "Pixel values of pictures as the vision tower takes them.",
                               "FILE ...",
                               1,
                               INT32_MAX,
                               video ? sizeof option / sizeof *option : COMMON,
                               option};
    *call = (MediaCall){.file = argv, .num_frames = FROM_MODEL, .start = NAN, .end = NAN};
    return vl_options_parse(&command, argc, argv, &call->files, help);
}

// The number of frames: from the command line, else from the model's config.json.
static VlStatus find_num_frames(const MediaCall *call, int64_t *num_frames) {
    *num_frames = call->num_frames;
    if (*num_frames != FROM_MODEL) {
        if (*num_frames >= 1) return VL_OK;
        return vl_error(VL_USAGE, "--num-frames: %lld is no number of frames", (long long)*num_frames);
    }
    char path[VL_PATH_MAX];
    json_t *document = NULL;
    VL_TRY(vl_path_join(path, call->model, "config.json"));
    VL_TRY(vl_json_load(path, MAX_CONFIG_BYTES, &document));
    VlStatus status = vl_json_get_int(document, path, "num_frames", true, num_frames);
    json_decref(document);
    if (status == VL_OK && *num_frames < 1) {
        return vl_error(VL_FORMAT, "%s: num_frames is %lld", path, (long long)*num_frames);
    }
    return status;
}

// ---- frames ----

static VlStatus read_request(const json_t *line, VlFrameRequest *request) {
    const char *name = "a line of standard input", *kind = "uniform";
    if (!json_is_object(line)) return vl_error(VL_USAGE, "%s is no JSON object", name);
    request->start = request->end = NAN;
    VL_TRY(vl_json_get_string(line, name, "kind", false, &kind));
    VL_TRY(vl_frame_kind_parse(&request->kind, kind));
    VL_TRY(vl_json_get_int(line, name, "n", true, &request->count));
    VL_TRY(vl_json_get_double(line, name, "fps", false, &request->fps));
    VL_TRY(vl_json_get_double(line, name, "s", false, &request->start));
    VL_TRY(vl_json_get_double(line, name, "e", false, &request->end));
    VL_TRY(vl_json_get_int(line, name, "num_frames", false, &request->num_frames));
    const json_t *wanted = json_object_get(line, "num_frames");
    if (wanted && !json_is_null(wanted) && request->num_frames == 0) request->num_frames = -1;  // 0 is null's meaning
    return VL_OK;
}

static VlStatus answer(json_t *reply) {
    char *text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;
    json_decref(reply);
    if (!text) return vl_error(VL_OUT_OF_MEMORY, "out of memory while answering");
    bool written = puts(text) >= 0;
    free(text);
    return written ? VL_OK : vl_error(VL_IO, "cannot write to standard output");
}

static VlStatus answer_request(const VlFrameRequest *request, int64_t *failed) {
    int64_t *indices = NULL, count = 0;
    VlStatus status = vl_frames_sample(request, &indices, &count);
    if (status == VL_INVALID) {
        ++*failed;
        return answer(json_pack("{s:s}", "error", vl_error_text()));
    }
    VL_TRY(status);
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++) json_array_append_new(list, json_integer(indices[i]));
    vl_free(indices);
    return answer(json_pack("{s:o}", "indices", list));
}

static VlStatus answer_lines(VlProtocol protocol, char **line, size_t *capacity) {
    int64_t number = 0, failed = 0;
    for (ssize_t length; (length = getline(line, capacity, stdin)) >= 0;) {
        char name[64];
        json_t *document = NULL;
        VlFrameRequest request = {.protocol = protocol};
        snprintf(name, sizeof name, "line %lld of standard input", (long long)++number);
        if (strspn(*line, " \t\r\n") == (size_t)length) continue;
        VlStatus status = vl_json_parse(*line, length, name, &document);
        if (status == VL_OK) status = read_request(document, &request);
        json_decref(document);
        if (status != VL_OK) return vl_error_context(VL_USAGE, "%s", name);
        VL_TRY(answer_request(&request, &failed));
    }
    if (failed > 0)
        return vl_error(VL_INVALID, "%lld of %lld lines could not be done", (long long)failed, (long long)number);
    return VL_OK;
}

VlStatus vl_probe_frames(int argc, char **argv) {
    VlProtocol protocol;
    const char *name = NULL;
    bool help;
    const VlOption option[] = {
        {"protocol", VL_OPTION_STRING, &name, "NAME", "frame sampling: vl2-main, vl2-av, vl2-2024-06", true}};
    const VlCommand command = {"probe frames",
                               "Frame indices: a request as JSON on each line of standard input, an answer on each of "
                               "standard output.",
                               NULL,
                               0,
                               0,
                               1,
                               option};
    VL_TRY(vl_options_parse(&command, argc, argv, NULL, &help));
    if (help) return VL_OK;
    VL_TRY(vl_protocol_parse(&protocol, name));
    char *line = NULL;
    size_t capacity = 0;
    VlStatus status = answer_lines(protocol, &line, &capacity);
    free(line);
    return status;
}

// ---- image ----

static VlStatus declare(VlSafetensorsWriter *writer, const char *name, int64_t number, VlTensor shape) {
    char text[64];
    snprintf(text, sizeof text, "%s.%lld", name, (long long)number);
    return vl_safetensors_declare(writer, text, shape);
}

static VlStatus write_normalized(VlSafetensorsWriter *writer, const VlPreprocessConfig *config, const uint8_t *levels,
                                 int64_t count, float *values) {
    int64_t elements = 3 * config->height * config->width;
    for (int64_t i = 0; i < count; i++) {
        vl_preprocess_normalize(config, levels + i * elements, 1, values);
        VL_TRY(vl_safetensors_write(writer, values, elements * (int64_t)sizeof *values));
    }
    return VL_OK;
}

static VlStatus write_image(VlSafetensorsWriter *writer, const char *path, VlPreprocessor *preprocessor,
                            uint8_t *levels, float *values) {
    VlImage image = {0};
    VlMediaOptions options = vl_media_defaults();
    VL_TRY(vl_image_read(path, &options, &image));
    VlStatus status = vl_preprocess_levels(preprocessor, &image, levels);
    vl_image_free(&image);
    if (status != VL_OK) return vl_error_context(status, "%s", path);
    return write_normalized(writer, vl_preprocessor_config(preprocessor), levels, 1, values);
}

// What `image` and `video` share.
typedef struct Probe {
    MediaCall call;
    VlPreprocessor *preprocessor;
    VlPreprocessConfig config;
    VlSafetensorsWriter writer;
    bool writing;
    uint8_t *levels;  // one picture
    float *values;    // one picture
} Probe;

static VlStatus open_probe(Probe *probe) {
    VlAspect aspect = VL_ASPECT_NONE;
    if (probe->call.aspect) VL_TRY(vl_aspect_parse(&aspect, probe->call.aspect));
    VL_TRY(vl_preprocess_load(&probe->config, probe->call.model));
    VL_TRY(vl_preprocessor_create(&probe->preprocessor, &probe->config, aspect));
    int64_t elements = 3 * probe->config.height * probe->config.width;
    VL_TRY(VL_NEW(&probe->levels, elements));
    VL_TRY(VL_NEW(&probe->values, elements));
    return VL_OK;
}

static VlStatus begin_output(Probe *probe) {
    VL_TRY(vl_safetensors_create(&probe->writer, probe->call.output));
    probe->writing = true;
    return VL_OK;
}

static void close_probe(Probe *probe) {
    if (probe->writing) vl_safetensors_abandon(&probe->writer);
    vl_preprocessor_free(probe->preprocessor);
    vl_free(probe->levels);
    vl_free(probe->values);
}

static VlStatus commit_output(Probe *probe) {
    probe->writing = false;
    return vl_safetensors_commit(&probe->writer);
}

static VlStatus write_images(Probe *probe, int argc, char **argv) {
    bool help;
    VL_TRY(parse_call(&probe->call, argc, argv, false, &help));
    if (help) return VL_OK;
    VL_TRY(open_probe(probe));
    const VlPreprocessConfig *config = &probe->config;
    VL_TRY(begin_output(probe));
    for (int64_t i = 0; i < probe->call.files; i++) {
        VL_TRY(declare(&probe->writer, "pixel_values", i, vl_tensor(NULL, VL_F32, 3, config->height, config->width)));
    }
    VL_TRY(vl_safetensors_begin(&probe->writer));
    for (int64_t i = 0; i < probe->call.files; i++) {
        VL_TRY(write_image(&probe->writer, probe->call.file[i], probe->preprocessor, probe->levels, probe->values));
    }
    return commit_output(probe);
}

VlStatus vl_probe_image(int argc, char **argv) {
    Probe probe = {0};
    VlStatus status = write_images(&probe, argc, argv);
    close_probe(&probe);
    return status;
}

// ---- video ----

// What is known of a file before its frames are read.
typedef struct Plan {
    int64_t frames, height, width;
} Plan;

static VlStatus plan_file(const char *path, const VlClipRequest *request, const VlMediaOptions *options, Plan *plan) {
    VlVideo *video = NULL;
    int64_t *indices = NULL;
    VL_TRY(vl_video_open(&video, path, options));
    const VlVideoInfo *info = vl_video_info(video);
    plan->height = info->height;
    plan->width = info->width;
    VlStatus status = vl_clip_plan(info, request, &indices, &plan->frames);
    vl_free(indices);
    vl_video_close(video);
    return status == VL_OK ? VL_OK : vl_error_context(status, "%s", path);
}

typedef struct FrameWriter {
    VlSafetensorsWriter *writer;
    const char *path;
    const Plan *plan;
} FrameWriter;

static VlStatus write_frame(void *user, int64_t position, double seconds, const VlImage *frame) {
    FrameWriter *frames = user;
    (void)seconds;
    if (frame->height != frames->plan->height || frame->width != frames->plan->width) {
        return vl_error(VL_FORMAT, "%s: frame %lld of those taken has %lld x %lld pixels, the first has %lld x %lld",
                        frames->path, (long long)position, (long long)frame->width, (long long)frame->height,
                        (long long)frames->plan->width, (long long)frames->plan->height);
    }
    return vl_safetensors_write(frames->writer, frame->pixels, frame->height * frame->width * 3);
}

static VlStatus declare_video(VlSafetensorsWriter *writer, int64_t number, const Plan *plan,
                              const VlPreprocessConfig *config) {
    VL_TRY(declare(writer, "frames", number, vl_tensor(NULL, VL_U8, plan->frames, plan->height, plan->width, 3)));
    VL_TRY(declare(writer, "indices", number, vl_tensor(NULL, VL_I64, plan->frames)));
    VL_TRY(declare(writer, "pts", number, vl_tensor(NULL, VL_F64, plan->frames)));
    VL_TRY(declare(writer, "count", number, vl_tensor(NULL, VL_I64, 1)));
    VL_TRY(declare(writer, "fps", number, vl_tensor(NULL, VL_F64, 1)));
    return declare(writer, "pixel_values", number,
                   vl_tensor(NULL, VL_F32, plan->frames, 3, config->height, config->width));
}

static VlStatus write_clip(Probe *probe, const VlClip *clip) {
    VlSafetensorsWriter *writer = &probe->writer;
    VL_TRY(vl_safetensors_write(writer, clip->indices, clip->frames * (int64_t)sizeof *clip->indices));
    VL_TRY(vl_safetensors_write(writer, clip->seconds, clip->frames * (int64_t)sizeof *clip->seconds));
    VL_TRY(vl_safetensors_write(writer, &clip->info.count, sizeof clip->info.count));
    VL_TRY(vl_safetensors_write(writer, &clip->info.fps, sizeof clip->info.fps));
    return write_normalized(writer, &probe->config, clip->levels, clip->frames, probe->values);
}

static VlStatus write_video(Probe *probe, const char *path, const VlClipRequest *request, const VlMediaOptions *options,
                            const Plan *plan) {
    VlClip clip;
    FrameWriter frames = {.writer = &probe->writer, .path = path, .plan = plan};
    VlStatus status = vl_clip_read(&clip, path, request, probe->preprocessor, options, write_frame, &frames);
    if (status == VL_OK && clip.frames != plan->frames) status = vl_error(VL_IO, "%s: changed while it was read", path);
    if (status == VL_OK) status = write_clip(probe, &clip);
    vl_clip_clear(&clip);
    return status;
}

static VlStatus write_videos(Probe *probe, Plan **plans, int argc, char **argv) {
    VlMediaOptions options = vl_media_defaults();
    const MediaCall *call = &probe->call;
    bool help;
    options.max_seconds = SECONDS_PER_PASS;
    VL_TRY(parse_call(&probe->call, argc, argv, true, &help));
    if (help) return VL_OK;
    VL_TRY(open_probe(probe));
    VlClipRequest request = {.protocol = VL_PROTOCOL_MAIN, .start = call->start, .end = call->end};
    if (call->protocol) VL_TRY(vl_protocol_parse(&request.protocol, call->protocol));
    VL_TRY(find_num_frames(call, &request.num_frames));
    VL_TRY(VL_NEW(plans, call->files));
    for (int64_t i = 0; i < call->files; i++) VL_TRY(plan_file(call->file[i], &request, &options, *plans + i));
    VL_TRY(begin_output(probe));
    for (int64_t i = 0; i < call->files; i++) VL_TRY(declare_video(&probe->writer, i, *plans + i, &probe->config));
    VL_TRY(vl_safetensors_begin(&probe->writer));
    for (int64_t i = 0; i < call->files; i++) {
        VL_TRY(write_video(probe, call->file[i], &request, &options, *plans + i));
    }
    return commit_output(probe);
}

VlStatus vl_probe_video(int argc, char **argv) {
    Probe probe = {0};
    Plan *plans = NULL;
    VlStatus status = write_videos(&probe, &plans, argc, argv);
    close_probe(&probe);
    vl_free(plans);
    return status;
}
