// rmsnorm against its formula in f64.
#include <math.h>

#include "tests/ops/output.h"

static const double eps = 0.25;  // large: with one column the gradient is all but cancelled without it

typedef struct Problem {
    int64_t rows, columns;
    double *x, *w, *dy;
    double *y, *rstd, *dx, *dw;  // by reference()
} Problem;

// Every intermediate is rounded to `type`.
static void reference(Problem *p, VlDtype type) {
    for (int64_t c = 0; c < p->columns; c++) p->dw[c] = 0;
    for (int64_t r = 0; r < p->rows; r++) {
        const double *x = p->x + r * p->columns, *dy = p->dy + r * p->columns;
        double *y = p->y + r * p->columns, *dx = p->dx + r * p->columns;
        double squares = 0, projection = 0;
        for (int64_t c = 0; c < p->columns; c++) squares += x[c] * x[c];
        double rstd = check_rounded(1 / sqrt(squares / (double)p->columns + eps), type);
        p->rstd[r] = rstd;
        for (int64_t c = 0; c < p->columns; c++) {
            double normal = check_rounded(x[c] * rstd, type);
            y[c] = check_rounded(normal * p->w[c], type);
            p->dw[c] = check_rounded(p->dw[c] + check_rounded(dy[c] * normal, type), type);
            projection += check_rounded(dy[c] * p->w[c], type) * normal;
        }
        projection = check_rounded(projection / (double)p->columns, type);
        for (int64_t c = 0; c < p->columns; c++) {
            double g = check_rounded(dy[c] * p->w[c], type), normal = check_rounded(x[c] * rstd, type);
            dx[c] = check_rounded(rstd * check_rounded(g - check_rounded(normal * projection, type), type), type);
        }
    }
}

static Problem problem_make(Check *check, int64_t rows, int64_t columns, VlDtype dtype) {
    int64_t count = rows * columns;
    return (Problem){.rows = rows,
                     .columns = columns,
                     .x = check_random(check, count, 1.5, dtype),
                     .w = check_random(check, columns, 1.0, dtype),
                     .dy = check_random(check, count, 1.0, dtype),
                     .y = check_zeros(check, count),
                     .rstd = check_zeros(check, rows),
                     .dx = check_zeros(check, count),
                     .dw = check_zeros(check, columns)};
}

typedef struct Run {
    Check check;
    Problem problem;
    Output y, rstd, dx, dw;
} Run;

static void run_begin(Run *run, int64_t rows, int64_t columns, VlDtype dtype, VlMode mode, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 1, threads);
    Problem p = run->problem = problem_make(check, rows, columns, dtype);
    VlTensor x = check_upload(check, p.x, dtype, rows, columns), w = check_upload(check, p.w, dtype, columns);
    VlTensor dy = check_upload(check, p.dy, dtype, rows, columns);
    run->y = output_make(check, vl_tensor(NULL, dtype, rows, columns), VL_WRITE);
    run->rstd = output_make(check, vl_tensor(NULL, VL_F32, rows), VL_WRITE);
    run->dx = output_make(check, vl_tensor(NULL, dtype, rows, columns), mode);
    run->dw = output_make(check, vl_tensor(NULL, VL_F32, columns), VL_ADD);
    check_ok(check, vl_rmsnorm_forward(check->context, run->y.tensor, run->rstd.tensor, x, w, (float)eps));
    // Each gradient alone: the other one is not wanted.
    check_ok(check, vl_rmsnorm_backward(check->context, run->dx.tensor, VL_EMPTY, dy, x, w, run->rstd.tensor, mode));
    check_ok(check, vl_rmsnorm_backward(check->context, VL_EMPTY, run->dw.tensor, dy, x, w, run->rstd.tensor, mode));
    // Both at once give the same.
    Output dx = {.tensor = check_device(check, dtype, rows, columns)},
           dw = {.tensor = check_device(check, VL_F32, columns)};
    check_load(check, dx.tensor, run->dx.start);
    check_load(check, dw.tensor, run->dw.start);
    check_ok(check, vl_rmsnorm_backward(check->context, dx.tensor, dw.tensor, dy, x, w, run->rstd.tensor, mode));
    check_same_bits(check, "dx", dx.tensor, check, run->dx.tensor);
    check_same_bits(check, "dw", dw.tensor, check, run->dw.tensor);
}

static void verify(int64_t rows, int64_t columns, VlDtype dtype, VlMode mode) {
    Run run;
    run_begin(&run, rows, columns, dtype, mode, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, rows, columns, dtype);
    naive.x = exact.x, naive.w = exact.w, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.y, exact.y, naive.y);
    output_check(check, "rstd", run.rstd, exact.rstd, naive.rstd);
    output_check(check, "dx", run.dx, exact.dx, naive.dx);
    output_check(check, "dw", run.dw, exact.dw, naive.dw);
    check_end(check);
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->rows * p->columns);
}

static void test_rmsnorm_gradient(void **state) {
    (void)state;
    // Multiples of 8 columns, up to 4096 and beyond, are kernels of their own on CUDA.
    static const int64_t shapes[][2] = {{1, 1},    {3, 7},    {17, 65}, {65, 3},   {130, 64}, {7, 1023},
                                        {5, 1025}, {3, 2500}, {9, 264}, {6, 1152}, {2, 4112}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i][0], shapes[i][1], VL_F32, VL_WRITE);
        verify(shapes[i][0], shapes[i][1], VL_F32, VL_ADD);
        verify(shapes[i][0], shapes[i][1], VL_BF16, VL_WRITE);
        verify(shapes[i][0], shapes[i][1], VL_BF16, VL_ADD);
    }
    Check check;
    check_begin(&check, 2, 1);
    Problem p = problem_make(&check, 3, 7, VL_F64);
    reference(&p, VL_F64);
    double *dx = check_copy(&check, p.dx, 21), *dw = check_copy(&check, p.dw, 7);
    check_differences(&check, "dx", p.x, 21, 21, loss, &p, dx);
    check_differences(&check, "dw", p.w, 7, 7, loss, &p, dw);
    check_end(&check);
}

static void test_no_rows(void **state) {
    (void)state;
    Run run;
    run_begin(&run, 0, 5, VL_F32, VL_WRITE, 2);
    output_check(&run.check, "dw", run.dw, run.problem.dw, run.problem.dw);  // nothing was added
    check_end(&run.check);
}

static void test_threads(void **state) {
    (void)state;
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, more;
        run_begin(&one, 200, 333, dtypes[i], VL_WRITE, 1);
        for (int64_t threads = 2; threads <= 3; threads++) {
            run_begin(&more, 200, 333, dtypes[i], VL_WRITE, threads);
            check_same_bits(&one.check, "y", one.y.tensor, &more.check, more.y.tensor);
            check_same_bits(&one.check, "rstd", one.rstd.tensor, &more.check, more.rstd.tensor);
            check_same_bits(&one.check, "dx", one.dx.tensor, &more.check, more.dx.tensor);
            check_same_bits(&one.check, "dw", one.dw.tensor, &more.check, more.dw.tensor);
            check_end(&more.check);
        }
        check_end(&one.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 3, 1);
    VlContext *context = check.context;
    VlTensor x = check_device(&check, VL_F32, 8, 63), wide = check_device(&check, VL_F32, 8, 64);
    VlTensor y = check_device(&check, VL_F32, 8, 63), w = check_device(&check, VL_F32, 63);
    VlTensor rstd = check_device(&check, VL_F32, 8), half = check_device(&check, VL_BF16, 63);
    VlTensor none = check_device(&check, VL_F32, 8, 0), integers = check_device(&check, VL_I64, 8, 63);
    check_refused(vl_rmsnorm_forward(context, wide, rstd, x, w, 0), VL_INVALID,
                  "rmsnorm_forward: y is [8,64] f32, it must be as x [8,63] f32");
    check_refused(vl_rmsnorm_forward(context, y, w, x, w, 0), VL_INVALID, "rstd is [63] f32, it must be [8] f32");
    check_refused(vl_rmsnorm_forward(context, y, rstd, x, half, 0), VL_INVALID, "w is [63] bf16, it must be [63] f32");
    check_refused(vl_rmsnorm_forward(context, none, rstd, none, w, 0), VL_INVALID, "at least one column");
    check_refused(vl_rmsnorm_forward(context, y, rstd, integers, w, 0), VL_INVALID, "x is [8,63] i64");
    check_refused(vl_rmsnorm_forward(context, x, rstd, x, w, 0), VL_INVALID, "overlap");
    check_refused(vl_rmsnorm_backward(context, wide, w, x, y, w, rstd, VL_WRITE), VL_INVALID,
                  "rmsnorm_backward: dx is [8,64] f32, it must be as dy [8,63] f32");
    check_refused(vl_rmsnorm_backward(context, VL_EMPTY, rstd, x, y, w, rstd, VL_WRITE), VL_INVALID, "dw is [8] f32");
    check_refused(vl_rmsnorm_backward(context, VL_EMPTY, half, x, y, w, rstd, VL_WRITE), VL_INVALID, "dw is [63] bf16");
    check_refused(vl_rmsnorm_backward(context, VL_EMPTY, w, x, wide, w, rstd, VL_WRITE), VL_INVALID, "x is [8,64] f32");
    check_refused(vl_rmsnorm_backward(context, VL_EMPTY, w, x, y, rstd, rstd, VL_WRITE), VL_INVALID, "w is [8] f32");
    check_refused(vl_rmsnorm_backward(context, VL_EMPTY, w, x, y, w, w, VL_WRITE), VL_INVALID, "rstd is [63] f32");
    check_refused(vl_rmsnorm_backward(context, x, w, x, y, w, rstd, VL_WRITE), VL_INVALID, "overlap");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm_gradient),
        cmocka_unit_test(test_no_rows),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
