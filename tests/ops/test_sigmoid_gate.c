// sigmoid_gate against its formula in f64.
#include <math.h>

#include "tests/ops/output.h"

typedef struct Problem {
    int64_t images, rows, channels;
    double *x, *gate, *dy;
    double *y, *dx, *dgate;  // by reference()
} Problem;

static void reference(Problem *p, VlDtype type) {
    for (int64_t n = 0; n < p->images; n++) {
        for (int64_t c = 0; c < p->channels; c++) {
            int64_t g = n * p->channels + c;
            double s = check_rounded(1 / (1 + exp(-p->gate[g])), type), sum = 0;
            for (int64_t r = 0; r < p->rows; r++) {
                int64_t i = (n * p->rows + r) * p->channels + c;
                p->y[i] = check_rounded(p->x[i] * s, type);
                p->dx[i] = check_rounded(p->dy[i] * s, type);
                sum = check_rounded(sum + check_rounded(p->dy[i] * p->x[i], type), type);
            }
            p->dgate[g] = check_rounded(check_rounded(sum * s, type) * check_rounded(1 - s, type), type);
        }
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->images * p->rows * p->channels);
}

static Problem problem_make(Check *check, const int64_t shape[3], VlDtype dtype) {
    int64_t count = shape[0] * shape[1] * shape[2], gates = shape[0] * shape[2];
    return (Problem){.images = shape[0],
                     .rows = shape[1],
                     .channels = shape[2],
                     .x = check_random(check, count, 1.0, dtype),
                     .gate = check_random(check, gates, 2.0, dtype),
                     .dy = check_random(check, count, 1.0, dtype),
                     .y = check_zeros(check, count),
                     .dx = check_zeros(check, count),
                     .dgate = check_zeros(check, gates)};
}

enum { Y, DX, DGATE, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[3], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 19, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlTensor x = check_load(check, check_device_make(check, dtype, 3, shape), p.x);
    VlTensor dy = check_load(check, check_device_make(check, dtype, 3, shape), p.dy);
    VlTensor gate = check_upload(check, p.gate, dtype, shape[0], shape[2]);
    run->out[Y] = output_make(check, x, VL_WRITE);
    run->out[DX] = output_make(check, x, VL_WRITE);
    run->out[DGATE] = output_make(check, gate, VL_WRITE);
    VlTensor dx = run->out[DX].tensor, dgate = run->out[DGATE].tensor;
    check_ok(check, vl_sigmoid_gate_forward(check->context, run->out[Y].tensor, x, gate));
    check_ok(check, vl_sigmoid_gate_backward(check->context, dx, VL_EMPTY, dy, x, gate));
    check_ok(check, vl_sigmoid_gate_backward(check->context, VL_EMPTY, dgate, dy, x, gate));
    VlTensor both_dx = output_make(check, x, VL_WRITE).tensor, both_dgate = output_make(check, gate, VL_WRITE).tensor;
    check_ok(check, vl_sigmoid_gate_backward(check->context, both_dx, both_dgate, dy, x, gate));
    check_same_bits(check, "dx of both", both_dx, check, dx);
    check_same_bits(check, "dgate of both", both_dgate, check, dgate);
}

static void verify(const int64_t shape[3], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, shape, dtype);
    naive.x = exact.x, naive.gate = exact.gate, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.out[Y], exact.y, naive.y);
    output_check(check, "dx", run.out[DX], exact.dx, naive.dx);
    output_check(check, "dgate", run.out[DGATE], exact.dgate, naive.dgate);
    check_end(check);
}

static void test_sigmoid_gate_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1},    {2, 3, 7}, {3, 17, 65}, {1, 729, 33}, {2, 5, 1},
                                        {2, 3, 2500}, {0, 3, 5}, {2, 0, 3},   {2, 70, 264}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 20, 1);
    Problem p = problem_make(&check, shapes[1], VL_F64);
    reference(&p, VL_F64);
    double *dx = check_copy(&check, p.dx, 42), *dgate = check_copy(&check, p.dgate, 14);
    check_differences(&check, "dx", p.x, 42, 42, loss, &p, dx);
    check_differences(&check, "dgate", p.gate, 14, 14, loss, &p, dgate);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, more;
        run_begin(&one, (const int64_t[]){3, 65, 203}, dtypes[i], 1);
        for (int64_t threads = 2; threads <= 3; threads++) {
            run_begin(&more, (const int64_t[]){3, 65, 203}, dtypes[i], threads);
            outputs_same(&one.check, one.out, &more.check, more.out, OUTPUTS);
            check_end(&more.check);
        }
        check_end(&one.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 21, 1);
    VlContext *context = check.context;
    VlTensor x = check_device(&check, VL_F32, 2, 4, 6), y = check_device(&check, VL_F32, 2, 4, 6);
    VlTensor z = check_device(&check, VL_F32, 2, 4, 6), other = check_device(&check, VL_F32, 2, 6, 4);
    VlTensor gate = check_device(&check, VL_F32, 2, 6), wrong = check_device(&check, VL_F32, 2, 4);
    VlTensor half = check_device(&check, VL_BF16, 2, 6), dgate = check_device(&check, VL_F32, 2, 6);
    check_refused(vl_sigmoid_gate_forward(context, other, x, gate), VL_INVALID,
                  "sigmoid_gate_forward: y is [2,6,4] f32, it must be as x [2,4,6] f32");
    check_refused(vl_sigmoid_gate_forward(context, y, x, wrong), VL_INVALID, "gate is [2,4] f32, it must be [2,6] f32");
    check_refused(vl_sigmoid_gate_forward(context, y, x, half), VL_INVALID, "gate is [2,6] bf16");
    check_refused(vl_sigmoid_gate_forward(context, wrong, wrong, gate), VL_INVALID, "f32 or bf16 of 3 extents");
    check_refused(vl_sigmoid_gate_forward(context, x, x, gate), VL_INVALID, "overlap");
    check_refused(vl_sigmoid_gate_backward(context, other, dgate, x, y, gate), VL_INVALID,
                  "sigmoid_gate_backward: dx is [2,6,4] f32, it must be as dy [2,4,6] f32");
    check_refused(vl_sigmoid_gate_backward(context, z, wrong, x, y, gate), VL_INVALID, "dgate is [2,4] f32");
    check_refused(vl_sigmoid_gate_backward(context, z, half, x, y, gate), VL_INVALID, "dgate is [2,6] bf16");
    check_refused(vl_sigmoid_gate_backward(context, z, dgate, x, other, gate), VL_INVALID, "x is [2,6,4] f32");
    check_refused(vl_sigmoid_gate_backward(context, z, dgate, x, y, wrong), VL_INVALID, "gate is [2,4] f32");
    check_refused(vl_sigmoid_gate_backward(context, x, dgate, x, y, gate), VL_INVALID, "overlap");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sigmoid_gate_gradient),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
