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

// The tensor `key` of the file that the request names under it, if it does.
static VlStatus read_medium(VlGenerateRequest *request, const json_t *document, const char *key, const char *path,
                            const VlModelConfig *config) {
    char folder[VL_PATH_MAX], file[VL_PATH_MAX];
    const char *name = NULL;
    bool sound = strcmp(key, "fbank") == 0;
    VlMedium *medium = &request->medium;
    VlSafetensors set;
    VL_TRY(vl_json_get_string(document, path, key, false, &name));
    if (!name) return VL_OK;
    VL_TRY(vl_path_folder(folder, path));
    VL_TRY(vl_path_join(file, folder, name));
    VL_TRY(vl_safetensors_open(&set, file));
    VlStatus status =
        sound ? vl_input_read_fbank(&set, file, config, medium) : vl_input_read_pixels(&set, file, config, medium);
    vl_safetensors_close(&set);
    VL_TRY(status);
    if (sound ? medium->rows == 0 : medium->frames == 0) return vl_error(VL_FORMAT, "%s has no tensor '%s'", file, key);
    request->prompt.media = 1;
    return VL_OK;
}

static VlStatus read_request(VlGenerateRequest *request, const json_t *document, const char *path,
                             const VlModelConfig *config) {
    VL_TRY(check_keys(document, path));
    VL_TRY(read_ids(request, document, path));
    VL_TRY(vl_json_get_int(document, path, "max_new_tokens", false, &request->max_new_tokens));
    request->prompt.medium = &request->medium;
    VL_TRY(read_medium(request, document, "pixel_values", path, config));
    return read_medium(request, document, "fbank", path, config);
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
    vl_input_free_medium(&request->medium);
    vl_free(request->ids);
    *request = (VlGenerateRequest){0};
}
