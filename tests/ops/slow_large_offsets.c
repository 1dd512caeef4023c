// Offsets past 2^31 elements. The tensors are 8 GB of address space of which only the pages at the end are written; the
// rest reads as zero.
#include <string.h>

#include "tests/ops/check.h"

static const int64_t past = (1LL << 31) + (1 << 20);

static void load_rows(Check *check, VlTensor x, int64_t row, int64_t rows, const double *values) {
    check_load(check, vl_rows(x, row, rows), values);
}

// The last rows of x start past 2^31 elements.
static void test_linear(void **state) {
    (void)state;
    enum { K = 1 << 16, N = 3, ROWS = 2 };
    Check check;
    check_begin(&check, 900, 0);
    int64_t m = past / K;
    double *last = check_random(&check, ROWS * K, 1, VL_F32), *weights = check_random(&check, N * K, 0.1, VL_F32);
    VlTensor x = check_device(&check, VL_F32, m, K), w = check_upload(&check, weights, VL_F32, N, K);
    VlTensor y = check_output(&check, VL_F32, m, N), dw = check_device(&check, VL_F32, N, K);
    load_rows(&check, x, m - ROWS, ROWS, last);
    check_ok(&check, vl_linear_forward(check.context, y, x, w, VL_EMPTY, VL_WRITE));
    double *want = check_zeros(&check, m * N), *want_dw = check_zeros(&check, N * K);
    for (int64_t i = 0; i < ROWS; i++) {
        for (int64_t j = 0; j < N; j++) {
            double *to = &want[(m - ROWS + i) * N + j];
            *to = check_dot(last + i * K, weights + j * K, K);
            for (int64_t c = 0; c < K; c++) want_dw[j * K + c] += check_rounded(*to, VL_F32) * last[i * K + c];
        }
    }
    check_tensor(&check, "y", y, want, 1e-5);
    check_load(&check, y, want);
    check_ok(&check, vl_linear_backward(check.context, VL_EMPTY, dw, VL_EMPTY, y, x, w, VL_WRITE));
    check_tensor(&check, "dw", dw, want_dw, 1e-5);
    check_end(&check);
}

// The last sequence's keys lie past 2^31 elements; attended to alone it gives the same bits.
static void test_attention(void **state) {
    (void)state;
    enum { D = 64, QUERIES = 5, KEYS = 70 };
    Check check;
    check_begin(&check, 901, 0);
    int64_t all = past / D, offsets_q[] = {0, 0, QUERIES}, offsets_k[] = {0, all - KEYS, all};
    int64_t alone_q[] = {0, QUERIES}, alone_k[] = {0, KEYS};
    double *keys = check_random(&check, KEYS * D, 1, VL_F32), *values = check_random(&check, KEYS * D, 1, VL_F32);
    VlTensor q = check_upload(&check, check_random(&check, QUERIES * D, 1, VL_F32), VL_F32, QUERIES, D);
    VlTensor k = check_device(&check, VL_F32, all, D), v = check_device(&check, VL_F32, all, D);
    load_rows(&check, k, all - KEYS, KEYS, keys);
    load_rows(&check, v, all - KEYS, KEYS, values);
    VlTensor o = check_output(&check, VL_F32, QUERIES, D), small = check_output(&check, VL_F32, QUERIES, D);
    check_ok(&check, vl_attention_forward(check.context, o, VL_EMPTY, q, k, v, check_upload_i64(&check, offsets_q, 3),
                                          check_upload_i64(&check, offsets_k, 3), 1, 1, true));
    check_ok(&check,
             vl_attention_forward(check.context, small, VL_EMPTY, q, check_upload(&check, keys, VL_F32, KEYS, D),
                                  check_upload(&check, values, VL_F32, KEYS, D), check_upload_i64(&check, alone_q, 2),
                                  check_upload_i64(&check, alone_k, 2), 1, 1, true));
    check_same_bits(&check, "o", o, &check, small);
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_linear), cmocka_unit_test(test_attention)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
