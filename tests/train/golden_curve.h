// A run against the reference's curve and weights, within the tolerances of golden/train.
#ifndef VL_TESTS_TRAIN_GOLDEN_CURVE_H
#define VL_TESTS_TRAIN_GOLDEN_CURVE_H

#include "base/safetensors.h"
#include "tests/train/runs.h"

static inline double larger(double a, double b) { return a > b ? a : b; }

// Loss within 2e-5 and gradient norm within 2e-4 (relative), or 100 times the distance of the reference's own f32 run
// from its f64 run; rate within 1e-6.
static inline void check_curve(const char *run, const char *stage) {
    json_t *root = load_expected(stage);
    const json_t *steps = json_object_get(root, "steps"), *singles = json_object_get(root, "steps_f32");
    Curve curve, expected = {0}, f32 = {0};
    double worst[3] = {0};
    read_curve(run, &curve);
    for (size_t i = 0; i < json_array_size(steps); i++) {
        add_step(&expected, json_array_get(steps, i));
        add_step(&f32, json_array_get(singles, i));
    }
    json_decref(root);
    assert_int_equal(expected.steps, golden_run(stage)->steps);
    assert_int_equal(curve.steps, expected.steps);
    for (int64_t i = 0; i < expected.steps; i++) {
        double loss = relative(curve.loss[i], expected.loss[i]), norm = relative(curve.norm[i], expected.norm[i]);
        double rate = relative(curve.rate[i], expected.rate[i]);
        double loss_limit = larger(2e-5, 100 * relative(f32.loss[i], expected.loss[i]));
        double norm_limit = larger(2e-4, 100 * relative(f32.norm[i], expected.norm[i]));
        if (!(loss <= loss_limit && norm <= norm_limit && rate <= 1e-6)) {
            fail_msg("%s, step %lld: loss %.9g, norm %.9g, rate %.9g; expected %.9g, %.9g, %.9g", stage,
                     (long long)i + 1, curve.loss[i], curve.norm[i], curve.rate[i], expected.loss[i], expected.norm[i],
                     expected.rate[i]);
        }
        worst[0] = larger(worst[0], loss);
        worst[1] = larger(worst[1], norm);
        worst[2] = larger(worst[2], rate);
    }
    print_message("%s: loss within %.1e, gradient norm %.1e, rate %.1e\n", stage, worst[0], worst[1], worst[2]);
}

// Softmax does not see the bias of a key: its gradient is rounding noise, which Adam makes large.
static inline bool is_noise(const char *name) {
    return strstr(name, "audio_tower") != NULL && vl_ends_with(name, ".k_proj.bias");
}

// Each trained tensor within 2e-3 of the way that it moved, or 20 times the drift of the reference's f32 run (L2).
static inline void check_weights(const char *run, const char *stage) {
    json_t *root = load_expected(stage), *ways = json_object_get(root, "weights");
    char path[VL_PATH_MAX];
    VlSafetensors set;
    Weights weights;
    double worst = 0;
    snprintf(path, sizeof path, "%s/expected/%s/final.safetensors", GOLDEN, stage);
    assert_ok(vl_safetensors_open(&set, path));
    open_weights(&weights, run);
    for (int64_t i = 0; i < set.count; i++) {
        const VlSafetensorsEntry *entry = &set.entries[i];
        const json_t *way = json_object_get(ways, entry->name);
        const VlParam *param = vl_params_find(vl_vlm_params(weights.model), entry->name);
        if (is_noise(entry->name)) continue;
        if (!param || !way) fail_msg("%s is no parameter, or nobody knows how far it moved", entry->name);
        int64_t elements = vl_elements(param->shape);
        assert_int_equal(vl_elements(entry->tensor), elements);
        float *values = weight_values(&weights, param);
        double *expected, square = 0;
        assert_ok(VL_NEW(&expected, elements));
        assert_ok(vl_safetensors_read_as(&set, entry, VL_F64, expected));
        for (int64_t j = 0; j < elements; j++) square += pow((double)values[j] - expected[j], 2);
        double limit = larger(2e-3 * member(way, "moved"), 20 * member(way, "drift"));
        if (!(sqrt(square) <= limit)) fail_msg("%s is off by %.3g, limit %.3g", entry->name, sqrt(square), limit);
        if (limit > 0) worst = larger(worst, sqrt(square) / limit);
        vl_free(values);
        vl_free(expected);
    }
    assert_true(set.count >= 4);
    print_message("%s: %lld tensors, the worst at %.2f of its limit\n", stage, (long long)set.count, worst);
    vl_safetensors_close(&set);
    close_weights(&weights);
    json_decref(root);
}

#endif
