#include "cli/generate_request.h"

#include <string.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "cli/model_input.h"

static VlStatus check_keys(const json_t *document, const char *path) {
    static const char *const known[] = {"input_ids", "pixel_values", "fbank", "max_new_tokens"};
    enum { KNOWN = sizeof known / sizeof *known };
    const char *key;
    json_t *value;
    if (!json_is_object(document))
        return vl_error(VL_FORMAT, "%s: a request is an object {\"input_ids\": [..], ..}", path);
    json_object_foreach((json_t *)document, key, value) {
        bool found = false;
        for (int i = 0; i < KNOWN; i++) found = found || strcmp(key, known[i]) == 0;
        if (found) continue;
        const char *nearest = vl_nearest_word(key, known, KNOWN);
        return vl_error(VL_FORMAT, "%s: key '%s' is unknown%s%s", path, key, nearest ? "; nearest: " : "",
                        nearest ? nearest : "");
    }
    json_t *fbank = json_object_get(document, "fbank");
    if (fbank && !json_is_null(fbank)) {
        return vl_error(VL_UNSUPPORTED, "%s: fbank: this build has no audio tower yet", path);
    }
    return VL_OK;
}

static VlStatus read_ids(VlGenerateRequest *request, const json_t *document, const char *path) {
    const json_t *list = json_object_get(document, "input_ids");
    if (!json_is_array(list)) return vl_error(VL_FORMAT, "%s: input_ids must be a list of integers", path);
    int64_t count = (int64_t)json_array_size(list);
    VL_TRY(VL_NEW(&request->ids, count));
    for (int64_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(list, (size_t)i);
        if (!json_is_integer(id)) return vl_error(VL_FORMAT, "%s: input_ids[%lld] is no integer", path, (long long)i);
        request->ids[i] = json_integer_value(id);
    }
    request->prompt.tokens = count;
    request->prompt.ids = request->ids;
    return VL_OK;
}

static VlStatus read_frames(VlGenerateRequest *request, const char *name, const char *path,
                            const VlModelConfig *config) {
    char folder[VL_PATH_MAX], file[VL_PATH_MAX];
    VlSafetensors set;
    VL_TRY(vl_path_folder(folder, path));
    VL_TRY(vl_path_join(file, folder, name));
    VL_TRY(vl_safetensors_open(&set, file));
    VlStatus status = vl_input_read_frames(&set, file, config, &request->frames, &request->prompt.visuals);
    vl_safetensors_close(&set);
    VL_TRY(status);
    if (request->prompt.visuals == 0) return vl_error(VL_FORMAT, "%s has no tensor 'pixel_values'", file);
    return VL_OK;
}

static VlStatus read_request(VlGenerateRequest *request, const json_t *document, const char *path,
                             const VlModelConfig *config) {
    const char *pixels = NULL;
    VL_TRY(check_keys(document, path));
    VL_TRY(read_ids(request, document, path));
    VL_TRY(vl_json_get_int(document, path, "max_new_tokens", false, &request->max_new_tokens));
    VL_TRY(vl_json_get_string(document, path, "pixel_values", false, &pixels));
    request->prompt.visual = &request->frames;
    return pixels ? read_frames(request, pixels, path, config) : VL_OK;
}

VlStatus vl_generate_request_load(VlGenerateRequest *request, const char *path, const VlModelConfig *config) {
    enum { LIMIT = 64 << 20 };
    json_t *document;
    *request = (VlGenerateRequest){.max_new_tokens = VL_NOT_GIVEN};
    VL_TRY(vl_json_load(path, LIMIT, &document));
    VlStatus status = read_request(request, document, path, config);
    json_decref(document);
    if (status == VL_OK) return VL_OK;
    vl_generate_request_free(request);
    return vl_error_frame(status, __func__, __FILE__, __LINE__);
}

void vl_generate_request_free(VlGenerateRequest *request) {
    vl_free((void *)request->frames.pixels);
    vl_free(request->ids);
    *request = (VlGenerateRequest){0};
}
