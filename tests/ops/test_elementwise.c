// add_tensors, zero and cast. Each is exact up to one rounding, so results are compared bit by bit.
#include <math.h>

#include "tests/ops/output.h"

static void check_add(int64_t count, VlDtype dtype, int64_t threads) {
    Check check;
    check_begin(&check, 52, threads);
    double *a = check_random(&check, count, 1.0, dtype), *b = check_random(&check, count, 1.0, dtype);
    double *sum = check_zeros(&check, count), *scaled = check_zeros(&check, count);
    for (int64_t i = 0; i < count; i++) {
        sum[i] = check_rounded(0.5 * a[i] + b[i], dtype);  // a product with 0.5 is exact: one rounding
        scaled[i] = check_rounded(-0.25 * a[i], dtype);
    }
    VlTensor left = check_upload(&check, a, dtype, count), right = check_upload(&check, b, dtype, count);
    VlTensor right_again = check_upload(&check, b, dtype, count), y = check_output(&check, dtype, count);
    check_ok(&check, vl_add_tensors(check.context, y, left, -0.25f, VL_EMPTY));
    check_tensor(&check, "y without b", y, scaled, 0);
    check_ok(&check, vl_add_tensors(check.context, y, left, 0.5f, right));
    check_tensor(&check, "y", y, sum, 0);
    check_ok(&check, vl_add_tensors(check.context, right, left, 0.5f, right));
    check_tensor(&check, "y in b's place", right, sum, 0);
    check_ok(&check, vl_add_tensors(check.context, left, left, 0.5f, right_again));
    check_tensor(&check, "y in a's place", left, sum, 0);
    check_end(&check);
}

// Views that begin at no multiple of 16 bytes.
static void check_views(VlDtype dtype) {
    enum { COUNT = 1000 };
    Check check;
    check_begin(&check, 52, 2);
    double *a = check_random(&check, COUNT + 1, 1.0, dtype), *b = check_random(&check, COUNT + 1, 1.0, dtype);
    double *sum = check_zeros(&check, COUNT);
    for (int64_t i = 0; i < COUNT; i++) sum[i] = check_rounded(0.5 * a[i + 1] + b[i], dtype);
    VlTensor left = vl_rows(check_upload(&check, a, dtype, COUNT + 1), 1, COUNT);
    VlTensor right = vl_rows(check_upload(&check, b, dtype, COUNT + 1), 0, COUNT);
    VlTensor y = vl_rows(check_output(&check, dtype, COUNT + 3), 3, COUNT);
    VlTensor other = vl_rows(check_output(&check, dtype == VL_F32 ? VL_BF16 : VL_F32, COUNT + 1), 1, COUNT);
    check_ok(&check, vl_add_tensors(check.context, y, left, 0.5f, right));
    check_tensor(&check, "y", y, sum, 0);
    check_ok(&check, vl_cast(check.context, other, y));
    check_round(sum, COUNT, other.dtype);
    check_tensor(&check, "the cast of y", other, sum, 0);
    check_end(&check);
}

static void test_add(void **state) {
    (void)state;
    static const int64_t counts[] = {0, 1, 3, 17, 1023, 1024, 1025, 40001};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        check_add(counts[i], VL_F32, 2);
        check_add(counts[i], VL_BF16, 2);
        check_add(counts[i], VL_BF16, 1);
    }
    check_views(VL_F32);
    check_views(VL_BF16);
}

static void check_zero(int64_t count, VlDtype dtype) {
    Check check;
    check_begin(&check, 53, 2);
    VlTensor y = check_output(&check, dtype, count);
    check_ok(&check, vl_zero(check.context, y));
    uint8_t *bytes = (uint8_t *)check_zeros(&check, vl_bytes(y) / 8 + 1);
    check_ok(&check, vl_copy_to_host(check.context, bytes, y));
    for (int64_t i = 0; i < vl_bytes(y); i++) assert_int_equal(bytes[i], 0);
    check_end(&check);
}

static void test_zero(void **state) {
    (void)state;
    static const int64_t counts[] = {0, 1, 3, 1025, 65537, 200003};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        check_zero(counts[i], VL_F32);
        check_zero(counts[i], VL_BF16);
        check_zero(counts[i], VL_I64);
        check_zero(counts[i], VL_U8);
    }
}

static void check_cast(int64_t count, VlDtype to, VlDtype from, int64_t threads) {
    Check check;
    check_begin(&check, 54, threads);
    double *x = check_random(&check, count, 1.0, from), *want = check_copy(&check, x, count);
    if (count > 4) {
        x[0] = check_rounded(1.00390625, from);  // half a bf16 step above 1: to even, down
        x[1] = check_rounded(1.01171875, from);  // half a step above 1 + a step: to even, up
        x[2] = check_rounded(3.4e38, from);      // over the largest bf16
        x[3] = -0.0;
        for (int i = 0; i < 4; i++) want[i] = x[i];
    }
    check_round(want, count, to);
    VlTensor y = check_output(&check, to, count);
    check_ok(&check, vl_cast(check.context, y, check_upload(&check, x, from, count)));
    double *got = check_download(&check, y);
    for (int64_t i = 0; i < count; i++) {
        if (!(got[i] == want[i]) || signbit(got[i]) != signbit(want[i])) {
            fail_msg("element %d: %.9g became %.9g, not %.9g", (int)i, x[i], got[i], want[i]);
        }
    }
    check_end(&check);
}

static void test_cast(void **state) {
    (void)state;
    static const int64_t counts[] = {0, 1, 3, 17, 1023, 1025, 40001};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        for (int64_t threads = 1; threads <= 2; threads++) {
            check_cast(counts[i], VL_F32, VL_BF16, threads);
            check_cast(counts[i], VL_BF16, VL_F32, threads);
            check_cast(counts[i], VL_F32, VL_F32, threads);
            check_cast(counts[i], VL_BF16, VL_BF16, threads);
            check_cast(counts[i], VL_F64, VL_F64, threads);
        }
    }
    // NaN and infinity stay what they are; whole numbers are copied.
    static const double special[] = {NAN, INFINITY, -INFINITY};
    static const int64_t whole[] = {1, -2, INT64_MAX};
    Check check;
    check_begin(&check, 55, 1);
    VlTensor y = check_output(&check, VL_BF16, 3), copy = check_device(&check, VL_I64, 3);
    check_ok(&check, vl_cast(check.context, y, check_upload(&check, special, VL_F32, 3)));
    double *got = check_download(&check, y);
    assert_true(isnan(got[0]) && isinf(got[1]) && got[1] > 0 && isinf(got[2]) && got[2] < 0);
    VlTensor integers = check_upload_i64(&check, whole, 3);
    check_ok(&check, vl_cast(check.context, copy, integers));
    check_same_bits(&check, "i64", copy, &check, integers);
    check_end(&check);
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 56, 1);
    VlContext *c = check.context;
    VlTensor a = check_device(&check, VL_F32, 4, 6), b = check_device(&check, VL_F32, 4, 6);
    VlTensor flat = check_device(&check, VL_F32, 24), half = check_device(&check, VL_BF16, 4, 6);
    VlTensor whole = check_device(&check, VL_I64, 4, 6), f16 = check_device(&check, VL_F16, 4, 6);
    VlTensor memory = check_device(&check, VL_F32, 25), first = vl_reshape(vl_rows(memory, 0, 24), 4, 6);
    VlTensor second = vl_reshape(vl_rows(memory, 1, 24), 4, 6), nowhere = vl_tensor(NULL, VL_F32, 4, 6);
    check_refused(vl_add_tensors(c, a, b, 1, flat), VL_INVALID,
                  "add_tensors: b is [24] f32, it must be as y [4,6] f32");
    check_refused(vl_add_tensors(c, a, half, 1, b), VL_INVALID, "a is [4,6] bf16");
    check_refused(vl_add_tensors(c, whole, whole, 1, whole), VL_INVALID, "y is [4,6] i64");
    check_refused(vl_add_tensors(c, VL_EMPTY, VL_EMPTY, 1, VL_EMPTY), VL_INVALID, "y is the empty view");
    check_refused(vl_add_tensors(c, second, first, 1, b), VL_INVALID, "overlap");
    check_refused(vl_add_tensors(c, second, b, 1, first), VL_INVALID, "overlap");
    check_refused(vl_add_tensors(c, a, b, 1, nowhere), VL_INVALID, "b [4,6] f32 has no memory");
    check_refused(vl_zero(c, VL_EMPTY), VL_INVALID, "zero: y is the empty view");
    check_refused(vl_zero(c, nowhere), VL_INVALID, "y [4,6] f32 has no memory");
    check_refused(vl_cast(c, half, flat), VL_INVALID, "cast: x is [24] f32, it must be as y [4,6] f32");
    check_refused(vl_cast(c, whole, a), VL_INVALID, "x is [4,6] f32, it must be as y [4,6] i64");
    check_refused(vl_cast(c, f16, a), VL_INVALID, "x is [4,6] f32, it must be as y [4,6] f16");
    check_refused(vl_cast(c, VL_EMPTY, a), VL_INVALID, "y is the empty view");
    check_refused(vl_cast(c, a, a), VL_INVALID, "overlap");
    check_refused(vl_cast(c, half, nowhere), VL_INVALID, "x [4,6] f32 has no memory");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_zero),
        cmocka_unit_test(test_cast),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
