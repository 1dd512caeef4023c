#include <math.h>

#include "base/random.h"
#include "tests/base/support.h"

static void philox_gives_the_published_answers(void **state) {
    (void)state;
    // The known answers of Philox4x32-10 in the Random123 distribution; words of counter and key in rising order.
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const uint32_t *counter = cases[i].counter, *key = cases[i].key;
        uint32_t out[4];
        vl_philox(out, (uint64_t)key[1] << 32 | key[0], (uint64_t)counter[3] << 32 | counter[2],
                  (uint64_t)counter[1] << 32 | counter[0]);
        assert_memory_equal(out, cases[i].answer, sizeof out);
    }
}

static void a_stream_is_a_function_of_its_position(void **state) {
    (void)state;
    VlRandom random = vl_random(7, 9), other = vl_random(7, 10);
    uint64_t draws[8];
    for (int i = 0; i < 8; i++) draws[i] = vl_random_u64(&random);
    for (int i = 7; i >= 0; i--) {
        VlRandom jumped = {7, 9, (uint64_t)i};
        assert_true(vl_random_u64(&jumped) == draws[i]);
    }
    assert_true(vl_random_u64(&other) != draws[0]);
}

static void bounded_draws_are_uniform(void **state) {
    (void)state;
    VlRandom random = vl_random(3, 0);
    int64_t counts[7] = {0};
    for (int i = 0; i < 70000; i++) {
        int64_t draw = vl_random_below(&random, 7);
        assert_true(draw >= 0 && draw < 7);
        counts[draw]++;
    }
    double chi = 0;
    for (int i = 0; i < 7; i++) chi += (double)((counts[i] - 10000) * (counts[i] - 10000)) / 10000;
    if (!(chi < 22.5)) fail_msg("chi-squared with 6 degrees of freedom: %g", chi);  // one in a thousand
    for (int i = 0; i < 100; i++) assert_int_equal(vl_random_below(&random, 1), 0);
    int64_t above = 0;
    for (int i = 0; i < 1000; i++) above += vl_random_below(&random, INT64_MAX) > INT64_MAX / 2;
    assert_in_range(above, 430, 570);
    // A bound that does not divide 2^64 by far: the plain remainder would hit the upper third once in four times.
    const int64_t third = 1LL << 61;
    int64_t upper = 0;
    for (int i = 0; i < 10000; i++) upper += vl_random_below(&random, 3 * third) >= 2 * third;
    assert_in_range(upper, 3333 - 190, 3333 + 190);
}

static void moments_are_right(void **state) {
    (void)state;
    enum { DRAWS = 400000 };
    VlRandom random = vl_random(5, 1);
    double uniform[2] = {0}, normal[4] = {0};
    for (int i = 0; i < DRAWS; i++) {
        double u = vl_random_uniform(&random), n = vl_random_normal(&random);
        assert_true(u >= 0 && u < 1 && isfinite(n));
        uniform[0] += u, uniform[1] += u * u;
        normal[0] += n, normal[1] += n * n, normal[2] += n * n * n, normal[3] += n * n * n * n;
    }
    const double got[6] = {uniform[0], uniform[1], normal[0], normal[1], normal[2], normal[3]};
    const double expected[6] = {0.5, 1.0 / 3, 0, 1, 0, 3};
    const double deviation[6] = {0.289, 0.298, 1, 1.415, 3.873, 9.798};  // of one draw of each
    for (int i = 0; i < 6; i++) {
        double error = fabs(got[i] / DRAWS - expected[i]);
        if (!(error <= 4 * deviation[i] / sqrt(DRAWS))) fail_msg("moment %d is off by %g", i, error);
    }
}

static void small_permutations_are_bijections(void **state) {
    (void)state;
    for (uint64_t key = 0; key < 3; key++) {
        for (int64_t count = 1; count <= 300; count++) {
            bool seen[300] = {false};
            for (int64_t i = 0; i < count; i++) {
                int64_t image = vl_permute(i, count, key);
                assert_true(image >= 0 && image < count);
                assert_false(seen[image]);
                seen[image] = true;
            }
        }
    }
}

static void a_large_permutation_is_a_shuffle(void **state) {
    (void)state;
    enum { COUNT = 1000003 };
    char *seen;
    int64_t fixed = 0, different = 0;
    assert_ok(VL_NEW(&seen, COUNT));
    for (int64_t i = 0; i < COUNT; i++) {
        int64_t image = vl_permute(i, COUNT, 42);
        assert_true(image >= 0 && image < COUNT);
        assert_int_equal(seen[image]++, 0);
        fixed += image == i;
    }
    vl_free(seen);
    assert_in_range(fixed, 0, 8);  // Poisson with mean 1
    for (int64_t i = 0; i < 1000; i++) different += vl_permute(i, COUNT, 42) != vl_permute(i, COUNT, 43);
    assert_in_range(different, 990, 1000);
    const int64_t giants[] = {(1LL << 62) - 1, 1LL << 62, (1LL << 62) + 1, INT64_MAX};
    for (int i = 0; i < 4; i++) {
        int64_t first = vl_permute(0, giants[i], 1), last = vl_permute(giants[i] - 1, giants[i], 1);
        assert_true(first >= 0 && first < giants[i] && last >= 0 && last < giants[i] && first != last);
    }
}

static void hashes_differ(void **state) {
    (void)state;
    assert_true(vl_hash_string("a") != vl_hash_string("b"));
    assert_true(vl_hash_string("ab") != vl_hash_string("ba"));
    // FNV-1a of the empty string is its offset basis; behind it the mixer, computed by hand.
    uint64_t basis = 0xcbf29ce484222325u;
    basis = (basis ^ basis >> 33) * 0xff51afd7ed558ccdu;
    assert_true(vl_hash_string("") == (basis ^ basis >> 33));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(a_stream_is_a_function_of_its_position),
        cmocka_unit_test(bounded_draws_are_uniform),
        cmocka_unit_test(moments_are_right),
        cmocka_unit_test(small_permutations_are_bijections),
        cmocka_unit_test(a_large_permutation_is_a_shuffle),
        cmocka_unit_test(hashes_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
