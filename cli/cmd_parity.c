#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "cli/commands.h"
#include "cli/model_input.h"
#include "cli/model_open.h"

typedef struct Settings {
    VlModelOptions model;
    const char *input, *output;
    bool gradients, audio_tower;
} Settings;

// One input and what the model made of it.
typedef struct Parity {
    VlOpenModel open;
    int64_t *ids, *labels;
    VlMedium medium;
    VlSequence sequence;
    VlBatch batch;
    VlVlmForward forward;
    bool ran;  // `forward` waits for its release
    float loss;
    bool gradients;
} Parity;

static VlStatus check_names(const VlSafetensors *set, const char *path) {
    static const char *const known[] = {"input_ids", "labels", "pixel_values", "fbank"};
    enum { KNOWN = sizeof known / sizeof *known };
    for (int64_t i = 0; i < set->count; i++) {
        const char *name = set->entries[i].name;
        bool found = false;
        for (int k = 0; k < KNOWN; k++) found = found || strcmp(name, known[k]) == 0;
        if (!found) {
            return vl_error(VL_FORMAT, "%s: tensor '%s' is none of input_ids, labels, pixel_values and fbank", path,
                            name);
        }
    }
    return VL_OK;
}

static VlStatus read_tensors(Parity *parity, const VlSafetensors *set, const char *path) {
    VlSequence *sequence = &parity->sequence;
    int64_t labels;
    VL_TRY(check_names(set, path));
    VL_TRY(vl_input_read_ids(set, path, "input_ids", true, &parity->ids, &sequence->tokens));
    VL_TRY(vl_input_read_ids(set, path, "labels", false, &parity->labels, &labels));
    if (parity->labels && labels != sequence->tokens) {
        return vl_error(VL_FORMAT, "%s: %lld labels for %lld input_ids", path, (long long)labels,
                        (long long)sequence->tokens);
    }
    VL_TRY(vl_input_read_pixels(set, path, vl_vlm_config(parity->open.model), &parity->medium));
    VL_TRY(vl_input_read_fbank(set, path, vl_vlm_config(parity->open.model), &parity->medium));
    sequence->media = parity->medium.frames > 0 || parity->medium.rows > 0;
    sequence->ids = parity->ids;
    sequence->labels = parity->labels;
    sequence->medium = &parity->medium;
    return VL_OK;
}

static VlStatus read_input(Parity *parity, const Settings *settings) {
    VlSafetensors set;
    VL_TRY(vl_safetensors_open(&set, settings->input));
    VlStatus status = read_tensors(parity, &set, settings->input);
    vl_safetensors_close(&set);
    VL_TRY(status);
    VL_TRY_CONTEXT(vl_batch_build(&parity->batch, vl_vlm_config(parity->open.model), 1, &parity->sequence), "%s",
                   settings->input);
    if (parity->batch.tokens == 0) return vl_error(VL_INVALID, "%s: input_ids is empty", settings->input);
    if (parity->labels && parity->batch.labels == 0) {
        return vl_error(VL_INVALID, "%s: no position is labelled, the loss has no value", settings->input);
    }
    if (settings->gradients && !parity->labels) {
        return vl_error(VL_USAGE, "--grads needs labels, and %s has none", settings->input);
    }
    return VL_OK;
}

static VlStatus run(Parity *parity) {
    VlVlm *model = parity->open.model;
    VlBatch *batch = &parity->batch;
    float *losses;
    VL_TRY(vl_vlm_prepare(model, batch, parity->gradients));
    VL_TRY(vl_vlm_forward(model, batch, parity->gradients, &parity->forward));
    parity->ran = true;
    if (!parity->labels) return VL_OK;
    VL_TRY(VL_NEW(&losses, batch->labels));
    VlStatus status =
        vl_vlm_loss(model, batch, &parity->forward, parity->gradients, 1 / (float)batch->labels, NULL, losses);
    double sum = 0;
    for (int64_t i = 0; i < batch->labels; i++) sum += losses[i];
    parity->loss = (float)(sum / (double)batch->labels);
    vl_free(losses);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

// Device tensor -> f32 on the host -> file, `repeat` times.
static VlStatus write_device(VlContext *context, VlSafetensorsWriter *writer, VlTensor tensor, int64_t repeat) {
    VlStatus status;
    int64_t elements = vl_elements(tensor);
    void *stored = NULL;
    float *values = NULL;
    VL_TRY_GOTO(status, vl_allocate(&stored, elements, vl_dtype_size(tensor.dtype)), done);
    VL_TRY_GOTO(status, VL_NEW(&values, elements), done);
    VL_TRY_GOTO(status, vl_copy_to_host(context, stored, tensor), done);
    vl_convert(values, VL_F32, stored, tensor.dtype, elements);
    for (int64_t i = 0; i < repeat; i++) {
        VL_TRY_GOTO(status, vl_safetensors_write(writer, values, elements * (int64_t)sizeof *values), done);
    }
done:
    vl_free(stored);
    vl_free(values);
    return status;
}

static VlStatus write_logits(Parity *parity, VlSafetensorsWriter *writer) {
    enum { ROWS = 64 };
    int64_t vocabulary = vl_vlm_config(parity->open.model)->decoder.vocabulary, tokens = parity->batch.tokens;
    float *block;
    VL_TRY(VL_NEW(&block, ROWS * vocabulary));
    VlStatus status = VL_OK;
    for (int64_t first = 0; first < tokens && status == VL_OK; first += ROWS) {
        int64_t rows = tokens - first < ROWS ? tokens - first : ROWS;
        status = vl_vlm_logits(parity->open.model, &parity->forward, first, rows, block);
        if (status == VL_OK) status = vl_safetensors_write(writer, block, rows * vocabulary * (int64_t)sizeof *block);
    }
    vl_free(block);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

// Frames that each stored frame stands for.
static int64_t repeat_of(const Parity *parity) { return parity->batch.visuals ? parity->batch.visual[0].repeat : 0; }

static VlTensor as_f32(VlTensor tensor) {
    tensor.dtype = VL_F32;
    return tensor;
}

static VlStatus declare(const Parity *parity, VlSafetensorsWriter *writer) {
    int64_t vocabulary = vl_vlm_config(parity->open.model)->decoder.vocabulary;
    const VlParams *params = vl_vlm_params(parity->open.model);
    VL_TRY(vl_safetensors_declare(writer, "logits", vl_tensor(NULL, VL_F32, parity->batch.tokens, vocabulary)));
    if (parity->labels) VL_TRY(vl_safetensors_declare(writer, "loss", vl_tensor(NULL, VL_F32, 1)));
    if (parity->batch.visuals) {
        VlTensor features = as_f32(parity->forward.vision_features);
        features.dim[0] *= repeat_of(parity);
        VL_TRY(vl_safetensors_declare(writer, "vision_features", features));
        VL_TRY(vl_safetensors_declare(writer, "video_tokens", as_f32(parity->forward.visual_tokens)));
    }
    if (parity->batch.sounds) {
        VL_TRY(vl_safetensors_declare(writer, "audio_features", as_f32(parity->forward.audio_features)));
        VL_TRY(vl_safetensors_declare(writer, "audio_tokens", as_f32(parity->forward.audio_tokens)));
    }
    for (int64_t i = 0; i < params->count; i++) {
        char name[512];
        if (!params->rows[i]->trainable) continue;
        snprintf(name, sizeof name, "grad.%s", params->rows[i]->name);
        VL_TRY(vl_safetensors_declare(writer, name, as_f32(params->rows[i]->shape)));
    }
    return VL_OK;
}

static VlStatus write_tensors(Parity *parity, VlSafetensorsWriter *writer) {
    VlContext *context = parity->open.context;
    const VlParams *params = vl_vlm_params(parity->open.model);
    VL_TRY(declare(parity, writer));
    VL_TRY(vl_safetensors_begin(writer));
    VL_TRY(write_logits(parity, writer));
    if (parity->labels) VL_TRY(vl_safetensors_write(writer, &parity->loss, sizeof parity->loss));
    if (parity->batch.visuals) {
        VL_TRY(write_device(context, writer, parity->forward.vision_features, repeat_of(parity)));
        VL_TRY(write_device(context, writer, parity->forward.visual_tokens, 1));
    }
    if (parity->batch.sounds) {
        VL_TRY(write_device(context, writer, parity->forward.audio_features, 1));
        VL_TRY(write_device(context, writer, parity->forward.audio_tokens, 1));
    }
    for (int64_t i = 0; i < params->count; i++) {
        if (params->rows[i]->trainable) VL_TRY(write_device(context, writer, params->rows[i]->gradient, 1));
    }
    return VL_OK;
}

static VlStatus write_output(Parity *parity, const char *path) {
    VlSafetensorsWriter writer;
    VL_TRY(vl_safetensors_create(&writer, path));
    VlStatus status = write_tensors(parity, &writer);
    if (status == VL_OK) return vl_safetensors_commit(&writer);
    vl_safetensors_abandon(&writer);
    return vl_error_frame(status, __func__, __FILE__, __LINE__);
}

static VlStatus compare(const Settings *settings) {
    VlStatus status;
    Parity parity = {.gradients = settings->gradients};
    VlGroups groups = 0;
    if (settings->gradients) {
        groups = VL_GROUP_BIT(VL_GROUP_CONNECTOR) | VL_GROUP_BIT(VL_GROUP_LLM) | VL_GROUP_BIT(VL_GROUP_AUDIO_PROJECTOR);
    }
    if (settings->gradients && settings->audio_tower) groups |= VL_GROUP_BIT(VL_GROUP_AUDIO_TOWER);
    VL_TRY(vl_model_open(&parity.open, &settings->model, groups));
    VL_TRY_GOTO(status, read_input(&parity, settings), done);
    VL_TRY_GOTO(status, run(&parity), done);
    VL_TRY_GOTO(status, write_output(&parity, settings->output), done);
done:
    if (parity.ran) vl_vlm_release(parity.open.model);
    vl_batch_free(&parity.batch);
    vl_input_free_medium(&parity.medium);
    vl_free(parity.labels);
    vl_free(parity.ids);
    vl_model_close(&parity.open);
    return status;
}

VlStatus vl_cmd_parity(int argc, char **argv) {
    Settings settings = {.model = VL_MODEL_OPTIONS_DEFAULT};
    const VlOption options[] = {
        VL_MODEL_OPTION_ROWS(settings.model),
        {"input", VL_OPTION_STRING, &settings.input, "FILE", "safetensors: input_ids, labels, pixel_values, fbank",
         true},
        {"output", VL_OPTION_STRING, &settings.output, "FILE", "safetensors to write", true},
        {"grads", VL_OPTION_FLAG, &settings.gradients, NULL, "gradients of the loss too, as grad.NAME", false},
        {"train-audio-tower", VL_OPTION_FLAG, &settings.audio_tower, NULL, "gradients of the audio tower too", false},
    };
    const VlCommand command = {.name = "parity",
                               .about =
                                   "Writes logits, loss, features and gradients of one input, to hold against a "
                                   "reference.",
                               .options = sizeof options / sizeof *options,
                               .option = options};
    bool help;
    VL_TRY(vl_options_parse(&command, argc, argv, NULL, &help));
    if (help) return VL_OK;
    return compare(&settings);
}
