// unfold3d against its definition. It only moves elements, so everything is equal bit by bit.
#include "tests/ops/output.h"

typedef struct Problem {
    int64_t shape[5], kernel[3], padding;  // of x[N,T,H,W,C]
    int64_t grid[3], rows, width;
    double *x, *dcolumns;
    double *columns, *dx;  // by reference()
} Problem;

static int64_t elements(const Problem *p) {
    return p->shape[0] * p->shape[1] * p->shape[2] * p->shape[3] * p->shape[4];
}

static void reference(Problem *p) {
    const int64_t *shape = p->shape, *kernel = p->kernel;
    int64_t size = kernel[0] * kernel[1] * kernel[2];
    for (int64_t i = 0; i < elements(p); i++) p->dx[i] = 0;
    for (int64_t i = 0; i < p->rows * p->width; i++) {
        int64_t row = i / p->width, channel = i % p->width / size, k = i % size;
        int64_t w = row % p->grid[2] * kernel[2] + k % kernel[2] - p->padding;
        int64_t h = row / p->grid[2] % p->grid[1] * kernel[1] + k / kernel[2] % kernel[1] - p->padding;
        int64_t t = row / (p->grid[2] * p->grid[1]) % p->grid[0] * kernel[0] + k / (kernel[2] * kernel[1]) - p->padding;
        int64_t n = row / (p->grid[2] * p->grid[1] * p->grid[0]);
        bool inside = t >= 0 && t < shape[1] && h >= 0 && h < shape[2] && w >= 0 && w < shape[3];
        int64_t from = (((n * shape[1] + t) * shape[2] + h) * shape[3] + w) * shape[4] + channel;
        p->columns[i] = inside ? p->x[from] : 0;
        if (inside) p->dx[from] += p->dcolumns[i];
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p);
    return check_dot(p->columns, p->dcolumns, p->rows * p->width);
}

// shape: N, T, H, W, C, kt, kh, kw, padding.
static Problem problem_make(Check *check, const int64_t shape[9], VlDtype dtype) {
    Problem p = {.padding = shape[8], .rows = shape[0], .width = shape[4]};
    for (int i = 0; i < 5; i++) p.shape[i] = shape[i];
    for (int i = 0; i < 3; i++) {
        p.kernel[i] = shape[5 + i];
        p.grid[i] = (shape[1 + i] + 2 * p.padding - p.kernel[i]) / p.kernel[i] + 1;
        p.rows *= p.grid[i];
        p.width *= p.kernel[i];
    }
    p.x = check_random(check, elements(&p), 1.0, dtype);
    p.dx = check_zeros(check, elements(&p));
    p.columns = check_zeros(check, p.rows * p.width);
    p.dcolumns = check_random(check, p.rows * p.width, 1.0, dtype);
    return p;
}

enum { COLUMNS, DX, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[9], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 31, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlContext *context = check->context;
    VlTensor x = check_load(check, check_device_make(check, dtype, 5, shape), p.x);
    VlTensor dcolumns = check_upload(check, p.dcolumns, dtype, p.rows, p.width);
    run->out[COLUMNS] = output_make(check, dcolumns, VL_WRITE);
    run->out[DX] = output_make(check, x, VL_WRITE);
    VlTensor columns = run->out[COLUMNS].tensor, dx = run->out[DX].tensor;
    check_ok(check, vl_unfold3d_forward(context, columns, x, p.kernel[0], p.kernel[1], p.kernel[2], p.padding));
    check_ok(check, vl_unfold3d_backward(context, dx, dcolumns, p.kernel[0], p.kernel[1], p.kernel[2], p.padding));
    check_ok(check,
             vl_unfold3d_backward(context, VL_EMPTY, dcolumns, p.kernel[0], p.kernel[1], p.kernel[2], p.padding));
}

static void verify(const int64_t shape[9], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    reference(&run.problem);
    check_tensor(&run.check, "columns", run.out[COLUMNS].tensor, run.problem.columns, 0);
    check_tensor(&run.check, "dx", run.out[DX].tensor, run.problem.dx, 0);
    check_end(&run.check);
}

static void test_unfold3d_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][9] = {
        {1, 1, 1, 1, 1, 1, 1, 1, 0}, {2, 3, 4, 5, 3, 2, 2, 2, 1},   {1, 8, 6, 6, 7, 2, 2, 2, 0},
        {2, 3, 5, 7, 2, 2, 2, 2, 0}, {1, 3, 4, 4, 5, 1, 2, 2, 1},   {2, 5, 4, 7, 3, 2, 3, 1, 2},
        {1, 2, 2, 2, 3, 1, 1, 1, 3}, {1, 2, 3, 3, 300, 2, 2, 2, 1}, {0, 2, 2, 2, 3, 2, 2, 2, 1},
        {2, 4, 3, 5, 1, 3, 2, 4, 1}, {1, 2, 2, 2, 520, 1, 1, 2, 0}, {1, 5, 5, 6, 70, 5, 5, 5, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 32, 1);
    Problem p = problem_make(&check, shapes[1], VL_F64);
    reference(&p);
    check_differences(&check, "dx", p.x, elements(&p), elements(&p), loss, &p, check_copy(&check, p.dx, elements(&p)));
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    static const int64_t shape[9] = {2, 5, 7, 9, 65, 2, 2, 2, 1};
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
    check_begin(&check, 33, 1);
    VlContext *c = check.context;
    VlTensor x = check_device(&check, VL_F32, 1, 4, 4, 4, 3), columns = check_device(&check, VL_F32, 8, 24);
    VlTensor half = check_device(&check, VL_BF16, 8, 24), flat = check_device(&check, VL_F32, 4, 4, 4, 3);
    check_refused(vl_unfold3d_forward(c, columns, x, 2, 2, 2, 1), VL_INVALID,
                  "unfold3d_forward: columns is [8,24] f32, it must be [27,24] f32");
    check_refused(vl_unfold3d_forward(c, half, x, 2, 2, 2, 0), VL_INVALID, "columns is [8,24] bf16");
    check_refused(vl_unfold3d_forward(c, columns, flat, 2, 2, 2, 0), VL_INVALID, "x is [4,4,4,3] f32");
    check_refused(vl_unfold3d_forward(c, columns, x, 0, 2, 2, 0), VL_INVALID, "kt is 0, it must be at least 1");
    check_refused(vl_unfold3d_forward(c, columns, x, 2, -1, 2, 0), VL_INVALID, "kh is -1");
    check_refused(vl_unfold3d_forward(c, columns, x, 2, 2, 5, 0), VL_INVALID, "kw is 5, but x [1,4,4,4,3] f32");
    check_refused(vl_unfold3d_forward(c, columns, x, 2, 2, 2, -1), VL_INVALID, "padding is -1");
    check_refused(vl_unfold3d_backward(c, x, half, 2, 2, 2, 0), VL_INVALID,
                  "unfold3d_backward: dcolumns is [8,24] bf16, it must be [8,24] f32");
    check_refused(vl_unfold3d_backward(c, x, columns, 2, 2, 1, 0), VL_INVALID, "it must be [16,12] f32");
    check_refused(vl_unfold3d_backward(c, x, columns, 2, 7, 2, 0), VL_INVALID, "kh is 7, but dx");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unfold3d_gradient),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
