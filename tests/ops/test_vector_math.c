// The vectorisable functions against the C library's in f64.
#include "ops/cpu/vector_math.h"

#include <math.h>

#include "tests/ops/check.h"

static void test_exp(void **state) {
    (void)state;
    enum { POINTS = 400000 };
    double worst = 0;
    for (int i = 0; i <= POINTS; i++) {
        float x = -87.0f + 175.5f * (float)i / POINTS;  // where neither x nor the result is denormal or infinite
        double want = exp((double)x), error = fabs((double)vl_exp(x) - want) / want;
        if (!(error <= worst)) worst = error;
    }
    if (!(worst <= 2.4e-7)) fail_msg("relative error %.3g, at most 2 units in the last place", worst);
    assert_true(vl_exp(0) == 1 && vl_exp(-0.0f) == 1);
}

static void test_exp_limits(void **state) {
    (void)state;
    for (float x = -104; x < -87; x += 0.01f) {  // denormal results: within one of their steps
        if (!(fabs((double)vl_exp(x) - exp((double)x)) <= 0x1p-149))
            fail_msg("e^%g = %g", (double)x, (double)vl_exp(x));
    }
    assert_true(vl_exp(-INFINITY) == 0 && vl_exp(-1e30f) == 0 && vl_exp(-105) == 0);
    assert_true(vl_exp(INFINITY) == INFINITY && vl_exp(1e30f) == INFINITY && vl_exp(89) == INFINITY);
    assert_true(isnan(vl_exp(NAN)) && isnan(vl_exp(-NAN)));
}

static void test_sigmoid(void **state) {
    (void)state;
    for (float x = -80; x <= 80; x += 0.001f) {
        double want = 1 / (1 + exp(-(double)x));
        if (!(fabs((double)vl_sigmoid(x) - want) <= 4e-7 * want))
            fail_msg("sigmoid(%g) = %g", (double)x, (double)vl_sigmoid(x));
    }
    assert_true(vl_sigmoid(-INFINITY) == 0 && vl_sigmoid(INFINITY) == 1 && isnan(vl_sigmoid(NAN)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_exp_limits),
        cmocka_unit_test(test_sigmoid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
