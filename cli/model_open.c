#include "cli/model_open.h"

VlStatus vl_read_dtype(const char *word, VlDtype *dtype) {
    static const char *const words[] = {"f32", "bf16"};
    int64_t choice;
    VL_TRY(vl_option_choice("dtype", word, words, 2, &choice));
    *dtype = choice == 0 ? VL_F32 : VL_BF16;
    return VL_OK;
}

VlStatus vl_read_device(const char *word, VlDevice *device) {
    VL_TRY_CONTEXT(vl_device_choose(device, word), "--device");
    return VL_OK;
}

static VlStatus fill(VlOpenModel *open, VlDtype dtype, VlGroups trainable) {
    VlModelConfig config;
    VlComm *comm;
    VL_TRY(vl_model_config_load(&config, open->source.folder));
    if (open->source.frames > 0) config.num_frames = open->source.frames;
    VL_TRY(vl_vlm_create(&open->model, open->context, &config, trainable));
    VL_TRY(vl_params_bind(open->context, vl_vlm_params(open->model), dtype));
    VL_TRY(vl_comm_open(&comm, 0));
    VlStatus status = vl_model_source_load(&open->source, open->context, open->model, comm, true);
    vl_comm_close(comm);
    return status;
}

VlStatus vl_model_open(VlOpenModel *open, const VlModelOptions *options, VlGroups trainable) {
    VlDtype dtype = VL_F32;
    VlDevice device;
    *open = (VlOpenModel){0};
    VL_TRY(vl_read_dtype(options->dtype, &dtype));
    VL_TRY(vl_read_device(options->device, &device));
    VL_TRY(vl_model_source_open(&open->source, options->path, 0));
    VL_TRY(vl_context_create(&open->context, device, options->threads));
    VlStatus status = fill(open, dtype, trainable);
    if (status != VL_OK) vl_model_close(open);
    return status;
}

void vl_model_close(VlOpenModel *open) {
    vl_vlm_free(open->model);
    vl_context_free(open->context);
    *open = (VlOpenModel){0};
}
