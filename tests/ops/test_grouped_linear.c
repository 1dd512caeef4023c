// grouped_linear against its definition.
#include "tests/ops/output.h"

enum { EVEN, ONE, HALF, NONE };  // who gets rows: all, the middle one, every second, nobody

typedef struct Problem {
    int64_t experts, rows, out, in;
    int64_t *offsets;
    double *x, *w, *dy;
    double *y, *dx, *dw;  // by reference()
} Problem;

static void reference(Problem *p, VlDtype type) {
    for (int64_t i = 0; i < p->rows * p->in; i++) p->dx[i] = 0;
    for (int64_t i = 0; i < p->experts * p->out * p->in; i++) p->dw[i] = 0;
    for (int64_t e = 0; e < p->experts; e++) {
        for (int64_t i = p->offsets[e] * p->out; i < p->offsets[e + 1] * p->out; i++) {
            int64_t first = (e * p->out + i % p->out) * p->in, row = i / p->out * p->in;
            double sum = 0;
            for (int64_t k = 0; k < p->in; k++) {
                sum += p->x[row + k] * p->w[first + k];
                p->dx[row + k] += p->dy[i] * p->w[first + k];
                p->dw[first + k] += p->dy[i] * p->x[row + k];
            }
            p->y[i] = check_rounded(sum, type);
        }
    }
    check_round(p->dx, p->rows * p->in, type);
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->rows * p->out);
}

static int64_t rows_of(const int64_t shape[5], int64_t expert) {
    switch (shape[4]) {
    case EVEN: return shape[3] + expert % 3;
    case ONE: return expert == shape[0] / 2 ? shape[3] : 0;
    case HALF: return expert % 2 ? shape[3] : 0;
    default: return 0;
    }
}

// shape: E, N, K, rows of an expert, who gets them.
static Problem problem_make(Check *check, const int64_t shape[5], VlDtype dtype) {
    Problem p = {.experts = shape[0], .out = shape[1], .in = shape[2]};
    p.offsets = check_random_indices(check, p.experts + 1, 1);
    for (int64_t e = 0; e < p.experts; e++) p.offsets[e + 1] = p.offsets[e] + rows_of(shape, e);
    p.rows = p.offsets[p.experts];
    p.x = check_random(check, p.rows * p.in, 1.0, dtype);
    p.w = check_random(check, p.experts * p.out * p.in, 1.0, dtype);
    p.dy = check_random(check, p.rows * p.out, 1.0, dtype);
    p.y = check_zeros(check, p.rows * p.out);
    p.dx = check_zeros(check, p.rows * p.in);
    p.dw = check_zeros(check, p.experts * p.out * p.in);
    return p;
}

enum { Y, Y_ADDED, DX, DX_ADDED, DW, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[5], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 101, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlContext *c = check->context;
    VlTensor x = check_upload(check, p.x, dtype, p.rows, p.in), dy = check_upload(check, p.dy, dtype, p.rows, p.out);
    VlTensor w = check_upload(check, p.w, dtype, p.experts, p.out, p.in), parameter = w;
    VlTensor offsets = check_upload_i64(check, p.offsets, p.experts + 1);
    parameter.dtype = VL_F32;
    run->out[Y] = output_make(check, dy, VL_WRITE);
    run->out[Y_ADDED] = output_make(check, dy, VL_ADD);
    run->out[DX] = output_make(check, x, VL_WRITE);
    run->out[DX_ADDED] = output_make(check, x, VL_ADD);
    run->out[DW] = output_make(check, parameter, VL_ADD);
    check_ok(check, vl_grouped_linear_forward(c, run->out[Y].tensor, x, w, offsets, VL_WRITE));
    check_ok(check, vl_grouped_linear_forward(c, run->out[Y_ADDED].tensor, x, w, offsets, VL_ADD));
    check_ok(check, vl_grouped_linear_backward(c, run->out[DX].tensor, VL_EMPTY, dy, x, w, offsets, VL_WRITE));
    check_ok(check,
             vl_grouped_linear_backward(c, run->out[DX_ADDED].tensor, run->out[DW].tensor, dy, x, w, offsets, VL_ADD));
    const int64_t *flops = c->flops.of[VL_PRODUCT_GROUPED_LINEAR], product = 2 * p.rows * p.out * p.in;
    assert_int_equal(flops[VL_PASS_FORWARD], 2 * product);
    assert_int_equal(flops[VL_PASS_INPUTS], 2 * product);
    assert_int_equal(flops[VL_PASS_WEIGHTS], product);
    assert_int_equal(vl_flops_total(&c->flops), 5 * product);
    if (c->device == VL_DEVICE_CPU) assert_int_equal(c->multiplied, 5 * product);
}

static void verify(const int64_t shape[5], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, shape, dtype);
    naive.x = exact.x, naive.w = exact.w, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.out[Y], exact.y, naive.y);
    output_check(check, "y added", run.out[Y_ADDED], exact.y, naive.y);
    output_check(check, "dx", run.out[DX], exact.dx, naive.dx);
    output_check(check, "dx added", run.out[DX_ADDED], exact.dx, naive.dx);
    output_check(check, "dw", run.out[DW], exact.dw, naive.dw);
    check_end(check);
}

static void test_grouped_linear_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][5] = {{1, 1, 1, 1, EVEN},      {3, 5, 7, 4, EVEN},     {4, 33, 18, 9, HALF},
                                        {5, 12, 10, 40, ONE},    {3, 4, 6, 0, NONE},     {8, 16, 24, 3, EVEN},
                                        {2, 264, 72, 130, EVEN}, {3, 40, 272, 140, ONE}, {4, 136, 200, 17, HALF},
                                        {3, 24, 8, 0, NONE},     {2, 8, 520, 65, EVEN},  {40, 8, 8, 1, HALF},
                                        {2, 300, 8, 5, EVEN},    {2, 16, 0, 3, EVEN},    {0, 16, 8, 0, NONE},
                                        {2, 72, 12, 70, EVEN},   {3, 16, 24, 270, ONE}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    for (int64_t i = 1; i < 4; i++) {
        check_begin(&check, 102, 1);
        Problem p = problem_make(&check, shapes[i], VL_F64);
        int64_t inputs = p.rows * p.in, weights = p.experts * p.out * p.in;
        reference(&p, VL_F64);
        double *dx = check_copy(&check, p.dx, inputs), *dw = check_copy(&check, p.dw, weights);
        check_differences(&check, "dx", p.x, inputs, 30, loss, &p, dx);
        check_differences(&check, "dw", p.w, weights, 30, loss, &p, dw);
        check_end(&check);
    }
}

// Weights past 2^31 elements: memory that is not touched is not taken.
static void test_far(void **state) {
    (void)state;
    enum { SIDE = 256, ROWS = 2, EXPERTS = (1LL << 31) / (SIDE * SIDE) + 2 };
    static const int64_t shape[5] = {1, SIDE, SIDE, ROWS, EVEN};
    Check check;
    check_begin(&check, 109, 2);
    VlContext *c = check.context;
    Problem exact = problem_make(&check, shape, VL_BF16), naive = problem_make(&check, shape, VL_BF16);
    naive.x = exact.x, naive.w = exact.w, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, VL_BF16);
    int64_t *offsets = check_random_indices(&check, EXPERTS + 1, 1);
    offsets[EXPERTS] = ROWS;
    VlTensor at = check_upload_i64(&check, offsets, EXPERTS + 1),
             w = check_device(&check, VL_BF16, EXPERTS, SIDE, SIDE);
    VlTensor x = check_upload(&check, exact.x, VL_BF16, ROWS, SIDE), dx = check_output(&check, VL_BF16, ROWS, SIDE);
    VlTensor dy = check_upload(&check, exact.dy, VL_BF16, ROWS, SIDE), y = check_output(&check, VL_BF16, ROWS, SIDE);
    VlTensor dw = check_device(&check, VL_F32, EXPERTS, SIDE, SIDE);
    check_load(&check, vl_rows(w, EXPERTS - 1, 1), exact.w);
    check_ok(&check, vl_grouped_linear_forward(c, y, x, w, at, VL_WRITE));
    check_ok(&check, vl_grouped_linear_backward(c, dx, dw, dy, x, w, at, VL_WRITE));
    check_bf16(&check, "y", y, naive.y, exact.y);
    check_bf16(&check, "dx", dx, naive.dx, exact.dx);
    check_tensor(&check, "dw", vl_rows(dw, EXPERTS - 1, 1), exact.dw, 1e-5);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    static const int64_t shape[5] = {3, 80, 96, 150, EVEN};
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, more;
        run_begin(&one, shape, dtypes[i], 1);
        run_begin(&more, shape, dtypes[i], 3);
        outputs_same(&one.check, one.out, &more.check, more.out, OUTPUTS);
        check_end(&more.check);
        check_end(&one.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const int64_t good[] = {0, 2, 2, 5}, behind[] = {0, 2, 4, 6}, falling[] = {0, 3, 2, 5};
    Check check;
    check_begin(&check, 103, 1);
    VlContext *c = check.context;
    VlTensor x = check_device(&check, VL_F32, 5, 4), y = check_device(&check, VL_F32, 5, 6);
    VlTensor w = check_device(&check, VL_F32, 3, 6, 4), half = check_device(&check, VL_BF16, 3, 6, 4);
    VlTensor offsets = check_upload_i64(&check, good, 4), none = VL_EMPTY;
    check_refused(vl_grouped_linear_forward(c, y, x, half, offsets, VL_WRITE), VL_INVALID,
                  "grouped_linear_forward: w is [3,6,4] bf16 and x is [5,4] f32, they must be of one type");
    check_refused(vl_grouped_linear_forward(c, y, x, vl_reshape(w, 3, 4, 6), offsets, VL_WRITE), VL_INVALID,
                  "w is [3,4,6] f32, it must be [3,4,4] f32");
    check_refused(vl_grouped_linear_forward(c, y, x, vl_reshape(w, 2, 9, 4), offsets, VL_WRITE), VL_INVALID,
                  "offsets is [4] i64, it must be [3] i64");
    check_refused(vl_grouped_linear_forward(c, y, x, w, check_upload_i64(&check, behind, 4), VL_WRITE), VL_INVALID,
                  "offsets runs from 0 to 6, but x has 5 rows");
    check_refused(vl_grouped_linear_forward(c, y, x, w, check_upload_i64(&check, falling, 4), VL_WRITE), VL_INVALID,
                  "offsets[2] is 2, the offsets must not decrease");
    check_refused(vl_grouped_linear_forward(c, vl_reshape(y, 6, 5), x, w, offsets, VL_WRITE), VL_INVALID,
                  "it must be [5,6] f32");
    check_refused(vl_grouped_linear_forward(c, vl_tensor(w.data, VL_F32, 5, 6), x, w, offsets, VL_WRITE), VL_INVALID,
                  "overlap");
    check_refused(vl_grouped_linear_backward(c, none, half, y, x, w, offsets, VL_WRITE), VL_INVALID,
                  "dw is [3,6,4] bf16, it must be [3,6,4] f32");
    check_refused(vl_grouped_linear_backward(c, x, w, y, x, w, offsets, VL_WRITE), VL_INVALID, "dx [5,4] f32 and x");
    check_refused(vl_grouped_linear_backward(c, vl_tensor(y.data, VL_F32, 5, 4), none, y, x, w, offsets, VL_WRITE),
                  VL_INVALID, "overlap");
    assert_int_equal(vl_flops_total(&c->flops), 0);
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grouped_linear_gradient),
        cmocka_unit_test(test_far),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
