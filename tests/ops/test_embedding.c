// embedding against its definition.
#include "tests/ops/output.h"

typedef struct Problem {
    int64_t tokens, words, columns;
    int64_t *ids;
    double *table, *dy;
    double *y, *dtable;  // by reference()
} Problem;

static void reference(Problem *p, VlDtype type) {
    for (int64_t i = 0; i < p->words * p->columns; i++) p->dtable[i] = 0;
    for (int64_t i = 0; i < p->tokens * p->columns; i++) {
        int64_t at = p->ids[i / p->columns] * p->columns + i % p->columns;
        p->y[i] = p->table[at];
        p->dtable[at] = check_rounded(p->dtable[at] + p->dy[i], type);
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->tokens * p->columns);
}

// shape: T, V, C.
static Problem problem_make(Check *check, const int64_t shape[3], VlDtype dtype) {
    return (Problem){.tokens = shape[0],
                     .words = shape[1],
                     .columns = shape[2],
                     .ids = check_random_indices(check, shape[0], shape[1]),
                     .table = check_random(check, shape[1] * shape[2], 1.0, dtype),
                     .dy = check_random(check, shape[0] * shape[2], 1.0, dtype),
                     .y = check_zeros(check, shape[0] * shape[2]),
                     .dtable = check_zeros(check, shape[1] * shape[2])};
}

enum { Y, DTABLE, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[3], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 40, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlTensor table = check_upload(check, p.table, dtype, p.words, p.columns);
    VlTensor dy = check_upload(check, p.dy, dtype, p.tokens, p.columns), ids = check_upload_i64(check, p.ids, p.tokens);
    run->out[Y] = output_make(check, dy, VL_WRITE);
    run->out[DTABLE] = output_make(check, vl_tensor(NULL, VL_F32, p.words, p.columns), VL_ADD);
    check_ok(check, vl_embedding_forward(check->context, run->out[Y].tensor, table, ids));
    check_ok(check, vl_embedding_backward(check->context, run->out[DTABLE].tensor, dy, ids));
    check_ok(check, vl_embedding_backward(check->context, VL_EMPTY, dy, ids));
}

static void verify(const int64_t shape[3], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    Check *check = &run.check;
    Problem p = run.problem;
    reference(&p, VL_F64);
    check_tensor(check, "y", run.out[Y].tensor, p.y, 0);
    output_check(check, "dtable", run.out[DTABLE], p.dtable, p.dtable);
    check_end(check);
}

static void test_embedding_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1}, {17, 5, 7},   {65, 130, 33}, {9, 3, 2500},
                                        {0, 3, 5}, {700, 2, 17}, {90, 40, 264}, {3000, 2500, 3}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 41, 1);
    Problem p = problem_make(&check, shapes[1], VL_F64);
    reference(&p, VL_F64);
    check_differences(&check, "dtable", p.table, 35, 35, loss, &p, check_copy(&check, p.dtable, 35));
    check_end(&check);
}

// Sums in the order of T: 1e8 - 1e8 + 1 is 1 in that order only.
static void test_order(void **state) {
    (void)state;
    static const int64_t ids[] = {1, 0, 1, 1};
    static const double dy[] = {1e8, 5, -1e8, 1}, want[] = {5, 1};
    Check check;
    check_begin(&check, 42, 2);
    VlTensor dtable = check_device(&check, VL_F32, 2, 1);
    check_ok(&check, vl_embedding_backward(check.context, dtable, check_upload(&check, dy, VL_F32, 4, 1),
                                           check_upload_i64(&check, ids, 4)));
    check_tensor(&check, "dtable", dtable, want, 0);
    check_end(&check);
}

// Rows past 2^31 elements: memory that is not touched is not taken.
static void test_far(void **state) {
    (void)state;
    enum { COLUMNS = 16 };
    const int64_t words = (1LL << 31) / COLUMNS + 5, ids[] = {words - 2, 1, words - 2};
    Check check;
    check_begin(&check, 63, 2);
    double *row = check_random(&check, COLUMNS, 1.0, VL_BF16), *dy = check_random(&check, 3 * COLUMNS, 1.0, VL_BF16);
    VlTensor table = check_device(&check, VL_BF16, words, COLUMNS), index = check_upload_i64(&check, ids, 3);
    VlTensor dtable = check_device(&check, VL_F32, words, COLUMNS), y = check_output(&check, VL_BF16, 3, COLUMNS);
    check_load(&check, vl_rows(table, words - 2, 1), row);
    check_ok(&check, vl_embedding_forward(check.context, y, table, index));
    check_ok(&check,
             vl_embedding_backward(check.context, dtable, check_upload(&check, dy, VL_BF16, 3, COLUMNS), index));
    double *want = check_zeros(&check, 3 * COLUMNS), sum[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) {
        want[i] = want[2 * COLUMNS + i] = row[i];
        sum[i] = dy[i] + dy[2 * COLUMNS + i];
    }
    check_tensor(&check, "y", y, want, 0);
    check_tensor(&check, "dtable", vl_rows(dtable, words - 2, 1), sum, 1e-6);
    check_tensor(&check, "dtable", vl_rows(dtable, 1, 1), dy + COLUMNS, 0);
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
    check_begin(&check, 43, 1);
    VlContext *c = check.context;
    VlTensor y = check_device(&check, VL_F32, 4, 6), table = check_device(&check, VL_F32, 5, 6);
    VlTensor ids = check_device(&check, VL_I64, 4), fewer = check_device(&check, VL_I64, 3);
    VlTensor half = check_device(&check, VL_BF16, 4, 6), narrow = check_device(&check, VL_F32, 5, 5);
    VlTensor half_table = check_device(&check, VL_BF16, 5, 6);
    check_refused(vl_embedding_forward(c, y, table, check_upload_i64(&check, above, 4)), VL_INVALID,
                  "embedding_forward: ids[2] is 5, it must be in [0, 5)");
    check_refused(vl_embedding_forward(c, y, table, check_upload_i64(&check, below, 4)), VL_INVALID, "ids[1] is -1");
    check_refused(vl_embedding_forward(c, half, table, ids), VL_INVALID, "y is [4,6] bf16, it must be [4,6] f32");
    check_refused(vl_embedding_forward(c, y, narrow, ids), VL_INVALID, "y is [4,6] f32, it must be [4,5] f32");
    check_refused(vl_embedding_forward(c, y, table, fewer), VL_INVALID, "it must be [3,6] f32");
    check_refused(vl_embedding_forward(c, y, table, table), VL_INVALID, "ids is [5,6] f32");
    check_refused(vl_embedding_backward(c, table, y, check_upload_i64(&check, above, 4)), VL_INVALID,
                  "embedding_backward: ids[2] is 5, it must be in [0, 5)");
    check_refused(vl_embedding_backward(c, narrow, y, ids), VL_INVALID, "dtable is [5,5] f32, it must be [any,6] f32");
    check_refused(vl_embedding_backward(c, half_table, half, ids), VL_INVALID, "dtable is [5,6] bf16");
    check_refused(vl_embedding_backward(c, table, y, fewer), VL_INVALID, "ids is [3] i64, it must be [4] i64");
    check_end(&check);
}

// Indices that the host does not know are checked where they are used.
static void test_device_indices(void **state) {
    (void)state;
    static const int64_t above[] = {0, 4, 5, 1};
    Check check;
    check_begin(&check, 67, 1);
    VlContext *c = check.context;
    const char *text =
        c->device == VL_DEVICE_CUDA ? "element 2 of an index tensor is 5, it must be in [0, 5)" : "ids[2] is 5";
    double ones[30];
    for (int i = 0; i < 30; i++) ones[i] = 1;
    VlTensor y = check_upload(&check, ones, VL_F32, 4, 6), table = check_upload(&check, ones, VL_F32, 5, 6);
    VlTensor ids = check_device(&check, VL_I64, 4);
    check_ok(&check, vl_cast(c, ids, check_upload_i64(&check, above, 4)));
    check_refused(vl_embedding_forward(c, y, table, ids), VL_INVALID, text);
    check_refused(vl_embedding_backward(c, table, y, ids), VL_INVALID, text);
    check_tensor(&check, "dtable", table, ones, 0);
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embedding_gradient),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_far),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_device_indices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
