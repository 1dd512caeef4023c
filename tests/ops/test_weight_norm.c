// weight_norm against its definition.
#include <math.h>

#include "tests/ops/output.h"

typedef struct Problem {
    int64_t out, in, taps;
    double *g, *v, *dw;
    double *w, *dg, *dv;  // by reference()
} Problem;

static void reference(Problem *p, VlDtype type) {
    for (int64_t k = 0; k < p->taps; k++) {
        double square = 1e-6, along = 0;
        for (int64_t i = k; i < p->out * p->in * p->taps; i += p->taps) square += p->v[i] * p->v[i];
        double norm = sqrt(square);
        for (int64_t o = 0; o < p->out; o++) {
            for (int64_t i = 0; i < p->in; i++) {
                double v = p->v[(o * p->in + i) * p->taps + k];
                int64_t at = (o * p->taps + k) * p->in + i;
                p->w[at] = check_rounded(p->g[k] * v / norm, type);
                along += p->dw[at] * v;
            }
        }
        p->dg[k] = along / norm;
        for (int64_t o = 0; o < p->out; o++) {
            for (int64_t i = 0; i < p->in; i++) {
                int64_t at = (o * p->in + i) * p->taps + k;
                p->dv[at] = p->g[k] / norm * (p->dw[(o * p->taps + k) * p->in + i] - p->v[at] * along / square);
            }
        }
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->w, p->dw, p->out * p->in * p->taps);
}

// shape: O, I, K.
static Problem problem_make(Check *check, const int64_t shape[3], VlDtype dtype) {
    int64_t count = shape[0] * shape[1] * shape[2];
    return (Problem){.out = shape[0],
                     .in = shape[1],
                     .taps = shape[2],
                     .g = check_random(check, shape[2], 1.0, dtype),
                     .v = check_random(check, count, shape[0] == 2 ? 1e-3 : 1.0, dtype),  // so small that 1e-6 counts
                     .dw = check_random(check, count, 1.0, dtype == VL_F64 ? VL_F64 : VL_F32),
                     .w = check_zeros(check, count),
                     .dg = check_zeros(check, shape[2]),
                     .dv = check_zeros(check, count)};
}

enum { W, DG, DV, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[3], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 84, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlTensor g = check_upload(check, p.g, dtype, p.taps), v = check_upload(check, p.v, dtype, p.out, p.in, p.taps);
    VlTensor dw = check_upload(check, p.dw, VL_F32, p.out, p.taps, p.in);
    run->out[W] = output_make(check, vl_tensor(NULL, dtype, p.out, p.taps, p.in), VL_WRITE);
    run->out[DG] = output_make(check, vl_tensor(NULL, VL_F32, p.taps), VL_ADD);
    run->out[DV] = output_make(check, vl_tensor(NULL, VL_F32, p.out, p.in, p.taps), VL_ADD);
    check_ok(check, vl_weight_norm_forward(check->context, run->out[W].tensor, g, v));
    check_ok(check, vl_weight_norm_backward(check->context, run->out[DG].tensor, VL_EMPTY, dw, g, v));
    check_ok(check, vl_weight_norm_backward(check->context, VL_EMPTY, run->out[DV].tensor, dw, g, v));
}

static void verify(const int64_t shape[3], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, shape, dtype);
    naive.g = exact.g, naive.v = exact.v, naive.dw = exact.dw;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "w", run.out[W], exact.w, naive.w);
    output_check(check, "dg", run.out[DG], exact.dg, exact.dg);
    output_check(check, "dv", run.out[DV], exact.dv, exact.dv);
    check_end(check);
}

static void test_weight_norm_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1}, {2, 3, 5}, {6, 2, 17}, {48, 12, 33}, {5, 7, 16}, {64, 16, 128}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 85, 1);
    Problem p = problem_make(&check, shapes[2], VL_F64);
    reference(&p, VL_F64);
    double *dg = check_copy(&check, p.dg, p.taps), *dv = check_copy(&check, p.dv, 6 * 2 * 17);
    check_differences(&check, "dg", p.g, p.taps, 17, loss, &p, dg);
    check_differences(&check, "dv", p.v, 6 * 2 * 17, 60, loss, &p, dv);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    static const int64_t shape[3] = {96, 11, 77};
    Run one, more;
    run_begin(&one, shape, VL_BF16, 1);
    run_begin(&more, shape, VL_BF16, 3);
    outputs_same(&one.check, one.out, &more.check, more.out, OUTPUTS);
    check_end(&more.check);
    check_end(&one.check);
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 86, 1);
    VlContext *c = check.context;
    VlTensor v = check_device(&check, VL_F32, 4, 3, 5), w = check_device(&check, VL_F32, 4, 5, 3);
    VlTensor g = check_device(&check, VL_F32, 5), four = check_device(&check, VL_F32, 4);
    check_refused(vl_weight_norm_forward(c, v, g, v), VL_INVALID, "w is [4,3,5] f32, it must be [4,5,3] f32");
    check_refused(vl_weight_norm_forward(c, w, four, v), VL_INVALID, "g is [4] f32, it must be [5] f32");
    check_refused(vl_weight_norm_backward(c, four, VL_EMPTY, w, g, v), VL_INVALID, "dg is [4] f32");
    check_refused(vl_weight_norm_backward(c, g, w, w, g, v), VL_INVALID, "dv is [4,5,3] f32, it must be [4,3,5] f32");
    check_refused(vl_weight_norm_backward(c, g, v, v, g, v), VL_INVALID, "dw is [4,3,5] f32");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weight_norm_gradient),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
