// swiglu against its formula in f64.
#include <math.h>

#include "tests/ops/output.h"

typedef struct Problem {
    int64_t count;
    double *gate, *up, *dy;
    double *y, *dgate, *dup;  // by reference()
} Problem;

static void reference(Problem *p, VlDtype type) {
    for (int64_t i = 0; i < p->count; i++) {
        double g = p->gate[i], s = check_rounded(1 / (1 + exp(-g)), type), silu = check_rounded(g * s, type);
        double slope =
            check_rounded(s * check_rounded(1 + check_rounded(g * check_rounded(1 - s, type), type), type), type);
        p->y[i] = check_rounded(silu * p->up[i], type);
        p->dgate[i] = check_rounded(check_rounded(p->dy[i] * p->up[i], type) * slope, type);
        p->dup[i] = check_rounded(p->dy[i] * silu, type);
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->count);
}

static Problem problem_make(Check *check, int64_t count, VlDtype dtype) {
    return (Problem){.count = count,
                     .gate = check_random(check, count, 3.0, dtype),
                     .up = check_random(check, count, 1.0, dtype),
                     .dy = check_random(check, count, 1.0, dtype),
                     .y = check_zeros(check, count),
                     .dgate = check_zeros(check, count),
                     .dup = check_zeros(check, count)};
}

enum { Y, DGATE, DUP, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, int64_t rows, int64_t columns, VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 11, threads);
    Problem p = run->problem = problem_make(check, rows * columns, dtype);
    VlTensor gate = check_upload(check, p.gate, dtype, rows, columns),
             up = check_upload(check, p.up, dtype, rows, columns);
    VlTensor dy = check_upload(check, p.dy, dtype, rows, columns), shape = vl_tensor(NULL, dtype, rows, columns);
    for (int i = 0; i < OUTPUTS; i++) run->out[i] = output_make(check, shape, VL_WRITE);
    VlTensor dgate = run->out[DGATE].tensor, dup = run->out[DUP].tensor;
    check_ok(check, vl_swiglu_forward(check->context, run->out[Y].tensor, gate, up));
    check_ok(check, vl_swiglu_backward(check->context, dgate, VL_EMPTY, dy, gate, up));
    check_ok(check, vl_swiglu_backward(check->context, VL_EMPTY, dup, dy, gate, up));
    // Both at once and in place: the same.
    check_ok(check, vl_swiglu_backward(check->context, gate, up, dy, gate, up));
    check_same_bits(check, "dgate in place", gate, check, dgate);
    check_same_bits(check, "dup in place", up, check, dup);
}

static void verify(int64_t rows, int64_t columns, VlDtype dtype) {
    Run run;
    run_begin(&run, rows, columns, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, rows * columns, dtype);
    naive.gate = exact.gate, naive.up = exact.up, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.out[Y], exact.y, naive.y);
    output_check(check, "dgate", run.out[DGATE], exact.dgate, naive.dgate);
    output_check(check, "dup", run.out[DUP], exact.dup, naive.dup);
    check_end(check);
}

static void test_swiglu_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 1}, {3, 7}, {17, 65}, {1, 1023}, {5, 1025}, {0, 5}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i][0], shapes[i][1], VL_F32);
        verify(shapes[i][0], shapes[i][1], VL_BF16);
    }
    Check check;
    check_begin(&check, 12, 1);
    Problem p = problem_make(&check, 21, VL_F64);
    reference(&p, VL_F64);
    double *dgate = check_copy(&check, p.dgate, 21), *dup = check_copy(&check, p.dup, 21);
    check_differences(&check, "dgate", p.gate, 21, 21, loss, &p, dgate);
    check_differences(&check, "dup", p.up, 21, 21, loss, &p, dup);
    check_end(&check);
}

// Far out the sigmoid is 0 or 1: no infinity and no NaN.
static void test_extremes(void **state) {
    (void)state;
    static const double gates[] = {-1e4, -200, -104, -89, 89, 104, 200, 1e4};
    static const double ones[] = {1, 1, 1, 1, 1, 1, 1, 1};
    static const double y_want[] = {0, 0, 0, 0, 89, 104, 200, 1e4}, slope_want[] = {0, 0, 0, 0, 1, 1, 1, 1};
    Check check;
    check_begin(&check, 13, 1);
    VlTensor gate = check_upload(&check, gates, VL_F32, 8), up = check_upload(&check, ones, VL_F32, 8);
    VlTensor y = check_output(&check, VL_F32, 8), dgate = check_output(&check, VL_F32, 8);
    check_ok(&check, vl_swiglu_forward(check.context, y, gate, up));
    check_ok(&check, vl_swiglu_backward(check.context, dgate, VL_EMPTY, up, gate, up));
    check_tensor(&check, "y", y, y_want, 1e-7);
    check_tensor(&check, "dgate", dgate, slope_want, 1e-7);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, two;
        run_begin(&one, 333, 103, dtypes[i], 1);
        run_begin(&two, 333, 103, dtypes[i], 2);
        outputs_same(&one.check, one.out, &two.check, two.out, OUTPUTS);
        check_end(&one.check);
        check_end(&two.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 14, 1);
    VlContext *context = check.context;
    VlTensor a = check_device(&check, VL_F32, 4, 6), b = check_device(&check, VL_F32, 4, 6);
    VlTensor c = check_device(&check, VL_F32, 4, 6), flat = check_device(&check, VL_F32, 24);
    VlTensor half = check_device(&check, VL_BF16, 4, 6), d = check_device(&check, VL_F32, 4, 6);
    check_refused(vl_swiglu_forward(context, a, flat, c), VL_INVALID,
                  "swiglu_forward: gate is [24] f32, it must be as y [4,6] f32");
    check_refused(vl_swiglu_forward(context, a, b, half), VL_INVALID, "up is [4,6] bf16");
    check_refused(vl_swiglu_forward(context, VL_EMPTY, b, c), VL_INVALID, "y is the empty view");
    check_refused(vl_swiglu_forward(context, b, b, c), VL_INVALID, "overlap");
    check_refused(vl_swiglu_forward(context, c, b, c), VL_INVALID, "overlap");
    check_refused(vl_swiglu_backward(context, flat, b, c, a, d), VL_INVALID,
                  "swiglu_backward: dgate is [24] f32, it must be as dy [4,6] f32");
    check_refused(vl_swiglu_backward(context, a, half, c, b, d), VL_INVALID, "dup is [4,6] bf16");
    check_refused(vl_swiglu_backward(context, a, b, c, flat, d), VL_INVALID, "gate is [24] f32");
    check_refused(vl_swiglu_backward(context, a, b, c, d, flat), VL_INVALID, "up is [24] f32");
    check_refused(vl_swiglu_backward(context, a, a, b, c, d), VL_INVALID, "dgate [4,6] f32 and dup [4,6] f32 overlap");
    check_refused(vl_swiglu_backward(context, d, VL_EMPTY, b, c, d), VL_INVALID,
                  "dgate [4,6] f32 and up [4,6] f32 overlap");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_swiglu_gradient),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
