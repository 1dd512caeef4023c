// What the tests of the tower and the connector share: parts on a CPU context, golden numbers, and a check of gradients
// against differences of the forward pass.
#ifndef VL_TESTS_MODEL_VISION_PARTS_H
#define VL_TESTS_MODEL_VISION_PARTS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/safetensors.h"
#include "model/config.h"
#include "model/connector.h"
#include "model/params.h"
#include "model/vit.h"

#define assert_ok(expression)                                                        \
    do {                                                                             \
        if ((expression) != VL_OK) fail_msg("%s: %s", #expression, vl_error_text()); \
    } while (0)

#define assert_error(expression, code, part)                                                                         \
    do {                                                                                                             \
        VlStatus assert_status_ = (expression);                                                                      \
        if (assert_status_ != (code) || !strstr(vl_error_text(), (part))) {                                          \
            fail_msg("%s: status %d with '%s', not %d with '%s'", #expression, (int)assert_status_, vl_error_text(), \
                     (int)(code), (part));                                                                           \
        }                                                                                                            \
    } while (0)

static inline VlContext *open_context(int64_t bytes) {
    VlContext *context;
    assert_ok(vl_context_create(&context, VL_DEVICE_CPU, 2));
    assert_ok(vl_arena_bind(context, &context->activations, "activations", bytes));
    assert_ok(vl_arena_bind(context, &context->scratch, "scratch", bytes));
    return context;
}

static inline const char *golden_path(const char *test_case, const char *name) {
    static char paths[4][VL_PATH_MAX];
    static int turn;
    char *path = paths[turn++ & 3];
    snprintf(path, VL_PATH_MAX, "%s/tests/golden/model/%s/%s", VL_SOURCE_DIR, test_case, name);
    return path;
}

// A tensor of a safetensors file as f32, freed with vl_free; its shape in *shape.
static inline float *read_tensor(const VlSafetensors *set, const char *name, VlTensor *shape) {
    const VlSafetensorsEntry *entry = vl_safetensors_find(set, name);
    if (!entry) fail_msg("%s is not in the file", name);
    float *values;
    assert_ok(VL_NEW(&values, vl_elements(entry->tensor)));
    assert_ok(vl_safetensors_read_as(set, entry, VL_F32, values));
    *shape = entry->tensor;
    return values;
}

// The parameters that are registered, from the golden case's model folder; what it lacks must be optional.
static inline void load_golden(VlContext *context, VlParams *params, const char *test_case) {
    VlSafetensors set;
    assert_ok(vl_safetensors_open(&set, golden_path(test_case, "model")));
    for (int64_t i = 0; i < params->count; i++) {
        VlTensor shape;
        if (params->rows[i]->optional && !vl_safetensors_find(&set, params->rows[i]->name)) continue;
        float *values = read_tensor(&set, params->rows[i]->name, &shape);
        assert_true(vl_same_shape(shape, params->rows[i]->shape));
        assert_ok(vl_params_set(context, params->rows[i], values, VL_F32));
        vl_free(values);
    }
    vl_safetensors_close(&set);
}

// A device tensor on activations with these values, in `dtype`.
static inline VlTensor upload(VlContext *context, const float *values, VlDtype dtype, int32_t dims,
                              const int64_t *dim) {
    VlTensor tensor;
    assert_ok(vl_arena_push_make(&context->activations, &tensor, dtype, dims, dim));
    void *converted;
    assert_ok(vl_allocate(&converted, vl_elements(tensor), 4));
    vl_convert(converted, dtype, values, VL_F32, vl_elements(tensor));
    assert_ok(vl_copy_from_host(context, tensor, converted));
    vl_free(converted);
    return tensor;
}

// A device tensor's values as f32; free with vl_free.
static inline float *download(VlContext *context, VlTensor tensor) {
    int64_t count = vl_elements(tensor);
    void *stored;
    float *values;
    assert_ok(vl_allocate(&stored, count, vl_dtype_size(tensor.dtype)));
    assert_ok(VL_NEW(&values, count));
    assert_ok(vl_copy_to_host(context, stored, tensor));
    vl_convert(values, VL_F32, stored, tensor.dtype, count);
    vl_free(stored);
    return values;
}

static inline float *random_values(int64_t count, uint64_t seed) {
    float *values;
    assert_ok(VL_NEW(&values, count));
    VlRandom random = vl_random(seed, 0);
    for (int64_t i = 0; i < count; i++) values[i] = (float)vl_random_normal(&random);
    return values;
}

// |a - b| / |b|
static inline double relative_error(const float *a, const float *b, int64_t count) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(difference) / (sqrt(norm) + 1e-30);
}

static inline double dot(const float *a, const float *b, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += (double)a[i] * b[i];
    return sum;
}

// Seeded weights with every norm weight and bias off its usual value, so that each of them shows.
static inline void fill_params(VlContext *context, VlParams *params, uint64_t seed) {
    for (int64_t i = 0; i < params->count; i++) {
        VlParam *row = params->rows[i];
        int64_t count = vl_elements(row->shape);
        float *values = random_values(count, seed + (uint64_t)i);
        float scale = row->shape.dims == 1 ? 0.3F : 1 / sqrtf((float)(count / row->shape.dim[0]));
        float center = row->init.kind == VL_INIT_ONES ? 1 : 0;
        for (int64_t k = 0; k < count; k++) values[k] = center + scale * values[k];
        assert_ok(vl_params_set(context, row, values, VL_F32));
        vl_free(values);
    }
}

// What a gradient is checked on: `evaluate` gives the sum of upstream * output after a forward pass, `set` writes the
// values of the tensor in question.
typedef struct Probe {
    double (*evaluate)(void *user);
    void (*set)(void *user, const float *values);
    void *user;
} Probe;

// A difference of fourth order along `direction`.
static inline double derivative(const Probe *probe, const float *at, const float *direction, int64_t count,
                                double step) {
    static const double offsets[] = {-2, -1, 1, 2}, weights[] = {1.0 / 12, -8.0 / 12, 8.0 / 12, -1.0 / 12};
    double sum = 0;
    float *moved;
    assert_ok(VL_NEW(&moved, count));
    for (int i = 0; i < 4; i++) {
        for (int64_t k = 0; k < count; k++) moved[k] = (float)(at[k] + offsets[i] * step * direction[k]);
        probe->set(probe->user, moved);
        sum += weights[i] * probe->evaluate(probe->user);
    }
    probe->set(probe->user, at);
    vl_free(moved);
    return sum / step;
}

// The gradient against a difference along a direction made half of the gradient's own and half of chance, as long as
// the tensor itself. `floor`: what rounding in f32 may add.
static inline void check_gradient(const char *name, const Probe *probe, const float *at, const float *gradient,
                                  int64_t count, double floor) {
    float *random = random_values(count, vl_hash_string(name)), *direction;
    assert_ok(VL_NEW(&direction, count));
    double length = sqrt(dot(gradient, gradient, count)), chance = sqrt(dot(random, random, count));
    double scale = sqrt(dot(at, at, count));
    for (int64_t i = 0; i < count; i++) {
        direction[i] = (float)(scale * (gradient[i] / (length + 1e-30) + random[i] / chance));
    }
    double expected = derivative(probe, at, direction, count, 1e-3), found = dot(gradient, direction, count);
    if (!(fabs(found - expected) <= 2e-3 * fabs(expected) + floor)) {
        fail_msg("%s: the gradient gives %.6g, the difference %.6g (allowed %.2g)", name, found, expected,
                 2e-3 * fabs(expected) + floor);
    }
    vl_free(random);
    vl_free(direction);
}

// One trained parameter as a probe's tensor.
typedef struct ParamProbe {
    VlContext *context;
    VlParam *param;
    double (*evaluate)(void *user);
    void *user;
} ParamProbe;

static inline double evaluate_param(void *user) { return ((ParamProbe *)user)->evaluate(((ParamProbe *)user)->user); }

static inline void set_param(void *user, const float *values) {
    ParamProbe *probe = user;
    assert_ok(vl_params_set(probe->context, probe->param, values, VL_F32));
}

// All trained parameters, whose gradients are there, against differences of `evaluate`.
static inline void check_param_gradients(VlContext *context, VlParams *params, double (*evaluate)(void *user),
                                         void *user, double floor) {
    for (int64_t i = 0; i < params->count; i++) {
        VlParam *param = params->rows[i];
        if (!param->trainable) continue;
        ParamProbe inner = {context, param, evaluate, user};
        Probe probe = {evaluate_param, set_param, &inner};
        float *at = download(context, param->value), *gradient = download(context, param->gradient);
        check_gradient(param->name, &probe, at, gradient, vl_elements(param->shape), floor);
        vl_free(at);
        vl_free(gradient);
    }
}

#endif
