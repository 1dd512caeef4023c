// Memory of a device, copies to and from it, and what the host knows of index tensors, on whichever device is tested.
// Nothing waits after an operation here, as VL2_GUARD=1 would, and on the stand-in for CUDA nothing is done before it
// is waited for (VL_TEST_STREAMS=lazy).
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tests/ops/check.h"

static VlContext *open_context(void) {
    const char *device = getenv("VL_TEST_DEVICE");
    VlContext *context;
    bool cuda = device && strcmp(device, "cuda") == 0;
    assert_int_equal(vl_context_create(&context, cuda ? VL_DEVICE_CUDA : VL_DEVICE_CPU, 1), VL_OK);
    return context;
}

static VlTensor allocate(VlContext *context, VlDtype dtype, int64_t count) {
    void *memory;
    assert_int_equal(vl_device_allocate(context, count * vl_dtype_size(dtype), &memory), VL_OK);
    return vl_tensor(memory, dtype, count);
}

// What a copy takes of host memory it has taken when it returns: the same buffer serves for all of them. There are more
// of them, and larger ones, than can be under way at once.
static void test_copies(void **state) {
    (void)state;
    enum { COUNT = 5 << 20, COPIES = 14, SMALL = 1000 };
    VlContext *context = open_context();
    int32_t *host;
    VlTensor large[COPIES], small = allocate(context, VL_I32, SMALL * 3);
    assert_int_equal(VL_NEW(&host, COUNT), VL_OK);
    for (int c = 0; c < COPIES; c++) {
        large[c] = allocate(context, VL_I32, COUNT);
        for (int i = 0; i < COUNT; i++) host[i] = i * 7 + c;
        assert_int_equal(vl_copy_from_host(context, large[c], host), VL_OK);
    }
    for (int i = 0; i < SMALL; i++) {
        for (int j = 0; j < 3; j++) host[j] = 3 * i + j;
        assert_int_equal(vl_copy_from_host(context, vl_rows(small, 3 * i, 3), host), VL_OK);
    }
    for (int c = 0; c < COPIES; c++) {
        memset(host, 0xff, COUNT * sizeof *host);
        assert_int_equal(vl_copy_to_host(context, host, large[c]), VL_OK);
        for (int i = 0; i < COUNT; i++) {
            if (host[i] != i * 7 + c) fail_msg("copy %d: element %d is %d", c, i, host[i]);
        }
        vl_device_free(context, large[c].data);
    }
    assert_int_equal(vl_copy_to_host(context, host, small), VL_OK);
    for (int i = 0; i < SMALL * 3; i++) assert_int_equal(host[i], i);
    vl_device_free(context, small.data);
    vl_free(host);
    vl_context_free(context);
}

// New memory is zero, whatever was there.
static void test_memory_is_zeroed(void **state) {
    (void)state;
    enum { COUNT = 5000 };
    VlContext *context = open_context();
    int64_t host[COUNT];
    for (int round = 0; round < 3; round++) {
        VlTensor tensor = allocate(context, VL_I64, COUNT);
        assert_int_equal((uintptr_t)tensor.data % 64, 0);
        assert_int_equal(vl_copy_to_host(context, host, tensor), VL_OK);
        for (int i = 0; i < COUNT; i++) assert_int_equal(host[i], 0);
        memset(host, 0xff, sizeof host);
        assert_int_equal(vl_copy_from_host(context, tensor, host), VL_OK);
        vl_device_free(context, tensor.data);
    }
    vl_context_free(context);
}

static void expect_known(VlContext *context, VlTensor tensor, const int64_t *values) {
    vl_device_open(context);
    const int64_t *known = vl_indices(context, tensor);
    assert_non_null(known);
    assert_memory_equal(known, values, (size_t)vl_bytes(tensor));
    vl_device_close(context);
}

static void test_indices(void **state) {
    (void)state;
    VlContext *context = open_context();
    VlTensor all = allocate(context, VL_I64, 100), first = vl_rows(all, 0, 40), second = vl_rows(all, 40, 60);
    int64_t values[100];
    for (int i = 0; i < 100; i++) values[i] = i * i;
    assert_int_equal(vl_copy_from_host(context, first, values), VL_OK);
    assert_int_equal(vl_copy_from_host(context, second, values + 40), VL_OK);
    expect_known(context, first, values);
    expect_known(context, second, values + 40);
    expect_known(context, vl_rows(second, 5, 10), values + 45);
    // The middle is written again: both are no longer known as wholes.
    int64_t middle[20];
    for (int i = 0; i < 20; i++) middle[i] = -i;
    assert_int_equal(vl_copy_from_host(context, vl_rows(all, 30, 20), middle), VL_OK);
    expect_known(context, vl_rows(all, 30, 20), middle);
    if (context->device != VL_DEVICE_CPU) {
        assert_null(vl_indices(context, first));
        assert_null(vl_indices(context, second));
        assert_null(vl_indices(context, all));
    }
    // Many others later, still correct where known; other contents are no indices.
    for (int round = 0; round < 1000; round++) {
        for (int i = 0; i < 7; i++) values[i] = round + i;
        assert_int_equal(vl_copy_from_host(context, vl_rows(all, round % 90, 7), values), VL_OK);
        expect_known(context, vl_rows(all, round % 90, 7), values);
    }
    static const uint8_t zeros[800];
    VlTensor bytes = {.data = all.data, .dtype = VL_U8, .dims = 1, .dim = {800}};
    assert_int_equal(vl_copy_from_host(context, bytes, zeros), VL_OK);
    if (context->device != VL_DEVICE_CPU) assert_null(vl_indices(context, vl_rows(all, 990 % 90, 7)));
    vl_device_free(context, all.data);
    vl_context_free(context);
}

static void test_refusals(void **state) {
    (void)state;
    VlContext *context = open_context();
    void *memory;
    int64_t left, whole;
    check_refused(vl_device_allocate(context, -1, &memory), VL_INVALID, "-1 bytes");
    check_refused(vl_device_allocate(context, (int64_t)1 << 60, &memory), VL_OUT_OF_MEMORY, "memory");
    assert_null(memory);
    assert_int_equal(vl_device_memory(context, &left, &whole), VL_OK);
    assert_true(left > 0 && left <= whole);
    // Nothing is broken afterwards.
    VlTensor tensor = allocate(context, VL_F32, 1);
    float one = 1, back = 0;
    assert_int_equal(vl_copy_from_host(context, tensor, &one), VL_OK);
    assert_int_equal(vl_copy_to_host(context, &back, tensor), VL_OK);
    assert_true(back == 1);
    assert_int_equal(vl_device_wait(context), VL_OK);
    vl_device_free(context, tensor.data);
    vl_context_free(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_memory_is_zeroed),
        cmocka_unit_test(test_indices),
        cmocka_unit_test(test_refusals),
    };
    unsetenv("VL2_GUARD");
    setenv("VL_TEST_STREAMS", "lazy", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
