// layernorm against its formula in f64.
#include <math.h>

#include "tests/ops/output.h"

static const double eps = 0.25;  // large: an error in its place must show

typedef struct Problem {
    int64_t rows, columns;
    double *x, *w, *b, *dy;
    double *y, *mean, *rstd, *dx, *dw, *db;  // by reference()
} Problem;

// Every intermediate is rounded to `type`.
static void reference(Problem *p, VlDtype type) {
    double columns = (double)p->columns;
    for (int64_t c = 0; c < p->columns; c++) p->dw[c] = p->db[c] = 0;
    for (int64_t r = 0; r < p->rows; r++) {
        const double *x = p->x + r * p->columns, *dy = p->dy + r * p->columns;
        double *y = p->y + r * p->columns, *dx = p->dx + r * p->columns;
        double sum = 0, squares = 0, gradients = 0, projection = 0;
        for (int64_t c = 0; c < p->columns; c++) sum += x[c];
        double mean = check_rounded(sum / columns, type);
        for (int64_t c = 0; c < p->columns; c++) squares += (x[c] - mean) * (x[c] - mean);
        double rstd = check_rounded(1 / sqrt(squares / columns + eps), type);
        p->mean[r] = mean;
        p->rstd[r] = rstd;
        for (int64_t c = 0; c < p->columns; c++) {
            double normal = check_rounded(check_rounded(x[c] - mean, type) * rstd, type);
            double g = check_rounded(dy[c] * p->w[c], type);
            y[c] = check_rounded(check_rounded(normal * p->w[c], type) + (p->b ? p->b[c] : 0), type);
            p->dw[c] = check_rounded(p->dw[c] + check_rounded(dy[c] * normal, type), type);
            p->db[c] = check_rounded(p->db[c] + dy[c], type);
            gradients += g;
            projection += g * normal;
        }
        gradients = check_rounded(gradients / columns, type);
        projection = check_rounded(projection / columns, type);
        for (int64_t c = 0; c < p->columns; c++) {
            double normal = check_rounded(check_rounded(x[c] - mean, type) * rstd, type);
            double g = check_rounded(check_rounded(dy[c] * p->w[c], type) - gradients, type);
            dx[c] = check_rounded(rstd * check_rounded(g - check_rounded(normal * projection, type), type), type);
        }
    }
}

static Problem problem_make(Check *check, int64_t rows, int64_t columns, VlDtype dtype, bool bias) {
    int64_t count = rows * columns;
    Problem problem = {.rows = rows,
                       .columns = columns,
                       .x = check_random(check, count, 1.5, dtype),
                       .w = check_random(check, columns, 1.0, dtype),
                       .b = bias ? check_random(check, columns, 1.0, dtype) : NULL,
                       .dy = check_random(check, count, 1.0, dtype),
                       .y = check_zeros(check, count),
                       .mean = check_zeros(check, rows),
                       .rstd = check_zeros(check, rows),
                       .dx = check_zeros(check, count),
                       .dw = check_zeros(check, columns),
                       .db = check_zeros(check, columns)};
    for (int64_t i = 0; i < count; i++) problem.x[i] = check_rounded(problem.x[i] + 2, dtype);  // a mean to remove
    return problem;
}

enum { Y, MEAN, RSTD, DX, DW, DB, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, int64_t rows, int64_t columns, VlDtype dtype, VlMode mode, bool bias, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 4, threads);
    Problem p = run->problem = problem_make(check, rows, columns, dtype, bias);
    VlTensor x = check_upload(check, p.x, dtype, rows, columns), w = check_upload(check, p.w, dtype, columns);
    VlTensor dy = check_upload(check, p.dy, dtype, rows, columns);
    VlTensor b = bias ? check_upload(check, p.b, dtype, columns) : VL_EMPTY;
    VlTensor rows_by_columns = vl_tensor(NULL, dtype, rows, columns);
    VlTensor per_row = vl_tensor(NULL, VL_F32, rows), per_column = vl_tensor(NULL, VL_F32, columns);
    const VlTensor shapes[OUTPUTS] = {rows_by_columns, per_row, per_row, rows_by_columns, per_column, per_column};
    const VlMode modes[OUTPUTS] = {VL_WRITE, VL_WRITE, VL_WRITE, mode, VL_ADD, VL_ADD};
    for (int i = 0; i < OUTPUTS; i++) run->out[i] = output_make(check, shapes[i], modes[i]);
    VlTensor mean = run->out[MEAN].tensor, rstd = run->out[RSTD].tensor, dx = run->out[DX].tensor;
    VlTensor dw = run->out[DW].tensor, db = run->out[DB].tensor;
    check_ok(check, vl_layernorm_forward(check->context, run->out[Y].tensor, mean, rstd, x, w, b, (float)eps));
    // Each gradient alone: the others are not wanted.
    VlContext *context = check->context;
    check_ok(check, vl_layernorm_backward(context, dx, VL_EMPTY, VL_EMPTY, dy, x, w, mean, rstd, mode));
    check_ok(check, vl_layernorm_backward(context, VL_EMPTY, dw, VL_EMPTY, dy, x, w, mean, rstd, mode));
    check_ok(check, vl_layernorm_backward(context, VL_EMPTY, VL_EMPTY, db, dy, x, w, mean, rstd, mode));
    // All at once give the same.
    VlTensor all[OUTPUTS];
    for (int i = DX; i < OUTPUTS; i++) {
        all[i] = check_load(check, check_device_make(check, shapes[i].dtype, shapes[i].dims, shapes[i].dim),
                            run->out[i].start);
    }
    check_ok(check, vl_layernorm_backward(context, all[DX], all[DW], all[DB], dy, x, w, mean, rstd, mode));
    for (int i = DX; i < OUTPUTS; i++) check_same_bits(check, "all at once", all[i], check, run->out[i].tensor);
}

static void verify(int64_t rows, int64_t columns, VlDtype dtype, VlMode mode, bool bias) {
    Run run;
    run_begin(&run, rows, columns, dtype, mode, bias, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, rows, columns, dtype, bias);
    naive.x = exact.x, naive.w = exact.w, naive.b = exact.b, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.out[Y], exact.y, naive.y);
    output_check(check, "mean", run.out[MEAN], exact.mean, naive.mean);
    output_check(check, "rstd", run.out[RSTD], exact.rstd, naive.rstd);
    output_check(check, "dx", run.out[DX], exact.dx, naive.dx);
    output_check(check, "dw", run.out[DW], exact.dw, naive.dw);
    output_check(check, "db", run.out[DB], exact.db, naive.db);
    check_end(check);
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->rows * p->columns);
}

static void test_layernorm_gradient(void **state) {
    (void)state;
    // Multiples of 8 columns, up to 4096 and beyond, are kernels of their own on CUDA.
    static const int64_t shapes[][2] = {{3, 7},    {17, 65},  {65, 3},  {130, 64}, {7, 1023},
                                        {5, 1025}, {3, 2500}, {9, 264}, {6, 1152}, {2, 4112}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i][0], shapes[i][1], VL_F32, VL_WRITE, true);
        verify(shapes[i][0], shapes[i][1], VL_F32, VL_ADD, false);
        verify(shapes[i][0], shapes[i][1], VL_BF16, VL_WRITE, false);
        verify(shapes[i][0], shapes[i][1], VL_BF16, VL_ADD, true);
    }
    verify(5, 1, VL_F32, VL_ADD, true);
    Check check;
    check_begin(&check, 5, 1);
    Problem p = problem_make(&check, 3, 7, VL_F64, true);
    reference(&p, VL_F64);
    double *dx = check_copy(&check, p.dx, 21), *dw = check_copy(&check, p.dw, 7), *db = check_copy(&check, p.db, 7);
    check_differences(&check, "dx", p.x, 21, 21, loss, &p, dx);
    check_differences(&check, "dw", p.w, 7, 7, loss, &p, dw);
    check_differences(&check, "db", p.b, 7, 7, loss, &p, db);
    check_end(&check);
}

static void test_no_rows(void **state) {
    (void)state;
    Run run;
    run_begin(&run, 0, 5, VL_F32, VL_WRITE, true, 2);
    output_check(&run.check, "dw", run.out[DW], run.problem.dw, run.problem.dw);  // nothing was added
    output_check(&run.check, "db", run.out[DB], run.problem.db, run.problem.db);
    check_end(&run.check);
}

static void test_threads(void **state) {
    (void)state;
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, more;
        run_begin(&one, 200, 333, dtypes[i], VL_WRITE, true, 1);
        for (int64_t threads = 2; threads <= 3; threads++) {
            run_begin(&more, 200, 333, dtypes[i], VL_WRITE, true, threads);
            outputs_same(&one.check, one.out, &more.check, more.out, OUTPUTS);
            check_end(&more.check);
        }
        check_end(&one.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 6, 1);
    VlContext *context = check.context;
    VlTensor x = check_device(&check, VL_F32, 8, 63), wide = check_device(&check, VL_F32, 8, 64);
    VlTensor y = check_device(&check, VL_F32, 8, 63), w = check_device(&check, VL_F32, 63);
    VlTensor r = check_device(&check, VL_F32, 8), half = check_device(&check, VL_BF16, 63);
    VlTensor none = check_device(&check, VL_F32, 8, 0);
    VlTensor e = VL_EMPTY;
    check_refused(vl_layernorm_forward(context, wide, r, r, x, w, e, 0), VL_INVALID,
                  "layernorm_forward: y is [8,64] f32, it must be as x [8,63] f32");
    check_refused(vl_layernorm_forward(context, y, w, r, x, w, e, 0), VL_INVALID,
                  "mean is [63] f32, it must be [8] f32");
    check_refused(vl_layernorm_forward(context, y, r, w, x, w, e, 0), VL_INVALID, "rstd is [63] f32");
    check_refused(vl_layernorm_forward(context, y, r, r, x, half, e, 0), VL_INVALID, "w is [63] bf16");
    check_refused(vl_layernorm_forward(context, y, r, r, x, w, r, 0), VL_INVALID, "b is [8] f32, it must be [63] f32");
    check_refused(vl_layernorm_forward(context, none, r, r, none, w, e, 0), VL_INVALID, "at least one column");
    check_refused(vl_layernorm_forward(context, x, r, r, x, w, e, 0), VL_INVALID, "overlap");
    check_refused(vl_layernorm_backward(context, wide, w, w, x, y, w, r, r, VL_WRITE), VL_INVALID,
                  "layernorm_backward: dx is [8,64] f32, it must be as dy [8,63] f32");
    check_refused(vl_layernorm_backward(context, e, r, e, x, y, w, r, r, VL_WRITE), VL_INVALID, "dw is [8] f32");
    check_refused(vl_layernorm_backward(context, e, e, half, x, y, w, r, r, VL_WRITE), VL_INVALID, "db is [63] bf16");
    check_refused(vl_layernorm_backward(context, e, e, w, x, wide, w, r, r, VL_WRITE), VL_INVALID, "x is [8,64] f32");
    check_refused(vl_layernorm_backward(context, e, e, w, x, y, r, r, r, VL_WRITE), VL_INVALID, "w is [8] f32");
    check_refused(vl_layernorm_backward(context, e, e, w, x, y, w, w, r, VL_WRITE), VL_INVALID, "mean is [63] f32");
    check_refused(vl_layernorm_backward(context, e, e, w, x, y, w, r, w, VL_WRITE), VL_INVALID, "rstd is [63] f32");
    check_refused(vl_layernorm_backward(context, y, e, w, x, y, w, r, r, VL_WRITE), VL_INVALID, "overlap");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layernorm_gradient),
        cmocka_unit_test(test_no_rows),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
