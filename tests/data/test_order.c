#include "data/deal.h"
#include "data/order.h"
#include "tests/data/packing.h"

static VlOrder *make(const VlOrderSource *sources, int64_t count, const char *mix, uint64_t seed) {
    VlOrder *order;
    assert_ok(vl_order_create(&order, sources, count, mix, seed));
    return order;
}

static void test_every_sample_once_per_pass(void **state) {
    (void)state;
    const VlOrderSource sources[] = {
        {.samples = 100, .weight = 1.0}, {.samples = 37, .weight = 1.0}, {.samples = 1, .weight = 1.0}};
    VlOrder *order = make(sources, 3, "proportional", 42);
    assert_int_equal(vl_order_samples(order), 138);
    for (int64_t epoch = 0; epoch < 3; epoch++) {
        int seen[3][100] = {{0}};
        for (int64_t i = 0; i < 138; i++) {
            VlOrderPlace place = vl_order_at(order, epoch * 138 + i);
            assert_int_equal(place.epoch, epoch);
            assert_in_range(place.source, 0, 2);
            assert_in_range(place.index, 0, sources[place.source].samples - 1);
            seen[place.source][place.index]++;
        }
        for (int64_t s = 0; s < 3; s++) {
            for (int64_t i = 0; i < sources[s].samples; i++) assert_int_equal(seen[s][i], 1);
        }
    }
    vl_order_free(order);
}

static void test_weights(void **state) {
    (void)state;
    // 0.5: one half in each pass, the halves together are everything; 2.5: every sample five times in two passes.
    const VlOrderSource sources[] = {{.samples = 50, .weight = 0.5}, {.samples = 20, .weight = 2.5}};
    VlOrder *order = make(sources, 2, "proportional", 7);
    assert_int_equal(vl_order_samples(order), 25 + 50);
    int seen[2][50] = {{0}};
    for (int64_t i = 0; i < 75; i++) {
        VlOrderPlace place = vl_order_at(order, i);
        seen[place.source][place.index]++;
    }
    for (int64_t i = 0; i < 50; i++) assert_in_range(seen[0][i], 0, 1);
    for (int64_t i = 0; i < 20; i++) assert_in_range(seen[1][i], 2, 3);
    for (int64_t i = 75; i < 150; i++) {
        VlOrderPlace place = vl_order_at(order, i);
        seen[place.source][place.index]++;
    }
    for (int64_t i = 0; i < 50; i++) assert_int_equal(seen[0][i], 1);
    for (int64_t i = 0; i < 20; i++) assert_int_equal(seen[1][i], 5);
    vl_order_free(order);
}

// The closed form against the definition: all samples of a pass sorted by their times.
static void test_interleaving_is_by_time(void **state) {
    (void)state;
    const int64_t sizes[][4] = {{1, 1, 1, 1}, {7, 7, 1, 30}, {100, 3, 50, 2}, {1000, 999, 1, 500}, {5, 0, 0, 0}};
    for (size_t set = 0; set < 5; set++) {
        VlOrderSource sources[4];
        int64_t count = 0, samples = 0;
        while (count < 4 && sizes[set][count]) {
            sources[count] = (VlOrderSource){.samples = sizes[set][count], .weight = 1.0};
            samples += sizes[set][count++];
        }
        VlOrder *order = make(sources, count, "proportional", set);
        int64_t next[4] = {0};
        for (int64_t i = 0; i < samples; i++) {
            int64_t best = -1;
            for (int64_t s = 0; s < count; s++) {
                if (next[s] == sizes[set][s]) continue;
                if (best < 0 || (2 * next[s] + 1) * sizes[set][best] < (2 * next[best] + 1) * sizes[set][s]) best = s;
            }
            next[best]++;
            assert_int_equal(vl_order_at(order, i).source, best);
            for (int64_t s = 0; s < count; s++) {
                double fair = (double)(i + 1) * (double)sizes[set][s] / (double)samples;
                if (!((double)next[s] - fair < 2.0 && fair - (double)next[s] < 2.0)) fail_msg("uneven at %d", (int)i);
            }
        }
        vl_order_free(order);
    }
}

static void test_seed_and_pass_change_the_order(void **state) {
    (void)state;
    const VlOrderSource source = {.samples = 1000, .weight = 1.0};
    VlOrder *first = make(&source, 1, "proportional", 1), *same = make(&source, 1, "proportional", 1);
    VlOrder *other = make(&source, 1, "proportional", 2);
    int equal_seed = 0, equal_pass = 0, fixed = 0;
    for (int64_t i = 999; i >= 0; i--) {
        assert_int_equal(vl_order_at(first, i).index, vl_order_at(same, i).index);
        equal_seed += vl_order_at(first, i).index == vl_order_at(other, i).index;
        equal_pass += vl_order_at(first, i).index == vl_order_at(first, i + 1000).index;
        fixed += vl_order_at(first, i).index == i;
    }
    // About one each by chance.
    assert_true(equal_seed < 12 && equal_pass < 12 && fixed < 12);
    vl_order_free(first);
    vl_order_free(same);
    vl_order_free(other);
}

static void test_far_positions(void **state) {
    (void)state;
    const VlOrderSource sources[] = {{.samples = (int64_t)1 << 40, .weight = 1.0}, {.samples = 3, .weight = 1.0}};
    VlOrder *order = make(sources, 2, "proportional", 5);
    int64_t last = vl_order_samples(order) - 1;
    for (int64_t i = 0; i < 1000; i++) {
        VlOrderPlace place = vl_order_at(order, last * 3 - i);
        assert_in_range(place.index, 0, sources[place.source].samples - 1);
    }
    vl_order_free(order);
}

static void test_pattern(void **state) {
    (void)state;
    uint8_t first[30], second[12];
    for (int i = 0; i < 30; i++) first[i] = i % 3 == 0 ? VL_MODAL_VIDEO : VL_MODAL_IMAGE;  // 10 videos, 20 images
    for (int i = 0; i < 12; i++) second[i] = i < 5 ? VL_MODAL_VIDEO : VL_MODAL_TEXT;       // 5 videos, 7 texts
    const VlOrderSource sources[] = {{.samples = 30, .weight = 1.0, .modality = first},
                                     {.samples = 12, .weight = 1.0, .modality = second}};
    const uint8_t pattern[] = {VL_MODAL_VIDEO, VL_MODAL_VIDEO, VL_MODAL_IMAGE, VL_MODAL_TEXT};
    VlOrder *order = make(sources, 2, "v,v,i,t", 3);
    assert_int_equal(vl_order_samples(order), 42);
    // 15 videos at two per pattern, 20 images and 7 texts at one: after 20 patterns all were seen.
    int seen[2][30] = {{0}}, videos = 0;
    for (int64_t i = 0; i < 80; i++) {
        VlOrderPlace place = vl_order_at(order, i);
        assert_int_equal(sources[place.source].modality[place.index], pattern[i % 4]);
        seen[place.source][place.index]++;
        videos += pattern[i % 4] == VL_MODAL_VIDEO;
        if (pattern[i % 4] == VL_MODAL_VIDEO && videos <= 15) assert_int_equal(seen[place.source][place.index], 1);
    }
    for (int i = 0; i < 30; i++) assert_in_range(seen[0][i], 1, 3);
    for (int i = 0; i < 12; i++) assert_in_range(seen[1][i], 1, 3);
    for (int i = 0; i < 30; i++) {
        if (first[i] == VL_MODAL_IMAGE) assert_int_equal(seen[0][i], 1);
    }
    vl_order_free(order);
}

// The joint stage's pattern: videos with their sound are a modality of their own, apart from videos and sounds.
static void test_pattern_with_sound(void **state) {
    (void)state;
    uint8_t modality[40];
    for (int i = 0; i < 40; i++) modality[i] = i < 20 ? VL_ORDER_AV : i < 30 ? VL_MODAL_AUDIO : VL_MODAL_VIDEO;
    const VlOrderSource source = {.samples = 40, .weight = 1.0, .modality = modality};
    const uint8_t pattern[] = {VL_ORDER_AV, VL_ORDER_AV, VL_MODAL_AUDIO, VL_MODAL_VIDEO};
    VlOrder *order = make(&source, 1, "av,av,a,v", 3);
    int seen[40] = {0};
    for (int64_t i = 0; i < 40; i++) {
        VlOrderPlace place = vl_order_at(order, i);
        assert_int_equal(modality[place.index], pattern[i % 4]);
        seen[place.index]++;
    }
    for (int i = 0; i < 40; i++) assert_int_equal(seen[i], 1);
    vl_order_free(order);
    assert_status(vl_order_create(&order, &source, 1, "av,a", 0), VL_INVALID);
    assert_error_names("10 video samples");
    assert_status(vl_order_create(&order, &source, 1, "v,a", 0), VL_INVALID);
    assert_error_names("video with its sound");
}

static void test_refusals(void **state) {
    (void)state;
    const uint8_t texts[3] = {VL_MODAL_TEXT, VL_MODAL_TEXT, VL_MODAL_IMAGE};
    const VlOrderSource source = {.samples = 3, .weight = 1.0, .modality = texts};
    VlOrderSource wrong = source;
    VlOrder *order;
    static const char *const bad_mixes[] = {"",     "v,", ",v",  "x",   "vi",   "v v", "proportionate",
                                            "v,,i", "va", "av,", "avi", "a,va", "AV"};
    for (size_t i = 0; i < sizeof bad_mixes / sizeof *bad_mixes; i++) {
        assert_status(vl_order_create(&order, &source, 1, bad_mixes[i], 0), VL_USAGE);
    }
    assert_status(vl_order_create(&order, &source, 1, "t,v,i", 0), VL_INVALID);
    assert_error_names("video");
    assert_status(vl_order_create(&order, &source, 1, "t", 0), VL_INVALID);
    assert_error_names("never reach");
    static const double weights[] = {0.0, -1.0, 0.1, 1e300, 0.0 / 1e-300};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        wrong.weight = weights[i];
        assert_status(vl_order_create(&order, &wrong, 1, "proportional", 0), VL_INVALID);
    }
    wrong = (VlOrderSource){.samples = 0, .weight = 1.0};
    assert_status(vl_order_create(&order, &wrong, 1, "proportional", 0), VL_INVALID);
    assert_status(vl_order_create(&order, &source, 0, "proportional", 0), VL_INVALID);
}

static void test_deal(void **state) {
    (void)state;
    enum { COUNT = 61 };
    int64_t cost[COUNT], rank[COUNT];
    for (int64_t i = 0; i < COUNT; i++) cost[i] = vl_deal_cost(20 + i * i * 7 % 1900);
    assert_true(vl_deal_cost(2000) > 2 * vl_deal_cost(1000));
    for (int64_t ranks = 1; ranks <= 80; ranks++) {
        int64_t load[80] = {0}, total = 0, most = 0, largest = 0;
        assert_ok(vl_deal(cost, COUNT, ranks, rank));
        for (int64_t i = 0; i < COUNT; i++) {
            assert_in_range(rank[i], 0, ranks - 1);
            load[rank[i]] += cost[i];
            total += cost[i];
            if (cost[i] > largest) largest = cost[i];
        }
        for (int64_t r = 0; r < ranks; r++) {
            if (load[r] > most) most = load[r];
            if (ranks <= COUNT) assert_true(load[r] > 0);
        }
        double best = (double)total / (double)ranks > (double)largest ? (double)total / (double)ranks : (double)largest;
        if (!((double)most <= best * 4.0 / 3.0 + (double)largest / 3.0)) fail_msg("%d ranks: uneven", (int)ranks);
    }
    const int64_t steep[6] = {1, 1, 100, 1, 1, 1};
    assert_ok(vl_deal(steep, 6, 2, rank));
    for (int64_t i = 0; i < 6; i++) assert_int_equal(rank[i], i != 2);
    const int64_t even[4] = {5, 5, 5, 5};
    assert_ok(vl_deal(even, 4, 2, rank));
    for (int64_t i = 0; i < 4; i++) assert_int_equal(rank[i], i % 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_sample_once_per_pass),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_interleaving_is_by_time),
        cmocka_unit_test(test_seed_and_pass_change_the_order),
        cmocka_unit_test(test_far_positions),
        cmocka_unit_test(test_pattern),
        cmocka_unit_test(test_pattern_with_sound),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_deal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
