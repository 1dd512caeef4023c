#include "model/params.h"

#include <string.h>

#include "base/memory.h"
#include "base/random.h"

enum {
    ALIGNMENT = 16,   // elements: each trainable row starts at a multiple of it
    CHUNK = 1 << 18,  // elements that pass through a host buffer at a time
    FROZEN = 0,
    TRAINABLE = 1,
    GRADIENT = 2,
    MASTER = 3  // VlParams.memory
};

static const char *const group_names[VL_GROUP_COUNT] = {"vision_tower", "connector", "llm", "audio_tower",
                                                        "audio_projector"};

const char *vl_group_name(VlGroup group) { return group_names[group]; }

static VlStatus parse_group(const char *word, VlGroups *groups) {
    for (int i = 0; i < VL_GROUP_COUNT; i++) {
        if (strcmp(word, group_names[i]) == 0) {
            *groups |= VL_GROUP_BIT(i);
            return VL_OK;
        }
    }
    const char *nearest = vl_nearest_word(word, group_names, VL_GROUP_COUNT);
    return vl_error(VL_INVALID,
                    "trainable: '%s' is unknown; possible are vision_tower, connector, llm, audio_tower and "
                    "audio_projector%s%s",
                    word, nearest ? "; nearest: " : "", nearest ? nearest : "");
}

VlStatus vl_groups_parse(const char *list, VlGroups *groups) {
    VlGroups found = 0;
    const char *at = list;
    for (;;) {
        at += strspn(at, " ");
        size_t length = strcspn(at, ",");
        size_t word_length = length;
        while (word_length > 0 && at[word_length - 1] == ' ') word_length--;
        char word[64];
        if (word_length >= sizeof word) return vl_error(VL_INVALID, "trainable: '%.60s...' is unknown", at);
        memcpy(word, at, word_length);
        word[word_length] = 0;
        bool last = at[length] == 0;
        if (word_length == 0 && last && at == list + strspn(list, " ")) break;  // an empty list
        VL_TRY(parse_group(word, &found));
        if (last) break;
        at += length + 1;
    }
    *groups = found;
    return VL_OK;
}

VlStatus vl_params_add(VlParams *params, VlParam **param, const char *name, VlGroup group, VlInit init, bool decay,
                       int32_t dims, const int64_t *extents) {
    if (vl_params_find(params, name)) return vl_error(VL_INVALID, "parameter %s is registered twice", name);
    int64_t elements = 1, bytes;
    for (int32_t i = 0; i < dims; i++) {
        if (extents[i] < 1 || !vl_multiply(elements, extents[i], &elements)) {
            return vl_error(VL_INVALID, "parameter %s: extent %d is %lld, which cannot be honoured", name, i,
                            (long long)extents[i]);
        }
    }
    if (!vl_multiply(elements, (int64_t)sizeof(double), &bytes)) {
        return vl_error(VL_INVALID, "parameter %s: %lld elements are too many", name, (long long)elements);
    }
    VL_TRY(vl_reserve(&params->rows, &params->capacity, params->count + 1, (int64_t)sizeof *params->rows));
    VlParam *row;
    VL_TRY(VL_NEW(&row, 1));
    VlStatus status = vl_duplicate_string(&row->name, name);
    if (status != VL_OK) {
        vl_free(row);
        return vl_error_frame(status, __func__, __FILE__, __LINE__);
    }
    row->group = group;
    row->init = init;
    row->decay = decay;
    row->index = params->count;
    row->offset = -1;
    row->shape = vl_tensor_make(NULL, VL_F32, dims, extents);
    params->rows[params->count++] = row;
    if (param) *param = row;
    return VL_OK;
}

VlParam *vl_params_find(const VlParams *params, const char *name) {
    for (int64_t i = 0; i < params->count; i++) {
        if (strcmp(params->rows[i]->name, name) == 0) return params->rows[i];
    }
    return NULL;
}

static int64_t aligned(int64_t elements) { return (elements + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

void vl_params_set_trainable(VlParams *params, VlGroups groups) {
    params->trainable_elements = 0;
    for (int64_t i = 0; i < params->count; i++) {
        VlParam *row = params->rows[i];
        row->trainable = (groups & VL_GROUP_BIT(row->group)) && !row->unused;
        row->offset = row->trainable ? params->trainable_elements : -1;
        if (row->trainable) params->trainable_elements += aligned(vl_elements(row->shape));
    }
}

static VlTensor shaped(const VlParam *row, VlDtype dtype, void *base, int64_t offset) {
    VlTensor tensor = row->shape;
    tensor.dtype = dtype;
    tensor.data = base ? (char *)base + offset * vl_dtype_size(dtype) : NULL;
    return tensor;
}

static void count_bytes(VlParams *params) {
    int64_t frozen = 0, size = vl_dtype_size(params->dtype);
    for (int64_t i = 0; i < params->count; i++) {
        if (!params->rows[i]->trainable) frozen += aligned(vl_elements(params->rows[i]->shape));
    }
    params->frozen_bytes = frozen * size;
    params->trainable_bytes = params->trainable_elements * size;
    params->gradient_bytes = params->trainable_elements * vl_dtype_size(VL_F32);
    params->master_bytes = params->dtype == VL_F32 ? 0 : params->gradient_bytes;
}

VlStatus vl_params_bind(VlContext *context, VlParams *params, VlDtype dtype) {
    if (dtype != VL_F32 && dtype != VL_BF16) {
        return vl_error(VL_INVALID, "parameters cannot be stored as %s: give f32 or bf16", vl_dtype_name(dtype));
    }
    VL_ASSERT(!params->memory[FROZEN] && !params->memory[TRAINABLE]);
    params->dtype = dtype;
    count_bytes(params);
    const int64_t bytes[] = {params->frozen_bytes, params->trainable_bytes, params->gradient_bytes,
                             params->master_bytes};
    for (int i = 0; i < 4; i++) {
        if (bytes[i] == 0) continue;
        VL_TRY_CONTEXT(vl_device_allocate(context, bytes[i], &params->memory[i]), "memory of the parameters");
    }
    bool separate = dtype != VL_F32;  // the master is another memory than the value
    void *master = params->memory[separate ? MASTER : TRAINABLE];
    int64_t frozen = 0;
    for (int64_t i = 0; i < params->count; i++) {
        VlParam *row = params->rows[i];
        if (row->trainable) {
            row->value = shaped(row, dtype, params->memory[TRAINABLE], row->offset);
            row->gradient = shaped(row, VL_F32, params->memory[GRADIENT], row->offset);
            row->master = shaped(row, VL_F32, master, row->offset);
        } else {
            row->value = shaped(row, dtype, params->memory[FROZEN], frozen);
            frozen += aligned(vl_elements(row->shape));
        }
    }
    if (params->trainable_elements > 0) {
        params->flat_gradient = vl_tensor(params->memory[GRADIENT], VL_F32, params->trainable_elements);
        params->flat_master = vl_tensor(master, VL_F32, params->trainable_elements);
        if (separate) params->flat_weight = vl_tensor(params->memory[TRAINABLE], dtype, params->trainable_elements);
    }
    return VL_OK;
}

// Elements [begin, begin + count) of a tensor as one row.
static VlTensor part(VlTensor tensor, int64_t begin, int64_t count) {
    return vl_rows(vl_reshape(tensor, vl_elements(tensor)), begin, count);
}

static bool has_own_master(const VlParam *param) {
    return !vl_is_empty(param->master) && param->value.dtype != param->master.dtype;
}

static VlStatus copy_converted(VlContext *context, VlTensor to, const char *host, VlDtype dtype, void *buffer) {
    int64_t count = vl_elements(to);
    if (to.dtype == dtype) {
        VL_TRY(vl_copy_from_host(context, to, host));
        return VL_OK;
    }
    for (int64_t begin = 0; begin < count; begin += CHUNK) {
        int64_t length = count - begin < CHUNK ? count - begin : CHUNK;
        vl_convert(buffer, to.dtype, host + begin * vl_dtype_size(dtype), dtype, length);
        VL_TRY(vl_copy_from_host(context, vl_rows(to, begin, length), buffer));
    }
    return VL_OK;
}

VlStatus vl_params_set_part(VlContext *context, VlParam *param, int64_t begin, int64_t count, const void *host,
                            VlDtype dtype) {
    void *buffer;
    VL_TRY(vl_allocate(&buffer, count < CHUNK ? count : CHUNK, vl_dtype_size(VL_F32)));
    VlStatus status = copy_converted(context, part(param->value, begin, count), host, dtype, buffer);
    if (status == VL_OK && has_own_master(param)) {
        status = copy_converted(context, part(param->master, begin, count), host, dtype, buffer);
    }
    vl_free(buffer);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

VlStatus vl_params_set(VlContext *context, VlParam *param, const void *host, VlDtype dtype) {
    VL_TRY(vl_params_set_part(context, param, 0, vl_elements(param->value), host, dtype));
    return VL_OK;
}

VlStatus vl_params_get_part(VlContext *context, const VlParam *param, int64_t begin, int64_t count, float *host) {
    VlTensor from = part(vl_is_empty(param->master) ? param->value : param->master, begin, count);
    if (from.dtype == VL_F32) {
        VL_TRY(vl_copy_to_host(context, host, from));
        return VL_OK;
    }
    void *buffer;
    VL_TRY(vl_allocate(&buffer, count < CHUNK ? count : CHUNK, vl_dtype_size(from.dtype)));
    VlStatus status = VL_OK;
    for (int64_t done = 0; done < count && status == VL_OK; done += CHUNK) {
        int64_t length = count - done < CHUNK ? count - done : CHUNK;
        status = vl_copy_to_host(context, buffer, vl_rows(from, done, length));
        if (status == VL_OK) vl_convert(host + done, VL_F32, buffer, from.dtype, length);
    }
    vl_free(buffer);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

VlStatus vl_params_get(VlContext *context, const VlParam *param, float *host) {
    VL_TRY(vl_params_get_part(context, param, 0, vl_elements(param->value), host));
    return VL_OK;
}

void vl_init_values(VlInit init, const char *name, uint64_t seed, int64_t begin, int64_t count, float *values) {
    static const uint64_t draws[] = {[VL_INIT_NORMAL] = 2, [VL_INIT_UNIFORM] = 1};  // of the stream, an element
    VlRandom random = vl_random(seed, vl_hash_string(name));
    random.position = (uint64_t)begin * draws[init.kind];
    for (int64_t i = 0; i < count; i++) {
        switch (init.kind) {
        case VL_INIT_ZEROS: values[i] = 0; break;
        case VL_INIT_ONES: values[i] = 1; break;
        case VL_INIT_NORMAL: values[i] = (float)(vl_random_normal(&random) * init.scale); break;
        case VL_INIT_UNIFORM: values[i] = (float)((2 * vl_random_uniform(&random) - 1) * init.scale); break;
        }
    }
}

VlStatus vl_params_initialise(VlContext *context, VlParams *params, VlParam *param, uint64_t seed) {
    (void)params;
    if (context->planning) return VL_OK;
    float *values;
    VL_TRY(VL_NEW(&values, CHUNK));
    int64_t count = vl_elements(param->value);
    VlStatus status = VL_OK;
    for (int64_t begin = 0; begin < count && status == VL_OK; begin += CHUNK) {
        int64_t length = count - begin < CHUNK ? count - begin : CHUNK;
        vl_init_values(param->init, param->name, seed, begin, length, values);
        status = vl_params_set_part(context, param, begin, length, values, VL_F32);
    }
    vl_free(values);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

void vl_params_free(VlContext *context, VlParams *params) {
    for (int i = 0; i < 4; i++) vl_device_free(context, params->memory[i]);
    for (int64_t i = 0; i < params->count; i++) {
        vl_free(params->rows[i]->name);
        vl_free(params->rows[i]);
    }
    vl_free(params->rows);
    *params = (VlParams){0};
}
