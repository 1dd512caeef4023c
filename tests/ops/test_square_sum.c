// square_sum against an f64 sum.
#include "tests/ops/output.h"

static VlTensor run(Check *check, int64_t count, int64_t threads, double **x) {
    check_begin(check, 57, threads);
    *x = check_random(check, count, 1.0, VL_F32);
    VlTensor sum = check_output(check, VL_F64, 1);
    check_ok(check, vl_square_sum(check->context, sum, check_upload(check, *x, VL_F32, count)));
    return sum;
}

static void test_sum(void **state) {
    (void)state;
    // Around a block of 4096, and more than the 1024 blocks whose sums are kept at a time.
    static const int64_t counts[] = {0, 1, 3, 17, 4095, 4096, 4097, 50001, 4096 * 1024 + 4097};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        Check check;
        double *x;
        long double exact = 0;
        VlTensor sum = run(&check, counts[i], 2, &x);
        for (int64_t k = 0; k < counts[i]; k++) exact += (long double)x[k] * x[k];
        double want = (double)exact;
        check_tensor(&check, "sum", sum, &want, 1e-13);
        check_end(&check);
    }
}

// In f32 the squares of 1e30 were infinite, those of 1e-30 zero.
static void test_range(void **state) {
    (void)state;
    static const double large[] = {1e30, 2e30}, small[] = {3e-30};
    const double large_square = 5 * (double)(float)1e30 * (double)(float)1e30;
    const double small_square = (double)(float)3e-30 * (double)(float)3e-30;
    Check check;
    check_begin(&check, 58, 1);
    VlTensor sum = check_output(&check, VL_F64, 1);
    check_ok(&check, vl_square_sum(check.context, sum, check_upload(&check, large, VL_F32, 2, 1)));
    check_tensor(&check, "sum of large", sum, &large_square, 1e-6);
    check_ok(&check, vl_square_sum(check.context, sum, check_upload(&check, small, VL_F32, 1)));
    check_tensor(&check, "sum of small", sum, &small_square, 1e-13);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    for (int64_t threads = 2; threads <= 3; threads++) {
        Check one, more;
        double *x;
        VlTensor a = run(&one, 100003, 1, &x), b = run(&more, 100003, threads, &x);
        check_same_bits(&one, "sum", a, &more, b);
        check_end(&one);
        check_end(&more);
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 59, 1);
    VlTensor x = check_device(&check, VL_F32, 5), half = check_device(&check, VL_BF16, 5);
    VlTensor sum = check_device(&check, VL_F64, 1), single = check_device(&check, VL_F32, 1);
    check_refused(vl_square_sum(check.context, single, x), VL_INVALID,
                  "square_sum: sum is [1] f32, it must be [1] f64");
    check_refused(vl_square_sum(check.context, sum, half), VL_INVALID, "x is [5] bf16, it must be [5] f32");
    check_refused(vl_square_sum(check.context, sum, VL_EMPTY), VL_INVALID, "x is the empty view");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),
        cmocka_unit_test(test_range),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
