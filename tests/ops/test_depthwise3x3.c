// depthwise3x3 against its formula in f64.
#include "tests/ops/output.h"

typedef struct Problem {
    int64_t images, height, width, channels;
    double *x, *w, *dy;
    double *y, *dx, *dw;  // by reference()
} Problem;

static int64_t elements(const Problem *p) { return p->images * p->height * p->width * p->channels; }

static void reference(Problem *p, VlDtype type) {
    for (int64_t i = 0; i < elements(p); i++) p->y[i] = p->dx[i] = 0;
    for (int64_t i = 0; i < 9 * p->channels; i++) p->dw[i] = 0;
    for (int64_t i = 0; i < elements(p); i++) {
        int64_t c = i % p->channels, column = i / p->channels % p->width;
        int64_t row = i / (p->channels * p->width) % p->height;
        for (int64_t k = 0; k < 9; k++) {
            int64_t down = k / 3 - 1, right = k % 3 - 1;
            if (row + down < 0 || row + down >= p->height || column + right < 0 || column + right >= p->width) continue;
            int64_t from = i + (down * p->width + right) * p->channels, tap = c * 9 + k;
            p->y[i] = check_rounded(p->y[i] + check_rounded(p->x[from] * p->w[tap], type), type);
            p->dx[from] = check_rounded(p->dx[from] + check_rounded(p->dy[i] * p->w[tap], type), type);
            p->dw[tap] = check_rounded(p->dw[tap] + check_rounded(p->dy[i] * p->x[from], type), type);
        }
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, elements(p));
}

static Problem problem_make(Check *check, const int64_t shape[4], VlDtype dtype) {
    int64_t count = shape[0] * shape[1] * shape[2] * shape[3];
    return (Problem){.images = shape[0],
                     .height = shape[1],
                     .width = shape[2],
                     .channels = shape[3],
                     .x = check_random(check, count, 1.0, dtype),
                     .w = check_random(check, 9 * shape[3], 1.0, dtype),
                     .dy = check_random(check, count, 1.0, dtype),
                     .y = check_zeros(check, count),
                     .dx = check_zeros(check, count),
                     .dw = check_zeros(check, 9 * shape[3])};
}

enum { Y, DX, DW, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[4], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 25, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlTensor x = check_load(check, check_device_make(check, dtype, 4, shape), p.x);
    VlTensor dy = check_load(check, check_device_make(check, dtype, 4, shape), p.dy);
    VlTensor w = check_upload(check, p.w, dtype, shape[3], 3, 3);
    run->out[Y] = output_make(check, x, VL_WRITE);
    run->out[DX] = output_make(check, x, VL_WRITE);
    run->out[DW] = output_make(check, vl_tensor(NULL, VL_F32, shape[3], 3, 3), VL_ADD);
    VlTensor dx = run->out[DX].tensor, dw = run->out[DW].tensor;
    check_ok(check, vl_depthwise3x3_forward(check->context, run->out[Y].tensor, x, w));
    check_ok(check, vl_depthwise3x3_backward(check->context, dx, VL_EMPTY, dy, x, w));
    check_ok(check, vl_depthwise3x3_backward(check->context, VL_EMPTY, dw, dy, x, w));
    VlTensor both_dx = output_make(check, x, VL_WRITE).tensor;
    VlTensor both_dw = check_upload(check, run->out[DW].start, VL_F32, shape[3], 3, 3);
    check_ok(check, vl_depthwise3x3_backward(check->context, both_dx, both_dw, dy, x, w));
    check_same_bits(check, "dx of both", both_dx, check, dx);
    check_same_bits(check, "dw of both", both_dw, check, dw);
}

static void verify(const int64_t shape[4], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, shape, dtype);
    naive.x = exact.x, naive.w = exact.w, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.out[Y], exact.y, naive.y);
    output_check(check, "dx", run.out[DX], exact.dx, naive.dx);
    output_check(check, "dw", run.out[DW], exact.dw, naive.dw);
    check_end(check);
}

static void test_depthwise3x3_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][4] = {{1, 1, 1, 1}, {2, 3, 4, 5},   {1, 7, 1, 17},  {3, 1, 7, 3}, {2, 5, 6, 65},
                                        {1, 2, 2, 7}, {2, 4, 3, 257}, {1, 3, 5, 600}, {0, 3, 3, 4}, {2, 0, 3, 4}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 26, 1);
    Problem p = problem_make(&check, shapes[1], VL_F64);
    reference(&p, VL_F64);
    double *dx = check_copy(&check, p.dx, 120), *dw = check_copy(&check, p.dw, 45);
    check_differences(&check, "dx", p.x, 120, 120, loss, &p, dx);
    check_differences(&check, "dw", p.w, 45, 45, loss, &p, dw);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, more;
        run_begin(&one, (const int64_t[]){2, 9, 7, 303}, dtypes[i], 1);
        for (int64_t threads = 2; threads <= 3; threads++) {
            run_begin(&more, (const int64_t[]){2, 9, 7, 303}, dtypes[i], threads);
            outputs_same(&one.check, one.out, &more.check, more.out, OUTPUTS);
            check_end(&more.check);
        }
        check_end(&one.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 27, 1);
    VlContext *context = check.context;
    VlTensor x = check_device(&check, VL_F32, 2, 4, 6, 5), y = check_device(&check, VL_F32, 2, 4, 6, 5);
    VlTensor z = check_device(&check, VL_F32, 2, 4, 6, 5), other = check_device(&check, VL_F32, 2, 6, 4, 5);
    VlTensor w = check_device(&check, VL_F32, 5, 3, 3), wrong = check_device(&check, VL_F32, 3, 3, 5);
    VlTensor half = check_device(&check, VL_BF16, 5, 3, 3), dw = check_device(&check, VL_F32, 5, 3, 3);
    check_refused(vl_depthwise3x3_forward(context, other, x, w), VL_INVALID,
                  "depthwise3x3_forward: y is [2,6,4,5] f32, it must be as x [2,4,6,5] f32");
    check_refused(vl_depthwise3x3_forward(context, y, x, wrong), VL_INVALID,
                  "w is [3,3,5] f32, it must be [5,3,3] f32");
    check_refused(vl_depthwise3x3_forward(context, y, x, half), VL_INVALID, "w is [5,3,3] bf16");
    check_refused(vl_depthwise3x3_forward(context, w, w, w), VL_INVALID, "f32 or bf16 of 4 extents");
    check_refused(vl_depthwise3x3_forward(context, x, x, w), VL_INVALID, "overlap");
    check_refused(vl_depthwise3x3_backward(context, other, dw, x, y, w), VL_INVALID,
                  "depthwise3x3_backward: dx is [2,6,4,5] f32, it must be as dy [2,4,6,5] f32");
    check_refused(vl_depthwise3x3_backward(context, z, wrong, x, y, w), VL_INVALID, "dw is [3,3,5] f32");
    check_refused(vl_depthwise3x3_backward(context, z, half, x, y, w), VL_INVALID, "dw is [5,3,3] bf16");
    check_refused(vl_depthwise3x3_backward(context, z, dw, x, other, w), VL_INVALID, "x is [2,6,4,5] f32");
    check_refused(vl_depthwise3x3_backward(context, z, dw, x, y, wrong), VL_INVALID, "w is [3,3,5] f32");
    check_refused(vl_depthwise3x3_backward(context, x, dw, x, y, w), VL_INVALID, "overlap");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_depthwise3x3_gradient),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
