// convolution1d against its definition.
#include "tests/ops/output.h"

typedef struct Problem {
    int64_t rows, channels, taps, groups, sequences;
    int64_t *cu_seqlens;
    double *x, *w, *b, *dy;
    double *y, *dx, *dw, *db;  // by reference()
} Problem;

static void reference(Problem *p, VlDtype type) {
    int64_t width = p->channels / p->groups;
    for (int64_t i = 0; i < p->rows * p->channels; i++) p->dx[i] = 0;
    for (int64_t i = 0; i < p->channels * p->taps * width; i++) p->dw[i] = 0;
    for (int64_t i = 0; i < p->channels; i++) p->db[i] = 0;
    for (int64_t s = 0; s < p->sequences; s++) {
        for (int64_t t = p->cu_seqlens[s]; t < p->cu_seqlens[s + 1]; t++) {
            for (int64_t c = 0; c < p->channels; c++) {
                double sum = p->b[c], dy = p->dy[t * p->channels + c];
                for (int64_t k = 0; k < p->taps; k++) {
                    int64_t from = t + k - p->taps / 2;
                    if (from < p->cu_seqlens[s] || from >= p->cu_seqlens[s + 1]) continue;
                    for (int64_t i = 0; i < width; i++) {
                        int64_t in = from * p->channels + c / width * width + i, at = (c * p->taps + k) * width + i;
                        sum += p->w[at] * p->x[in];
                        p->dx[in] += p->w[at] * dy;
                        p->dw[at] += p->x[in] * dy;
                    }
                }
                p->db[c] += dy;
                p->y[t * p->channels + c] = check_rounded(sum, type);
            }
        }
    }
    check_round(p->dx, p->rows * p->channels, type);
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->rows * p->channels);
}

// shape: sequences of this many rows, more or less; how many of them; C, K, G.
static Problem problem_make(Check *check, const int64_t shape[5], VlDtype dtype) {
    Problem p = {.sequences = shape[1], .channels = shape[2], .taps = shape[3], .groups = shape[4]};
    p.cu_seqlens = check_random_indices(check, p.sequences + 1, 1);
    for (int64_t s = 0; s < p.sequences; s++) p.cu_seqlens[s + 1] = p.cu_seqlens[s] + (s % 3 == 1 ? 1 : shape[0] + s);
    p.rows = p.cu_seqlens[p.sequences];
    int64_t values = p.rows * p.channels, weights = p.channels * p.taps * (p.channels / p.groups);
    p.x = check_random(check, values, 1.0, dtype);
    p.w = check_random(check, weights, 1.0, dtype);
    p.b = check_random(check, p.channels, 1.0, dtype);
    p.dy = check_random(check, values, 1.0, dtype);
    p.y = check_zeros(check, values);
    p.dx = check_zeros(check, values);
    p.dw = check_zeros(check, weights);
    p.db = check_zeros(check, p.channels);
    return p;
}

enum { Y, DX, DX_ADDED, DW, DB, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[5], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 81, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlContext *c = check->context;
    VlTensor x = check_upload(check, p.x, dtype, p.rows, p.channels);
    VlTensor dy = check_upload(check, p.dy, dtype, p.rows, p.channels), b = check_upload(check, p.b, dtype, p.channels);
    VlTensor w = check_upload(check, p.w, dtype, p.channels, p.taps, p.channels / p.groups);
    VlTensor cu = check_upload_i64(check, p.cu_seqlens, p.sequences + 1), parameter = w;
    parameter.dtype = VL_F32;
    run->out[Y] = output_make(check, x, VL_WRITE);
    run->out[DX] = output_make(check, x, VL_WRITE);
    run->out[DX_ADDED] = output_make(check, x, VL_ADD);
    run->out[DW] = output_make(check, parameter, VL_ADD);
    run->out[DB] = output_make(check, vl_tensor(NULL, VL_F32, p.channels), VL_ADD);
    check_ok(check, vl_convolution1d_forward(c, run->out[Y].tensor, x, w, b, cu, p.groups));
    check_ok(check,
             vl_convolution1d_backward(c, run->out[DX].tensor, VL_EMPTY, VL_EMPTY, dy, x, w, cu, p.groups, VL_WRITE));
    check_ok(check, vl_convolution1d_backward(c, run->out[DX_ADDED].tensor, run->out[DW].tensor, run->out[DB].tensor,
                                              dy, x, w, cu, p.groups, VL_ADD));
}

static void verify(const int64_t shape[5], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, shape, dtype);
    naive.x = exact.x, naive.w = exact.w, naive.b = exact.b, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.out[Y], exact.y, naive.y);
    output_check(check, "dx", run.out[DX], exact.dx, naive.dx);
    output_check(check, "dx added", run.out[DX_ADDED], exact.dx, naive.dx);
    output_check(check, "dw", run.out[DW], exact.dw, naive.dw);
    output_check(check, "db", run.out[DB], exact.db, naive.db);
    check_end(check);
}

static void test_convolution1d_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][5] = {
        {1, 1, 1, 1, 1},    {5, 3, 4, 2, 2},     {9, 2, 6, 3, 1},   {20, 2, 12, 8, 3},    {7, 4, 8, 16, 4},
        {0, 1, 4, 3, 2},    {700, 1, 32, 31, 2}, {40, 3, 6, 9, 6},  {150, 4, 96, 6, 2},   {65, 2, 32, 10, 1},
        {130, 1, 64, 3, 1}, {0, 1, 16, 3, 1},    {30, 2, 24, 5, 3}, {140, 2, 96, 128, 2}, {20, 1, 64, 600, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    for (int64_t i = 1; i < 4; i++) {
        check_begin(&check, 82, 1);
        Problem p = problem_make(&check, shapes[i], VL_F64);
        int64_t values = p.rows * p.channels, weights = p.channels * p.taps * (p.channels / p.groups);
        reference(&p, VL_F64);
        double *dx = check_copy(&check, p.dx, values), *dw = check_copy(&check, p.dw, weights);
        double *db = check_copy(&check, p.db, p.channels);
        check_differences(&check, "dx", p.x, values, 40, loss, &p, dx);
        check_differences(&check, "dw", p.w, weights, 40, loss, &p, dw);
        check_differences(&check, "db", p.b, p.channels, 40, loss, &p, db);
        check_end(&check);
    }
}

static void test_threads(void **state) {
    (void)state;
    static const int64_t shape[5] = {333, 2, 24, 15, 3};
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, more;
        run_begin(&one, shape, dtypes[i], 1);
        for (int64_t threads = 2; threads <= 3; threads++) {
            run_begin(&more, shape, dtypes[i], threads);
            outputs_same(&one.check, one.out, &more.check, more.out, OUTPUTS);
            check_end(&more.check);
        }
        check_end(&one.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const int64_t good[] = {0, 2, 5}, behind[] = {0, 2, 6}, falling[] = {0, 3, 2};
    Check check;
    check_begin(&check, 83, 1);
    VlContext *c = check.context;
    VlTensor x = check_device(&check, VL_F32, 5, 6), y = check_device(&check, VL_F32, 5, 6);
    VlTensor w = check_device(&check, VL_F32, 6, 4, 3), half = check_device(&check, VL_BF16, 6, 4, 3);
    VlTensor b = check_device(&check, VL_F32, 5), cu = check_upload_i64(&check, good, 3);
    check_refused(vl_convolution1d_forward(c, y, x, w, VL_EMPTY, cu, 4), VL_INVALID, "4 groups do not divide x");
    check_refused(vl_convolution1d_forward(c, y, x, w, VL_EMPTY, cu, 3), VL_INVALID, "it must be [6,any,2] f32");
    check_refused(vl_convolution1d_forward(c, y, x, half, VL_EMPTY, cu, 2), VL_INVALID, "w is [6,4,3] bf16");
    check_refused(vl_convolution1d_forward(c, y, x, w, b, cu, 2), VL_INVALID, "b is [5] f32, it must be [6] f32");
    check_refused(vl_convolution1d_forward(c, x, x, w, VL_EMPTY, cu, 2), VL_INVALID, "overlap");
    check_refused(vl_convolution1d_forward(c, y, x, w, VL_EMPTY, check_upload_i64(&check, behind, 3), 2), VL_INVALID,
                  "cu_seqlens runs from 0 to 6, but x has 5 rows");
    check_refused(vl_convolution1d_forward(c, y, x, w, VL_EMPTY, check_upload_i64(&check, falling, 3), 2), VL_INVALID,
                  "cu_seqlens[2] is 2, the offsets must not decrease");
    check_refused(vl_convolution1d_backward(c, y, half, VL_EMPTY, x, x, w, cu, 2, VL_WRITE), VL_INVALID,
                  "dw is [6,4,3] bf16, it must be [6,4,3] f32");
    check_refused(vl_convolution1d_backward(c, x, VL_EMPTY, VL_EMPTY, x, x, w, cu, 2, VL_WRITE), VL_INVALID, "overlap");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convolution1d_gradient),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
