// adamw against the algorithm in f64, over several steps.
#include <math.h>

#include "tests/ops/output.h"

enum { STEPS = 7, MASTER = 0, MOMENT1, MOMENT2, STATES };

static const VlAdamW settings_of_test = {
    .learning_rate = 0.03, .beta1 = 0.9, .beta2 = 0.97, .eps = 1e-3, .weight_decay = 0.2, .gradient_scale = 0.7};

typedef struct Run {
    Check check;
    VlTensor state[STATES], weight;
    double *want[STATES];
} Run;

// Algorithm 2 of Loshchilov & Hutter, with the decay first.
static void reference(double *const state[STATES], const double *gradient, int64_t count, VlAdamW s) {
    double correction1 = 1 - pow(s.beta1, (double)s.step), correction2 = 1 - pow(s.beta2, (double)s.step);
    for (int64_t i = 0; i < count; i++) {
        double g = gradient[i] * s.gradient_scale, *p = &state[MASTER][i];
        state[MOMENT1][i] = s.beta1 * state[MOMENT1][i] + (1 - s.beta1) * g;
        state[MOMENT2][i] = s.beta2 * state[MOMENT2][i] + (1 - s.beta2) * g * g;
        double update = state[MOMENT1][i] / correction1 / (sqrt(state[MOMENT2][i] / correction2) + s.eps);
        *p -= s.learning_rate * s.weight_decay * *p;
        *p -= s.learning_rate * update;
    }
}

static void run_begin(Run *run, int64_t count, VlAdamW settings, bool with_weight, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 60, threads);
    run->want[MASTER] = check_random(check, count, 1.0, VL_F32);
    run->want[MOMENT1] = check_zeros(check, count);
    run->want[MOMENT2] = check_zeros(check, count);
    for (int i = 0; i < STATES; i++) run->state[i] = check_upload(check, run->want[i], VL_F32, count);
    run->weight = with_weight ? check_output(check, VL_BF16, count) : VL_EMPTY;
    for (settings.step = 1; settings.step <= STEPS; settings.step++) {
        double *g = check_random(check, count, 1.0, VL_F32);
        check_ok(check, vl_adamw(check->context, run->weight, run->state[MASTER], run->state[MOMENT1],
                                 run->state[MOMENT2], check_upload(check, g, VL_F32, count), settings));
        reference(run->want, g, count, settings);
    }
}

static void verify(int64_t count, VlAdamW settings, bool with_weight) {
    Run run;
    run_begin(&run, count, settings, with_weight, 2);
    check_tensor(&run.check, "master", run.state[MASTER], run.want[MASTER], 1e-6);
    check_tensor(&run.check, "moment1", run.state[MOMENT1], run.want[MOMENT1], 1e-6);
    check_tensor(&run.check, "moment2", run.state[MOMENT2], run.want[MOMENT2], 1e-6);
    if (with_weight) {
        double *rounded = check_download(&run.check, run.state[MASTER]);
        check_round(rounded, count, VL_BF16);
        check_tensor(&run.check, "weight", run.weight, rounded, 0);
    }
    check_end(&run.check);
}

static void test_steps(void **state) {
    (void)state;
    static const int64_t counts[] = {0, 1, 3, 17, 1023, 1025, 2500};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        verify(counts[i], settings_of_test, false);
        verify(counts[i], settings_of_test, true);
    }
    VlAdamW settings = settings_of_test;
    settings.beta1 = 0, settings.beta2 = 0;
    verify(65, settings, false);
    settings = settings_of_test;
    settings.learning_rate = 0;  // the first step of a warm-up: only the moments move
    verify(65, settings, false);
    settings = settings_of_test;
    settings.beta2 = 0.999, settings.eps = 1e-8, settings.weight_decay = 0, settings.gradient_scale = 1;
    verify(65, settings, true);
}

// One element by hand: after the first step the update is the sign of the gradient, whatever its size.
static void test_first_step(void **state) {
    (void)state;
    static const double gradient[] = {1e-3, -50}, start[] = {1, 1}, zeros[] = {0, 0}, want[] = {0.88, 1.08};
    Check check;
    check_begin(&check, 61, 1);
    VlTensor master = check_upload(&check, start, VL_F32, 2), moment1 = check_upload(&check, zeros, VL_F32, 2);
    VlTensor moment2 = check_upload(&check, zeros, VL_F32, 2), g = check_upload(&check, gradient, VL_F32, 2);
    VlAdamW settings = {.learning_rate = 0.1,
                        .beta1 = 0.9,
                        .beta2 = 0.999,
                        .eps = 1e-12,
                        .weight_decay = 0.2,
                        .step = 1,
                        .gradient_scale = 1};
    check_ok(&check, vl_adamw(check.context, VL_EMPTY, master, moment1, moment2, g, settings));
    check_tensor(&check, "master", master, want, 1e-6);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    Run one, two;
    run_begin(&one, 40001, settings_of_test, true, 1);
    run_begin(&two, 40001, settings_of_test, true, 2);
    for (int i = 0; i < STATES; i++) check_same_bits(&one.check, "state", one.state[i], &two.check, two.state[i]);
    check_same_bits(&one.check, "weight", one.weight, &two.check, two.weight);
    check_end(&one.check);
    check_end(&two.check);
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 62, 1);
    VlContext *c = check.context;
    VlTensor p = check_device(&check, VL_F32, 5), m = check_device(&check, VL_F32, 5),
             v = check_device(&check, VL_F32, 5);
    VlTensor g = check_device(&check, VL_F32, 5), six = check_device(&check, VL_F32, 6), e = VL_EMPTY;
    VlTensor half = check_device(&check, VL_BF16, 5), square = check_device(&check, VL_F32, 5, 1);
    VlAdamW good = settings_of_test;
    good.step = 1;
    check_refused(vl_adamw(c, e, square, m, v, g, good), VL_INVALID,
                  "adamw: master is [5,1] f32, it must be [any] f32");
    check_refused(vl_adamw(c, e, p, six, v, g, good), VL_INVALID, "moment1 is [6] f32, it must be as master [5] f32");
    check_refused(vl_adamw(c, e, p, m, six, g, good), VL_INVALID, "moment2 is [6] f32");
    check_refused(vl_adamw(c, e, p, m, v, half, good), VL_INVALID, "gradient is [5] bf16");
    check_refused(vl_adamw(c, p, p, m, v, g, good), VL_INVALID, "weight is [5] f32, it must be [5] bf16");
    VlAdamW bad = good;
    bad.step = 0;
    check_refused(vl_adamw(c, e, p, m, v, g, bad), VL_INVALID, "step is 0, steps count from 1");
    bad = good, bad.beta1 = 1;
    check_refused(vl_adamw(c, e, p, m, v, g, bad), VL_INVALID, "beta1 is 1");
    bad = good, bad.beta2 = -0.5;
    check_refused(vl_adamw(c, e, p, m, v, g, bad), VL_INVALID, "beta2 -0.5");
    bad = good, bad.eps = NAN;
    check_refused(vl_adamw(c, e, p, m, v, g, bad), VL_INVALID, "eps nan");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_first_step),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
