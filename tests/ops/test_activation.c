// activation: the four functions against their formulas in f64.
#include <math.h>

#include "tests/ops/output.h"

typedef struct Problem {
    int64_t count;
    VlActivation kind;
    double *x, *dy;
    double *y, *dx;  // by reference()
} Problem;

// The factor g of x * g(x), and its derivative.
static double factor(double x, VlActivation kind, double *derivative) {
    const double pi = 3.14159265358979323846;
    double argument = x, slope = 1;
    switch (kind) {
    case VL_GELU_ERF: *derivative = exp(-x * x / 2) / sqrt(2 * pi); return erfc(-x / sqrt(2)) / 2;
    case VL_GELU_TANH:
        argument = 2 * sqrt(2 / pi) * (x + 0.044715 * x * x * x);
        slope = 2 * sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x);
        break;
    case VL_QUICK_GELU: argument = 1.702 * x, slope = 1.702; break;
    default: break;
    }
    double sigmoid = 1 / (1 + exp(-argument));
    *derivative = sigmoid / (1 + exp(argument)) * slope;
    return sigmoid;
}

static void reference(Problem *p, VlDtype type) {
    for (int64_t i = 0; i < p->count; i++) {
        double x = p->x[i], derivative, g = check_rounded(factor(x, p->kind, &derivative), type);
        double product = check_rounded(x * check_rounded(derivative, type), type);
        p->y[i] = check_rounded(x * g, type);
        p->dx[i] = check_rounded(p->dy[i] * check_rounded(g + product, type), type);
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->count);
}

static Problem problem_make(Check *check, int64_t count, VlActivation kind, VlDtype dtype) {
    return (Problem){.count = count,
                     .kind = kind,
                     .x = check_random(check, count, 2.0, dtype),
                     .dy = check_random(check, count, 1.0, dtype),
                     .y = check_zeros(check, count),
                     .dx = check_zeros(check, count)};
}

enum { Y, DX, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, int64_t rows, int64_t columns, VlActivation kind, VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 15, threads);
    Problem p = run->problem = problem_make(check, rows * columns, kind, dtype);
    VlTensor x = check_upload(check, p.x, dtype, rows, columns), dy = check_upload(check, p.dy, dtype, rows, columns);
    for (int i = 0; i < OUTPUTS; i++) run->out[i] = output_make(check, vl_tensor(NULL, dtype, rows, columns), VL_WRITE);
    check_ok(check, vl_activation_forward(check->context, run->out[Y].tensor, x, kind));
    check_ok(check, vl_activation_backward(check->context, run->out[DX].tensor, dy, x, kind));
    check_ok(check, vl_activation_backward(check->context, VL_EMPTY, dy, x, kind));
    // In place: the same.
    check_ok(check, vl_activation_backward(check->context, dy, dy, x, kind));
    check_ok(check, vl_activation_forward(check->context, x, x, kind));
    check_same_bits(check, "dx in place", dy, check, run->out[DX].tensor);
    check_same_bits(check, "y in place", x, check, run->out[Y].tensor);
}

static void verify(int64_t rows, int64_t columns, VlActivation kind, VlDtype dtype) {
    Run run;
    run_begin(&run, rows, columns, kind, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, rows * columns, kind, dtype);
    naive.x = exact.x, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.out[Y], exact.y, naive.y);
    output_check(check, "dx", run.out[DX], exact.dx, naive.dx);
    check_end(check);
}

static void test_activation_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 1}, {3, 7}, {17, 65}, {1, 1023}, {5, 1025}, {0, 5}};
    for (VlActivation kind = VL_SILU; kind <= VL_QUICK_GELU; kind++) {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            verify(shapes[i][0], shapes[i][1], kind, VL_F32);
            verify(shapes[i][0], shapes[i][1], kind, VL_BF16);
        }
        Check check;
        check_begin(&check, 16, 1);
        Problem p = problem_make(&check, 40, kind, VL_F64);
        reference(&p, VL_F64);
        check_differences(&check, "dx", p.x, 40, 40, loss, &p, check_copy(&check, p.dx, 40));
        check_end(&check);
    }
}

// Every point of a fine grid, absolutely: within 1e-6 of f64, and nothing but numbers far out.
static void test_accuracy(void **state) {
    (void)state;
    enum { POINTS = 24001 };
    for (VlActivation kind = VL_SILU; kind <= VL_QUICK_GELU; kind++) {
        Check check;
        check_begin(&check, 17, 2);
        Problem p = problem_make(&check, POINTS, kind, VL_F32);
        for (int64_t i = 0; i < POINTS; i++) {
            double step = (double)(i - POINTS / 2) / (POINTS / 2);
            p.x[i] = check_rounded(12 * step, VL_F32);
            p.dy[i] = 1;
        }
        p.x[0] = -1e4, p.x[POINTS - 1] = 1e4, p.x[1] = -105, p.x[2] = 105;
        reference(&p, VL_F64);
        VlTensor x = check_upload(&check, p.x, VL_F32, POINTS), dy = check_upload(&check, p.dy, VL_F32, POINTS);
        VlTensor y = check_output(&check, VL_F32, POINTS), dx = check_output(&check, VL_F32, POINTS);
        check_ok(&check, vl_activation_forward(check.context, y, x, kind));
        check_ok(&check, vl_activation_backward(check.context, dx, dy, x, kind));
        double *y_got = check_download(&check, y), *dx_got = check_download(&check, dx);
        for (int64_t i = 0; i < POINTS; i++) {
            double bound = 1e-6 * fmax(1, fabs(p.x[i]));
            if (!(fabs(y_got[i] - p.y[i]) <= bound)) fail_msg("kind %d: f(%g) = %g", (int)kind, p.x[i], y_got[i]);
            if (!(fabs(dx_got[i] - p.dx[i]) <= bound)) fail_msg("kind %d: f'(%g) = %g", (int)kind, p.x[i], dx_got[i]);
        }
        check_end(&check);
    }
}

static void test_threads(void **state) {
    (void)state;
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, two;
        run_begin(&one, 333, 103, VL_GELU_ERF, dtypes[i], 1);
        run_begin(&two, 333, 103, VL_GELU_ERF, dtypes[i], 2);
        outputs_same(&one.check, one.out, &two.check, two.out, OUTPUTS);
        check_end(&one.check);
        check_end(&two.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 18, 1);
    VlContext *context = check.context;
    VlTensor a = check_device(&check, VL_F32, 4, 6), b = check_device(&check, VL_F32, 4, 6);
    VlTensor c = check_device(&check, VL_F32, 4, 6), flat = check_device(&check, VL_F32, 24);
    VlTensor half = check_device(&check, VL_BF16, 4, 6);
    check_refused(vl_activation_forward(context, a, flat, VL_SILU), VL_INVALID,
                  "activation_forward: x is [24] f32, it must be as y [4,6] f32");
    check_refused(vl_activation_forward(context, a, half, VL_SILU), VL_INVALID, "x is [4,6] bf16");
    check_refused(vl_activation_forward(context, a, b, (VlActivation)4), VL_INVALID, "kind is 4");
    check_refused(vl_activation_forward(context, VL_EMPTY, b, VL_SILU), VL_INVALID, "y is the empty view");
    check_refused(vl_activation_backward(context, half, b, c, VL_SILU), VL_INVALID,
                  "activation_backward: dx is [4,6] bf16, it must be as dy [4,6] f32");
    check_refused(vl_activation_backward(context, a, b, flat, VL_SILU), VL_INVALID, "x is [24] f32");
    check_refused(vl_activation_backward(context, a, b, c, (VlActivation)4), VL_INVALID, "kind is 4");
    check_refused(vl_activation_backward(context, c, b, c, VL_SILU), VL_INVALID, "overlap");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activation_gradient),
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
