#include "base/crc32c.h"
#include "base/random.h"
#include "tests/base/support.h"

static void known_answers(void **state) {
    (void)state;
    unsigned char bytes[32];
    assert_int_equal(vl_crc32c(0, "123456789", 9), 0xE3069283u);
    assert_int_equal(vl_crc32c(0, "", 0), 0);
    // RFC 3720, appendix B.4: 32 bytes of zeros, of ones, rising, falling.
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(vl_crc32c(0, bytes, 32), 0x8A9136AAu);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(vl_crc32c(0, bytes, 32), 0x62A8AB43u);
    for (int i = 0; i < 32; i++) bytes[i] = (unsigned char)i;
    assert_int_equal(vl_crc32c(0, bytes, 32), 0x46DD794Eu);
    for (int i = 0; i < 32; i++) bytes[i] = (unsigned char)(31 - i);
    assert_int_equal(vl_crc32c(0, bytes, 32), 0x113FDB5Cu);
}

static void both_ways_and_all_cuts_agree(void **state) {
    (void)state;
    unsigned char bytes[1000];
    VlRandom random = vl_random(1, 0);
    for (int i = 0; i < 1000; i++) bytes[i] = (unsigned char)vl_random_u64(&random);
    for (int64_t begin = 0; begin < 9; begin++) {
        for (int64_t size = 0; size < 200; size++) {
            assert_int_equal(vl_crc32c(7, bytes + begin, size), vl_crc32c_portable(7, bytes + begin, size));
        }
    }
    uint32_t whole = vl_crc32c(0, bytes, 1000);
    for (int64_t cut = 0; cut <= 1000; cut++) {
        assert_int_equal(vl_crc32c(vl_crc32c(0, bytes, cut), bytes + cut, 1000 - cut), whole);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(both_ways_and_all_cuts_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
