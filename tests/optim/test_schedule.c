// Learning rates against the formulas of transformers' optimization.py, worked out by hand.
#include <math.h>

#include "optim/schedule.h"
#include "tests/base/support.h"

#define assert_rate(schedule, step, expected)                                                                \
    do {                                                                                                     \
        double rate_ = vl_schedule_rate(&(schedule), (step)), expected_ = (expected);                        \
        if (!(fabs(rate_ - expected_) <= 1e-15 + 1e-12 * fabs(expected_))) {                                 \
            fail_msg("line %d, step %lld: %.17g, not %.17g", __LINE__, (long long)(step), rate_, expected_); \
        }                                                                                                    \
    } while (0)

static void cosine(void **state) {
    (void)state;
    VlSchedule schedule = {VL_SCHEDULE_COSINE, 1e-3, 30, 1};
    assert_rate(schedule, 0, 0.0);
    assert_rate(schedule, 1, 1e-3);
    assert_rate(schedule, 2, 0.0009970689785771798);  // 1e-3 * (1 + cos(pi / 29)) / 2
    schedule = (VlSchedule){VL_SCHEDULE_COSINE, 2.0, 12, 4};
    assert_rate(schedule, 0, 0.0);
    assert_rate(schedule, 1, 0.5);
    assert_rate(schedule, 3, 1.5);
    assert_rate(schedule, 4, 2.0);
    assert_rate(schedule, 6, 1 + sqrt(0.5));
    assert_rate(schedule, 8, 1.0);
    assert_rate(schedule, 10, 1 - sqrt(0.5));
    assert_rate(schedule, 12, 0.0);
}

static void linear(void **state) {
    (void)state;
    VlSchedule schedule = {VL_SCHEDULE_LINEAR, 3.0, 10, 4};
    static const double expected[] = {0, 0.75, 1.5, 2.25, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5, 0.0, 0.0};
    for (int64_t step = 0; step < 12; step++) assert_rate(schedule, step, expected[step]);
}

static void constant(void **state) {
    (void)state;
    VlSchedule schedule = {VL_SCHEDULE_CONSTANT, 3.0, 10, 2};
    static const double expected[] = {0, 1.5, 3, 3, 3, 3, 3, 3, 3, 3, 3};
    for (int64_t step = 0; step < 11; step++) assert_rate(schedule, step, expected[step]);
}

static void without_warmup_or_with_nothing_else(void **state) {
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        VlSchedule schedule = {(VlScheduleKind)kind, 2.0, 8, 0};
        assert_rate(schedule, 0, 2.0);
        schedule = (VlSchedule){(VlScheduleKind)kind, 2.0, 4, 4};  // all of it warm-up
        assert_rate(schedule, 2, 1.0);
        assert_rate(schedule, 3, 1.5);
        schedule = (VlSchedule){(VlScheduleKind)kind, 2.0, 1, 0};
        assert_rate(schedule, 0, 2.0);
    }
}

static void warmup_steps_round_up(void **state) {
    (void)state;
    assert_int_equal(vl_schedule_warmup_steps(0.03, 30), 1);
    assert_int_equal(vl_schedule_warmup_steps(0.03, 100), 3);
    assert_int_equal(vl_schedule_warmup_steps(0.03, 101), 4);
    assert_int_equal(vl_schedule_warmup_steps(0.03, 33), 1);
    assert_int_equal(vl_schedule_warmup_steps(0.03, 34), 2);
    assert_int_equal(vl_schedule_warmup_steps(0, 1000), 0);
    assert_int_equal(vl_schedule_warmup_steps(1, 7), 7);
}

static void names(void **state) {
    (void)state;
    VlScheduleKind kind;
    assert_ok(vl_schedule_parse("cosine", &kind));
    assert_int_equal(kind, VL_SCHEDULE_COSINE);
    assert_ok(vl_schedule_parse("linear", &kind));
    assert_int_equal(kind, VL_SCHEDULE_LINEAR);
    assert_ok(vl_schedule_parse("constant", &kind));
    assert_int_equal(kind, VL_SCHEDULE_CONSTANT);
    assert_error(vl_schedule_parse("cosin", &kind), VL_USAGE, "unknown schedule 'cosin'");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cosine),
        cmocka_unit_test(linear),
        cmocka_unit_test(constant),
        cmocka_unit_test(without_warmup_or_with_nothing_else),
        cmocka_unit_test(warmup_steps_round_up),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
