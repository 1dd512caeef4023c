// AdamW over a registry of parameters, against the same update in f64.
#include <math.h>

#include "base/random.h"
#include "optim/optimizer.h"
#include "tests/base/support.h"

// Extents that are no multiple of the rows' alignment, frozen rows among them, and several runs of rows that decay and
// do not.
static const struct {
    const char *name;
    VlGroup group;
    bool decay;
    int64_t rows, columns;
} rows[] = {
    {"tower.weight", VL_GROUP_VISION_TOWER, true, 5, 3},
    {"norm.weight", VL_GROUP_LLM, false, 1, 7},
    {"norm.bias", VL_GROUP_LLM, false, 1, 7},
    {"a.weight", VL_GROUP_LLM, true, 9, 5},
    {"tower.bias", VL_GROUP_VISION_TOWER, false, 1, 3},
    {"b.weight", VL_GROUP_LLM, true, 3, 11},
    {"b.bias", VL_GROUP_LLM, false, 1, 11},
    {"c.weight", VL_GROUP_LLM, true, 16, 2},
    {"tower.last", VL_GROUP_VISION_TOWER, true, 4, 4},
};
enum { ROWS = sizeof rows / sizeof *rows, MOST = 64 };

typedef struct Setup {
    VlContext *context;
    VlParams params;
    VlOptimizer optimizer;
    double value[ROWS][MOST], moment1[ROWS][MOST], moment2[ROWS][MOST];  // the reference
    float gradient[ROWS][MOST];
} Setup;

static void set_up(Setup *setup, VlDtype dtype, VlOptimizerSettings settings) {
    *setup = (Setup){0};
    assert_ok(vl_context_create(&setup->context, VL_DEVICE_CPU, 2));
    for (int i = 0; i < ROWS; i++) {
        assert_ok(vl_params_register(&setup->params, NULL, rows[i].name, rows[i].group,
                                     ((VlInit){VL_INIT_NORMAL, 1.0f}), rows[i].decay, rows[i].rows, rows[i].columns));
    }
    vl_params_set_trainable(&setup->params, VL_GROUP_BIT(VL_GROUP_LLM));
    assert_ok(vl_params_bind(setup->context, &setup->params, dtype));
    for (int i = 0; i < ROWS; i++) {
        float host[MOST];
        assert_ok(vl_params_initialise(setup->context, &setup->params, setup->params.rows[i], 3));
        assert_ok(vl_params_get(setup->context, setup->params.rows[i], host));
        for (int64_t j = 0; j < rows[i].rows * rows[i].columns; j++) setup->value[i][j] = (double)host[j];
    }
    assert_ok(vl_optimizer_create(&setup->optimizer, setup->context, &setup->params, settings));
}

static void tear_down(Setup *setup) {
    vl_optimizer_free(&setup->optimizer);
    vl_params_free(setup->context, &setup->params);
    vl_context_free(setup->context);
}

// Draws gradients of the trainable rows, and gives their norm.
static double draw_gradients(Setup *setup, VlRandom *random, double scale) {
    double square = 0;
    for (int i = 0; i < ROWS; i++) {
        if (rows[i].group != VL_GROUP_LLM) continue;
        for (int64_t j = 0; j < rows[i].rows * rows[i].columns; j++) {
            setup->gradient[i][j] = (float)(scale * vl_random_normal(random));
            square += (double)setup->gradient[i][j] * (double)setup->gradient[i][j];
        }
        assert_ok(vl_copy_from_host(setup->context, setup->params.rows[i]->gradient, setup->gradient[i]));
    }
    return sqrt(square);
}

// torch.optim.AdamW in f64, on gradients as clip_grad_norm_ leaves them.
static void reference_step(Setup *setup, double rate, double norm, int64_t step) {
    const VlOptimizerSettings *s = &setup->optimizer.settings;
    double clip = s->clip_norm > 0 ? s->clip_norm / (norm + 1e-6) : 1;
    if (clip > 1) clip = 1;
    for (int i = 0; i < ROWS; i++) {
        if (rows[i].group != VL_GROUP_LLM) continue;
        for (int64_t j = 0; j < rows[i].rows * rows[i].columns; j++) {
            double g = clip * (double)setup->gradient[i][j], *m = &setup->moment1[i][j], *v = &setup->moment2[i][j];
            if (rows[i].decay) setup->value[i][j] *= 1 - rate * s->weight_decay;
            *m = s->beta1 * *m + (1 - s->beta1) * g;
            *v = s->beta2 * *v + (1 - s->beta2) * g * g;
            double m_hat = *m / (1 - pow(s->beta1, (double)step)), v_hat = *v / (1 - pow(s->beta2, (double)step));
            setup->value[i][j] -= rate * m_hat / (sqrt(v_hat) + s->eps);
        }
    }
}

static void compare(Setup *setup, double tolerance) {
    for (int i = 0; i < ROWS; i++) {
        float host[MOST];
        assert_ok(vl_params_get(setup->context, setup->params.rows[i], host));
        for (int64_t j = 0; j < rows[i].rows * rows[i].columns; j++) {
            if (!(fabs((double)host[j] - setup->value[i][j]) <= tolerance)) {
                fail_msg("%s[%lld]: %.9g, not %.9g", rows[i].name, (long long)j, (double)host[j], setup->value[i][j]);
            }
        }
    }
}

static void run_steps(VlDtype dtype, VlOptimizerSettings settings, double scale) {
    static Setup setup;
    set_up(&setup, dtype, settings);
    VlRandom random = vl_random(11, 0);
    for (int64_t step = 1; step <= 12; step++) {
        double rate = step == 1 ? 0 : 1e-2 / (double)step, norm;
        double expected = draw_gradients(&setup, &random, scale);
        assert_ok(vl_optimizer_gradient_norm(&setup.optimizer, &norm));
        if (!(fabs(norm - expected) <= 1e-6 * expected)) fail_msg("norm %.9g, not %.9g", norm, expected);
        assert_ok(vl_optimizer_step(&setup.optimizer, rate, norm));
        assert_int_equal(setup.optimizer.steps, step);
        reference_step(&setup, rate, expected, step);
        compare(&setup, 3e-7 * (double)step + 1e-7);
    }
    if (dtype == VL_BF16) {  // the weights that the model uses are the bf16 next to the masters
        for (int i = 0; i < ROWS; i++) {
            if (!setup.params.rows[i]->trainable) continue;
            VlBf16 weight[MOST];
            float master[MOST];
            assert_ok(vl_copy_to_host(setup.context, weight, setup.params.rows[i]->value));
            assert_ok(vl_params_get(setup.context, setup.params.rows[i], master));
            for (int64_t j = 0; j < rows[i].rows * rows[i].columns; j++) {
                assert_int_equal(weight[j], vl_halves_from_f32(master[j]).upper);
            }
        }
    }
    tear_down(&setup);
}

static const VlOptimizerSettings plain = {0.9, 0.999, 1e-8, 0, 0};

static void equals_f64_adamw(void **state) {
    (void)state;
    run_steps(VL_F32, plain, 0.1);
}

static void decays_matrices_only(void **state) {
    (void)state;
    VlOptimizerSettings settings = plain;
    settings.weight_decay = 0.3;
    run_steps(VL_F32, settings, 0.1);
}

static void clips_the_whole_gradient(void **state) {
    (void)state;
    VlOptimizerSettings settings = {0.8, 0.95, 1e-3, 0.1, 0.5};
    run_steps(VL_F32, settings, 1.0);   // far above the limit
    run_steps(VL_F32, settings, 1e-3);  // below it: untouched
    settings.clip_norm = 1e-6;          // where torch's 1e-6 halves the coefficient
    settings.eps = 1e-8;
    run_steps(VL_F32, settings, 5e-8);
}

static void keeps_f32_masters_of_bf16_weights(void **state) {
    (void)state;
    VlOptimizerSettings settings = {0.9, 0.999, 1e-8, 0.1, 1.0};
    run_steps(VL_BF16, settings, 0.1);
}

static void clears_gradients(void **state) {
    (void)state;
    static Setup setup;
    set_up(&setup, VL_F32, plain);
    VlRandom random = vl_random(12, 0);
    double norm;
    draw_gradients(&setup, &random, 1);
    assert_ok(vl_optimizer_clear_gradients(&setup.optimizer));
    assert_ok(vl_optimizer_gradient_norm(&setup.optimizer, &norm));
    assert_true(norm == 0);
    draw_gradients(&setup, &random, 1);
    setup.gradient[1][0] = NAN;
    assert_ok(vl_copy_from_host(setup.context, setup.params.rows[1]->gradient, setup.gradient[1]));
    assert_ok(vl_optimizer_gradient_norm(&setup.optimizer, &norm));
    assert_true(isnan(norm));
    tear_down(&setup);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_f64_adamw),         cmocka_unit_test(decays_matrices_only),
        cmocka_unit_test(clips_the_whole_gradient), cmocka_unit_test(keeps_f32_masters_of_bf16_weights),
        cmocka_unit_test(clears_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
