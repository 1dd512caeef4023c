#include <math.h>

#include "base/dtype.h"
#include "base/random.h"
#include "tests/base/support.h"

// A short binary format: value bits of the significand (the hidden one too), least exponent of a normal number.
typedef struct Short {
    int digits, least;
    double limit;  // from here on, a magnitude rounds to infinity
} Short;

static const Short f16 = {11, -14, 65520.0}, bf16 = {8, -126, 0x1.ffp127};

// `value` in the short format, by exact double arithmetic: a grid of spacing 2^(exponent - digits + 1), ties to even.
static double rounded(double value, Short format) {
    if (isnan(value) || isinf(value) || value == 0) return value;
    if (fabs(value) >= format.limit) return copysign(INFINITY, value);
    int exponent;
    frexp(value, &exponent);
    exponent = exponent - 1 < format.least ? format.least : exponent - 1;
    return ldexp(nearbyint(ldexp(value, format.digits - 1 - exponent)), exponent - format.digits + 1);
}

static double f16_value(VlF16 bits) {
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                       : exponent     ? ldexp(1024 + mantissa, exponent - 25)
                                      : ldexp(mantissa, -24);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static double bf16_value(VlBf16 bits) {
    int exponent = bits >> 7 & 255, mantissa = bits & 127;
    double magnitude = exponent == 255 ? (mantissa ? NAN : INFINITY)
                       : exponent      ? ldexp(128 + mantissa, exponent - 134)
                                       : ldexp(mantissa, -133);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static bool same(double a, double b) { return isnan(a) ? isnan(b) : a == b && signbit(a) == signbit(b); }

static void every_pattern_survives(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float half = vl_f32_from_f16((VlF16)bits), brain = vl_f32_from_bf16((VlBf16)bits);
        assert_true(same(half, f16_value((VlF16)bits)));
        assert_true(same(brain, bf16_value((VlBf16)bits)));
        if (isnan(half)) {
            assert_true(isnan(f16_value(vl_f16_from_f32(half))));
        } else {
            assert_int_equal(vl_f16_from_f32(half), bits);
        }
        if (isnan(brain)) {
            assert_int_equal(vl_bf16_from_f32(brain), bits | 0x40);
        } else {
            assert_int_equal(vl_bf16_from_f32(brain), bits);
        }
    }
}

static void check_rounding(double value) {
    VlF16 half;
    VlBf16 brain;
    float single = (float)value;
    if (!same(f16_value(vl_f16_from_f32(single)), rounded(single, f16))) fail_msg("f16 of %a", (double)single);
    if (!same(bf16_value(vl_bf16_from_f32(single)), rounded(single, bf16))) fail_msg("bf16 of %a", (double)single);
    vl_convert(&half, VL_F16, &value, VL_F64, 1);
    if (!same(f16_value(half), rounded(value, f16))) fail_msg("f16 of the double %a", value);
    vl_convert(&brain, VL_BF16, &value, VL_F64, 1);
    if (!same(bf16_value(brain), rounded(value, bf16))) fail_msg("bf16 of the double %a", value);
}

static void rounding_is_to_nearest_even(void **state) {
    (void)state;
    VlRandom random = vl_random(1, 2);
    for (int i = 0; i < 2000000; i++) {
        uint32_t bits = (uint32_t)vl_random_u64(&random);
        float value;
        memcpy(&value, &bits, sizeof value);
        check_rounding((double)value);
    }
    // Around every half-way point, by the last place of a float and of a double.
    for (uint32_t bits = 0; bits < 65535; bits++) {
        double points[2] = {(f16_value((VlF16)bits) + f16_value((VlF16)(bits + 1))) / 2,
                            (bf16_value((VlBf16)bits) + bf16_value((VlBf16)(bits + 1))) / 2};
        for (int i = 0; i < 2; i++) {
            if (!isfinite(points[i])) continue;
            check_rounding(points[i]);
            check_rounding((double)nextafterf((float)points[i], INFINITY));
            check_rounding((double)nextafterf((float)points[i], -INFINITY));
            check_rounding(nextafter(points[i], INFINITY));
            check_rounding(nextafter(points[i], -INFINITY));
        }
    }
    const double edges[] = {65519.999, 65520,  65504,  0x1p-24,  0x1p-25, 0x1.8p-25, 0x1p-26,  0x1.fep127, 0x1.ffp127,
                            1e300,     -1e300, 1e-300, INFINITY, NAN,     -0.0,      0x1p-133, 0x1p-134,   0x1.8p-134};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) check_rounding(edges[i]);
}

// The halves of an f32: the upper is the bf16 next to it, and no bit is lost.
static void check_halves(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    VlHalves halves = vl_halves_from_f32(value);
    float joined = vl_f32_from_halves(halves.upper, halves.remainder);
    if (isnan(value)) {
        assert_true(isnan(joined) && isnan(vl_f32_from_bf16(halves.upper)) && halves.remainder == 0);
        return;
    }
    if (memcmp(&joined, &value, sizeof value) != 0) fail_msg("%a became %a", (double)value, (double)joined);
    uint32_t low = bits & 0xffffu;  // half-way: away from zero
    VlBf16 next = low == 0x8000u ? (VlBf16)((bits >> 16) + 1) : vl_bf16_from_f32(value);
    if (halves.upper != next) fail_msg("next to %a is %04x, not %04x", (double)value, next, halves.upper);
}

static void halves_lose_nothing(void **state) {
    (void)state;
    static const uint32_t low[] = {0, 1, 2, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff};
    VlRandom random = vl_random(1, 3);
    for (uint32_t upper = 0; upper < 65536; upper++) {
        for (size_t i = 0; i < sizeof low / sizeof *low; i++) check_halves(upper << 16 | low[i]);
    }
    for (int i = 0; i < 2000000; i++) check_halves((uint32_t)vl_random_u64(&random));
    // Every remainder belongs to a number of its own.
    for (int32_t remainder = INT16_MIN; remainder <= INT16_MAX; remainder++) {
        VlHalves halves = vl_halves_from_f32(vl_f32_from_halves(0xc2f7, (int16_t)remainder));
        assert_true(halves.upper == 0xc2f7 && halves.remainder == remainder);
    }
}

static void arrays_are_converted(void **state) {
    (void)state;
    const float from[5] = {1.0f, -2.5f, 0.1f, 70000.0f, -0.0f};
    VlBf16 brain[5], again[5];
    VlF16 half[5];
    double wide[5];
    float back[5];
    vl_convert(brain, VL_BF16, from, VL_F32, 5);
    vl_convert(half, VL_F16, from, VL_F32, 5);
    vl_convert(wide, VL_F64, from, VL_F32, 5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(brain[i], vl_bf16_from_f32(from[i]));
        assert_int_equal(half[i], vl_f16_from_f32(from[i]));
        assert_true(wide[i] == (double)from[i]);
    }
    vl_convert(back, VL_F32, wide, VL_F64, 5);
    assert_memory_equal(back, from, sizeof from);
    vl_convert(back, VL_F32, brain, VL_BF16, 5);
    for (int i = 0; i < 5; i++) assert_true(same(back[i], vl_f32_from_bf16(brain[i])));
    vl_convert(again, VL_BF16, half, VL_F16, 5);
    for (int i = 0; i < 5; i++) assert_int_equal(again[i], vl_bf16_from_f32(vl_f32_from_f16(half[i])));
    memmove(again, brain, sizeof brain);
    vl_convert(again + 1, VL_BF16, again, VL_BF16, 4);  // equal types may overlap
    assert_memory_equal(again + 1, brain, 4 * sizeof *brain);
}

static void names_and_sizes(void **state) {
    (void)state;
    const int64_t sizes[VL_DTYPE_COUNT] = {4, 2, 2, 8, 8, 4, 2, 1, 1, 1};
    const char *names[VL_DTYPE_COUNT] = {"f32", "bf16", "f16", "f64", "i64", "i32", "i16", "i8", "u8", "bool"};
    for (int i = 0; i < VL_DTYPE_COUNT; i++) {
        assert_int_equal(vl_dtype_size((VlDtype)i), sizes[i]);
        assert_string_equal(vl_dtype_name((VlDtype)i), names[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pattern_survives), cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(halves_lose_nothing),    cmocka_unit_test(arrays_are_converted),
        cmocka_unit_test(names_and_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
