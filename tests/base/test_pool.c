#include <pthread.h>
#include <stdatomic.h>

#include "base/pool.h"
#include "tests/base/support.h"

typedef struct Job {
    int64_t input, output;
} Job;

static VlStatus square(void *argument) {
    Job *job = argument;
    if (job->input % 10 == 3) return vl_error(VL_FORMAT, "job %lld is bad", (long long)job->input);
    job->output = job->input * job->input;
    return VL_OK;
}

static void results_and_errors_come_back(void **state) {
    (void)state;
    enum { JOBS = 500 };
    static Job jobs[JOBS];
    static VlTask tasks[JOBS];
    for (int64_t threads = 1; threads <= 7; threads += 3) {
        VlPool *pool;
        assert_ok(vl_pool_open(&pool, threads));
        assert_int_equal(vl_pool_threads(pool), threads);
        for (int64_t i = 0; i < JOBS; i++) {
            jobs[i] = (Job){i, -1};
            tasks[i] = (VlTask){.run = square, .argument = &jobs[i]};
            assert_ok(vl_pool_wait(pool, &tasks[i]));  // never submitted
            vl_pool_submit(pool, &tasks[i], i % 7 == 0);
        }
        for (int64_t i = 0; i < JOBS; i++) {
            if (i % 10 == 3) {
                char text[64];
                snprintf(text, sizeof text, "job %lld is bad", (long long)i);
                assert_error(vl_pool_wait(pool, &tasks[i]), VL_FORMAT, text);
                assert_int_equal(jobs[i].output, -1);
            } else {
                assert_ok(vl_pool_wait(pool, &tasks[i]));
                assert_int_equal(jobs[i].output, i * i);
            }
        }
        vl_pool_close(pool);
    }
}

// A gate that holds the only thread, and a row in which tasks leave their names.
typedef struct Row {
    pthread_mutex_t gate;
    char names[16];
    _Atomic int used;
} Row;

typedef struct Named {
    Row *row;
    char name;
} Named;

static VlStatus pass_gate(void *argument) {
    Named *named = argument;
    pthread_mutex_lock(&named->row->gate);
    pthread_mutex_unlock(&named->row->gate);
    named->row->names[named->row->used++] = named->name;
    return VL_OK;
}

static void urgent_tasks_go_first(void **state) {
    (void)state;
    VlPool *pool;
    Row row = {.gate = PTHREAD_MUTEX_INITIALIZER};
    Named named[5];
    VlTask tasks[5];
    assert_ok(vl_pool_open(&pool, 1));
    pthread_mutex_lock(&row.gate);
    for (int i = 0; i < 5; i++) {
        named[i] = (Named){&row, (char)('a' + i)};
        tasks[i] = (VlTask){.run = pass_gate, .argument = &named[i]};
    }
    vl_pool_submit(pool, &tasks[1], false);
    vl_pool_submit(pool, &tasks[2], false);
    vl_pool_submit(pool, &tasks[3], true);
    vl_pool_submit(pool, &tasks[4], false);
    pthread_mutex_unlock(&row.gate);
    for (int i = 1; i < 5; i++) assert_ok(vl_pool_wait(pool, &tasks[i]));
    // Whether the thread took 'b' before 'd' was there depends on its speed; the rest does not.
    assert_true(!strcmp(row.names, "dbce") || !strcmp(row.names, "bdce"));
    pthread_mutex_lock(&row.gate);  // what nobody has begun is dropped at the end
    vl_pool_submit(pool, &tasks[0], false);
    pthread_mutex_unlock(&row.gate);
    vl_pool_close(pool);
    assert_in_range(row.used, 4, 5);
    vl_pool_close(NULL);
}

static void wrong_numbers_are_refused(void **state) {
    (void)state;
    VlPool *pool;
    assert_error(vl_pool_open(&pool, 0), VL_INVALID, "0 threads");
    assert_error(vl_pool_open(&pool, 5000), VL_INVALID, "1 to 4096");
    vl_fault_arm(0);
    assert_error(vl_pool_open(&pool, 1), VL_OUT_OF_MEMORY, "out of memory");
    vl_fault_arm(1);
    assert_error(vl_pool_open(&pool, 1), VL_OUT_OF_MEMORY, "out of memory");
    assert_true(vl_cpu_count() >= 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_and_errors_come_back),
        cmocka_unit_test(urgent_tasks_go_first),
        cmocka_unit_test(wrong_numbers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
