// adamw against the algorithm in f64, over several steps.
#include <math.h>
#include <string.h>

#include "tests/ops/output.h"

enum { STEPS = 7, MOST = 40001, MASTER = 0, MOMENT1, MOMENT2, STATES };

static const VlAdamW settings_of_test = {
    .learning_rate = 0.03, .beta1 = 0.9, .beta2 = 0.97, .eps = 1e-3, .weight_decay = 0.2, .gradient_scale = 0.7};

// The master is the weight in f32, or what the weight in bf16 and the remainder are the halves of.
typedef struct Run {
    Check check;
    VlTensor weight, remainder, moment1, moment2;
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

static void upload_halves(Run *run, const double *values, int64_t count) {
    VlBf16 weight[MOST];
    int16_t remainder[MOST];
    assert_true(count <= MOST);
    for (int64_t i = 0; i < count; i++) {
        VlHalves halves = vl_halves_from_f32((float)values[i]);
        weight[i] = halves.upper;
        remainder[i] = halves.remainder;
    }
    run->weight = check_device(&run->check, VL_BF16, count);
    run->remainder = check_device(&run->check, VL_I16, count);
    check_ok(&run->check, vl_copy_from_host(run->check.context, run->weight, weight));
    check_ok(&run->check, vl_copy_from_host(run->check.context, run->remainder, remainder));
}

// The masters; the weights must be the bf16 next to them.
static double *download_halves(Run *run) {
    VlBf16 weight[MOST];
    int16_t remainder[MOST];
    int64_t count = vl_elements(run->weight);
    double *masters = check_zeros(&run->check, count);
    check_ok(&run->check, vl_copy_to_host(run->check.context, weight, run->weight));
    check_ok(&run->check, vl_copy_to_host(run->check.context, remainder, run->remainder));
    for (int64_t i = 0; i < count; i++) {
        float master = vl_f32_from_halves(weight[i], remainder[i]);
        assert_int_equal(vl_halves_from_f32(master).upper, weight[i]);
        masters[i] = (double)master;
    }
    return masters;
}

static void run_begin(Run *run, int64_t count, VlAdamW settings, VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 60, threads);
    run->want[MASTER] = check_random(check, count, 1.0, VL_F32);
    run->want[MOMENT1] = check_zeros(check, count);
    run->want[MOMENT2] = check_zeros(check, count);
    run->moment1 = check_upload(check, run->want[MOMENT1], VL_F32, count);
    run->moment2 = check_upload(check, run->want[MOMENT2], VL_F32, count);
    run->remainder = VL_EMPTY;
    if (dtype == VL_F32) {
        run->weight = check_upload(check, run->want[MASTER], VL_F32, count);
    } else {
        upload_halves(run, run->want[MASTER], count);
    }
    for (settings.step = 1; settings.step <= STEPS; settings.step++) {
        double *g = check_random(check, count, 1.0, VL_F32);
        check_ok(check, vl_adamw(check->context, run->weight, run->remainder, run->moment1, run->moment2,
                                 check_upload(check, g, VL_F32, count), settings));
        reference(run->want, g, count, settings);
    }
}

static void verify(int64_t count, VlAdamW settings, VlDtype dtype) {
    Run run;
    run_begin(&run, count, settings, dtype, 2);
    const double *masters = dtype == VL_F32 ? check_download(&run.check, run.weight) : download_halves(&run);
    check_close(&run.check, "master", masters, run.want[MASTER], count, 1e-6);
    check_tensor(&run.check, "moment1", run.moment1, run.want[MOMENT1], 1e-6);
    check_tensor(&run.check, "moment2", run.moment2, run.want[MOMENT2], 1e-6);
    check_end(&run.check);
}

static void test_steps(void **state) {
    (void)state;
    static const int64_t counts[] = {0, 1, 3, 17, 1023, 1025, 2500};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        verify(counts[i], settings_of_test, VL_F32);
        verify(counts[i], settings_of_test, VL_BF16);
    }
    VlAdamW settings = settings_of_test;
    settings.beta1 = 0, settings.beta2 = 0;
    verify(65, settings, VL_F32);
    settings = settings_of_test;
    settings.learning_rate = 0;  // the first step of a warm-up: only the moments move
    verify(65, settings, VL_F32);
    settings = settings_of_test;
    settings.beta2 = 0.999, settings.eps = 1e-8, settings.weight_decay = 0, settings.gradient_scale = 1;
    verify(65, settings, VL_BF16);
}

// A step that leaves the master as it is leaves all bits of its halves: above, below and half-way between two bf16, of
// an odd and an even one, next to the next power of two, denormal, infinite, not a number.
static void test_halves_stay(void **state) {
    (void)state;
    static const uint32_t bits[] = {0x3f800000, 0x3f800001, 0x3f807fff, 0x3f808000, 0x3f808001, 0x3f80ffff, 0x3f817fff,
                                    0x3f818000, 0x3f818001, 0xbf808000, 0xbf818000, 0x3fffffff, 0x00000000, 0x80000000,
                                    0x00000001, 0x00008000, 0x807f8000, 0x7f7fffff, 0xff7f8000, 0x7f800000, 0x7fc00000};
    enum { COUNT = sizeof bits / sizeof *bits };
    double values[COUNT], *zeros;
    Run run = {0};
    check_begin(&run.check, 63, 1);
    for (int i = 0; i < COUNT; i++) {
        float value;
        memcpy(&value, &bits[i], sizeof value);
        values[i] = (double)value;
    }
    upload_halves(&run, values, COUNT);
    zeros = check_zeros(&run.check, COUNT);
    VlTensor m = check_upload(&run.check, zeros, VL_F32, COUNT), v = check_upload(&run.check, zeros, VL_F32, COUNT);
    VlTensor g = check_upload(&run.check, zeros, VL_F32, COUNT);
    VlAdamW settings = settings_of_test;
    settings.step = 1, settings.weight_decay = 0;
    check_ok(&run.check, vl_adamw(run.check.context, run.weight, run.remainder, m, v, g, settings));
    const double *after = download_halves(&run);
    for (int i = 0; i < COUNT; i++) {
        if (!(after[i] == values[i]) && !(isnan(after[i]) && isnan(values[i]))) {
            fail_msg("%a became %a", values[i], after[i]);
        }
    }
    check_end(&run.check);
}

// One element by hand: after the first step the update is the sign of the gradient, whatever its size.
static void test_first_step(void **state) {
    (void)state;
    static const double gradient[] = {1e-3, -50}, start[] = {1, 1}, zeros[] = {0, 0}, want[] = {0.88, 1.08};
    Check check;
    check_begin(&check, 61, 1);
    VlTensor weight = check_upload(&check, start, VL_F32, 2), moment1 = check_upload(&check, zeros, VL_F32, 2);
    VlTensor moment2 = check_upload(&check, zeros, VL_F32, 2), g = check_upload(&check, gradient, VL_F32, 2);
    VlAdamW settings = {.learning_rate = 0.1,
                        .beta1 = 0.9,
                        .beta2 = 0.999,
                        .eps = 1e-12,
                        .weight_decay = 0.2,
                        .step = 1,
                        .gradient_scale = 1};
    check_ok(&check, vl_adamw(check.context, weight, VL_EMPTY, moment1, moment2, g, settings));
    check_tensor(&check, "weight", weight, want, 1e-6);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    Run one, two;
    run_begin(&one, MOST, settings_of_test, VL_BF16, 1);
    run_begin(&two, MOST, settings_of_test, VL_BF16, 2);
    check_same_bits(&one.check, "weight", one.weight, &two.check, two.weight);
    check_same_bits(&one.check, "remainder", one.remainder, &two.check, two.remainder);
    check_same_bits(&one.check, "moment1", one.moment1, &two.check, two.moment1);
    check_same_bits(&one.check, "moment2", one.moment2, &two.check, two.moment2);
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
    VlTensor rest = check_device(&check, VL_I16, 5), whole = check_device(&check, VL_I32, 5);
    VlAdamW good = settings_of_test;
    good.step = 1;
    check_refused(vl_adamw(c, square, e, m, v, g, good), VL_INVALID,
                  "adamw: weight is [5,1] f32, it must be f32 or bf16 of 1 extents");
    check_refused(vl_adamw(c, whole, rest, m, v, g, good), VL_INVALID, "weight is [5] i32");
    check_refused(vl_adamw(c, p, e, six, v, g, good), VL_INVALID, "moment1 is [6] f32, it must be [5] f32");
    check_refused(vl_adamw(c, p, e, m, six, g, good), VL_INVALID, "moment2 is [6] f32");
    check_refused(vl_adamw(c, p, e, m, v, half, good), VL_INVALID, "gradient is [5] bf16");
    check_refused(vl_adamw(c, p, rest, m, v, g, good), VL_INVALID,
                  "remainder is [5] i16, it must be empty beside an f32 weight");
    check_refused(vl_adamw(c, half, e, m, v, g, good), VL_INVALID, "remainder is [] f32, it must be [5] i16");
    check_refused(vl_adamw(c, half, p, m, v, g, good), VL_INVALID, "remainder is [5] f32, it must be [5] i16");
    VlAdamW bad = good;
    bad.step = 0;
    check_refused(vl_adamw(c, p, e, m, v, g, bad), VL_INVALID, "step is 0, steps count from 1");
    bad = good, bad.beta1 = 1;
    check_refused(vl_adamw(c, p, e, m, v, g, bad), VL_INVALID, "beta1 is 1");
    bad = good, bad.beta2 = -0.5;
    check_refused(vl_adamw(c, p, e, m, v, g, bad), VL_INVALID, "beta2 -0.5");
    bad = good, bad.eps = NAN;
    check_refused(vl_adamw(c, p, e, m, v, g, bad), VL_INVALID, "eps nan");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),   cmocka_unit_test(test_halves_stay), cmocka_unit_test(test_first_step),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
