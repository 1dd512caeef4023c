// linear against f64: y = x w^T + b, dx = dy w, dw = dy^T x, db = column sums of dy.
#include "tests/ops/check.h"

typedef struct Problem {
    int64_t m, n, k;
    double *x, *w, *b, *dy;
} Problem;

static void multiply_f64(const Problem *p, double *y) {
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->n; j++) {
            double sum = p->b[j];
            for (int64_t c = 0; c < p->k; c++) sum += p->x[i * p->k + c] * p->w[j * p->k + c];
            y[i * p->n + j] = sum;
        }
    }
}

static void differentiate_f64(const Problem *p, double *dx, double *dw, double *db) {
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->n; j++) {
            double dy = p->dy[i * p->n + j];
            db[j] += dy;
            for (int64_t c = 0; c < p->k; c++) {
                dx[i * p->k + c] += dy * p->w[j * p->k + c];
                dw[j * p->k + c] += dy * p->x[i * p->k + c];
            }
        }
    }
}

static Problem make_problem(Check *check, int64_t m, int64_t n, int64_t k, VlDtype dtype) {
    return (Problem){m,
                     n,
                     k,
                     check_random(check, m * k, 1, dtype),
                     check_random(check, n * k, 1, dtype),
                     check_random(check, n, 1, dtype),
                     check_random(check, m * n, 1, dtype)};
}

static double loss(void *problem) {
    const Problem *p = problem;
    double y[64];
    assert_in_range(p->m * p->n, 0, 64);
    multiply_f64(p, y);
    return check_dot(y, p->dy, p->m * p->n);
}

static const int64_t shapes[][3] = {{1, 1, 1},    {7, 5, 3},      {33, 65, 129},  {1, 700, 40},
                                    {0, 5, 3},    {5, 4, 0},      {600, 530, 70}, {513, 16, 17},
                                    {5, 1100, 9}, {64, 1040, 33}, {0, 3, 0},      {130, 520, 1030}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void sum_of(double *to, const double *a, const double *b, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = a[i] + b[i];
}

// Writing and adding, with bias and without.
static void run_forward(Check *check, const int64_t *shape, VlDtype dtype, VlDtype output) {
    int64_t m = shape[0], n = shape[1], k = shape[2];
    Problem p = make_problem(check, m, n, k, dtype);
    VlTensor x = check_upload(check, p.x, dtype, m, k), w = check_upload(check, p.w, dtype, n, k);
    double *y0 = check_random(check, m * n, 1, output), *want = check_zeros(check, m * n), *naive;
    double *biases[] = {check_zeros(check, n), p.b};
    for (int variant = 0; variant < 4; variant++) {
        bool add = variant & 1, bias = variant & 2;
        p.b = biases[bias];
        VlTensor b = bias ? check_upload(check, p.b, dtype, n) : VL_EMPTY;
        VlTensor y = add ? check_upload(check, y0, output, m, n) : check_output(check, output, m, n);
        multiply_f64(&p, want);
        if (add) sum_of(want, want, y0, m * n);
        naive = check_copy(check, want, m * n);
        check_round(naive, m * n, dtype);
        int64_t flops = vl_flops_total(&check->context->flops);
        check_ok(check, vl_linear_forward(check->context, y, x, w, b, add ? VL_ADD : VL_WRITE));
        assert_int_equal(vl_flops_total(&check->context->flops) - flops, 2 * m * n * k);
        if (dtype == VL_F32) {
            check_tensor(check, "y", y, want, 1e-5);
        } else {
            check_bf16(check, "y", y, naive, want);
        }
    }
}

static void test_linear_forward(void **state) {
    (void)state;
    for (uint64_t s = 0; s < SHAPES; s++) {
        Check check;
        check_begin(&check, 100 + s, 2);
        run_forward(&check, shapes[s], VL_F32, VL_F32);
        run_forward(&check, shapes[s], VL_BF16, VL_BF16);
        run_forward(&check, shapes[s], VL_BF16, VL_F32);
        check_end(&check);
    }
}

static void run_backward(Check *check, const int64_t *shape, VlDtype dtype, VlMode mode) {
    int64_t m = shape[0], n = shape[1], k = shape[2];
    Problem p = make_problem(check, m, n, k, dtype);
    double *dx = check_zeros(check, m * k), *dw = check_zeros(check, n * k), *db = check_zeros(check, n);
    double *dx0 = check_random(check, m * k, 1, dtype), *dw0 = check_random(check, n * k, 1, VL_F32);
    double *db0 = check_random(check, n, 1, VL_F32);
    differentiate_f64(&p, dx, dw, db);
    double *naive_dx = check_copy(check, dx, m * k), *naive_dw = check_copy(check, dw, n * k);
    check_round(naive_dw, n * k, dtype);
    if (mode == VL_ADD) sum_of(dx, dx, dx0, m * k);
    if (mode == VL_ADD) sum_of(naive_dx, naive_dx, dx0, m * k);
    check_round(naive_dx, m * k, dtype);
    sum_of(dw, dw, dw0, n * k);
    sum_of(naive_dw, naive_dw, dw0, n * k);
    sum_of(db, db, db0, n);
    VlTensor x = check_upload(check, p.x, dtype, m, k), w = check_upload(check, p.w, dtype, n, k);
    VlTensor dy = check_upload(check, p.dy, dtype, m, n);
    VlTensor got_dx = mode == VL_ADD ? check_upload(check, dx0, dtype, m, k) : check_output(check, dtype, m, k);
    VlTensor got_dw = check_upload(check, dw0, VL_F32, n, k), got_db = check_upload(check, db0, VL_F32, n);
    check_ok(check, vl_linear_backward(check->context, got_dx, got_dw, got_db, dy, x, w, mode));
    check_tensor(check, "db", got_db, db, 1e-5);
    if (dtype == VL_F32) {
        check_tensor(check, "dx", got_dx, dx, 1e-5);
        check_tensor(check, "dw", got_dw, dw, 1e-5);
    } else {
        check_bf16(check, "dx", got_dx, naive_dx, dx);
        check_bf16(check, "dw", got_dw, naive_dw, dw);
    }
}

static void test_linear_gradient(void **state) {
    (void)state;
    for (uint64_t s = 0; s < SHAPES; s++) {
        Check check;
        check_begin(&check, 200 + s, 2);
        run_backward(&check, shapes[s], VL_F32, VL_WRITE);
        run_backward(&check, shapes[s], VL_F32, VL_ADD);
        run_backward(&check, shapes[s], VL_BF16, VL_WRITE);
        run_backward(&check, shapes[s], VL_BF16, VL_ADD);
        check_end(&check);
    }
    Check check;
    check_begin(&check, 300, 1);
    Problem p = make_problem(&check, 7, 5, 3, VL_F32);
    double *dx = check_zeros(&check, 21), *dw = check_zeros(&check, 15), *db = check_zeros(&check, 5);
    differentiate_f64(&p, dx, dw, db);
    check_differences(&check, "dx", p.x, 21, 100, loss, &p, dx);
    check_differences(&check, "dw", p.w, 15, 100, loss, &p, dw);
    check_differences(&check, "db", p.b, 5, 100, loss, &p, db);
    check_end(&check);
}

// A gradient that is not wanted costs nothing and changes nothing else.
static void test_unwanted(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 301, 2);
    enum { M = 20, N = 30, K = 40 };
    Problem p = make_problem(&check, M, N, K, VL_F32);
    double *dx = check_zeros(&check, M * K), *dw = check_zeros(&check, N * K), *db = check_zeros(&check, N);
    differentiate_f64(&p, dx, dw, db);
    VlTensor x = check_upload(&check, p.x, VL_F32, M, K), w = check_upload(&check, p.w, VL_F32, N, K);
    VlTensor dy = check_upload(&check, p.dy, VL_F32, M, N), got_dx = check_output(&check, VL_F32, M, K);
    VlTensor got_dw = check_device(&check, VL_F32, N, K);
    VlContext *context = check.context;
    check_ok(&check, vl_linear_backward(context, got_dx, VL_EMPTY, VL_EMPTY, dy, VL_EMPTY, w, VL_WRITE));
    assert_int_equal(vl_flops_total(&context->flops), 2 * M * N * K);
    check_tensor(&check, "dx", got_dx, dx, 1e-5);
    check_ok(&check, vl_linear_backward(context, VL_EMPTY, got_dw, VL_EMPTY, dy, x, w, VL_WRITE));
    assert_int_equal(vl_flops_total(&context->flops), 4 * M * N * K);
    check_tensor(&check, "dw", got_dw, dw, 1e-5);
    check_ok(&check, vl_linear_backward(context, VL_EMPTY, VL_EMPTY, VL_EMPTY, dy, x, w, VL_WRITE));
    assert_int_equal(vl_flops_total(&context->flops), 4 * M * N * K);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    for (int type = 0; type < 2; type++) {
        for (uint64_t s = 0; s < SHAPES; s++) {
            VlDtype dtype = type ? VL_BF16 : VL_F32;
            int64_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
            Check checks[2];
            VlTensor y[2], dx[2], dw[2], db[2];
            for (int t = 0; t < 2; t++) {
                check_begin(&checks[t], 400 + s, 1 + 2 * t);
                Problem p = make_problem(&checks[t], m, n, k, dtype);
                VlTensor x = check_upload(&checks[t], p.x, dtype, m, k), w = check_upload(&checks[t], p.w, dtype, n, k);
                VlTensor b = check_upload(&checks[t], p.b, dtype, n), dy = check_upload(&checks[t], p.dy, dtype, m, n);
                y[t] = check_output(&checks[t], dtype, m, n);
                dx[t] = check_output(&checks[t], dtype, m, k);
                dw[t] = check_device(&checks[t], VL_F32, n, k);
                db[t] = check_device(&checks[t], VL_F32, n);
                check_ok(&checks[t], vl_linear_forward(checks[t].context, y[t], x, w, b, VL_WRITE));
                check_ok(&checks[t], vl_linear_backward(checks[t].context, dx[t], dw[t], db[t], dy, x, w, VL_WRITE));
            }
            check_same_bits(&checks[0], "y", y[0], &checks[1], y[1]);
            check_same_bits(&checks[0], "dx", dx[0], &checks[1], dx[1]);
            check_same_bits(&checks[0], "dw", dw[0], &checks[1], dw[1]);
            check_same_bits(&checks[0], "db", db[0], &checks[1], db[1]);
            check_end(&checks[0]);
            check_end(&checks[1]);
        }
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 500, 1);
    VlContext *context = check.context;
    VlTensor x = check_device(&check, VL_F32, 4, 3), w = check_device(&check, VL_F32, 5, 3);
    VlTensor y = check_device(&check, VL_F32, 4, 5), half = check_device(&check, VL_BF16, 5, 3), b = VL_EMPTY;
    check_refused(vl_linear_forward(context, y, x, half, b, VL_WRITE), VL_INVALID, "linear_forward: w is [5,3] bf16");
    check_refused(vl_linear_forward(context, y, x, vl_reshape(w, 3, 5), b, VL_WRITE), VL_INVALID, "[3,3] f32");
    check_refused(vl_linear_forward(context, vl_reshape(y, 5, 4), x, w, b, VL_WRITE), VL_INVALID, "[4,5] f32");
    check_refused(vl_linear_forward(context, y, x, w, vl_rows(x, 0, 1), VL_WRITE), VL_INVALID, "b is [1,3] f32");
    check_refused(vl_linear_forward(context, y, vl_tensor(y.data, VL_F32, 4, 3), w, b, VL_WRITE), VL_INVALID,
                  "overlap");
    check_refused(vl_linear_forward(context, y, vl_tensor(NULL, VL_F32, 4, 3), w, b, VL_WRITE), VL_INVALID,
                  "no memory");
    check_refused(vl_linear_backward(context, vl_tensor(y.data, VL_F32, 4, 3), b, b, y, x, w, VL_WRITE), VL_INVALID,
                  "overlap");
    check_refused(vl_linear_backward(context, x, w, b, y, x, w, VL_WRITE), VL_INVALID, "dx [4,3] f32 and x");
    check_refused(vl_linear_backward(context, b, half, b, y, x, w, VL_WRITE), VL_INVALID, "dw is [5,3] bf16");
    assert_int_equal(vl_flops_total(&context->flops), 0);
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_forward), cmocka_unit_test(test_linear_gradient), cmocka_unit_test(test_unwanted),
        cmocka_unit_test(test_threads),        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
