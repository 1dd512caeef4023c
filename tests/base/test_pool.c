#include "base/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
// cmocka wants the above first.
#include <cmocka.h>

#include "base/memory.h"

enum { TASKS = 200 };

typedef struct Work {
    VlTask task;
    int number;
    atomic_int runs;
    int order;  // when it began, among all
} Work;

static atomic_int begun;

static VlStatus work(void *argument) {
    Work *own = argument;
    own->order = atomic_fetch_add(&begun, 1);
    atomic_fetch_add(&own->runs, 1);
    if (own->number % 7 == 3) return vl_error(VL_FORMAT, "task %d refuses", own->number);
    return VL_OK;
}

static void fill(Work *list) {
    atomic_store(&begun, 0);
    for (int i = 0; i < TASKS; i++) {
        memset(&list[i], 0, sizeof list[i]);
        list[i].number = i;
        list[i].task = (VlTask){.run = work, .argument = &list[i]};
    }
}

static void test_results_travel(void **state) {
    (void)state;
    static Work list[TASKS];
    for (int64_t threads = 1; threads <= 5; threads += 2) {
        VlPool *pool;
        assert_int_equal(vl_pool_open(&pool, threads), VL_OK);
        assert_int_equal(vl_pool_threads(pool), threads);
        fill(list);
        for (int i = 0; i < TASKS; i++) vl_pool_submit(pool, &list[i].task, false);
        for (int i = 0; i < TASKS; i++) {
            VlStatus status = vl_pool_wait(pool, &list[i].task);
            assert_int_equal(status, i % 7 == 3 ? VL_FORMAT : VL_OK);
            if (status) {
                char wanted[64];
                snprintf(wanted, sizeof wanted, "task %d refuses", i);
                assert_string_equal(vl_error_text(), wanted);
            }
            assert_int_equal(atomic_load(&list[i].runs), 1);
            assert_int_equal(vl_pool_wait(pool, &list[i].task), VL_OK);  // nothing is submitted
        }
        vl_pool_close(pool);
    }
}

static VlStatus hold(void *argument) {
    atomic_int *gate = argument;
    while (!atomic_load(gate)) usleep(100);
    return VL_OK;
}

// One thread that is held up: of the tasks behind it the urgent ones go first, the others in their order.
static void test_order(void **state) {
    (void)state;
    static Work list[TASKS];
    atomic_int gate = 0;
    VlTask holder = {.run = hold, .argument = &gate};
    VlPool *pool;
    assert_int_equal(vl_pool_open(&pool, 1), VL_OK);
    fill(list);
    vl_pool_submit(pool, &holder, false);
    for (int i = 0; i < 10; i++) vl_pool_submit(pool, &list[i].task, i >= 8);
    atomic_store(&gate, 1);
    for (int i = 0; i < 10; i++) vl_pool_wait(pool, &list[i].task);
    vl_pool_wait(pool, &holder);
    for (int i = 0; i < 8; i++) assert_int_equal(list[i].order, i + 2);
    assert_int_equal(list[8].order + list[9].order, 1);
    vl_pool_close(pool);
}

static void test_close_drops_what_has_not_begun(void **state) {
    (void)state;
    static Work list[TASKS];
    for (int64_t round = 0; round < 20; round++) {
        VlPool *pool;
        int runs = 0;
        assert_int_equal(vl_pool_open(&pool, 1 + round % 4), VL_OK);
        fill(list);
        for (int i = 0; i < TASKS; i++) vl_pool_submit(pool, &list[i].task, false);
        vl_pool_close(pool);
        for (int i = 0; i < TASKS; i++) runs += atomic_load(&list[i].runs);
        assert_int_equal(runs, atomic_load(&begun));
    }
    vl_pool_close(NULL);
}

static void test_refusals(void **state) {
    (void)state;
    VlPool *pool;
    assert_int_equal(vl_pool_open(&pool, 0), VL_INVALID);
    assert_int_equal(vl_pool_open(&pool, 5000), VL_INVALID);
    for (int64_t n = 0; n < 2; n++) {
        vl_fault_arm(n);
        assert_int_equal(vl_pool_open(&pool, 2), VL_OUT_OF_MEMORY);
        vl_fault_arm(-1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results_travel),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_close_drops_what_has_not_begun),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
