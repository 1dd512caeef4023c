// combine against its definition.
#include "tests/ops/output.h"

typedef struct Problem {
    int64_t tokens, chosen, columns;
    int64_t *places;
    double *x, *weights, *dy;
    double *y, *dx, *dweights;  // by reference()
} Problem;

static void reference(Problem *p, VlDtype type) {
    for (int64_t t = 0; t < p->tokens; t++) {
        for (int64_t s = 0; s < p->chosen; s++) p->dweights[t * p->chosen + s] = 0;
        for (int64_t c = 0; c < p->columns; c++) {
            double sum = 0, dy = p->dy[t * p->columns + c];
            for (int64_t r = t * p->chosen; r < (t + 1) * p->chosen; r++) {
                int64_t at = p->places[r] * p->columns + c;
                sum = check_rounded(sum + p->weights[r] * p->x[at], type);
                p->dx[at] = check_rounded(p->weights[r] * dy, type);
                p->dweights[r] += p->x[at] * dy;
            }
            p->y[t * p->columns + c] = sum;
        }
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->tokens * p->columns);
}

// shape: T, S, C.
static Problem problem_make(Check *check, const int64_t shape[3], VlDtype dtype) {
    int64_t slots = shape[0] * shape[1], values = slots * shape[2];
    Problem p = {.tokens = shape[0],
                 .chosen = shape[1],
                 .columns = shape[2],
                 .places = check_random_indices(check, slots, 1),
                 .x = check_random(check, values, 1.0, dtype),
                 .weights = check_random(check, slots, 1.0, VL_F32),
                 .dy = check_random(check, shape[0] * shape[2], 1.0, dtype),
                 .y = check_zeros(check, shape[0] * shape[2]),
                 .dx = check_zeros(check, values),
                 .dweights = check_zeros(check, slots)};
    for (int64_t r = 0; r < slots; r++) p.places[r] = r;
    for (int64_t r = slots - 1; r > 0; r--) {
        int64_t other = vl_random_below(&check->random, r + 1), place = p.places[r];
        p.places[r] = p.places[other];
        p.places[other] = place;
    }
    return p;
}

enum { Y, Y_ADDED, DX, DWEIGHTS, DX_ALONE, DWEIGHTS_ALONE, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[3], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 104, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlContext *c = check->context;
    VlTensor x = check_upload(check, p.x, dtype, p.tokens * p.chosen, p.columns);
    VlTensor dy = check_upload(check, p.dy, dtype, p.tokens, p.columns);
    VlTensor weights = check_upload(check, p.weights, VL_F32, p.tokens, p.chosen);
    VlTensor places = check_upload_i64(check, p.places, p.tokens * p.chosen);
    Output *out = run->out;
    out[Y] = output_make(check, dy, VL_WRITE);
    out[Y_ADDED] = output_make(check, dy, VL_ADD);
    out[DX] = output_make(check, x, VL_WRITE);
    out[DWEIGHTS] = output_make(check, weights, VL_WRITE);
    out[DX_ALONE] = output_make(check, x, VL_WRITE);
    out[DWEIGHTS_ALONE] = output_make(check, weights, VL_WRITE);
    check_ok(check, vl_combine_forward(c, out[Y].tensor, x, weights, places, VL_WRITE));
    check_ok(check, vl_combine_forward(c, out[Y_ADDED].tensor, x, weights, places, VL_ADD));
    check_ok(check, vl_combine_backward(c, out[DX].tensor, out[DWEIGHTS].tensor, dy, x, weights, places));
    check_ok(check, vl_combine_backward(c, out[DX_ALONE].tensor, VL_EMPTY, dy, x, weights, places));
    check_ok(check, vl_combine_backward(c, VL_EMPTY, out[DWEIGHTS_ALONE].tensor, dy, x, weights, places));
}

static void verify(const int64_t shape[3], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, shape, dtype);
    naive.x = exact.x, naive.weights = exact.weights, naive.dy = exact.dy, naive.places = exact.places;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.out[Y], exact.y, naive.y);
    output_check(check, "y added", run.out[Y_ADDED], exact.y, naive.y);
    output_check(check, "dx", run.out[DX], exact.dx, naive.dx);
    output_check(check, "dweights", run.out[DWEIGHTS], exact.dweights, naive.dweights);
    check_same_bits(check, "dx alone", run.out[DX].tensor, check, run.out[DX_ALONE].tensor);
    check_same_bits(check, "dweights alone", run.out[DWEIGHTS].tensor, check, run.out[DWEIGHTS_ALONE].tensor);
    check_end(check);
}

static void test_combine_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1},  {5, 2, 7},    {17, 2, 64},  {9, 3, 1030}, {40, 1, 33},
                                        {0, 2, 16}, {3, 8, 2056}, {200, 2, 24}, {4, 2, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 105, 1);
    Problem p = problem_make(&check, shapes[1], VL_F64);
    reference(&p, VL_F64);
    double *dx = check_copy(&check, p.dx, 70), *dweights = check_copy(&check, p.dweights, 10);
    check_differences(&check, "dx", p.x, 70, 70, loss, &p, dx);
    check_differences(&check, "dweights", p.weights, 10, 10, loss, &p, dweights);
    check_end(&check);
}

// Sums in the order of the slots: 1e8 - 1e8 + 1 is 1 in that order only. A bf16 sum is one of f32, rounded once: half a
// step of bf16 twice is a step.
static void test_order(void **state) {
    (void)state;
    static const int64_t places[] = {2, 0, 1};
    static const double x[] = {-1e8, 1, 1e8}, fine[] = {0x1p-8, 0x1p-8, 1}, ones[] = {1, 1, 1};
    static const double want[] = {1}, sum[] = {1 + 0x1p-7};
    Check check;
    check_begin(&check, 106, 1);
    VlTensor y = check_output(&check, VL_F32, 1, 1), half = check_output(&check, VL_BF16, 1, 1);
    VlTensor w = check_upload(&check, ones, VL_F32, 1, 3), at = check_upload_i64(&check, places, 3);
    check_ok(&check, vl_combine_forward(check.context, y, check_upload(&check, x, VL_F32, 3, 1), w, at, VL_WRITE));
    check_tensor(&check, "y", y, want, 0);
    check_ok(&check,
             vl_combine_forward(check.context, half, check_upload(&check, fine, VL_BF16, 3, 1), w, at, VL_WRITE));
    check_tensor(&check, "y in bf16", half, sum, 0);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    static const int64_t shape[3] = {60, 2, 300};
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
    static const int64_t above[] = {0, 5, 6, 1, 2, 3};
    Check check;
    check_begin(&check, 107, 1);
    VlContext *c = check.context;
    VlTensor x = check_device(&check, VL_F32, 6, 4), y = check_device(&check, VL_F32, 3, 4), none = VL_EMPTY;
    VlTensor weights = check_device(&check, VL_F32, 3, 2), places = check_device(&check, VL_I64, 6);
    VlTensor bad = check_upload_i64(&check, above, 6), half = check_device(&check, VL_BF16, 3, 4);
    check_refused(vl_combine_forward(c, y, x, weights, bad, VL_WRITE), VL_INVALID,
                  "combine_forward: places[2] is 6, it must be in [0, 6)");
    check_refused(vl_combine_forward(c, half, x, weights, places, VL_WRITE), VL_INVALID,
                  "y is [3,4] bf16, it must be [3,4] f32");
    check_refused(vl_combine_forward(c, y, vl_rows(x, 0, 5), weights, places, VL_WRITE), VL_INVALID,
                  "x is [5,4] f32, it must be [6,4] f32");
    check_refused(vl_combine_forward(c, vl_tensor(x.data, VL_F32, 3, 4), x, weights, places, VL_WRITE), VL_INVALID,
                  "overlap");
    check_refused(vl_combine_backward(c, none, none, y, x, weights, bad), VL_INVALID, "combine_backward: places[2]");
    check_refused(vl_combine_backward(c, x, none, y, x, weights, places), VL_INVALID, "dx [6,4] f32 and x");
    check_refused(vl_combine_backward(c, none, vl_tensor(y.data, VL_F32, 3, 2), y, x, weights, places), VL_INVALID,
                  "overlap");
    check_refused(vl_combine_backward(c, vl_reshape(x, 4, 6), none, y, x, weights, places), VL_INVALID,
                  "dx is [4,6] f32, it must be as x");
    check_end(&check);
}

// A place that only the device knows is checked where it is used.
static void test_device_places(void **state) {
    (void)state;
    static const int64_t above[] = {0, 5, 6, 1, 2, 3};
    Check check;
    check_begin(&check, 108, 1);
    VlContext *c = check.context;
    const char *text =
        c->device == VL_DEVICE_CUDA ? "element 2 of an index tensor is 6, it must be in [0, 6)" : "places[2] is 6";
    VlTensor x = check_device(&check, VL_F32, 6, 4), y = check_device(&check, VL_F32, 3, 4);
    VlTensor dx = check_device(&check, VL_F32, 6, 4), places = check_device(&check, VL_I64, 6);
    VlTensor weights = check_device(&check, VL_F32, 3, 2);
    check_ok(&check, vl_cast(c, places, check_upload_i64(&check, above, 6)));
    check_refused(vl_combine_forward(c, y, x, weights, places, VL_WRITE), VL_INVALID, text);
    check_refused(vl_combine_backward(c, dx, VL_EMPTY, y, x, weights, places), VL_INVALID, text);
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_combine_gradient), cmocka_unit_test(test_order),         cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),         cmocka_unit_test(test_device_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
