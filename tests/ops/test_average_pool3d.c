// average_pool3d against its formula in f64.
#include "tests/ops/output.h"

typedef struct Problem {
    int64_t shape[5], kernel[3];  // of x[N,T,H,W,C]
    int64_t out[5];               // of y
    double *x, *dy;
    double *y, *dx;  // by reference()
} Problem;

static int64_t product(const int64_t shape[5]) { return shape[0] * shape[1] * shape[2] * shape[3] * shape[4]; }

static void reference(Problem *p, VlDtype type) {
    const int64_t *shape = p->shape, *out = p->out, *kernel = p->kernel;
    int64_t size = kernel[0] * kernel[1] * kernel[2];
    for (int64_t i = 0; i < product(shape); i++) p->dx[i] = 0;
    for (int64_t i = 0; i < product(out); i++) {
        int64_t c = i % out[4], w = i / out[4] % out[3], h = i / (out[4] * out[3]) % out[2];
        int64_t nt = i / (out[4] * out[3] * out[2]), n = nt / out[1], t = nt % out[1];
        double sum = 0;
        for (int64_t k = 0; k < size; k++) {
            int64_t from_t = t * kernel[0] + k / (kernel[1] * kernel[2]);
            int64_t from_h = h * kernel[1] + k / kernel[2] % kernel[1], from_w = w * kernel[2] + k % kernel[2];
            int64_t from = (((n * shape[1] + from_t) * shape[2] + from_h) * shape[3] + from_w) * shape[4] + c;
            sum = check_rounded(sum + p->x[from], type);
            p->dx[from] = check_rounded(p->dy[i] / (double)size, type);
        }
        p->y[i] = check_rounded(sum / (double)size, type);
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, product(p->out));
}

// shape: N, T, H, W, C, kt, kh, kw.
static Problem problem_make(Check *check, const int64_t shape[8], VlDtype dtype) {
    Problem p = {.out = {shape[0], 0, 0, 0, shape[4]}};
    for (int i = 0; i < 5; i++) p.shape[i] = shape[i];
    for (int i = 0; i < 3; i++) {
        p.kernel[i] = shape[5 + i];
        p.out[i + 1] = shape[i + 1] / p.kernel[i];
    }
    p.x = check_random(check, product(p.shape), 1.0, dtype);
    p.dx = check_zeros(check, product(p.shape));
    p.y = check_zeros(check, product(p.out));
    p.dy = check_random(check, product(p.out), 1.0, dtype);
    return p;
}

enum { Y, DX, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[8], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 34, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlContext *context = check->context;
    VlTensor x = check_load(check, check_device_make(check, dtype, 5, p.shape), p.x);
    VlTensor dy = check_load(check, check_device_make(check, dtype, 5, p.out), p.dy);
    run->out[Y] = output_make(check, dy, VL_WRITE);
    run->out[DX] = output_make(check, x, VL_WRITE);
    VlTensor y = run->out[Y].tensor, dx = run->out[DX].tensor;
    check_ok(check, vl_average_pool3d_forward(context, y, x, p.kernel[0], p.kernel[1], p.kernel[2]));
    check_ok(check, vl_average_pool3d_backward(context, dx, dy, p.kernel[0], p.kernel[1], p.kernel[2]));
    check_ok(check, vl_average_pool3d_backward(context, VL_EMPTY, dy, p.kernel[0], p.kernel[1], p.kernel[2]));
}

static void verify(const int64_t shape[8], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, shape, dtype);
    naive.x = exact.x, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.out[Y], exact.y, naive.y);
    output_check(check, "dx", run.out[DX], exact.dx, naive.dx);
    check_end(check);
}

static void test_average_pool3d_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][8] = {
        {1, 1, 1, 1, 1, 1, 1, 1}, {2, 3, 4, 5, 3, 2, 2, 2},    {1, 8, 6, 6, 7, 2, 2, 2}, {1, 3, 4, 5, 5, 1, 2, 2},
        {2, 5, 4, 7, 3, 2, 3, 1}, {1, 3, 3, 3, 1030, 2, 2, 3}, {0, 2, 2, 2, 3, 2, 2, 2}, {2, 2, 3, 4, 264, 2, 1, 2},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 35, 1);
    Problem p = problem_make(&check, shapes[1], VL_F64);
    int64_t count = product(p.shape);
    reference(&p, VL_F64);
    check_differences(&check, "dx", p.x, count, count, loss, &p, check_copy(&check, p.dx, count));
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    static const int64_t shape[8] = {2, 5, 7, 9, 65, 2, 2, 2};
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, two;
        run_begin(&one, shape, dtypes[i], 1);
        run_begin(&two, shape, dtypes[i], 2);
        outputs_same(&one.check, one.out, &two.check, two.out, OUTPUTS);
        check_end(&one.check);
        check_end(&two.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 36, 1);
    VlContext *c = check.context;
    VlTensor x = check_device(&check, VL_F32, 1, 4, 4, 4, 3), y = check_device(&check, VL_F32, 1, 2, 2, 2, 3);
    VlTensor half = check_device(&check, VL_BF16, 1, 2, 2, 2, 3), flat = check_device(&check, VL_F32, 8, 3);
    check_refused(vl_average_pool3d_forward(c, y, x, 1, 2, 2), VL_INVALID,
                  "average_pool3d_forward: y is [1,2,2,2,3] f32, it must be [1,4,2,2,3] f32");
    check_refused(vl_average_pool3d_forward(c, half, x, 2, 2, 2), VL_INVALID, "y is [1,2,2,2,3] bf16");
    check_refused(vl_average_pool3d_forward(c, y, flat, 2, 2, 2), VL_INVALID, "x is [8,3] f32");
    check_refused(vl_average_pool3d_forward(c, y, x, 5, 2, 2), VL_INVALID, "kt is 5, but x");
    check_refused(vl_average_pool3d_forward(c, y, x, 2, 2, 0), VL_INVALID, "kw is 0");
    check_refused(vl_average_pool3d_backward(c, x, half, 2, 2, 2), VL_INVALID,
                  "average_pool3d_backward: dy is [1,2,2,2,3] bf16, it must be [1,2,2,2,3] f32");
    check_refused(vl_average_pool3d_backward(c, x, flat, 2, 2, 2), VL_INVALID, "dy is [8,3] f32");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_average_pool3d_gradient),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
