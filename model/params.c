#include "model/params.h"

#include <string.h>

#include "base/memory.h"
#include "base/pool.h"
#include "base/random.h"

enum {
    ALIGNMENT = 16,   // elements: each row that is not joined starts at a multiple of it
    CHUNK = 1 << 18,  // elements that pass through a host buffer at a time
    FROZEN = 0,
    TRAINABLE = 1,
    GRADIENT = 2,
    REMAINDER = 3  // VlParams.memory
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

// Where a row begins, the elements before it being `used`; it is added to them.
static int64_t place(const VlParam *row, int64_t *used) {
    int64_t begin = row->joined ? *used : aligned(*used);
    *used = begin + vl_elements(row->shape);
    return begin;
}

void vl_params_set_trainable(VlParams *params, VlGroups groups) {
    int64_t used = 0;
    for (int64_t i = 0; i < params->count; i++) {
        VlParam *row = params->rows[i];
        row->trainable = (groups & VL_GROUP_BIT(row->group)) && !row->unused;
        row->offset = row->trainable ? place(row, &used) : -1;
    }
    params->trainable_elements = aligned(used);
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
        if (!params->rows[i]->trainable) place(params->rows[i], &frozen);
    }
    params->frozen_bytes = aligned(frozen) * size;
    params->trainable_bytes = params->trainable_elements * size;
    params->gradient_bytes = params->trainable_elements * vl_dtype_size(VL_F32);
    params->remainder_bytes = params->dtype == VL_F32 ? 0 : params->trainable_elements * vl_dtype_size(VL_I16);
}

VlStatus vl_params_bind(VlContext *context, VlParams *params, VlDtype dtype) {
    if (dtype != VL_F32 && dtype != VL_BF16) {
        return vl_error(VL_INVALID, "parameters cannot be stored as %s: give f32 or bf16", vl_dtype_name(dtype));
    }
    VL_ASSERT(!params->memory[FROZEN] && !params->memory[TRAINABLE]);
    params->dtype = dtype;
    count_bytes(params);
    const int64_t bytes[] = {params->frozen_bytes, params->trainable_bytes, params->gradient_bytes,
                             params->remainder_bytes};
    for (int i = 0; i < 4; i++) {
        if (bytes[i] == 0) continue;
        VL_TRY_CONTEXT(vl_device_allocate(context, bytes[i], &params->memory[i]), "memory of the parameters");
    }
    bool halved = dtype == VL_BF16;
    int64_t frozen = 0;
    for (int64_t i = 0; i < params->count; i++) {
        VlParam *row = params->rows[i];
        if (row->trainable) {
            row->value = shaped(row, dtype, params->memory[TRAINABLE], row->offset);
            row->gradient = shaped(row, VL_F32, params->memory[GRADIENT], row->offset);
            if (halved) row->remainder = shaped(row, VL_I16, params->memory[REMAINDER], row->offset);
        } else {
            row->value = shaped(row, dtype, params->memory[FROZEN], place(row, &frozen));
        }
    }
    if (params->trainable_elements > 0) {
        params->flat_value = vl_tensor(params->memory[TRAINABLE], dtype, params->trainable_elements);
        params->flat_gradient = vl_tensor(params->memory[GRADIENT], VL_F32, params->trainable_elements);
        if (halved) params->flat_remainder = vl_tensor(params->memory[REMAINDER], VL_I16, params->trainable_elements);
    }
    return VL_OK;
}

// Elements [begin, begin + count) of a tensor as one row.
static VlTensor part(VlTensor tensor, int64_t begin, int64_t count) {
    return vl_rows(vl_reshape(tensor, vl_elements(tensor)), begin, count);
}

// Where a piece of a parameter passes through the host: as f32, and as the parameter stores it.
typedef struct Piece {
    float values[CHUNK];
    int16_t remainders[CHUNK];
    char stored[CHUNK * sizeof(float)];
} Piece;

static void split(Piece *piece, int64_t count) {
    VlBf16 *upper = (VlBf16 *)piece->stored;
    for (int64_t i = 0; i < count; i++) {
        VlHalves halves = vl_halves_from_f32(piece->values[i]);
        upper[i] = halves.upper;
        piece->remainders[i] = halves.remainder;
    }
}

static void join(float *values, const Piece *piece, int64_t count) {
    const VlBf16 *upper = (const VlBf16 *)piece->stored;
    for (int64_t i = 0; i < count; i++) values[i] = vl_f32_from_halves(upper[i], piece->remainders[i]);
}

// At most CHUNK elements.
static VlStatus set_piece(VlContext *context, VlParam *param, int64_t begin, int64_t count, const void *host,
                          VlDtype dtype, Piece *piece) {
    if (vl_is_empty(param->remainder)) {
        vl_convert(piece->stored, param->value.dtype, host, dtype, count);
    } else {
        vl_convert(piece->values, VL_F32, host, dtype, count);
        split(piece, count);
        VL_TRY(vl_copy_from_host(context, part(param->remainder, begin, count), piece->remainders));
    }
    return vl_copy_from_host(context, part(param->value, begin, count), piece->stored);
}

VlStatus vl_params_set_part(VlContext *context, VlParam *param, int64_t begin, int64_t count, const void *host,
                            VlDtype dtype) {
    if (dtype == param->value.dtype && vl_is_empty(param->remainder)) {
        VL_TRY(vl_copy_from_host(context, part(param->value, begin, count), host));
        return VL_OK;
    }
    Piece *piece;
    VL_TRY(VL_NEW(&piece, 1));
    VlStatus status = VL_OK;
    for (int64_t done = 0; done < count && status == VL_OK; done += CHUNK) {
        int64_t length = count - done < CHUNK ? count - done : CHUNK;
        const char *from = (const char *)host + done * vl_dtype_size(dtype);
        status = set_piece(context, param, begin + done, length, from, dtype, piece);
    }
    vl_free(piece);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

VlStatus vl_params_set(VlContext *context, VlParam *param, const void *host, VlDtype dtype) {
    VL_TRY(vl_params_set_part(context, param, 0, vl_elements(param->value), host, dtype));
    return VL_OK;
}

// At most CHUNK elements.
static VlStatus get_piece(VlContext *context, const VlParam *param, int64_t begin, int64_t count, float *host,
                          Piece *piece) {
    VL_TRY(vl_copy_to_host(context, piece->stored, part(param->value, begin, count)));
    if (vl_is_empty(param->remainder)) {
        vl_convert(host, VL_F32, piece->stored, param->value.dtype, count);
        return VL_OK;
    }
    VL_TRY(vl_copy_to_host(context, piece->remainders, part(param->remainder, begin, count)));
    join(host, piece, count);
    return VL_OK;
}

VlStatus vl_params_get_part(VlContext *context, const VlParam *param, int64_t begin, int64_t count, float *host) {
    if (param->value.dtype == VL_F32) {
        VL_TRY(vl_copy_to_host(context, host, part(param->value, begin, count)));
        return VL_OK;
    }
    Piece *piece;
    VL_TRY(VL_NEW(&piece, 1));
    VlStatus status = VL_OK;
    for (int64_t done = 0; done < count && status == VL_OK; done += CHUNK) {
        int64_t length = count - done < CHUNK ? count - done : CHUNK;
        status = get_piece(context, param, begin + done, length, host + done, piece);
    }
    vl_free(piece);
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

// Elements [begin, begin + count) of a parameter's initial values, made by one of the threads.
typedef struct Draw {
    VlTask task;
    const VlParam *param;
    uint64_t seed;
    int64_t begin, count;
    float *values;
} Draw;

static VlStatus draw(void *argument) {
    const Draw *range = argument;
    vl_init_values(range->param->init, range->param->name, range->seed, range->begin, range->count, range->values);
    return VL_OK;
}

// Elements [begin, begin + count) by all threads of the pool.
static VlStatus draw_together(VlPool *pool, Draw *draws, const VlParam *param, uint64_t seed, int64_t begin,
                              int64_t count, float *values) {
    int64_t threads = vl_pool_threads(pool), share = (count + threads - 1) / threads;
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < threads; i++) {
        int64_t from = i * share < count ? i * share : count, to = from + share < count ? from + share : count;
        draws[i] = (Draw){.task = {.run = draw, .argument = &draws[i]},
                          .param = param,
                          .seed = seed,
                          .begin = begin + from,
                          .count = to - from,
                          .values = values + from};
        vl_pool_submit(pool, &draws[i].task, false);
    }
    for (int64_t i = 0; i < threads; i++) {
        VlStatus waited = vl_pool_wait(pool, &draws[i].task);
        if (status == VL_OK) status = waited;
    }
    return status;
}

VlStatus vl_params_initialise(VlContext *context, VlParams *params, VlParam *param, uint64_t seed) {
    (void)params;
    if (context->planning) return VL_OK;
    float *values = NULL;
    Draw *draws = NULL;
    VlPool *pool = NULL;
    int64_t count = vl_elements(param->value);
    VlStatus status;
    VL_TRY_GOTO(status, vl_pool_open(&pool, count < CHUNK ? 1 : context->threads), done);
    VL_TRY_GOTO(status, VL_NEW(&draws, vl_pool_threads(pool)), done);
    VL_TRY_GOTO(status, VL_NEW(&values, CHUNK), done);
    for (int64_t begin = 0; begin < count; begin += CHUNK) {
        int64_t length = count - begin < CHUNK ? count - begin : CHUNK;
        VL_TRY_GOTO(status, draw_together(pool, draws, param, seed, begin, length, values), done);
        VL_TRY_GOTO(status, vl_params_set_part(context, param, begin, length, values, VL_F32), done);
    }
done:
    vl_pool_close(pool);
    vl_free(draws);
    vl_free(values);
    return status;
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
