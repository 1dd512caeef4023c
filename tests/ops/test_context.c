// Contexts, device memory, arenas, the guard and the plan backend.
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "ops/profile.h"
#include "tests/ops/check.h"

static void test_create(void **state) {
    (void)state;
    setenv("VL2_GUARD", "1", 1);
    VlContext *context;
    check_refused(vl_context_create(&context, VL_DEVICE_CPU, -1), VL_INVALID, "threads is -1");
    assert_int_equal(vl_context_create(&context, VL_DEVICE_CPU, 0), VL_OK);
    assert_true(context->threads >= 1 && !context->planning);
    vl_context_free(context);
    vl_context_free(NULL);
    for (int64_t n = 0; n < 2; n++) {
        vl_fault_arm(n);
        assert_int_equal(vl_context_create(&context, VL_DEVICE_CPU, 1), VL_OUT_OF_MEMORY);
    }
    vl_fault_arm(-1);
}

static void test_memory(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 1, 1);
    static const int64_t sizes[] = {0, 1, 63, 64, 4096, 4097, 5 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *memory;
        check_ok(&check, vl_device_allocate(check.context, sizes[i], &memory));
        assert_int_equal((intptr_t)memory % 64, 0);
        vl_device_open(check.context);
        for (int64_t b = 0; b < sizes[i]; b++) assert_int_equal(((char *)memory)[b], 0);
        memset(memory, 1, (size_t)sizes[i]);
        vl_device_close(check.context);
        vl_device_free(check.context, memory);
    }
    void *memory;
    check_refused(vl_device_allocate(check.context, -1, &memory), VL_INVALID, "-1 bytes");
    vl_fault_arm(0);
    check_refused(vl_device_allocate(check.context, 100, &memory), VL_OUT_OF_MEMORY, "100 bytes");
    vl_fault_arm(-1);
    assert_null(memory);
    check_end(&check);
}

static void test_copies(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 2, 1);
    VlTensor tensor = check_device(&check, VL_I64, 3, 2);
    int64_t numbers[] = {3, 1, 4, 1, 5, 9}, got[6];
    check_ok(&check, vl_copy_from_host(check.context, tensor, numbers));
    check_ok(&check, vl_copy_to_host(check.context, got, tensor));
    assert_memory_equal(got, numbers, sizeof got);
    check_ok(&check, vl_copy_to_host(check.context, got, vl_rows(tensor, 2, 1)));
    assert_int_equal(got[0], 5);
    assert_int_equal(got[1], 9);
    check_end(&check);
}

static void test_arena(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 3, 1);
    VlArena arena = {0};
    check_ok(&check, vl_arena_bind(check.context, &arena, "small", 256));
    VlTensor a, b, c;
    check_ok(&check, vl_arena_push(&arena, &a, VL_F32, 3, 5));
    assert_int_equal(vl_arena_mark(&arena), 64);
    int64_t mark = vl_arena_mark(&arena);
    check_ok(&check, vl_arena_push(&arena, &b, VL_BF16, 65));
    assert_ptr_equal((char *)a.data + 64, b.data);
    assert_int_equal(arena.used, 256);
    check_refused(vl_arena_push(&arena, &c, VL_U8, 1), VL_OUT_OF_MEMORY, "small is full: 256 of its 256");
    vl_arena_release(&arena, mark);
    check_ok(&check, vl_arena_push(&arena, &c, VL_U8, 1));
    assert_ptr_equal(c.data, b.data);
    assert_int_equal(arena.peak, 256);
    check_refused(vl_arena_push(&arena, &c, VL_F32, INT64_MAX / 2, 2), VL_INVALID, "no valid size");
    check_refused(vl_arena_push(&arena, &c, VL_F32, INT64_MAX, 4), VL_INVALID, "no valid size");
    vl_arena_unbind(check.context, &arena);
    check_end(&check);
}

// The signal with which a child ends that touches `address` outside of a window; 0 when it lives.
static int touched(volatile char *address) {
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        *address = 1;
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void test_guard(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 4, 1);
    VlTensor tensor = check_device(&check, VL_U8, 4096);
    char *data = tensor.data;
    assert_int_equal(touched(data), SIGSEGV);
    vl_device_open(check.context);
    vl_device_open(check.context);
    assert_int_equal(touched(data + 4095), 0);
    assert_int_equal(touched(data + 4096), SIGSEGV);  // an overrun, even within a window
    void *made;
    check_ok(&check, vl_device_allocate(check.context, 64, &made));
    assert_int_equal(touched(made), 0);
    vl_device_close(check.context);
    assert_int_equal(touched(data), 0);
    vl_device_close(check.context);
    assert_int_equal(touched(data), SIGSEGV);
    assert_int_equal(touched(made), SIGSEGV);
    vl_device_free(check.context, made);
    check_end(&check);
}

typedef struct Overlap {
    VlContext *context;
    VlTensor tensor;
    int64_t index;
} Overlap;

static void *write_in_windows(void *argument) {
    Overlap *overlap = argument;
    int64_t *counter = (int64_t *)overlap->tensor.data + overlap->index;
    for (int i = 0; i < 2000; i++) {
        vl_device_open(overlap->context);
        ++*(volatile int64_t *)counter;
        vl_device_close(overlap->context);
    }
    return NULL;
}

static void test_windows_overlap(void **state) {
    (void)state;
    enum { THREADS = 4 };
    Check check;
    check_begin(&check, 5, 1);
    VlTensor tensor = check_device(&check, VL_I64, THREADS);
    pthread_t threads[THREADS];
    Overlap overlaps[THREADS];
    for (int i = 0; i < THREADS; i++) {
        overlaps[i] = (Overlap){check.context, tensor, i};
        assert_int_equal(pthread_create(&threads[i], NULL, write_in_windows, &overlaps[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    int64_t counts[THREADS];
    check_ok(&check, vl_copy_to_host(check.context, counts, tensor));
    for (int i = 0; i < THREADS; i++) assert_int_equal(counts[i], 2000);
    assert_int_equal(touched(tensor.data), SIGSEGV);
    check_end(&check);
}

static void test_plan(void **state) {
    (void)state;
    VlContext *context;
    assert_int_equal(vl_context_create_plan(&context, VL_DEVICE_CPU, 2), VL_OK);
    assert_true(context->planning);
    VlTensor x, w, y;
    assert_int_equal(vl_arena_push(&context->activations, &x, VL_F32, 1 << 20, 4096), VL_OK);
    assert_int_equal(vl_arena_push(&context->activations, &w, VL_F32, 1000, 4096), VL_OK);
    assert_int_equal(vl_arena_push(&context->activations, &y, VL_F32, 1 << 20, 1000), VL_OK);
    assert_null(y.data);
    assert_int_equal(context->activations.peak, 4LL * ((1LL << 20) * 5096 + 1000 * 4096));
    assert_int_equal(vl_linear_forward(context, y, x, w, VL_EMPTY, VL_WRITE), VL_OK);
    assert_int_equal(vl_flops_total(&context->flops), 2LL * (1 << 20) * 4096 * 1000);
    check_refused(vl_linear_forward(context, y, x, y, VL_EMPTY, VL_WRITE), VL_INVALID, "linear_forward: w");
    int64_t host[4] = {1, 1, 1, 1};
    assert_int_equal(vl_copy_to_host(context, host, vl_tensor(NULL, VL_I64, 4)), VL_OK);
    assert_int_equal(host[3], 0);
    vl_context_free(context);
}

static void test_choose(void **state) {
    (void)state;
    VlDevice device = VL_DEVICE_COUNT;
    assert_int_equal(vl_device_choose(&device, "cuda"), VL_OK);
    assert_int_equal(device, VL_DEVICE_CUDA);
    assert_int_equal(vl_device_choose(&device, "cpu"), VL_OK);
    assert_int_equal(device, VL_DEVICE_CPU);
    check_refused(vl_device_choose(&device, "cdua"), VL_USAGE,
                  "'cdua' is unknown; possible are: auto, cpu, cuda; nearest");
    // auto: what then opens.
    assert_int_equal(vl_device_choose(&device, "auto"), VL_OK);
    VlContext *context;
    assert_int_equal(vl_context_create(&context, device, 1), VL_OK);
    int64_t left = 0, whole = 0;
    assert_int_equal(vl_device_memory(context, &left, &whole), VL_OK);
    assert_true(left > 0 && left <= whole && whole > 64 << 20);
    assert_int_equal(vl_device_wait(context), VL_OK);
    vl_context_free(context);
    if (device == VL_DEVICE_CPU) {
        assert_int_equal(vl_context_create(&context, VL_DEVICE_CUDA, 1), VL_UNSUPPORTED);
        assert_non_null(strstr(vl_error_text(), "use the device cpu"));
    }
}

static void expect_seconds(double found, double expected) {
    if (!(fabs(found / expected - 1) < 1e-12)) fail_msg("%g seconds, not %g", found, expected);
}

// Which of the two limits binds, and how long: products at 1000 FLOP/s and 10 in attention, 100 bytes a second.
static void test_roofline(void **state) {
    (void)state;
    VlContext *context;
    assert_int_equal(vl_context_create_plan(&context, VL_DEVICE_CUDA, 1), VL_OK);
    assert_int_equal(context->device, VL_DEVICE_CUDA);
    VlTensor x = vl_tensor(NULL, VL_BF16, 100, 1000), w = vl_tensor(NULL, VL_BF16, 500, 1000);
    VlTensor y = vl_tensor(NULL, VL_BF16, 100, 500), thin = vl_tensor(NULL, VL_BF16, 1, 1000);
    VlTensor row = vl_tensor(NULL, VL_BF16, 1, 500), dw = vl_tensor(NULL, VL_F32, 500, 1000);
    VlTensor offsets = vl_tensor(NULL, VL_I64, 2), narrow = vl_tensor(NULL, VL_BF16, 100, 64);
    const double flops = 2.0 * 100 * 1000 * 500;
    VlRoofline *roofline = &context->roofline;
    assert_int_equal(vl_linear_forward(context, y, x, w, VL_EMPTY, VL_WRITE), VL_OK);
    assert_true(vl_roofline_seconds(roofline) == 0);  // no rates, no time
    roofline->bytes_per_second = 100;
    for (int product = 0; product < VL_PRODUCTS; product++) roofline->flops_per_second[product] = 1000;
    roofline->flops_per_second[VL_PRODUCT_ATTENTION] = 10;
    assert_int_equal(vl_linear_forward(context, y, x, w, VL_EMPTY, VL_WRITE), VL_OK);
    expect_seconds(roofline->product_seconds[VL_PRODUCT_LINEAR], flops / 1000);
    assert_true(roofline->memory_seconds == 0);
    // Two products of one call add up; what is not wanted counts nothing.
    vl_roofline_clear(roofline);
    assert_int_equal(vl_linear_backward(context, x, dw, VL_EMPTY, y, x, w, VL_WRITE), VL_OK);
    expect_seconds(vl_roofline_seconds(roofline), 2 * flops / 1000);
    // One row of activations: the weights' bytes bind.
    vl_roofline_clear(roofline);
    assert_int_equal(vl_linear_forward(context, row, thin, w, VL_EMPTY, VL_WRITE), VL_OK);
    expect_seconds(roofline->memory_seconds, 2.0 * (500 + 1000 + 500000) / 100);
    assert_true(roofline->product_seconds[VL_PRODUCT_LINEAR] == 0);
    vl_roofline_clear(roofline);
    assert_int_equal(vl_add_tensors(context, x, x, 2, x), VL_OK);
    expect_seconds(roofline->memory_seconds, 3 * 2.0 * 100000 / 100);
    // Of a table the rows that are read, and no others of the next operation's.
    VlTensor table = vl_tensor(NULL, VL_BF16, 5000, 1000), ids = vl_tensor(NULL, VL_I64, 100);
    VlTensor dtable = vl_tensor(NULL, VL_F32, 5000, 1000);
    vl_roofline_clear(roofline);
    assert_int_equal(vl_embedding_forward(context, x, table, ids), VL_OK);
    expect_seconds(roofline->memory_seconds, (2 * 2.0 * 100000 + 8 * 100) / 100);
    vl_roofline_clear(roofline);
    assert_int_equal(vl_embedding_backward(context, dtable, x, ids), VL_OK);
    assert_int_equal(vl_add_tensors(context, x, x, 2, x), VL_OK);
    expect_seconds(roofline->memory_seconds, (6.0 * 100000 + 8 * 100 + 3 * 2.0 * 100000) / 100);
    vl_roofline_clear(roofline);
    assert_int_equal(
        vl_attention_forward(context, narrow, VL_EMPTY, narrow, narrow, narrow, offsets, offsets, 1, 1, true), VL_OK);
    expect_seconds(roofline->product_seconds[VL_PRODUCT_ATTENTION], 2 * 2.0 * (100 * 101 / 2) * 64 / 10);
    vl_context_free(context);
}

// Calls, the time that they took and should have taken, by the part that they are charged to.
static void test_profile(void **state) {
    (void)state;
    static VlProfile profile;
    VlContext *context;
    assert_int_equal(vl_context_create(&context, VL_DEVICE_CPU, 1), VL_OK);
    assert_int_equal(vl_arena_bind(context, &context->scratch, "scratch", 1 << 22), VL_OK);
    assert_int_equal(vl_arena_bind(context, &context->activations, "activations", 1 << 22), VL_OK);
    VlTensor x, y, w;
    assert_int_equal(vl_arena_push(&context->activations, &x, VL_F32, 100, 200), VL_OK);
    assert_int_equal(vl_arena_push(&context->activations, &y, VL_F32, 100, 300), VL_OK);
    assert_int_equal(vl_arena_push(&context->activations, &w, VL_F32, 300, 200), VL_OK);
    context->roofline.bytes_per_second = 1e9;
    for (int product = 0; product < VL_PRODUCTS; product++) context->roofline.flops_per_second[product] = 1e6;
    context->profile = &profile;
    double begin = vl_seconds();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(vl_linear_forward(context, y, x, w, VL_EMPTY, VL_WRITE), VL_OK);
    }
    vl_profile_charge(&profile, 2);
    assert_int_equal(vl_linear_forward(context, y, x, w, VL_EMPTY, VL_WRITE), VL_OK);
    assert_int_equal(vl_add_tensors(context, x, x, 2, x), VL_OK);
    check_refused(vl_linear_forward(context, x, y, w, VL_EMPTY, VL_WRITE), VL_INVALID, "linear_forward");
    vl_profile_charge(&profile, 5);
    double seconds = vl_seconds() - begin, sum = 0;
    const VlProfileRow *linear = &profile.of[2][VL_CALL_linear_forward];
    assert_int_equal(linear->calls, 3);
    expect_seconds(linear->limit, 3 * 2.0 * 100 * 200 * 300 / 1e6);
    assert_int_equal(profile.of[5][VL_CALL_linear_forward].calls, 1);
    assert_int_equal(profile.of[5][VL_CALL_add_tensors].calls, 1);
    expect_seconds(profile.of[5][VL_CALL_add_tensors].limit, 3 * 4.0 * 100 * 200 / 1e9);
    assert_string_equal(vl_call_name(VL_CALL_add_tensors), "add_tensors");
    assert_string_equal(vl_call_name(VL_CALL_linear_backward), "linear_backward");
    int64_t rows = 0;
    for (int part = 0; part < VL_PROFILE_PARTS; part++) {
        for (int call = 0; call < VL_CALLS; call++) {
            rows += profile.of[part][call].calls > 0;
            sum += profile.of[part][call].seconds;
        }
    }
    assert_int_equal(rows, 3);
    assert_true(sum > 0 && sum <= seconds);
    vl_arena_unbind(context, &context->activations);
    vl_arena_unbind(context, &context->scratch);
    vl_context_free(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile),         cmocka_unit_test(test_create), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_copies),          cmocka_unit_test(test_arena),  cmocka_unit_test(test_guard),
        cmocka_unit_test(test_windows_overlap), cmocka_unit_test(test_plan),   cmocka_unit_test(test_choose),
        cmocka_unit_test(test_roofline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
