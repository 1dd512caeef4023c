// gather_rows against its definition.
#include "tests/ops/output.h"

typedef struct Problem {
    int64_t rows, places, columns;
    int64_t *index;
    double *x, *dy;
    double *y, *dx;  // by reference()
} Problem;

static void reference(Problem *p, VlDtype type) {
    for (int64_t i = 0; i < p->rows * p->columns; i++) p->dx[i] = 0;
    for (int64_t i = 0; i < p->places * p->columns; i++) {
        int64_t at = p->index[i / p->columns] * p->columns + i % p->columns;
        p->y[i] = p->x[at];
        p->dx[at] = check_rounded(p->dx[at] + p->dy[i], type);
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->places * p->columns);
}

// shape: M, N, C.
static Problem problem_make(Check *check, const int64_t shape[3], VlDtype dtype) {
    return (Problem){.places = shape[0],
                     .rows = shape[1],
                     .columns = shape[2],
                     .index = check_random_indices(check, shape[0], shape[1]),
                     .x = check_random(check, shape[1] * shape[2], 1.0, dtype),
                     .dy = check_random(check, shape[0] * shape[2], 1.0, dtype),
                     .y = check_zeros(check, shape[0] * shape[2]),
                     .dx = check_zeros(check, shape[1] * shape[2])};
}

enum { Y, DX, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[3], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 44, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlTensor x = check_upload(check, p.x, dtype, p.rows, p.columns);
    VlTensor dy = check_upload(check, p.dy, dtype, p.places, p.columns);
    VlTensor index = check_upload_i64(check, p.index, p.places);
    run->out[Y] = output_make(check, dy, VL_WRITE);
    run->out[DX] = output_make(check, x, VL_WRITE);
    check_ok(check, vl_gather_rows_forward(check->context, run->out[Y].tensor, x, index));
    check_ok(check, vl_gather_rows_backward(check->context, run->out[DX].tensor, dy, index));
    check_ok(check, vl_gather_rows_backward(check->context, VL_EMPTY, dy, index));
}

static void verify(const int64_t shape[3], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, shape, dtype);
    naive.index = exact.index, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    check_tensor(check, "y", run.out[Y].tensor, exact.y, 0);
    output_check(check, "dx", run.out[DX], exact.dx, naive.dx);
    check_end(check);
}

static void test_gather_rows_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1}, {17, 5, 7},   {65, 130, 33}, {9, 3, 2500},   {700, 2, 17},
                                        {0, 3, 5}, {3, 700, 17}, {90, 40, 264}, {5000, 4500, 3}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 45, 1);
    Problem p = problem_make(&check, shapes[1], VL_F64);
    reference(&p, VL_F64);
    check_differences(&check, "dx", p.x, 35, 35, loss, &p, check_copy(&check, p.dx, 35));
    check_end(&check);
}

// Sums in the order of the places: 1e8 - 1e8 + 1 is 1 in that order only. A bf16 sum is one of f32, rounded once:
// 1 + 512 halves of a bf16 step.
static void test_order(void **state) {
    (void)state;
    static const int64_t index[] = {2, 0, 2, 2};
    static const double dy[] = {1e8, 5, -1e8, 1}, want[] = {5, 0, 1};
    Check check;
    check_begin(&check, 46, 2);
    VlTensor dx = check_output(&check, VL_F32, 3, 1);
    check_ok(&check, vl_gather_rows_backward(check.context, dx, check_upload(&check, dy, VL_F32, 4, 1),
                                             check_upload_i64(&check, index, 4)));
    check_tensor(&check, "dx", dx, want, 0);
    enum { TERMS = 513 };
    double terms[TERMS], sum[] = {1 + 512 * 0x1p-9};
    int64_t zeros[TERMS] = {0};
    for (int i = 0; i < TERMS; i++) terms[i] = i ? 0x1p-9 : 1;
    VlTensor half = check_output(&check, VL_BF16, 1, 1);
    check_ok(&check, vl_gather_rows_backward(check.context, half, check_upload(&check, terms, VL_BF16, TERMS, 1),
                                             check_upload_i64(&check, zeros, TERMS)));
    check_tensor(&check, "dx in bf16", half, sum, 0);
    check_end(&check);
}

// Rows past 2^31 elements: memory that is not touched is not taken.
static void test_far(void **state) {
    (void)state;
    enum { COLUMNS = 16 };
    const int64_t rows = (1LL << 31) / COLUMNS + 5, index[] = {rows - 2, 1};
    Check check;
    check_begin(&check, 64, 2);
    double *row = check_random(&check, 2 * COLUMNS, 1.0, VL_F32);
    VlTensor x = check_device(&check, VL_F32, rows, COLUMNS), y = check_output(&check, VL_F32, 2, COLUMNS);
    check_load(&check, vl_rows(x, rows - 2, 1), row);
    check_load(&check, vl_rows(x, 1, 1), row + COLUMNS);
    check_ok(&check, vl_gather_rows_forward(check.context, y, x, check_upload_i64(&check, index, 2)));
    check_tensor(&check, "y", y, row, 0);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    static const int64_t shape[3] = {333, 65, 103};
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
    static const int64_t above[] = {0, 4, 5, 1}, below[] = {0, -1, 2, 1};
    Check check;
    check_begin(&check, 47, 1);
    VlContext *c = check.context;
    VlTensor y = check_device(&check, VL_F32, 4, 6), x = check_device(&check, VL_F32, 5, 6);
    VlTensor index = check_device(&check, VL_I64, 4), fewer = check_device(&check, VL_I64, 3);
    VlTensor half = check_device(&check, VL_BF16, 4, 6), narrow = check_device(&check, VL_F32, 5, 5);
    check_refused(vl_gather_rows_forward(c, y, x, check_upload_i64(&check, above, 4)), VL_INVALID,
                  "gather_rows_forward: index[2] is 5, it must be in [0, 5)");
    check_refused(vl_gather_rows_forward(c, y, x, check_upload_i64(&check, below, 4)), VL_INVALID, "index[1] is -1");
    check_refused(vl_gather_rows_forward(c, half, x, index), VL_INVALID, "y is [4,6] bf16, it must be [4,6] f32");
    check_refused(vl_gather_rows_forward(c, y, narrow, index), VL_INVALID, "it must be [4,5] f32");
    check_refused(vl_gather_rows_forward(c, y, x, fewer), VL_INVALID, "it must be [3,6] f32");
    check_refused(vl_gather_rows_forward(c, x, x, check_device(&check, VL_I64, 5)), VL_INVALID, "overlap");
    check_refused(vl_gather_rows_backward(c, x, y, check_upload_i64(&check, below, 4)), VL_INVALID,
                  "gather_rows_backward: index[1] is -1, it must be in [0, 5)");
    check_refused(vl_gather_rows_backward(c, narrow, y, index), VL_INVALID, "dx is [5,5] f32, it must be [any,6] f32");
    check_refused(vl_gather_rows_backward(c, x, half, index), VL_INVALID, "dx is [5,6] f32, it must be [any,6] bf16");
    check_refused(vl_gather_rows_backward(c, x, y, fewer), VL_INVALID, "index is [3] i64, it must be [4] i64");
    check_end(&check);
}

// Too little scratch is an error before anything is written.
static void test_scratch(void **state) {
    (void)state;
    static const int64_t index[] = {2, 0, 2, 2};
    static const double dy[] = {1, 2, 3, 4}, kept[] = {7, 8, 9};
    Check check;
    check_begin(&check, 48, 1);
    vl_arena_unbind(check.context, &check.context->scratch);
    check_ok(&check, vl_arena_bind(check.context, &check.context->scratch, "scratch", 64));
    VlTensor dx = check_upload(&check, kept, VL_F32, 3, 1);
    check_refused(vl_gather_rows_backward(check.context, dx, check_upload(&check, dy, VL_F32, 4, 1),
                                          check_upload_i64(&check, index, 4)),
                  VL_OUT_OF_MEMORY, "arena scratch is full");
    check_tensor(&check, "dx", dx, kept, 0);
    check_end(&check);
}

// Indices that the host does not know are checked where they are used.
static void test_device_indices(void **state) {
    (void)state;
    static const int64_t above[] = {0, 4, 5, 1};
    Check check;
    check_begin(&check, 68, 1);
    VlContext *c = check.context;
    const char *text =
        c->device == VL_DEVICE_CUDA ? "element 2 of an index tensor is 5, it must be in [0, 5)" : "index[2] is 5";
    VlTensor y = check_device(&check, VL_F32, 4, 6), x = check_device(&check, VL_F32, 5, 6);
    VlTensor index = check_device(&check, VL_I64, 4);
    check_ok(&check, vl_cast(c, index, check_upload_i64(&check, above, 4)));
    check_refused(vl_gather_rows_forward(c, y, x, index), VL_INVALID, text);
    check_refused(vl_gather_rows_backward(c, x, y, index), VL_INVALID, text);
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather_rows_gradient),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_far),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_device_indices),
        cmocka_unit_test(test_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
