// mean_rows against its formula in f64.
#include "tests/ops/output.h"

typedef struct Problem {
    int64_t images, rows, columns;
    double *x, *dy;
    double *y, *dx;  // by reference()
} Problem;

static void reference(Problem *p, VlDtype type) {
    for (int64_t n = 0; n < p->images; n++) {
        for (int64_t c = 0; c < p->columns; c++) {
            int64_t to = n * p->columns + c;
            double sum = 0;
            for (int64_t r = 0; r < p->rows; r++) {
                int64_t i = (n * p->rows + r) * p->columns + c;
                sum = check_rounded(sum + p->x[i], type);
                p->dx[i] = check_rounded(p->dy[to] / (double)p->rows, type);
            }
            p->y[to] = check_rounded(sum / (double)p->rows, type);
        }
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->images * p->columns);
}

static Problem problem_make(Check *check, const int64_t shape[3], VlDtype dtype) {
    int64_t count = shape[0] * shape[1] * shape[2], means = shape[0] * shape[2];
    return (Problem){.images = shape[0],
                     .rows = shape[1],
                     .columns = shape[2],
                     .x = check_random(check, count, 1.0, dtype),
                     .dy = check_random(check, means, 1.0, dtype),
                     .y = check_zeros(check, means),
                     .dx = check_zeros(check, count)};
}

enum { Y, DX, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[3], VlDtype dtype, VlMode mode, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 22, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlTensor x = check_load(check, check_device_make(check, dtype, 3, shape), p.x);
    VlTensor dy = check_upload(check, p.dy, dtype, shape[0], shape[2]);
    run->out[Y] = output_make(check, dy, VL_WRITE);
    run->out[DX] = output_make(check, x, mode);
    check_ok(check, vl_mean_rows_forward(check->context, run->out[Y].tensor, x));
    check_ok(check, vl_mean_rows_backward(check->context, run->out[DX].tensor, dy, mode));
    check_ok(check, vl_mean_rows_backward(check->context, VL_EMPTY, dy, mode));
}

static void verify(const int64_t shape[3], VlDtype dtype, VlMode mode) {
    Run run;
    run_begin(&run, shape, dtype, mode, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, shape, dtype);
    naive.x = exact.x, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.out[Y], exact.y, naive.y);
    output_check(check, "dx", run.out[DX], exact.dx, naive.dx);
    check_end(check);
}

static void test_mean_rows_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1},    {2, 3, 7}, {3, 17, 65}, {1, 729, 33}, {2, 5, 1},
                                        {2, 3, 2500}, {0, 3, 5}, {2, 3, 0},   {2, 19, 264}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32, VL_WRITE);
        verify(shapes[i], VL_F32, VL_ADD);
        verify(shapes[i], VL_BF16, VL_WRITE);
        verify(shapes[i], VL_BF16, VL_ADD);
    }
    Check check;
    check_begin(&check, 23, 1);
    Problem p = problem_make(&check, shapes[1], VL_F64);
    reference(&p, VL_F64);
    check_differences(&check, "dx", p.x, 42, 42, loss, &p, check_copy(&check, p.dx, 42));
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, more;
        run_begin(&one, (const int64_t[]){3, 65, 203}, dtypes[i], VL_WRITE, 1);
        for (int64_t threads = 2; threads <= 3; threads++) {
            run_begin(&more, (const int64_t[]){3, 65, 203}, dtypes[i], VL_WRITE, threads);
            outputs_same(&one.check, one.out, &more.check, more.out, OUTPUTS);
            check_end(&more.check);
        }
        check_end(&one.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 24, 1);
    VlContext *context = check.context;
    VlTensor x = check_device(&check, VL_F32, 2, 4, 6), y = check_device(&check, VL_F32, 2, 6);
    VlTensor wrong = check_device(&check, VL_F32, 2, 4), half = check_device(&check, VL_BF16, 2, 6);
    VlTensor none = check_device(&check, VL_F32, 2, 0, 6);
    check_refused(vl_mean_rows_forward(context, wrong, x), VL_INVALID,
                  "mean_rows_forward: y is [2,4] f32, it must be [2,6] f32");
    check_refused(vl_mean_rows_forward(context, half, x), VL_INVALID, "y is [2,6] bf16");
    check_refused(vl_mean_rows_forward(context, y, wrong), VL_INVALID, "x is [2,4] f32");
    check_refused(vl_mean_rows_forward(context, y, none), VL_INVALID,
                  "x is [2,0,6] f32, it must have at least one row");
    check_refused(vl_mean_rows_backward(context, x, wrong, VL_WRITE), VL_INVALID,
                  "mean_rows_backward: dy is [2,4] f32, it must be [2,6] f32");
    check_refused(vl_mean_rows_backward(context, VL_EMPTY, x, VL_WRITE), VL_INVALID, "dy is [2,4,6] f32");
    check_refused(vl_mean_rows_backward(context, none, y, VL_WRITE), VL_INVALID, "dx is [2,0,6] f32");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mean_rows_gradient),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
