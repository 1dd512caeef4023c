// group_slots against its definition.
#include "tests/ops/check.h"

typedef struct Groups {
    VlTensor offsets, tokens, places;
} Groups;

static Groups groups_make(Check *check, int64_t slots, int64_t experts) {
    return (Groups){check_device(check, VL_I64, experts + 1), check_device(check, VL_I64, slots),
                    check_device(check, VL_I64, slots)};
}

// A row's place is the number of slots that go before it: those of lower experts, and earlier ones of the same.
static void expect_groups(Check *check, Groups groups, const int64_t *experts, int64_t chosen) {
    int64_t slots = vl_elements(groups.tokens), count = vl_elements(groups.offsets) - 1;
    int64_t *offsets = check_random_indices(check, count + 1, 1), *tokens = check_random_indices(check, slots, 1);
    int64_t *places = check_random_indices(check, slots, 1);
    for (int64_t r = 0; r < slots; r++) {
        for (int64_t e = experts[r] + 1; e <= count; e++) offsets[e]++;
    }
    for (int64_t r = 0; r < slots; r++) {
        places[r] = offsets[experts[r]];
        for (int64_t other = 0; other < r; other++) places[r] += experts[other] == experts[r];
        tokens[places[r]] = r / chosen;
    }
    check_index_tensor(check, "offsets", groups.offsets, offsets);
    check_index_tensor(check, "tokens", groups.tokens, tokens);
    check_index_tensor(check, "places", groups.places, places);
}

// spread: how many experts get slots; the first of them is `first`.
static void verify(int64_t tokens, int64_t chosen, int64_t experts, int64_t first, int64_t spread) {
    Check check;
    check_begin(&check, 95, 2);
    int64_t *choice = check_random_indices(&check, tokens * chosen, spread);
    for (int64_t r = 0; r < tokens * chosen; r++) choice[r] += first;
    Groups groups = groups_make(&check, tokens * chosen, experts);
    VlTensor named = vl_reshape(check_upload_i64(&check, choice, tokens * chosen), tokens, chosen);
    check_ok(&check, vl_group_slots(check.context, groups.offsets, groups.tokens, groups.places, named));
    expect_groups(&check, groups, choice, chosen);
    check_end(&check);
}

static void test_group_slots(void **state) {
    (void)state;
    verify(1, 1, 1, 0, 1);
    verify(17, 2, 8, 0, 8);
    verify(0, 2, 4, 0, 4);
    verify(700, 2, 8, 0, 8);
    verify(513, 3, 5, 4, 1);  // all to the last
    verify(300, 1, 9, 3, 2);  // the outer ones get none
    verify(200, 2, 300, 0, 300);
    verify(1500, 2, 2, 0, 2);
    verify(0, 2, 0, 0, 1);
}

// What the host knew of the memory is no longer so when an operation has written there.
static void test_written(void **state) {
    (void)state;
    static const int64_t stale[] = {9, 9, 9, 9, 9, 9}, want[] = {1, 0, 1, 0, 1, 0};
    static const double logits[] = {1, 2, 1, 2, 1, 2};
    Check check;
    check_begin(&check, 96, 1);
    VlTensor experts = vl_reshape(check_upload_i64(&check, stale, 6), 3, 2),
             weights = check_device(&check, VL_F32, 3, 2);
    Groups groups = {check_upload_i64(&check, stale, 3), check_upload_i64(&check, stale, 6),
                     check_upload_i64(&check, stale, 6)};
    check_ok(&check, vl_route_forward(check.context, weights, experts, check_upload(&check, logits, VL_F32, 3, 2)));
    check_ok(&check, vl_group_slots(check.context, groups.offsets, groups.tokens, groups.places, experts));
    expect_groups(&check, groups, want, 2);
    VlTensor x = check_device(&check, VL_F32, 3, 4), rows = check_output(&check, VL_F32, 6, 4);
    VlTensor w = check_device(&check, VL_F32, 2, 5, 4), y = check_output(&check, VL_F32, 6, 5);
    check_ok(&check, vl_gather_rows_forward(check.context, rows, x, groups.tokens));
    check_ok(&check, vl_grouped_linear_forward(check.context, y, rows, w, groups.offsets, VL_WRITE));
    VlTensor sum = check_output(&check, VL_F32, 3, 5);
    check_ok(&check, vl_combine_forward(check.context, sum, y, weights, groups.places, VL_WRITE));
    check_end(&check);
}

static void test_refusals(void **state) {
    (void)state;
    static const int64_t above[] = {0, 1, 4, 2, 1, 0}, below[] = {0, 1, 3, 2, -1, 0};
    Check check;
    check_begin(&check, 97, 1);
    VlContext *c = check.context;
    Groups g = groups_make(&check, 6, 4), longer = groups_make(&check, 7, 4);
    VlTensor experts = check_device(&check, VL_I64, 3, 2);
    check_refused(
        vl_group_slots(c, g.offsets, g.tokens, g.places, vl_reshape(check_upload_i64(&check, above, 6), 3, 2)),
        VL_INVALID, "group_slots: experts[2] is 4, it must be in [0, 4)");
    check_refused(
        vl_group_slots(c, g.offsets, g.tokens, g.places, vl_reshape(check_upload_i64(&check, below, 6), 3, 2)),
        VL_INVALID, "experts[4] is -1");
    check_refused(vl_group_slots(c, g.offsets, longer.tokens, g.places, experts), VL_INVALID,
                  "tokens is [7] i64, it must be [6] i64");
    check_refused(vl_group_slots(c, g.offsets, g.tokens, longer.places, experts), VL_INVALID, "places is [7] i64");
    check_refused(vl_group_slots(c, vl_tensor(NULL, VL_I64, 0), g.tokens, g.places, experts), VL_INVALID,
                  "at least one offset");
    check_refused(vl_group_slots(c, g.offsets, g.tokens, g.tokens, experts), VL_INVALID, "overlap");
    check_end(&check);
}

// An expert that only the device knows is checked where it is used.
static void test_device_experts(void **state) {
    (void)state;
    static const int64_t above[] = {0, 1, 4, 2, 1, 0};
    Check check;
    check_begin(&check, 98, 1);
    VlContext *c = check.context;
    const char *text =
        c->device == VL_DEVICE_CUDA ? "element 2 of an index tensor is 4, it must be in [0, 4)" : "experts[2] is 4";
    Groups g = groups_make(&check, 6, 4);
    VlTensor experts = check_device(&check, VL_I64, 3, 2);
    check_ok(&check, vl_cast(c, experts, vl_reshape(check_upload_i64(&check, above, 6), 3, 2)));
    check_refused(vl_group_slots(c, g.offsets, g.tokens, g.places, experts), VL_INVALID, text);
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group_slots),
        cmocka_unit_test(test_written),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_device_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
